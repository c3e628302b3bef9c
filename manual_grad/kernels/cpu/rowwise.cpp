// Losses of one row of class scores.
//
// A row is staged as the compute type in scratch memory that stays in cache, worked on there, and written out once.
// Letters as in losses/cross_entropy.py: z logits, q effective target, Q its sum, m largest logit, e = exp(z - m),
// s = 1 + rest their sum without cancellation, g upstream.
#include <algorithm>
#include <cmath>

#include "layout.h"
#include "ops.h"

namespace mg {
namespace {

// The rows of a tensor (N, C, d1, ...) or (C): everything but the class dimension, in the order of the loss.
class Rows {
 public:
  explicit Rows(const Tensor& z) : class_dim_(z.dim > 1 ? 1 : 0) {
    for (int d = 0; d < z.dim; ++d) {
      if (d == class_dim_) continue;
      size_[dim_++] = z.sizes[d];
      count *= z.sizes[d];
    }
    classes = z.sizes[class_dim_];
    // neighbouring rows that lie side by side in memory are staged together, a cache line of each class at a time
    if (z.strides[class_dim_] != 1 && dim_ > 0 && z.strides[z.dim - 1] == 1) tile = std::min<int64_t>(16, size_[dim_ - 1]);
  }

  // offset of row r in a tensor with a class dimension (with_classes) or one value a row
  int64_t offset(const Tensor& tensor, int64_t r, bool with_classes) const {
    int64_t sum = 0;
    for (int d = dim_ - 1; d >= 0; --d) {
      sum += (r % size_[d]) * tensor.strides[with_classes && d >= class_dim_ ? d + 1 : d];
      r /= size_[d];
    }
    return sum;
  }
  int64_t class_stride(const Tensor& tensor) const { return tensor.strides[class_dim_]; }

  // the row r of a tensor of class scores, into out
  template <class S, class T>
  void load(const Tensor& tensor, int64_t r, T* out) const {
    load_run(tensor.as<S>() + offset(tensor, r, true), class_stride(tensor), classes, out);
  }
  // the rows [r, r + n), row j into out + j * pitch
  template <class S, class T>
  void load_tile(const Tensor& tensor, int64_t r, int64_t n, int64_t pitch, T* out) const {
    if (n == 1) return load<S>(tensor, r, out);
    int64_t at[16];
    for (int64_t j = 0; j < n; ++j) at[j] = offset(tensor, r + j, true);
    const int64_t step = class_stride(tensor);
    const S* p = tensor.as<S>();
    for (int64_t c = 0; c < classes; ++c, p += step)
      for (int64_t j = 0; j < n; ++j) out[j * pitch + c] = widen(p[at[j]]);
  }
  template <class S, class T>
  void store_tile(const Tensor& tensor, int64_t r, int64_t n, int64_t pitch, const T* from) const {
    int64_t at[16];
    for (int64_t j = 0; j < n; ++j) at[j] = offset(tensor, r + j, true);
    const int64_t step = class_stride(tensor);
    S* p = tensor.as<S>();
    if (n == 1) return store_run(p + at[0], step, classes, from);
    for (int64_t c = 0; c < classes; ++c, p += step)
      for (int64_t j = 0; j < n; ++j) p[at[j]] = narrow<S>(from[j * pitch + c]);
  }

  int64_t count = 1, classes = 0, tile = 1;

 private:
  int dim_ = 0, class_dim_;
  int64_t size_[kMaxDims];
};

enum Reduction : int64_t { kNone, kMean, kSum };

struct Call {
  Tensor z, t, w, g;
  int64_t ignore_index, reduction;
  double smoothing;
  Tensor value, dz, dt, dw;
};

constexpr int64_t kChunkElements = 1 << 15;  // scores per unit of parallel work and per partial sum

template <class S>
class CrossEntropy {
  using T = typename ComputeType<S>::T;

