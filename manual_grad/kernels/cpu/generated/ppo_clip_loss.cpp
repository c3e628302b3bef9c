// Written by python -m manual_grad.generate from losses/pointwise/ppo_clip_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct PPOClipLoss_w : Widened {
  static constexpr int kInputs = 4, kOptions = 3;
  static constexpr unsigned kOptional = 1u << 3;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const Vec<T> w = in[3];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
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
    const Vec<T> v11 = w * v10;
    const Vec<T> v12 = v1 ? splat(T{0}) : v11;
    const Mask<T> v13 = low > v5;
    const Mask<T> v14 = delta < v5;
    const Mask<T> v15 = v13 | v14;
    const Mask<T> v16 = v3 & v15;
    const Mask<T> v17 = ~v3;
    const Mask<T> v18 = high < v5;
    const Mask<T> v19 = v17 & v18;
    const Mask<T> v20 = v16 | v19;
    const Vec<T> v21 = v2 * v5;
    const Vec<T> v22 = v20 ? splat(T{0}) : v21;
    const Vec<T> v23 = w * v22;
    const Vec<T> v24 = v1 ? splat(T{0}) : v23;
    const Vec<T> v25 = -v24;
    const Vec<T> v26 = splat(T{0});
    return {v12, {v24, v25, v26, v26}};
  }
};

struct PPOClipLoss_no_w : Widened {
  static constexpr int kInputs = 4, kOptions = 3;
  static constexpr unsigned kOptional = 1u << 3;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
    const Vec<T> v1 = -A;
    const Mask<T> v2 = A < T{0};
    const Vec<T> v3 = x - x0;
    const Vec<T> v4 = exp_signed<S, T>(v3);
    const Vec<T> v5 = at_least<T>(v4, low);
    const Vec<T> v6 = at_most<T>(v5, delta);
    const Vec<T> v7 = at_most<T>(v4, high);
    const Vec<T> v8 = v2 ? v6 : v7;
    const Vec<T> v9 = v1 * v8;
    const Mask<T> v10 = low > v4;
    const Mask<T> v11 = delta < v4;
    const Mask<T> v12 = v10 | v11;
    const Mask<T> v13 = v2 & v12;
    const Mask<T> v14 = ~v2;
    const Mask<T> v15 = high < v4;
    const Mask<T> v16 = v14 & v15;
    const Mask<T> v17 = v13 | v16;
    const Vec<T> v18 = v1 * v4;
    const Vec<T> v19 = v17 ? splat(T{0}) : v18;
    const Vec<T> v20 = -v19;
    const Vec<T> v21 = splat(T{0});
    return {v9, {v19, v20, v21, Vec<T>{}}};
  }
};

struct PPOClipLoss : Variants {
  static constexpr int kInputs = 4, kOptions = 3;
  static constexpr unsigned kOptional = 1u << 3;
  template <class Body>
  static void choose(const PointwiseCall& call, const Body& body) {
    const bool w = call.in[3].exists();
    if (w) body(PPOClipLoss_w{});
    if (!w) body(PPOClipLoss_no_w{});
  }
};

const Op op = pointwise_op<PPOClipLoss>("ppo_clip_loss");

}  // namespace
}  // namespace mg
