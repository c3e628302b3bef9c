// Vectors of double or float and the elementary functions of the losses.
//
// Uses GCC and clang vector extensions: the same source compiles to AVX-512, AVX2, SSE2 or NEON code depending on the
// compiler flags. The compilers do not vectorize std::exp and std::log, so such functions are implemented here.
// Accuracy against mpmath over the whole domain (tests/test_kernels.py): at most 2 ulp in double, 2 ulp in float.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

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
  typedef uint64_t U __attribute__((vector_size(kVectorBytes)));
  using Bits = int64_t;
  static constexpr int mantissa_bits = 52;
  static constexpr Bits exponent_bias = 1023;
  static constexpr double round_magic = 0x1.8p52;  // adding it rounds to an integer, found in the low bits
  static constexpr double exp_low = -746.0, exp_high = 710.0;  // beyond these, e^x is 0 or inf
  static constexpr Bits root_half = 0x3fe6a09e667f3bcd;  // 1/sqrt 2
  static constexpr double least_normal = 0x1p-1022, raise = 0x1p54, raised = 54;
  static constexpr double ln2_high = 0x1.62e42fee00000p-1, ln2_low = 0x1.a39ef35793c76p-33;
};

template <>
struct Simd<float> {
  typedef float V __attribute__((vector_size(kVectorBytes)));
  typedef int32_t M __attribute__((vector_size(kVectorBytes)));
  typedef uint32_t U __attribute__((vector_size(kVectorBytes)));
  using Bits = int32_t;
  static constexpr int mantissa_bits = 23;
  static constexpr Bits exponent_bias = 127;
  static constexpr float round_magic = 0x1.8p23f;
  static constexpr float exp_low = -104.0f, exp_high = 89.0f;
  static constexpr Bits root_half = 0x3f3504f3;
  static constexpr float least_normal = 0x1p-126f, raise = 0x1p25f, raised = 25;
  static constexpr float ln2_high = 0x1.62e400p-1f, ln2_low = 0x1.7f7d1cp-20f;
};

template <class T>
using Vec = typename Simd<T>::V;
template <class T>
using Mask = typename Simd<T>::M;
template <class T>
using Unsigned = typename Simd<T>::U;  // the bits of a vector: AVX2 has no signed shift of 64 of them to the right
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

// The larger of a bound and x, and the smaller; NaN if x is NaN. One instruction, which compilers do not find.
#if defined(__AVX512F__)
inline Vec<double> at_least_bound(Vec<double> x, Vec<double> b) {
  return (Vec<double>)_mm512_max_pd((__m512d)b, (__m512d)x);
}
inline Vec<float> at_least_bound(Vec<float> x, Vec<float> b) { return (Vec<float>)_mm512_max_ps((__m512)b, (__m512)x); }
inline Vec<double> at_most_bound(Vec<double> x, Vec<double> b) {
  return (Vec<double>)_mm512_min_pd((__m512d)b, (__m512d)x);
}
inline Vec<float> at_most_bound(Vec<float> x, Vec<float> b) { return (Vec<float>)_mm512_min_ps((__m512)b, (__m512)x); }
#elif defined(__AVX2__)
inline Vec<double> at_least_bound(Vec<double> x, Vec<double> b) {
  return (Vec<double>)_mm256_max_pd((__m256d)b, (__m256d)x);
}
inline Vec<float> at_least_bound(Vec<float> x, Vec<float> b) { return (Vec<float>)_mm256_max_ps((__m256)b, (__m256)x); }
inline Vec<double> at_most_bound(Vec<double> x, Vec<double> b) {
  return (Vec<double>)_mm256_min_pd((__m256d)b, (__m256d)x);
}
inline Vec<float> at_most_bound(Vec<float> x, Vec<float> b) { return (Vec<float>)_mm256_min_ps((__m256)b, (__m256)x); }
#else
template <class V>
inline V at_least_bound(V x, V b) {
  return x < b ? b : x;
}
template <class V>
inline V at_most_bound(V x, V b) {
  return x > b ? b : x;
}
#endif
template <class T>
inline Vec<T> not_below(Vec<T> x, T bound) {
  return at_least_bound(x, splat(bound));
}
template <class T>
inline Vec<T> not_above(Vec<T> x, T bound) {
  return at_most_bound(x, splat(bound));
}

template <class T>
inline bool any(Mask<T> lanes) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)lanes) != 0;
#elif defined(__AVX2__)
  return _mm256_movemask_ps((__m256)lanes) != 0;
#else
  typename Simd<T>::Bits bits = 0;
  for (int lane = 0; lane < kLanes<T>; ++lane) bits |= lanes[lane];
  return bits != 0;
#endif
}