 public:
  explicit CrossEntropy(const Call& call)
      : call_(call),
        rows_(call.z),
        by_index_(call.t.dtype == Dtype::i64),
        pitch_((rows_.classes + kLanes<T> - 1) / kLanes<T> * kLanes<T>),
        base_(by_index_ ? pitch_ : 0) {
    const int64_t per_chunk = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, rows_.classes));
    chunk_ = (per_chunk + rows_.tile - 1) / rows_.tile * rows_.tile;
    chunks_ = (rows_.count + chunk_ - 1) / chunk_;
    if (by_index_) prepare_index_target();
    const double kept = by_index_ ? kept_weight_ : static_cast<double>(rows_.count);
    scale_ = call.reduction == kMean ? 1.0 / kept : 1.0;
    if (call.g.exists() && call.g.numel == 1) scale_ *= static_cast<double>(widen(*call.g.template as<S>()));
    for (const Tensor* result : {&call.dz, &call.dt, &call.dw})
      if (result->exists()) advise_huge_pages(*result, result->numel * static_cast<int64_t>(sizeof(S)));
  }

  void run() {
    const bool want_sum = call_.value.exists() && call_.reduction != kNone;
    Scratch<double> partial(want_sum ? chunks_ : 0);
    parallel_for(chunks_, 1, [&](int64_t first, int64_t last) {
      const bool want_scores = call_.dt.exists() || call_.dw.exists();
      Scratch<T> z(pitch_ * rows_.tile), q(pitch_), scores(want_scores ? pitch_ : 0), t(want_scores ? pitch_ : 0),
          w(by_index_ ? 0 : pitch_);
      for (int64_t chunk = first; chunk < last; ++chunk) {
        ExactSum sum;
        const int64_t end = std::min(rows_.count, (chunk + 1) * chunk_);
        for (int64_t r = chunk * chunk_; r < end; r += rows_.tile) {
          const int64_t n = std::min(rows_.tile, end - r);
          rows_.template load_tile<S>(call_.z, r, n, pitch_, z.get());
          for (int64_t j = 0; j < n; ++j) {
            T* row = z.get() + j * pitch_;
            const double loss = by_index_ ? index_row(r + j, row) : probability_row(r + j, row, q, scores, t, w);
            sum.add(loss);
            if (call_.value.exists() && !want_sum)
              call_.value.template as<S>()[rows_.offset(call_.value, r + j, false)] = narrow<S>(loss);
          }
          if (call_.dz.exists()) rows_.template store_tile<S>(call_.dz, r, n, pitch_, z.get());
        }
        if (want_sum) partial[chunk] = sum.value();
      }
    });
    if (want_sum) {
      ExactSum sum;
      for (int64_t chunk = 0; chunk < chunks_; ++chunk) sum.add(partial[chunk]);
      *call_.value.template as<S>() = narrow<S>(sum.value() * scale_);
    }
  }

 private:
  int64_t target(int64_t r) const { return call_.t.as<int64_t>()[rows_.offset(call_.t, r, false)]; }
  double class_weight(int64_t c) const {
    return call_.w.exists() ? static_cast<double>(widen(call_.w.template as<S>()[c * call_.w.strides[0]])) : 1.0;
  }
  T upstream(int64_t r) const {
    if (!call_.g.exists() || call_.g.numel == 1) return static_cast<T>(scale_);
    return static_cast<T>(scale_ * static_cast<double>(widen(call_.g.template as<S>()[rows_.offset(call_.g, r, false)])));
  }

  // Checks every class index before any memory is touched by it, and sums the weights that the mean divides by.
  void prepare_index_target() {
    const int64_t C = rows_.classes;
    ExactSum kept;
    for (int64_t r = 0; r < rows_.count; ++r) {
      const int64_t y = target(r);
      if (y == call_.ignore_index) continue;
      if (y < 0 || y >= C)
        throw std::out_of_range("Target " + std::to_string(y) + " is out of bounds: cross_entropy's target must be in [0, " +
                                std::to_string(C - 1) + "] or ignore_index (" + std::to_string(call_.ignore_index) + ").");
      kept.add(class_weight(y));
    }
    kept_weight_ = kept.value();
    ExactSum total;
    for (int64_t c = 0; c < pitch_; ++c) {
      const double share = c < C ? class_weight(c) * call_.smoothing / static_cast<double>(C) : 0.0;
      base_[c] = static_cast<T>(share);
      total.add(share);
    }
    base_total_ = static_cast<T>(total.value());
  }

