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
    const auto v1 = -t;
    const auto v2 = x1 - x2;
    const auto v3 = v1 * v2;
    const auto v4 = v3 + margin;
    const auto v5 = Functions<S, T>::clamp_min(v4, T{0});
    const auto v6 = t * v2;
    const auto v7 = margin - v6;
    const Mask<T> v8 = v7 >= T{0};
    const Mask<T> v9 = v7 < T{0};
    const auto v10 = T{0} * v1;
    const auto v11 = select(v9, splat(T{0}), v10);
    const auto v12 = select(v8, v1, v11);
    const auto v13 = T{0} * t;
    const auto v14 = select(v9, splat(T{0}), v13);
    const auto v15 = select(v8, t, v14);
    const auto v16 = -v2;
    const auto v17 = T{0} * v16;
    const auto v18 = select(v9, splat(T{0}), v17);
    const auto v19 = select(v8, v16, v18);
    return {v5, {v12, v15, v19}};
  }
};

const Op op = pointwise_op<MarginRankingLoss>("margin_ranking_loss");

}  // namespace
}  // namespace mg
