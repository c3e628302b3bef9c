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
    const auto v8 = Functions<S, T>::log(v7);
    const Mask<T> v9 = y > T{0};
    const auto v10 = select(v9, splat(static_cast<T>(__builtin_nan(""))), y);
    const auto v11 = abs<T>(v10);
    const auto v12 = -v11;
    const auto v13 = expm1_for<S, T>(v12);
    const auto v14 = T{0} - v13;
    const auto v15 = Functions<S, T>::log(v14);
    const auto v16 = v8 - v15;
    const auto v17 = v1 + v16;
    const Mask<T> v18 = v17 < T{0};
    const auto v19 = abs<T>(v17);
    const auto v20 = select(v18, splat(T{0}), v19);
    const auto v21 = -v19;
    const auto v22 = Functions<S, T>::exp_not_above_1(v21);
    const auto v23 = log1p_unit<T>(v22);
    const auto v24 = v20 + v23;
    const auto v25 = beta * v24;
    const Mask<T> v26 = x < y;
    const auto v27 = x - y;
    const auto v28 = abs<T>(v27);
    const auto v29 = -v28;
    const auto v30 = Functions<S, T>::exp_not_above_1(v29);
    const auto v31 = select(v26, splat(T{1}), v30);
    const auto v32 = select(v26, v30, splat(T{1}));
    const auto v33 = v32 * v14;
    const auto v34 = v7 * v31;
    const auto v35 = v33 + v34;
    const auto v36 = v31 / v35;
    const auto v37 = beta * v36;
    const auto v38 = -v37;
    const auto v39 = v7 / v14;
    const auto v40 = v37 * v39;
    return {v25, {v38, v40}};
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
    const auto v8 = Functions<S, T>::log(v7);
    const Mask<T> v9 = y > T{0};
    const auto v10 = select(v9, splat(static_cast<T>(__builtin_nan(""))), y);
    const auto v11 = abs<T>(v10);
    const auto v12 = -v11;
    const auto v13 = expm1_for<S, T>(v12);
    const auto v14 = T{0} - v13;
    const auto v15 = Functions<S, T>::log(v14);
    const auto v16 = v8 - v15;
    const auto v17 = v1 + v16;
    const Mask<T> v18 = v17 < T{0};
    const auto v19 = abs<T>(v17);
    const auto v20 = select(v18, splat(T{0}), v19);
    const auto v21 = -v19;
    const auto v22 = Functions<S, T>::exp_not_above_1(v21);
    const auto v23 = log1p_unit<T>(v22);
    const auto v24 = v20 + v23;
    const auto v25 = beta * v24;
    const auto v26 = alpha * x;
    const auto v27 = v25 - v26;
    const Mask<T> v28 = x < y;
    const auto v29 = x - y;
    const auto v30 = abs<T>(v29);
    const auto v31 = -v30;
    const auto v32 = Functions<S, T>::exp_not_above_1(v31);
    const auto v33 = select(v28, splat(T{1}), v32);
    const auto v34 = select(v28, v32, splat(T{1}));
    const auto v35 = v34 * v14;
    const auto v36 = v7 * v33;
    const auto v37 = v35 + v36;
    const auto v38 = v33 / v37;
    const auto v39 = beta * v38;
    const auto v40 = -v39;
    const auto v41 = v40 - alpha;
    const auto v42 = v7 / v14;
    const auto v43 = v39 * v42;
    return {v27, {v41, v43}};
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
