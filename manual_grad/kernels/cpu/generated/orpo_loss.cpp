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
    const Mask<T> v1 = x < y;
    const auto v2 = y - x;
    const auto v3 = select(v1, v2, splat(T{0}));
    const Mask<T> v4 = x > T{0};
    const auto v5 = select(v4, splat(static_cast<T>(__builtin_nan(""))), x);
    const auto v6 = abs<T>(v5);
    const auto v7 = -v6;
    const auto v8 = expm1_for<S, T>(v7);
    const auto v9 = T{0} - v8;
    const Mask<T> v10 = y > T{0};
    const auto v11 = select(v10, splat(static_cast<T>(__builtin_nan(""))), y);
    const auto v12 = abs<T>(v11);
    const auto v13 = -v12;
    const auto v14 = expm1_for<S, T>(v13);
    const auto v15 = T{0} - v14;
    const auto v16 = v9 / v15;
    const auto v17 = v16 - T{1};
    const auto v18 = x - y;
    const auto v19 = abs<T>(v18);
    const auto v20 = -v19;
    const auto v21 = Functions<S, T>::exp_not_above_1(v20);
    const auto v22 = v17 + v21;
    const auto v23 = v21 * v16;
    const auto v24 = select(v1, v22, v23);
    const auto v25 = log1p<T>(v24);
    const auto v26 = v3 + v25;
    const auto v27 = beta * v26;
    const auto v28 = select(v1, splat(T{1}), v21);
    const auto v29 = select(v1, v21, splat(T{1}));
    const auto v30 = v29 * v15;
    const auto v31 = v9 * v28;
    const auto v32 = v30 + v31;
    const auto v33 = v28 / v32;
    const auto v34 = beta * v33;
    const auto v35 = -v34;
    const auto v36 = v34 * v16;
    return {v27, {v35, v36}};
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
    const Mask<T> v1 = x < y;
    const auto v2 = y - x;
    const auto v3 = select(v1, v2, splat(T{0}));
    const Mask<T> v4 = x > T{0};
    const auto v5 = select(v4, splat(static_cast<T>(__builtin_nan(""))), x);
    const auto v6 = abs<T>(v5);
    const auto v7 = -v6;
    const auto v8 = expm1_for<S, T>(v7);
    const auto v9 = T{0} - v8;
    const Mask<T> v10 = y > T{0};
    const auto v11 = select(v10, splat(static_cast<T>(__builtin_nan(""))), y);
    const auto v12 = abs<T>(v11);
    const auto v13 = -v12;
    const auto v14 = expm1_for<S, T>(v13);
    const auto v15 = T{0} - v14;
    const auto v16 = v9 / v15;
    const auto v17 = v16 - T{1};
    const auto v18 = x - y;
    const auto v19 = abs<T>(v18);
    const auto v20 = -v19;
    const auto v21 = Functions<S, T>::exp_not_above_1(v20);
    const auto v22 = v17 + v21;
    const auto v23 = v21 * v16;
    const auto v24 = select(v1, v22, v23);
    const auto v25 = log1p<T>(v24);
    const auto v26 = v3 + v25;
    const auto v27 = beta * v26;
    const auto v28 = alpha * x;
    const auto v29 = v27 - v28;
    const auto v30 = select(v1, splat(T{1}), v21);
    const auto v31 = select(v1, v21, splat(T{1}));
    const auto v32 = v31 * v15;
    const auto v33 = v9 * v30;
    const auto v34 = v32 + v33;
    const auto v35 = v30 / v34;
    const auto v36 = beta * v35;
    const auto v37 = -v36;
    const auto v38 = v37 - alpha;
    const auto v39 = v36 * v16;
    return {v29, {v38, v39}};
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
