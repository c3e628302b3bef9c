// Written by python -m manual_grad.generate from losses/pointwise/hinge_embedding_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct HingeEmbeddingLoss : Widened {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T margin = option[0];
    const Mask<T> v1 = t == T{1};
    const Mask<T> v2 = t == T{-1};
    const auto v3 = margin - x;
    const auto v4 = Functions<S, T>::clamp_min(v3, T{0});
    const auto v5 = Functions<S, T>::clamp_min(x, margin);
    const auto v6 = select(v2, v4, v5);
    const auto v7 = select(v1, x, v6);
    const Mask<T> v8 = margin >= x;
    const auto v9 = select(v8, splat(T{1}), splat(T{0}));
    const auto v10 = -v9;
    const auto v11 = T{1} - v9;
    const auto v12 = select(v2, v10, v11);
    const auto v13 = select(v1, splat(T{1}), v12);
    const auto v14 = splat(T{0});
    return {v7, {v13, v14}};
  }
};

const Op op = pointwise_op<HingeEmbeddingLoss>("hinge_embedding_loss");

}  // namespace
}  // namespace mg
