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
    const auto v1 = x - x0;
    const auto v2 = y - y0;
    const auto v3 = v1 - v2;
    const auto v4 = beta * v3;
    const auto v5 = T{1} - v4;
    const auto v6 = Functions<S, T>::clamp_min(v5, T{0});
    const Mask<T> v7 = v4 < T{1};
    const T v8 = -beta;
    const auto v9 = select(v7, splat(v8), splat(T{0}));
    const auto v10 = -v9;
    const auto v11 = -v10;
    return {v6, {v9, v10, v10, v11}};
  }
};

const Op op = pointwise_op<SLiCLoss>("slic_loss");

}  // namespace
}  // namespace mg
