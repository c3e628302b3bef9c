// Pointwise losses of a probability or a count: negative log-likelihoods.
#include "pointwise.h"

namespace mg {
namespace {

struct BinaryCrossEntropyWithLogits : Widened {  // losses/binary_cross_entropy_with_logits.py (4) (5) (6); a = pos_weight
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T> a, T, T, T) {
    const Vec<T> zero{}, one = splat(T{1});
    const Vec<T> u = exp_for<S, T>(-abs<T>(x)), log1p_u = log1p_unit<T>(u), large = one / (one + u), small = u * large;
    const Vec<T> softplus_minus = (x < zero ? -x : zero) + log1p_u;
    const Vec<T> sigmoid = x < zero ? small : large, sigmoid_minus = x < zero ? large : small;
    const Vec<T> not_t = one - t, at = a * t;
    const Vec<T> linear = x < zero ? -at * x : not_t * x;
    return {linear + (not_t + at) * log1p_u, not_t * sigmoid - at * sigmoid_minus, (a - one) * softplus_minus - x,
            t * softplus_minus};
  }
};

struct BinaryCrossEntropy : Widened {  // losses/binary_cross_entropy.py (2) (4) (5) (6)
  static constexpr std::array<const char*, 2> errors{"all elements of input should be between 0 and 1",
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

struct KLDiv : Widened {  // losses/kl_div.py (1) (2) (3); p = log_target
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T log_target, T, T) {
    const Vec<T> zero{}, one = splat(T{1});
    const bool is_log = log_target != 0;
    const Vec<T> p = is_log ? exp_signed<T>(t) : t, log_p = is_log ? t : log<T>(t), wasted = log_p - x;
    const Mask<T> absent = (p == zero) & (x == x);  // a NaN stays one
    const Vec<T> dt = is_log ? p * (wasted + one) : wasted + one;
    return {absent ? zero : p * wasted, -p, absent ? zero : dt, Vec<T>{}};
  }
};

struct SoftMargin : Widened {  // losses/soft_margin_loss.py (1) (3) (4)
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> zero{}, one = splat(T{1}), m = t * x;
    const Vec<T> u = exp_for<S, T>(-abs<T>(m)), large = one / (one + u), q = m < zero ? large : u * large;
    const Vec<T> dx = q == zero ? zero : -t * q, dt = q == zero ? zero : -x * q;
    return {(m < zero ? -m : zero) + log1p_unit<T>(u), dx, dt, Vec<T>{}};
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
