// From tensors of any dtype and stride to blocks of the compute type, and back.
//
// A kernel sees only short contiguous arrays of its compute type T: load() fills one from memory, store() writes one
// back. Whatever a tensor is like (bfloat16, transposed, expanded with stride 0, channels_last), only these two
// functions know.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <type_traits>

#include "abi.h"
#include "simd.h"

namespace mg {

struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

inline float widen(bf16 x) { return bitcast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(f16 x) {
  uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, rest = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  // the exponent of a half sits 112 below a float's; the product also normalises subnormals
  uint32_t finite = bitcast<uint32_t>(bitcast<float>(rest) * 0x1p112f);
  uint32_t special = rest | 0x7f800000;
  return bitcast<float>(sign | ((x.bits & 0x7c00) == 0x7c00 ? special : finite));
}

template <class To>
To narrow(double x);
template <>
inline double narrow<double>(double x) { return x; }
template <>
inline float narrow<float>(double x) { return static_cast<float>(x); }
template <>
inline bf16 narrow<bf16>(double x) {  // round to nearest even
  uint32_t bits = bitcast<uint32_t>(static_cast<float>(x));
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return {static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded)};
}
template <>
inline f16 narrow<f16>(double x) {  // round to nearest even
  uint32_t bits = bitcast<uint32_t>(static_cast<float>(x)), sign = bits & 0x80000000, magnitude = bits ^ sign;
  uint32_t normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // adding 0.5 lets the float adder round a subnormal half into the low bits
  uint32_t subnormal = bitcast<uint32_t>(bitcast<float>(magnitude) + 0.5f) - bitcast<uint32_t>(0.5f);
  uint32_t half = magnitude > 0x7f800000   ? 0x7e00
                  : magnitude >= 0x477ff000 ? 0x7c00
                  : magnitude < 0x38800000  ? subnormal
                                            : normal;
  return {static_cast<uint16_t>(half | (sign >> 16))};
}

// Unless a loss says otherwise, float32 is computed in double: every result is the rounding of an almost exact one, whatever cancels on the way.
template <class S>
struct ComputeType { using T = float; };
template <>
struct ComputeType<double> { using T = double; };
template <>
struct ComputeType<float> { using T = double; };

// A vector of the compute type from, and to, as many contiguous elements: the same conversions, lane by lane.
template <class Bits, int lanes>
struct Raw { typedef Bits V __attribute__((vector_size(lanes * sizeof(Bits)))); };

template <class V, class S>
inline V load_raw(const S* p) {
  V raw;
  std::memcpy(&raw, p, sizeof raw);
  return raw;
}

using HalfVec = Raw<float, kLanes<double>>::V;
using U16 = Raw<uint16_t, kLanes<float>>::V;
using U32 = Raw<uint32_t, kLanes<float>>::V;

template <class T, class S>
inline Vec<T> load_vector(const S* p) {
  if constexpr (std::is_same_v<S, T>) {
    return load_raw<Vec<T>>(p);
  } else if constexpr (std::is_same_v<S, float>) {
    return __builtin_convertvector(load_raw<HalfVec>(p), Vec<double>);
  } else {
    const U32 x = __builtin_convertvector(load_raw<U16>(p), U32);
    if constexpr (std::is_same_v<S, bf16>) return bitcast<Vec<float>>(x << 16);
    const U32 rest = (x & 0x7fff) << 13, finite = bitcast<U32>(bitcast<Vec<float>>(rest) * 0x1p112f);
    return bitcast<Vec<float>>(((x & 0x8000) << 16) | ((x & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : finite));
  }
}

inline void store_vector(double* p, Vec<double> v) { std::memcpy(p, &v, sizeof v); }
inline void store_vector(float* p, Vec<float> v) { std::memcpy(p, &v, sizeof v); }
inline void store_vector(float* p, Vec<double> v) {
  const HalfVec narrow = __builtin_convertvector(v, HalfVec);
  std::memcpy(p, &narrow, sizeof narrow);
}
inline void store_vector(bf16* p, Vec<float> v) {
  const U32 bits = bitcast<U32>(v), rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const U16 half = __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? (bits & 0) + 0x7fc0 : rounded, U16);
  std::memcpy(p, &half, sizeof half);
}
inline void store_vector(f16* p, Vec<float> v) {
#if defined(__AVX512F__)
  const __m256i half = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &half, sizeof half);
#else
  for (int lane = 0; lane < kLanes<float>; ++lane) p[lane] = narrow<f16>(static_cast<double>(v[lane]));
#endif
}

