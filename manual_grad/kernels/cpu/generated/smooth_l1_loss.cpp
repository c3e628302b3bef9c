// Written by python -m manual_grad.generate from losses/pointwise/smooth_l1_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SmoothL1Loss : Plain {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T beta = option[0];
    const Vec<T> v1 = x - t;
    const Vec<T> v2 = abs<T>(v1);
    const Mask<T> v3 = beta > v2;
    const Vec<T> v4 = v1 / beta;
    const Vec<T> v5 = T{0.5} * v4;
    const Vec<T> v6 = v5 * v1;
    const T v7 = T{0.5} * beta;
    const Vec<T> v8 = v2 - v7;
    const Vec<T> v9 = v3 ? v6 : v8;
    const Vec<T> v10 = at_least<T>(v4, T{-1});
    const Vec<T> v11 = at_most<T>(v10, T{1});
    const Vec<T> v12 = -v11;
    return {v9, {v11, v12}};
  }
};

const Op op = pointwise_op<SmoothL1Loss>("smooth_l1_loss");

}  // namespace
}  // namespace mg
