// The terms of a divergence and their slopes, as in engine/divergence.py; equation numbers refer to
// losses/rowwise/distillation_loss.py. Notation: p student, q teacher, u = log(p / q), h the slope of a term by p.
#pragma once

#include <cmath>
#include <utility>

#include "layout.h"

namespace mg {

// In the order of NAMES in engine/divergence.py.
enum DivergenceKind { kForwardKL, kReverseKL, kJSD, kTotalVariation };

// Calls body with the kind as a constant.
template <class Body>
void with_divergence(int64_t kind, const Body& body) {
  switch (kind) {
    case kForwardKL: return body(std::integral_constant<int, kForwardKL>{});
    case kReverseKL: return body(std::integral_constant<int, kReverseKL>{});
    case kJSD: return body(std::integral_constant<int, kJSD>{});
    default: return body(std::integral_constant<int, kTotalVariation>{});
  }
}

// p - q for p = q e^u
template <class S, class T>
inline Vec<T> difference(Vec<T> p, Vec<T> q, Vec<T> u) {
  return abs<T>(u) < splat(kNear<S, T>) ? q * (u + exp_remainder_series<S, T>(u)) : p - q;
}

// c x, but 0 if c is 0, whatever x
template <class T>
inline Vec<T> times(Vec<T> c, Vec<T> x) {
  const Vec<T> zero{};
  return c == zero ? zero : c * x;
}

template <class S, class T, int kind>
class Divergence {
 public:
  explicit Divergence(double beta)
      : share_(static_cast<T>(beta)), rest_(static_cast<T>(1 - beta)) {}  // of teacher and student in the mixture

  // With the roles of student and teacher exchanged.
  using Exchanged = Divergence<S, T, kind == kForwardKL ? kReverseKL : kind == kReverseKL ? kForwardKL : kind>;

  // Whether the slope by the logits is p - q, for which no mean is needed.
  static constexpr bool kPlain = kind == kForwardKL;

  // (3)
  Vec<T> term(Vec<T> p, Vec<T> q, Vec<T> u) const {
    const Vec<T> zero{};
    const Mask<T> near = abs<T>(u) < splat(kNear<S, T>);
    if constexpr (kind == kForwardKL) {
      return near ? q * exp_remainder_series<S, T>(u) : p - q - times<T>(q, u);
    } else if constexpr (kind == kReverseKL) {
      return near ? p * exp_remainder_series<S, T>(-u) : q - p + times<T>(p, u);
    } else if constexpr (kind == kJSD) {
      const auto [w, v] = mixture(u);
      const Vec<T> close = share_ * q * exp_remainder_series<S, T>(w) + rest_ * p * exp_remainder_series<S, T>(v);
      return near ? close : zero - share_ * times<T>(q, w) - rest_ * times<T>(p, v);
    } else {
      return static_cast<T>(0.5) * abs<T>(difference<S, T>(p, q, u));
    }
  }

  // The log-ratio of a leader, and gamma of h_ahead in engine/divergence.py.
  struct Leader {
    Vec<T> u, gamma;
  };
  Leader leader(Vec<T> u) const {
    if constexpr (kind == kJSD)
      return {u, splat(static_cast<T>(std::log(static_cast<double>(share_)))) - mixture(u).second};
    return {u, u};
  }

  // How far h is above that of the leader. It is 0 for the leader itself, also if the compiler has fused the product in
  // one h with the difference.
  Vec<T> h_ahead(Vec<T> u, const Leader& leader) const {
    const Vec<T> zero{};
    if constexpr (kind == kJSD) {
      const Vec<T> exponent = leader.gamma - (u < leader.u ? u : leader.u), limit = splat(T{40}), apart = u - leader.u;
      const Mask<T> large = exponent > limit, below = u < leader.u;
      const Vec<T> change = expm1<T>(below ? apart : -apart);
      const Vec<T> near = log1p<T>(exp_signed<S, T>(large ? limit : exponent) * (below ? -change : change));
      return u == leader.u ? zero : -rest_ * (large & below ? exponent : near);
    } else {
      return u == leader.u ? zero : h(u) - h(leader.u);
    }
  }

 private:
  // (6), of the reverse KL divergence and the total variation
  Vec<T> h(Vec<T> u) const {
    static_assert(!kPlain);
    if constexpr (kind == kReverseKL) {
      return u;
    } else {
      const Vec<T> zero{}, half = splat(static_cast<T>(0.5));
      return u > zero ? half : u < zero ? -half : u * half;  // keeps NaN
    }
  }

  // w and v of (4), by the exponential that does not overflow
  std::pair<Vec<T>, Vec<T>> mixture(Vec<T> u) const {
    const Mask<T> above = u > Vec<T>{};
    const Vec<T> smaller = log1p<T>((above ? splat(share_) : splat(rest_)) * expm1<T>(above ? -u : u));
    return {above ? smaller + u : smaller, above ? smaller : smaller - u};
  }

  const T share_, rest_;
};

}  // namespace mg
