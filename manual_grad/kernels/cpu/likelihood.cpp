// Pointwise losses of a probability or a count: negative log-likelihoods.
#include "pointwise.h"

namespace mg {
namespace {

// c x, and 0 where c is, for an infinite x too
template <class T>
inline Vec<T> times(Vec<T> c, Vec<T> x) {
  const Vec<T> zero{};
  return c == zero ? zero : c * x;
}

struct WithoutPosWeight : Paired {
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    // With s the lesser of sigma and 1 - sigma, (5) is s - t or (1 - t) - s: digits go only where the two are close.
    const Vec<T> zero{}, one = splat(T{1}), not_t = one - t, near = x < zero ? t : not_t;
    const Vec<T> linear = times<T>(x < zero ? -t : not_t, x);
    if constexpr (in_pairs<S, T>) {
      const TwoFloats u = exp_two_floats(-abs<T>(x)), d = two_sum(one, u.high, u.low);
      const Vec<T> per_d = one / d.high, s = u.high * per_d;
      const Vec<T> s_low = (fma(-s, d.high, u.high) + (u.low - s * d.low)) * per_d;  // what the quotient leaves over
      const Vec<T> low = x < zero ? s_low : s_low - ((one - not_t) - t), distance = s - near, dx = distance + low;
      const Mask<T> cancels = (abs<T>(distance) < s * kClose) | (t < zero) | (t > one);
      return {linear + log1p_unit<T>(u.high), x < zero ? dx : -dx, -x, zero, cancels};
    } else {
      const Vec<T> u = exp_for<S, T>(-abs<T>(x)), dx = u / (one + u) - near;
      return {linear + log1p_unit<T>(u), x < zero ? dx : -dx, -x, zero};
    }
  }
};

struct WithPosWeight : Widened {
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T> a, T, T, T) {
    const Vec<T> zero{}, one = splat(T{1});
    const Vec<T> u = exp_for<S, T>(-abs<T>(x)), log1p_u = log1p_unit<T>(u), large = one / (one + u), small = u * large;
    const Vec<T> softplus_minus = (x < zero ? -x : zero) + log1p_u, by_t = x < zero ? a : one;
    const Vec<T> sigmoid = x < zero ? small : large, sigmoid_minus = x < zero ? large : small;
    const Vec<T> not_t = one - t, at = a * t;
    const Vec<T> linear = times<T>(x < zero ? -at : not_t, x);
    return {linear + (not_t + at) * log1p_u, fma(not_t, sigmoid, -(at * sigmoid_minus)),
            (a - one) * log1p_u - times<T>(by_t, x), times<T>(t, softplus_minus)};
  }
};

// losses/pointwise/binary_cross_entropy_with_logits.py (4) to (7); a = pos_weight
struct BinaryCrossEntropyWithLogits : Variants {
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    call.a.exists() ? body(WithPosWeight{}) : body(WithoutPosWeight{});
  }
};

struct BinaryCrossEntropy : Plain {  // losses/pointwise/binary_cross_entropy.py (2) (4) (5) (6)
  static constexpr std::array<const char*, 2> errors{
      "all elements of input should be between 0 and 1; are they logits? binary_cross_entropy_with_logits takes those",
      "all elements of target should be between 0 and 1"};
  template <class T>
  static void outside(Vec<T> x, Vec<T> t, Vec<T>, Mask<T>* lanes) {
    const Vec<T> zero{}, one = splat(T{1});
    lanes[0] |= ~((x >= zero) & (x <= one));
    lanes[1] |= ~((t >= zero) & (t <= one));
  }
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> one = splat(T{1}), least = splat(T{-100}), epsilon = splat(static_cast<T>(1e-12));
    const Vec<T> log_x = at_least<T>(log<T>(x), least), log_1_x = at_least<T>(log1p<T>(-x), least);
    const Vec<T> dx = (x - t) / at_least<T>(x * (one - x), epsilon);
    const Vec<T> s = one - (x + x), q = s * s, artanh = s + (s * q) * atanh_tail(q);
    const Vec<T> dt = q < static_cast<T>(0.17 * 0.17) ? artanh + artanh : log_1_x - log_x;
    return {(t - one) * log_1_x - t * log_x, dx, dt, Vec<T>{}};
  }
  template <class T>
  static Vec<T> at_least(Vec<T> v, Vec<T> least) { return v < least ? least : v; }
};

template <bool log_target>
struct KLDivOf : Widened {
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> zero{}, one = splat(T{1});
    const Vec<T> p = log_target ? exp_signed<S, T>(t) : t, log_p = log_target ? t : log<T>(t), wasted = log_p - x;
    const Mask<T> absent = (p == zero) & (x == x);  // a NaN stays one
    const Vec<T> dt = log_target ? p * (wasted + one) : wasted + one;
    return {absent ? zero : p * wasted, -p, absent ? zero : dt, zero};
  }
};
struct KLDiv : Variants {  // losses/pointwise/kl_div.py (1) (2) (3); p = log_target
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    call.p != 0 ? body(KLDivOf<true>{}) : body(KLDivOf<false>{});
  }
};

struct SoftMargin : Paired {  // losses/pointwise/soft_margin_loss.py (1) (3) (4)
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> zero{}, one = splat(T{1}), m = t * x;
    Vec<T> u;
    if constexpr (in_pairs<S, T>) {  // e^-m shows what the rounding of m took off
      const Vec<T> beyond = abs<T>(m) > -Simd<T>::exp_low ? zero : fma(t, x, -m);
      u = exp<T>(-abs<T>(m), m < zero ? beyond : -beyond);
    } else {
      u = exp_for<S, T>(-abs<T>(m));
    }
    const Vec<T> large = one / (one + u), q = m < zero ? large : u * large;
    const Vec<T> dx = q == zero ? zero : -t * q, dt = q == zero ? zero : -x * q;
    return {(m < zero ? -m : zero) + log1p_unit<T>(u), dx, dt, zero};
  }
};

}  // namespace

const std::initializer_list<Op> likelihood_ops = {
    {"binary_cross_entropy_with_logits", kPointwise, pointwise<BinaryCrossEntropyWithLogits>},
    {"binary_cross_entropy", kPointwise, pointwise<BinaryCrossEntropy>},
    {"kl_div", kPointwise, pointwise<KLDiv>},
    {"soft_margin_loss", kPointwise, pointwise<SoftMargin>},
};

}  // namespace mg
