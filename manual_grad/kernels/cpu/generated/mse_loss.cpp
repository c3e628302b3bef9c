// Written by python -m manual_grad.generate from losses/pointwise/mse_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct MSELoss : Plain {
  static constexpr int kInputs = 2, kOptions = 0;
  static constexpr int kFactor = 2;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = x - t;
    const auto v2 = v1 * v1;
    const auto v3 = -v1;
    return {v2, {v1, v3}};
  }
};

const Op op = pointwise_op<MSELoss>("mse_loss");

}  // namespace
}  // namespace mg
