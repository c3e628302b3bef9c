// Written by python -m manual_grad.generate from losses/pointwise/apo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct APOLoss_down : Widened {
  static constexpr int kInputs = 4, kOptions = 2;
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
    const auto v5 = -v4;
    const auto v6 = Functions<S, T>::exp_not_above_1(v5);
    const auto v7 = select(v3, v6, splat(T{1}));
    const auto v8 = T{1} + v6;
    const auto v9 = v7 / v8;
    const auto v10 = y - y0;
    const auto v11 = beta * v10;
    const auto v12 = v11 - v2;
    const Mask<T> v13 = v12 < T{0};
    const auto v14 = abs<T>(v12);
    const auto v15 = -v14;
    const auto v16 = Functions<S, T>::exp_not_above_1(v15);
    const auto v17 = select(v13, v16, splat(T{1}));
    const auto v18 = T{1} + v16;
    const auto v19 = v17 / v18;
    const auto v20 = v9 + v19;
    const Mask<T> v21 = v11 < T{0};
    const auto v22 = v2 - v11;
    const auto v23 = v2 + v22;
    const Mask<T> v24 = v23 < T{0};
    const Mask<T> v25 = v21 == v24;
    const auto v26 = abs<T>(v22);
    const Mask<T> v27 = v4 < v26;
    const auto v28 = -v26;
    const auto v29 = Functions<S, T>::exp_not_above_1(v28);
    const auto v30 = select(v27, v6, v29);
    const auto v31 = abs<T>(v11);
    const auto v32 = -v31;
    const auto v33 = expm1_for<S, T>(v32);
    const auto v34 = v30 * v33;
    const auto v35 = abs<T>(v23);
    const auto v36 = -v35;
    const auto v37 = expm1_for<S, T>(v36);
    const auto v38 = v34 * v37;
    const auto v39 = v8 * v8;
    const auto v40 = T{1} + v29;
    const auto v41 = v39 * v40;
    const auto v42 = v41 * v40;
    const auto v43 = v38 / v42;
    const auto v44 = -v43;
    const auto v45 = select(v25, v44, v43);
    const auto v46 = beta * v45;
    const auto v47 = v40 * v40;
    const auto v48 = v29 / v47;
    const auto v49 = beta * v48;
    const auto v50 = -v46;
    const auto v51 = -v49;
    return {v20, {v46, v49, v50, v51}};
  }
};

struct APOLoss_no_down : Widened {
  static constexpr int kInputs = 4, kOptions = 2;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> x0 = in[2];
    const Vec<T> y0 = in[3];
    const T beta = option[0];
    const auto v1 = x - x0;
    const auto v2 = beta * v1;
    const auto v3 = -v2;
    const Mask<T> v4 = v3 < T{0};
    const auto v5 = abs<T>(v3);
    const auto v6 = -v5;
    const auto v7 = Functions<S, T>::exp_not_above_1(v6);
    const auto v8 = select(v4, v7, splat(T{1}));
    const auto v9 = T{1} + v7;
    const auto v10 = v8 / v9;
    const auto v11 = y - y0;
    const auto v12 = beta * v11;
    const Mask<T> v13 = v12 < T{0};
    const auto v14 = abs<T>(v12);
    const auto v15 = -v14;
    const auto v16 = Functions<S, T>::exp_not_above_1(v15);
    const auto v17 = select(v13, v16, splat(T{1}));
    const auto v18 = T{1} + v16;
    const auto v19 = v17 / v18;
    const auto v20 = v10 + v19;
    const T v21 = -beta;
    const auto v22 = abs<T>(v2);
    const auto v23 = -v22;
    const auto v24 = Functions<S, T>::exp_not_above_1(v23);
    const auto v25 = T{1} + v24;
    const auto v26 = v25 * v25;
    const auto v27 = v24 / v26;
    const auto v28 = v21 * v27;
    const auto v29 = v18 * v18;
    const auto v30 = v16 / v29;
    const auto v31 = beta * v30;
    const auto v32 = -v28;
    const auto v33 = -v31;
    return {v20, {v28, v31, v32, v33}};
  }
};

struct APOLoss : Variants {
  static constexpr int kInputs = 4, kOptions = 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool down = call.option[1] != 0;
    if (down) body(APOLoss_down{});
    if (!down) body(APOLoss_no_down{});
  }
};

const Op op = pointwise_op<APOLoss>("apo_loss");

}  // namespace
}  // namespace mg