  struct Sums {
    T m, rest, leaders, rest_q, distance;  // distance = sum of q (m - z)
  };

  // z becomes e = exp(z - m). The leading class' own e = 1 is left out of rest, so that 1 - p keeps its digits.
  Sums exponentials(T* z, const T* q) const {
    const T inf = static_cast<T>(INFINITY);
    for (int64_t c = rows_.classes; c < pitch_; ++c) z[c] = -inf;
    Vec<T> largest = splat(-inf);
    for (int64_t c = 0; c < pitch_; c += kLanes<T>) {
      const Vec<T> v = load(z + c);
      largest = ((v > largest) | (v != v)) ? v : largest;
    }
    T m = -inf;
    for (int lane = 0; lane < kLanes<T>; ++lane)
      if (largest[lane] > m || largest[lane] != largest[lane]) m = largest[lane];
    const Vec<T> zero{}, one = splat(T{1});
    Vec<T> rest{}, leaders{}, rest_q{}, distance{};
    for (int64_t c = 0; c < pitch_; c += kLanes<T>) {
      const Vec<T> gap = load(z + c) - m, e = exp<T>(gap);
      store<T>(z + c, e);
      rest += e == one ? zero : e;
      leaders += e == one ? one : zero;
      if (q != nullptr) {
        const Vec<T> qc = load(q + c);
        rest_q += e == one ? zero : qc;
        distance -= qc == zero ? zero : qc * gap;  // 0 log 0 = 0
      }
    }
    Sums sums{m, 0, 0, 0, 0};
    for (int lane = 0; lane < kLanes<T>; ++lane) {
      sums.rest += rest[lane];
      sums.leaders += leaders[lane];
      sums.rest_q += rest_q[lane];
      sums.distance += distance[lane];
    }
    sums.rest += sums.leaders - 1;
    return sums;
  }

  // e becomes up (Q p - q); a sole leader's component is up (rest_q - Q (1 - p)).
  void gradient(T* e, const T* q, T Q, T up, const Sums& sums) const {
    const T s = 1 + sums.rest, slope = up * Q / s;
    const Vec<T> one = splat(T{1}), leader = splat(up * sums.rest_q - slope * sums.rest);
    const bool sole = sums.leaders == 1;
    for (int64_t c = 0; c < pitch_; c += kLanes<T>) {
      const Vec<T> v = load(e + c);
      Vec<T> d = v * slope;
      if (q != nullptr) d -= load(q + c) * up;
      store<T>(e + c, sole ? (v == one ? leader : d) : d);
    }
  }

  double index_row(int64_t r, T* z) const {
    const int64_t y = target(r);
    if (y == call_.ignore_index) {
      std::fill(z, z + pitch_, T{0});
      return 0.0;
    }
    const T own = static_cast<T>((1.0 - call_.smoothing) * class_weight(y)), z_y = z[y];
    const T* base = call_.smoothing != 0.0 ? base_.get() : nullptr;
    Sums sums = exponentials(z, base);
    const T Q = own + (base != nullptr ? base_total_ : T{0}), e_y = z[y];
    const bool leads = e_y == T{1};
    const T log_s = std::log1p(sums.rest);
    if (call_.dz.exists()) {
      const T up = upstream(r), s = 1 + sums.rest;
      if (!leads) sums.rest_q += own;
      gradient(z, base, Q, up, sums);
      if (!(leads && sums.leaders == 1)) z[y] = up * (Q * (e_y / s) - (base != nullptr ? base[y] : T{0}) - own);
    }
    return static_cast<double>(own * (sums.m - z_y) + sums.distance + Q * log_s);
  }

