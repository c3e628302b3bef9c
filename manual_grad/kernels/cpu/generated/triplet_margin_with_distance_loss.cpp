// Written by python -m manual_grad.generate from losses/pairwise/triplet_margin_with_distance_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct TripletMarginWithDistanceLoss_z : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> z = in[2];
    const T margin = option[0];
    const auto v1 = y < z ? y : (y == y ? z : y);
    const auto v2 = x - v1;
    const auto v3 = margin + v2;
    const auto v4 = Functions<S, T>::clamp_min(v3, T{0});
    const Mask<T> v5 = v3 < T{0};
    const auto v6 = select(v5, splat(T{0.0}), splat(T{1}));
    const Mask<T> v7 = y == z;
    const Mask<T> v8 = z < y;
    const auto v9 = select(v8, splat(T{1}), splat(T{0}));
    const auto v10 = select(v7, splat(T{0.5}), v9);
    const auto v11 = T{1} - v10;
    const auto v12 = -v11;
    const auto v13 = v12 * v6;
    const auto v14 = -v10;
    const auto v15 = v14 * v6;
    return {v4, {v6, v13, v15}};
  }
};

struct TripletMarginWithDistanceLoss_no_z : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kAbsent = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T margin = option[0];
    const auto v1 = x - y;
    const auto v2 = margin + v1;
    const auto v3 = Functions<S, T>::clamp_min(v2, T{0});
    const Mask<T> v4 = v2 < T{0};
    const auto v5 = select(v4, splat(T{0.0}), splat(T{1}));
    const auto v6 = T{-1} * v5;
    return {v3, {v5, v6, Vec<T>{}}};
  }
};

struct TripletMarginWithDistanceLoss : Variants {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool z = call.in[2].exists();
    if (z) body(TripletMarginWithDistanceLoss_z{});
    if (!z) body(TripletMarginWithDistanceLoss_no_z{});
  }
};

const Op op = pointwise_op<TripletMarginWithDistanceLoss>("triplet_margin_with_distance_loss");

}  // namespace
}  // namespace mg
