// Triplet margin loss, one triplet of vectors a row. Letters as in losses/triplet_margin_loss.py.
#include <algorithm>
#include <cmath>
#include <functional>

#include "layout.h"
#include "ops.h"

namespace mg {
namespace {

constexpr int64_t kChunkElements = 1 << 14;  // vector components per unit of parallel work and per partial sum
constexpr double kInf = __builtin_inf();

struct Call {
  Tensor a, p, n, g;
  double margin, q, eps;
  bool swap;
  double scale;
  bool reduce;
  Tensor value, da, dp, dn;
};

// u = x - y + eps and its norm; then, in the place of u, the gradient of the norm.
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
    const double share = std::isinf(q_) ? 1.0 / static_cast<double>(std::count_if(u_.get(), u_.get() + size_, is_extreme)) : 1;
    const Vec<double> zero{}, one = splat(1.0), length = splat(length_);
    for (int64_t i = 0; i < pitch_; i += kLanes<double>) {
      const Vec<double> u = at(i), size = abs<double>(u), sign = u > zero ? one : (u < zero ? -one : u);
      Vec<double> gradient = q_ == 0 ? zero : sign;
      if (std::isinf(q_)) gradient = size == length ? sign * share : zero;
      else if (q_ != 0 && q_ != 1) gradient = size == zero ? zero : sign * power(size / length, q_ - 1);
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

  // where the squares overflow or underflow: by a power of two, which the gradient does not see
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

  // the largest or smallest size of a component; a NaN wins
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

template <class S>
void run(const Call& call) {
  const int64_t D = call.a.sizes[call.a.dim - 1], rows = call.a.dim > 1 ? call.a.sizes[0] : 1;
  const int64_t pitch = (D + kLanes<double> - 1) / kLanes<double> * kLanes<double>;
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, D));
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  const bool want_sum = call.reduce && call.value.exists(), scalar_g = call.g.exists() && call.g.numel == 1;
  const double scale = call.scale * (scalar_g ? static_cast<double>(widen(*call.g.template as<S>())) : 1.0);
  auto at = [&](const Tensor& tensor, int64_t r) { return tensor.as<S>() + (tensor.dim > 1 ? r * tensor.strides[0] : 0); };
  auto step = [](const Tensor& tensor) { return tensor.strides[tensor.dim - 1]; };
  auto of_row = [](const Tensor& tensor, int64_t r) { return tensor.as<S>() + (tensor.dim > 0 ? r * tensor.strides[0] : 0); };
  for (const Tensor* result : {&call.da, &call.dp, &call.dn})
    if (result->exists()) advise_huge_pages(*result, result->numel * static_cast<int64_t>(sizeof(S)));
  Scratch<double> partial(want_sum ? chunks : 0);

  parallel_for(chunks, 1, [&](int64_t first, int64_t last) {
    Scratch<double> a(pitch), p(pitch), n(pitch), d(pitch);
    for (double* staged : {a.get(), p.get(), n.get()}) std::fill(staged, staged + pitch, 0.0);
    Difference u(D, call.q), v(D, call.q), w(call.swap ? D : 0, call.q);
    for (int64_t chunk = first; chunk < last; ++chunk) {
      ExactSum sum;
      const int64_t end = std::min(rows, (chunk + 1) * chunk_rows);
      for (int64_t r = chunk * chunk_rows; r < end; ++r) {
        load_run(at(call.a, r), step(call.a), D, a.get());
        load_run(at(call.p, r), step(call.p), D, p.get());
        load_run(at(call.n, r), step(call.n), D, n.get());
        const double to_p = u.measure(a.get(), p.get(), call.eps);
        double to_n = v.measure(a.get(), n.get(), call.eps), alpha = 1, beta = 0;
        if (call.swap) {
          const double p_to_n = w.measure(p.get(), n.get(), call.eps);
          beta = p_to_n < to_n ? 1 : p_to_n == to_n ? 0.5 : 0;
          alpha = 1 - beta;
          if (!(to_n <= p_to_n)) to_n = to_n == to_n ? p_to_n : to_n;
        }
        const double s = call.margin + (to_p - to_n);  // (1) (2)
        const double loss = s < 0 ? 0 : s;
        sum.add(loss);
        if (call.value.exists() && !want_sum) *of_row(call.value, r) = narrow<S>(loss);

        double up = s < 0 ? 0 : scale;
        if (call.g.exists() && !scalar_g) up *= widen(*of_row(call.g, r));
        if (up != 0 && (call.da.exists() || call.dp.exists() || call.dn.exists())) {
          u.to_gradient();
          v.to_gradient();
          if (call.swap) w.to_gradient();
        }
        // the result's row: up (x ∇x + y ∇y), where the factors 1, 1/2 and 0 round nothing
        auto combine = [&](const Tensor& result, double x, const Difference& by_x, double y, const Difference& by_y) {
          if (!result.exists()) return;
          if (up == 0) {
            std::fill(d.get(), d.get() + D, 0.0);
          } else {
            for (int64_t i = 0; i < pitch; i += kLanes<double>)
              store<double>(d.get() + i, up * (x * by_x.at(i) + y * by_y.at(i)));
          }
          store_run(at(result, r), step(result), D, d.get());
        };
        const Difference &w_or_u = call.swap ? w : u, &w_or_v = call.swap ? w : v;
        combine(call.da, 1, u, -alpha, v);  // (4)
        combine(call.dp, -1, u, -beta, w_or_u);
        combine(call.dn, alpha, v, beta, w_or_v);
      }
      if (want_sum) partial[chunk] = sum.value();
    }
  });
  if (want_sum) {
    ExactSum sum;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum.add(partial[chunk]);
    *call.value.as<S>() = narrow<S>(sum.value() * call.scale);
  }
}

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
  const Tensor& a = call.a;
  bool fits = a.dim == 1 || a.dim == 2;
  const int64_t rows = a.dim == 2 ? a.sizes[0] : 1;
  for (const Tensor* like : {&call.p, &call.n, &call.da, &call.dp, &call.dn})
    fits = fits && (!like->exists() || (like->dtype == a.dtype && like->dim == a.dim && like->sizes[0] == a.sizes[0] &&
                                        like->sizes[a.dim - 1] == a.sizes[a.dim - 1]));
  fits = fits && (!call.g.exists() || (call.g.dtype == a.dtype && (call.g.numel == rows || call.g.numel == 1)));
  fits = fits && (!call.value.exists() || (call.value.dtype == a.dtype && call.value.numel == (call.reduce ? 1 : rows)));
  if (!fits) throw std::runtime_error("manual_grad: the tensors of triplet_margin_loss do not fit together");
  with_dtype(a.dtype, [&](auto s) { run<decltype(s)>(call); });
}

}  // namespace

const std::initializer_list<Op> triplet_ops = {
    {"triplet_margin_loss",
     "(Tensor a, Tensor p, Tensor n, Tensor? g, float margin, float q, float eps, bool swap, float scale, bool reduce, "
     "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? dp, Tensor(d!)? dn) -> ()",
     triplet_margin_loss},
};

}  // namespace mg
