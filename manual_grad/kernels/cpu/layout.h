// Conversion between tensors of any dtype and strides and blocks of the compute type.
//
// A kernel sees only short contiguous arrays of its compute type T. Only the functions here know the dtype and layout
// of a tensor (bfloat16, transposed, expanded with stride 0, channels_last), so a kernel is compiled for one or two
// compute types instead of every dtype.
#pragma once

#include <cstdlib>
#include <type_traits>

#include "abi.h"
#include "simd.h"

namespace mg {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

inline float widen(bf16 x) { return bitcast<float>(static_cast<uint32_t>(x.bits) << 16); }
inline float widen(float x) { return x; }
inline double widen(double x) { return x; }
inline float widen(f16 x) {
  uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000) << 16, rest = static_cast<uint32_t>(x.bits & 0x7fff) << 13;
  // the exponent bias of a half is 112 less than a float's; the product also normalizes subnormals
  uint32_t finite = bitcast<uint32_t>(bitcast<float>(rest) * 0x1p112f);
  uint32_t special = rest | 0x7f800000;
  return bitcast<float>(sign | ((x.bits & 0x7c00) == 0x7c00 ? special : finite));
}

template <class To>
To narrow(double x);
template <>
inline double narrow<double>(double x) {
  return x;
}
template <>
inline float narrow<float>(double x) {
  return static_cast<float>(x);
}
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
  uint32_t half = magnitude > 0x7f800000    ? 0x7e00
                  : magnitude >= 0x477ff000 ? 0x7c00
                  : magnitude < 0x38800000  ? subnormal
                                            : normal;
  return {static_cast<uint16_t>(half | (sign >> 16))};
}

// By default float32 is computed in double, so that every result is an almost exact one, rounded, even if digits cancel
// along the way.
template <class S>
struct ComputeType {
  using T = float;
};
template <>
struct ComputeType<double> {
  using T = double;
};
template <>
struct ComputeType<float> {
  using T = double;
};

// Load and store one vector of the compute type from and to contiguous elements, with the same conversions.
template <class Bits, int lanes>
struct Raw {
  typedef Bits V __attribute__((vector_size(lanes * sizeof(Bits))));
};

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
#if defined(__AVX512F__)  // by one instruction, where compilers convert two halves and join them
    return (Vec<double>)_mm512_cvtps_pd(_mm256_loadu_ps(p));
#else
    return __builtin_convertvector(load_raw<HalfVec>(p), Vec<double>);
#endif
  } else if constexpr (std::is_same_v<S, bf16>) {
#if defined(__AVX512BW__)  // one permutation in place of a conversion and a shift
    const __m512i to_high = _mm512_set_epi32(15 << 16, 14 << 16, 13 << 16, 12 << 16, 11 << 16, 10 << 16, 9 << 16,
                                             8 << 16, 7 << 16, 6 << 16, 5 << 16, 4 << 16, 3 << 16, 2 << 16, 1 << 16, 0);
    const __m512i words = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return (Vec<float>)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, to_high, words);
#else
    return bitcast<Vec<float>>(__builtin_convertvector(load_raw<U16>(p), U32) << 16);
#endif
  } else {
#if defined(__AVX512F__)
    return (Vec<float>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
    return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    const U32 x = __builtin_convertvector(load_raw<U16>(p), U32);
    const U32 rest = (x & 0x7fff) << 13, finite = bitcast<U32>(bitcast<Vec<float>>(rest) * 0x1p112f);
    return bitcast<Vec<float>>(((x & 0x8000) << 16) | ((x & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : finite));
#endif
  }
}

inline void store_vector(double* p, Vec<double> v) { std::memcpy(p, &v, sizeof v); }
inline void store_vector(float* p, Vec<float> v) { std::memcpy(p, &v, sizeof v); }
inline void store_vector(float* p, Vec<double> v) {
  const HalfVec narrow = __builtin_convertvector(v, HalfVec);
  std::memcpy(p, &narrow, sizeof narrow);
}
inline void store_vector(bf16* p, Vec<float> v) {  // round to nearest even
  const U32 bits = bitcast<U32>(v), rounded = bits + 0x7fff + ((bits >> 16) & 1), nan = (bits & 0) + 0x7fc00000;
  const U16 half = __builtin_convertvector((v != v ? nan : rounded) >> 16, U16);
  std::memcpy(p, &half, sizeof half);
}
inline void store_vector(f16* p, Vec<float> v) {
#if defined(__AVX512F__)
  const __m256i half = _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &half, sizeof half);
#elif defined(__F16C__)
  const __m128i half = _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
  std::memcpy(p, &half, sizeof half);
#else
  for (int lane = 0; lane < kLanes<float>; ++lane) p[lane] = narrow<f16>(static_cast<double>(v[lane]));
#endif
}

// Calls body(i, load, store) for each vector of a run, including a partial last one. They take pointers to T, or to
// float where T is double.
struct Run {
  int64_t vectors, rest;  // rest: lanes used of the partial last vector
};
template <class T, class RunOrPack, class Body>
void for_each_vector(const RunOrPack& run, const Body& body) {
  for (int64_t i = 0; i < run.vectors; ++i) {
    const int64_t at = i * kLanes<T>;
    body(
        i, [at](const auto* p, Vec<T>) { return load_vector<T>(p + at); },
        [at](auto* p, Vec<T> v) { store_vector(p + at, v); });
  }
  if (const int64_t n = run.rest; n > 0) {
    const int64_t i = run.vectors, at = i * kLanes<T>;
    body(
        i, [=](const auto* p, Vec<T> others) { return load_part(p + at, n, others); },
        [=](auto* p, Vec<T> v) { store_part(p + at, n, v); });
  }
}

