// Losses of one element of each input: one loop, into which a loss plugs its scalar formulas.
//
// A functor computes, for a vector of elements, the loss e and its derivatives; letters as in the loss files:
// x input, t target, a auxiliary input (pos_weight, variance), e loss, dx dt da derivatives, p q r the options.
#pragma once

#include <array>
#include <type_traits>

#include "layout.h"
#include "ops.h"

namespace mg {
template <class T>
struct Element {
  Vec<T> e, dx, dt, da;
  Mask<T> cancels{};  // where digits are missing: of a Paired loss, these vectors are computed once more, in double
};

// A functor with a domain names the errors of leaving it here, and has a function
// outside(x, t, a, Mask<T>* lanes) that marks in lanes[i] where the i-th is made.
struct Unlimited {
  static constexpr int kSlopes = 1;  // the slopes are this many times dx, dt and da, which could overflow else
  static constexpr std::array<const char*, 0> errors{};
  using Error = std::runtime_error;  // a RuntimeError in Python; std::domain_error is a ValueError
};

// Where nothing cancels that the input has not cancelled already, float32 need not be widened.
struct Plain : Unlimited {
  template <class S>
  using Compute = std::conditional_t<std::is_same_v<S, double>, double, float>;
};
struct Widened : Unlimited {
  template <class S>
  using Compute = typename ComputeType<S>::T;
};

// Where float needs the help of TwoFloats, and float32 is widened if it has none.
struct Paired : Unlimited {
  template <class S>
  using Compute = std::conditional_t<kPairs && std::is_same_v<S, float>, float, typename ComputeType<S>::T>;
  template <class S, class T>
  static constexpr bool in_pairs = kPairs && std::is_same_v<S, float> && std::is_same_v<T, float>;
};

// A loss that has a functor for each value of an option: choose(call, body) calls body with one of them.
struct Variants {};

// A vector of float, computed in double: of a Paired loss, which has no auxiliary input.
template <class F, class S>
[[gnu::noinline]] Element<float> eval_wide(Vec<float> x, Vec<float> t, float p, float q, float r) {
  constexpr int n = kLanes<double>;
  alignas(kVectorBytes) float e[2 * n], dx[2 * n], dt[2 * n];
  const Vec<double> halves[2][2] = {{lower(x), lower(t)}, {upper(x), upper(t)}};
  for (int half = 0; half < 2; ++half) {
    const Element<double> at = F::template eval<S, double>(halves[half][0], halves[half][1], splat(1.0), p, q, r);
    store_vector(e + half * n, at.e);
    store_vector(dx + half * n, at.dx);
    store_vector(dt + half * n, at.dt);
  }
  return {load(e), load(dx), load(dt), Vec<float>{}};
}

constexpr int64_t kBlock = 512;  // elements computed at a time: where they are staged, every array stays in L1

struct PointwiseCall {
  Tensor x, t, a, w, g;
  double p, q, r, scale;
  bool reduce;
  Tensor value, dx, dt, da, dw;
  double upstream;  // the factor of all gradients
};

// What a loss reads and writes, contiguous or null: g if there is one for each element, value if it is not reduced.
struct PointwiseBlock {
  void *x = nullptr, *t = nullptr, *a = nullptr, *w = nullptr, *g = nullptr;
  void *value = nullptr, *dx = nullptr, *dt = nullptr, *da = nullptr, *dw = nullptr;
};

struct Outcome {
  double sum = 0;       // of the losses
  unsigned errors = 0;  // one bit for each that was made
};

// Zero but for the first n lanes. Not inlined, since an index that is not known would keep the vector in memory; cold,
// so that the loop around it keeps its registers.
template <class T>
[[gnu::noinline, gnu::cold]] Vec<T> first_lanes(Vec<T> v, int64_t n) {
  for (int64_t lane = n > 0 ? n : 0; lane < kLanes<T>; ++lane) v[lane] = 0;
  return v;
}

// The elements [start, start + n) of a block. Memory is read and written in whole vectors; what lies past the end must
// be in the loss' domain.
template <class F, class S>
Outcome compute_block(const PointwiseCall& call, PointwiseBlock block, int64_t start, int64_t n) {
  using T = typename F::template Compute<S>;
  const T p = static_cast<T>(call.p), q = static_cast<T>(call.q), r = static_cast<T>(call.r);
  const T upstream = static_cast<T>(call.upstream);
  auto get = [start](const void* from, int64_t i) { return load_vector<T>(static_cast<const S*>(from) + start + i); };
  auto put = [start](void* to, int64_t i, Vec<T> v) {
    if (to != nullptr) store_vector(static_cast<S*>(to) + start + i, v);
  };
  constexpr size_t kErrors = F::errors.size();
  [[maybe_unused]] Mask<T> outside[kErrors + 1] = {};
  LaneSum sum;
  auto eval = [&](int64_t i) {
    const Vec<T> x = get(block.x, i), t = get(block.t, i);
    const Vec<T> a = block.a != nullptr ? get(block.a, i) : splat(T{1});  // an absent auxiliary input is a factor of 1
    if constexpr (kErrors > 0) F::template outside<T>(x, t, a, outside);
    return F::template eval<S, T>(x, t, a, p, q, r);
  };
  auto finish = [&](int64_t i, Element<T> at, int64_t valid) {  // lanes that belong to the block
    if constexpr (std::is_base_of_v<Paired, F>) {
      if constexpr (F::template in_pairs<S, T>)
        if (any<T>(at.cancels)) at = eval_wide<F, S>(get(block.x, i), get(block.t, i), p, q, r);
    }
    Vec<T> up = block.g != nullptr ? get(block.g, i) * upstream : splat(upstream), e = at.e;
    put(block.dw, i, up * e);
    if (block.w != nullptr) {
      const Vec<T> w = get(block.w, i);
      up *= w;
      e *= w;
    }
    if constexpr (F::kSlopes != 1) up *= static_cast<T>(F::kSlopes);
    put(block.value, i, e);
    put(block.dx, i, up * at.dx);
    put(block.dt, i, up * at.dt);
    put(block.da, i, up * at.da);
    if (valid < kLanes<T>) e = first_lanes<T>(e, valid);
    sum.add(e);
  };
  // Two vectors at a time: the chain of operations of one is long, and the processor does not look far ahead. Of an odd
  // number the last is computed twice, and added once.
  for (int64_t i = 0; i < n; i += 2 * kLanes<T>) {
    const int64_t next = i + kLanes<T>, j = next < n ? next : i;
    const Element<T> first = eval(i), second = eval(j);
    finish(i, first, n - i);
    finish(j, second, n - next);
  }
  Outcome outcome{sum.total()};
  for (size_t error = 0; error < kErrors; ++error)
    if (any<T>(outside[error])) outcome.errors |= 1u << error;
  return outcome;
}

// A loss for tensors of one dtype, as the loop over their blocks sees it.
struct PointwiseKernel {
  Outcome (*compute)(const PointwiseCall&, PointwiseBlock, int64_t start, int64_t n) = nullptr;
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
    with_dtype(call.x.dtype, [&](auto s) { kernel.compute = compute_block<F, decltype(s)>; });
  }
  return kernel;
}

// pointwise.cpp
void run_pointwise(StableIValue* stack, PointwiseKernel (*choose)(const PointwiseCall&));

template <class F>
void pointwise(StableIValue* stack, uint64_t, uint64_t) {
  run_pointwise(stack, pointwise_kernel<F>);
}

// reduce: the value is the sum times scale, else there is one for each element. The booleans after it say which results
// are wanted; the gradients are for the upstream g times scale.
constexpr const char* kPointwise =
    "(Tensor x, Tensor t, Tensor? a, Tensor? w, Tensor? g, float p, float q, float r, float scale, bool reduce, "
    "bool value, bool dx, bool dt, bool da, bool dw) -> (Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)";

}  // namespace mg
