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
    const Vec<T> v1 = x - x0;
    const Vec<T> v2 = beta * v1;
    const Mask<T> v3 = v2 < T{0};
    const Vec<T> v4 = abs<T>(v2);
    const Vec<T> v5 = -v4;
    const Vec<T> v6 = exp_for<S, T>(v5);
    const Vec<T> v7 = v3 ? v6 : splat(T{1});
    const Vec<T> v8 = T{1} + v6;
    const Vec<T> v9 = v7 / v8;
    const Vec<T> v10 = y - y0;
    const Vec<T> v11 = beta * v10;
    const Vec<T> v12 = v11 - v2;
    const Mask<T> v13 = v12 < T{0};
    const Vec<T> v14 = abs<T>(v12);
    const Vec<T> v15 = -v14;
    const Vec<T> v16 = exp_for<S, T>(v15);
    const Vec<T> v17 = v13 ? v16 : splat(T{1});
    const Vec<T> v18 = T{1} + v16;
    const Vec<T> v19 = v17 / v18;
    const Vec<T> v20 = v9 + v19;
    const Mask<T> v21 = v11 < T{0};
    const Vec<T> v22 = v2 - v11;
    const Vec<T> v23 = v2 + v22;
    const Mask<T> v24 = v23 < T{0};
    const Mask<T> v25 = v21 == v24;
    const Vec<T> v26 = abs<T>(v22);
    const Mask<T> v27 = v4 < v26;
    const Vec<T> v28 = -v26;
    const Vec<T> v29 = exp_for<S, T>(v28);
    const Vec<T> v30 = v27 ? v6 : v29;
    const Vec<T> v31 = abs<T>(v11);
    const Vec<T> v32 = -v31;
    const Vec<T> v33 = expm1<T>(v32);
    const Vec<T> v34 = v30 * v33;
    const Vec<T> v35 = abs<T>(v23);
    const Vec<T> v36 = -v35;
    const Vec<T> v37 = expm1<T>(v36);
    const Vec<T> v38 = v34 * v37;
    const Vec<T> v39 = v8 * v8;
    const Vec<T> v40 = T{1} + v29;
    const Vec<T> v41 = v39 * v40;
    const Vec<T> v42 = v41 * v40;
    const Vec<T> v43 = v38 / v42;
    const Vec<T> v44 = -v43;
    const Vec<T> v45 = v25 ? v44 : v43;
    const Vec<T> v46 = beta * v45;
    const Vec<T> v47 = v40 * v40;
    const Vec<T> v48 = v29 / v47;
    const Vec<T> v49 = beta * v48;
    const Vec<T> v50 = -v46;
    const Vec<T> v51 = -v49;
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
    const Vec<T> v1 = x - x0;
    const Vec<T> v2 = beta * v1;
    const Vec<T> v3 = -v2;
    const Mask<T> v4 = v3 < T{0};
    const Vec<T> v5 = abs<T>(v3);
    const Vec<T> v6 = -v5;
    const Vec<T> v7 = exp_for<S, T>(v6);
    const Vec<T> v8 = v4 ? v7 : splat(T{1});
    const Vec<T> v9 = T{1} + v7;
    const Vec<T> v10 = v8 / v9;
    const Vec<T> v11 = y - y0;
    const Vec<T> v12 = beta * v11;
    const Mask<T> v13 = v12 < T{0};
    const Vec<T> v14 = abs<T>(v12);
    const Vec<T> v15 = -v14;
    const Vec<T> v16 = exp_for<S, T>(v15);
    const Vec<T> v17 = v13 ? v16 : splat(T{1});
    const Vec<T> v18 = T{1} + v16;
    const Vec<T> v19 = v17 / v18;
    const Vec<T> v20 = v10 + v19;
    const T v21 = -beta;
    const Vec<T> v22 = abs<T>(v2);
    const Vec<T> v23 = -v22;
    const Vec<T> v24 = exp_for<S, T>(v23);
    const Vec<T> v25 = T{1} + v24;
    const Vec<T> v26 = v25 * v25;
    const Vec<T> v27 = v24 / v26;
    const Vec<T> v28 = v21 * v27;
    const Vec<T> v29 = v18 * v18;
    const Vec<T> v30 = v16 / v29;
    const Vec<T> v31 = beta * v30;
    const Vec<T> v32 = -v28;
    const Vec<T> v33 = -v31;
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
