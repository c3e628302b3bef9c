// Written by python -m manual_grad.generate from losses/pointwise/log_cosh_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct LogCoshLoss : Widened {
  static constexpr int kInputs = 2, kOptions = 0;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = x - t;
    const auto v2 = abs<T>(v1);
    const Mask<T> v3 = v2 < T{0.75};
    const auto v4 = T{-2} * v2;
    const auto v5 = expm1_for<S, T>(v4);
    const auto v6 = T{0.25} * v5;
    const auto v7 = v6 * v5;
    const auto v8 = T{1} + v5;
    const auto v9 = v7 / v8;
    const auto v10 = T{0.5} * v5;
    const auto v11 = select(v3, v9, v10);
    const auto v12 = log1p<T>(v11);
    const auto v13 = T{0.5} * v12;
    const auto v14 = v2 + v12;
    const auto v15 = select(v3, v13, v14);
    const Mask<T> v16 = v1 < T{0};
    const auto v17 = T{2} + v5;
    const auto v18 = v5 / v17;
    const auto v19 = -v18;
    const auto v20 = select(v16, v18, v19);
    const auto v21 = -v20;
    return {v15, {v20, v21}};
  }
};

const Op op = pointwise_op<LogCoshLoss>("log_cosh_loss");

}  // namespace
}  // namespace mg
