// Written by python -m manual_grad.generate from losses/pointwise/gaussian_nll_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct GaussianNLLLoss_full : Widened {
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
    const Vec<T> v2 = at_least<T>(a, eps);
    const Vec<T> v3 = v1 ? splat(static_cast<T>(__builtin_nan(""))) : v2;
    const Vec<T> v4 = log<T>(v3);
    const Vec<T> v5 = x - t;
    const Vec<T> v6 = T{1} / v3;
    const Vec<T> v7 = v5 * v6;
    const Vec<T> v8 = v5 * v7;
    const Vec<T> v9 = v4 + v8;
    const Vec<T> v10 = T{0.5} * v9;
    const Vec<T> v11 = v10 + static_cast<T>(0.9189385332046727);
    const Vec<T> v12 = -v7;
    const Mask<T> v13 = v3 == static_cast<T>(__builtin_inf());
    const Vec<T> v14 = T{0} * v5;
    const Vec<T> v15 = v5 * v5;
    const Vec<T> v16 = v3 - v15;
    const Vec<T> v17 = v16 * v6;
    const Vec<T> v18 = v13 ? v14 : v17;
    const Vec<T> v19 = T{0.5} * v18;
    const Vec<T> v20 = v19 * v6;
    return {v11, {v7, v12, v20}};
  }
};

struct GaussianNLLLoss_no_full : Widened {
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
    const Vec<T> v2 = at_least<T>(a, eps);
    const Vec<T> v3 = v1 ? splat(static_cast<T>(__builtin_nan(""))) : v2;
    const Vec<T> v4 = log<T>(v3);
    const Vec<T> v5 = x - t;
    const Vec<T> v6 = T{1} / v3;
    const Vec<T> v7 = v5 * v6;
    const Vec<T> v8 = v5 * v7;
    const Vec<T> v9 = v4 + v8;
    const Vec<T> v10 = T{0.5} * v9;
    const Vec<T> v11 = -v7;
    const Mask<T> v12 = v3 == static_cast<T>(__builtin_inf());
    const Vec<T> v13 = T{0} * v5;
    const Vec<T> v14 = v5 * v5;
    const Vec<T> v15 = v3 - v14;
    const Vec<T> v16 = v15 * v6;
    const Vec<T> v17 = v12 ? v13 : v16;
    const Vec<T> v18 = T{0.5} * v17;
    const Vec<T> v19 = v18 * v6;
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
