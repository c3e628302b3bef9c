// Losses of one row of class scores: the rows, their staging, and the loop over them.
//
// Rows are processed one pack at a time: loaded as the compute type into scratch memory that stays in cache, worked on
// there, and written out once. A pack is either one long row, with its classes across the lanes of vectors, or as many
// short rows as a vector has lanes, one row per lane. Both use the same arithmetic code.
#pragma once

#include <algorithm>
#include <atomic>

#include "layout.h"

namespace mg {

// The rows of a tensor (N, C, d1, ...) or (C): all dimensions except the class dimension, in the order of the loss.
class Rows {
 public:
  explicit Rows(const Tensor& z);

  // Offsets of the rows [r, r + n) in a tensor of class scores (with_classes) or of one value per row.
  void offsets(const Tensor& tensor, int64_t r, int64_t n, bool with_classes, int64_t* out) const {
    if (dim_ == 1) {
      const int64_t step = tensor.strides[0];
      for (int64_t j = 0; j < n; ++j) out[j] = (r + j) * step;
    } else {
      offsets_in_order(tensor, r, n, with_classes, out);
    }
  }
  // The r-th row of a tensor of class scores of type S.
  template <class S>
  S* row(const Tensor& scores, int64_t r) const {
    int64_t at;
    offsets(scores, r, 1, true, &at);
    return scores.as<S>() + at;
  }
  int64_t class_stride(const Tensor& tensor) const { return tensor.strides[class_dim_]; }

  // Whether a tensor has one value per row, or the shape of the scores (with_classes).
  bool fit(const Tensor& tensor, bool with_classes) const {
    if (tensor.dim != dim_ + with_classes) return false;
    for (int d = 0; d < tensor.dim; ++d) {
      const int64_t size = !with_classes || d < class_dim_ ? size_[d] : d > class_dim_ ? size_[d - 1] : classes;
      if (tensor.sizes[d] != size) return false;
    }
    return true;
  }
  bool fit_classes(const Tensor& tensor) const { return tensor.dim == 1 && tensor.numel == classes; }

  int64_t count = 1, classes = 0;

 private:
  void offsets_in_order(const Tensor& tensor, int64_t r, int64_t n, bool with_classes, int64_t* out) const;

  int dim_ = 0, class_dim_;
  int64_t size_[kMaxDims];
};

// One row per pack, its classes across the lanes; a staged row is padded to whole vectors.
template <class T>
struct Across {
  static constexpr int64_t kRows = 1;
  explicit Across(int64_t classes) : vectors((classes + kLanes<T> - 1) / kLanes<T>) {}
  static Across in_place(int64_t classes) {
    Across pack(classes);
    pack.vectors = classes / kLanes<T>;
    pack.rest = classes % kLanes<T>;
    return pack;
  }
  static int64_t at(int64_t c, int64_t) { return c; }
  static Vec<T> sum(Vec<T> v) {
    LaneSum total;
    total.add(v);
    return splat(static_cast<T>(total.total()));
  }
  static Vec<T> max(Vec<T> v) {
    return splat(fold<T>(v, [](T a, T b) { return a > b || a != a ? a : b; }));  // keeps NaN
  }
  static Vec<T> per_class(const T* values, int64_t i) { return load(values + i * kLanes<T>); }
  static Vec<T> per_row(const T* values) { return splat(values[0]); }
  static void per_row(Vec<T> v, T* values) { values[0] = v[0]; }
  int64_t vectors, rest = 0;  // rest: lanes used of a partial last vector
};

// One row per lane.
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
  static constexpr int64_t rest = 0;
};

// Copy the rows [r, r + n) of a tensor of class scores into a pack and back.
template <class T>
void load_pack(const Rows& rows, const Tensor& from, int64_t r, int64_t n, const Across<T>& pack, T padding, T* out);
template <class T>
void load_pack(const Rows& rows, const Tensor& from, int64_t r, int64_t n, const Down<T>& pack, T padding, T* out);
template <class T>
void store_pack(const Rows& rows, const Tensor& to, int64_t r, int64_t n, const Across<T>& pack, const T* from);
template <class T>
void store_pack(const Rows& rows, const Tensor& to, int64_t r, int64_t n, const Down<T>& pack, const T* from);

constexpr int64_t kChunkElements = 1 << 15;  // scores per unit of parallel work and per partial sum
constexpr int64_t kShortRow = 64;  // dense rows of up to this many classes are packed one per lane

// Calls body with the kind of pack that suits the rows.
template <class T, class Body>
void with_pack(const Rows& rows, const Tensor& scores, const Body& body) {
  if (rows.count >= kLanes<T> && (rows.class_stride(scores) != 1 || rows.classes <= kShortRow)) {
    body(Down<T>(rows.classes));
  } else {
    body(Across<T>(rows.classes));
  }
}

