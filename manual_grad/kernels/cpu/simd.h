// Vectors of double or float and the elementary functions of the losses.
//
// Uses GCC and clang vector extensions: the same source compiles to AVX-512, AVX2, SSE2 or NEON code depending on the
// compiler flags. The compilers do not vectorize std::exp and std::log, so such functions are implemented here.
// Accuracy against mpmath over the whole domain (tests/test_kernels.py): at most 2 ulp in double, 2 ulp in float.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC's headers use uninitialized registers on purpose
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif

namespace mg {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

template <class T>
struct Simd;

template <>
struct Simd<double> {
  typedef double V __attribute__((vector_size(kVectorBytes)));
  typedef int64_t M __attribute__((vector_size(kVectorBytes)));
  using Bits = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Bits exponent_bias = 1023;
  static constexpr double round_magic = 0x1.8p52;  // adding it rounds to an integer, found in the low bits
  static constexpr double exp_low = -746.0, exp_high = 710.0;  // beyond these, e^x is 0 or inf
  static constexpr double least_normal = 0x1p-1022, raise = 0x1p54, raised = 54;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
};

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef int32_t M __attribute__((vector_size(kVectorBytes)));
  using Bits = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Bits exponent_bias = 127;
  static constexpr float round_magic = 0x1.8p23f;
  static constexpr float exp_low = -104.0f, exp_high = 89.0f;
  static constexpr float least_normal = 0x1p-126f, raise = 0x1p25f, raised = 25;
  static constexpr float ln2_high = 0x1.62e400p-1f, ln2_low = 0x1.7f7d1cp-20f;
};

template <class T>
using Vec = typename Simd<T>::V;
template <class T>
using Mask = typename Simd<T>::M;
template <class T>
constexpr int kLanes = kVectorBytes / static_cast<int>(sizeof(T));

template <class To, class From>
inline To bitcast(From from) {
  To to;
  static_assert(sizeof to == sizeof from);
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class T>
inline Vec<T> splat(T value) {
  return value - Vec<T>{};
}
template <class T>
inline Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
inline void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}

template <class T>
inline Vec<T> abs(Vec<T> x) {
  Mask<T> bits;
  std::memcpy(&bits, &x, sizeof x);
  bits &= static_cast<typename Simd<T>::Bits>(~(typename Simd<T>::Bits{1} << (sizeof(T) * 8 - 1)));
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T>
inline bool any(Mask<T> lanes) {
#if defined(__AVX512F__)
  return _mm512_test_epi64_mask((__m512i)lanes, (__m512i)lanes) != 0;
#else
  typename Simd<T>::Bits bits = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) bits |= lanes[lane];
  return bits != 0;
#endif
}

// Load or store only the first n lanes; when loading, the remaining lanes come from `others`.
template <class T>
inline Vec<T> load_part(const T* p, int64_t n, Vec<T> others) {
#if defined(__AVX512F__)
  const auto first = static_cast<uint16_t>((1u << n) - 1);
  if constexpr (sizeof(T) == sizeof(float))
    return (Vec<T>)_mm512_mask_loadu_ps((__m512)others, first, p);
  else
    return (Vec<T>)_mm512_mask_loadu_pd((__m512d)others, static_cast<__mmask8>(first), p);
#else
  std::memcpy(&others, p, static_cast<size_t>(n) * sizeof(T));
  return others;
#endif
}
template <class T>
inline void store_part(T* p, int64_t n, Vec<T> v) {
#if defined(__AVX512F__)
  const auto first = static_cast<uint16_t>((1u << n) - 1);
  if constexpr (sizeof(T) == sizeof(float))
    _mm512_mask_storeu_ps(p, first, (__m512)v);
  else
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(first), (__m512d)v);
#else
  std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(T));
#endif
}

// The lower and upper half of the lanes, as double.
#if defined(__AVX512F__)
inline Vec<double> lower(Vec<float> v) { return (Vec<double>)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v)); }
inline Vec<double> upper(Vec<float> v) {
  return (Vec<double>)_mm512_cvtps_pd(_mm256_castpd_ps(_mm512_extractf64x4_pd((__m512d)v, 1)));
}
#elif defined(__AVX2__)
inline Vec<double> lower(Vec<float> v) { return (Vec<double>)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v)); }
inline Vec<double> upper(Vec<float> v) { return (Vec<double>)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1)); }
#else
inline Vec<double> half(Vec<float> v, int first) {
  Vec<double> wide;
  for (int lane = 0; lane < kLanes<double>; ++lane) wide[lane] = static_cast<double>(v[first + lane]);
  return wide;
}
inline Vec<double> lower(Vec<float> v) { return half(v, 0); }
inline Vec<double> upper(Vec<float> v) { return half(v, kLanes<double>); }
#endif

