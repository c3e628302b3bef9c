// Written by python -m manual_grad.generate from losses/pointwise/exo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct EXOLoss : Widened {
  static constexpr int kInputs = 4, kOptions = 3;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> x0 = in[2];
    const Vec<T> y0 = in[3];
    const T beta = option[0];
    const T right = option[1];
    const T wrong = option[2];
    const auto v1 = x - x0;
    const auto v2 = y - y0;
    const auto v3 = v1 - v2;
    const auto v4 = beta * v3;
    const Mask<T> v5 = v4 < T{0};
    const T v6 = wrong - right;
    const auto v7 = v6 - v4;
    const auto v8 = -v7;
    const auto v9 = select(v5, v7, v8);
    const auto v10 = abs<T>(v9);
    const Mask<T> v11 = v10 < T{0.5};
    const auto v12 = abs<T>(v4);
    const auto v13 = -v12;
    const auto v14 = Functions<S, T>::exp_not_above_1(v13);
    const auto v15 = T{1} + v14;
    const auto v16 = v14 / v15;
    const auto v17 = select(v11, v9, splat(T{0}));
    const auto v18 = exp_remainder<S, T>(v17);
    const auto v19 = v16 * v18;
    const auto v20 = v17 + v18;
    const auto v21 = v16 * v20;
    const auto v22 = log1p<T>(v21);
    const auto v23 = exp_remainder<S, T>(v22);
    const auto v24 = v19 - v23;
    const auto v25 = select(v5, splat(wrong), splat(right));
    const auto v26 = log1p_unit<T>(v14);
    const auto v27 = v25 - v26;
    const Mask<T> v28 = v16 == T{0};
    const Mask<T> v29 = v10 == static_cast<T>(__builtin_inf());
    const Mask<T> v30 = v28 & v29;
    const auto v31 = v16 * v9;
    const auto v32 = select(v30, splat(T{0}), v31);
    const auto v33 = v27 - v32;
    const auto v34 = select(v11, v24, v33);
    const auto v35 = v15 * v15;
    const auto v36 = v14 / v35;
    const Mask<T> v37 = v36 == T{0};
    const auto v38 = v4 - v6;
    const auto v39 = abs<T>(v38);
    const Mask<T> v40 = v39 == static_cast<T>(__builtin_inf());
    const Mask<T> v41 = v37 & v40;
    const auto v42 = v36 * v38;
    const auto v43 = select(v41, splat(T{0}), v42);
    const auto v44 = beta * v43;
    const auto v45 = -v44;
    const auto v46 = -v45;
    return {v34, {v44, v45, v45, v46}};
  }
};

const Op op = pointwise_op<EXOLoss>("exo_loss");

}  // namespace
}  // namespace mg
