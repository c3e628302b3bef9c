// Written by python -m manual_grad.generate from losses/pointwise/ppo_clip_loss.py.
#include "../pointwise.h"

namespace mg {
namespace {

struct PPOClipLoss_w : Widened {
  static constexpr int kInputs = 4, kOptions = 3;
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
    const auto v2 = -A;
    const Mask<T> v3 = A < T{0};
    const auto v4 = x - x0;
    const auto v5 = Functions<S, T>::exp(v4);
    const auto v6 = Functions<S, T>::clamp_min(v5, low);
    const auto v7 = Functions<S, T>::clamp_max(v6, delta);
    const auto v8 = Functions<S, T>::clamp_max(v5, high);
    const auto v9 = select(v3, v7, v8);
    const auto v10 = v2 * v9;
    const auto v11 = w * v10;
    const auto v12 = select(v1, splat(T{0}), v11);
    const Mask<T> v13 = low > v5;
    const Mask<T> v14 = delta < v5;
    const Mask<T> v15 = v13 | v14;
    const Mask<T> v16 = v3 & v15;
    const Mask<T> v17 = ~v3;
    const Mask<T> v18 = high < v5;
    const Mask<T> v19 = v17 & v18;
    const Mask<T> v20 = v16 | v19;
    const auto v21 = v2 * v5;
    const auto v22 = select(v20, splat(T{0}), v21);
    const auto v23 = w * v22;
    const auto v24 = select(v1, splat(T{0}), v23);
    const auto v25 = -v24;
    const auto v26 = splat(T{0});
    return {v12, {v24, v25, v26, v26}};
  }
};

struct PPOClipLoss_no_w : Widened {
  static constexpr int kInputs = 4, kOptions = 3;
  static constexpr unsigned kAbsent = 1u << 3;
  template <class S, class T>
  static Element<T, 4> eval(const Vec<T>* in, const T* option) {
    const Vec<T> x = in[0];
    const Vec<T> x0 = in[1];
    const Vec<T> A = in[2];
    const T low = option[0];
    const T high = option[1];
    const T delta = option[2];
    const auto v1 = -A;
    const Mask<T> v2 = A < T{0};
    const auto v3 = x - x0;
    const auto v4 = Functions<S, T>::exp(v3);
    const auto v5 = Functions<S, T>::clamp_min(v4, low);
    const auto v6 = Functions<S, T>::clamp_max(v5, delta);
    const auto v7 = Functions<S, T>::clamp_max(v4, high);
    const auto v8 = select(v2, v6, v7);
    const auto v9 = v1 * v8;
    const Mask<T> v10 = low > v4;
    const Mask<T> v11 = delta < v4;
    const Mask<T> v12 = v10 | v11;
    const Mask<T> v13 = v2 & v12;
    const Mask<T> v14 = ~v2;
    const Mask<T> v15 = high < v4;
    const Mask<T> v16 = v14 & v15;
    const Mask<T> v17 = v13 | v16;
    const auto v18 = v1 * v4;
    const auto v19 = select(v17, splat(T{0}), v18);
    const auto v20 = -v19;
    const auto v21 = splat(T{0});
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
