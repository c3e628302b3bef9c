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
    const Vec<T> v1 = x - x0;
    const Vec<T> v2 = y - y0;
    const Vec<T> v3 = v1 - v2;
    const Vec<T> v4 = beta * v3;
    const Mask<T> v5 = v4 < T{0};
    const T v6 = T{1} - q;
    const Vec<T> v7 = v5 ? splat(v6) : splat(q);
    const Mask<T> v8 = v7 == T{0};
    const Vec<T> v9 = abs<T>(v4);
    const Vec<T> v10 = abs<T>(v9);
    const Mask<T> v11 = v10 == static_cast<T>(__builtin_inf());
    const Mask<T> v12 = v8 & v11;
    const Vec<T> v13 = v7 * v9;
    const Vec<T> v14 = v12 ? splat(T{0}) : v13;
    const Vec<T> v15 = -v9;
    const Vec<T> v16 = exp_for<S, T>(v15);
    const Vec<T> v17 = log1p_unit<T>(v16);
    const Vec<T> v18 = v14 + v17;
    const Mask<T> v19 = v16 > T{0.5};
    const T v20 = T{2} * q;
    const T v21 = v20 - T{1};
    const Vec<T> v22 = expm1<T>(v15);
    const Vec<T> v23 = q * v22;
    const Vec<T> v24 = v21 + v23;
    const Vec<T> v25 = q * v16;
    const Vec<T> v26 = v25 - v6;
    const Vec<T> v27 = v19 ? v24 : v26;
    const Vec<T> v28 = v6 * v22;
    const Vec<T> v29 = v21 - v28;
    const Vec<T> v30 = v6 * v16;
    const Vec<T> v31 = q - v30;
    const Vec<T> v32 = v19 ? v29 : v31;
    const Vec<T> v33 = v5 ? v27 : v32;
    const Vec<T> v34 = T{1} + v16;
    const Vec<T> v35 = v33 / v34;
    const Vec<T> v36 = beta * v35;
    const Vec<T> v37 = -v36;
    const Vec<T> v38 = -v37;
    return {v18, {v36, v37, v37, v38}};
  }
};

const Op op = pointwise_op<DPOLoss>("dpo_loss");

}  // namespace
}  // namespace mg