// Combines all lanes to one number, as a tree, which has less latency than a chain.
template <class T, class Join>
inline T fold(Vec<T> v, const Join& join) {
  T lane[kLanes<T>];
  store<T>(lane, v);
  for (int n = kLanes<T> / 2; n > 0; n /= 2)
    for (int i = 0; i < n; ++i) lane[i] = join(lane[i], lane[i + n]);
  return lane[0];
}
template <class T>
inline T sum(Vec<T> v) {
  return fold<T>(v, [](T a, T b) { return a + b; });
}

// y 2^k for an integral k, down to the smallest subnormal: by one instruction if there is one, else by two factors, so
// that 2^k itself never underflows
#if defined(__AVX512F__)
inline Vec<double> scale(Vec<double> y, Vec<double> k) { return (Vec<double>)_mm512_scalef_pd((__m512d)y, (__m512d)k); }
inline Vec<float> scale(Vec<float> y, Vec<float> k) { return (Vec<float>)_mm512_scalef_ps((__m512)y, (__m512)k); }
#else
template <class T>
inline Vec<T> exp2i(Vec<T> k) {
  Vec<T> shifted = k + (Simd<T>::round_magic + static_cast<T>(Simd<T>::exponent_bias));
  Mask<T> bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= Simd<T>::mantissa_bits;
  std::memcpy(&shifted, &bits, sizeof bits);
  return shifted;
}
template <class T>
inline Vec<T> scale_in_halves(Vec<T> y, Vec<T> k) {
  const Vec<T> half = (k * static_cast<T>(0.5) + Simd<T>::round_magic) - Simd<T>::round_magic;
  return (y * exp2i<T>(half)) * exp2i<T>(k - half);
}
inline Vec<double> scale(Vec<double> y, Vec<double> k) { return scale_in_halves<double>(y, k); }
inline Vec<float> scale(Vec<float> y, Vec<float> k) { return scale_in_halves<float>(y, k); }
#endif

// e^r - 1 for |r| <= ln(2)/2, by a Taylor polynomial whose first omitted term is below half an ulp
inline Vec<double> expm1_reduced(Vec<double> r) {
  Vec<double> p = splat(1.0 / 6227020800.0);
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  return (p * r) * r + r;
}
inline Vec<float> expm1_reduced(Vec<float> r) {
  Vec<float> p = splat(1.0f / 5040.0f);
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  return (p * r) * r + r;
}
template <class T>
inline Vec<T> exp_reduced(Vec<T> r) {
  return expm1_reduced(r) + static_cast<T>(1);
}

// e^x for x <= 0, the only exponential that a stable loss needs: 2^k e^r with k = round(x / ln 2) and r = x - k ln 2,
// where ln 2 is split in two so that r keeps its low bits
template <class T>
inline Vec<T> exp(Vec<T> x, Vec<T> beyond = Vec<T>{}) {  // e^(x + beyond), where beyond is less than an ulp of x
  const Vec<T> c = x < Simd<T>::exp_low ? splat(Simd<T>::exp_low) : x;
  const Vec<T> k = (c * static_cast<T>(1.44269504088896340736) + Simd<T>::round_magic) - Simd<T>::round_magic;
  return scale(exp_reduced<T>(((c - k * Simd<T>::ln2_high) - k * Simd<T>::ln2_low) + beyond), k);
}

// e^x - 1 for x <= 0: with x = k ln 2 + r, 2^k (e^r - 1) + (2^k - 1), which keeps every digit of a small x
template <class T>
inline Vec<T> expm1(Vec<T> x) {
  const Vec<T> c = x < Simd<T>::exp_low ? splat(Simd<T>::exp_low) : x;
  const Vec<T> k = (c * static_cast<T>(1.44269504088896340736) + Simd<T>::round_magic) - Simd<T>::round_magic;
  const Vec<T> one = splat(T{1}), e = expm1_reduced((c - k * Simd<T>::ln2_high) - k * Simd<T>::ln2_low);
  return scale(e, k) + (scale(one, k) - one);
}

