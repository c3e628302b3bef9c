// Triplet margin loss, one triplet of vectors per row. Notation as in losses/pairwise/triplet_margin_loss.py.
#include <algorithm>
#include <cmath>
#include <functional>

#include "pairwise.h"

namespace mg {
namespace {

constexpr double kInf = __builtin_inf();

struct Call {
  Tensor a, p, n, g;
  double margin, q, eps;
  bool swap;
  double scale;
  bool reduce;
  Tensor value, da, dp, dn;
};

// u = x - y + eps and its norm; to_gradient() overwrites u with the gradient of the norm, up to a factor.
class Difference {
 public:
  Difference(const VectorSweep& sweep, double q, bool is_used = true)
      : sweep_(sweep), size_(is_used ? sweep.size : 0), q_(q), u_(size_) {}

  template <class Number>
  double measure(const Number* x, const Number* y, double eps) {
    Vec<double> squares{}, sizes{};
    sweep_.for_each([&](int64_t i, auto load, auto store) {
      Vec<double> u = load(x) - load(y) + eps;
      store(u_.get(), u);
      if (i == sweep_.run_in_vectors.vectors) u = first_lanes<double>(u, sweep_.run_in_vectors.rest);
      squares += u * u;
      sizes += abs<double>(u);
    });
    factor_ = 1;
    length_ = q_ == 2 ? euclidean(mg::sum<double>(squares)) : q_ == 1 ? mg::sum<double>(sizes) : general();
    return length_;
  }

  void to_gradient() {  // (3)
    if (q_ == 2) return;  // u, times the factor 1 / length
    auto is_extreme = [this](double u) { return std::fabs(u) == length_; };
    const double share =
        std::isinf(q_) ? 1.0 / static_cast<double>(std::count_if(u_.get(), u_.get() + size_, is_extreme)) : 1;
    const Vec<double> zero{}, one = splat(1.0), length = splat(length_);
    sweep_.for_each([&](int64_t, auto load, auto store) {
      const Vec<double> u = load(u_.get()), size = abs<double>(u), sign = u > zero ? one : (u < zero ? -one : u);
      Vec<double> gradient = q_ == 0 ? zero : sign;
      if (std::isinf(q_))
        gradient = (size == length ? sign : zero) * share;  // 0 * inf = NaN for a NaN norm, with which nothing ties
      else if (q_ != 0 && q_ != 1)
        gradient = size == zero ? zero : sign * power(size / length, q_ - 1);
      store(u_.get(), gradient);
    });
  }

  const double* direction() const { return u_.get(); }
  double factor() const { return factor_; }

 private:
  double euclidean(double squares) {
    if (size_ > 0 && !(squares >= 0x1p-900 && squares < kInf)) {
      const double c = extreme<std::greater<double>>();
      if (c > 0 && c < kInf) return rescaled(std::ilogb(c));
    }
    const double f = std::sqrt(squares);
    factor_ = f == 0 ? 0 : 1 / f;
    return f;
  }

  // if the squares overflow or underflow: scales u by a power of two, which leaves the gradient unchanged
  double rescaled(int exponent) {
    double squares = 0;
    for (int64_t i = 0; i < size_; ++i) {
      u_[i] = std::scalbn(u_[i], -exponent);
      squares += u_[i] * u_[i];
    }
    factor_ = 1 / std::sqrt(squares);
    return std::scalbn(std::sqrt(squares), exponent);
  }

  double general() const {
    if (size_ == 0) return 0;
    if (q_ == 0) return static_cast<double>(std::count_if(u_.get(), u_.get() + size_, [](double u) { return u != 0; }));
    double c = q_ > 0 ? extreme<std::greater<double>>() : extreme<std::less<double>>();
    if (std::isinf(q_)) return c;
    if (c == 0 || c == kInf) c = 1;
    Vec<double> powers{};
    sweep_.for_each([&](int64_t i, auto load, auto) {
      Vec<double> to_q = power(abs<double>(load(u_.get())) / c, q_);
      if (i == sweep_.run_in_vectors.vectors) to_q = first_lanes<double>(to_q, sweep_.run_in_vectors.rest);
      powers += to_q;
    });
    return c * std::pow(mg::sum<double>(powers), 1 / q_);  // (5)
  }

  static Vec<double> power(Vec<double> x, double exponent) { return exp_signed<double>(exponent * log<double>(x)); }

  // the largest or smallest absolute value of a component; NaN if any is NaN
  template <class Beats>
  double extreme() const {
    double c = std::fabs(u_[0]);
    for (int64_t i = 1; i < size_; ++i) {
      const double size = std::fabs(u_[i]);
      if (Beats()(size, c) || size != size) c = size;
    }
    return c;
  }

