// Losses of one row of class scores.
//
// Rows are staged as the compute type in scratch memory that stays in cache, a pack at a time, worked on there, and
// written out once. A pack is either one long row, with the classes across the lanes of a vector, or as many short rows
// as a vector has lanes, one row a lane; the arithmetic is the same text for both.
// Letters as in losses/cross_entropy.py: z logits, q effective target, Q its sum, m largest logit, e = exp(z - m),
// rest the sum of e without the leader's, g upstream.
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
  }

  // Offsets of the rows [r, r + n) in a tensor of class scores (with_classes) or of one value a row.
  void offsets(const Tensor& tensor, int64_t r, int64_t n, bool with_classes, int64_t* out) const {
    auto stride = [&](int d) { return tensor.strides[with_classes && d >= class_dim_ ? d + 1 : d]; };
    int64_t index[kMaxDims], offset = 0;
    for (int d = dim_ - 1; d >= 0; --d) {
      index[d] = d == 0 ? r : r % size_[d];
      if (d > 0) r /= size_[d];
      offset += index[d] * stride(d);
    }
    for (int64_t j = 0;; offset += stride(dim_ - 1)) {
      out[j] = offset;
      if (++j == n) return;
      for (int d = dim_ - 1; ++index[d] == size_[d]; --d) {  // carry into the dimension before
        offset += stride(d - 1) - size_[d] * stride(d);
        index[d] = 0;
      }
    }
  }
  int64_t class_stride(const Tensor& tensor) const { return tensor.strides[class_dim_]; }

  int64_t count = 1, classes = 0;

 private:
  int dim_ = 0, class_dim_;
  int64_t size_[kMaxDims];
};

// One row a pack; the classes lie across the lanes, padded to whole vectors.
template <class T>
struct Across {
  static constexpr int64_t kRows = 1;
  explicit Across(int64_t classes) : vectors((classes + kLanes<T> - 1) / kLanes<T>) {}
  static int64_t at(int64_t c, int64_t) { return c; }
  static Vec<T> sum(Vec<T> v) {
    T total = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) total += v[lane];
    return splat(total);
  }
  static Vec<T> max(Vec<T> v) {
    T m = v[0];
    for (int lane = 1; lane < kLanes<T>; ++lane)
      if (v[lane] > m || v[lane] != v[lane]) m = v[lane];
    return splat(m);
  }
  static Vec<T> per_class(const T* values, int64_t i) { return load(values + i * kLanes<T>); }
  static Vec<T> per_row(const T* values) { return splat(values[0]); }
  static void per_row(Vec<T> v, T* values) { values[0] = v[0]; }
  int64_t vectors;
};

// A row in every lane.
template <class T>
struct Down {
  static constexpr int64_t kRows = kLanes<T>;
  explicit Down(int64_t classes) : vectors(classes) {}
  static int64_t at(int64_t c, int64_t row) { return c * kLanes<T> + row; }
  static Vec<T> sum(Vec<T> v) { return v; }
  static Vec<T> max(Vec<T> v) { return v; }
  static Vec<T> per_class(const T* values, int64_t i) { return splat(values[i]); }
  static Vec<T> per_row(const T* values) { return load(values); }
  static void per_row(Vec<T> v, T* values) { store<T>(values, v); }
  int64_t vectors;
};

// The rows [r, r + n) of a tensor of class scores, into a pack and out of it.
template <class S, class T>
void load_pack(const Rows& rows, const Tensor& tensor, int64_t r, int64_t, const Across<T>& pack, T padding, T* out) {
  int64_t at;
  rows.offsets(tensor, r, 1, true, &at);
  load_run(tensor.as<S>() + at, rows.class_stride(tensor), rows.classes, out);
  std::fill(out + rows.classes, out + pack.vectors * kLanes<T>, padding);
}
template <class S, class T>
void store_pack(const Rows& rows, const Tensor& tensor, int64_t r, int64_t, const Across<T>&, const T* from) {
  int64_t at;
  rows.offsets(tensor, r, 1, true, &at);
  store_run(tensor.as<S>() + at, rows.class_stride(tensor), rows.classes, from);
}

