// Written by python -m manual_grad.generate from losses/pointwise/tweedie_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct TweedieLoss_power_0_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = T{2.0} * x;
    const auto v2 = Functions<S, T>::exp(v1);
    const auto v3 = abs<T>(v1);
    const Mask<T> v4 = v3 < T{1000.0};
    const auto v5 = fma(splat(T{2.0}), x, -(T{2.0} * x));
    const auto v6 = select(v4, v5, splat(T{0}));
    const auto v7 = T{1} + v6;
    const auto v8 = v2 * v7;
    const auto v9 = v8 / T{2.0};
    const Mask<T> v10 = t == T{0};
    const auto v11 = T{1.0} * x;
    const auto v12 = Functions<S, T>::exp(v11);
    const auto v13 = abs<T>(v11);
    const Mask<T> v14 = v13 < T{1000.0};
    const auto v15 = fma(splat(T{1.0}), x, -(T{1.0} * x));
    const auto v16 = select(v14, v15, splat(T{0}));
    const auto v17 = T{1} + v16;
    const auto v18 = v12 * v17;
    const auto v19 = v18 / T{1.0};
    const auto v20 = t * v19;
    const auto v21 = select(v10, splat(T{0}), v20);
    const auto v22 = v9 - v21;
    const Mask<T> v23 = x > T{0};
    const Mask<T> v24 = v23 | v10;
    const auto v25 = abs<T>(x);
    const auto v26 = -v25;
    const auto v27 = Functions<S, T>::exp_not_above_1(v26);
    const auto v28 = t * v27;
    const auto v29 = T{1} - v28;
    const auto v30 = v8 * v29;
    const auto v31 = v27 - t;
    const auto v32 = v18 * v31;
    const auto v33 = select(v24, v30, v32);
    const auto v34 = -v19;
    return {v22, {v33, v34}};
  }
};

struct TweedieLoss_power_0_no_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T eps = option[2];
    const auto v1 = x + eps;
    const auto v2 = v1 * v1;
    const auto v3 = v2 / T{2.0};
    const Mask<T> v4 = t == T{0};
    const auto v5 = v1 / T{1.0};
    const auto v6 = t * v5;
    const auto v7 = select(v4, splat(T{0}), v6);
    const auto v8 = v3 - v7;
    const Mask<T> v9 = v1 == static_cast<T>(__builtin_inf());
    const auto v10 = x - t;
    const auto v11 = v10 + eps;
    const auto v12 = T{1} * v11;
    const auto v13 = select(v9, v1, v12);
    const auto v14 = -v5;
    return {v8, {v13, v14}};
  }
};

struct TweedieLoss_power_1_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = T{1.0} * x;
    const auto v2 = Functions<S, T>::exp(v1);
    const auto v3 = abs<T>(v1);
    const Mask<T> v4 = v3 < T{1000.0};
    const auto v5 = fma(splat(T{1.0}), x, -(T{1.0} * x));
    const auto v6 = select(v4, v5, splat(T{0}));
    const auto v7 = T{1} + v6;
    const auto v8 = v2 * v7;
    const auto v9 = v8 / T{1.0};
    const Mask<T> v10 = t == T{0};
    const auto v11 = t * x;
    const auto v12 = select(v10, splat(T{0}), v11);
    const auto v13 = v9 - v12;
    const Mask<T> v14 = x > T{0};
    const Mask<T> v15 = v14 | v10;
    const auto v16 = abs<T>(x);
    const auto v17 = -v16;
    const auto v18 = Functions<S, T>::exp_not_above_1(v17);
    const auto v19 = t * v18;
    const auto v20 = T{1} - v19;
    const auto v21 = v8 * v20;
    const auto v22 = v18 - t;
    const auto v23 = T{1} * v22;
    const auto v24 = select(v15, v21, v23);
    const auto v25 = -x;
    return {v13, {v24, v25}};
  }
};

struct TweedieLoss_power_1_no_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T eps = option[2];
    const auto v1 = x + eps;
    const auto v2 = v1 / T{1.0};
    const Mask<T> v3 = t == T{0};
    const auto v4 = Functions<S, T>::log(v1);
    const auto v5 = t * v4;
    const auto v6 = select(v3, splat(T{0}), v5);
    const auto v7 = v2 - v6;
    const Mask<T> v8 = v1 == static_cast<T>(__builtin_inf());
    const auto v9 = T{1} / v1;
    const auto v10 = x - t;
    const auto v11 = v10 + eps;
    const auto v12 = v9 * v11;
    const auto v13 = select(v8, splat(T{1}), v12);
    const auto v14 = -v4;
    return {v7, {v13, v14}};
  }
};

struct TweedieLoss_power_2_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const Mask<T> v1 = t == T{0};
    const auto v2 = T{-1.0} * x;
    const auto v3 = Functions<S, T>::exp(v2);
    const auto v4 = abs<T>(v2);
    const Mask<T> v5 = v4 < T{1000.0};
    const auto v6 = fma(splat(T{-1.0}), x, -(T{-1.0} * x));
    const auto v7 = select(v5, v6, splat(T{0}));
    const auto v8 = T{1} + v7;
    const auto v9 = v3 * v8;
    const auto v10 = v9 / T{-1.0};
    const auto v11 = t * v10;
    const auto v12 = select(v1, splat(T{0}), v11);
    const auto v13 = x - v12;
    const Mask<T> v14 = x > T{0};
    const Mask<T> v15 = v14 | v1;
    const auto v16 = abs<T>(x);
    const auto v17 = -v16;
    const auto v18 = Functions<S, T>::exp_not_above_1(v17);
    const auto v19 = t * v18;
    const auto v20 = T{1} - v19;
    const auto v21 = T{1} * v20;
    const auto v22 = v18 - t;
    const auto v23 = v9 * v22;
    const auto v24 = select(v15, v21, v23);
    const auto v25 = -v10;
    return {v13, {v24, v25}};
  }
};

