// Written by hand because the inverse hyperbolic tangent of (6) is evaluated by a series.
#include "pointwise.h"

namespace mg {
namespace {

// losses/pointwise/binary_cross_entropy.py (2) (4) (5) (6)
struct BCELoss : Plain {
  static constexpr int kInputs = 2, kOptions = 0;
  static constexpr std::array<const char*, 2> errors{
      "all elements of input should be between 0 and 1; are they logits? binary_cross_entropy_with_logits takes those",
      "all elements of target should be between 0 and 1"};
  template <class T>
  static void outside(const Vec<T>* in, Mask<T>* lanes) {
    const Vec<T> x = in[0], t = in[1], zero{}, one = splat(T{1});
    lanes[0] |= ~((x >= zero) & (x <= one));
    lanes[1] |= ~((t >= zero) & (t <= one));
  }
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0], t = in[1], one = splat(T{1});
    const Vec<T> log_x = at_least<T>(log<T, false>(x), T{-100});
    const Vec<T> log_1_x = at_least<T>(log1p<T, false>(-x) + (x == one ? splat(T{-100}) : Vec<T>{}), T{-100});
    const Vec<T> dx = (x - t) / at_least<T>(x * (one - x), static_cast<T>(1e-12));
    const Vec<T> s = one - (x + x), q = s * s, artanh = s + (s * q) * atanh_tail(q);
    const Vec<T> dt = q < static_cast<T>(0.17 * 0.17) ? artanh + artanh : log_1_x - log_x;
    return {(t - one) * log_1_x - t * log_x, {dx, dt}};
  }
};

const Op op = pointwise_op<BCELoss>("binary_cross_entropy");

}  // namespace
}  // namespace mg
