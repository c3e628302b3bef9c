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

struct MarginRanking : Widened {  // losses/pointwise/margin_ranking_loss.py (1) (2); x and t the inputs, a = target, p = margin
  template <class S, class T>
  static Element<T> eval(Vec<T> x1, Vec<T> x2, Vec<T> t, T margin, T, T) {
    const Vec<T> zero{}, r = x1 - x2, s = margin - t * r;
    // where s is NaN, so is what is to blame for it: a scaler of gradients looks for it there
    const Vec<T> slope = s >= zero ? t : (s < zero ? zero : t * T{0});
    return {hinge<T>(s), -slope, slope, s >= zero ? -r : (s < zero ? zero : r * T{0})};
  }
};

struct HingeEmbedding : Widened {  // losses/pointwise/hinge_embedding_loss.py (1) (2); p = margin
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T margin, T, T) {
    const Vec<T> zero{}, one = splat(T{1}), open = x <= margin ? one : zero;
    const Vec<T> either = x < margin ? splat(margin) : (margin == margin ? x : splat(margin));
    const Vec<T> e = t == one ? x : (t == -one ? hinge<T>(margin - x) : either);
    return {e, t == one ? one : (t == -one ? -open : one - open), zero, zero};
  }
};

struct TripletMarginWithDistance : Widened {  // losses/pairwise/triplet_margin_with_distance_loss.py (1) (2); x y z are x t a
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> y, Vec<T> z, T margin, T swap, T) {
    const Vec<T> zero{}, one = splat(T{1}), half = splat(T{0.5}), swaps = splat(swap);
    const Vec<T> beta = swaps * (z < y ? one : (z == y ? half : zero)), alpha = one - beta;
    const Vec<T> lesser = z < y ? z : (z == z ? y : z), nearest = swaps == one ? lesser : y;  // a NaN is the lesser
    const Vec<T> s = margin + (x - nearest), open = s < zero ? zero : one;
    return {hinge<T>(s), open, -alpha * open, -beta * open};
  }
};

}  // namespace

const std::initializer_list<Op> margin_ops = {
    {"margin_ranking_loss", kPointwise, pointwise<MarginRanking>},
    {"hinge_embedding_loss", kPointwise, pointwise<HingeEmbedding>},
    {"triplet_margin_with_distance_loss", kPointwise, pointwise<TripletMarginWithDistance>},
};

}  // namespace mg
