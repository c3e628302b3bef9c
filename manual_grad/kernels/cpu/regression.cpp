// Pointwise losses of a real target or a count.
#include "pointwise.h"

namespace mg {
namespace {

struct L1 : Plain {  // losses/pointwise/l1_loss.py (1) (2)
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> r = x - t, zero{}, one = splat(T{1});
    const Vec<T> sign = (r > zero ? one : zero) - (r < zero ? one : zero);
    return {abs<T>(r), sign, -sign, zero};
  }
};

struct Mse : Plain {  // losses/pointwise/mse_loss.py (1) (2)
  static constexpr int kSlopes = 2;
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> r = x - t;
    return {r * r, r, -r, Vec<T>{}};
  }
};

struct Huber : Plain {  // losses/pointwise/huber_loss.py (1) (2); p = delta
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T delta, T, T) {
    const Vec<T> r = x - t, size = abs<T>(r);
    const Vec<T> slope = r > delta ? splat(delta) : (r < -delta ? splat(-delta) : r);
    const Vec<T> e = size > delta ? delta * (size - T{0.5} * delta) : T{0.5} * r * r;
    return {e, slope, -slope, Vec<T>{}};
  }
};

struct SmoothL1 : Plain {  // losses/pointwise/smooth_l1_loss.py (1) (2); p = beta
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T beta, T, T) {
    const Vec<T> r = x - t, size = abs<T>(r), scaled = r / beta, one = splat(T{1});
    const Vec<T> slope = scaled > one ? one : (scaled < -one ? -one : scaled);
    const Vec<T> e = size < beta ? T{0.5} * scaled * r : size - T{0.5} * beta;
    return {e, slope, -slope, Vec<T>{}};
  }
};

constexpr double kHalfLog2Pi = 0.91893853320467274178;

struct GaussianNLL : Widened {  // losses/pointwise/gaussian_nll_loss.py (1) (2); a = var, p = full, q = eps
  using Error = std::domain_error;
  static constexpr std::array errors{"var has negative entry/entries; a variance is 0 or positive"};
  template <class T>
  static void outside(Vec<T>, Vec<T>, Vec<T> a, Mask<T>* lanes) { lanes[0] |= a < Vec<T>{}; }

  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T> a, T full, T eps, T) {
    const Vec<T> r = x - t, v = a < eps ? splat(eps) : a, per_v = T{1} / v, slope = r * per_v;
    const Vec<T> e = T{0.5} * (log<T>(v) + r * slope) + full * static_cast<T>(kHalfLog2Pi);
    const Vec<T> bent = v == static_cast<T>(__builtin_inf()) ? T{0} * r : (v - r * r) * per_v;
    return {e, slope, -slope, T{0.5} * bent * per_v};
  }
};

template <bool log_input, bool full>
struct PoissonNLLOf : Widened {
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T eps) {
    const Vec<T> zero{}, one = splat(T{1});
    Element<T> at;
    if constexpr (log_input) {
      const Vec<T> rate = exp_signed<S, T>(x);
      const Mask<T> certain = (t == zero) & (x == splat(static_cast<T>(-__builtin_inf())));
      at = {rate - (certain ? zero : t * x), rate - t, -x, zero};
    } else {
      const Vec<T> rate = x + eps, log_rate = log<T>(rate);
      const Vec<T> dx = rate == static_cast<T>(__builtin_inf()) ? one - t / rate : ((x - t) + eps) / rate;
      at = {x - t * log_rate, dx, -log_rate, zero};
    }
    if constexpr (full) {
      const Vec<T> log_t = log<T>(t);
      at.e += t <= one ? zero : (t + T{0.5}) * log_t - t + static_cast<T>(kHalfLog2Pi);
      at.dt += t <= one ? zero : log_t + T{0.5} / t;
    }
    return at;
  }
};
struct PoissonNLL : Variants {  // losses/pointwise/poisson_nll_loss.py (1) to (4); p = log_input, q = full, r = eps
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    if (call.p != 0)
      call.q != 0 ? body(PoissonNLLOf<true, true>{}) : body(PoissonNLLOf<true, false>{});
    else
      call.q != 0 ? body(PoissonNLLOf<false, true>{}) : body(PoissonNLLOf<false, false>{});
  }
};

}  // namespace

const std::initializer_list<Op> regression_ops = {
    {"l1_loss", kPointwise, pointwise<L1>},
    {"mse_loss", kPointwise, pointwise<Mse>},
    {"huber_loss", kPointwise, pointwise<Huber>},
    {"smooth_l1_loss", kPointwise, pointwise<SmoothL1>},
    {"gaussian_nll_loss", kPointwise, pointwise<GaussianNLL>},
    {"poisson_nll_loss", kPointwise, pointwise<PoissonNLL>},
};

}  // namespace mg
