// Written by python -m manual_grad.generate from losses/pointwise/margin_ranking_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct MarginRankingLoss : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x1 = in[0];
    const Vec<T> x2 = in[1];
    const Vec<T> t = in[2];
    const T margin = option[0];
    const Vec<T> v1 = -t;
    const Vec<T> v2 = x1 - x2;
    const Vec<T> v3 = v1 * v2;
    const Vec<T> v4 = v3 + margin;
    const Vec<T> v5 = at_least<T>(v4, T{0});
    const Vec<T> v6 = t * v2;
    const Vec<T> v7 = margin - v6;
    const Mask<T> v8 = v7 >= T{0};
    const Mask<T> v9 = v7 < T{0};
    const Vec<T> v10 = T{0} * v1;
    const Vec<T> v11 = v9 ? splat(T{0}) : v10;
    const Vec<T> v12 = v8 ? v1 : v11;
    const Vec<T> v13 = T{0} * t;
    const Vec<T> v14 = v9 ? splat(T{0}) : v13;
    const Vec<T> v15 = v8 ? t : v14;
    const Vec<T> v16 = -v2;
    const Vec<T> v17 = T{0} * v16;
    const Vec<T> v18 = v9 ? splat(T{0}) : v17;
    const Vec<T> v19 = v8 ? v16 : v18;
    return {v5, {v12, v15, v19}};
  }
};

const Op op = pointwise_op<MarginRankingLoss>("margin_ranking_loss");

}  // namespace
}  // namespace mg
