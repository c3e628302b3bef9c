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
    const Vec<T> x = in[0], t = in[1], zero{}, one = splat(T{1}), not_t = one - t;
    const Mask<T> sign = bitcast<Mask<T>>(x) & bitcast<Mask<T>>(-zero), below = sign != 0;
    const Vec<T> minus_size = bitcast<Vec<T>>(bitcast<Mask<T>>(x) | bitcast<Mask<T>>(-zero));
    // With u = e^-|x|, the linear part of (4) is c |x|, and (5), up to its sign, is u / (1 + u) - c.
    const Vec<T> c = below ? t : not_t;
    auto loss = [&](Vec<T> v) {
      const Vec<T> log1p_u = log1p_unit<T>(v);
      return c == zero ? log1p_u : log1p_u - c * minus_size;
    };
    if constexpr (in_pairs<S, T>) {
      // (c - u (1 - c)) / (1 + u): digits cancel only if u / (1 + u) is close to c. An infinite t makes d NaN here.
      const TwoFloats u = exp_two_floats(minus_size);
      const Vec<T> rest = (one - not_t) - t, not_c = below ? not_t : t;  // 1 - t is not_t + rest
      const Vec<T> d = fma(-u.high, not_c, c) - fma(u.low, not_c, (below ? u.high : -one) * rest);
      const Vec<T> sum = bitcast<Vec<T>>(bitcast<Mask<T>>(one + u.high) ^ sign);
      return {loss(u.high), {d / sum, -x, zero}, {Mask<T>{}, ~(abs<T>(d) >= u.high * kClose)}};
    } else {
      const Vec<T> u = exp_for<S, T>(minus_size), d = u / (one + u) - c;
      return {loss(u), {below ? d : -d, -x, zero}};
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
