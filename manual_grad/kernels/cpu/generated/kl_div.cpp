// Written by python -m manual_grad.generate from losses/pointwise/kl_div.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct KLDivLoss_log_target : PairedFormulas {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = Functions<S, T>::exp(t);
    const Mask<T> v2 = v1 == T{0};
    const Mask<T> v3 = x != x;
    const Mask<T> v4 = ~v3;
    const Mask<T> v5 = v2 & v4;
    const auto v6 = t - x;
    const auto v7 = v1 * v6;
    const auto v8 = select(v5, splat(T{0}), v7);
    const auto v9 = -v1;
    const auto v10 = v6 + T{1};
    const auto v11 = v1 * v10;
    const auto v12 = select(v5, splat(T{0}), v11);
    return {v8, {v9, v12}};
  }
};

struct KLDivLoss_no_log_target : PairedFormulas {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const Mask<T> v1 = t == T{0};
    const Mask<T> v2 = x != x;
    const Mask<T> v3 = ~v2;
    const Mask<T> v4 = v1 & v3;
    const auto v5 = Functions<S, T>::log(t);
    const auto v6 = v5 - x;
    const auto v7 = t * v6;
    const auto v8 = select(v4, splat(T{0}), v7);
    const auto v9 = -t;
    const auto v10 = v6 + T{1};
    const auto v11 = select(v4, splat(T{0}), v10);
    return {v8, {v9, v11}};
  }
};

struct KLDivLoss : Variants {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool log_target = call.option[0] != 0;
    if (log_target) body(KLDivLoss_log_target{});
    if (!log_target) body(KLDivLoss_no_log_target{});
  }
};

const Op op = pointwise_op<KLDivLoss>("kl_div");

}  // namespace
}  // namespace mg
