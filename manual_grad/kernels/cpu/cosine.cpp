// losses/pairwise/cosine_embedding_loss.py. a and b are the vectors; kappa and rho are as defined there.
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

double dot(const double* a, const double* b, int64_t n) {
  Vec<double> sum{};
  for (int64_t i = 0; i < n; i += kLanes<double>) sum += load(a + i) * load(b + i);
  return mg::sum<double>(sum);
}

// x with the lower half of its mantissa cleared, so that the product of two such numbers is exact
double head(double x) { return bitcast<double>(bitcast<uint64_t>(x) & ~uint64_t{0x7ffffff}); }
Vec<double> head(Vec<double> x) { return bitcast<Vec<double>>(bitcast<Mask<double>>(x) & ~int64_t{0x7ffffff}); }

// Two vectors and their dot products.
struct Products {
  const double *a, *b;
  double aa, bb, ab;
  Products mirrored() const { return {b, a, bb, aa, ab}; }
};

// rho = b - kappa a, (4), in two steps; returns a . rho
double residual(const Products& x, int64_t n, double* rho) {
  double a_rho = x.ab;
  const double* from = x.b;
  for (int step = 0; step < 2; ++step, from = rho) {
    const double kappa = x.aa > 0 ? head(a_rho / x.aa) : 0;
    Vec<double> sum{};
    for (int64_t i = 0; i < n; i += kLanes<double>) {
      const Vec<double> a = load(x.a + i), high = head(a), r = (load(from + i) - kappa * high) - kappa * (a - high);
      store<double>(rho + i, r);
      sum += a * r;
    }
    a_rho = mg::sum<double>(sum);
  }
  return a_rho;
}

// Overwrites rho with the gradient of the cosine with respect to a, times slope: (6) in (3).
void cosine_gradient(const Products& x, double a_rho, double slope, int64_t n, double* rho) {
  const double na2 = x.aa + kEpsilon, factor = slope / (na2 * std::sqrt(na2 * (x.bb + kEpsilon)));
  for (int64_t i = 0; i < n; i += kLanes<double>) {
    const Vec<double> d = x.aa * load(rho + i) - a_rho * load(x.a + i) + kEpsilon * load(x.b + i);
    store<double>(rho + i, factor * d);
  }
}

class Worker {
 public:
  Worker(const Call& call, const VectorSweep& sweep)
      : call_(call), sweep_(sweep), a_(sweep.pitch), b_(sweep.pitch), rho_(sweep.pitch) {
    for (double* staged : {a_.get(), b_.get()}) std::fill(staged, staged + sweep.pitch, 0.0);
  }

  double operator()(int64_t r) {
    const double *a = a_.get(), *b = b_.get();
    double* rho = rho_.get();
    const int64_t n = sweep_.pitch;
    sweep_.load(call_.a, r, a_.get());
    sweep_.load(call_.b, r, b_.get());
    const double y = number_at(call_.y, call_.y.dim > 0 ? r * call_.y.strides[0] : 0);
    const Products x{a, b, dot(a, a, n), dot(b, b, n), dot(a, b, n)};
    const double norms = std::sqrt((x.aa + kEpsilon) * (x.bb + kEpsilon)), c = x.ab / norms;
    double loss = 0, slope = 0, a_rho = 0;
    const bool is_alike = y == 1;
    if (is_alike) {
      a_rho = residual(x, n, rho);
      const double gram = x.aa * dot(rho, rho, n) - a_rho * a_rho;
      loss = x.ab > 0 ? (gram + kEpsilon * (x.aa + x.bb) + kEpsilon * kEpsilon) / (norms * (norms + x.ab)) : 1 - c;
      slope = -1;
    } else if (y == -1 && !(c < call_.margin)) {
      loss = c - call_.margin;
      slope = 1;
    }
    const double up = slope * sweep_.upstream(r);
    auto gradient = [&](const Tensor& result, const Products& x, bool has_rho) {
      if (!result.exists()) return;
      if (slope == 0) {
        std::fill(rho, rho + n, 0.0);
      } else {
        if (!has_rho) a_rho = residual(x, n, rho);
        cosine_gradient(x, a_rho, up, n, rho);
      }
      sweep_.store(result, r, rho);
    };
    gradient(call_.da, x, is_alike);
    gradient(call_.db, x.mirrored(), false);
    return loss;
  }

 private:
  const Call& call_;
  const VectorSweep& sweep_;
  const Scratch<double> a_, b_, rho_;
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
  sweep.run([&] { return Worker(call, sweep); });
}

const Op op{"cosine_embedding_loss",
            "(Tensor a, Tensor b, Tensor y, Tensor? g, float margin, float scale, bool reduce, "
            "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? db) -> ()",
            cosine_embedding_loss};

}  // namespace
}  // namespace mg
