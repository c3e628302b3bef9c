// Losses of one element of each input: one loop, into which a loss plugs its scalar formulas.
//
// A functor computes, for a vector of elements, the loss e and its derivatives; letters as in the loss files:
// x input, t target, a auxiliary input (pos_weight, variance), e loss, dx dt da derivatives, p q r the options.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
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

constexpr int64_t kBlock = 512;          // elements staged at a time: every array of a block stays in L1
constexpr int64_t kChunk = 32 * kBlock;  // elements per partial sum and per unit of parallel work

struct PointwiseCall {
  Tensor x, t, a, w, g;
  double p, q, r, scale;
  bool reduce;
  Tensor value, dx, dt, da, dw;
};

template <class F, class S>
void run_pointwise(const PointwiseCall& call) {
  using T = typename F::template Compute<S>;
  Space space;
  space.dim = static_cast<int>(call.x.dim);
  space.numel = call.x.numel;
  for (int d = 0; d < space.dim; ++d) space.size[d] = call.x.sizes[d];

  Operand<S> x, t, a, w, g, value, dx, dt, da, dw;
  Operand<S>* operands[10];
  int count = 0;
  auto bind = [&](Operand<S>& operand, const Tensor& tensor, bool is_result) {
    if (!tensor.exists()) return;
    operand.data = tensor.as<S>();
    for (int d = 0; d < space.dim; ++d) operand.stride[d] = tensor.strides[d];
    operands[count++] = &operand;
    if (is_result) advise_huge_pages(tensor, tensor.numel * static_cast<int64_t>(sizeof(S)));
  };
  bind(x, call.x, false);
  bind(t, call.t, false);
  bind(a, call.a, false);
  bind(w, call.w, false);
  const bool scalar_g = call.g.exists() && call.g.numel == 1;
  if (!scalar_g) bind(g, call.g, false);
  if (!call.reduce) bind(value, call.value, true);
  bind(dx, call.dx, true);
  bind(dt, call.dt, true);
  bind(da, call.da, true);
  bind(dw, call.dw, true);
  simplify(space, operands, count);

  const T p = static_cast<T>(call.p), q = static_cast<T>(call.q), r = static_cast<T>(call.r);
  const double g_scalar = scalar_g ? static_cast<double>(widen(*call.g.as<S>())) : 1.0;
  const T upstream = static_cast<T>(g_scalar * call.scale);
  const bool want_sum = call.reduce && call.value.exists();
  const int64_t chunks = (space.numel + kChunk - 1) / kChunk;
  Scratch<double> partial(want_sum ? chunks : 0);
  constexpr size_t kErrors = F::errors.size();
  std::array<std::atomic<bool>, kErrors> made{};

  bool dense = space.dim <= 1;  // every operand one straight run: no staging
  for (int o = 0; o < count; ++o) dense = dense && (space.dim == 0 || operands[o]->stride[0] == 1);

  parallel_for(chunks, 1, [&](int64_t first_chunk, int64_t last_chunk) {
    alignas(64) T bx[kBlock], bt[kBlock], ba[kBlock], bw[kBlock], bg[kBlock];
    alignas(64) T be[kBlock], bdx[kBlock], bdt[kBlock], bda[kBlock], bdw[kBlock];
    // the lanes past the end of a short block are computed too, and must not be left as they were found
    if (!dense || space.numel % kLanes<T> != 0)
      for (T* staged : {bx, bt, ba, bw, bg}) std::fill(staged, staged + kBlock, T{1});

    // One block; returns the sum of its losses. Direct: straight from and to memory, n a whole number of vectors.
    auto block = [&](int64_t start, int64_t n, auto direct) {
      auto get = [&](const Operand<S>& operand, const T* staged, int64_t i) {
        if constexpr (direct) return load_vector<T>(operand.data + start + i);
        return mg::load(staged + i);
      };
      auto put = [&](const Operand<S>& operand, T* staged, int64_t i, Vec<T> v) {
        if (!operand) return;
        if constexpr (direct) {
          store_vector(operand.data + start + i, v);
        } else {
          mg::store<T>(staged + i, v);
        }
      };
      LaneSum sum;
      [[maybe_unused]] Mask<T> outside[kErrors + 1] = {};
      auto eval = [&](int64_t i) {
        const Vec<T> at_x = get(x, bx, i), at_t = get(t, bt, i);
        const Vec<T> at_a = a ? get(a, ba, i) : splat(T{1});  // an absent auxiliary input is a factor of 1
        if constexpr (kErrors > 0) F::template outside<T>(at_x, at_t, at_a, outside);
        return F::template eval<S, T>(at_x, at_t, at_a, p, q, r);
      };
      auto finish = [&](int64_t i, Element<T> at) {
        if constexpr (std::is_base_of_v<Paired, F>) {
          if constexpr (F::template in_pairs<S, T>)
            if (any<T>(at.cancels)) at = eval_wide<F, S>(get(x, bx, i), get(t, bt, i), p, q, r);
        }
        Vec<T> up = g ? get(g, bg, i) * upstream : splat(upstream), e = at.e;
        put(dw, bdw, i, up * e);
        if (w) {
          const Vec<T> at_w = get(w, bw, i);
          up *= at_w;
          e *= at_w;
        }
        put(value, be, i, e);
        put(dx, bdx, i, up * at.dx);
        put(dt, bdt, i, up * at.dt);
        put(da, bda, i, up * at.da);
        if constexpr (!direct)
          for (int64_t lane = n - i; lane < kLanes<T>; ++lane) e[lane] = 0;
        sum.add(e);
      };
      // two vectors at a time: the chain of operations of one is long, and the processor does not look far ahead
      int64_t i = 0;
      for (; i + kLanes<T> < n; i += 2 * kLanes<T>) {
        const Element<T> first = eval(i), second = eval(i + kLanes<T>);
        finish(i, first);
        finish(i + kLanes<T>, second);
      }
      if (i < n) finish(i, eval(i));
      for (size_t error = 0; error < kErrors; ++error)
        if (any<T>(outside[error])) made[error] = true;
      return sum.total();
    };

    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      ExactSum sum;
      const int64_t end = std::min(space.numel, (chunk + 1) * kChunk);
      for (int64_t start = chunk * kChunk; start < end; start += kBlock) {
        const int64_t n = std::min(kBlock, end - start);
        if (dense && n % kLanes<T> == 0) {
          sum.add(block(start, n, std::true_type{}));
          continue;
        }
        load(space, x, start, n, bx);
        load(space, t, start, n, bt);
        if (a) load(space, a, start, n, ba);
        if (w) load(space, w, start, n, bw);
        if (g) load(space, g, start, n, bg);
        sum.add(block(start, n, std::false_type{}));
        if (value) store(space, value, start, n, be);
        if (dx) store(space, dx, start, n, bdx);
        if (dt) store(space, dt, start, n, bdt);
        if (da) store(space, da, start, n, bda);
        if (dw) store(space, dw, start, n, bdw);
      }
      if (want_sum) partial[chunk] = sum.value();
    }
  });
  for (size_t error = 0; error < kErrors; ++error)
    if (made[error]) throw typename F::Error(F::errors[error]);
  if (want_sum) {
    ExactSum sum;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) sum.add(partial[chunk]);
    *call.value.as<S>() = narrow<S>(sum.value() * call.scale);
  }
}

