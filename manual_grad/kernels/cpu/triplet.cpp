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

// u = x - y + eps and its norm; to_gradient() overwrites u with the gradient of the norm.
class Difference {
 public:
  Difference(int64_t size, double q)
      : size_(size), pitch_((size + kLanes<double> - 1) / kLanes<double> * kLanes<double>), q_(q), u_(pitch_) {}

  double measure(const double* x, const double* y, double eps) {
    Vec<double> squares{}, sizes{};
    for (int64_t i = 0; i < pitch_; i += kLanes<double>) {
      Vec<double> u = load(x + i) - load(y + i) + eps;
      for (int64_t lane = size_ - i; lane < kLanes<double>; ++lane) u[lane] = 0;
      store<double>(u_.get() + i, u);
      squares += u * u;
      sizes += abs<double>(u);
    }
    length_ = q_ == 2 ? euclidean(mg::sum<double>(squares)) : q_ == 1 ? mg::sum<double>(sizes) : general();
    return length_;
  }

  void to_gradient() {  // (3)
    if (q_ == 2) {
      for (int64_t i = 0; i < pitch_; i += kLanes<double>) store<double>(u_.get() + i, at(i) * one_over_length_);
      return;
    }
    auto is_extreme = [this](double u) { return std::fabs(u) == length_; };
    const double share =
        std::isinf(q_) ? 1.0 / static_cast<double>(std::count_if(u_.get(), u_.get() + size_, is_extreme)) : 1;
    const Vec<double> zero{}, one = splat(1.0), length = splat(length_);
    for (int64_t i = 0; i < pitch_; i += kLanes<double>) {
      const Vec<double> u = at(i), size = abs<double>(u), sign = u > zero ? one : (u < zero ? -one : u);
      Vec<double> gradient = q_ == 0 ? zero : sign;
      if (std::isinf(q_))
        gradient = (size == length ? sign : zero) * share;  // 0 * inf = NaN for a NaN norm, with which nothing ties
      else if (q_ != 0 && q_ != 1)
        gradient = size == zero ? zero : sign * power(size / length, q_ - 1);
      store<double>(u_.get() + i, gradient);
    }
  }

  Vec<double> at(int64_t i) const { return load(u_.get() + i); }

 private:
  double euclidean(double squares) {
    if (size_ > 0 && !(squares >= 0x1p-900 && squares < kInf)) {
      const double c = extreme<std::greater<double>>();
      if (c > 0 && c < kInf) return rescaled(std::ilogb(c));
    }
    const double f = std::sqrt(squares);
    one_over_length_ = f == 0 ? 0 : 1 / f;
    return f;
  }

  // if the squares overflow or underflow: scales u by a power of two, which leaves the gradient unchanged
  double rescaled(int exponent) {
    double squares = 0;
    for (int64_t i = 0; i < size_; ++i) {
      u_[i] = std::scalbn(u_[i], -exponent);
      squares += u_[i] * u_[i];
    }
    one_over_length_ = 1 / std::sqrt(squares);
    return std::scalbn(std::sqrt(squares), exponent);
  }

  double general() const {
    if (size_ == 0) return 0;
    if (q_ == 0) return static_cast<double>(std::count_if(u_.get(), u_.get() + size_, [](double u) { return u != 0; }));
    double c = q_ > 0 ? extreme<std::greater<double>>() : extreme<std::less<double>>();
    if (std::isinf(q_)) return c;
    if (c == 0 || c == kInf) c = 1;
    Vec<double> powers{};
    for (int64_t i = 0; i < pitch_; i += kLanes<double>) {
      Vec<double> to_q = power(abs<double>(at(i)) / c, q_);
      for (int64_t lane = size_ - i; lane < kLanes<double>; ++lane) to_q[lane] = 0;
      powers += to_q;
    }
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

  int64_t size_, pitch_;
  double q_, length_ = 0, one_over_length_ = 0;
  Scratch<double> u_;
};

class Worker {
 public:
  Worker(const Call& call, const VectorSweep& sweep)
      : call_(call),
        sweep_(sweep),
        a_(sweep.pitch),
        p_(sweep.pitch),
        n_(sweep.pitch),
        d_(sweep.pitch),
        u_(sweep.size, call.q),
        v_(sweep.size, call.q),
        w_(call.swap ? sweep.size : 0, call.q) {
    for (double* staged : {a_.get(), p_.get(), n_.get()}) std::fill(staged, staged + sweep.pitch, 0.0);
  }

  double operator()(int64_t r) {
    sweep_.load(call_.a, r, a_.get());
    sweep_.load(call_.p, r, p_.get());
    sweep_.load(call_.n, r, n_.get());
    const double to_p = u_.measure(a_.get(), p_.get(), call_.eps);
    double to_n = v_.measure(a_.get(), n_.get(), call_.eps), alpha = 1, beta = 0;
    if (call_.swap) {
      const double p_to_n = w_.measure(p_.get(), n_.get(), call_.eps);
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
    combine(call_.da, r, up, 1, u_, -alpha, v_);  // (4)
    combine(call_.dp, r, up, -1, u_, -beta, w_or_u);
    combine(call_.dn, r, up, alpha, v_, beta, w_or_v);
    return s < 0 ? 0 : s;
  }

 private:
  // Writes a row of the result, up (x ∇x + y ∇y). The factors ±1, ±1/2 and 0 are exact; with a factor of 0 the term is
  // skipped, since it may be infinite.
  void combine(const Tensor& result, int64_t r, double up, double x, const Difference& by_x, double y,
               const Difference& by_y) const {
    if (!result.exists()) return;
    for (int64_t i = 0; i < sweep_.pitch; i += kLanes<double>) {
      Vec<double> d{};
      if (up != 0 && x != 0) d += x * by_x.at(i);
      if (up != 0 && y != 0) d += y * by_y.at(i);
      store<double>(d_.get() + i, up * d);
    }
    sweep_.store(result, r, d_.get());
  }

  const Call& call_;
  const VectorSweep& sweep_;
  const Scratch<double> a_, p_, n_, d_;
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
  sweep.run([&] { return Worker(call, sweep); });
}

const Op op{
    "triplet_margin_loss",
    "(Tensor a, Tensor p, Tensor n, Tensor? g, float margin, float q, float eps, bool swap, float scale, bool reduce, "
    "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? dp, Tensor(d!)? dn) -> ()",
    triplet_margin_loss};

}  // namespace
}  // namespace mg