// e^(a - b) for a <= b. Rounding a difference of magnitude s would cost the result s/2 ulp, so the rounding error is
// recovered and applied (Moller's and Knuth's two-sum).
template <class T>
inline Vec<T> exp_of_difference(Vec<T> a, Vec<T> b) {
  const Vec<T> d = a - b, minus_b = d - a, lost = (a - (d - minus_b)) - (b + minus_b);
  return exp<T>(d, d < Simd<T>::exp_low ? Vec<T>{} : lost);  // nothing to recover for a = -inf
}

// 2^(j/16)
alignas(64) inline constexpr double kRoots[16] = {
    0x1.0000000000000p+0, 0x1.0b5586cf9890fp+0, 0x1.172b83c7d517bp+0, 0x1.2387a6e756238p+0,
    0x1.306fe0a31b715p+0, 0x1.3dea64c123422p+0, 0x1.4bfdad5362a27p+0, 0x1.5ab07dd485429p+0,
    0x1.6a09e667f3bcdp+0, 0x1.7a11473eb0187p+0, 0x1.8ace5422aa0dbp+0, 0x1.9c49182a3f090p+0,
    0x1.ae89f995ad3adp+0, 0x1.c199bdd85529cp+0, 0x1.d5818dcfba487p+0, 0x1.ea4afa2a490dap+0};

// e^x with relative error max(1, |x|) 2^-50, for results that are rounded to float32 but may cancel before. With
// x = (16 k + j) ln 2 / 16 + r and |r| <= ln 2 / 32, the polynomial is short and 2^(j/16) is looked up in a register.
#if defined(__AVX512F__)
inline Vec<double> exp_to_float(Vec<double> x) {
  const Vec<double> c = x < Simd<double>::exp_low ? splat(Simd<double>::exp_low) : x;
  const Vec<double> shifted = c * (16 * 1.44269504088896340736) + Simd<double>::round_magic;
  const Vec<double> k = shifted - Simd<double>::round_magic, r = c - k * (0.69314718055994530942 / 16);
  const Vec<double> root = (Vec<double>)_mm512_permutex2var_pd(
      (__m512d)load(kRoots), bitcast<__m512i>(shifted), (__m512d)load(kRoots + 8));  // by the low four bits of 16 k + j
  Vec<double> p = splat(1.0 / 720);
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return scale(p * root, k * (1.0 / 16));  // scalef takes the floor of the exponent
}
#else
// Without such a lookup, the polynomial is that of exp. 2^k is one factor, made of the bits of the shifted number.
inline Vec<double> exp_to_float(Vec<double> x) {
  constexpr double low = -708;  // below, 2^k is no normal number, and the result is 0 in float32
  const Vec<double> c = x < low ? splat(low) : x;
  const Vec<double> shifted = c * 1.44269504088896340736 + Simd<double>::round_magic;
  const Vec<double> r = c - (shifted - Simd<double>::round_magic) * 0.69314718055994530942;
  const Mask<double> exponent = bitcast<Mask<double>>(shifted) + Simd<double>::exponent_bias;
  const Vec<double> power = bitcast<Vec<double>>(exponent << Simd<double>::mantissa_bits);
  return x < low ? Vec<double>{} : exp_reduced<double>(r) * power;
}
#endif

// e^x for x <= 0, as accurately as a result stored as S requires
template <class S, class T>
inline Vec<T> exp_for(Vec<T> x) {
  if constexpr (sizeof(S) == sizeof(float) && sizeof(T) == sizeof(double)) {
    return exp_to_float(x);
  } else {
    return exp<T>(x);
  }
}

#if defined(__AVX512F__)
inline Vec<double> sqrt_of(Vec<double> x) { return (Vec<double>)_mm512_sqrt_pd((__m512d)x); }
inline Vec<float> sqrt_of(Vec<float> x) { return (Vec<float>)_mm512_sqrt_ps((__m512)x); }
#elif defined(__AVX2__)
inline Vec<double> sqrt_of(Vec<double> x) { return (Vec<double>)_mm256_sqrt_pd((__m256d)x); }
inline Vec<float> sqrt_of(Vec<float> x) { return (Vec<float>)_mm256_sqrt_ps((__m256)x); }
#else
template <class V>
inline V sqrt_of(V x) {
  for (size_t lane = 0; lane < sizeof x / sizeof x[0]; ++lane) x[lane] = std::sqrt(x[lane]);
  return x;
}
#endif
template <class T>
inline Vec<T> sqrt(Vec<T> x) {
  return sqrt_of(x);
}

