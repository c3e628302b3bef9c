// Written by python -m manual_grad.generate from losses/pointwise/nca_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct NCALoss : Widened {
  static constexpr int kInputs = 4, kOptions = 1;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> x0 = in[2];
    const Vec<T> y0 = in[3];
    const T beta = option[0];
    const Vec<T> v1 = x - x0;
    const Vec<T> v2 = beta * v1;
    const Mask<T> v3 = v2 < T{0};
    const Vec<T> v4 = abs<T>(v2);
    const Vec<T> v5 = T{0.5} * v4;
    const Vec<T> v6 = v3 ? v4 : v5;
    const Vec<T> v7 = -v4;
    const Vec<T> v8 = exp_for<S, T>(v7);
    const Vec<T> v9 = log1p_unit<T>(v8);
    const Vec<T> v10 = T{1.5} * v9;
    const Vec<T> v11 = v6 + v10;
    const Vec<T> v12 = y - y0;
    const Vec<T> v13 = beta * v12;
    const Mask<T> v14 = v13 < T{0};
    const Vec<T> v15 = abs<T>(v13);
    const Vec<T> v16 = v14 ? splat(T{0}) : v15;
    const Vec<T> v17 = -v15;
    const Vec<T> v18 = exp_for<S, T>(v17);
    const Vec<T> v19 = log1p_unit<T>(v18);
    const Vec<T> v20 = v16 + v19;
    const Vec<T> v21 = T{0.5} * v20;
    const Vec<T> v22 = v11 + v21;
    const Vec<T> v23 = T{0.5} * v8;
    const Vec<T> v24 = v23 - T{1};
    const Vec<T> v25 = T{0.5} - v8;
    const Vec<T> v26 = v3 ? v24 : v25;
    const Vec<T> v27 = T{1} + v8;
    const Vec<T> v28 = v26 / v27;
    const Vec<T> v29 = beta * v28;
    const T v30 = T{0.5} * beta;
    const Vec<T> v31 = v14 ? v18 : splat(T{1});
    const Vec<T> v32 = T{1} + v18;
    const Vec<T> v33 = v31 / v32;
    const Vec<T> v34 = v30 * v33;
    const Vec<T> v35 = -v29;
    const Vec<T> v36 = -v34;
    return {v22, {v29, v34, v35, v36}};
  }
};

const Op op = pointwise_op<NCALoss>("nca_loss");

}  // namespace
}  // namespace mg
