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
    const Vec<T> v2 = -A;
    const Mask<T> v3 = A < T{0};
    const Vec<T> v4 = x - x0;
    const Vec<T> v5 = exp_signed<S, T>(v4);
    const Vec<T> v6 = at_least<T>(v5, low);
    const Vec<T> v7 = at_most<T>(v6, delta);
    const Vec<T> v8 = at_most<T>(v5, high);
    const Vec<T> v9 = v3 ? v7 : v8;
    const Vec<T> v10 = v2 * v9;
    const Vec<T> v11 = y - x;
    const Vec<T> v12 = abs<T>(v11);
    const Mask<T> v13 = v12 < T{1};
    const Vec<T> v14 = T{0.5} * v11;
    const Vec<T> v15 = v14 * v11;
    const Vec<T> v16 = v13 ? v11 : splat(T{0});
    const Vec<T> v17 = v16 * T{1};
    const Vec<T> v18 = v17 * static_cast<T>(0.05555555555555555);
    const Vec<T> v19 = T{1} + v18;
    const Vec<T> v20 = v16 * v19;
    const Vec<T> v21 = v20 * static_cast<T>(0.058823529411764705);
    const Vec<T> v22 = T{1} + v21;
    const Vec<T> v23 = v16 * v22;
    const Vec<T> v24 = v23 * T{0.0625};
    const Vec<T> v25 = T{1} + v24;
    const Vec<T> v26 = v16 * v25;
    const Vec<T> v27 = v26 * static_cast<T>(0.06666666666666667);
    const Vec<T> v28 = T{1} + v27;
    const Vec<T> v29 = v16 * v28;
    const Vec<T> v30 = v29 * static_cast<T>(0.07142857142857142);
    const Vec<T> v31 = T{1} + v30;
    const Vec<T> v32 = v16 * v31;
    const Vec<T> v33 = v32 * static_cast<T>(0.07692307692307693);
    const Vec<T> v34 = T{1} + v33;
    const Vec<T> v35 = v16 * v34;
    const Vec<T> v36 = v35 * static_cast<T>(0.08333333333333333);
    const Vec<T> v37 = T{1} + v36;
    const Vec<T> v38 = v16 * v37;
    const Vec<T> v39 = v38 * static_cast<T>(0.09090909090909091);
    const Vec<T> v40 = T{1} + v39;
    const Vec<T> v41 = v16 * v40;
    const Vec<T> v42 = v41 * static_cast<T>(0.1);
    const Vec<T> v43 = T{1} + v42;
    const Vec<T> v44 = v16 * v43;
    const Vec<T> v45 = v44 * static_cast<T>(0.1111111111111111);
    const Vec<T> v46 = T{1} + v45;
    const Vec<T> v47 = v16 * v46;
    const Vec<T> v48 = v47 * T{0.125};
    const Vec<T> v49 = T{1} + v48;
    const Vec<T> v50 = v16 * v49;
    const Vec<T> v51 = v50 * static_cast<T>(0.14285714285714285);
    const Vec<T> v52 = T{1} + v51;
    const Vec<T> v53 = v16 * v52;
    const Vec<T> v54 = v53 * static_cast<T>(0.16666666666666666);
    const Vec<T> v55 = T{1} + v54;
    const Vec<T> v56 = v16 * v55;
    const Vec<T> v57 = v56 * static_cast<T>(0.2);
    const Vec<T> v58 = T{1} + v57;
    const Vec<T> v59 = v16 * v58;
    const Vec<T> v60 = v59 * T{0.25};
    const Vec<T> v61 = T{1} + v60;
    const Vec<T> v62 = v16 * v61;
    const Vec<T> v63 = v62 * static_cast<T>(0.3333333333333333);
    const Vec<T> v64 = T{1} + v63;
    const Vec<T> v65 = v15 * v64;
    const Vec<T> v66 = exp_signed<S, T>(v11);
    const Mask<T> v67 = v66 == static_cast<T>(__builtin_inf());
    const Vec<T> v68 = v66 - T{1};
    const Vec<T> v69 = v68 - v11;
    const Vec<T> v70 = v67 ? v66 : v69;
    const Vec<T> v71 = v13 ? v65 : v70;
    const Vec<T> v72 = beta * v71;
    const Vec<T> v73 = v10 + v72;
    const Vec<T> v74 = w * v73;
    const Vec<T> v75 = v1 ? splat(T{0}) : v74;
    const Mask<T> v76 = low > v5;
    const Mask<T> v77 = delta < v5;
    const Mask<T> v78 = v76 | v77;
    const Mask<T> v79 = v3 & v78;
    const Mask<T> v80 = ~v3;
    const Mask<T> v81 = high < v5;
    const Mask<T> v82 = v80 & v81;
    const Mask<T> v83 = v79 | v82;
    const Vec<T> v84 = v2 * v5;
    const Vec<T> v85 = v83 ? splat(T{0}) : v84;
    const Vec<T> v86 = v11 + v71;
    const Vec<T> v87 = v13 ? v86 : v68;
    const Vec<T> v88 = beta * v87;
    const Vec<T> v89 = v85 - v88;
    const Vec<T> v90 = w * v89;
    const Vec<T> v91 = v1 ? splat(T{0}) : v90;
    const Vec<T> v92 = -v85;
    const Vec<T> v93 = w * v92;
    const Vec<T> v94 = v1 ? splat(T{0}) : v93;
    const Vec<T> v95 = splat(T{0});
    const Vec<T> v96 = w * v88;
    const Vec<T> v97 = v1 ? splat(T{0}) : v96;
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
    const Vec<T> v1 = -A;
    const Mask<T> v2 = A < T{0};
    const Vec<T> v3 = x - x0;
    const Vec<T> v4 = exp_signed<S, T>(v3);
    const Vec<T> v5 = at_least<T>(v4, low);
    const Vec<T> v6 = at_most<T>(v5, delta);
    const Vec<T> v7 = at_most<T>(v4, high);
    const Vec<T> v8 = v2 ? v6 : v7;
    const Vec<T> v9 = v1 * v8;
    const Vec<T> v10 = y - x;
    const Vec<T> v11 = abs<T>(v10);
    const Mask<T> v12 = v11 < T{1};
    const Vec<T> v13 = T{0.5} * v10;
    const Vec<T> v14 = v13 * v10;
    const Vec<T> v15 = v12 ? v10 : splat(T{0});
    const Vec<T> v16 = v15 * T{1};
    const Vec<T> v17 = v16 * static_cast<T>(0.05555555555555555);
    const Vec<T> v18 = T{1} + v17;
    const Vec<T> v19 = v15 * v18;
    const Vec<T> v20 = v19 * static_cast<T>(0.058823529411764705);
    const Vec<T> v21 = T{1} + v20;
    const Vec<T> v22 = v15 * v21;
    const Vec<T> v23 = v22 * T{0.0625};
    const Vec<T> v24 = T{1} + v23;
    const Vec<T> v25 = v15 * v24;
    const Vec<T> v26 = v25 * static_cast<T>(0.06666666666666667);
    const Vec<T> v27 = T{1} + v26;
    const Vec<T> v28 = v15 * v27;
    const Vec<T> v29 = v28 * static_cast<T>(0.07142857142857142);
    const Vec<T> v30 = T{1} + v29;
    const Vec<T> v31 = v15 * v30;
    const Vec<T> v32 = v31 * static_cast<T>(0.07692307692307693);
    const Vec<T> v33 = T{1} + v32;
    const Vec<T> v34 = v15 * v33;
    const Vec<T> v35 = v34 * static_cast<T>(0.08333333333333333);
    const Vec<T> v36 = T{1} + v35;
    const Vec<T> v37 = v15 * v36;
    const Vec<T> v38 = v37 * static_cast<T>(0.09090909090909091);
    const Vec<T> v39 = T{1} + v38;
    const Vec<T> v40 = v15 * v39;
    const Vec<T> v41 = v40 * static_cast<T>(0.1);
    const Vec<T> v42 = T{1} + v41;
    const Vec<T> v43 = v15 * v42;
    const Vec<T> v44 = v43 * static_cast<T>(0.1111111111111111);
    const Vec<T> v45 = T{1} + v44;
    const Vec<T> v46 = v15 * v45;
    const Vec<T> v47 = v46 * T{0.125};
    const Vec<T> v48 = T{1} + v47;
    const Vec<T> v49 = v15 * v48;
    const Vec<T> v50 = v49 * static_cast<T>(0.14285714285714285);
    const Vec<T> v51 = T{1} + v50;
    const Vec<T> v52 = v15 * v51;
    const Vec<T> v53 = v52 * static_cast<T>(0.16666666666666666);
    const Vec<T> v54 = T{1} + v53;
    const Vec<T> v55 = v15 * v54;
    const Vec<T> v56 = v55 * static_cast<T>(0.2);
    const Vec<T> v57 = T{1} + v56;
    const Vec<T> v58 = v15 * v57;
    const Vec<T> v59 = v58 * T{0.25};
    const Vec<T> v60 = T{1} + v59;
    const Vec<T> v61 = v15 * v60;
    const Vec<T> v62 = v61 * static_cast<T>(0.3333333333333333);
    const Vec<T> v63 = T{1} + v62;
    const Vec<T> v64 = v14 * v63;
    const Vec<T> v65 = exp_signed<S, T>(v10);
    const Mask<T> v66 = v65 == static_cast<T>(__builtin_inf());
    const Vec<T> v67 = v65 - T{1};
    const Vec<T> v68 = v67 - v10;
    const Vec<T> v69 = v66 ? v65 : v68;
    const Vec<T> v70 = v12 ? v64 : v69;
    const Vec<T> v71 = beta * v70;
    const Vec<T> v72 = v9 + v71;
    const Mask<T> v73 = low > v4;
    const Mask<T> v74 = delta < v4;
    const Mask<T> v75 = v73 | v74;
    const Mask<T> v76 = v2 & v75;
    const Mask<T> v77 = ~v2;
    const Mask<T> v78 = high < v4;
    const Mask<T> v79 = v77 & v78;
    const Mask<T> v80 = v76 | v79;
    const Vec<T> v81 = v1 * v4;
    const Vec<T> v82 = v80 ? splat(T{0}) : v81;
    const Vec<T> v83 = v10 + v70;
    const Vec<T> v84 = v12 ? v83 : v67;
    const Vec<T> v85 = beta * v84;
    const Vec<T> v86 = v82 - v85;
    const Vec<T> v87 = -v82;
    const Vec<T> v88 = splat(T{0});
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