  const VectorSweep& sweep_;
  int64_t size_;
  double q_, length_ = 0, factor_ = 1;
  Scratch<double> u_;
};

template <class Number>
class Worker {
 public:
  Worker(const Call& call, const VectorSweep& sweep)
      : call_(call),
        sweep_(sweep),
        a_(sweep, call.a),
        p_(sweep, call.p),
        n_(sweep, call.n),
        da_(sweep, call.da),
        dp_(sweep, call.dp),
        dn_(sweep, call.dn),
        u_(sweep, call.q),
        v_(sweep, call.q),
        w_(sweep, call.q, call.swap) {}

  double operator()(int64_t r) {
    const Number *a = a_.read(r), *p = p_.read(r), *n = n_.read(r);
    const double to_p = u_.measure(a, p, call_.eps);
    double to_n = v_.measure(a, n, call_.eps), alpha = 1, beta = 0;
    if (call_.swap) {
      const double p_to_n = w_.measure(p, n, call_.eps);
      beta = p_to_n < to_n ? 1 : p_to_n == to_n ? 0.5 : 0;
      alpha = 1 - beta;
      if (!(to_n <= p_to_n)) to_n = to_n == to_n ? p_to_n : to_n;
    }
    const double s = call_.margin + (to_p - to_n);  // (1) (2)
    const double up = s < 0 ? 0 : sweep_.upstream(r);
    if (up != 0 && (call_.da.exists() || call_.dp.exists() || call_.dn.exists())) {
      u_.to_gradient();
      v_.to_gradient();
      if (call_.swap) w_.to_gradient();
    }
    const Difference &w_or_u = call_.swap ? w_ : u_, &w_or_v = call_.swap ? w_ : v_;
    combine(da_, r, up, 1, u_, -alpha, v_);  // (4)
    combine(dp_, r, up, -1, u_, -beta, w_or_u);
    combine(dn_, r, up, alpha, v_, beta, w_or_v);
    return s < 0 ? 0 : s;
  }

 private:
  // Writes a row of the result, up (x ∇x + y ∇y). The factors ±1, ±1/2 and 0 are exact; with a factor of 0 the term is
  // skipped, since it may be infinite.
  void combine(const VectorRow<Number>& result, int64_t r, double up, double x, const Difference& by_x, double y,
               const Difference& by_y) const {
    if (!result.exists()) return;
    const double x_factor = x * by_x.factor(), y_factor = y * by_y.factor();
    const bool has_x = up != 0 && x != 0, has_y = up != 0 && y != 0;
    result.write(r, [&](Number* to) {
      sweep_.for_each([&](int64_t, auto load, auto store) {
        Vec<double> d{};
        // rounded, so that two equal directions cancel
        if (has_x) d += as_rounded<double>(x_factor * load(by_x.direction()));
        if (has_y) d += as_rounded<double>(y_factor * load(by_y.direction()));
        store(to, up * d);
      });
    });
  }

  const Call& call_;
  const VectorSweep& sweep_;
  const VectorRow<Number> a_, p_, n_, da_, dp_, dn_;
  Difference u_, v_, w_;
};

void triplet_margin_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.a = in.tensor();
  call.p = in.tensor();
  call.n = in.tensor();
  call.g = in.optional_tensor();
  call.margin = in.real();
  call.q = in.real();
  call.eps = in.real();
  call.swap = in.boolean();
  call.scale = in.real();
  call.reduce = in.boolean();
  call.value = in.optional_tensor();
  call.da = in.optional_tensor();
  call.dp = in.optional_tensor();
  call.dn = in.optional_tensor();
  check_vectors("triplet_margin_loss", call.a, {&call.p, &call.n, &call.da, &call.dp, &call.dn},
                call.a.dim == 2 ? call.a.sizes[0] : 1, call.g, call.value, call.reduce);
  const VectorSweep sweep(call.a, call.value, call.g, call.scale, call.reduce, {&call.da, &call.dp, &call.dn});
  if (call.a.dtype == Dtype::f64)
    sweep.run([&] { return Worker<double>(call, sweep); });
  else
    sweep.run([&] { return Worker<float>(call, sweep); });
}

const Op op{
    "triplet_margin_loss",
    "(Tensor a, Tensor p, Tensor n, Tensor? g, float margin, float q, float eps, bool swap, float scale, bool reduce, "
    "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? dp, Tensor(d!)? dn) -> ()",
    triplet_margin_loss};

}  // namespace
}  // namespace mg
