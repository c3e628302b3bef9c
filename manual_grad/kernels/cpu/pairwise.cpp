// Losses of two feature vectors, one pair a row. Letters as in losses/cosine_embedding_loss.py.
#include <algorithm>
#include <cmath>

#include "layout.h"
#include "ops.h"

namespace mg {
namespace {

constexpr int64_t kChunkElements = 1 << 14;  // vector components per unit of parallel work and per partial sum
constexpr double kEpsilon = 1e-12;

struct Call {
  Tensor a, b, y, g;
  double margin, scale;
  bool reduce;
  Tensor value, da, db;
};

template <class T>
T dot(const T* a, const T* b, int64_t n) {
  Vec<T> sum{};
  for (int64_t i = 0; i < n; i += kLanes<T>) sum += load(a + i) * load(b + i);
  return mg::sum<T>(sum);
}

// x without the lower half of its bits: the product of two such numbers is exact
inline double head(double x) { return bitcast<double>(bitcast<uint64_t>(x) & ~uint64_t{0x7ffffff}); }
inline Vec<double> head(Vec<double> x) { return bitcast<Vec<double>>(bitcast<Mask<double>>(x) & ~int64_t{0x7ffffff}); }

// rho = b - kappa a, (4), in two steps; returns a . rho
template <class T>
T residual(const T* a, const T* b, T aa, T ab, int64_t n, T* rho) {
  const T* from = b;
  for (int step = 0; step < 2; ++step, from = rho) {
    const T kappa = aa > 0 ? head(ab / aa) : T{0};
    Vec<T> sum{};
    for (int64_t i = 0; i < n; i += kLanes<T>) {
      const Vec<T> va = load(a + i), high = head(va), r = (load(from + i) - kappa * high) - kappa * (va - high);
      store<T>(rho + i, r);
      sum += va * r;
    }
    ab = mg::sum<T>(sum);
  }
  return ab;
}

template <class T>
struct Pair {
  const T *a, *b;
  T aa, bb, ab;
};

// The gradient of the cosine by a, times slope: (6) in (3); rho is overwritten by it.
template <class T>
void cosine_gradient(const Pair<T>& pair, T a_rho, T slope, int64_t n, T* rho) {
  const T epsilon = static_cast<T>(kEpsilon), na2 = pair.aa + epsilon;
  const T factor = slope / (na2 * std::sqrt(na2 * (pair.bb + epsilon)));
  for (int64_t i = 0; i < n; i += kLanes<T>) {
    const Vec<T> d = pair.aa * load(rho + i) - a_rho * load(pair.a + i) + epsilon * load(pair.b + i);
    store<T>(rho + i, factor * d);
  }
}

template <class S>
void run(const Call& call) {
  // halves too are taken in double: the products of a long row leave float's range
  using T = double;
  const int64_t D = call.a.sizes[call.a.dim - 1], rows = call.y.numel;
  const int64_t pitch = (D + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, D));
  const int64_t chunks = (rows + chunk_rows - 1) / chunk_rows;
  const bool want_sum = call.reduce && call.value.exists(), scalar_g = call.g.exists() && call.g.numel == 1;
  const double scale = call.scale * (scalar_g ? static_cast<double>(widen(*call.g.template as<S>())) : 1.0);
  auto at = [&](const Tensor& tensor, int64_t r) { return tensor.as<S>() + (tensor.dim > 1 ? r * tensor.strides[0] : 0); };
  auto step = [](const Tensor& tensor) { return tensor.strides[tensor.dim - 1]; };
  auto row_stride = [](const Tensor& tensor) { return tensor.dim > 0 ? tensor.strides[0] : 0; };
  for (const Tensor* result : {&call.da, &call.db})
    if (result->exists()) advise_huge_pages(*result, result->numel * static_cast<int64_t>(sizeof(S)));
  Scratch<double> partial(want_sum ? chunks : 0);

