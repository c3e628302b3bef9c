// Pointwise losses with a margin: nothing to pay where it is kept.
#include "pointwise.h"

namespace mg {
namespace {

// max(0, s), and a NaN stays one
template <class T>
inline Vec<T> hinge(Vec<T> s) {
  const Vec<T> zero{};
  return s < zero ? zero : s;
}

struct MarginRanking : Widened {  // losses/margin_ranking_loss.py (1) (2); x and t the inputs, a = target, p = margin
  template <class S, class T>
  static Element<T> eval(Vec<T> x1, Vec<T> x2, Vec<T> t, T margin, T, T) {
    const Vec<T> zero{}, r = x1 - x2, s = margin - t * r;
    const Vec<T> slope = s >= zero ? t : zero;
    return {hinge<T>(s), -slope, slope, s >= zero ? -r : zero};
  }
};

}  // namespace

const std::initializer_list<Op> margin_ops = {
    {"margin_ranking_loss", kPointwise, pointwise<MarginRanking>},
};

}  // namespace mg
