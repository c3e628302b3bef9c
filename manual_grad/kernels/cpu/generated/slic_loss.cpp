// Written by python -m manual_grad.generate from losses/pointwise/slic_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SLiCLoss : Widened {
  static constexpr int kInputs = 4, kOptions = 1;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> x0 = in[2];
    const Vec<T> y0 = in[3];
    const T beta = option[0];
    const Vec<T> v1 = x - x0;
    const Vec<T> v2 = y - y0;
    const Vec<T> v3 = v1 - v2;
    const Vec<T> v4 = beta * v3;
    const Vec<T> v5 = T{1} - v4;
    const Vec<T> v6 = at_least<T>(v5, T{0});
    const Mask<T> v7 = v4 < T{1};
    const T v8 = -beta;
    const Vec<T> v9 = v7 ? splat(v8) : splat(T{0});
    const Vec<T> v10 = -v9;
    const Vec<T> v11 = -v10;
    return {v6, {v9, v10, v10, v11}};
  }
};

const Op op = pointwise_op<SLiCLoss>("slic_loss");

}  // namespace
}  // namespace mg
