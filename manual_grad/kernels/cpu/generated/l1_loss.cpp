// Written by python -m manual_grad.generate from losses/pointwise/l1_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct L1Loss : Plain {
  static constexpr int kInputs = 2, kOptions = 0;
  template <class S, class T>
  static Element<T, 2> eval(const Vec<T>* in, const T*) {
    const Vec<T> x = in[0];
    const Vec<T> t = in[1];
    const auto v1 = x - t;
    const auto v2 = abs<T>(v1);
    const auto v3 = (v1 > Vec<T>{} ? splat(T{1}) : Vec<T>{}) - (v1 < Vec<T>{} ? splat(T{1}) : Vec<T>{});
    const auto v4 = -v3;
    return {v2, {v3, v4}};
  }
};

const Op op = pointwise_op<L1Loss>("l1_loss");

}  // namespace
}  // namespace mg