template <class S, class T>
inline void load_run(const S* p, int64_t stride, int64_t n, T* out) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = widen(p[i]);
  } else if (stride == 0) {
    const T value = widen(*p);
    for (int64_t i = 0; i < n; ++i) out[i] = value;
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = widen(p[i * stride]);
  }
}

template <class S, class T>
inline void store_run(S* p, int64_t stride, int64_t n, const T* from) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) p[i] = narrow<S>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) p[i * stride] = narrow<S>(from[i]);
  }
}

constexpr int kMaxDims = 64;  // as many as torch takes

// An index space and, for each operand, the strides with which it is walked.
struct Space {
  int dim = 0;
  int64_t size[kMaxDims], numel = 1;
};

template <class S>
struct Operand {
  S* data = nullptr;
  int64_t stride[kMaxDims];
  explicit operator bool() const { return data != nullptr; }
};

// Orders the dimensions by the first operand's strides, so that memory is walked forwards, and merges those that every
// operand walks as one.
template <class S>
void simplify(Space& space, Operand<S>** operands, int count) {
  for (int d = 1; d < space.dim; ++d)
    for (int e = d; e > 0 && operands[0]->stride[e - 1] < operands[0]->stride[e]; --e) {
      std::swap(space.size[e - 1], space.size[e]);
      for (int o = 0; o < count; ++o) std::swap(operands[o]->stride[e - 1], operands[o]->stride[e]);
    }
  int last = -1;
  for (int d = 0; d < space.dim; ++d) {
    if (space.size[d] == 1) continue;
    bool merge = last >= 0;
    for (int o = 0; merge && o < count; ++o)
      merge = operands[o]->stride[last] == operands[o]->stride[d] * space.size[d];
    if (merge) {
      space.size[last] *= space.size[d];
    } else {
      space.size[++last] = space.size[d];
    }
    for (int o = 0; o < count; ++o) operands[o]->stride[last] = operands[o]->stride[d];
  }
  space.dim = last + 1;
}

// Calls run(position in the block, offset of its first element, length) for the straight runs of [start, start + n).
template <class Run>
inline void for_runs(const Space& space, const int64_t* stride, int64_t start, int64_t n, const Run& run) {
  if (space.dim <= 1) {
    run(0, space.dim == 0 ? 0 : start * stride[0], n);
    return;
  }
  const int inner = space.dim - 1;
  for (int64_t done = 0; done < n;) {
    int64_t index = start + done, offset = 0;
    const int64_t column = index % space.size[inner];
    index /= space.size[inner];
    for (int d = inner - 1; d >= 0; --d) {
      offset += (index % space.size[d]) * stride[d];
      index /= space.size[d];
    }
    const int64_t length = std::min(n - done, space.size[inner] - column);
    run(done, offset + column * stride[inner], length);
    done += length;
  }
}

template <class S, class T>
inline void load(const Space& space, const Operand<S>& from, int64_t start, int64_t n, T* out) {
  const int64_t step = space.dim == 0 ? 0 : from.stride[space.dim - 1];
  for_runs(space, from.stride, start, n, [&](int64_t at, int64_t offset, int64_t length) {
    load_run(from.data + offset, step, length, out + at);
  });
}

template <class S, class T>
inline void store(const Space& space, const Operand<S>& to, int64_t start, int64_t n, const T* from) {
  const int64_t step = space.dim == 0 ? 1 : to.stride[space.dim - 1];
  for_runs(space, to.stride, start, n, [&](int64_t at, int64_t offset, int64_t length) {
    store_run(to.data + offset, step, length, from + at);
  });
}