struct TweedieLoss_power_2_no_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T eps = option[2];
    const auto v1 = x + eps;
    const auto v2 = Functions<S, T>::log(v1);
    const Mask<T> v3 = t == T{0};
    const auto v4 = T{1} / v1;
    const auto v5 = v4 / T{-1.0};
    const auto v6 = t * v5;
    const auto v7 = select(v3, splat(T{0}), v6);
    const auto v8 = v2 - v7;
    const Mask<T> v9 = v1 == static_cast<T>(__builtin_inf());
    const auto v10 = pow<S, T>(v1, T{-2.0});
    const auto v11 = x - t;
    const auto v12 = v11 + eps;
    const auto v13 = v10 * v12;
    const auto v14 = select(v9, v4, v13);
    const auto v15 = -v5;
    return {v8, {v14, v15}};
  }
};

struct TweedieLoss_other_power_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T power = option[0];
    const T v1 = T{2} - power;
    const auto v2 = v1 * x;
    const auto v3 = Functions<S, T>::exp(v2);
    const auto v4 = abs<T>(v2);
    const Mask<T> v5 = v4 < T{1000.0};
    const auto v6 = fma(splat(v1), x, -(v1 * x));
    const auto v7 = select(v5, v6, splat(T{0}));
    const auto v8 = T{1} + v7;
    const auto v9 = v3 * v8;
    const auto v10 = v9 / v1;
    const Mask<T> v11 = t == T{0};
    const T v12 = T{1} - power;
    const auto v13 = v12 * x;
    const auto v14 = Functions<S, T>::exp(v13);
    const auto v15 = abs<T>(v13);
    const Mask<T> v16 = v15 < T{1000.0};
    const auto v17 = fma(splat(v12), x, -(v12 * x));
    const auto v18 = select(v16, v17, splat(T{0}));
    const auto v19 = T{1} + v18;
    const auto v20 = v14 * v19;
    const auto v21 = v20 / v12;
    const auto v22 = t * v21;
    const auto v23 = select(v11, splat(T{0}), v22);
    const auto v24 = v10 - v23;
    const Mask<T> v25 = x > T{0};
    const Mask<T> v26 = v25 | v11;
    const auto v27 = abs<T>(x);
    const auto v28 = -v27;
    const auto v29 = Functions<S, T>::exp_not_above_1(v28);
    const auto v30 = t * v29;
    const auto v31 = T{1} - v30;
    const auto v32 = v9 * v31;
    const auto v33 = v29 - t;
    const auto v34 = v20 * v33;
    const auto v35 = select(v26, v32, v34);
    const auto v36 = -v21;
    return {v24, {v35, v36}};
  }
};

struct TweedieLoss_other_power_no_log_input : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T power = option[0];
    const T eps = option[2];
    const auto v1 = x + eps;
    const T v2 = T{2} - power;
    const auto v3 = pow<S, T>(v1, v2);
    const auto v4 = v3 / v2;
    const Mask<T> v5 = t == T{0};
    const T v6 = T{1} - power;
    const auto v7 = pow<S, T>(v1, v6);
    const auto v8 = v7 / v6;
    const auto v9 = t * v8;
    const auto v10 = select(v5, splat(T{0}), v9);
    const auto v11 = v4 - v10;
    const Mask<T> v12 = v1 == static_cast<T>(__builtin_inf());
    const T v13 = -power;
    const auto v14 = pow<S, T>(v1, v13);
    const auto v15 = x - t;
    const auto v16 = v15 + eps;
    const auto v17 = v14 * v16;
    const auto v18 = select(v12, v7, v17);
    const auto v19 = -v8;
    return {v11, {v18, v19}};
  }
};

struct TweedieLoss : Variants {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const double power = call.option[0];
    const bool log_input = call.option[1] != 0;
    if (power == 0.0 && log_input) body(TweedieLoss_power_0_log_input{});
    if (power == 0.0 && !log_input) body(TweedieLoss_power_0_no_log_input{});
    if (power == 1.0 && log_input) body(TweedieLoss_power_1_log_input{});
    if (power == 1.0 && !log_input) body(TweedieLoss_power_1_no_log_input{});
    if (power == 2.0 && log_input) body(TweedieLoss_power_2_log_input{});
    if (power == 2.0 && !log_input) body(TweedieLoss_power_2_no_log_input{});
    if (power != 0.0 && power != 1.0 && power != 2.0 && log_input) body(TweedieLoss_other_power_log_input{});
    if (power != 0.0 && power != 1.0 && power != 2.0 && !log_input) body(TweedieLoss_other_power_no_log_input{});
  }
};

const Op op = pointwise_op<TweedieLoss>("tweedie_loss");

}  // namespace
}  // namespace mg