// The rows of x, after checking that the results and the upstream gradient fit them.
Rows checked_rows(const char* loss, const Tensor& x, const Tensor& g, const Tensor& value, bool reduce,
                  std::initializer_list<const Tensor*> gradients);

// The sum of n values.
template <class T>
double total(const T* values, int64_t n) {
  LaneSum sum;
  const int64_t vectors = n / kLanes<T>;
  for (int64_t i = 0; i < vectors; ++i) sum.add(load(values + i * kLanes<T>));
  double rest = 0;
  for (int64_t j = vectors * kLanes<T>; j < n; ++j) rest += static_cast<double>(values[j]);
  return sum.total() + rest;
}

// A parallel loop over the rows in chunks of a fixed size. The loss computes the values of a few rows at a time; this
// class stores or sums them and provides the upstream gradients.
template <class T>
class RowSweep {
 public:
  RowSweep(const Rows& rows, const Tensor& value, const Tensor& g, double scale, bool reduce)
      : rows_(rows), value_(value), g_(g), reduces_(reduce), scale_(scale) {
    const int64_t per_chunk = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, rows.classes));
    chunk_ = (per_chunk + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    if (rows.classes >= kChunkElements) chunk_ = 1;
    chunks_ = (rows.count + chunk_ - 1) / chunk_;
    if (g.exists() && g.numel == 1) scale_ *= number_at(g, 0);
  }

  // Every thread makes its own worker; worker(r, n, loss) is called for the rows [r, r + n), with n <= kRows.
  template <int64_t kRows, class MakeWorker>
  void run(const MakeWorker& make_worker) const {
    const bool want_sum = value_.exists() && reduces_;
    Scratch<double> partial(want_sum ? chunks_ : 0);
    parallel_for(chunks_, 1, [&](int64_t first, int64_t last) {
      auto worker = make_worker();
      for (int64_t chunk = first; chunk < last; ++chunk) {
        ExactSum sum;
        const int64_t end = std::min(rows_.count, (chunk + 1) * chunk_);
        for (int64_t r = chunk * chunk_; r < end; r += kRows) {
          const int64_t n = std::min(kRows, end - r);
          alignas(64) T loss[kRows];
          worker(r, n, loss);
          if (want_sum) sum.add(total(loss, n));
          if (!value_.exists() || want_sum) continue;
          int64_t at[kRows];
          rows_.offsets(value_, r, n, false, at);
          scatter(value_, at, n, loss);
        }
        if (want_sum) partial[chunk] = sum.value();
      }
    });
    if (!want_sum) return;
    ExactSum sum;
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) sum.add(partial[chunk]);
    set_number(value_, 0, sum.value() * scale_);
  }

  // The upstream gradients of the rows [r, r + n), including the scale of the reduction.
  void upstream(int64_t r, int64_t n, T* up) const {
    if (!g_.exists() || g_.numel == 1) {
      std::fill(up, up + n, static_cast<T>(scale_));
      return;
    }
    int64_t at[kLanes<T>];
    for (int64_t done = 0; done < n; done += kLanes<T>) {
      const int64_t length = std::min<int64_t>(kLanes<T>, n - done);
      rows_.offsets(g_, r + done, length, false, at);
      gather(g_, at, length, up + done);
      for (int64_t j = done; j < done + length; ++j) up[j] = static_cast<T>(scale_ * static_cast<double>(up[j]));
    }
  }
  template <class Pack>
  Vec<T> upstream(int64_t r, int64_t n) const {
    alignas(64) T up[Pack::kRows] = {};
    upstream(r, n, up);
    return Pack::per_row(up);
  }

 private:
  const Rows& rows_;
  const Tensor &value_, &g_;
  const bool reduces_;
  double scale_;
  int64_t chunk_, chunks_;
};

// The first row in which any thread found an error.
class FirstRow {
 public:
  explicit FirstRow(int64_t none) : none_(none), row_(none) {}
  void note(int64_t r) {
    for (int64_t first = row_; r < first && !row_.compare_exchange_weak(first, r);) {
    }
  }
  bool exists() const { return row_ < none_; }
  int64_t row() const { return row_; }

 private:
  const int64_t none_;
  std::atomic<int64_t> row_;
};

inline double class_weight(const Tensor& w, int64_t c) { return w.exists() ? number_at(w, c * w.strides[0]) : 1.0; }

// The total weight of the rows that are not ignored, or their number without weights. Checks every class index before
// it is used.
double kept_weight(const char* loss, const Rows& rows, const Tensor& t, const Tensor& w, int64_t ignore_index);

}  // namespace mg
