// Written by python -m manual_grad.generate from losses/pointwise/grpo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct GRPOLoss_w : Widened {
  static constexpr int kInputs = 5, kOptions = 4;
  static constexpr unsigned kOptional = 1u << 4;
  template <class S, class T>
  static Element<T, 5> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const Vec<T> y = in[3];
    const Vec<T> w = in[4];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
    const T beta = option[3];
    const Mask<T> v1 = w == T{0};
    const auto v2 = -A;
    const Mask<T> v3 = A < T{0};
    const auto v4 = x - x0;
    const auto v5 = Functions<S, T>::exp(v4);
    const auto v6 = Functions<S, T>::clamp_min(v5, low);
    const auto v7 = Functions<S, T>::clamp_max(v6, delta);
    const auto v8 = Functions<S, T>::clamp_max(v5, high);
    const auto v9 = select(v3, v7, v8);
    const auto v10 = v2 * v9;
    const auto v11 = y - x;
    const auto v12 = abs<T>(v11);
    const Mask<T> v13 = v12 < T{1};
    const auto v14 = T{0.5} * v11;
    const auto v15 = v14 * v11;
    const auto v16 = select(v13, v11, splat(T{0}));
    const auto v17 = v16 * T{1};
    const auto v18 = v17 * static_cast<T>(0.05555555555555555);
    const auto v19 = T{1} + v18;
    const auto v20 = v16 * v19;
    const auto v21 = v20 * static_cast<T>(0.058823529411764705);
    const auto v22 = T{1} + v21;
    const auto v23 = v16 * v22;
    const auto v24 = v23 * T{0.0625};
    const auto v25 = T{1} + v24;
    const auto v26 = v16 * v25;
    const auto v27 = v26 * static_cast<T>(0.06666666666666667);
    const auto v28 = T{1} + v27;
    const auto v29 = v16 * v28;
    const auto v30 = v29 * static_cast<T>(0.07142857142857142);
    const auto v31 = T{1} + v30;
    const auto v32 = v16 * v31;
    const auto v33 = v32 * static_cast<T>(0.07692307692307693);
    const auto v34 = T{1} + v33;
    const auto v35 = v16 * v34;
    const auto v36 = v35 * static_cast<T>(0.08333333333333333);
    const auto v37 = T{1} + v36;
    const auto v38 = v16 * v37;
    const auto v39 = v38 * static_cast<T>(0.09090909090909091);
    const auto v40 = T{1} + v39;
    const auto v41 = v16 * v40;
    const auto v42 = v41 * static_cast<T>(0.1);
    const auto v43 = T{1} + v42;
    const auto v44 = v16 * v43;
    const auto v45 = v44 * static_cast<T>(0.1111111111111111);
    const auto v46 = T{1} + v45;
    const auto v47 = v16 * v46;
    const auto v48 = v47 * T{0.125};
    const auto v49 = T{1} + v48;
    const auto v50 = v16 * v49;
    const auto v51 = v50 * static_cast<T>(0.14285714285714285);
    const auto v52 = T{1} + v51;
    const auto v53 = v16 * v52;
    const auto v54 = v53 * static_cast<T>(0.16666666666666666);
    const auto v55 = T{1} + v54;
    const auto v56 = v16 * v55;
    const auto v57 = v56 * static_cast<T>(0.2);
    const auto v58 = T{1} + v57;
    const auto v59 = v16 * v58;
    const auto v60 = v59 * T{0.25};
    const auto v61 = T{1} + v60;
    const auto v62 = v16 * v61;
    const auto v63 = v62 * static_cast<T>(0.3333333333333333);
    const auto v64 = T{1} + v63;
    const auto v65 = v15 * v64;
    const auto v66 = Functions<S, T>::exp(v11);
    const Mask<T> v67 = v66 == static_cast<T>(__builtin_inf());
    const auto v68 = v66 - T{1};
    const auto v69 = v68 - v11;
    const auto v70 = select(v67, v66, v69);
    const auto v71 = select(v13, v65, v70);
    const auto v72 = beta * v71;
    const auto v73 = v10 + v72;
    const auto v74 = w * v73;
    const auto v75 = select(v1, splat(T{0}), v74);
    const Mask<T> v76 = low > v5;
    const Mask<T> v77 = delta < v5;
    const Mask<T> v78 = v76 | v77;
    const Mask<T> v79 = v3 & v78;
    const Mask<T> v80 = ~v3;
    const Mask<T> v81 = high < v5;
    const Mask<T> v82 = v80 & v81;
    const Mask<T> v83 = v79 | v82;
    const auto v84 = v2 * v5;
    const auto v85 = select(v83, splat(T{0}), v84);
    const auto v86 = v11 + v71;
    const auto v87 = select(v13, v86, v68);
    const auto v88 = beta * v87;
    const auto v89 = v85 - v88;
    const auto v90 = w * v89;
    const auto v91 = select(v1, splat(T{0}), v90);
    const auto v92 = -v85;
    const auto v93 = w * v92;
    const auto v94 = select(v1, splat(T{0}), v93);
    const auto v95 = splat(T{0});
    const auto v96 = w * v88;
    const auto v97 = select(v1, splat(T{0}), v96);
    return {v75, {v91, v94, v95, v97, v95}};
  }
};

