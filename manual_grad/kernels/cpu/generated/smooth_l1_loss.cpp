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
    const auto v1 = x - t;
    const auto v2 = abs<T>(v1);
    const Mask<T> v3 = beta > v2;
    const auto v4 = v1 / beta;
    const auto v5 = T{0.5} * v4;
    const auto v6 = v5 * v1;
    const T v7 = T{0.5} * beta;
    const auto v8 = v2 - v7;
    const auto v9 = select(v3, v6, v8);
    const auto v10 = Functions<S, T>::clamp_min(v4, T{-1});
    const auto v11 = Functions<S, T>::clamp_max(v10, T{1});
    const auto v12 = -v11;
    return {v9, {v11, v12}};
  }
};

const Op op = pointwise_op<SmoothL1Loss>("smooth_l1_loss");

}  // namespace
}  // namespace mg
