// Losses of two or three feature vectors: how the vectors are read, and the loop over the rows.
//
// Everything is computed in double even in half precision, because the dot product of long vectors can overflow a
// float. Dense vectors of float or double are read and written where they lie; others are staged, half precision as
// float.
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
        run_in_vectors{size / kLanes<double>, size % kLanes<double>},
        rows_(vectors.dim > 1 ? vectors.sizes[0] : 1),
        value_(value),
        g_(g),
        reduces_(reduce),
        scale_(scale) {
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

  // Calls body(i, load, store) for each SIMD vector of a row, including a partial last one.
  template <class Body>
  void for_each(const Body& body) const {
    for_each_vector<double>(run_in_vectors, [&](int64_t i, auto load, auto store) {
      body(i, [load](const auto* p) { return load(p, Vec<double>{}); }, store);
    });
  }

  const int64_t size;  // length of a vector
  const Run run_in_vectors;  // the same in SIMD vectors

 private:
  template <class>
  friend class VectorRow;

  int64_t of_row(const Tensor& tensor, int64_t r) const { return rows_ == 1 ? 0 : r * tensor.strides[0]; }

  const int64_t rows_;
  const Tensor &value_, &g_;
  const bool reduces_;
  const double scale_;
};

// The rows of a tensor of vectors, one at a time. Number is double for double, else float.
template <class Number>
class VectorRow {
 public:
  VectorRow(const VectorSweep& sweep, const Tensor& of)
      : sweep_(sweep), of_(of), staged_(of.exists() && !lies_dense() ? sweep.size : 0) {}

  const Number* read(int64_t r) const {
    if (lies_dense()) return place<Number>(r);
    with_element([&](auto s) { load_elements(place<decltype(s)>(r), stride(), sweep_.size, staged_.get()); });
    return staged_.get();
  }
  // Calls body with the memory to which it is to write the row.
  template <class Body>
  void write(int64_t r, const Body& body) const {
    if (lies_dense()) {
      body(place<Number>(r));
    } else {
      body(staged_.get());
      with_element([&](auto s) { store_elements(place<decltype(s)>(r), stride(), sweep_.size, staged_.get()); });
    }
  }
  bool exists() const { return of_.exists(); }

 private:
  bool lies_dense() const { return element_bytes(of_.dtype) == sizeof(Number) && stride() == 1; }
  int64_t stride() const { return of_.strides[of_.dim - 1]; }
  template <class S>
  S* place(int64_t r) const {
    return of_.template as<S>() + sweep_.of_row(of_, r);
  }
  template <class Body>
  void with_element(const Body& body) const {
    with_dtype(of_.dtype, [&](auto s) {
      if constexpr (std::is_same_v<Number, double> == std::is_same_v<decltype(s), double>) body(s);
    });
  }

  const VectorSweep& sweep_;
  const Tensor& of_;
  const Scratch<Number> staged_;
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
