// Written by python -m manual_grad.generate from losses/pointwise/sampled_kl.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SampledKL_j_1_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> w = in[2];
    const Mask<T> v1 = w == T{0};
    const auto v2 = x0 - x;
    const auto v3 = -v2;
    const auto v4 = w * v3;
    const auto v5 = select(v1, splat(T{0}), v4);
    const auto v6 = w * T{-1};
    const auto v7 = select(v1, splat(T{0}), v6);
    const auto v8 = -v7;
    const auto v9 = splat(T{0});
    return {v5, {v8, v7, v9}};
  }
};

struct SampledKL_j_1_no_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const auto v1 = x0 - x;
    const auto v2 = -v1;
    const auto v3 = splat(T{1});
    const auto v4 = splat(T{-1});
    return {v2, {v3, v4, Vec<T>{}}};
  }
};

struct SampledKL_j_2_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> w = in[2];
    const Mask<T> v1 = w == T{0};
    const auto v2 = x0 - x;
    const auto v3 = T{0.5} * v2;
    const auto v4 = v3 * v2;
    const auto v5 = w * v4;
    const auto v6 = select(v1, splat(T{0}), v5);
    const auto v7 = w * v2;
    const auto v8 = select(v1, splat(T{0}), v7);
    const auto v9 = -v8;
    const auto v10 = splat(T{0});
    return {v6, {v9, v8, v10}};
  }
};

struct SampledKL_j_2_no_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const auto v1 = x0 - x;
    const auto v2 = T{0.5} * v1;
    const auto v3 = v2 * v1;
    const auto v4 = -v1;
    return {v3, {v4, v1, Vec<T>{}}};
  }
};

struct SampledKL_other_j_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> w = in[2];
    const Mask<T> v1 = w == T{0};
    const auto v2 = x0 - x;
    const auto v3 = abs<T>(v2);
    const Mask<T> v4 = v3 < T{1};
    const auto v5 = T{0.5} * v2;
    const auto v6 = v5 * v2;
    const auto v7 = select(v4, v2, splat(T{0}));
    const auto v8 = v7 * T{1};
    const auto v9 = v8 * static_cast<T>(0.05555555555555555);
    const auto v10 = T{1} + v9;
    const auto v11 = v7 * v10;
    const auto v12 = v11 * static_cast<T>(0.058823529411764705);
    const auto v13 = T{1} + v12;
    const auto v14 = v7 * v13;
    const auto v15 = v14 * T{0.0625};
    const auto v16 = T{1} + v15;
    const auto v17 = v7 * v16;
    const auto v18 = v17 * static_cast<T>(0.06666666666666667);
    const auto v19 = T{1} + v18;
    const auto v20 = v7 * v19;
    const auto v21 = v20 * static_cast<T>(0.07142857142857142);
    const auto v22 = T{1} + v21;
    const auto v23 = v7 * v22;
    const auto v24 = v23 * static_cast<T>(0.07692307692307693);
    const auto v25 = T{1} + v24;
    const auto v26 = v7 * v25;
    const auto v27 = v26 * static_cast<T>(0.08333333333333333);
    const auto v28 = T{1} + v27;
    const auto v29 = v7 * v28;
    const auto v30 = v29 * static_cast<T>(0.09090909090909091);
    const auto v31 = T{1} + v30;
    const auto v32 = v7 * v31;
    const auto v33 = v32 * static_cast<T>(0.1);
    const auto v34 = T{1} + v33;
    const auto v35 = v7 * v34;
    const auto v36 = v35 * static_cast<T>(0.1111111111111111);
    const auto v37 = T{1} + v36;
    const auto v38 = v7 * v37;
    const auto v39 = v38 * T{0.125};
    const auto v40 = T{1} + v39;
    const auto v41 = v7 * v40;
    const auto v42 = v41 * static_cast<T>(0.14285714285714285);
    const auto v43 = T{1} + v42;
    const auto v44 = v7 * v43;
    const auto v45 = v44 * static_cast<T>(0.16666666666666666);
    const auto v46 = T{1} + v45;
    const auto v47 = v7 * v46;
    const auto v48 = v47 * static_cast<T>(0.2);
    const auto v49 = T{1} + v48;
    const auto v50 = v7 * v49;
    const auto v51 = v50 * T{0.25};
    const auto v52 = T{1} + v51;
    const auto v53 = v7 * v52;
    const auto v54 = v53 * static_cast<T>(0.3333333333333333);
    const auto v55 = T{1} + v54;
    const auto v56 = v6 * v55;
    const auto v57 = Functions<S, T>::exp(v2);
    const Mask<T> v58 = v57 == static_cast<T>(__builtin_inf());
    const auto v59 = v57 - T{1};
    const auto v60 = v59 - v2;
    const auto v61 = select(v58, v57, v60);
    const auto v62 = select(v4, v56, v61);
    const auto v63 = w * v62;
    const auto v64 = select(v1, splat(T{0}), v63);
    const auto v65 = v2 + v62;
    const auto v66 = select(v4, v65, v59);
    const auto v67 = w * v66;
    const auto v68 = select(v1, splat(T{0}), v67);
    const auto v69 = -v68;
    const auto v70 = splat(T{0});
    return {v64, {v69, v68, v70}};
  }
};