// e^x for any x. Selects inf explicitly on overflow, because an overflowing product could be fused with a later sum.
template <class S, class T = S>
inline Vec<T> exp_signed(Vec<T> x) {
  return x > Simd<T>::exp_high ? splat(static_cast<T>(__builtin_inf())) : exp_for<S, T>(x);
}

// a b + c, rounded once if the processor supports it. The compiler contracts products and sums as it chooses; use this
// where the result must not depend on that.
#if defined(__AVX512F__)
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
}
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
#elif defined(__AVX2__)
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
}
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
#else
inline Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) { return a * b + c; }
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) { return a * b + c; }
#endif

// A number as an unevaluated sum of two floats, the second about an ulp of the first, for use before a cancellation.
struct TwoFloats {
  Vec<float> high, low;
};

// a + b + beyond for |a| >= |b|, where beyond is about an ulp of b (Dekker's fast two-sum)
inline TwoFloats two_sum(Vec<float> a, Vec<float> b, Vec<float> beyond) {
  const Vec<float> high = a + b;
  return {high, (b - (high - a)) + beyond};
}

// Whether arithmetic with pairs of floats is available: it needs fused multiply-add and table lookup in a register.
#if defined(__AVX512F__)
constexpr bool kPairs = true;
inline Vec<float> look_up(const float* table, Mask<float> i) {
  return (Vec<float>)_mm512_permutexvar_ps((__m512i)i, (__m512)load(table));
}
#elif defined(__AVX2__)
constexpr bool kPairs = true;
inline Vec<float> look_up(const float* table, Mask<float> i) {
  return (Vec<float>)_mm256_permutevar8x32_ps((__m256)load(table), (__m256i)i);
}
#else
constexpr bool kPairs = false;
#endif

// If two numbers are as accurate as exp_two_floats and their difference is less than this fraction of them, the
// difference has lost digits of a float.
constexpr float kClose = 0x1p-4f / kLanes<float>;

// e^x for x <= 0 with relative error 2^-24 / n. With n = kLanes<float> roots of two, x = (n k + j) ln 2 / n + r, and
// e^r - 1 is so small that its rounding error as a float does not matter.
#if defined(__AVX2__)
inline TwoFloats exp_two_floats(Vec<float> x) {
  constexpr int n = kLanes<float>;
  struct Table {
    alignas(64) float high[n], low[n];
  };
  static constexpr Table table = [&] {
    Table t{};
    for (int j = 0; j < n; ++j) {
      t.high[j] = static_cast<float>(kRoots[16 / n * j]);
      t.low[j] = static_cast<float>(kRoots[16 / n * j] - static_cast<double>(t.high[j]));
    }
    return t;
  }();
  const Vec<float> c = x < Simd<float>::exp_low ? splat(Simd<float>::exp_low) : x;
  const Vec<float> shifted = c * (n * 1.44269504088896340736f) + Simd<float>::round_magic;
  const Vec<float> steps = shifted - Simd<float>::round_magic;
  const Mask<float> j = bitcast<Mask<float>>(shifted) & (n - 1);
  const Vec<float> r = fma(steps, splat(-Simd<float>::ln2_high / n), c) - steps * (Simd<float>::ln2_low / n);
  Vec<float> p = splat(1.0f / 24);
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = (p * r) * r + r;
  const Vec<float> root = look_up(table.high, j), k = (steps - __builtin_convertvector(j, Vec<float>)) * (1.0f / n);
  const Vec<float> high = fma(root, p, root), low = fma(root, p, root - high) + look_up(table.low, j);
  return {scale(high, k), scale(low, k)};
}
#endif

// log((1+s)/(1-s)) = 2 s (1 + s^2/3 + s^4/5 + ...): the sum in parentheses minus its leading 1, divided by q = s^2
inline Vec<double> atanh_tail(Vec<double> q) {
  Vec<double> p = splat(1.0 / 21);
  p = p * q + 1.0 / 19;
  p = p * q + 1.0 / 17;
  p = p * q + 1.0 / 15;
  p = p * q + 1.0 / 13;
  p = p * q + 1.0 / 11;
  p = p * q + 1.0 / 9;
  p = p * q + 1.0 / 7;
  p = p * q + 1.0 / 5;
  return p * q + 1.0 / 3;
}
inline Vec<float> atanh_tail(Vec<float> q) {
  Vec<float> p = splat(1.0f / 9);
  p = p * q + 1.0f / 7;
  p = p * q + 1.0f / 5;
  return p * q + 1.0f / 3;
}

