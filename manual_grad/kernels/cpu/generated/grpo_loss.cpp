// Written by python -m manual_grad.generate from losses/pointwise/grpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct GRPOLoss_w : Widened {
  static constexpr int kInputs = 5, kOptions = 4;
  template <class S, class T>
  static Element<T, 5> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const Vec<T> y = in[3];
    const Vec<T> w = in[4];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
    const T beta = option[3];
    const Mask<T> v1 = w == T{0};
    const auto v2 = -A;
    const Mask<T> v3 = A < T{0};
    const auto v4 = x - x0;
    const auto v5 = Functions<S, T>::exp(v4);
    const auto v6 = Functions<S, T>::clamp_min(v5, low);
    const auto v7 = Functions<S, T>::clamp_max(v6, delta);
    const auto v8 = Functions<S, T>::clamp_max(v5, high);
    const auto v9 = select(v3, v7, v8);
    const auto v10 = v2 * v9;
    const auto v11 = y - x;
    const auto v12 = exp_remainder<S, T>(v11);
    const auto v13 = beta * v12;
    const auto v14 = v10 + v13;
    const auto v15 = w * v14;
    const auto v16 = select(v1, splat(T{0}), v15);
    const Mask<T> v17 = low > v5;
    const Mask<T> v18 = delta < v5;
    const Mask<T> v19 = v17 | v18;
    const Mask<T> v20 = v3 & v19;
    const Mask<T> v21 = ~v3;
    const Mask<T> v22 = high < v5;
    const Mask<T> v23 = v21 & v22;
    const Mask<T> v24 = v20 | v23;
    const auto v25 = v2 * v5;
    const auto v26 = select(v24, splat(T{0}), v25);
    const auto v27 = exp_minus_1<S, T>(v11);
    const auto v28 = beta * v27;
    const auto v29 = v26 - v28;
    const auto v30 = w * v29;
    const auto v31 = select(v1, splat(T{0}), v30);
    const auto v32 = -v26;
    const auto v33 = w * v32;
    const auto v34 = select(v1, splat(T{0}), v33);
    const auto v35 = splat(T{0});
    const auto v36 = w * v28;
    const auto v37 = select(v1, splat(T{0}), v36);
    return {v16, {v31, v34, v35, v37, v35}};
  }
};

struct GRPOLoss_no_w : Widened {
  static constexpr int kInputs = 5, kOptions = 4;
  static constexpr unsigned kAbsent = 1u << 4;
  template <class S, class T>
  static Element<T, 5> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const Vec<T> y = in[3];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
    const T beta = option[3];
    const auto v1 = -A;
    const Mask<T> v2 = A < T{0};
    const auto v3 = x - x0;
    const auto v4 = Functions<S, T>::exp(v3);
    const auto v5 = Functions<S, T>::clamp_min(v4, low);
    const auto v6 = Functions<S, T>::clamp_max(v5, delta);
    const auto v7 = Functions<S, T>::clamp_max(v4, high);
    const auto v8 = select(v2, v6, v7);
    const auto v9 = v1 * v8;
    const auto v10 = y - x;
    const auto v11 = exp_remainder<S, T>(v10);
    const auto v12 = beta * v11;
    const auto v13 = v9 + v12;
    const Mask<T> v14 = low > v4;
    const Mask<T> v15 = delta < v4;
    const Mask<T> v16 = v14 | v15;
    const Mask<T> v17 = v2 & v16;
    const Mask<T> v18 = ~v2;
    const Mask<T> v19 = high < v4;
    const Mask<T> v20 = v18 & v19;
    const Mask<T> v21 = v17 | v20;
    const auto v22 = v1 * v4;
    const auto v23 = select(v21, splat(T{0}), v22);
    const auto v24 = exp_minus_1<S, T>(v10);
    const auto v25 = beta * v24;
    const auto v26 = v23 - v25;
    const auto v27 = -v23;
    const auto v28 = splat(T{0});
    return {v13, {v26, v27, v28, v25, Vec<T>{}}};
  }
};

struct GRPOLoss : Variants {
  static constexpr int kInputs = 5, kOptions = 4;
  static constexpr unsigned kOptional = 1u << 4;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool w = call.in[4].exists();
    if (w) body(GRPOLoss_w{});
    if (!w) body(GRPOLoss_no_w{});
  }
};

const Op op = pointwise_op<GRPOLoss>("grpo_loss");

}  // namespace
}  // namespace mg
