// Written by python -m manual_grad.generate from losses/pointwise/cpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct CPOLoss_alpha_0 : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T beta = option[0];
    const T q = option[1];
    const auto v1 = x - y;
    const auto v2 = beta * v1;
    const Mask<T> v3 = v2 < T{0};
    const T v4 = T{1} - q;
    const auto v5 = select(v3, splat(v4), splat(q));
    const Mask<T> v6 = v5 == T{0};
    const auto v7 = abs<T>(v2);
    const auto v8 = abs<T>(v7);
    const Mask<T> v9 = v8 == static_cast<T>(__builtin_inf());
    const Mask<T> v10 = v6 & v9;
    const auto v11 = v5 * v7;
    const auto v12 = select(v10, splat(T{0}), v11);
    const auto v13 = -v7;
    const auto v14 = Functions<S, T>::exp_not_above_1(v13);
    const auto v15 = log1p_unit<T>(v14);
    const auto v16 = v12 + v15;
    const Mask<T> v17 = v14 > T{0.5};
    const T v18 = T{2} * q;
    const T v19 = v18 - T{1};
    const auto v20 = expm1_for<S, T>(v13);
    const auto v21 = q * v20;
    const auto v22 = v19 + v21;
    const auto v23 = q * v14;
    const auto v24 = v23 - v4;
    const auto v25 = select(v17, v22, v24);
    const auto v26 = v4 * v20;
    const auto v27 = v19 - v26;
    const auto v28 = v4 * v14;
    const auto v29 = q - v28;
    const auto v30 = select(v17, v27, v29);
    const auto v31 = select(v3, v25, v30);
    const auto v32 = T{1} + v14;
    const auto v33 = v31 / v32;
    const auto v34 = beta * v33;
    const auto v35 = -v34;
    return {v16, {v34, v35}};
  }
};

struct CPOLoss_other_alpha : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T beta = option[0];
    const T q = option[1];
    const T alpha = option[2];
    const auto v1 = x - y;
    const auto v2 = beta * v1;
    const Mask<T> v3 = v2 < T{0};
    const T v4 = T{1} - q;
    const auto v5 = select(v3, splat(v4), splat(q));
    const Mask<T> v6 = v5 == T{0};
    const auto v7 = abs<T>(v2);
    const auto v8 = abs<T>(v7);
    const Mask<T> v9 = v8 == static_cast<T>(__builtin_inf());
    const Mask<T> v10 = v6 & v9;
    const auto v11 = v5 * v7;
    const auto v12 = select(v10, splat(T{0}), v11);
    const auto v13 = -v7;
    const auto v14 = Functions<S, T>::exp_not_above_1(v13);
    const auto v15 = log1p_unit<T>(v14);
    const auto v16 = v12 + v15;
    const auto v17 = alpha * x;
    const auto v18 = v16 - v17;
    const Mask<T> v19 = v14 > T{0.5};
    const T v20 = T{2} * q;
    const T v21 = v20 - T{1};
    const auto v22 = expm1_for<S, T>(v13);
    const auto v23 = q * v22;
    const auto v24 = v21 + v23;
    const auto v25 = q * v14;
    const auto v26 = v25 - v4;
    const auto v27 = select(v19, v24, v26);
    const auto v28 = v4 * v22;
    const auto v29 = v21 - v28;
    const auto v30 = v4 * v14;
    const auto v31 = q - v30;
    const auto v32 = select(v19, v29, v31);
    const auto v33 = select(v3, v27, v32);
    const auto v34 = T{1} + v14;
    const auto v35 = v33 / v34;
    const auto v36 = beta * v35;
    const auto v37 = v36 - alpha;
    const auto v38 = -v36;
    return {v18, {v37, v38}};
  }
};

struct CPOLoss : Variants {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const double alpha = call.option[2];
    if (alpha == 0.0) body(CPOLoss_alpha_0{});
    if (alpha != 0.0) body(CPOLoss_other_alpha{});
  }
};

const Op op = pointwise_op<CPOLoss>("cpo_loss");

}  // namespace
}  // namespace mg
