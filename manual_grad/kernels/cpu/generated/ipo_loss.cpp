// Written by python -m manual_grad.generate from losses/pointwise/ipo_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct IPOLoss : Widened {
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
    const auto v2 = y - y0;
    const auto v3 = v1 - v2;
    const auto v4 = v3 - t;
    const auto v5 = v4 * v4;
    const auto v6 = -v4;
    const auto v7 = -v6;
    return {v5, {v4, v6, v6, v7}};
  }
};

const Op op = pointwise_op<IPOLoss>("ipo_loss");

}  // namespace
}  // namespace mg
