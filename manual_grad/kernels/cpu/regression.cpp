// Pointwise losses of a real target.
#include "pointwise.h"

namespace mg {
namespace {

struct L1 : Plain {  // losses/l1_loss.py (1) (2)
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> r = x - t, zero{}, one = splat(T{1});
    const Vec<T> sign = (r > zero ? one : zero) - (r < zero ? one : zero);
    return {abs<T>(r), sign, -sign, zero};
  }
};

struct Mse : Plain {  // losses/mse_loss.py (1) (2)
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T, T, T) {
    const Vec<T> r = x - t, slope = r + r;
    return {r * r, slope, -slope, Vec<T>{}};
  }
};

struct Huber : Plain {  // losses/huber_loss.py (1) (2); p = delta
  template <class S, class T>
  static Element<T> eval(Vec<T> x, Vec<T> t, Vec<T>, T delta, T, T) {
    const Vec<T> r = x - t, size = abs<T>(r);
    const Vec<T> slope = r > delta ? splat(delta) : (r < -delta ? splat(-delta) : r);
    const Vec<T> e = size > delta ? delta * (size - T{0.5} * delta) : T{0.5} * r * r;
    return {e, slope, -slope, Vec<T>{}};
  }
};

}  // namespace

const std::initializer_list<Op> regression_ops = {
    {"l1_loss", kPointwise, pointwise<L1>},
    {"mse_loss", kPointwise, pointwise<Mse>},
    {"huber_loss", kPointwise, pointwise<Huber>},
};

}  // namespace mg
