// losses/pairwise/cosine_embedding_loss.py. a and b are the vectors; kappa and rho are as defined there.
#include <algorithm>
#include <cmath>

#include "pairwise.h"

namespace mg {
namespace {

constexpr double kEpsilon = 1e-12;

struct Call {
  Tensor a, b, y, g;
  double margin, scale;
  bool reduce;
  Tensor value, da, db;
};

// c - k x, rounded once, so that it is exact if its digits cancel
inline Vec<double> minus_product(Vec<double> c, double k, Vec<double> x) {
#if defined(__AVX2__) || defined(__ARM_FEATURE_FMA)
  return fma(splat(-k), x, c);
#else  // the rounding error of the product, from the exact products of halves (Dekker)
  auto head = [](Vec<double> v) { return bitcast<Vec<double> >(bitcast<Mask<double> >(v) & ~int64_t{0x7ffffff}); };
  const Vec<double> kv = splat(k), kh = head(kv), kl = kv - kh, xh = head(x), xl = x - xh, product = kv * x;
  const Vec<double> error = ((kh * xh - product) + kh * xl + kl * xh) + kl * xl;
  return (c - product) - error;
#endif
}

template <class Number>
class Worker {
 public:
  Worker(const Call& call, const VectorSweep& sweep)
      : call_(call), sweep_(sweep), a_(sweep, call.a), b_(sweep, call.b), da_(sweep, call.da), db_(sweep, call.db) {}

  double operator()(int64_t r) {
    const Number *a = a_.read(r), *b = b_.read(r);
    const double y = number_at(call_.y, call_.y.dim > 0 ? r * call_.y.strides[0] : 0);
    Vec<double> squares_a{}, squares_b{}, products{};
    sweep_.for_each([&](int64_t, auto load, auto) {
      const Vec<double> at_a = load(a), at_b = load(b);
      squares_a += at_a * at_a;
      squares_b += at_b * at_b;
      products += at_a * at_b;
    });
    const double aa = sum<double>(squares_a), bb = sum<double>(squares_b), ab = sum<double>(products);
    const double norms = std::sqrt((aa + kEpsilon) * (bb + kEpsilon)), c = ab / norms;
    double loss = 0, slope = 0;
    Residual rho{0};
    if (y == 1) {
      rho = residual(a, b, aa, ab);
      const double gram = aa * rho.square - rho.along * rho.along;
      loss = ab > 0 ? (gram + kEpsilon * (aa + bb) + kEpsilon * kEpsilon) / (norms * (norms + ab)) : 1 - c;
      slope = -1;
    } else if (y == -1 && !(c < call_.margin)) {
      loss = c - call_.margin;
      slope = 1;
    }
    const double up = slope * sweep_.upstream(r);
    if (slope == 1 && da_.exists()) rho = residual(a, b, aa, ab);
    gradient(da_, r, a, b, rho, aa, bb, up, slope == 0);
    if (slope != 0 && db_.exists()) rho = residual(b, a, bb, ab);
    gradient(db_, r, b, a, rho, bb, aa, up, slope == 0);
    return loss;
  }

 private:
  // rho of (4), b - kappa a, with kappa in two parts, and its products with a and with itself. The rounding error of
  // kappa leaves a multiple of a in rho, which (5) and (6) take into account. If it is as large as rho, as it can be
  // among numbers as fine as double, digits cancel there: then a second part of kappa removes it.
  struct Residual {
    double kappa, kappa_low = 0, along = 0, square = 0;
    Vec<double> at(Vec<double> a, Vec<double> b) const {
      const Vec<double> rho = minus_product(b, kappa, a);
      return kTwice ? minus_product(rho, kappa_low, a) : rho;
    }
  };
  static constexpr bool kTwice = std::is_same_v<Number, double>;

  Residual residual(const Number* a, const Number* b, double aa, double ab) const {
    Residual rho{aa > 0 ? ab / aa : 0};
    for (int step = 0; step < (kTwice ? 2 : 1); ++step) {
      if (step > 0 && aa > 0) rho.kappa_low = rho.along / aa;
      Vec<double> along{}, squares{};
      sweep_.for_each([&](int64_t, auto load, auto) {
        const Vec<double> at_a = load(a), at = rho.at(at_a, load(b));
        along += at_a * at;
        squares += at * at;
      });
      rho.along = sum<double>(along);
      rho.square = sum<double>(squares);
    }
    return rho;
  }

  // (6) in (3): up times the gradient of the cosine with respect to a
  void gradient(const VectorRow<Number>& result, int64_t r, const Number* a, const Number* b, const Residual& rho,
                double aa, double bb, double up, bool is_zero) const {
    if (!result.exists()) return;
    result.write(r, [&](Number* d) {
      if (is_zero) {
        std::fill(d, d + sweep_.size, Number{0});
        return;
      }
      const double na2 = aa + kEpsilon, factor = up / (na2 * std::sqrt(na2 * (bb + kEpsilon)));
      sweep_.for_each([&](int64_t, auto load, auto store) {
        const Vec<double> at_a = load(a), at_b = load(b);
        store(d, factor * (aa * rho.at(at_a, at_b) - rho.along * at_a + kEpsilon * at_b));
      });
    });
  }

  const Call& call_;
  const VectorSweep& sweep_;
  const VectorRow<Number> a_, b_, da_, db_;
};

void cosine_embedding_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.a = in.tensor();
  call.b = in.tensor();
  call.y = in.tensor();
  call.g = in.optional_tensor();
  call.margin = in.real();
  call.scale = in.real();
  call.reduce = in.boolean();
  call.value = in.optional_tensor();
  call.da = in.optional_tensor();
  call.db = in.optional_tensor();
  check_vectors("cosine_embedding_loss", call.a, {&call.b, &call.da, &call.db}, call.y.numel, call.g, call.value,
                call.reduce);
  const VectorSweep sweep(call.a, call.value, call.g, call.scale, call.reduce, {&call.da, &call.db});
  if (call.a.dtype == Dtype::f64)
    sweep.run([&] { return Worker<double>(call, sweep); });
  else
    sweep.run([&] { return Worker<float>(call, sweep); });
}

const Op op{"cosine_embedding_loss",
            "(Tensor a, Tensor b, Tensor y, Tensor? g, float margin, float scale, bool reduce, "
            "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? db) -> ()",
            cosine_embedding_loss};

}  // namespace
}  // namespace mg