// Copy strided elements of any dtype to contiguous elements of the compute type, and back.
template <class S, class T>
void load_elements(const S* __restrict p, int64_t stride, int64_t n, T* __restrict out) {
  if (stride == 1) {
    int64_t i = 0;
    if constexpr (std::is_same_v<T, float> && sizeof(S) == 2)
      for (; i + kLanes<T> <= n; i += kLanes<T>) store<T>(out + i, load_vector<T>(p + i));
    for (; i < n; ++i) out[i] = widen(p[i]);
  } else if (stride == 0 && n > 0) {
    const T value = widen(*p);
    for (int64_t i = 0; i < n; ++i) out[i] = value;
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = widen(p[i * stride]);
  }
}

template <class S, class T>
void store_elements(S* __restrict p, int64_t stride, int64_t n, const T* __restrict from) {
  if (stride == 1) {
    int64_t i = 0;
    if constexpr (std::is_same_v<T, float> && sizeof(S) == 2)
      for (; i + kLanes<T> <= n; i += kLanes<T>) store_vector(p + i, load(from + i));
    for (; i < n; ++i) p[i] = narrow<S>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) p[i * stride] = narrow<S>(from[i]);
  }
}

constexpr int kMaxDims = 64;  // torch's limit

// The size of an element of a floating-point dtype.
constexpr int64_t element_bytes(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

// layout.cpp

// Access to the elements at offset, offset + stride, … of a tensor of any floating-point dtype, as double.
struct Runs {
  void (*load)(const Tensor& from, int64_t offset, int64_t stride, int64_t n, double* out);
  void (*store)(const Tensor& to, int64_t offset, int64_t stride, int64_t n, const double* from);
  // the elements at offset + index[i] * stride
  void (*pick)(const Tensor& from, int64_t offset, int64_t stride, const int64_t* index, int64_t n, double* out);
};
Runs runs_of(Dtype dtype);

// Copy the elements of a floating-point tensor at the offsets at[i]; T is float or double.
template <class T>
void gather(const Tensor& from, const int64_t* at, int64_t n, T* out);
template <class T>
void scatter(const Tensor& to, const int64_t* at, int64_t n, const T* from);

// Read one element of a tensor of any real dtype, including labels; write one, rounded to a floating-point dtype.
double number_at(const Tensor& tensor, int64_t offset);
void set_number(const Tensor& tensor, int64_t offset, double value);

// Asks for huge pages if the tensor exists and is large: a new result is fresh memory, and faulting it in 4 KiB at a
// time costs more than computing it.
void advise_huge_pages(const Tensor& tensor);

inline bool same_shape(const Tensor& a, const Tensor& b) {
  return a.dim == b.dim && std::equal(a.sizes, a.sizes + a.dim, b.sizes);
}

// A new 0-d tensor.
inline Tensor empty_scalar(Dtype dtype) { return Tensor::empty(0, nullptr, nullptr, dtype); }

// A new tensor laid out as by torch.empty_like: without gaps, dimensions in the same order in memory.
Tensor empty_like(const Tensor& like);

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

// The sum of all lanes of vectors of float or double, accumulated in double.
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

// Lane-wise sums of vectors of float or double, accumulated in double.
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
  static constexpr int kRecent = 8;  // terms added in float first, since widening one takes longer than adding it
  void flush() {
    low_ += lower(recent_);
    high_ += upper(recent_);
    recent_ = Vec<float>{};
  }

  Vec<float> recent_{};
  Vec<double> low_{}, high_{};
  int64_t count_ = 0;
};

// A compensated sum (Neumaier). Partial sums of fixed blocks are added in a fixed order, so a result does not depend on
// the number of threads, and its error, to within an ulp, not on the number of terms.
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

// Calls body with a value of the element type: with_dtype(t.dtype, [&](auto s) { using S = decltype(s); … }).
template <class Body>
void with_dtype(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::f32: return body(float{});
    case Dtype::f64: return body(double{});
    case Dtype::bf16: return body(bf16{});
    case Dtype::f16: return body(f16{});
    default: throw std::runtime_error("manual_grad: kernels support float64, float32, bfloat16 and float16");
  }
}

// The same for integers, and whether a dtype is one.
template <class Body>
void with_integers(Dtype dtype, const Body& body) {
  switch (dtype) {
    case Dtype::i64: return body(int64_t{});
    case Dtype::i32: return body(int32_t{});
    case Dtype::i16: return body(int16_t{});
    case Dtype::i8: return body(int8_t{});
    case Dtype::u8:
    case Dtype::boolean: return body(uint8_t{});
    default: throw std::runtime_error("manual_grad: a target of this dtype is not supported");
  }
}
constexpr bool is_integer(Dtype dtype) {
  return dtype == Dtype::i64 || dtype == Dtype::i32 || dtype == Dtype::i16 || dtype == Dtype::i8 ||
         dtype == Dtype::u8 || dtype == Dtype::boolean;
}

// Calls body with a value of the default compute type.
template <class Body>
void with_compute_type(Dtype dtype, const Body& body) {
  with_dtype(dtype, [&](auto s) { body(typename ComputeType<decltype(s)>::T{}); });
}

}  // namespace mg
