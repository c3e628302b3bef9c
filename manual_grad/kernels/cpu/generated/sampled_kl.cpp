// Written by python -m manual_grad.generate from losses/pointwise/sampled_kl.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SampledKL_j_1_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> w = in[2];
    const Mask<T> v1 = w == T{0};
    const auto v2 = x0 - x;
    const auto v3 = -v2;
    const auto v4 = w * v3;
    const auto v5 = select(v1, splat(T{0}), v4);
    const auto v6 = w * T{-1};
    const auto v7 = select(v1, splat(T{0}), v6);
    const auto v8 = -v7;
    const auto v9 = splat(T{0});
    return {v5, {v8, v7, v9}};
  }
};

struct SampledKL_j_1_no_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kAbsent = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const auto v1 = x0 - x;
    const auto v2 = -v1;
    const auto v3 = splat(T{1});
    const auto v4 = splat(T{-1});
    return {v2, {v3, v4, Vec<T>{}}};
  }
};

struct SampledKL_j_2_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> w = in[2];
    const Mask<T> v1 = w == T{0};
    const auto v2 = x0 - x;
    const auto v3 = T{0.5} * v2;
    const auto v4 = v3 * v2;
    const auto v5 = w * v4;
    const auto v6 = select(v1, splat(T{0}), v5);
    const auto v7 = w * v2;
    const auto v8 = select(v1, splat(T{0}), v7);
    const auto v9 = -v8;
    const auto v10 = splat(T{0});
    return {v6, {v9, v8, v10}};
  }
};

struct SampledKL_j_2_no_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kAbsent = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const auto v1 = x0 - x;
    const auto v2 = T{0.5} * v1;
    const auto v3 = v2 * v1;
    const auto v4 = -v1;
    return {v3, {v4, v1, Vec<T>{}}};
  }
};

struct SampledKL_other_j_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> w = in[2];
    const Mask<T> v1 = w == T{0};
    const auto v2 = x0 - x;
    const auto v3 = exp_remainder<S, T>(v2);
    const auto v4 = w * v3;
    const auto v5 = select(v1, splat(T{0}), v4);
    const auto v6 = exp_minus_1<S, T>(v2);
    const auto v7 = w * v6;
    const auto v8 = select(v1, splat(T{0}), v7);
    const auto v9 = -v8;
    const auto v10 = splat(T{0});
    return {v5, {v9, v8, v10}};
  }
};

struct SampledKL_other_j_no_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kAbsent = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const auto v1 = x0 - x;
    const auto v2 = exp_remainder<S, T>(v1);
    const auto v3 = exp_minus_1<S, T>(v1);
    const auto v4 = -v3;
    return {v2, {v4, v3, Vec<T>{}}};
  }
};

struct SampledKL : Variants {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const double j = call.option[0];
    const bool w = call.in[2].exists();
    if (j == 1.0 && w) body(SampledKL_j_1_w{});
    if (j == 1.0 && !w) body(SampledKL_j_1_no_w{});
    if (j == 2.0 && w) body(SampledKL_j_2_w{});
    if (j == 2.0 && !w) body(SampledKL_j_2_no_w{});
    if (j != 1.0 && j != 2.0 && w) body(SampledKL_other_j_w{});
    if (j != 1.0 && j != 2.0 && !w) body(SampledKL_other_j_no_w{});
  }
};

const Op op = pointwise_op<SampledKL>("sampled_kl");

}  // namespace
}  // namespace mg
