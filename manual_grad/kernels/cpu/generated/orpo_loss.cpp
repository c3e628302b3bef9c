// Written by python -m manual_grad.generate from losses/pointwise/orpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct ORPOLoss_alpha_0 : Widened {
  static constexpr int kInputs = 2, kOptions = 2;
  using Error = std::domain_error;
  static constexpr std::array<const char*, 2> errors{
      "policy_chosen_logps has a positive entry",
      "policy_rejected_logps has a positive entry",
  };
  template <class T>
  static void outside(const Vec<T>* in, Mask<T>* lanes) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Mask<T> v1 = x > T{0};
    const Mask<T> v2 = y > T{0};
    lanes[0] |= v1;
    lanes[1] |= v2;
  }
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T beta = option[0];
    const auto v1 = y - x;
    const Mask<T> v2 = x > T{0};
    const auto v3 = select(v2, splat(static_cast<T>(__builtin_nan(""))), x);
    const auto v4 = abs<T>(v3);
    const auto v5 = -v4;
    const auto v6 = expm1_for<S, T>(v5);
    const auto v7 = T{0} - v6;
    const Mask<T> v8 = v7 < T{0.5};
    const auto v9 = select(v8, v7, splat(T{1}));
    const auto v10 = Functions<S, T>::log(v9);
    const auto v11 = abs<T>(x);
    const auto v12 = -v11;
    const auto v13 = Functions<S, T>::exp_not_above_1(v12);
    const auto v14 = select(v8, splat(T{0}), v13);
    const auto v15 = -v14;
    const auto v16 = log1p<T>(v15);
    const auto v17 = select(v8, v10, v16);
    const Mask<T> v18 = y > T{0};
    const auto v19 = select(v18, splat(static_cast<T>(__builtin_nan(""))), y);
    const auto v20 = abs<T>(v19);
    const auto v21 = -v20;
    const auto v22 = expm1_for<S, T>(v21);
    const auto v23 = T{0} - v22;
    const Mask<T> v24 = v23 < T{0.5};
    const auto v25 = select(v24, v23, splat(T{1}));
    const auto v26 = Functions<S, T>::log(v25);
    const auto v27 = abs<T>(y);
    const auto v28 = -v27;
    const auto v29 = Functions<S, T>::exp_not_above_1(v28);
    const auto v30 = select(v24, splat(T{0}), v29);
    const auto v31 = -v30;
    const auto v32 = log1p<T>(v31);
    const auto v33 = select(v24, v26, v32);
    const auto v34 = v17 - v33;
    const auto v35 = v1 + v34;
    const Mask<T> v36 = v35 < T{0};
    const auto v37 = abs<T>(v35);
    const auto v38 = select(v36, splat(T{0}), v37);
    const auto v39 = -v37;
    const auto v40 = Functions<S, T>::exp_not_above_1(v39);
    const auto v41 = log1p_unit<T>(v40);
    const auto v42 = v38 + v41;
    const auto v43 = beta * v42;
    const Mask<T> v44 = x < y;
    const auto v45 = x - y;
    const auto v46 = abs<T>(v45);
    const auto v47 = -v46;
    const auto v48 = Functions<S, T>::exp_not_above_1(v47);
    const auto v49 = select(v44, splat(T{1}), v48);
    const auto v50 = select(v44, v48, splat(T{1}));
    const auto v51 = v50 * v23;
    const auto v52 = v7 * v49;
    const auto v53 = v51 + v52;
    const auto v54 = v49 / v53;
    const auto v55 = beta * v54;
    const auto v56 = -v55;
    const auto v57 = v7 / v23;
    const auto v58 = v55 * v57;
    return {v43, {v56, v58}};
  }
};