  double probability_row(int64_t r, T* z, const Scratch<T>& q, const Scratch<T>& scores, const Scratch<T>& t,
                         const Scratch<T>& w) const {
    const int64_t C = rows_.classes;
    const T keep = static_cast<T>(1.0 - call_.smoothing), share = static_cast<T>(call_.smoothing / static_cast<double>(C));
    rows_.template load<S>(call_.t, r, q.get());
    if (call_.w.exists()) rows_.template load<S>(call_.w, r, w.get());
    ExactSum total;
    for (int64_t c = 0; c < pitch_; ++c) {
      const T smooth = c < C ? keep * q[c] + share : T{0};
      if (call_.dw.exists()) t[c] = smooth;
      q[c] = call_.w.exists() && c < C ? smooth * w[c] : smooth;
      total.add(static_cast<double>(q[c]));
    }
    if (call_.dt.exists() || call_.dw.exists()) std::copy(z, z + C, scores.get());
    const T Q = static_cast<T>(total.value());
    const Sums sums = exponentials(z, q.get());
    const T log_s = std::log1p(sums.rest), up = upstream(r);
    if (call_.dz.exists()) gradient(z, q.get(), Q, up, sums);
    if (call_.dt.exists() || call_.dw.exists()) {
      for (int64_t c = 0; c < C; ++c) {
        const T nll = (sums.m - scores[c]) + log_s;
        scores[c] = up * keep * (call_.w.exists() ? w[c] : T{1}) * nll;
        if (call_.dw.exists()) t[c] *= up * nll;
      }
      if (call_.dt.exists()) rows_.template store_tile<S>(call_.dt, r, 1, pitch_, scores.get());
      if (call_.dw.exists()) rows_.template store_tile<S>(call_.dw, r, 1, pitch_, t.get());
    }
    return static_cast<double>(sums.distance + Q * log_s);
  }

  const Call& call_;
  const Rows rows_;
  const bool by_index_;
  const int64_t pitch_;  // classes, rounded up to whole vectors
  Scratch<T> base_;      // index targets: the smoothing's share of every class
  T base_total_ = 0;
  int64_t chunk_ = 0, chunks_ = 0;
  double kept_weight_ = 0, scale_ = 1;
};

void cross_entropy(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.z = in.tensor();
  call.t = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.ignore_index = in.integer();
  call.smoothing = in.real();
  call.reduction = in.integer();
  call.value = in.optional_tensor();
  call.dz = in.optional_tensor();
  call.dt = in.optional_tensor();
  call.dw = in.optional_tensor();
  if (call.z.dim < 1 || call.z.dim > kMaxDims) throw std::runtime_error("manual_grad: cross_entropy takes 1 to 16 dimensions");
  const int64_t classes = call.z.sizes[call.z.dim > 1 ? 1 : 0], rows = classes > 0 ? call.z.numel / classes : 0;
  const bool by_index = call.t.dtype == Dtype::i64;
  for (const Tensor* like : {&call.dz, &call.dt, &call.dw})
    if (like->exists() && (like->dtype != call.z.dtype || like->numel != call.z.numel))
      throw std::runtime_error("manual_grad: a gradient of cross_entropy has the input's dtype and shape");
  if (call.t.numel != (by_index ? rows : call.z.numel) || (!by_index && call.t.dtype != call.z.dtype) ||
      (call.w.exists() && (call.w.dtype != call.z.dtype || call.w.numel != (by_index ? classes : call.z.numel))) ||
      (call.g.exists() && (call.g.dtype != call.z.dtype || (call.g.numel != 1 && call.g.numel != rows))) ||
      (call.value.exists() && (call.value.dtype != call.z.dtype || call.value.numel != (call.reduction == kNone ? rows : 1))))
    throw std::runtime_error("manual_grad: the tensors of cross_entropy do not fit together");
  with_dtype(call.z.dtype, [&](auto s) { CrossEntropy<decltype(s)>(call).run(); });
}

}  // namespace

const std::initializer_list<Op> rowwise_ops = {
    {"cross_entropy",
     "(Tensor z, Tensor t, Tensor? w, Tensor? g, int ignore_index, float smoothing, int reduction, "
     "Tensor(a!)? value, Tensor(b!)? dz, Tensor(c!)? dt, Tensor(d!)? dw) -> ()",
     cross_entropy},
};

}  // namespace mg
