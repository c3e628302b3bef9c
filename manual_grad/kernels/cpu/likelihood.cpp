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

}  // namespace

const std::initializer_list<Op> likelihood_ops = {
    {"binary_cross_entropy_with_logits", kPointwise, pointwise<BinaryCrossEntropyWithLogits>},
};

}  // namespace mg