// Load or store only the first n lanes; when loading, the remaining lanes come from `others`.
#if defined(__AVX512F__)
inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vec<float> load_part(const float* p, int64_t n, Vec<float> others) {
  return (Vec<float>)_mm512_mask_loadu_ps((__m512)others, first(n), p);
}
inline Vec<double> load_part(const double* p, int64_t n, Vec<double> others) {
  return (Vec<double>)_mm512_mask_loadu_pd((__m512d)others, static_cast<__mmask8>(first(n)), p);
}
inline void store_part(float* p, int64_t n, Vec<float> v) { _mm512_mask_storeu_ps(p, first(n), (__m512)v); }
inline void store_part(double* p, int64_t n, Vec<double> v) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>(first(n)), (__m512d)v);
}
#else
template <class T, class V>
inline V load_part(const T* p, int64_t n, V others) {
  std::memcpy(&others, p, static_cast<size_t>(n) * sizeof(T));
  return others;
}
template <class T, class V>
inline void store_part(T* p, int64_t n, V v) {
  std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(T));
}
#endif
#if defined(__AVX512F__)
inline Vec<double> load_part(const float* p, int64_t n, Vec<double> others) {
  const __m512 v = _mm512_maskz_loadu_ps(first(n), p);
  return (Vec<double>)_mm512_mask_cvtps_pd((__m512d)others, static_cast<__mmask8>(first(n)), _mm512_castps512_ps256(v));
}
inline void store_part(float* p, int64_t n, Vec<double> v) {
  _mm512_mask_storeu_ps(p, first(n), _mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)v)));
}
#else
inline Vec<double> load_part(const float* p, int64_t n, Vec<double> others) {
  for (int64_t lane = 0; lane < n; ++lane) others[lane] = static_cast<double>(p[lane]);
  return others;
}
inline void store_part(float* p, int64_t n, Vec<double> v) {
  for (int64_t lane = 0; lane < n; ++lane) p[lane] = static_cast<float>(v[lane]);
}
#endif

// Zeroes all but the first n lanes. Not inlined, because indexing by a variable would force the vector into memory;
// cold, so that the loop around it keeps its registers.
template <class T>
[[gnu::noinline, gnu::cold]] Vec<T> first_lanes(Vec<T> v, int64_t n) {
  for (int64_t lane = n > 0 ? n : 0; lane < kLanes<T>; ++lane) v[lane] = 0;
  return v;
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
  Vec<double> wide{};
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
// y 2^k by two factors, 2^half and the rest, where k and half have a bias, twice and once that of an
// exponent.
template <class T, class Bits>
inline Vec<T> scale_by_bits(Vec<T> y, Bits k, Bits half) {
  return (y * bitcast<Vec<T>>(half << Simd<T>::mantissa_bits)) * bitcast<Vec<T>>((k - half) << Simd<T>::mantissa_bits);
}
template <class T>
inline Vec<T> scale_in_halves(Vec<T> y, Vec<T> k) {
  // both in the low bits of a number
  constexpr T magic = Simd<T>::round_magic + static_cast<T>(Simd<T>::exponent_bias);
  const Mask<T> all = bitcast<Mask<T>>(k + (magic + static_cast<T>(Simd<T>::exponent_bias)));
  const Mask<T> half = bitcast<Mask<T>>(k * static_cast<T>(0.5) + magic);
  return scale_by_bits<T>(y, all, half);
}
inline Vec<double> scale(Vec<double> y, Vec<double> k) { return scale_in_halves<double>(y, k); }
inline Vec<float> scale(Vec<float> y, Vec<float> k) { return scale_in_halves<float>(y, k); }
#endif

// a b + c, rounded once; for double, only if the processor supports it. The compiler contracts products and sums as it
// chooses; use this where the result must not depend on that.
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
inline Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {  // a double holds the product
  for (int lane = 0; lane < kLanes<float>; ++lane)
    c[lane] =
        static_cast<float>(static_cast<double>(a[lane]) * static_cast<double>(b[lane]) + static_cast<double>(c[lane]));
  return c;
}
#endif

// x, where the compiler must not fuse the product that it is with a sum.
template <class T>
inline Vec<T> as_rounded(Vec<T> x) {
#if defined(__AVX512F__)
  asm("" : "+v"(x));
#elif defined(__x86_64__)
  asm("" : "+x"(x));
#endif
  return x;
}

// Tables of kTable<T> numbers that fit into registers, where they are looked up by the low bits of an index. 0: this
// instruction set has no such lookup.
template <class T>
constexpr int kTable = 0;
#if defined(__AVX512F__)
template <>
inline constexpr int kTable<float> = 16;
template <>
inline constexpr int kTable<double> = 16;
inline Vec<float> look_up(const float* table, Mask<float> i) {
  return (Vec<float>)_mm512_permutexvar_ps((__m512i)i, (__m512)load(table));
}
inline Vec<double> look_up(const double* table, Mask<double> i) {
  return (Vec<double>)_mm512_permutex2var_pd((__m512d)load(table), (__m512i)i, (__m512d)load(table + 8));
}
#elif defined(__AVX2__)
template <>
inline constexpr int kTable<float> = 8;
inline Vec<float> look_up(const float* table, Mask<float> i) {
  return (Vec<float>)_mm256_permutevar8x32_ps((__m256)load(table), (__m256i)i);
}
#endif

// The polynomial with these coefficients, that of the highest power first, by its even and its odd powers: of two
// chains, which do not wait for each other, each is half as long.
template <class T, size_t n>
inline Vec<T> polynomial(const T (&coefficients)[n], Vec<T> x, Vec<T> x_squared) {
  static_assert(n > 2);
  Vec<T> chains[2] = {splat(coefficients[0]), splat(coefficients[1])};
#pragma GCC unroll 16
  for (size_t i = 2; i < n; ++i) chains[i % 2] = chains[i % 2] * x_squared + coefficients[i];
  return chains[n % 2] * x + chains[(n - 1) % 2];
}

// e^r - 1 for |r| <= ln(2)/2, by r and r^2 times the minimax polynomial of the rest: error 2^-57 of e^r, 2^-55 of e^r -
// 1
inline Vec<double> expm1_reduced(Vec<double> r) {
  constexpr double coefficients[] = {
      0x1.af7b44ba3eef6p-26, 0x1.28a5b62194e34p-22, 0x1.71dde7080325bp-19, 0x1.a019a3776b0e3p-16, 0x1.a01a01b734bbcp-13,
      0x1.6c16c1802a680p-10, 0x1.111111110e2dap-7,  0x1.5555555551e4bp-5,  0x1.555555555555dp-3,  0x1.0000000000005p-1};
  const Vec<double> q = r * r;
  return polynomial(coefficients, r, q) * q + r;
}
// by a Taylor polynomial whose first omitted term is below half an ulp
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
  const Vec<T> c = not_below<T>(x, Simd<T>::exp_low);
  const Vec<T> k = (c * static_cast<T>(1.44269504088896340736) + Simd<T>::round_magic) - Simd<T>::round_magic;
  return scale(exp_reduced<T>(((c - k * Simd<T>::ln2_high) - k * Simd<T>::ln2_low) + beyond), k);
}

