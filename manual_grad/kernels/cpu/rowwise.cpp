#include "rowwise.h"

namespace mg {
namespace {

bool side_by_side(const int64_t* at, int64_t n) {
  for (int64_t j = 1; j < n; ++j)
    if (at[j] != at[0] + j) return false;
  return true;
}

// Calls body with a value of the element type, for the element types whose compute type can be T.
template <class T, class Body>
void with_source(Dtype dtype, const Body& body) {
  with_dtype(dtype, [&](auto s) {
    if constexpr (sizeof s <= sizeof(T) && sizeof s * 2 >= sizeof(T)) body(s);
  });
}

}  // namespace

Rows::Rows(const Tensor& z) : class_dim_(z.dim > 1 ? 1 : 0) {
  for (int d = 0; d < z.dim; ++d) {
    if (d == class_dim_) continue;
    size_[dim_++] = z.sizes[d];
    count *= z.sizes[d];
  }
  classes = z.sizes[class_dim_];
}

void Rows::offsets_in_order(const Tensor& tensor, int64_t r, int64_t n, bool with_classes, int64_t* out) const {
  if (dim_ == 0) {
    *out = 0;
    return;
  }
  auto stride = [&](int d) { return tensor.strides[with_classes && d >= class_dim_ ? d + 1 : d]; };
  const int last = dim_ - 1;
  int64_t index[kMaxDims], offset = 0;
  for (int d = last; d >= 0; --d) {
    index[d] = d == 0 ? r : r % size_[d];
    if (d > 0) r /= size_[d];
    offset += index[d] * stride(d);
  }
  const int64_t step = stride(last);
  for (int64_t run;; out += run, n -= run) {
    run = std::min(n, size_[last] - index[last]);
    for (int64_t j = 0; j < run; ++j) out[j] = offset + j * step;
    if (run == n) return;
    offset += run * step;
    index[last] += run;
    for (int d = last; index[d] == size_[d]; --d) {  // carry into the previous dimension
      offset += stride(d - 1) - size_[d] * stride(d);
      index[d] = 0;
      ++index[d - 1];
    }
  }
}

template <class T>
void load_pack(const Rows& rows, const Tensor& from, int64_t r, int64_t, const Across<T>& pack, T padding, T* out) {
  int64_t at;
  rows.offsets(from, r, 1, true, &at);
  with_source<T>(from.dtype, [&](auto s) {
    load_elements(from.as<decltype(s)>() + at, rows.class_stride(from), rows.classes, out);
  });
  std::fill(out + rows.classes, out + pack.vectors * kLanes<T>, padding);
}
template <class T>
void store_pack(const Rows& rows, const Tensor& to, int64_t r, int64_t, const Across<T>&, const T* from) {
  int64_t at;
  rows.offsets(to, r, 1, true, &at);
  with_source<T>(to.dtype,
                 [&](auto s) { store_elements(to.as<decltype(s)>() + at, rows.class_stride(to), rows.classes, from); });
}

template <class T>
void load_pack(const Rows& rows, const Tensor& from, int64_t r, int64_t n, const Down<T>&, T, T* out) {
  int64_t at[kLanes<T>];
  rows.offsets(from, r, n, true, at);
  const int64_t step = rows.class_stride(from);
  with_source<T>(from.dtype, [&](auto s) {
    const auto* p = from.as<decltype(s)>();
    if (n == kLanes<T> && side_by_side(at, n)) {
      for (int64_t c = 0; c < rows.classes; ++c) store<T>(out + c * kLanes<T>, load_vector<T>(p + at[0] + c * step));
      return;
    }
    for (int64_t j = 0; j < n; ++j)
      for (int64_t c = 0; c < rows.classes; ++c) out[c * kLanes<T> + j] = widen(p[at[j] + c * step]);
    for (int64_t j = n; j < kLanes<T>; ++j)
      for (int64_t c = 0; c < rows.classes; ++c) out[c * kLanes<T> + j] = 0;
  });
}
template <class T>
void store_pack(const Rows& rows, const Tensor& to, int64_t r, int64_t n, const Down<T>&, const T* from) {
  int64_t at[kLanes<T>];
  rows.offsets(to, r, n, true, at);
  const int64_t step = rows.class_stride(to);
  with_source<T>(to.dtype, [&](auto s) {
    using S = decltype(s);
    S* p = to.as<S>();
    if (n == kLanes<T> && side_by_side(at, n)) {
      for (int64_t c = 0; c < rows.classes; ++c) store_vector(p + at[0] + c * step, load(from + c * kLanes<T>));
      return;
    }
    for (int64_t j = 0; j < n; ++j)
      for (int64_t c = 0; c < rows.classes; ++c) p[at[j] + c * step] = narrow<S>(from[c * kLanes<T> + j]);
  });
}

template void load_pack(const Rows&, const Tensor&, int64_t, int64_t, const Across<float>&, float, float*);
template void load_pack(const Rows&, const Tensor&, int64_t, int64_t, const Across<double>&, double, double*);
template void load_pack(const Rows&, const Tensor&, int64_t, int64_t, const Down<float>&, float, float*);
template void load_pack(const Rows&, const Tensor&, int64_t, int64_t, const Down<double>&, double, double*);
template void store_pack(const Rows&, const Tensor&, int64_t, int64_t, const Across<float>&, const float*);
template void store_pack(const Rows&, const Tensor&, int64_t, int64_t, const Across<double>&, const double*);
template void store_pack(const Rows&, const Tensor&, int64_t, int64_t, const Down<float>&, const float*);
template void store_pack(const Rows&, const Tensor&, int64_t, int64_t, const Down<double>&, const double*);

Rows checked_rows(const char* loss, const Tensor& x, const Tensor& g, const Tensor& value, bool reduce,
                  std::initializer_list<const Tensor*> gradients) {
  if (x.dim < 1 || x.dim > kMaxDims)
    throw std::runtime_error(std::string("manual_grad: ") + loss + " takes 1 to 64 dimensions");
  const Rows rows(x);
  bool fit = !(g.exists() && (g.dtype != x.dtype || !(g.numel == 1 || rows.fit(g, false)))) &&
             !(value.exists() && (value.dtype != x.dtype || !(reduce ? value.numel == 1 : rows.fit(value, false))));
  for (const Tensor* dx : gradients) fit = fit && !(dx->exists() && (dx->dtype != x.dtype || !same_shape(*dx, x)));
  if (!fit) throw std::runtime_error(std::string("manual_grad: the tensors of ") + loss + " do not fit together");
  return rows;
}

double kept_weight(const char* loss, const Rows& rows, const Tensor& t, const Tensor& w, int64_t ignore_index) {
  constexpr int64_t kBatch = 256, kChunk = 64 * kBatch;
  const int64_t chunks = (rows.count + kChunk - 1) / kChunk;
  Scratch<double> partial(chunks);
  FirstRow bad(rows.count);
  parallel_for(chunks, 1, [&](int64_t first, int64_t last) {
    int64_t at[kBatch];
    for (int64_t chunk = first; chunk < last; ++chunk) {
      ExactSum weight;
      int64_t kept = 0;
      const int64_t end = std::min(rows.count, (chunk + 1) * kChunk);
      for (int64_t r = chunk * kChunk; r < end; r += kBatch) {
        const int64_t n = std::min(kBatch, end - r);
        rows.offsets(t, r, n, false, at);
        auto check = [&](const auto& keep) {
          for (int64_t j = 0; j < n; ++j) {
            const int64_t y = t.as<int64_t>()[at[j]];
            if (y == ignore_index) continue;
            if (y < 0 || y >= rows.classes) {
              bad.note(r + j);
            } else {
              keep(y);
            }
          }
        };
        if (w.exists()) {
          with_dtype(w.dtype, [&](auto s) {
            const auto* of_class = w.as<decltype(s)>();
            check([&](int64_t y) { weight.add(static_cast<double>(widen(of_class[y * w.strides[0]]))); });
          });
        } else {
          check([&](int64_t) { ++kept; });
        }
      }
      partial[chunk] = w.exists() ? weight.value() : static_cast<double>(kept);
    }
  });
  if (bad.exists()) {
    int64_t at;
    rows.offsets(t, bad.row(), 1, false, &at);
    throw std::out_of_range("Target " + std::to_string(t.as<int64_t>()[at]) + " is out of bounds: " + loss +
                            "'s target must be in [0, " + std::to_string(rows.classes - 1) + "] or ignore_index (" +
                            std::to_string(ignore_index) + ").");
  }
  ExactSum weight;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) weight.add(partial[chunk]);
  return weight.value();
}

}  // namespace mg
