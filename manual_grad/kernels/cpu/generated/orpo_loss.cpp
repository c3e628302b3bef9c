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
    const Vec<T> v1 = y - x;
    const Mask<T> v2 = x > T{0};
    const Vec<T> v3 = v2 ? splat(static_cast<T>(__builtin_nan(""))) : x;
    const Vec<T> v4 = abs<T>(v3);
    const Vec<T> v5 = -v4;
    const Vec<T> v6 = expm1<T>(v5);
    const Vec<T> v7 = T{0} - v6;
    const Mask<T> v8 = v7 < T{0.5};
    const Vec<T> v9 = v8 ? v7 : splat(T{1});
    const Vec<T> v10 = log<T>(v9);
    const Vec<T> v11 = abs<T>(x);
    const Vec<T> v12 = -v11;
    const Vec<T> v13 = exp_for<S, T>(v12);
    const Vec<T> v14 = v8 ? splat(T{0}) : v13;
    const Vec<T> v15 = -v14;
    const Vec<T> v16 = log1p<T>(v15);
    const Vec<T> v17 = v8 ? v10 : v16;
    const Mask<T> v18 = y > T{0};
    const Vec<T> v19 = v18 ? splat(static_cast<T>(__builtin_nan(""))) : y;
    const Vec<T> v20 = abs<T>(v19);
    const Vec<T> v21 = -v20;
    const Vec<T> v22 = expm1<T>(v21);
    const Vec<T> v23 = T{0} - v22;
    const Mask<T> v24 = v23 < T{0.5};
    const Vec<T> v25 = v24 ? v23 : splat(T{1});
    const Vec<T> v26 = log<T>(v25);
    const Vec<T> v27 = abs<T>(y);
    const Vec<T> v28 = -v27;
    const Vec<T> v29 = exp_for<S, T>(v28);
    const Vec<T> v30 = v24 ? splat(T{0}) : v29;
    const Vec<T> v31 = -v30;
    const Vec<T> v32 = log1p<T>(v31);
    const Vec<T> v33 = v24 ? v26 : v32;
    const Vec<T> v34 = v17 - v33;
    const Vec<T> v35 = v1 + v34;
    const Mask<T> v36 = v35 < T{0};
    const Vec<T> v37 = abs<T>(v35);
    const Vec<T> v38 = v36 ? splat(T{0}) : v37;
    const Vec<T> v39 = -v37;
    const Vec<T> v40 = exp_for<S, T>(v39);
    const Vec<T> v41 = log1p_unit<T>(v40);
    const Vec<T> v42 = v38 + v41;
    const Vec<T> v43 = beta * v42;
    const Mask<T> v44 = x < y;
    const Vec<T> v45 = x - y;
    const Vec<T> v46 = abs<T>(v45);
    const Vec<T> v47 = -v46;
    const Vec<T> v48 = exp_for<S, T>(v47);
    const Vec<T> v49 = v44 ? splat(T{1}) : v48;
    const Vec<T> v50 = v44 ? v48 : splat(T{1});
    const Vec<T> v51 = v50 * v23;
    const Vec<T> v52 = v7 * v49;
    const Vec<T> v53 = v51 + v52;
    const Vec<T> v54 = v49 / v53;
    const Vec<T> v55 = beta * v54;
    const Vec<T> v56 = -v55;
    const Vec<T> v57 = v7 / v23;
    const Vec<T> v58 = v55 * v57;
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
    const Vec<T> v1 = y - x;
    const Mask<T> v2 = x > T{0};
    const Vec<T> v3 = v2 ? splat(static_cast<T>(__builtin_nan(""))) : x;
    const Vec<T> v4 = abs<T>(v3);
    const Vec<T> v5 = -v4;
    const Vec<T> v6 = expm1<T>(v5);
    const Vec<T> v7 = T{0} - v6;
    const Mask<T> v8 = v7 < T{0.5};
    const Vec<T> v9 = v8 ? v7 : splat(T{1});
    const Vec<T> v10 = log<T>(v9);
    const Vec<T> v11 = abs<T>(x);
    const Vec<T> v12 = -v11;
    const Vec<T> v13 = exp_for<S, T>(v12);
    const Vec<T> v14 = v8 ? splat(T{0}) : v13;
    const Vec<T> v15 = -v14;
    const Vec<T> v16 = log1p<T>(v15);
    const Vec<T> v17 = v8 ? v10 : v16;
    const Mask<T> v18 = y > T{0};
    const Vec<T> v19 = v18 ? splat(static_cast<T>(__builtin_nan(""))) : y;
    const Vec<T> v20 = abs<T>(v19);
    const Vec<T> v21 = -v20;
    const Vec<T> v22 = expm1<T>(v21);
    const Vec<T> v23 = T{0} - v22;
    const Mask<T> v24 = v23 < T{0.5};
    const Vec<T> v25 = v24 ? v23 : splat(T{1});
    const Vec<T> v26 = log<T>(v25);
    const Vec<T> v27 = abs<T>(y);
    const Vec<T> v28 = -v27;
    const Vec<T> v29 = exp_for<S, T>(v28);
    const Vec<T> v30 = v24 ? splat(T{0}) : v29;
    const Vec<T> v31 = -v30;
    const Vec<T> v32 = log1p<T>(v31);
    const Vec<T> v33 = v24 ? v26 : v32;
    const Vec<T> v34 = v17 - v33;
    const Vec<T> v35 = v1 + v34;
    const Mask<T> v36 = v35 < T{0};
    const Vec<T> v37 = abs<T>(v35);
    const Vec<T> v38 = v36 ? splat(T{0}) : v37;
    const Vec<T> v39 = -v37;
    const Vec<T> v40 = exp_for<S, T>(v39);
    const Vec<T> v41 = log1p_unit<T>(v40);
    const Vec<T> v42 = v38 + v41;
    const Vec<T> v43 = beta * v42;
    const Vec<T> v44 = alpha * x;
    const Vec<T> v45 = v43 - v44;
    const Mask<T> v46 = x < y;
    const Vec<T> v47 = x - y;
    const Vec<T> v48 = abs<T>(v47);
    const Vec<T> v49 = -v48;
    const Vec<T> v50 = exp_for<S, T>(v49);
    const Vec<T> v51 = v46 ? splat(T{1}) : v50;
    const Vec<T> v52 = v46 ? v50 : splat(T{1});
    const Vec<T> v53 = v52 * v23;
    const Vec<T> v54 = v7 * v51;
    const Vec<T> v55 = v53 + v54;
    const Vec<T> v56 = v51 / v55;
    const Vec<T> v57 = beta * v56;
    const Vec<T> v58 = -v57;
    const Vec<T> v59 = v58 - alpha;
    const Vec<T> v60 = v7 / v23;
    const Vec<T> v61 = v57 * v60;
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
