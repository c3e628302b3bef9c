// Written by hand: the exponential takes the rounding error of its argument into account.
#include "pointwise.h"

namespace mg {
namespace {

// losses/pointwise/soft_margin_loss.py (1) (3) (4)
struct SoftMarginLoss : Paired {
  static constexpr int kInputs = 2, kOptions = 0;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0], t = in[1], zero{}, one = splat(T{1}), m = t * x;
    Vec<T> u;
    if constexpr (in_pairs<S, T>) {  // e^-m would amplify the rounding error of m
      const Vec<T> beyond = abs<T>(m) > -Simd<T>::exp_low ? zero : fma(t, x, -m);
      u = exp<T>(-abs<T>(m), m < zero ? beyond : -beyond);
    } else {
      u = exp_for<S, T>(-abs<T>(m));
    }
    const Vec<T> large = one / (one + u), q = m < zero ? large : u * large;
    const Vec<T> dx = q == zero ? zero : -t * q, dt = q == zero ? zero : -x * q;
    return {(m < zero ? -m : zero) + log1p_unit<T>(u), {dx, dt}};
  }
};

const Op op = pointwise_op<SoftMarginLoss>("soft_margin_loss");

}  // namespace
}  // namespace mg