// e^x - 1 for x <= 0: with x = k ln 2 + r, 2^k (e^r - 1) + (2^k - 1), which keeps every digit of a small x
template <class T>
inline Vec<T> expm1(Vec<T> x) {
  const Vec<T> c = not_below<T>(x, Simd<T>::exp_low);
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

// The parts of e^x = power (1 + r + tail), for results that are rounded to float32 but may cancel before.
struct Exponential {
  Vec<double> power, r, tail;
};
#if defined(__AVX512F__)
// With x = (16 k + j) ln 2 / 16 + r and |r| <= ln 2 / 32, the polynomial is short, and 2^(j/16) is looked up in a
// register.
inline Exponential exponential(Vec<double> x) {
  constexpr double coefficients[] = {1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5};
  const Vec<double> c = not_below<double>(x, Simd<double>::exp_low);
  const Vec<double> shifted = c * (16 * 1.44269504088896340736) + Simd<double>::round_magic;
  const Vec<double> k = shifted - Simd<double>::round_magic, r = c - k * (0.69314718055994530942 / 16), q = r * r;
  const Vec<double> root = look_up(kRoots, bitcast<Mask<double>>(shifted));  // by the low four bits of 16 k + j
  return {scale(root, k * (1.0 / 16)), r,
          polynomial(coefficients, r, q) * q};  // scalef takes the floor of the exponent
}
#else
// With x = k ln 2 + r. The minimax polynomial has an error of 2^-51 of e^r, and 2^k is made of the bits of the shifted
// number, so it must be a normal number.
constexpr double kLowToFloat = -708;  // below, e^x is 0 in float32
inline Exponential exponential(Vec<double> x) {
  constexpr double coefficients[] = {0x1.28b63114cc7f7p-22, 0x1.72e32bde0f1d6p-19, 0x1.a01991742b89cp-16,
                                     0x1.a019937df7be1p-13, 0x1.6c16c186b6a88p-10, 0x1.11111123b0418p-7,
                                     0x1.5555555550276p-5,  0x1.55555555514ddp-3,  0x1.0000000000008p-1};
  const Vec<double> c = not_below<double>(x, kLowToFloat);
  const Vec<double> shifted = c * 1.44269504088896340736 + Simd<double>::round_magic;
  const Vec<double> r = c - (shifted - Simd<double>::round_magic) * 0.69314718055994530942, q = r * r;
  const Mask<double> exponent = bitcast<Mask<double>>(shifted) + Simd<double>::exponent_bias;
  return {bitcast<Vec<double>>(exponent << Simd<double>::mantissa_bits), r, polynomial(coefficients, r, q) * q};
}
#endif

// e^x with relative error max(1, |x|) 2^-50, for x <= kHighToFloat
constexpr double kHighToFloat = 709;  // above, e^x is infinite in float32
inline Vec<double> exp_to_float(Vec<double> x) {
  const auto [power, r, tail] = exponential(x);
  const Vec<double> y = (r + tail) * power + power;
#if defined(__AVX512F__)
  return y;
#else
  return bitcast<Vec<double>>(bitcast<Mask<double>>(y) & ~(x < kLowToFloat));
#endif
}
// e^x - 1 with relative error 2^-45, for x <= kHighToFloat
inline Vec<double> expm1_to_float(Vec<double> x) {
  const auto [power, r, tail] = exponential(x);
  return (r + tail) * power + (power - 1.0);
}
// e^x - 1 - x with relative error 2^-40, for x <= kHighToFloat
inline Vec<double> exp_remainder_to_float(Vec<double> x) {
  const auto [power, r, tail] = exponential(x);
  return tail * power + ((r * power - x) + (power - 1.0));
}

// Whether a result is rounded to float32 but computed in double.
template <class S, class T>
constexpr bool kToFloat = sizeof(S) == sizeof(float) && sizeof(T) == sizeof(double);

// e^x and e^x - 1 for x <= 0, as accurately as a result stored as S requires
template <class S, class T>
inline Vec<T> exp_for(Vec<T> x) {
  if constexpr (kToFloat<S, T>) {
    return exp_to_float(x);
  } else {
    return exp<T>(x);
  }
}

template <class S, class T>
inline Vec<T> expm1_for(Vec<T> x) {
  if constexpr (kToFloat<S, T>) {
    return expm1_to_float(x);
  } else {
    return expm1<T>(x);
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

// y, or inf for an x of which the exponential overflows: explicitly, because a product that overflows could be fused
// with a later sum
template <class S, class T>
inline Vec<T> or_overflow(Vec<T> y, Vec<T> x) {
  constexpr T high = kToFloat<S, T> ? static_cast<T>(kHighToFloat) : Simd<T>::exp_high;
  return x > high ? splat(static_cast<T>(__builtin_inf())) : y;
}

// e^x for any x
template <class S, class T = S>
inline Vec<T> exp_signed(Vec<T> x) {
  return or_overflow<S, T>(exp_for<S, T>(x), x);
}

// How small a number must be for a series; beyond, a difference loses a digit or so, of which there are enough unless
// the result is double.
template <class S, class T>
constexpr T kNear = std::is_same_v<S, double> ? T{1} : static_cast<T>(0.5);

// e^d - 1 - d for |d| < kNear, by its Taylor series
template <class S, class T>
inline Vec<T> exp_remainder_series(Vec<T> d) {
  constexpr int terms = std::is_same_v<S, double> ? 17 : std::is_same_v<T, double> ? 9 : 7;
  struct Series {
    T coefficients[terms];
    constexpr Series() : coefficients{} {
      double factor = 0.5;
      for (int n = 0; n < terms; ++n, factor /= n + 2) coefficients[terms - 1 - n] = static_cast<T>(factor);
    }
  };
  constexpr Series series;
  const Vec<T> q = d * d;
  return polynomial(series.coefficients, d, q) * q;
}

// e^d - 1 - d and e^d - 1 for any d
template <class S, class T>
inline Vec<T> exp_remainder(Vec<T> d) {
  if constexpr (kToFloat<S, T>) {
    return or_overflow<S, T>(exp_remainder_to_float(d), d);
  } else {
    const Vec<T> e = exp_signed<S, T>(d), far = e == static_cast<T>(__builtin_inf()) ? e : e - T{1} - d;
    return abs<T>(d) < splat(kNear<S, T>) ? exp_remainder_series<S, T>(d) : far;
  }
}
template <class S, class T>
inline Vec<T> exp_minus_1(Vec<T> d) {
  if constexpr (kToFloat<S, T>) {
    return or_overflow<S, T>(expm1_to_float(d), d);
  } else {
    const Vec<T> far = exp_signed<S, T>(d) - T{1};
    return abs<T>(d) < splat(kNear<S, T>) ? d + exp_remainder_series<S, T>(d) : far;
  }
}

// A number as an unevaluated sum of two floats, the second about an ulp of the first, for use before a cancellation.
struct TwoFloats {
  Vec<float> high, low;
};

// a + b + beyond for |a| >= |b|, where beyond is about an ulp of b (Dekker's fast two-sum)
inline TwoFloats two_sum(Vec<float> a, Vec<float> b, Vec<float> beyond) {
  const Vec<float> high = a + b;
  return {high, (b - (high - a)) + beyond};
}
// a + b (Knuth's two-sum)
inline TwoFloats two_sum(Vec<float> a, Vec<float> b) {
  const Vec<float> high = a + b, back = high - a;
  return {high, (a - (high - back)) + (b - back)};
}
// a b
inline TwoFloats two_product(Vec<float> a, Vec<float> b) {
  const Vec<float> high = as_rounded<float>(a * b);
  return {high, fma(a, b, -high)};
}

// Whether arithmetic with pairs of floats is available: it needs fused multiply-add and table lookup in a register.
constexpr bool kPairs = kTable<float> > 0;

// If two numbers are as accurate as the functions in two floats below and their difference is less than this fraction
// of them, the difference has lost digits of a float.
constexpr float kClose = kTable<float> == 16 ? 0x1p-10f : 0x1p-9f;

// e^x for x <= exp_high, with an error of 2^-34, or 2^-32 for a table of 8. With n = kTable<float> roots of two,
// x = (n k + j) ln 2 / n + r, where n k + j is in the low bits of the shifted number.
#if defined(__AVX2__)
inline TwoFloats exp_two_floats(Vec<float> x) {
  constexpr int n = kTable<float>;
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
  constexpr float magic = Simd<float>::round_magic + 2 * n * Simd<float>::exponent_bias;
  const Vec<float> c = not_below<float>(x, Simd<float>::exp_low), ln2_low = splat(-Simd<float>::ln2_low / n);
  const Vec<float> shifted = c * (n * 1.44269504088896340736f) + magic;
  const Vec<float> steps = shifted - magic;
  const Vec<float> nearly_r = fma(steps, splat(-Simd<float>::ln2_high / n), c);
  const Vec<float> r = fma(steps, ln2_low, nearly_r), r_low = fma(steps, ln2_low, nearly_r - r);
  const Vec<float> curve = (r * r) * (r * (r * (r * (1.0f / 120) + 1.0f / 24) + 1.0f / 6) + 0.5f), p = r + curve;
  const Mask<float> bits = bitcast<Mask<float>>(shifted);
  const Vec<float> root = look_up(table.high, bits), root_low = look_up(table.low, bits), high = fma(root, p, root);
  const Vec<float> low = fma(root, r_low, fma(root, curve, fma(root, r, root - high))) + fma(root_low, p, root_low);
#if defined(__AVX512F__)
  const Vec<float> k = steps * (1.0f / n);  // scale takes its floor
  return {scale(high, k), scale(low, k)};
#else
  const Unsigned<float> k = (Unsigned<float>)bits / n, half = k / 2;
  return {scale_by_bits<float>(high, k, half), scale_by_bits<float>(low, k, half)};
#endif
}
#endif

// log((1+s)/(1-s)) = 2 s (1 + s^2/3 + s^4/5 + ...): the sum in parentheses minus its leading 1, divided by q = s^2
// by minimax polynomials: error 2^-58 and 2^-28 of the logarithm
inline Vec<double> atanh_tail(Vec<double> q) {
  constexpr double coefficients[] = {0x1.2df11e9438585p-4, 0x1.39bedfbc5e45ep-4, 0x1.746508b394b56p-4,
                                     0x1.c71c587389068p-4, 0x1.249249393810bp-3, 0x1.999999998b0a3p-3,
                                     0x1.555555555556ap-2};
  return polynomial(coefficients, q, q * q);
}
inline Vec<float> atanh_tail(Vec<float> q) { return (q * 0x1.318016p-3f + 0x1.99630ep-3f) * q + 0x1.555574p-2f; }

// log(1+f) for 1+f in [1/sqrt 2, sqrt 2]: with s = f/(2+f), 2s = f - s f
template <class T>
inline Vec<T> log1p_reduced(Vec<T> f) {
  const Vec<T> s = f / (f + static_cast<T>(2)), q = s * s;
  return f - s * (f - (static_cast<T>(2) * q) * atanh_tail(q));
}

// Of the bits of a number: the last one of the exponent, those of the mantissa, and those of 1.
template <class T>
constexpr auto kExponent = std::make_unsigned_t<typename Simd<T>::Bits>{1} << Simd<T>::mantissa_bits;
template <class T>
constexpr auto kMantissa = kExponent<T> - 1;
template <class T>
constexpr auto kOne = Simd<T>::exponent_bias * kExponent<T>;

// The exponent of the number with these bits. It becomes the last digits of a large number, because AVX2 does not
// convert integers of 64 bits.
template <class T>
inline Vec<T> exponent_of(Unsigned<T> bits) {
  constexpr T large = static_cast<T>(kExponent<T>);
  const Unsigned<T> digits = bits >> Simd<T>::mantissa_bits;
  return bitcast<Vec<T>>(digits | bitcast<Unsigned<T>>(splat(large))) -
         (large + static_cast<T>(Simd<T>::exponent_bias));
}

// x 2^raised, which is a normal number if x > 0.
template <class T>
struct Normal {
  Vec<T> y, raised{};
  explicit Normal(Vec<T> x) {
    const Mask<T> subnormal = x < Simd<T>::least_normal;
    // selected by a mask of the bits that differ, because that takes any port
    const Mask<T> one = bitcast<Mask<T>>(splat(T{1})), others = bitcast<Mask<T>>(splat(Simd<T>::raise)) ^ one;
    y = x * bitcast<Vec<T>>((subnormal & others) ^ one);
    raised = subnormal ? splat(static_cast<T>(Simd<T>::raised)) : raised;
  }
};

// The power of two that is nearest to a normal x: x 2^-k is in [1/sqrt 2, sqrt 2).
template <class T>
struct NearestPower {
  Vec<T> k;
  Unsigned<T> exponent;  // k, biased, in the place of an exponent
  explicit NearestPower(Vec<T> x) {
    const Unsigned<T> up = bitcast<Unsigned<T>>(x) + (kOne<T> - Simd<T>::root_half);
    k = exponent_of<T>(up);
    exponent = up & ~kMantissa<T>;
  }
};

// The logarithm by a table: with x = 2^k z and z in [1, 2), log(x) = k ln 2 + log(c) + log(1 + r), where c is in the
// middle of that one of n intervals which holds z, and 1 + r = z / c. Close to 1, c is 1 or 2, and the first two terms
// cancel exactly, so that the result keeps the digits of r. No division is needed.
template <class T>
struct LogTable {
  static constexpr int n = kTable<T> > 0 ? kTable<T> : 1, bits = n == 16 ? 4 : 3;
  alignas(64) T inverse[n], high[n], low[n];  // 1 / c, and log(c) in two parts

  constexpr LogTable() : inverse{}, high{}, low{} {
    // k ln2_high + high is exact: both are multiples of this
    constexpr long double quantum = std::is_same_v<T, double> ? 0x1p-32L : 0x1p-15L;
    for (int j = 0; j < n; ++j) {
      const long double middle = 1 + (j + 0.5L) / n;
      inverse[j] = j == 0 ? T{1} : j == n - 1 ? static_cast<T>(0.5) : static_cast<T>(1 / middle);
      const bool doubled = middle > 1.41421356237309504880L;  // log(c) is ln 2 + log(c / 2)
      const long double log_c = log_near_1(1 / (static_cast<long double>(inverse[j]) * (doubled ? 2 : 1)));
      const long double nearest = static_cast<long double>(static_cast<int64_t>(log_c / quantum)) * quantum;
      high[j] = static_cast<T>(nearest + static_cast<long double>(doubled ? Simd<T>::ln2_high : 0));
      low[j] = static_cast<T>(log_c - nearest + static_cast<long double>(doubled ? Simd<T>::ln2_low : 0));
    }
  }

 private:
  static constexpr long double log_near_1(long double x) {
    const long double s = (x - 1) / (x + 1);
    long double sum = 0, power = s;
    for (int i = 1; i < 60; i += 2, power *= s * s) sum += power / i;
    return 2 * sum;
  }
};

// k and z as above, for x > 0.
template <class T>
struct Binary {
  Vec<T> k, z;
};
#if defined(__AVX512F__)
inline Binary<float> binary(Vec<float> x) {
  return {(Vec<float>)_mm512_getexp_ps((__m512)x),
          (Vec<float>)_mm512_getmant_ps((__m512)x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero)};
}
inline Binary<double> binary(Vec<double> x) {
  return {(Vec<double>)_mm512_getexp_pd((__m512d)x),
          (Vec<double>)_mm512_getmant_pd((__m512d)x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero)};
}
#else
template <class V>
inline auto binary(V x) {
  using T = std::decay_t<decltype(x[0])>;
  const auto [y, raised] = Normal<T>(x);
  const Unsigned<T> bits = bitcast<Unsigned<T>>(y), mantissa = bits & kMantissa<T>;
  return Binary<T>{exponent_of<T>(bits) - raised, bitcast<Vec<T>>(mantissa | kOne<T>)};
}
#endif

// log(1 + r) = r + r^2 (-1/2 + r s) for -1/(2n) <= r < 1/n, where s is 1/3 - r/4 + r^2/5 - ... up to r^(most - 3)
template <class T, int most>
inline Vec<T> log1p_series(Vec<T> r, Vec<T> r_squared) {
  struct Series {
    T coefficients[most - 2];
    constexpr Series() : coefficients{} {
      for (int m = most; m >= 3; --m) coefficients[most - m] = static_cast<T>((m % 2 == 0 ? -1.0 : 1.0) / m);
    }
  };
  constexpr Series series;
  return polynomial(series.coefficients, r, r_squared);
}

// The logarithm of x, or its limits where there is none: -inf at 0, NaN below, x for inf and NaN.
template <class T>
inline Vec<T> or_limit(Vec<T> log_x, Vec<T> x) {
#if defined(__AVX512F__)
  constexpr int limits = 0x03530422;  // a digit for NaN (twice), 0, 1, -inf, inf, negative, positive; 0: log_x
  if constexpr (std::is_same_v<T, float>)
    return (Vec<T>)_mm512_fixupimm_ps((__m512)log_x, (__m512)x, _mm512_set1_epi32(limits), 0);
  else
    return (Vec<T>)_mm512_fixupimm_pd((__m512d)log_x, (__m512d)x, _mm512_set1_epi64(limits), 0);
#else
  // by sums and masks, because a processor selects with fewer of its ports
  const Vec<T> inf = splat(static_cast<T>(__builtin_inf())), zero{};
  const Vec<T> y = log_x + ((x == inf ? inf : zero) - (x == zero ? inf : zero));
  return bitcast<Vec<T>>(bitcast<Mask<T>>(y) | ~(x >= zero));
#endif
}

// log(x) by the table. With a rest, log(x + rest) for a rest of less than an ulp of x.
template <class T>
inline Vec<T> log_by_table(Vec<T> x, const Vec<T>* rest = nullptr) {
  static constexpr LogTable<T> table;
  constexpr int most = std::is_same_v<T, double> ? 13 : 6;  // r^most / (most + 1) is below 2^-55 or 2^-26
  const auto [k, z] = binary(x);
  const Mask<T> j = bitcast<Mask<T>>(z) >> (Simd<T>::mantissa_bits - table.bits);
  const Vec<T> inverse = look_up(table.inverse, j);
  Vec<T> r = fma(z, inverse, splat(T{-1}));
  if (rest != nullptr) r = fma(scale(*rest, -k), inverse, r);
  const Vec<T> base = fma(k, splat(Simd<T>::ln2_high), look_up(table.high, j)), q = r * r;
  const Vec<T> low = fma(k, splat(Simd<T>::ln2_low), look_up(table.low, j));
  const Vec<T> tail = q * (r * log1p_series<T, most>(r, q) - static_cast<T>(0.5));
  return or_limit<T>(base + (r + (tail + low)), x);
}

#if defined(__AVX2__)
// log(x) with an error of 2^-31, or 2^-30 for a table of 8; with a rest, log(x + rest) for a rest of less than an ulp.
inline TwoFloats log_two_floats(Vec<float> x, const Vec<float>* rest = nullptr) {
  static constexpr LogTable<float> table;
  constexpr int most = table.n == 16 ? 8 : 10;  // r^most / (most + 1) is below 2^-33
  const auto [k, z] = binary(x);
  const Mask<float> j = bitcast<Mask<float>>(z) >> (Simd<float>::mantissa_bits - table.bits);
  const Vec<float> inverse = look_up(table.inverse, j);
  const TwoFloats quotient = two_product(z, inverse);
  const Vec<float> r = quotient.high - 1.0f;
  Vec<float> r_low = quotient.low;
  if (rest != nullptr) r_low = fma(scale(*rest, -k), inverse, r_low);
  const Vec<float> base = fma(k, splat(Simd<float>::ln2_high), look_up(table.high, j));
  const Vec<float> low = fma(k, splat(Simd<float>::ln2_low), look_up(table.low, j));
  const TwoFloats q = two_product(r, r);
  const Vec<float> cubic = (r * q.high) * log1p_series<float, most>(r, q.high);
  r_low -= r_low * (r - q.high);  // its factor 1 / (1 + r)
  const TwoFloats sum = two_sum(base, r, cubic + (r_low + low));
  const TwoFloats all = two_sum(sum.high, -0.5f * q.high, fma(splat(-0.5f), q.low, sum.low));
  const TwoFloats normalized = two_sum(all.high, all.low, Vec<float>{});
  return {or_limit<float>(normalized.high, x), normalized.low};
}
#endif

// log(1+u) for u in [0, 1], as softplus needs: by the table, or for 1+f = 1+u, halved if it is beyond sqrt 2
template <class T>
inline Vec<T> log1p_unit(Vec<T> u) {
  const Vec<T> one = splat(T{1});
  if constexpr (kVectorBytes == 64 && std::is_same_v<T, float>) {
    static constexpr LogTable<T> table;
    const Vec<T> x = not_above<T>(u + one, 0x1.fffffep0f), rest = u - (x - one);  // 1 <= x < 2
    const Mask<T> j = bitcast<Mask<T>>(x) >> (Simd<T>::mantissa_bits - table.bits);
    const Vec<T> inverse = look_up(table.inverse, j), r = fma(rest, inverse, fma(x, inverse, -one)), q = r * r;
    const Vec<T> tail = q * (r * log1p_series<T, 6>(r, q) - static_cast<T>(0.5));
    return look_up(table.high, j) + (r + (tail + look_up(table.low, j)));
  } else {
    const Mask<T> beyond = u > static_cast<T>(0.41421356237309504880);
    const Vec<T> log_f = log1p_reduced<T>(beyond ? (u - one) * static_cast<T>(0.5) : u);
    return log_f + (beyond ? splat(static_cast<T>(0.69314718055994530942)) : Vec<T>{});
  }
}

// k ln 2 + log(1+f)
template <class T>
inline Vec<T> log_of_parts(Vec<T> k, Vec<T> f) {
  return k * Simd<T>::ln2_high + (log1p_reduced<T>(f) + k * Simd<T>::ln2_low);
}

// log(1+u) for u >= -1; without limits, only for -1 < u <= 0. Where there is no table, it is k ln 2 + log(1+f): 2^k is
// the power of two nearest to 1+u, and f = (1+u)/2^k - 1 = u 2^-k + (2^-k - 1), which is u itself for k = 0, so that a
// small u keeps all its digits.
template <class T, bool limits = true>
inline Vec<T> log1p(Vec<T> u) {
  const Vec<T> one = splat(T{1}), x = u + one;
  if constexpr (kVectorBytes == 64) {
    const Vec<T> back = x - one, rest = (u - back) + (one - (x - back));
    return log_by_table<T>(x, &rest);
  } else {
    const NearestPower<T> power(x);
    if constexpr (limits) {  // 2^-k may be subnormal, 2^(2-k) is not; f of an infinite u is replaced by any number
      const Vec<T> down = T{0.25} * bitcast<Vec<T>>(2 * kOne<T> + 2 * kExponent<T> - power.exponent);
      const Vec<T> f = not_above<T>(u * down + (down - one), T{1});
      return or_limit<T>(log_of_parts<T>(power.k, f), x);
    } else {
      const Vec<T> down = bitcast<Vec<T>>(2 * kOne<T> - power.exponent);
      return log_of_parts<T>(power.k, u * down + (down - one));
    }
  }
}

// log(x); without limits, only for finite x >= 0, and for 0 it is a number below all other logarithms. Where there is
// no table, it is k ln 2 + log(1+f), where 2^k is the power of two nearest to x and 1+f = x 2^-k.
template <class T, bool limits = true>
inline Vec<T> log(Vec<T> x) {
  if constexpr (kVectorBytes == 64) {
    return log_by_table<T>(x);
  } else {
    const auto [y, raised] = Normal<T>(x);
    const NearestPower<T> power(y);
    const Unsigned<T> bits = bitcast<Unsigned<T>>(y) - (power.exponent - kOne<T>);
    const Vec<T> log_x = log_of_parts<T>(power.k - raised, bitcast<Vec<T>>(bits) - static_cast<T>(1));
    return limits ? or_limit<T>(log_x, x) : log_x;
  }
}

// x^y for x >= 0, as accurately as a result stored as S requires: by std::pow lane by lane if T is not wider than S
template <class S, class T>
inline Vec<T> pow(Vec<T> x, T y) {
  if constexpr (sizeof(S) < sizeof(T)) {
    const Vec<T> zero{}, exponent = splat(y), at_zero = exponent > zero ? zero : splat(static_cast<T>(__builtin_inf()));
    const Vec<T> power = x == zero ? at_zero : exp_signed<S, T>(exponent * log<T>(x));
    return exponent == zero ? splat(T{1}) : power;
  } else {
    for (int lane = 0; lane < kLanes<T>; ++lane) x[lane] = std::pow(x[lane], y);
    return x;
  }
}

}  // namespace mg
