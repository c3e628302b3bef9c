// Written by python -m manual_grad.generate from losses/pointwise/poisson_nll_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct PoissonNLLLoss_log_input_full : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = Functions<S, T>::exp(x);
    const Mask<T> v2 = t == T{0};
    const Mask<T> v3 = x == static_cast<T>(-__builtin_inf());
    const Mask<T> v4 = v2 & v3;
    const auto v5 = t * x;
    const auto v6 = select(v4, splat(T{0}), v5);
    const auto v7 = v1 - v6;
    const Mask<T> v8 = t <= T{1};
    const auto v9 = Functions<S, T>::clamp_min(t, T{1});
    const auto v10 = v9 + T{0.5};
    const auto v11 = Functions<S, T>::log(v9);
    const auto v12 = v10 * v11;
    const auto v13 = v12 - v9;
    const auto v14 = v13 + static_cast<T>(0.9189385332046727);
    const auto v15 = select(v8, splat(T{0}), v14);
    const auto v16 = v7 + v15;
    const auto v17 = v1 - t;
    const auto v18 = -x;
    const auto v19 = T{0.5} / v9;
    const auto v20 = v11 + v19;
    const auto v21 = select(v8, splat(T{0}), v20);
    const auto v22 = v18 + v21;
    return {v16, {v17, v22}};
  }
};

struct PoissonNLLLoss_log_input_no_full : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = Functions<S, T>::exp(x);
    const Mask<T> v2 = t == T{0};
    const Mask<T> v3 = x == static_cast<T>(-__builtin_inf());
    const Mask<T> v4 = v2 & v3;
    const auto v5 = t * x;
    const auto v6 = select(v4, splat(T{0}), v5);
    const auto v7 = v1 - v6;
    const auto v8 = v1 - t;
    const auto v9 = -x;
    return {v7, {v8, v9}};
  }
};

struct PoissonNLLLoss_no_log_input_full : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T eps = option[2];
    const auto v1 = x + eps;
    const auto v2 = Functions<S, T>::log(v1);
    const auto v3 = t * v2;
    const auto v4 = x - v3;
    const Mask<T> v5 = t <= T{1};
    const auto v6 = Functions<S, T>::clamp_min(t, T{1});
    const auto v7 = v6 + T{0.5};
    const auto v8 = Functions<S, T>::log(v6);
    const auto v9 = v7 * v8;
    const auto v10 = v9 - v6;
    const auto v11 = v10 + static_cast<T>(0.9189385332046727);
    const auto v12 = select(v5, splat(T{0}), v11);
    const auto v13 = v4 + v12;
    const Mask<T> v14 = v1 == static_cast<T>(__builtin_inf());
    const auto v15 = t / v1;
    const auto v16 = T{1} - v15;
    const auto v17 = x - t;
    const auto v18 = v17 + eps;
    const auto v19 = v18 / v1;
    const auto v20 = select(v14, v16, v19);
    const auto v21 = -v2;
    const auto v22 = T{0.5} / v6;
    const auto v23 = v8 + v22;
    const auto v24 = select(v5, splat(T{0}), v23);
    const auto v25 = v21 + v24;
    return {v13, {v20, v25}};
  }
};

struct PoissonNLLLoss_no_log_input_no_full : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T eps = option[2];
    const auto v1 = x + eps;
    const auto v2 = Functions<S, T>::log(v1);
    const auto v3 = t * v2;
    const auto v4 = x - v3;
    const Mask<T> v5 = v1 == static_cast<T>(__builtin_inf());
    const auto v6 = t / v1;
    const auto v7 = T{1} - v6;
    const auto v8 = x - t;
    const auto v9 = v8 + eps;
    const auto v10 = v9 / v1;
    const auto v11 = select(v5, v7, v10);
    const auto v12 = -v2;
    return {v4, {v11, v12}};
  }
};

struct PoissonNLLLoss : Variants {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool log_input = call.option[0] != 0;
    const bool full = call.option[1] != 0;
    if (log_input && full) body(PoissonNLLLoss_log_input_full{});
    if (log_input && !full) body(PoissonNLLLoss_log_input_no_full{});
    if (!log_input && full) body(PoissonNLLLoss_no_log_input_full{});
    if (!log_input && !full) body(PoissonNLLLoss_no_log_input_no_full{});
  }
};

const Op op = pointwise_op<PoissonNLLLoss>("poisson_nll_loss");

}  // namespace
}  // namespace mg