struct ORPOLoss_other_alpha : Widened {
  static constexpr int kInputs = 2, kOptions = 2;
  using Error = std::domain_error;
  static constexpr std::array<const char*, 2> errors{
      "policy_chosen_logps has a positive entry",
      "policy_rejected_logps has a positive entry",
  };
  template <class T>
  static void outside(const Vec<T>* in, Mask<T>* lanes) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Mask<T> v1 = x > T{0};
    const Mask<T> v2 = y > T{0};
    lanes[0] |= v1;
    lanes[1] |= v2;
  }
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T beta = option[0];
    const T alpha = option[1];
    const auto v1 = y - x;
    const Mask<T> v2 = x > T{0};
    const auto v3 = select(v2, splat(static_cast<T>(__builtin_nan(""))), x);
    const auto v4 = abs<T>(v3);
    const auto v5 = -v4;
    const auto v6 = expm1_for<S, T>(v5);
    const auto v7 = T{0} - v6;
    const Mask<T> v8 = v7 < T{0.5};
    const auto v9 = select(v8, v7, splat(T{1}));
    const auto v10 = Functions<S, T>::log(v9);
    const auto v11 = abs<T>(x);
    const auto v12 = -v11;
    const auto v13 = Functions<S, T>::exp_not_above_1(v12);
    const auto v14 = select(v8, splat(T{0}), v13);
    const auto v15 = -v14;
    const auto v16 = log1p<T>(v15);
    const auto v17 = select(v8, v10, v16);
    const Mask<T> v18 = y > T{0};
    const auto v19 = select(v18, splat(static_cast<T>(__builtin_nan(""))), y);
    const auto v20 = abs<T>(v19);
    const auto v21 = -v20;
    const auto v22 = expm1_for<S, T>(v21);
    const auto v23 = T{0} - v22;
    const Mask<T> v24 = v23 < T{0.5};
    const auto v25 = select(v24, v23, splat(T{1}));
    const auto v26 = Functions<S, T>::log(v25);
    const auto v27 = abs<T>(y);
    const auto v28 = -v27;
    const auto v29 = Functions<S, T>::exp_not_above_1(v28);
    const auto v30 = select(v24, splat(T{0}), v29);
    const auto v31 = -v30;
    const auto v32 = log1p<T>(v31);
    const auto v33 = select(v24, v26, v32);
    const auto v34 = v17 - v33;
    const auto v35 = v1 + v34;
    const Mask<T> v36 = v35 < T{0};
    const auto v37 = abs<T>(v35);
    const auto v38 = select(v36, splat(T{0}), v37);
    const auto v39 = -v37;
    const auto v40 = Functions<S, T>::exp_not_above_1(v39);
    const auto v41 = log1p_unit<T>(v40);
    const auto v42 = v38 + v41;
    const auto v43 = beta * v42;
    const auto v44 = alpha * x;
    const auto v45 = v43 - v44;
    const Mask<T> v46 = x < y;
    const auto v47 = x - y;
    const auto v48 = abs<T>(v47);
    const auto v49 = -v48;
    const auto v50 = Functions<S, T>::exp_not_above_1(v49);
    const auto v51 = select(v46, splat(T{1}), v50);
    const auto v52 = select(v46, v50, splat(T{1}));
    const auto v53 = v52 * v23;
    const auto v54 = v7 * v51;
    const auto v55 = v53 + v54;
    const auto v56 = v51 / v55;
    const auto v57 = beta * v56;
    const auto v58 = -v57;
    const auto v59 = v58 - alpha;
    const auto v60 = v7 / v23;
    const auto v61 = v57 * v60;
    return {v45, {v59, v61}};
  }
};

struct ORPOLoss : Variants {
  static constexpr int kInputs = 2, kOptions = 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const double alpha = call.option[1];
    if (alpha == 0.0) body(ORPOLoss_alpha_0{});
    if (alpha != 0.0) body(ORPOLoss_other_alpha{});
  }
};

const Op op = pointwise_op<ORPOLoss>("orpo_loss");

}  // namespace
}  // namespace mg
