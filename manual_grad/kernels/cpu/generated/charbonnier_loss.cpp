// Written by python -m manual_grad.generate from losses/pointwise/charbonnier_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct CharbonnierLoss : Widened {
  static constexpr int kInputs = 2, kOptions = 1;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const T eps = option[0];
    const auto v1 = x - t;
    const auto v2 = abs<T>(v1);
    const Mask<T> v3 = eps < v2;
    const auto v4 = select(v3, v2, splat(eps));
    const auto v5 = select(v3, splat(eps), v2);
    const Mask<T> v6 = v4 == T{0};
    const auto v7 = select(v6, splat(T{1}), v4);
    const auto v8 = v5 / v7;
    const auto v9 = v8 * v8;
    const auto v10 = T{1} + v9;
    const auto v11 = sqrt<T>(v10);
    const auto v12 = v4 * v11;
    const Mask<T> v13 = v4 == static_cast<T>(__builtin_inf());
    const auto v14 = (v1 > Vec<T>{} ? splat(T{1}) : Vec<T>{}) - (v1 < Vec<T>{} ? splat(T{1}) : Vec<T>{});
    const auto v15 = v1 / v7;
    const auto v16 = select(v13, v14, v15);
    const auto v17 = v16 / v11;
    const auto v18 = -v17;
    return {v12, {v17, v18}};
  }
};

const Op op = pointwise_op<CharbonnierLoss>("charbonnier_loss");

}  // namespace
}  // namespace mg
