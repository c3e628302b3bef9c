// Losses of two or three feature vectors: staging of the vectors, and the loop over the rows.
//
// Vectors are staged as double even in half precision, because the dot product of long vectors can overflow a float.
#pragma once

#include <algorithm>

#include "layout.h"

namespace mg {

// A parallel loop over the rows in chunks of a fixed size. The loss computes the value of each row; this class stores
// or sums it and provides the upstream gradient.
class VectorSweep {
  static constexpr int64_t kChunkElements = 1 << 14;  // vector components per unit of parallel work and per partial sum

 public:
  VectorSweep(const Tensor& vectors, const Tensor& value, const Tensor& g, double scale, bool reduce,
              std::initializer_list<const Tensor*> gradients)
      : size(vectors.sizes[vectors.dim - 1]),
        pitch((size + kLanes<double> - 1) / kLanes<double> * kLanes<double>),
        rows_(vectors.dim > 1 ? vectors.sizes[0] : 1),
        value_(value),
        g_(g),
        reduces_(reduce),
        scale_(scale),
        runs_(runs_of(vectors.dtype)) {
    for (const Tensor* d : gradients) advise_huge_pages(*d);
  }

  // Every thread makes its own worker; worker(r) returns the loss of row r.
  template <class MakeWorker>
  void run(const MakeWorker& make_worker) const {
    const bool want_sum = reduces_ && value_.exists();
    const int64_t chunk_rows = std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, size));
    const int64_t chunks = (rows_ + chunk_rows - 1) / chunk_rows;
    Scratch<double> partial(want_sum ? chunks : 0);
    parallel_for(chunks, 1, [&](int64_t first, int64_t last) {
      auto worker = make_worker();
      for (int64_t chunk = first; chunk < last; ++chunk) {
        ExactSum sum;
        const int64_t end = std::min(rows_, (chunk + 1) * chunk_rows);
        for (int64_t r = chunk * chunk_rows; r < end; ++r) {
          const double loss = worker(r);
          sum.add(loss);
          if (value_.exists() && !want_sum) set_number(value_, of_row(value_, r), loss);
        }
        if (want_sum) partial[chunk] = sum.value();
      }
    });
    if (!want_sum) return;
    ExactSum sum;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum.add(partial[chunk]);
    set_number(value_, 0, sum.value() * scale_);
  }

  // The upstream gradient of a row, including the scale of the reduction.
  double upstream(int64_t r) const {
    return g_.exists() ? scale_ * number_at(g_, g_.numel == 1 ? 0 : of_row(g_, r)) : scale_;
  }

  void load(const Tensor& vectors, int64_t r, double* out) const {
    runs_.load(vectors, of_row(vectors, r), vectors.strides[vectors.dim - 1], size, out);
  }
  void store(const Tensor& vectors, int64_t r, const double* from) const {
    runs_.store(vectors, of_row(vectors, r), vectors.strides[vectors.dim - 1], size, from);
  }

  const int64_t size, pitch;  // length of a vector, and the same rounded up to whole SIMD vectors

 private:
  int64_t of_row(const Tensor& tensor, int64_t r) const { return rows_ == 1 ? 0 : r * tensor.strides[0]; }

  const int64_t rows_;
  const Tensor &value_, &g_;
  const bool reduces_;
  const double scale_;
  const Runs runs_;
};

// Checks that all vectors and gradients have the shape of the first, (D) or (N, D), and that the upstream gradient is a
// scalar or has one element per row.
inline void check_vectors(const char* loss, const Tensor& first, std::initializer_list<const Tensor*> like,
                          int64_t rows, const Tensor& g, const Tensor& value, bool reduce) {
  bool fit = (first.dim == 1 && rows == 1) || (first.dim == 2 && first.sizes[0] == rows);
  for (const Tensor* t : like)
    fit = fit && (!t->exists() || (t->dtype == first.dtype && t->dim == first.dim && t->sizes[0] == first.sizes[0] &&
                                   t->sizes[t->dim - 1] == first.sizes[first.dim - 1]));
  fit = fit && (!g.exists() || (g.dtype == first.dtype && (g.numel == rows || g.numel == 1)));
  fit = fit && (!value.exists() || (value.dtype == first.dtype && value.numel == (reduce ? 1 : rows)));
  if (!fit) throw std::runtime_error(std::string("manual_grad: the tensors of ") + loss + " do not fit together");
}

}  // namespace mg