struct GRPOLoss_no_w : Widened {
  static constexpr int kInputs = 5, kOptions = 4;
  static constexpr unsigned kOptional = 1u << 4;
  template <class S, class T>
  static Element<T, 5> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const Vec<T> y = in[3];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
    const T beta = option[3];
    const auto v1 = -A;
    const Mask<T> v2 = A < T{0};
    const auto v3 = x - x0;
    const auto v4 = Functions<S, T>::exp(v3);
    const auto v5 = Functions<S, T>::clamp_min(v4, low);
    const auto v6 = Functions<S, T>::clamp_max(v5, delta);
    const auto v7 = Functions<S, T>::clamp_max(v4, high);
    const auto v8 = select(v2, v6, v7);
    const auto v9 = v1 * v8;
    const auto v10 = y - x;
    const auto v11 = abs<T>(v10);
    const Mask<T> v12 = v11 < T{1};
    const auto v13 = T{0.5} * v10;
    const auto v14 = v13 * v10;
    const auto v15 = select(v12, v10, splat(T{0}));
    const auto v16 = v15 * T{1};
    const auto v17 = v16 * static_cast<T>(0.05555555555555555);
    const auto v18 = T{1} + v17;
    const auto v19 = v15 * v18;
    const auto v20 = v19 * static_cast<T>(0.058823529411764705);
    const auto v21 = T{1} + v20;
    const auto v22 = v15 * v21;
    const auto v23 = v22 * T{0.0625};
    const auto v24 = T{1} + v23;
    const auto v25 = v15 * v24;
    const auto v26 = v25 * static_cast<T>(0.06666666666666667);
    const auto v27 = T{1} + v26;
    const auto v28 = v15 * v27;
    const auto v29 = v28 * static_cast<T>(0.07142857142857142);
    const auto v30 = T{1} + v29;
    const auto v31 = v15 * v30;
    const auto v32 = v31 * static_cast<T>(0.07692307692307693);
    const auto v33 = T{1} + v32;
    const auto v34 = v15 * v33;
    const auto v35 = v34 * static_cast<T>(0.08333333333333333);
    const auto v36 = T{1} + v35;
    const auto v37 = v15 * v36;
    const auto v38 = v37 * static_cast<T>(0.09090909090909091);
    const auto v39 = T{1} + v38;
    const auto v40 = v15 * v39;
    const auto v41 = v40 * static_cast<T>(0.1);
    const auto v42 = T{1} + v41;
    const auto v43 = v15 * v42;
    const auto v44 = v43 * static_cast<T>(0.1111111111111111);
    const auto v45 = T{1} + v44;
    const auto v46 = v15 * v45;
    const auto v47 = v46 * T{0.125};
    const auto v48 = T{1} + v47;
    const auto v49 = v15 * v48;
    const auto v50 = v49 * static_cast<T>(0.14285714285714285);
    const auto v51 = T{1} + v50;
    const auto v52 = v15 * v51;
    const auto v53 = v52 * static_cast<T>(0.16666666666666666);
    const auto v54 = T{1} + v53;
    const auto v55 = v15 * v54;
    const auto v56 = v55 * static_cast<T>(0.2);
    const auto v57 = T{1} + v56;
    const auto v58 = v15 * v57;
    const auto v59 = v58 * T{0.25};
    const auto v60 = T{1} + v59;
    const auto v61 = v15 * v60;
    const auto v62 = v61 * static_cast<T>(0.3333333333333333);
    const auto v63 = T{1} + v62;
    const auto v64 = v14 * v63;
    const auto v65 = Functions<S, T>::exp(v10);
    const Mask<T> v66 = v65 == static_cast<T>(__builtin_inf());
    const auto v67 = v65 - T{1};
    const auto v68 = v67 - v10;
    const auto v69 = select(v66, v65, v68);
    const auto v70 = select(v12, v64, v69);
    const auto v71 = beta * v70;
    const auto v72 = v9 + v71;
    const Mask<T> v73 = low > v4;
    const Mask<T> v74 = delta < v4;
    const Mask<T> v75 = v73 | v74;
    const Mask<T> v76 = v2 & v75;
    const Mask<T> v77 = ~v2;
    const Mask<T> v78 = high < v4;
    const Mask<T> v79 = v77 & v78;
    const Mask<T> v80 = v76 | v79;
    const auto v81 = v1 * v4;
    const auto v82 = select(v80, splat(T{0}), v81);
    const auto v83 = v10 + v70;
    const auto v84 = select(v12, v83, v67);
    const auto v85 = beta * v84;
    const auto v86 = v82 - v85;
    const auto v87 = -v82;
    const auto v88 = splat(T{0});
    return {v72, {v86, v87, v88, v85, Vec<T>{}}};
  }
};

struct GRPOLoss : Variants {
  static constexpr int kInputs = 5, kOptions = 4;
  static constexpr unsigned kOptional = 1u << 4;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool w = call.in[4].exists();
    if (w) body(GRPOLoss_w{});
    if (!w) body(GRPOLoss_no_w{});
  }
};

const Op op = pointwise_op<GRPOLoss>("grpo_loss");

}  // namespace
}  // namespace mg