inline bool side_by_side(const int64_t* at, int64_t n) {
  for (int64_t j = 1; j < n; ++j)
    if (at[j] != at[0] + j) return false;
  return true;
}
template <class S, class T>
void load_pack(const Rows& rows, const Tensor& tensor, int64_t r, int64_t n, const Down<T>&, T, T* out) {
  int64_t at[kLanes<T>];
  rows.offsets(tensor, r, n, true, at);
  const int64_t step = rows.class_stride(tensor);
  const S* p = tensor.as<S>();
  if (n == kLanes<T> && side_by_side(at, n)) {
    for (int64_t c = 0; c < rows.classes; ++c) store<T>(out + c * kLanes<T>, load_vector<T>(p + at[0] + c * step));
    return;
  }
  for (int64_t j = 0; j < kLanes<T>; ++j)
    for (int64_t c = 0; c < rows.classes; ++c) out[c * kLanes<T> + j] = j < n ? widen(p[at[j] + c * step]) : 0;
}
template <class S, class T>
void store_pack(const Rows& rows, const Tensor& tensor, int64_t r, int64_t n, const Down<T>&, const T* from) {
  int64_t at[kLanes<T>];
  rows.offsets(tensor, r, n, true, at);
  const int64_t step = rows.class_stride(tensor);
  S* p = tensor.as<S>();
  if (n == kLanes<T> && side_by_side(at, n)) {
    for (int64_t c = 0; c < rows.classes; ++c) store_vector(p + at[0] + c * step, load(from + c * kLanes<T>));
    return;
  }
  for (int64_t j = 0; j < n; ++j)
    for (int64_t c = 0; c < rows.classes; ++c) p[at[j] + c * step] = narrow<S>(from[c * kLanes<T> + j]);
}

struct Call {
  Tensor z, t, w, g;
  int64_t ignore_index, reduction;
  double smoothing;
  Tensor value, dz, dt, dw;
};

constexpr int64_t kChunkElements = 1 << 15;  // scores per unit of parallel work and per partial sum
constexpr int64_t kShortRow = 64;            // classes up to which dense rows are packed one a lane

template <class S>
class CrossEntropy {
  using T = typename ComputeType<S>::T;

