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
    const Vec<T> v3 = margin - x;
    const Vec<T> v4 = at_least<T>(v3, T{0});
    const Vec<T> v5 = at_least<T>(x, margin);
    const Vec<T> v6 = v2 ? v4 : v5;
    const Vec<T> v7 = v1 ? x : v6;
    const Mask<T> v8 = margin >= x;
    const Vec<T> v9 = v8 ? splat(T{1}) : splat(T{0});
    const Vec<T> v10 = -v9;
    const Vec<T> v11 = T{1} - v9;
    const Vec<T> v12 = v2 ? v10 : v11;
    const Vec<T> v13 = v1 ? splat(T{1}) : v12;
    const Vec<T> v14 = splat(T{0});
    return {v7, {v13, v14}};
  }
};

const Op op = pointwise_op<HingeEmbeddingLoss>("hinge_embedding_loss");

}  // namespace
}  // namespace mg
