// Written by python -m manual_grad.generate from losses/pairwise/triplet_margin_with_distance_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct TripletMarginWithDistanceLoss_z : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> z = in[2];
    const T margin = option[0];
    const Vec<T> v1 = y < z ? y : (y == y ? z : y);
    const Vec<T> v2 = x - v1;
    const Vec<T> v3 = margin + v2;
    const Vec<T> v4 = at_least<T>(v3, T{0});
    const Mask<T> v5 = v3 < T{0};
    const Vec<T> v6 = v5 ? splat(T{0.0}) : splat(T{1});
    const Mask<T> v7 = y == z;
    const Mask<T> v8 = z < y;
    const Vec<T> v9 = v8 ? splat(T{1}) : splat(T{0});
    const Vec<T> v10 = v7 ? splat(T{0.5}) : v9;
    const Vec<T> v11 = T{1} - v10;
    const Vec<T> v12 = -v11;
    const Vec<T> v13 = v12 * v6;
    const Vec<T> v14 = -v10;
    const Vec<T> v15 = v14 * v6;
    return {v4, {v6, v13, v15}};
  }
};

struct TripletMarginWithDistanceLoss_no_z : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T margin = option[0];
    const Vec<T> v1 = x - y;
    const Vec<T> v2 = margin + v1;
    const Vec<T> v3 = at_least<T>(v2, T{0});
    const Mask<T> v4 = v2 < T{0};
    const Vec<T> v5 = v4 ? splat(T{0.0}) : splat(T{1});
    const Vec<T> v6 = T{-1} * v5;
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
