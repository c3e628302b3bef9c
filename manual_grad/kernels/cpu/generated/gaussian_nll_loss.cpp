// Written by python -m manual_grad.generate from losses/pointwise/gaussian_nll_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct GaussianNLLLoss_full : PairedFormulas {
  static constexpr int kInputs = 3, kOptions = 2;
  using Error = std::domain_error;
  static constexpr std::array<const char*, 1> errors{
      "var has negative entry/entries; a variance must not be negative",
  };
  template <class T>
  static void outside(const Vec<T>* in, Mask<T>* lanes) {
    const Vec<T> a = in[2];
    const Mask<T> v1 = a < T{0};
    lanes[0] |= v1;
  }
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const Vec<T> a = in[2];
    const T eps = option[1];
    const Mask<T> v1 = a < T{0};
    const auto v2 = Functions<S, T>::clamp_min(a, eps);
    const auto v3 = select(v1, splat(static_cast<T>(__builtin_nan(""))), v2);
    const auto v4 = Functions<S, T>::log(v3);
    const auto v5 = x - t;
    const auto v6 = T{1} / v3;
    const auto v7 = v5 * v6;
    const auto v8 = v5 * v7;
    const auto v9 = v4 + v8;
    const auto v10 = T{0.5} * v9;
    const auto v11 = v10 + static_cast<T>(0.9189385332046727);
    const auto v12 = -v7;
    const Mask<T> v13 = v3 == static_cast<T>(__builtin_inf());
    const auto v14 = T{0} * v5;
    const auto v15 = v5 * v5;
    const auto v16 = v3 - v15;
    const auto v17 = v16 * v6;
    const auto v18 = select(v13, v14, v17);
    const auto v19 = T{0.5} * v18;
    const auto v20 = v19 * v6;
    return {v11, {v7, v12, v20}};
  }
};

struct GaussianNLLLoss_no_full : PairedFormulas {
  static constexpr int kInputs = 3, kOptions = 2;
  using Error = std::domain_error;
  static constexpr std::array<const char*, 1> errors{
      "var has negative entry/entries; a variance must not be negative",
  };
  template <class T>
  static void outside(const Vec<T>* in, Mask<T>* lanes) {
    const Vec<T> a = in[2];
    const Mask<T> v1 = a < T{0};
    lanes[0] |= v1;
  }
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const Vec<T> a = in[2];
    const T eps = option[1];
    const Mask<T> v1 = a < T{0};
    const auto v2 = Functions<S, T>::clamp_min(a, eps);
    const auto v3 = select(v1, splat(static_cast<T>(__builtin_nan(""))), v2);
    const auto v4 = Functions<S, T>::log(v3);
    const auto v5 = x - t;
    const auto v6 = T{1} / v3;
    const auto v7 = v5 * v6;
    const auto v8 = v5 * v7;
    const auto v9 = v4 + v8;
    const auto v10 = T{0.5} * v9;
    const auto v11 = -v7;
    const Mask<T> v12 = v3 == static_cast<T>(__builtin_inf());
    const auto v13 = T{0} * v5;
    const auto v14 = v5 * v5;
    const auto v15 = v3 - v14;
    const auto v16 = v15 * v6;
    const auto v17 = select(v12, v13, v16);
    const auto v18 = T{0.5} * v17;
    const auto v19 = v18 * v6;
    return {v10, {v7, v11, v19}};
  }
};

struct GaussianNLLLoss : Variants {
  static constexpr int kInputs = 3, kOptions = 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool full = call.option[0] != 0;
    if (full) body(GaussianNLLLoss_full{});
    if (!full) body(GaussianNLLLoss_no_full{});
  }
};

const Op op = pointwise_op<GaussianNLLLoss>("gaussian_nll_loss");

}  // namespace
}  // namespace mg
