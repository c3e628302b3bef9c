// Written by hand: pairs of floats where a float would cancel, and one exponential shared by all results.
#include "pointwise.h"

namespace mg {
namespace {

// c x, but 0 where c is 0, even if x is infinite
template <class T>
inline Vec<T> times(Vec<T> c, Vec<T> x) {
  const Vec<T> zero{};
  return c == zero ? zero : c * x;
}

struct WithoutPosWeight : Paired {
  static constexpr int kInputs = 3, kOptions = 0;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0], t = in[1];
    // With s the lesser of sigma and 1 - sigma, (5) is s - t or (1 - t) - s, and the linear part of (4) is c |x| with
    // the same c = t or 1 - t. Digits cancel only if s is close to c.
    const Vec<T> one = splat(T{1}), size = abs<T>(x), not_t = one - t;
    const Mask<T> below = x < Vec<T>{};
    const Vec<T> c = below ? t : not_t, linear = times<T>(c, size);
    if constexpr (in_pairs<S, T>) {
      const TwoFloats u = exp_two_floats(-size), d = two_sum(one, u.high, u.low);
      const Vec<T> per_d = one / d.high, s = u.high * per_d;
      const Vec<T> s_low = (fma(-s, d.high, u.high) + (u.low - s * d.low)) * per_d;  // remainder of the quotient
      const Vec<T> c_low = below ? Vec<T>{} : (one - not_t) - t, distance = s - c, dx = distance + (s_low - c_low);
      const Mask<T> cancels = (abs<T>(distance) < s * kClose) | (abs<T>(c) > one);  // where c_low is not exact
      return {linear + log1p_unit<T>(u.high), {below ? dx : -dx, -x, Vec<T>{}}, {Mask<T>{}, cancels}};
    } else {
      const Vec<T> u = exp_for<S, T>(-size), dx = u / (one + u) - c;
      return {linear + log1p_unit<T>(u), {below ? dx : -dx, -x, Vec<T>{}}};
    }
  }
};

struct WithPosWeight : Widened {
  static constexpr int kInputs = 3, kOptions = 0;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0], t = in[1], a = in[2];
    const Vec<T> zero{}, one = splat(T{1});
    const Vec<T> u = exp_for<S, T>(-abs<T>(x)), log1p_u = log1p_unit<T>(u), large = one / (one + u), small = u * large;
    const Vec<T> softplus_minus = (x < zero ? -x : zero) + log1p_u, by_t = x < zero ? a : one;
    const Vec<T> sigmoid = x < zero ? small : large, sigmoid_minus = x < zero ? large : small;
    const Vec<T> not_t = one - t, at = a * t;
    const Vec<T> linear = times<T>(x < zero ? -at : not_t, x);
    const Vec<T> dx = fma(not_t, sigmoid, -(at * sigmoid_minus)), dt = (a - one) * log1p_u - times<T>(by_t, x);
    return {linear + (not_t + at) * log1p_u, {dx, dt, times<T>(t, softplus_minus)}};
  }
};

// losses/pointwise/binary_cross_entropy_with_logits.py (4) to (7); a = pos_weight
struct BCEWithLogitsLoss : Variants {
  static constexpr int kInputs = 3, kOptions = 0;
  static constexpr unsigned kOptional = 1u << 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    call.in[2].exists() ? body(WithPosWeight{}) : body(WithoutPosWeight{});
  }
};

const Op op = pointwise_op<BCEWithLogitsLoss>("binary_cross_entropy_with_logits");

}  // namespace
}  // namespace mg
