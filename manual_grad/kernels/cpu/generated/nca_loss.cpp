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
    const auto v1 = x - x0;
    const auto v2 = beta * v1;
    const Mask<T> v3 = v2 < T{0};
    const auto v4 = abs<T>(v2);
    const auto v5 = T{0.5} * v4;
    const auto v6 = select(v3, v4, v5);
    const auto v7 = -v4;
    const auto v8 = Functions<S, T>::exp_not_above_1(v7);
    const auto v9 = log1p_unit<T>(v8);
    const auto v10 = T{1.5} * v9;
    const auto v11 = v6 + v10;
    const auto v12 = y - y0;
    const auto v13 = beta * v12;
    const Mask<T> v14 = v13 < T{0};
    const auto v15 = abs<T>(v13);
    const auto v16 = select(v14, splat(T{0}), v15);
    const auto v17 = -v15;
    const auto v18 = Functions<S, T>::exp_not_above_1(v17);
    const auto v19 = log1p_unit<T>(v18);
    const auto v20 = v16 + v19;
    const auto v21 = T{0.5} * v20;
    const auto v22 = v11 + v21;
    const auto v23 = T{0.5} * v8;
    const auto v24 = v23 - T{1};
    const auto v25 = T{0.5} - v8;
    const auto v26 = select(v3, v24, v25);
    const auto v27 = T{1} + v8;
    const auto v28 = v26 / v27;
    const auto v29 = beta * v28;
    const T v30 = T{0.5} * beta;
    const auto v31 = select(v14, v18, splat(T{1}));
    const auto v32 = T{1} + v18;
    const auto v33 = v31 / v32;
    const auto v34 = v30 * v33;
    const auto v35 = -v29;
    const auto v36 = -v34;
    return {v22, {v29, v34, v35, v36}};
  }
};

const Op op = pointwise_op<NCALoss>("nca_loss");

}  // namespace
}  // namespace mg
