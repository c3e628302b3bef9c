// Written by python -m manual_grad.generate from losses/pointwise/dpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct DPOLoss : Widened {
  static constexpr int kInputs = 4, kOptions = 2;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> x0 = in[2];
    const Vec<T> y0 = in[3];
    const T beta = option[0];
    const T q = option[1];
    const auto v1 = x - x0;
    const auto v2 = y - y0;
    const auto v3 = v1 - v2;
    const auto v4 = beta * v3;
    const Mask<T> v5 = v4 < T{0};
    const T v6 = T{1} - q;
    const auto v7 = select(v5, splat(v6), splat(q));
    const Mask<T> v8 = v7 == T{0};
    const auto v9 = abs<T>(v4);
    const auto v10 = abs<T>(v9);
    const Mask<T> v11 = v10 == static_cast<T>(__builtin_inf());
    const Mask<T> v12 = v8 & v11;
    const auto v13 = v7 * v9;
    const auto v14 = select(v12, splat(T{0}), v13);
    const auto v15 = -v9;
    const auto v16 = Functions<S, T>::exp_not_above_1(v15);
    const auto v17 = log1p_unit<T>(v16);
    const auto v18 = v14 + v17;
    const Mask<T> v19 = v16 > T{0.5};
    const T v20 = T{2} * q;
    const T v21 = v20 - T{1};
    const auto v22 = expm1_for<S, T>(v15);
    const auto v23 = q * v22;
    const auto v24 = v21 + v23;
    const auto v25 = q * v16;
    const auto v26 = v25 - v6;
    const auto v27 = select(v19, v24, v26);
    const auto v28 = v6 * v22;
    const auto v29 = v21 - v28;
    const auto v30 = v6 * v16;
    const auto v31 = q - v30;
    const auto v32 = select(v19, v29, v31);
    const auto v33 = select(v5, v27, v32);
    const auto v34 = T{1} + v16;
    const auto v35 = v33 / v34;
    const auto v36 = beta * v35;
    const auto v37 = -v36;
    const auto v38 = -v37;
    return {v18, {v36, v37, v37, v38}};
  }
};

const Op op = pointwise_op<DPOLoss>("dpo_loss");

}  // namespace
}  // namespace mg
