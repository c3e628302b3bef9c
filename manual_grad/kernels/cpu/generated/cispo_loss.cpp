// Written by python -m manual_grad.generate from losses/pointwise/cispo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct CISPOLoss_w : Widened {
  static constexpr int kInputs = 4, kOptions = 1;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> r = in[1];
    const Vec<T> A = in[2];
    const Vec<T> w = in[3];
    const T most = option[0];
    const Mask<T> v1 = w == T{0};
    const auto v2 = -A;
    const auto v3 = Functions<S, T>::exp(r);
    const auto v4 = Functions<S, T>::clamp_max(v3, most);
    const auto v5 = v2 * v4;
    const auto v6 = v5 * x;
    const auto v7 = w * v6;
    const auto v8 = select(v1, splat(T{0}), v7);
    const auto v9 = w * v5;
    const auto v10 = select(v1, splat(T{0}), v9);
    const auto v11 = splat(T{0});
    return {v8, {v10, v11, v11, v11}};
  }
};

struct CISPOLoss_no_w : Widened {
  static constexpr int kInputs = 4, kOptions = 1;
  static constexpr unsigned kAbsent = 1u << 3;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> r = in[1];
    const Vec<T> A = in[2];
    const T most = option[0];
    const auto v1 = -A;
    const auto v2 = Functions<S, T>::exp(r);
    const auto v3 = Functions<S, T>::clamp_max(v2, most);
    const auto v4 = v1 * v3;
    const auto v5 = v4 * x;
    const auto v6 = splat(T{0});
    return {v5, {v4, v6, v6, Vec<T>{}}};
  }
};

struct CISPOLoss : Variants {
  static constexpr int kInputs = 4, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 3;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool w = call.in[3].exists();
    if (w) body(CISPOLoss_w{});
    if (!w) body(CISPOLoss_no_w{});
  }
};

const Op op = pointwise_op<CISPOLoss>("cispo_loss");

}  // namespace
}  // namespace mg
