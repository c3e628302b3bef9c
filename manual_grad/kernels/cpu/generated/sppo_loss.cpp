// Written by python -m manual_grad.generate from losses/pointwise/sppo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct SPPOLoss : Widened {
  static constexpr int kInputs = 4, kOptions = 1;
  static constexpr int kFactor = 2;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> y = in[1];
    const Vec<T> x0 = in[2];
    const Vec<T> y0 = in[3];
    const T t = option[0];
    const auto v1 = x - x0;
    const auto v2 = v1 - t;
    const auto v3 = v2 * v2;
    const auto v4 = y - y0;
    const auto v5 = v4 + t;
    const auto v6 = v5 * v5;
    const auto v7 = v3 + v6;
    const auto v8 = -v2;
    const auto v9 = -v5;
    return {v7, {v2, v5, v8, v9}};
  }
};

const Op op = pointwise_op<SPPOLoss>("sppo_loss");

}  // namespace
}  // namespace mg
