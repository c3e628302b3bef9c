// Written by python -m manual_grad.generate from losses/pointwise/huber_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct HuberLoss : Plain {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T delta = option[0];
    const auto v1 = x - t;
    const auto v2 = abs<T>(v1);
    const Mask<T> v3 = delta < v2;
    const T v4 = T{0.5} * delta;
    const auto v5 = v2 - v4;
    const auto v6 = delta * v5;
    const auto v7 = T{0.5} * v1;
    const auto v8 = v7 * v1;
    const auto v9 = select(v3, v6, v8);
    const T v10 = -delta;
    const auto v11 = Functions<S, T>::clamp_min(v1, v10);
    const auto v12 = Functions<S, T>::clamp_max(v11, delta);
    const auto v13 = -v12;
    return {v9, {v12, v13}};
  }
};

const Op op = pointwise_op<HuberLoss>("huber_loss");

}  // namespace
}  // namespace mg