 public:
  explicit CrossEntropy(const Call& call)
      : call_(call),
        rows_(call.z),
        by_index_(call.t.dtype == Dtype::i64),
        base_(by_index_ ? rows_.classes + kLanes<T> : 0) {
    const int64_t C = rows_.classes;
    const int64_t per_chunk = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, C));
    chunk_ = (per_chunk + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    if (C >= kChunkElements) chunk_ = 1;
    chunks_ = (rows_.count + chunk_ - 1) / chunk_;
    if (by_index_) prepare_index_target();
    const double kept = by_index_ ? kept_weight_ : static_cast<double>(rows_.count);
    scale_ = call.reduction == kMean ? 1.0 / kept : 1.0;
    if (call.g.exists() && call.g.numel == 1) scale_ *= static_cast<double>(widen(*call.g.template as<S>()));
    for (const Tensor* result : {&call.dz, &call.dt, &call.dw})
      if (result->exists()) advise_huge_pages(*result, result->numel * static_cast<int64_t>(sizeof(S)));
  }

  void run() {
    const bool one_a_lane = rows_.count >= kLanes<T> && (rows_.class_stride(call_.z) != 1 || rows_.classes <= kShortRow);
    if (one_a_lane) {
      sweep(Down<T>(rows_.classes));
    } else {
      sweep(Across<T>(rows_.classes));
    }
  }

 private:
  struct Buffers {
    T *z, *q, *scores, *t, *w;
  };

  template <class Pack>
  void sweep(const Pack& pack) {
    const bool want_sum = call_.value.exists() && call_.reduction != kNone;
    const bool want_scores = call_.dt.exists() || call_.dw.exists();
    const int64_t size = pack.vectors * kLanes<T>;
    Scratch<double> partial(want_sum ? chunks_ : 0);
    parallel_for(chunks_, 1, [&](int64_t first, int64_t last) {
      Scratch<T> z(size), q(by_index_ ? 0 : size), scores(want_scores ? size : 0), t(want_scores ? size : 0),
          w(by_index_ ? 0 : size);
      const Buffers buffers{z.get(), q.get(), scores.get(), t.get(), w.get()};
      for (int64_t chunk = first; chunk < last; ++chunk) {
        ExactSum sum;
        const int64_t end = std::min(rows_.count, (chunk + 1) * chunk_);
        for (int64_t r = chunk * chunk_; r < end; r += Pack::kRows) {
          const int64_t n = std::min(Pack::kRows, end - r);
          alignas(64) T loss[Pack::kRows];
          load_pack<S>(rows_, call_.z, r, n, pack, static_cast<T>(-INFINITY), buffers.z);
          if (by_index_) {
            index_rows(pack, r, n, buffers, loss);
          } else {
            probability_rows(pack, r, n, buffers, loss);
          }
          if (call_.dz.exists()) store_pack<S>(rows_, call_.dz, r, n, pack, buffers.z);
          for (int64_t j = 0; j < n; ++j) sum.add(static_cast<double>(loss[j]));
          if (call_.value.exists() && !want_sum) {
            int64_t at[Pack::kRows];
            rows_.offsets(call_.value, r, n, false, at);
            for (int64_t j = 0; j < n; ++j) call_.value.template as<S>()[at[j]] = narrow<S>(static_cast<double>(loss[j]));
          }
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

  double class_weight(int64_t c) const {
    return call_.w.exists() ? static_cast<double>(widen(call_.w.template as<S>()[c * call_.w.strides[0]])) : 1.0;
  }

  template <class Pack>
  Vec<T> upstream(int64_t r, int64_t n) const {
    if (!call_.g.exists() || call_.g.numel == 1) return splat(static_cast<T>(scale_));
    int64_t at[Pack::kRows];
    alignas(64) T up[Pack::kRows] = {};
    rows_.offsets(call_.g, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) up[j] = static_cast<T>(scale_ * static_cast<double>(widen(call_.g.template as<S>()[at[j]])));
    return Pack::per_row(up);
  }

  // Checks every class index before any memory is touched by it, and sums the weights that the mean divides by.
  void prepare_index_target() {
    const int64_t C = rows_.classes;
    ExactSum kept;
    constexpr int64_t kBatch = 256;
    int64_t at[kBatch];
    for (int64_t r = 0; r < rows_.count; r += kBatch) {
      const int64_t n = std::min(kBatch, rows_.count - r);
      rows_.offsets(call_.t, r, n, false, at);
      for (int64_t j = 0; j < n; ++j) {
        const int64_t y = call_.t.as<int64_t>()[at[j]];
        if (y == call_.ignore_index) continue;
        if (y < 0 || y >= C)
          throw std::out_of_range("Target " + std::to_string(y) +
                                  " is out of bounds: cross_entropy's target must be in [0, " + std::to_string(C - 1) +
                                  "] or ignore_index (" + std::to_string(call_.ignore_index) + ").");
        kept.add(class_weight(y));
      }
    }
    kept_weight_ = kept.value();
    ExactSum total;
    for (int64_t c = 0; c < C + kLanes<T>; ++c) {
      const double share = c < C ? class_weight(c) * call_.smoothing / static_cast<double>(C) : 0.0;
      base_[c] = static_cast<T>(share);
      total.add(share);
    }
    base_total_ = static_cast<T>(total.value());
  }

  struct Sums {
    Vec<T> m, rest, leaders, rest_q, distance;  // distance = sum of q (m - z)
  };

  // z becomes e = exp(z - m). The leading class' own e = 1 is left out of rest, so that 1 - p keeps its digits.
  // q(i) is the effective target of the i-th vector of the pack.
  template <class Pack, class Target>
  static Sums exponentials(const Pack& pack, T* z, const Target* q) {
    Vec<T> m = splat(static_cast<T>(-INFINITY));
    for (int64_t i = 0; i < pack.vectors; ++i) {
      const Vec<T> v = load(z + i * kLanes<T>);
      m = ((v > m) | (v != v)) ? v : m;
    }
    m = Pack::max(m);
    const Vec<T> zero{}, one = splat(T{1});
    Vec<T> rest{}, leaders{}, rest_q{}, distance{};
    for (int64_t i = 0; i < pack.vectors; ++i) {
      T* at = z + i * kLanes<T>;
      const Vec<T> gap = load(at) - m, e = exp_for<S, T>(gap);
      store<T>(at, e);
      rest += e == one ? zero : e;
      leaders += e == one ? one : zero;
      if (q != nullptr) {
        const Vec<T> at_q = (*q)(i);
        rest_q += e == one ? zero : at_q;
        distance -= at_q == zero ? zero : at_q * gap;  // 0 log 0 = 0
      }
    }
    leaders = Pack::sum(leaders);
    return {m, Pack::sum(rest) + (leaders - one), leaders, Pack::sum(rest_q), Pack::sum(distance)};
  }

  // e becomes up (Q p - q); a sole leader's component is up (rest_q - Q (1 - p)).
  template <class Pack, class Target>
  static void gradient(const Pack& pack, T* e, const Target* q, Vec<T> Q, Vec<T> up, const Sums& sums) {
    const Vec<T> one = splat(T{1}), slope = up * Q / (one + sums.rest), leader = up * sums.rest_q - slope * sums.rest;
    const Mask<T> sole = sums.leaders == one;
    for (int64_t i = 0; i < pack.vectors; ++i) {
      T* at = e + i * kLanes<T>;
      const Vec<T> v = load(at);
      Vec<T> d = v * slope;
      if (q != nullptr) d -= (*q)(i) * up;
      store<T>(at, (sole & (v == one)) ? leader : d);
    }
  }

  template <class Pack>
  void index_rows(const Pack& pack, int64_t r, int64_t n, const Buffers& buffers, T* loss) const {
    int64_t y[Pack::kRows], at[Pack::kRows];
    alignas(64) T own[Pack::kRows] = {}, kept[Pack::kRows] = {}, z_y[Pack::kRows] = {}, e_y[Pack::kRows];
    T* z = buffers.z;
    rows_.offsets(call_.t, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) {
      y[j] = call_.t.as<int64_t>()[at[j]];
      if (y[j] == call_.ignore_index) {  // whatever the row holds, it has no part in the result
        for (int64_t c = 0; c < rows_.classes; ++c) z[Pack::at(c, j)] = 0;
        y[j] = 0;
        continue;
      }
      kept[j] = 1;
      own[j] = static_cast<T>((1.0 - call_.smoothing) * class_weight(y[j]));
      z_y[j] = z[Pack::at(y[j], j)];
    }
    const Vec<T> is_kept = Pack::per_row(kept), at_y = Pack::per_row(own), one = splat(T{1});
    auto share = [&](int64_t i) { return Pack::per_class(base_.get(), i) * is_kept; };
    const auto* q = call_.smoothing != 0.0 ? &share : nullptr;
    Sums sums = exponentials(pack, z, q);
    const Vec<T> Q = at_y + (q != nullptr ? base_total_ * is_kept : Vec<T>{});
    Pack::per_row(at_y * (sums.m - Pack::per_row(z_y)) + sums.distance + Q * log1p<T>(sums.rest), loss);
    if (!call_.dz.exists()) return;

    for (int64_t j = 0; j < Pack::kRows; ++j) e_y[j] = j < n ? z[Pack::at(y[j], j)] : T{0};
    // the mean over no rows has a scale of 1/0, which must not reach an ignored row
    const Vec<T> at_e = Pack::per_row(e_y), up = is_kept == one ? upstream<Pack>(r, n) : Vec<T>{};
    const Mask<T> leads = at_e == one, exact = leads & (sums.leaders == one);
    sums.rest_q += leads ? Vec<T>{} : at_y;
    gradient(pack, z, q, Q, up, sums);
    alignas(64) T d_y[Pack::kRows], done[Pack::kRows];
    Pack::per_row(up * (Q * (at_e / (one + sums.rest)) - at_y), d_y);
    Pack::per_row(exact ? one : Vec<T>{}, done);
    for (int64_t j = 0; j < n; ++j) {
      if (done[j] != 0) continue;
      T& d = z[Pack::at(y[j], j)];
      d = d_y[j] - (q != nullptr ? base_[y[j]] * kept[j] * up[Pack::kRows == 1 ? 0 : j] : T{0});
    }
  }

  template <class Pack>
  void probability_rows(const Pack& pack, int64_t r, int64_t n, const Buffers& buffers, T* loss) const {
    const T keep = static_cast<T>(1.0 - call_.smoothing);
    const T share = static_cast<T>(call_.smoothing / static_cast<double>(rows_.classes));
    const int64_t size = pack.vectors * kLanes<T>;
    auto [z, q, scores, t, w] = buffers;
    const bool weighted = call_.w.exists(), want_scores = call_.dt.exists() || call_.dw.exists();
    load_pack<S>(rows_, call_.t, r, n, pack, T{0}, q);
    if (weighted) load_pack<S>(rows_, call_.w, r, n, pack, T{0}, w);
    Vec<T> total{};
    for (int64_t i = 0; i < size; i += kLanes<T>) {
      Vec<T> smooth = keep * load(q + i) + share;
      if (want_scores) store<T>(t + i, smooth);
      if (weighted) smooth *= load(w + i);
      store<T>(q + i, smooth);
    }
    if (Pack::kRows == 1) std::fill(q + rows_.classes, q + size, T{0});
    for (int64_t i = 0; i < size; i += kLanes<T>) total += load(q + i);
    if (want_scores) std::copy(z, z + size, scores);
    const Vec<T> Q = Pack::sum(total), up = upstream<Pack>(r, n);
    auto target = [q = q](int64_t i) { return load(q + i * kLanes<T>); };
    const Sums sums = exponentials(pack, z, &target);
    const Vec<T> log_s = log1p<T>(sums.rest);
    Pack::per_row(sums.distance + Q * log_s, loss);
    if (call_.dz.exists()) gradient(pack, z, &target, Q, up, sums);
    if (!want_scores) return;
    for (int64_t i = 0; i < size; i += kLanes<T>) {
      const Vec<T> slope = up * ((sums.m - load(scores + i)) + log_s);
      store<T>(t + i, load(t + i) * slope);
      store<T>(scores + i, weighted ? keep * load(w + i) * slope : keep * slope);
    }
    if (call_.dt.exists()) store_pack<S>(rows_, call_.dt, r, n, pack, scores);
    if (call_.dw.exists()) store_pack<S>(rows_, call_.dw, r, n, pack, t);
  }

  const Call& call_;
  const Rows rows_;
  const bool by_index_;
  Scratch<T> base_;  // index targets: the smoothing's share of every class, zero beyond the last
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
