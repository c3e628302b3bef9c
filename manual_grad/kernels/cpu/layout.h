// From tensors of any dtype and stride to blocks of the compute type, and back.
//
// A kernel sees only short contiguous arrays of its compute type T. Whatever a tensor is like (bfloat16, transposed,
// expanded with stride 0, channels_last), only the functions here know: a kernel is compiled for one or two compute
// types, not for every dtype.
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
  // the exponent of a half sits 112 below a float's; the product also normalises subnormals
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

// Unless a loss says otherwise, float32 is computed in double: every result is the rounding of an almost exact one,
// whatever cancels on the way.
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

// A vector of the compute type from, and to, as many contiguous elements: the same conversions, lane by lane.
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

// Contiguous elements of the compute type from, and to, elements of any dtype that are a stride apart.
template <class S, class T>
void load_elements(const S* __restrict p, int64_t stride, int64_t n, T* __restrict out) {
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) out[i] = widen(p[i]);
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
    for (int64_t i = 0; i < n; ++i) p[i] = narrow<S>(from[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) p[i * stride] = narrow<S>(from[i]);
  }
}

constexpr int kMaxDims = 64;  // as many as torch takes

// Of a floating dtype.
constexpr int64_t element_bytes(Dtype dtype) { return dtype == Dtype::f64 ? 8 : dtype == Dtype::f32 ? 4 : 2; }

// layout.cpp

// The elements of a tensor at offset, offset + stride, … as double, whatever its dtype.
struct Runs {
  void (*load)(const Tensor& from, int64_t offset, int64_t stride, int64_t n, double* out);
  void (*store)(const Tensor& to, int64_t offset, int64_t stride, int64_t n, const double* from);
  // those at offset + index[i] * stride
  void (*pick)(const Tensor& from, int64_t offset, int64_t stride, const int64_t* index, int64_t n, double* out);
};
Runs runs_of(Dtype dtype);

// Elements of a tensor of floating dtype, each at an offset of its own; T is float or double.
template <class T>
void gather(const Tensor& from, const int64_t* at, int64_t n, T* out);
template <class T>
void scatter(const Tensor& to, const int64_t* at, int64_t n, const T* from);

// One element of a tensor of any real dtype, labels among them; and of a floating dtype, rounded to it.
double number_at(const Tensor& tensor, int64_t offset);
void set_number(const Tensor& tensor, int64_t offset, double value);

// A large result, if there is one, is fresh memory, and touching it 4 KiB at a time costs more than computing it: asks
// for huge pages.
void advise_huge_pages(const Tensor& tensor);

inline bool same_shape(const Tensor& a, const Tensor& b) {
  return a.dim == b.dim && std::equal(a.sizes, a.sizes + a.dim, b.sizes);
}

// New memory for one value.
inline Tensor empty_scalar(Dtype dtype) { return Tensor::empty(0, nullptr, nullptr, dtype); }

// New memory of a tensor's shape, laid out as torch.empty_like does it: without gaps, the dimensions in the same order.
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
  static constexpr int kRecent = 8;  // terms that are added up in float, since widening one takes longer than adding it
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

// Calls body with a value of the type that a loss computes in, unless it says otherwise.
template <class Body>
void with_compute_type(Dtype dtype, const Body& body) {
  with_dtype(dtype, [&](auto s) { body(typename ComputeType<decltype(s)>::T{}); });
}

}  // namespace mg
