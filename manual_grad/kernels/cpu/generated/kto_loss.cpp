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
    const Vec<T> v2 = v1 ? splat(desirable) : splat(undesirable);
    const Vec<T> v3 = x - x0;
    const Vec<T> v4 = v3 - k;
    const Vec<T> v5 = beta * v4;
    const Vec<T> v6 = -v5;
    const Vec<T> v7 = v1 ? v6 : v5;
    const Mask<T> v8 = v7 < T{0};
    const Vec<T> v9 = abs<T>(v7);
    const Vec<T> v10 = -v9;
    const Vec<T> v11 = exp_for<S, T>(v10);
    const Vec<T> v12 = v8 ? v11 : splat(T{1});
    const Vec<T> v13 = T{1} + v11;
    const Vec<T> v14 = v12 / v13;
    const Vec<T> v15 = v2 * v14;
    const T v16 = -desirable;
    const Vec<T> v17 = v1 ? splat(v16) : splat(undesirable);
    const Vec<T> v18 = beta * v17;
    const Vec<T> v19 = abs<T>(v5);
    const Vec<T> v20 = -v19;
    const Vec<T> v21 = exp_for<S, T>(v20);
    const Vec<T> v22 = T{1} + v21;
    const Vec<T> v23 = v22 * v22;
    const Vec<T> v24 = v21 / v23;
    const Vec<T> v25 = v18 * v24;
    const Vec<T> v26 = -v25;
    const Vec<T> v27 = splat(T{0});
    return {v15, {v25, v26, v27, v26}};
  }
};

const Op op = pointwise_op<KTOLoss>("kto_loss");

}  // namespace
}  // namespace mg
