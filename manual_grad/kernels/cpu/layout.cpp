#include "layout.h"

#include <sys/mman.h>

#include <algorithm>

namespace mg {
Runs runs_of(Dtype dtype) {
  Runs runs{};
  with_dtype(dtype, [&](auto s) {
    using S = decltype(s);
    runs.load = [](const Tensor& from, int64_t offset, int64_t stride, int64_t n, double* out) {
      load_elements(from.as<S>() + offset, stride, n, out);
    };
    runs.store = [](const Tensor& to, int64_t offset, int64_t stride, int64_t n, const double* from) {
      store_elements(to.as<S>() + offset, stride, n, from);
    };
    runs.pick = [](const Tensor& from, int64_t offset, int64_t stride, const int64_t* index, int64_t n, double* out) {
      for (int64_t i = 0; i < n; ++i) out[i] = widen(from.as<S>()[offset + index[i] * stride]);
    };
  });
  return runs;
}

double number_at(const Tensor& tensor, int64_t offset) {
  switch (tensor.dtype) {
    case Dtype::f32: return static_cast<double>(tensor.as<float>()[offset]);
    case Dtype::f64: return tensor.as<double>()[offset];
    case Dtype::bf16: return static_cast<double>(widen(tensor.as<bf16>()[offset]));
    case Dtype::f16: return static_cast<double>(widen(tensor.as<f16>()[offset]));
    default: break;
  }
  double number = 0;
  with_integers(tensor.dtype, [&](auto i) { number = static_cast<double>(tensor.as<decltype(i)>()[offset]); });
  return number;
}

template <class T>
void gather(const Tensor& from, const int64_t* at, int64_t n, T* out) {
  with_dtype(from.dtype, [&](auto s) {
    for (int64_t i = 0; i < n; ++i) out[i] = static_cast<T>(widen(from.as<decltype(s)>()[at[i]]));
  });
}
template void gather(const Tensor&, const int64_t*, int64_t, float*);
template void gather(const Tensor&, const int64_t*, int64_t, double*);

template <class T>
void scatter(const Tensor& to, const int64_t* at, int64_t n, const T* from) {
  with_dtype(to.dtype, [&](auto s) {
    using S = decltype(s);
    for (int64_t i = 0; i < n; ++i) to.as<S>()[at[i]] = narrow<S>(static_cast<double>(from[i]));
  });
}
template void scatter(const Tensor&, const int64_t*, int64_t, const float*);
template void scatter(const Tensor&, const int64_t*, int64_t, const double*);

void set_number(const Tensor& tensor, int64_t offset, double value) {
  with_dtype(tensor.dtype, [&](auto s) { tensor.as<decltype(s)>()[offset] = narrow<decltype(s)>(value); });
}

void advise_huge_pages(const Tensor& tensor) {
#ifdef MADV_HUGEPAGE
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  const uintptr_t data = reinterpret_cast<uintptr_t>(tensor.data);
  const uintptr_t bytes = static_cast<uintptr_t>(tensor.numel * element_bytes(tensor.dtype));
  if (bytes < 2 * kHuge) return;
  const uintptr_t begin = (data + kHuge - 1) & ~(kHuge - 1), end = (data + bytes) & ~(kHuge - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

Tensor empty_like(const Tensor& like) {
  int order[kMaxDims];  // innermost first
  for (int i = 0; i < like.dim; ++i) {
    order[i] = static_cast<int>(like.dim) - 1 - i;
    for (int j = i - 1, k = i; j >= 0; --j) {
      const int64_t a = like.strides[order[j]], b = like.strides[order[k]];
      if (a == 0 || b == 0) continue;  // an expanded dimension has no place in the order
      if (a < b || (a == b && like.sizes[order[j]] <= like.sizes[order[k]])) {
        if (a < b) break;
        continue;
      }
      std::swap(order[j], order[k]);
      k = j;
    }
  }
  int64_t strides[kMaxDims], stride = 1;
  for (int i = 0; i < like.dim; ++i) {
    strides[order[i]] = stride;
    stride *= std::max<int64_t>(like.sizes[order[i]], 1);
  }
  return Tensor::empty(like.dim, like.sizes, strides, like.dtype);
}

}  // namespace mg
