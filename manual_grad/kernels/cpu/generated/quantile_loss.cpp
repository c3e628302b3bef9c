// Written by python -m manual_grad.generate from losses/pointwise/quantile_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct QuantileLoss : Widened {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T quantile = option[0];
    const auto v1 = x - t;
    const Mask<T> v2 = v1 < T{0};
    const T v3 = -quantile;
    const auto v4 = v3 * v1;
    const T v5 = T{1} - quantile;
    const auto v6 = v5 * v1;
    const auto v7 = select(v2, v4, v6);
    const Mask<T> v8 = v1 > T{0};
    const auto v9 = T{0} * v1;
    const auto v10 = select(v8, splat(v5), v9);
    const auto v11 = select(v2, splat(v3), v10);
    const auto v12 = -v11;
    return {v7, {v11, v12}};
  }
};

const Op op = pointwise_op<QuantileLoss>("quantile_loss");

}  // namespace
}  // namespace mg
