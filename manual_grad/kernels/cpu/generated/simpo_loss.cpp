// Written by python -m manual_grad.generate from losses/pointwise/simpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SimPOLoss : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T beta = option[0];
    const T gamma = option[1];
    const T q = option[2];
    const auto v1 = x - y;
    const auto v2 = beta * v1;
    const auto v3 = v2 - gamma;
    const Mask<T> v4 = v3 < T{0};
    const T v5 = T{1} - q;
    const auto v6 = select(v4, splat(v5), splat(q));
    const Mask<T> v7 = v6 == T{0};
    const auto v8 = abs<T>(v3);
    const auto v9 = abs<T>(v8);
    const Mask<T> v10 = v9 == static_cast<T>(__builtin_inf());
    const Mask<T> v11 = v7 & v10;
    const auto v12 = v6 * v8;
    const auto v13 = select(v11, splat(T{0}), v12);
    const auto v14 = -v8;
    const auto v15 = Functions<S, T>::exp_not_above_1(v14);
    const auto v16 = log1p_unit<T>(v15);
    const auto v17 = v13 + v16;
    const Mask<T> v18 = v15 > T{0.5};
    const T v19 = T{2} * q;
    const T v20 = v19 - T{1};
    const auto v21 = expm1_for<S, T>(v14);
    const auto v22 = q * v21;
    const auto v23 = v20 + v22;
    const auto v24 = q * v15;
    const auto v25 = v24 - v5;
    const auto v26 = select(v18, v23, v25);
    const auto v27 = v5 * v21;
    const auto v28 = v20 - v27;
    const auto v29 = v5 * v15;
    const auto v30 = q - v29;
    const auto v31 = select(v18, v28, v30);
    const auto v32 = select(v4, v26, v31);
    const auto v33 = T{1} + v15;
    const auto v34 = v32 / v33;
    const auto v35 = beta * v34;
    const auto v36 = -v35;
    return {v17, {v35, v36}};
  }
};

const Op op = pointwise_op<SimPOLoss>("simpo_loss");

}  // namespace
}  // namespace mg