  parallel_for(chunks, 1, [&](int64_t first, int64_t last) {
    Scratch<T> a(pitch), b(pitch), rho(pitch);
    std::fill(a.get(), a.get() + pitch, T{0});
    std::fill(b.get(), b.get() + pitch, T{0});
    for (int64_t chunk = first; chunk < last; ++chunk) {
      ExactSum sum;
      const int64_t end = std::min(rows, (chunk + 1) * chunk_rows);
      for (int64_t r = chunk * chunk_rows; r < end; ++r) {
        load_run(at(call.a, r), step(call.a), D, a.get());
        load_run(at(call.b, r), step(call.b), D, b.get());
        const double y = number_at(call.y, r * row_stride(call.y));
        const Pair<T> ab{a.get(), b.get(), dot(a.get(), a.get(), pitch), dot(b.get(), b.get(), pitch),
                         dot(a.get(), b.get(), pitch)};
        const T norms = std::sqrt((ab.aa + kEpsilon) * (ab.bb + kEpsilon)), c = ab.ab / norms;
        T loss = 0, slope = 0, a_rho = 0;
        bool have_rho = false;
        if (y == 1) {
          a_rho = residual(ab.a, ab.b, ab.aa, ab.ab, pitch, rho.get());
          have_rho = true;
          const T gram = ab.aa * dot(rho.get(), rho.get(), pitch) - a_rho * a_rho;
          loss = ab.ab > 0 ? (gram + kEpsilon * (ab.aa + ab.bb) + kEpsilon * kEpsilon) / (norms * (norms + ab.ab)) : 1 - c;
          slope = -1;
        } else if (y == -1 && !(c < call.margin)) {
          loss = c - call.margin;
          slope = 1;
        }
        sum.add(loss);
        if (call.value.exists() && !want_sum)
          call.value.template as<S>()[r * row_stride(call.value)] = narrow<S>(loss);
        T up = slope * scale;
        if (call.g.exists() && !scalar_g) up *= widen(call.g.template as<S>()[r * row_stride(call.g)]);
        if (call.da.exists()) {
          if (slope == 0) {
            std::fill(rho.get(), rho.get() + D, T{0});
          } else {
            if (!have_rho) a_rho = residual(ab.a, ab.b, ab.aa, ab.ab, pitch, rho.get());
            cosine_gradient(ab, a_rho, up, pitch, rho.get());
          }
          store_run(at(call.da, r), step(call.da), D, rho.get());
        }
        if (call.db.exists()) {
          const Pair<T> ba{ab.b, ab.a, ab.bb, ab.aa, ab.ab};
          if (slope == 0) {
            std::fill(rho.get(), rho.get() + D, T{0});
          } else {
            cosine_gradient(ba, residual(ba.a, ba.b, ba.aa, ba.ab, pitch, rho.get()), up, pitch, rho.get());
          }
          store_run(at(call.db, r), step(call.db), D, rho.get());
        }
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
  const int64_t rows = call.y.numel;
  bool fits = (call.a.dim == 1 && rows == 1) || (call.a.dim == 2 && call.a.sizes[0] == rows);
  for (const Tensor* like : {&call.b, &call.da, &call.db})
    fits = fits && (!like->exists() || (like->dtype == call.a.dtype && like->dim == call.a.dim && like->numel == call.a.numel &&
                                        like->sizes[like->dim - 1] == call.a.sizes[call.a.dim - 1]));
  fits = fits && (!call.g.exists() || (call.g.dtype == call.a.dtype && (call.g.numel == rows || call.g.numel == 1)));
  fits = fits && (!call.value.exists() || (call.value.dtype == call.a.dtype && call.value.numel == (call.reduce ? 1 : rows)));
  if (!fits) throw std::runtime_error("manual_grad: the tensors of cosine_embedding_loss do not fit together");
  with_dtype(call.a.dtype, [&](auto s) { run<decltype(s)>(call); });
}

}  // namespace

const std::initializer_list<Op> pairwise_ops = {
    {"cosine_embedding_loss",
     "(Tensor a, Tensor b, Tensor y, Tensor? g, float margin, float scale, bool reduce, "
     "Tensor(a!)? value, Tensor(b!)? da, Tensor(c!)? db) -> ()",
     cosine_embedding_loss},
};

}  // namespace mg
