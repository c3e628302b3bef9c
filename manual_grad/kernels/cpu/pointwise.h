// Elementwise losses: one loop, into which a loss plugs its scalar formulas.
//
// A functor declares its numbers of inputs and options. For a vector of elements it computes the loss e and its
// derivatives d with respect to each input. Most functors are generated into generated/ by manual_grad.generate from
// the rule in the loss's file; those that are tuned beyond the rule are written by hand in their own files.
#pragma once

#include <array>
#include <string>
#include <type_traits>

#include "layout.h"
#include "pairs.h"

namespace mg {
constexpr int kMostInputs = 8, kMostOptions = 8;  // array sizes of a call; raise them if a functor needs more

template <class T, int inputs>
struct Element {
  Vec<T> e, d[inputs];
  Mask<T> cancels[1 + inputs] = {};  // lanes of e and d that lost digits; a Paired loss computes them anew in double
};
template <int inputs>
struct Element<InPairs, inputs> {
  Pair e, d[inputs];
};

// Defaults of a functor. One with a restricted domain lists its error messages in `errors` and has a function
// outside(in, Mask<T>* lanes) that marks in lanes[i] where the i-th error occurs.
struct Unlimited {
  static constexpr unsigned kOptional = 0, kAbsent = 0;  // bit i: input i may be absent, or is
  static constexpr int kFactor = 1;  // left out of the slopes, which could overflow with it
  static constexpr int kInterleaved = 4;  // vectors computed side by side
  static constexpr std::array<const char*, 0> errors{};
  using Error = std::runtime_error;  // a RuntimeError in Python; std::domain_error is a ValueError
};

// For formulas without cancellation beyond what the rounding of the inputs implies: float32 is not widened.
struct Plain : Unlimited {
  template <class S>
  using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;
};
struct Widened : Unlimited {
  template <class S>
  using Compute = typename ComputeType<S>::T;
};

// For formulas that are accurate in float32 with the help of TwoFloats; without those, float32 is widened.
struct Paired : Unlimited {
  template <class S>
  using Compute = std::conditional_t<kPairs && std::is_same_v<S, float>, float, typename ComputeType<S>::T>;
  template <class S, class T>
  static constexpr bool in_pairs = kPairs && std::is_same_v<S, float> && std::is_same_v<T, float>;
};

// Paired, with formulas that also work in pairs: eval<S, InPairs> is called in place of eval<S, float>.
struct PairedFormulas : Paired {};

// A loss with one functor per choice of its options: choose(call, body) calls body with the one selected.
struct Variants {
  static constexpr unsigned kOptional = 0;
};

// Like torch's clamp_min and clamp_max: a NaN in x or in the bound is propagated. The latter by a mask, because a
// branch would keep the compiler from interleaving vectors.
template <class T>
inline Vec<T> or_nan(Vec<T> y, Vec<T> bound) {
  return bitcast<Vec<T>>(bitcast<Mask<T>>(y) | (bound != bound));
}
template <class T>
inline Vec<T> at_least(Vec<T> x, T least) {
  return or_nan<T>(not_below<T>(x, least), splat(least));
}
template <class T>
inline Vec<T> at_most(Vec<T> x, T most) {
  return or_nan<T>(not_above<T>(x, most), splat(most));
}

// The functions of a generated formula.
template <class S, class T>
struct Functions {
  static Vec<T> exp(Vec<T> x) { return exp_signed<S, T>(x); }
  static Vec<T> exp_not_above_1(Vec<T> x) { return exp_for<S, T>(x); }
  static Vec<T> log(Vec<T> x) { return mg::log<T>(x); }
  static Vec<T> clamp_min(Vec<T> x, T least) { return at_least<T>(x, least); }
  static Vec<T> clamp_max(Vec<T> x, T most) { return at_most<T>(x, most); }
};
template <class M, class V>
inline V select(M lanes, V a, V b) {
  return lanes ? a : b;
}
#if defined(__AVX2__)
template <class S>
struct Functions<S, InPairs> {
  static Pair exp(Single x) { return exp_two_floats(not_above(x.v, Simd<float>::exp_high)); }
  static Pair exp_not_above_1(Single x) { return exp_two_floats(x.v); }
  static Pair log(Single x) { return log_two_floats(x.v); }
  static Pair log(const Pair& x) {
    Pair y = log_two_floats(x.high, &x.low);
    y.cancels = x.cancels;
    return y;
  }
  static Single clamp_min(Single x, InPairs least) { return {at_least<float>(x.v, least.high)}; }
  static Single clamp_max(Single x, InPairs most) { return {at_most<float>(x.v, most.high)}; }
};

template <class F, class S>
inline Element<float, F::kInputs> eval_in_pairs(const Vec<float>* in, const double* options) {
  constexpr int inputs = F::kInputs;
  Single single[inputs];
  InPairs option[F::kOptions + 1];
  for (int i = 0; i < inputs; ++i) single[i].v = in[i];
  for (int i = 0; i < F::kOptions; ++i) option[i] = InPairs(options[i]);
  const auto at = F::template eval<S, InPairs>(single, option);
  Element<float, inputs> result;
  result.e = at.e.rounded;
  result.cancels[0] = at.e.cancels;
  for (int i = 0; i < inputs; ++i) {
    result.d[i] = at.d[i].rounded;
    result.cancels[1 + i] = at.d[i].cancels;
  }
  return result;
}
#endif

// Evaluates a vector of floats in double, for a Paired loss.
template <class F, class S>
[[gnu::noinline]] Element<float, F::kInputs> eval_wide(const Vec<float>* in, const double* option) {
  constexpr int n = kLanes<double>, inputs = F::kInputs;
  alignas(kVectorBytes) float results[1 + inputs][2 * n];
  for (int half = 0; half < 2; ++half) {
    Vec<double> wide[inputs];
    for (int i = 0; i < inputs; ++i) wide[i] = half == 0 ? lower(in[i]) : upper(in[i]);
    const Element<double, inputs> at = F::template eval<S, double>(wide, option);
    store_vector(results[0] + half * n, at.e);
    for (int i = 0; i < inputs; ++i) store_vector(results[1 + i] + half * n, at.d[i]);
  }
  Element<float, inputs> at;
  at.e = load(results[0]);
  for (int i = 0; i < inputs; ++i) at.d[i] = load(results[1 + i]);
  return at;
}

constexpr int64_t kBlock = 512;  // elements computed at a time; all arrays of a staged block fit in L1

struct PointwiseCall {
  int inputs;
  Tensor in[kMostInputs], w, g;
  double option[kMostOptions], scale;
  bool reduce;
  Tensor value, d[kMostInputs], dw;
  double upstream;  // the factor of all gradients
};

// The arrays that a loss reads and writes, contiguous or null. g is set if it has one element per element of the
// inputs, value if it is not reduced.
struct PointwiseBlock {
  void *in[kMostInputs] = {}, *w = nullptr, *g = nullptr;
  void *value = nullptr, *d[kMostInputs] = {}, *dw = nullptr;
};

struct Outcome {
  double sum = 0;  // of the losses
  unsigned errors = 0;  // bit i: error i occurred
};

// Whether all that is wanted is the sum, without weights, and the gradient of the first input.
inline bool is_usual(const PointwiseBlock& block) {
  bool others = block.w != nullptr || block.g != nullptr || block.value != nullptr || block.dw != nullptr;
  for (int k = 1; k < kMostInputs; ++k) others |= block.d[k] != nullptr;
  return block.d[0] != nullptr && !others;
}

// Computes the elements [start, start + n) of a block. Memory is read and written in whole vectors; the padding past
// the end must be in the loss's domain. The usual case is compiled by itself: branches between vectors would keep the
// compiler from interleaving them, as would calls of a formula that it finds too long to inline.
template <class F, class S, bool usual = false>
[[gnu::flatten]] Outcome compute_block(const PointwiseCall& call, const PointwiseBlock& wanted, int64_t start,
                                       int64_t n) {
  if constexpr (std::is_same_v<S, float> && F::kInterleaved > 1 && !usual)
    if (is_usual(wanted)) return compute_block<F, S, true>(call, wanted, start, n);
  PointwiseBlock block = wanted;
  if constexpr (usual) {
    if (block.d[0] == nullptr) __builtin_unreachable();
    block.w = block.g = block.value = block.dw = nullptr;
    for (int k = 1; k < kMostInputs; ++k) block.d[k] = nullptr;
  }
  using T = typename F::template Compute<S>;
  constexpr int inputs = F::kInputs;
  constexpr size_t kErrors = F::errors.size();
  constexpr int kInterleaved = F::kInterleaved;
  using At = Element<T, inputs>;
  T option[F::kOptions + 1];
  for (int i = 0; i < F::kOptions; ++i) option[i] = static_cast<T>(call.option[i]);
  const T upstream = static_cast<T>(call.upstream);
  auto get = [start](const void* from, int64_t i) { return load_vector<T>(static_cast<const S*>(from) + start + i); };
  auto put = [start](void* to, int64_t i, Vec<T> v) {
    if (to != nullptr) store_vector(static_cast<S*>(to) + start + i, v);
  };
  auto get_inputs = [&](int64_t i, Vec<T>* in) {
    for (int k = 0; k < inputs; ++k)
      if ((F::kAbsent >> k & 1) != 0 || ((F::kOptional >> k & 1) != 0 && block.in[k] == nullptr))
        in[k] = Vec<T>{};
      else
        in[k] = get(block.in[k], i);
  };
  [[maybe_unused]] Mask<T> outside[kErrors + 1] = {};
  LaneSum sum;
  auto eval = [&](int64_t i) {
    Vec<T> in[inputs];
    get_inputs(i, in);
    if constexpr (kErrors > 0) F::template outside<T>(in, outside);
#if defined(__AVX2__)
    if constexpr (std::is_base_of_v<PairedFormulas, F>)
      if constexpr (F::template in_pairs<S, T>) return eval_in_pairs<F, S>(in, call.option);
#endif
    return F::template eval<S, T>(in, option);
  };
  auto finish = [&](int64_t i, At at, int64_t valid) {  // lanes that belong to the block
    if constexpr (std::is_base_of_v<Paired, F>) {
      if constexpr (F::template in_pairs<S, T>) {
        Mask<T> cancels = at.cancels[0];
        for (int k = 0; k < inputs; ++k)
          if (block.d[k] != nullptr) cancels |= at.cancels[1 + k];
        if (any<T>(cancels)) {
          Vec<T> in[inputs];
          get_inputs(i, in);
          at = eval_wide<F, S>(in, call.option);
        }
      }
    }
    Vec<T> up = block.g != nullptr ? get(block.g, i) * upstream : splat(upstream), e = at.e;
    put(block.dw, i, up * e);
    if (block.w != nullptr) {
      const Vec<T> w = get(block.w, i);
      up *= w;
      e *= w;
    }
    if constexpr (F::kFactor != 1) up *= static_cast<T>(F::kFactor);
    put(block.value, i, e);
    for (int k = 0; k < inputs; ++k) put(block.d[k], i, up * at.d[k]);
    return valid < kLanes<T> ? first_lanes<T>(e, valid) : e;
  };
  // Several vectors at a time: the dependency chain of one is long, and out-of-order execution does not look far ahead.
  int64_t i = 0;
  for (constexpr int64_t step = kInterleaved * kLanes<T>; i + step <= n; i += step) {
    At at[kInterleaved];
    Vec<T> few{};
#pragma GCC unroll 8
    for (int v = 0; v < kInterleaved; ++v) at[v] = eval(i + v * kLanes<T>);
#pragma GCC unroll 8
    for (int v = 0; v < kInterleaved; ++v) {
      const Vec<T> e = finish(i + v * kLanes<T>, at[v], kLanes<T>);
      if constexpr (sizeof(S) == 2)
        few += e;  // widening each takes longer, and no half is the other for it
      else
        sum.add(e);
    }
    if constexpr (sizeof(S) == 2) sum.add(few);
  }
  for (; i < n; i += kLanes<T>) sum.add(finish(i, eval(i), n - i));
  Outcome outcome{sum.total()};
  for (size_t error = 0; error < kErrors; ++error)
    if (any<T>(outside[error])) outcome.errors |= 1u << error;
  return outcome;
}

// The type-erased kernel of a loss for one dtype, as used by the loop over blocks.
struct PointwiseKernel {
  Outcome (*compute)(const PointwiseCall&, const PointwiseBlock&, int64_t start, int64_t n) = nullptr;
  const char* const* errors = nullptr;
  void (*raise)(const char* error) = nullptr;
};

template <class F>
PointwiseKernel pointwise_kernel(const PointwiseCall& call) {
  PointwiseKernel kernel;
  if constexpr (std::is_base_of_v<Variants, F>) {
    F::choose(call, [&](auto variant) { kernel = pointwise_kernel<decltype(variant)>(call); });
  } else {
    kernel.errors = F::errors.data();
    kernel.raise = [](const char* error) { throw typename F::Error(error); };
    with_dtype(call.in[0].dtype, [&](auto s) { kernel.compute = compute_block<F, decltype(s)>; });
  }
  return kernel;
}

// pointwise.cpp
struct PointwiseSignature {
  int inputs;
  unsigned optional;
  int options;
};
std::string pointwise_schema(const PointwiseSignature& signature);
void run_pointwise(StableIValue* stack, const PointwiseSignature& signature,
                   PointwiseKernel (*choose)(const PointwiseCall&));

template <class F>
Op pointwise_op(const char* name) {
  static_assert(F::kInputs <= kMostInputs && F::kOptions <= kMostOptions);
  static constexpr PointwiseSignature signature{F::kInputs, F::kOptional, F::kOptions};
  auto boxed = [](StableIValue* stack, uint64_t, uint64_t) { run_pointwise(stack, signature, pointwise_kernel<F>); };
  return Op(name, pointwise_schema(signature), boxed);
}

}  // namespace mg
