// Logits made of scores, and how the rows of scores are read: equation numbers refer to
// losses/rowwise/selected_log_prob.py. Notation: x scores, z logits, d how far a class is behind the leader.
#pragma once

#include <cmath>
#include <type_traits>
#include <utility>

#include "rowwise.h"

namespace mg {

// How logits are made of scores, (1).
struct Logits {
  double temperature, softcap, scale;  // softcap 0: none

  bool capped() const { return softcap != 0; }
  double factor() const { return scale / temperature; }
  // d for a score; -inf rules out a class, also with a softcap
  double gap(double x, double most) const {
    if (!capped()) return (most - x) * factor();
    if (x == -INFINITY) return most == -INFINITY ? NAN : INFINITY;
    return (std::tanh(most * scale / softcap) - std::tanh(x * scale / softcap)) * (softcap / temperature);
  }
  double of(double x) const {
    return capped() && x != -INFINITY ? std::tanh(x * scale / softcap) * (softcap / temperature) : x * factor();
  }
  double stretch(double x) const {  // (8)
    if (!capped()) return factor();
    const double t = std::exp(-2 * std::abs(x * scale / softcap));
    return factor() * 4 * t / ((1 + t) * (1 + t));
  }
};

// The same for vectors, for scores of type S.
template <class S, class T, bool capped>
class LogitsOf {
 public:
  explicit LogitsOf(const Logits& logits)
      : scaled_(logits.factor() != 1),
        scale_(static_cast<T>(logits.factor())),
        scale_low_(static_cast<T>(logits.factor() - static_cast<double>(scale_))),
        per_cap_(static_cast<T>(capped ? logits.scale / logits.softcap : 0)),
        height_(static_cast<T>(logits.softcap / logits.temperature)) {}

  // What is compared with that of the leader: the score, or its tanh.
  Vec<T> level(Vec<T> x) const { return at(x).level; }
  Vec<T> gap(Vec<T> level, Vec<T> most) const { return (most - level) * (capped ? height_ : scale_); }

  // The level of a score, and with a softcap 1 - tanh(u)^2 of (8).
  struct Level {
    Vec<T> level, stretch;
  };
  Level at(Vec<T> x) const {
    const Vec<T> one = splat(T{1});
    if constexpr (!capped) return {x, one};
    const Vec<T> low = splat(static_cast<T>(-INFINITY)), u = x * per_cap_, size = abs<T>(u), v = size * T{-2},
                 e = exp_for<S, T>(v), above = one / (one + e);
    Vec<T> t;
    if constexpr (std::is_same_v<S, float> && std::is_same_v<T, double>) {
      // the rounding error of e counts in 1 - e for a small u only, where two terms of the series are enough
      t = size < 1e-4 ? size - size * size * size * (1.0 / 3) : (one - e) * above;
    } else {
      t = -expm1<T>(v) * above;
    }
    return {x == low ? low : (u < Vec<T>{} ? -t : t), T{4} * e * (above * above)};
  }

  // d, and the error of its rounding
  struct Gap {
    Vec<T> d, lost;
  };
  Gap exact_gap(Vec<T> x, Vec<T> most) const {
    const Vec<T> d = most - x, back = d - most, zero{};
    const Vec<T> error = (most - (d - back)) - (x + back), lost = d < -Simd<T>::exp_low ? error : zero;  // -inf: none
    if (!scaled_) return {d, lost};
    const Vec<T> product = d * scale_, rest = fma(d, splat(scale_), -product) + (d * scale_low_ + lost * scale_);
    return {product, product < -Simd<T>::exp_low ? rest : zero};
  }

  // d and e^-d
  std::pair<Vec<T>, Vec<T>> gap_and_exp(Vec<T> x, Vec<T> most) const {
    if constexpr (!capped && std::is_same_v<S, float> && std::is_same_v<T, float>) {
      const Gap gap = exact_gap(x, most);
      return {gap.d, exp<T>(-gap.d, -gap.lost)};
    } else {
      const Vec<T> d = gap(level(x), most);
      return {d, exp_for<S, T>(-d)};
    }
  }

 private:
  const bool scaled_;
  const T scale_, scale_low_, per_cap_, height_;
};

// The scores of a pack, where they lie or staged: whole vectors, and a padded rest.
template <class T, class Source>
struct Scores {
  const Source* p;
  int64_t whole, classes;  // classes: of a row that is not staged
  alignas(64) T rest[kLanes<T>];

  template <class Body>
  void for_each(const Body& body) const {
    for (int64_t i = 0; i < whole; ++i) body(i, load_vector<T>(p + i * kLanes<T>));
    if (whole * kLanes<T> < classes) body(whole, load(rest));
  }
  int64_t vectors() const { return whole + (whole * kLanes<T> < classes); }
  Vec<T> operator[](int64_t i) const { return i < whole ? load_vector<T>(p + i * kLanes<T>) : load(rest); }
};

// Reads the scores of the rows [r, r + n): where they lie, if that is one dense row of type S, else staged.
template <class S, class T>
class Reader {
 public:
  template <class Pack>
  Reader(const Rows& rows, const Tensor& x, const Pack& pack, bool stage = false)
      : rows_(rows),
        x_(x),
        dense_(!stage && lies_dense<Pack>(rows, x)),
        staged_(dense_ ? 0 : pack.vectors * kLanes<T>) {}

  template <class Pack>
  static bool lies_dense(const Rows& rows, const Tensor& x) {
    return Pack::kRows == 1 && rows.class_stride(x) == 1 &&
           (element_bytes(x.dtype) != 2 || (std::is_same_v<S, bf16> && x.dtype == Dtype::bf16));
  }
  bool dense() const { return dense_; }

  // Calls body with them.
  template <class Pack, class Body>
  void read(int64_t r, int64_t n, const Pack& pack, const Body& body) const {
    if constexpr (Pack::kRows == 1)
      if (dense_) return body(lying(r));
    body(staged(r, n, pack));
  }
  Scores<T, S> lying(int64_t r) const {
    constexpr auto low = static_cast<T>(-INFINITY);
    Scores<T, S> scores{rows_.template row<S>(x_, r), rows_.classes / kLanes<T>, rows_.classes, {}};
    const int64_t done = scores.whole * kLanes<T>;
    for (int64_t j = 0; j < kLanes<T>; ++j)
      scores.rest[j] = done + j < scores.classes ? widen(scores.p[done + j]) : low;
    return scores;
  }
  template <class Pack>
  Scores<T, T> staged(int64_t r, int64_t n, const Pack& pack) const {
    load_pack(rows_, x_, r, n, pack, static_cast<T>(-INFINITY), staged_.get());
    return {staged_.get(), pack.vectors, 0, {}};
  }

 private:
  const Rows& rows_;
  const Tensor& x_;
  const bool dense_;
  const Scratch<T> staged_;
};

}  // namespace mg
