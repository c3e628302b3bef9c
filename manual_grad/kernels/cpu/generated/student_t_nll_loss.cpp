// Written by python -m manual_grad.generate from losses/pointwise/student_t_nll_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct StudentTNLLLoss : Widened {
  static constexpr int kInputs = 3, kOptions = 3;
  using Error = std::domain_error;
  static constexpr std::array<const char*, 1> errors{
      "scale has negative entry/entries; it must not be negative",
  };
  template <class T>
  static void outside(const Vec<T>* in, Mask<T>* lanes) {
    const Vec<T> a = in[2];
    const Mask<T> v1 = a < T{0};
    lanes[0] |= v1;
  }
  template <class S, class T>
  static Element<T, 3> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const Vec<T> a = in[2];
    const T df = option[0];
    const T constant = option[1];
    const T eps = option[2];
    const Mask<T> v1 = a < T{0};
    const auto v2 = Functions<S, T>::clamp_min(a, eps);
    const auto v3 = select(v1, splat(static_cast<T>(__builtin_nan(""))), v2);
    const auto v4 = Functions<S, T>::log(v3);
    const auto v5 = x - t;
    const auto v6 = abs<T>(v5);
    const T v7 = std::sqrt(df);
    const auto v8 = v3 * v7;
    const Mask<T> v9 = v6 > v8;
    const T v10 = df + T{1};
    const auto v11 = v6 < v8 ? v6 : (v6 == v6 ? v8 : v6);
    const auto v12 = v6 > v8 ? v6 : (v6 == v6 ? v8 : v6);
    const auto v13 = v11 / v12;
    const auto v14 = v13 * v13;
    const auto v15 = log1p<T>(v14);
    const auto v16 = T{0.5} * v15;
    const auto v17 = Functions<S, T>::log(v13);
    const auto v18 = v16 - v17;
    const auto v19 = v10 * v18;
    const Mask<T> v20 = v14 < static_cast<T>(1e-17);
    const T v21 = T{0.5} / df;
    const T v22 = T{0.5} + v21;
    const auto v23 = v5 / v3;
    const auto v24 = v22 * v23;
    const auto v25 = v24 * v23;
    const T v26 = T{0.5} * df;
    const T v27 = v26 + T{0.5};
    const auto v28 = v27 * v15;
    const auto v29 = select(v20, v25, v28);
    const auto v30 = select(v9, v19, v29);
    const auto v31 = v4 + v30;
    const auto v32 = v31 + constant;
    const auto v33 = (v5 > Vec<T>{} ? splat(T{1}) : Vec<T>{}) - (v5 < Vec<T>{} ? splat(T{1}) : Vec<T>{});
    const auto v34 = select(v9, v33, v23);
    const auto v35 = v10 * v34;
    const T v36 = T{1} / df;
    const T v37 = T{1} + v36;
    const auto v38 = v37 * v34;
    const auto v39 = select(v9, v35, v38);
    const auto v40 = select(v9, v6, v3);
    const auto v41 = v39 / v40;
    const auto v42 = T{1} + v14;
    const auto v43 = v41 / v42;
    const auto v44 = -v43;
    const Mask<T> v45 = v40 == static_cast<T>(__builtin_inf());
    const auto v46 = select(v9, splat(T{-1}), splat(T{1}));
    const auto v47 = v3 - v6;
    const auto v48 = v47 / v40;
    const auto v49 = v3 + v6;
    const auto v50 = v49 / v40;
    const auto v51 = v48 * v50;
    const auto v52 = select(v45, v46, v51);
    const auto v53 = df * v52;
    const auto v54 = select(v9, v53, v52);
    const auto v55 = v54 / v42;
    const auto v56 = v55 / v3;
    return {v32, {v43, v44, v56}};
  }
};

const Op op = pointwise_op<StudentTNLLLoss>("student_t_nll_loss");

}  // namespace
}  // namespace mg