template <class F>
void pointwise(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  PointwiseCall call;
  call.x = in.tensor();
  call.t = in.tensor();
  call.a = in.optional_tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.p = in.real();
  call.q = in.real();
  call.r = in.real();
  call.scale = in.real();
  call.reduce = in.boolean();
  for (const Tensor* tensor : {&call.t, &call.a, &call.w, &call.g}) {
    if (!tensor->exists()) continue;
    const bool fits = same_shape(*tensor, call.x) || (tensor == &call.g && tensor->numel == 1);
    if (tensor->dtype != call.x.dtype || !fits)
      throw std::runtime_error("manual_grad: a pointwise kernel takes tensors of one dtype and one shape");
  }
  if (call.x.dim > kMaxDims) throw std::runtime_error("manual_grad: a pointwise kernel takes at most 64 dimensions");
  if (in.boolean()) call.value = call.reduce ? empty_scalar(call.x.dtype) : empty_like(call.x);
  if (in.boolean()) call.dx = empty_like(call.x);
  if (in.boolean()) call.dt = empty_like(call.t);
  if (in.boolean()) call.da = empty_like(call.a);
  if (in.boolean()) call.dw = empty_like(call.w);
  auto run = [&](auto functor) {
    with_dtype(call.x.dtype, [&](auto s) { run_pointwise<decltype(functor), decltype(s)>(call); });
  };
  if constexpr (std::is_base_of_v<Variants, F>) {
    F::choose(call, run);
  } else {
    run(F{});
  }
  Results out(stack);
  for (Tensor* result : {&call.value, &call.dx, &call.dt, &call.da, &call.dw}) out.put(static_cast<Tensor&&>(*result));
}

// reduce: the value is the sum times scale, else there is one for each element. The booleans after it say which results
// are wanted; the gradients are for the upstream g times scale.
constexpr const char* kPointwise =
    "(Tensor x, Tensor t, Tensor? a, Tensor? w, Tensor? g, float p, float q, float r, float scale, bool reduce, "
    "bool value, bool dx, bool dt, bool da, bool dw) -> (Tensor?, Tensor?, Tensor?, Tensor?, Tensor?)";

}  // namespace mg
