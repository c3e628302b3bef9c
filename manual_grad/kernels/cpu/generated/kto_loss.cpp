// Written by python -m manual_grad.generate from losses/pointwise/kto_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct KTOLoss : Widened {
  static constexpr int kInputs = 4, kOptions = 3;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> t = in[2];
    const Vec<T> k = in[3];
    const T beta = option[0];
    const T desirable = option[1];
    const T undesirable = option[2];
    const Mask<T> v1 = t > T{0};
    const auto v2 = select(v1, splat(desirable), splat(undesirable));
    const auto v3 = x - x0;
    const auto v4 = v3 - k;
    const auto v5 = beta * v4;
    const auto v6 = -v5;
    const auto v7 = select(v1, v6, v5);
    const Mask<T> v8 = v7 < T{0};
    const auto v9 = abs<T>(v7);
    const auto v10 = -v9;
    const auto v11 = Functions<S, T>::exp_not_above_1(v10);
    const auto v12 = select(v8, v11, splat(T{1}));
    const auto v13 = T{1} + v11;
    const auto v14 = v12 / v13;
    const auto v15 = v2 * v14;
    const T v16 = -desirable;
    const auto v17 = select(v1, splat(v16), splat(undesirable));
    const auto v18 = beta * v17;
    const auto v19 = abs<T>(v5);
    const auto v20 = -v19;
    const auto v21 = Functions<S, T>::exp_not_above_1(v20);
    const auto v22 = T{1} + v21;
    const auto v23 = v22 * v22;
    const auto v24 = v21 / v23;
    const auto v25 = v18 * v24;
    const auto v26 = -v25;
    const auto v27 = splat(T{0});
    return {v15, {v25, v26, v27, v26}};
  }
};

const Op op = pointwise_op<KTOLoss>("kto_loss");

}  // namespace
}  // namespace mg
