// Written by python -m manual_grad.generate from losses/pointwise/simpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SimPOLoss : Widened {
  static constexpr int kInputs = 2, kOptions = 3;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const T beta = option[0];
    const T gamma = option[1];
    const T q = option[2];
    const Vec<T> v1 = x - y;
    const Vec<T> v2 = beta * v1;
    const Vec<T> v3 = v2 - gamma;
    const Mask<T> v4 = v3 < T{0};
    const T v5 = T{1} - q;
    const Vec<T> v6 = v4 ? splat(v5) : splat(q);
    const Mask<T> v7 = v6 == T{0};
    const Vec<T> v8 = abs<T>(v3);
    const Vec<T> v9 = abs<T>(v8);
    const Mask<T> v10 = v9 == static_cast<T>(__builtin_inf());
    const Mask<T> v11 = v7 & v10;
    const Vec<T> v12 = v6 * v8;
    const Vec<T> v13 = v11 ? splat(T{0}) : v12;
    const Vec<T> v14 = -v8;
    const Vec<T> v15 = exp_for<S, T>(v14);
    const Vec<T> v16 = log1p_unit<T>(v15);
    const Vec<T> v17 = v13 + v16;
    const Mask<T> v18 = v15 > T{0.5};
    const T v19 = T{2} * q;
    const T v20 = v19 - T{1};
    const Vec<T> v21 = expm1<T>(v14);
    const Vec<T> v22 = q * v21;
    const Vec<T> v23 = v20 + v22;
    const Vec<T> v24 = q * v15;
    const Vec<T> v25 = v24 - v5;
    const Vec<T> v26 = v18 ? v23 : v25;
    const Vec<T> v27 = v5 * v21;
    const Vec<T> v28 = v20 - v27;
    const Vec<T> v29 = v5 * v15;
    const Vec<T> v30 = q - v29;
    const Vec<T> v31 = v18 ? v28 : v30;
    const Vec<T> v32 = v4 ? v26 : v31;
    const Vec<T> v33 = T{1} + v15;
    const Vec<T> v34 = v32 / v33;
    const Vec<T> v35 = beta * v34;
    const Vec<T> v36 = -v35;
    return {v17, {v35, v36}};
  }
};

const Op op = pointwise_op<SimPOLoss>("simpo_loss");

}  // namespace
}  // namespace mg
