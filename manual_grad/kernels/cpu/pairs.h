// Formulas in pairs of floats: a functor's eval<S, InPairs> computes with sums of two floats, which carry about 48
// bits, or the 33 of an exponential or logarithm. Sixteen of them fit where eight doubles would.
//
// The inputs are exact floats, so that much of the arithmetic needs no second part: the types below tell them apart. A
// sum whose digits cancelled marks its lanes, which are then computed in double.
#pragma once

#include "simd.h"

namespace mg {

// The compute type: a number in a formula.
struct InPairs {
  float high = 0, low = 0;
  constexpr InPairs() = default;
  constexpr explicit InPairs(double x)
      : high(static_cast<float>(x)), low(static_cast<float>(x - static_cast<double>(high))) {}
};

struct Single {
  Vec<float> v;
};
template <>
struct Simd<InPairs> {
  using V = Single;
  using M = Mask<float>;
};

// The sum. If the first part is not finite, the second means nothing.
inline Vec<float> join(Vec<float> high, Vec<float> low) {
  const Vec<float> sum = high + low;
  return sum == sum ? sum : high;
}

// high + low. `rounded` is the same as one float, to an ulp or two. It is computed on the way because it costs less: if
// a number is not part of another sum, the compiler drops the second part.
struct Pair {
  Vec<float> high, low, rounded;
  Mask<float> cancels{};

  Pair(TwoFloats x) : high(x.high), low(x.low), rounded(join(x.high, x.low)) {}  // NOLINT: implicit
  Pair(TwoFloats x, Vec<float> r, Mask<float> c) : high(x.high), low(x.low), rounded(r), cancels(c) {}
  Pair(Single x) : high(x.v), low{}, rounded(x.v) {}  // NOLINT: implicit, since every float is a pair
  Pair(InPairs x) : high(splat(x.high)), low(splat(x.low)), rounded(high) {}  // NOLINT
};

inline Pair splat(InPairs x) { return x; }

inline Single operator-(Single a) { return {-a.v}; }
inline Pair operator-(const Pair& a) { return {{-a.high, -a.low}, -a.rounded, a.cancels}; }

inline Pair operator+(Single a, Single b) { return {two_sum(a.v, b.v), a.v + b.v, Mask<float>{}}; }
inline Pair operator+(const Pair& a, Single b) {
  const TwoFloats s = two_sum(a.high, b.v);
  const Mask<float> cancels = abs<float>(s.high) < kClose * abs<float>(b.v);
  return {{s.high, s.low + a.low}, join(s.high, a.low), a.cancels | cancels};
}
inline Pair operator+(const Pair& a, const Pair& b) {
  const TwoFloats s = two_sum(a.high, b.high);
  const Vec<float> low = a.low + b.low;
  const Mask<float> cancels = abs<float>(s.high) < kClose * abs<float>(b.high);
  return {{s.high, s.low + low}, join(s.high, low), a.cancels | b.cancels | cancels};
}
inline Pair operator+(Single a, const Pair& b) { return b + a; }
inline Pair operator-(Single a, Single b) { return a + -b; }
inline Pair operator-(const Pair& a, Single b) { return a + -b; }
inline Pair operator-(const Pair& a, const Pair& b) { return a + -b; }
inline Pair operator-(Single a, const Pair& b) { return -b + a; }

inline Pair operator*(Single a, Single b) { return {two_product(a.v, b.v), a.v * b.v, Mask<float>{}}; }
inline Pair operator*(const Pair& a, Single b) {
  const TwoFloats p = two_product(a.high, b.v);
  return {{p.high, fma(a.low, b.v, p.low)}, a.rounded * b.v, a.cancels};
}
inline Pair operator*(const Pair& a, const Pair& b) {
  const TwoFloats p = two_product(a.high, b.high);
  const Vec<float> low = fma(a.low, b.high, fma(a.high, b.low, p.low));
  return {{p.high, low}, a.rounded * b.rounded, a.cancels | b.cancels};
}
inline Pair operator*(Single a, const Pair& b) { return b * a; }

inline Pair operator/(const Pair& a, const Pair& b) {  // the remainder of the quotient gives its second part
  const Vec<float> per_b = 1.0f / b.high, q = as_rounded<float>(a.high * per_b);
  const Vec<float> low = (fma(-q, b.high, a.high) + (a.low - q * b.low)) * per_b;
  return {{q, low}, join(q, low), a.cancels | b.cancels};
}
inline Pair operator/(Single a, Single b) {
  const Vec<float> per_b = 1.0f / b.v, q = as_rounded<float>(a.v * per_b), low = fma(-q, b.v, a.v) * per_b;
  return {{q, low}, join(q, low), Mask<float>{}};
}

// With a number of the formula.
#define MG_WITH_NUMBER(op)                                                    \
  inline Pair operator op(Single a, InPairs b) { return Pair(a) op Pair(b); } \
  inline Pair operator op(InPairs a, Single b) { return Pair(a) op Pair(b); } \
  inline Pair operator op(const Pair& a, InPairs b) { return a op Pair(b); }  \
  inline Pair operator op(InPairs a, const Pair& b) { return Pair(a) op b; }
MG_WITH_NUMBER(+)
MG_WITH_NUMBER(-)
MG_WITH_NUMBER(*)
MG_WITH_NUMBER(/)
#undef MG_WITH_NUMBER

// Comparisons look at the first part.
#define MG_COMPARE(op)                                                                 \
  inline Mask<float> operator op(Single a, Single b) { return a.v op b.v; }            \
  inline Mask<float> operator op(Single a, InPairs b) { return a.v op splat(b.high); } \
  inline Mask<float> operator op(const Pair& a, InPairs b) { return a.high op splat(b.high); }
MG_COMPARE(==)
MG_COMPARE(!=)
MG_COMPARE(<) MG_COMPARE(<=) MG_COMPARE(>) MG_COMPARE(>=)
#undef MG_COMPARE

    inline Single select(Mask<float> lanes, Single a, Single b) {
  return {lanes ? a.v : b.v};
}
inline Pair select(Mask<float> lanes, const Pair& a, const Pair& b) {
  const TwoFloats parts{lanes ? a.high : b.high, lanes ? a.low : b.low};
  return {parts, lanes ? a.rounded : b.rounded, a.cancels | b.cancels};
}
inline Pair select(Mask<float> lanes, Single a, const Pair& b) { return select(lanes, Pair(a), b); }
inline Pair select(Mask<float> lanes, const Pair& a, Single b) { return select(lanes, a, Pair(b)); }

}  // namespace mg