// A large result is fresh memory, and touching it 4 KiB at a time costs more than computing it: ask for huge pages.
inline void advise_huge_pages(const Tensor& tensor, int64_t bytes) {
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
#ifdef MADV_HUGEPAGE
  if (bytes < static_cast<int64_t>(2 * kHuge)) return;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(tensor.data) + kHuge - 1) & ~(kHuge - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(tensor.data) + static_cast<uintptr_t>(bytes)) & ~(kHuge - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

inline bool same_shape(const Tensor& a, const Tensor& b) {
  return a.dim == b.dim && std::equal(a.sizes, a.sizes + a.dim, b.sizes);
}

// New memory for one value.
inline Tensor empty_scalar(Dtype dtype) { return Tensor::empty(0, nullptr, nullptr, dtype); }

// New memory of a tensor's shape, laid out as torch.empty_like does it: without gaps, the dimensions in the same order.
inline Tensor empty_like(const Tensor& like) {
  int order[kMaxDims];  // innermost first
  for (int i = 0; i < like.dim; ++i) {
    order[i] = static_cast<int>(like.dim) - 1 - i;
    for (int j = i - 1, k = i; j >= 0; --j) {
      const int64_t a = like.strides[order[j]], b = like.strides[order[k]];
      if (a == 0 || b == 0) continue;  // an expanded dimension lies nowhere
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

// Fixed-size scratch memory, aligned for vectors.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t n)
      : data_(static_cast<T*>(std::aligned_alloc(64, (static_cast<size_t>(n) * sizeof(T) + 127) / 64 * 64))) {
    if (data_ == nullptr) throw std::runtime_error("manual_grad: not enough memory for a kernel's scratch space");
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
};

// The sum of vectors, in double whatever they are.
class LaneSum {
 public:
  void add(Vec<double> v) { low_ += v; }
  void add(Vec<float> v) {
    low_ += lower(v);
    high_ += upper(v);
  }
  double total() const { return sum<double>(low_ + high_); }

 private:
  Vec<double> low_{}, high_{};
};

// A sum in every lane, in double whatever the lanes are.
template <class T>
class WideSum;
template <>
class WideSum<double> {
 public:
  void add(Vec<double> v) { sum_ += v; }
  Vec<double> narrow() { return sum_; }

 private:
  Vec<double> sum_{};
};
template <>
class WideSum<float> {
 public:
  void add(Vec<float> v) {
    recent_ += v;
    if (++count_ % kRecent == 0) flush();
  }
  Vec<float> narrow() {
    flush();
    float halves[kLanes<float>];
    store_vector(halves, low_);
    store_vector(halves + kLanes<double>, high_);
    return load<float>(halves);
  }

 private:
  static constexpr int kRecent = 8;  // terms that are added up in float, since to widen each takes longer than to add it
  void flush() {
    low_ += lower(recent_);
    high_ += upper(recent_);
    recent_ = Vec<float>{};
  }

  Vec<float> recent_{};
  Vec<double> low_{}, high_{};
  int64_t count_ = 0;
};

// A sum that carries its rounding errors along (Neumaier): partial sums of fixed blocks are added in a fixed order, so
// the result depends neither on the number of threads nor, to an ulp, on the number of terms.
class ExactSum {
 public:
  void add(double x) {
    const double t = sum_ + x;
    error_ += __builtin_fabs(sum_) >= __builtin_fabs(x) ? (sum_ - t) + x : (x - t) + sum_;
    sum_ = t;
  }
  double value() const { return __builtin_isfinite(sum_) ? sum_ + error_ : sum_; }

 private:
  double sum_ = 0, error_ = 0;
};

// One element of a tensor of any real dtype: for targets that are labels.
inline double number_at(const Tensor& tensor, int64_t offset) {
  switch (tensor.dtype) {
    case Dtype::f32: return static_cast<double>(tensor.as<float>()[offset]);
    case Dtype::f64: return tensor.as<double>()[offset];
    case Dtype::bf16: return static_cast<double>(widen(tensor.as<bf16>()[offset]));
    case Dtype::f16: return static_cast<double>(widen(tensor.as<f16>()[offset]));
    case Dtype::i64: return static_cast<double>(tensor.as<int64_t>()[offset]);
    case Dtype::i32: return static_cast<double>(tensor.as<int32_t>()[offset]);
    case Dtype::i16: return static_cast<double>(tensor.as<int16_t>()[offset]);
    case Dtype::i8: return static_cast<double>(tensor.as<int8_t>()[offset]);
    case Dtype::u8:
    case Dtype::boolean: return static_cast<double>(tensor.as<uint8_t>()[offset]);
  }
  throw std::runtime_error("manual_grad: a target of this dtype is not supported");
}

// Calls body with a value of the tensor's element type: with_dtype(t.dtype, [&](auto s) { using S = decltype(s); … }).
template <class Body>
void with_dtype(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::f32: return body(float{});
    case Dtype::f64: return body(double{});
    case Dtype::bf16: return body(bf16{});
    case Dtype::f16: return body(f16{});
    default: throw std::runtime_error("manual_grad: kernels take float64, float32, bfloat16 and float16");
  }
}

}  // namespace mg