struct SampledKL_other_j_no_w : Widened {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const auto v1 = x0 - x;
    const auto v2 = abs<T>(v1);
    const Mask<T> v3 = v2 < T{1};
    const auto v4 = T{0.5} * v1;
    const auto v5 = v4 * v1;
    const auto v6 = select(v3, v1, splat(T{0}));
    const auto v7 = v6 * T{1};
    const auto v8 = v7 * static_cast<T>(0.05555555555555555);
    const auto v9 = T{1} + v8;
    const auto v10 = v6 * v9;
    const auto v11 = v10 * static_cast<T>(0.058823529411764705);
    const auto v12 = T{1} + v11;
    const auto v13 = v6 * v12;
    const auto v14 = v13 * T{0.0625};
    const auto v15 = T{1} + v14;
    const auto v16 = v6 * v15;
    const auto v17 = v16 * static_cast<T>(0.06666666666666667);
    const auto v18 = T{1} + v17;
    const auto v19 = v6 * v18;
    const auto v20 = v19 * static_cast<T>(0.07142857142857142);
    const auto v21 = T{1} + v20;
    const auto v22 = v6 * v21;
    const auto v23 = v22 * static_cast<T>(0.07692307692307693);
    const auto v24 = T{1} + v23;
    const auto v25 = v6 * v24;
    const auto v26 = v25 * static_cast<T>(0.08333333333333333);
    const auto v27 = T{1} + v26;
    const auto v28 = v6 * v27;
    const auto v29 = v28 * static_cast<T>(0.09090909090909091);
    const auto v30 = T{1} + v29;
    const auto v31 = v6 * v30;
    const auto v32 = v31 * static_cast<T>(0.1);
    const auto v33 = T{1} + v32;
    const auto v34 = v6 * v33;
    const auto v35 = v34 * static_cast<T>(0.1111111111111111);
    const auto v36 = T{1} + v35;
    const auto v37 = v6 * v36;
    const auto v38 = v37 * T{0.125};
    const auto v39 = T{1} + v38;
    const auto v40 = v6 * v39;
    const auto v41 = v40 * static_cast<T>(0.14285714285714285);
    const auto v42 = T{1} + v41;
    const auto v43 = v6 * v42;
    const auto v44 = v43 * static_cast<T>(0.16666666666666666);
    const auto v45 = T{1} + v44;
    const auto v46 = v6 * v45;
    const auto v47 = v46 * static_cast<T>(0.2);
    const auto v48 = T{1} + v47;
    const auto v49 = v6 * v48;
    const auto v50 = v49 * T{0.25};
    const auto v51 = T{1} + v50;
    const auto v52 = v6 * v51;
    const auto v53 = v52 * static_cast<T>(0.3333333333333333);
    const auto v54 = T{1} + v53;
    const auto v55 = v5 * v54;
    const auto v56 = Functions<S, T>::exp(v1);
    const Mask<T> v57 = v56 == static_cast<T>(__builtin_inf());
    const auto v58 = v56 - T{1};
    const auto v59 = v58 - v1;
    const auto v60 = select(v57, v56, v59);
    const auto v61 = select(v3, v55, v60);
    const auto v62 = v1 + v61;
    const auto v63 = select(v3, v62, v58);
    const auto v64 = -v63;
    return {v61, {v64, v63, Vec<T>{}}};
  }
};

struct SampledKL : Variants {
  static constexpr int kInputs = 3, kOptions = 1;
  static constexpr unsigned kOptional = 1u << 2;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const double j = call.option[0];
    const bool w = call.in[2].exists();
    if (j == 1.0 && w) body(SampledKL_j_1_w{});
    if (j == 1.0 && !w) body(SampledKL_j_1_no_w{});
    if (j == 2.0 && w) body(SampledKL_j_2_w{});
    if (j == 2.0 && !w) body(SampledKL_j_2_no_w{});
    if (j != 1.0 && j != 2.0 && w) body(SampledKL_other_j_w{});
    if (j != 1.0 && j != 2.0 && !w) body(SampledKL_other_j_no_w{});
  }
};

const Op op = pointwise_op<SampledKL>("sampled_kl");

}  // namespace
}  // namespace mg