// log(1+f) for 1+f in [1/sqrt 2, sqrt 2]: with s = f/(2+f), 2s = f - s f
template <class T>
inline Vec<T> log1p_reduced(Vec<T> f) {
  const Vec<T> s = f / (f + static_cast<T>(2)), q = s * s;
  return f - s * (f - (static_cast<T>(2) * q) * atanh_tail(q));
}

// log(1+u) for u in [0, 1], as softplus needs; if 1+u is beyond sqrt 2, it is halved: 1+f = (1+u)/2
template <class T>
inline Vec<T> log1p_unit(Vec<T> u) {
  const Mask<T> beyond = u > static_cast<T>(0.41421356237309504880);
  const Vec<T> log_f = log1p_reduced<T>(beyond ? (u - static_cast<T>(1)) * static_cast<T>(0.5) : u);
  return beyond ? log_f + static_cast<T>(0.69314718055994530942) : log_f;
}

// log(1+u) for u >= -1, as k ln 2 + log(1+f). 2^k is the power of two nearest to 1+u, and f = (1+u)/2^k - 1
// = u 2^-k + (2^-k - 1), which is u itself for k = 0, so that a small u keeps all its digits. -inf at -1, NaN below.
template <class T>
inline Vec<T> log1p(Vec<T> u) {
  constexpr auto bias = Simd<T>::exponent_bias;
  const Vec<T> one = splat(T{1}), nearest = (u + one) * static_cast<T>(0.70710678118654752440);
  const Mask<T> k = (bitcast<Mask<T>>(nearest) >> Simd<T>::mantissa_bits) - bias + 1;  // 0 for 1/sqrt 2 < 1+u < sqrt 2
  const Vec<T> down = bitcast<Vec<T>>((bias - k) << Simd<T>::mantissa_bits);
  const Vec<T> f = u * down + (down - one), kf = __builtin_convertvector(k, Vec<T>);
  const Vec<T> result = kf * Simd<T>::ln2_high + (log1p_reduced<T>(f) + kf * Simd<T>::ln2_low);
  const Vec<T> inf = splat(static_cast<T>(__builtin_inf()));
  return u > -one ? (u < inf ? result : u) : (u == -one ? -inf : u - u + splat(static_cast<T>(__builtin_nan(""))));
}

// log(x) as k ln 2 + log(1+f), where 2^k is the power of two nearest to x and 1+f = x 2^-k. -inf at 0, NaN below.
template <class T>
inline Vec<T> log(Vec<T> x) {
  const Mask<T> subnormal = x < Simd<T>::least_normal;
  const Vec<T> y = subnormal ? x * Simd<T>::raise : x, nearest = y * static_cast<T>(0.70710678118654752440);
  const Mask<T> k = (bitcast<Mask<T>>(nearest) >> Simd<T>::mantissa_bits) - Simd<T>::exponent_bias + 1;
  const Vec<T> f = bitcast<Vec<T>>(bitcast<Mask<T>>(y) - (k << Simd<T>::mantissa_bits)) - static_cast<T>(1);
  const Vec<T> k_or_raised = __builtin_convertvector(k, Vec<T>), zero{};
  const Vec<T> kf = subnormal ? k_or_raised - Simd<T>::raised : k_or_raised;
  const Vec<T> result = kf * Simd<T>::ln2_high + (log1p_reduced<T>(f) + kf * Simd<T>::ln2_low);
  const Vec<T> inf = splat(static_cast<T>(__builtin_inf()));
  return x > zero ? (x < inf ? result : x) : (x == zero ? -inf : x - x + splat(static_cast<T>(__builtin_nan(""))));
}

// x^y for x >= 0, as accurately as a result stored as S requires: by std::pow lane by lane if T is not wider than S
template <class S, class T>
inline Vec<T> pow(Vec<T> x, T y) {
  if (y == 0) return splat(T{1});
  if constexpr (sizeof(S) < sizeof(T)) {
    const T at_zero = y > 0 ? T{0} : static_cast<T>(__builtin_inf());
    return x == Vec<T>{} ? splat(at_zero) : exp_signed<S, T>(y * log<T>(x));
  } else {
    for (int lane = 0; lane < kLanes<T>; ++lane) x[lane] = std::pow(x[lane], y);
    return x;
  }
}

}  // namespace mg
