// The loop over blocks shared by all pointwise losses and dtypes. It moves elements and knows only their size.
#include "pointwise.h"

#include <algorithm>
#include <atomic>
#include <cstddef>

namespace mg {
namespace {

constexpr int64_t kChunk = 32 * kBlock;  // elements per partial sum and per unit of parallel work
constexpr int kMaxOperands = 2 * kMostInputs + 4;

// A tensor to iterate over, and the place of its pointer in a block.
struct Operand {
  char* data;
  int64_t stride[kMaxDims];
  size_t place;  // offset of its pointer in a PointwiseBlock
  Dtype dtype;
  bool is_result, is_dense = false;  // is_dense: it holds the elements to compute with, in the order of the iteration
};

void*& pointer(PointwiseBlock& block, size_t place) {
  return *reinterpret_cast<void**>(reinterpret_cast<char*>(&block) + place);
}

// The iteration space and its tensors.
struct Space {
  explicit Space(const Tensor& x)
      : dim(static_cast<int>(x.dim)), numel(x.numel), bytes(element_bytes(x.dtype)), dtype(x.dtype) {
    std::copy(x.sizes, x.sizes + dim, size);
  }

  void add(const Tensor& tensor, size_t place, bool is_result) {
    if (!tensor.exists()) return;
    Operand& o = operand[count++];
    o.data = tensor.as<char>();
    o.place = place;
    o.dtype = tensor.dtype;
    o.is_result = is_result;
    std::copy(tensor.strides, tensor.strides + dim, o.stride);
    if (is_result) advise_huge_pages(tensor);
  }

  // Sorts the dimensions by the first operand's strides, so that memory is traversed in order, and merges dimensions
  // that are contiguous in every operand.
  void simplify() {
    for (int d = 1; d < dim; ++d)
      for (int e = d; e > 0 && operand[0].stride[e - 1] < operand[0].stride[e]; --e) {
        std::swap(size[e - 1], size[e]);
        for (int o = 0; o < count; ++o) std::swap(operand[o].stride[e - 1], operand[o].stride[e]);
      }
    int last = -1;
    for (int d = 0; d < dim; ++d) {
      if (size[d] == 1) continue;
      bool merge = last >= 0;
      for (int o = 0; merge && o < count; ++o) merge = operand[o].stride[last] == operand[o].stride[d] * size[d];
      if (merge) {
        size[last] *= size[d];
      } else {
        size[++last] = size[d];
      }
      for (int o = 0; o < count; ++o) operand[o].stride[last] = operand[o].stride[d];
    }
    dim = last + 1;
    for (int o = 0; o < count; ++o) {
      int64_t stride = 1;
      operand[o].is_dense = operand[o].dtype == dtype;
      for (int d = dim - 1; d >= 0; stride *= size[d--]) operand[o].is_dense &= operand[o].stride[d] == stride;
    }
  }

  bool is_dense() const {  // whether every operand is one contiguous run
    return std::all_of(operand, operand + count, [](const Operand& o) { return o.is_dense; });
  }

  // A block that points directly at the operands; valid if is_dense().
  PointwiseBlock in_place() const {
    PointwiseBlock block;
    for (int o = 0; o < count; ++o) pointer(block, operand[o].place) = operand[o].data;
    return block;
  }

  // Splits [start, start + n) into runs of constant stride; calls run(position in the block, offset, length) for each.
  template <class Run>
  void for_runs(const Operand& of, int64_t start, int64_t n, const Run& run) const {
    const int inner = dim - 1;
    for (int64_t done = 0; done < n;) {
      int64_t index = start + done, offset = 0, length = n - done;
      if (dim > 0) {
        const int64_t column = dim > 1 ? index % size[inner] : index;
        offset = column * of.stride[inner];
        length = std::min(length, size[inner] - column);
        index /= size[inner];
      }
      for (int d = inner - 1; d >= 0; --d) {
        offset += (index % size[d]) * of.stride[d];
        index /= size[d];
      }
      run(done, offset, length);
      done += length;
    }
  }
  int64_t step(const Operand& of) const { return dim == 0 ? 1 : of.stride[dim - 1]; }

  int dim, count = 0;
  int64_t size[kMaxDims], numel, bytes;  // bytes: per element
  Dtype dtype;  // to compute with
  Operand operand[kMaxOperands];
};

template <class Bits>
void repeat(const char* from, char* to, int64_t n) {
  Bits value;
  std::memcpy(&value, from, sizeof value);
  std::fill_n(reinterpret_cast<Bits*>(to), n, value);
}
template <int64_t bytes>
void copy_each(const char* from, int64_t from_step, char* to, int64_t to_step, int64_t n) {
  for (int64_t i = 0; i < n; ++i) std::memcpy(to + i * to_step * bytes, from + i * from_step * bytes, bytes);
}
void copy(const char* from, int64_t from_step, char* to, int64_t to_step, int64_t n, int64_t bytes) {
  if (from_step == 1 && to_step == 1)
    std::memcpy(to, from, static_cast<size_t>(n * bytes));
  else if (from_step == 0 && to_step == 1)  // of an expanded tensor
    bytes == 8   ? repeat<uint64_t>(from, to, n)
    : bytes == 4 ? repeat<uint32_t>(from, to, n)
                 : repeat<uint16_t>(from, to, n);
  else if (bytes == 8)
    copy_each<8>(from, from_step, to, to_step, n);
  else if (bytes == 4)
    copy_each<4>(from, from_step, to, to_step, n);
  else
    copy_each<2>(from, from_step, to, to_step, n);
}

// Copies integers as numbers of a floating-point dtype.
void convert(const Operand& from, int64_t offset, int64_t step, char* to, int64_t n, Dtype dtype) {
  with_integers(from.dtype, [&](auto i) {
    const auto* p = reinterpret_cast<const decltype(i)*>(from.data) + offset;
    with_dtype(dtype, [&](auto s) {
      using S = decltype(s);
      S* out = reinterpret_cast<S*>(to);
      const auto number = [](auto i) { return narrow<S>(static_cast<double>(i)); };
      if (step == 1)
        std::transform(p, p + n, out, number);
      else
        for (int64_t k = 0; k < n; ++k) out[k] = number(p[k * step]);
    });
  });
}

// A thread's staging memory for operands that are not dense, and for blocks that are not whole vectors.
class Stage {
 public:
  explicit Stage(const Space& space) : space_(space) {}

  PointwiseBlock load(int64_t start, int64_t n) {
    PointwiseBlock block;
    for (int o = 0; o < space_.count; ++o) {
      const Operand& from = space_.operand[o];
      char* to = lies_ready(from, n) ? from.data + start * space_.bytes : memory_[o];
      pointer(block, from.place) = to;
      if (from.is_result || to != memory_[o]) continue;
      const int64_t bytes = space_.bytes, step = space_.step(from);
      space_.for_runs(from, start, n, [&](int64_t at, int64_t offset, int64_t length) {
        if (from.dtype == space_.dtype)
          copy(from.data + offset * bytes, step, to + at * bytes, 1, length, bytes);
        else
          convert(from, offset, step, to + at * bytes, length, space_.dtype);
      });
      // pad a partial last vector with the last element
      for (int64_t i = n; i % kLanes<float> != 0; ++i) copy(to + (n - 1) * bytes, 1, to + i * bytes, 1, 1, bytes);
    }
    return block;
  }

  void store(int64_t start, int64_t n) {
    for (int o = 0; o < space_.count; ++o) {
      const Operand& to = space_.operand[o];
      if (!to.is_result || lies_ready(to, n)) continue;
      const int64_t bytes = space_.bytes, step = space_.step(to);
      space_.for_runs(to, start, n, [&](int64_t at, int64_t offset, int64_t length) {
        copy(memory_[o] + at * bytes, 1, to.data + offset * bytes, step, length, bytes);
      });
    }
  }

 private:
  // Memory is read and written in whole vectors.
  static bool lies_ready(const Operand& o, int64_t n) { return o.is_dense && n % kLanes<float> == 0; }

  const Space& space_;
  alignas(64) char memory_[kMaxOperands][kBlock * sizeof(double)];
};

size_t nth(size_t array, int i) { return array + static_cast<size_t>(i) * sizeof(void*); }

void run(PointwiseCall& call, const PointwiseKernel& kernel) {
  Space space(call.in[0]);
  for (int i = 0; i < call.inputs; ++i) space.add(call.in[i], nth(offsetof(PointwiseBlock, in), i), false);
  space.add(call.w, offsetof(PointwiseBlock, w), false);
  call.upstream = call.scale;
  if (call.g.exists() && call.g.numel == 1) {
    call.upstream *= number_at(call.g, 0);
  } else {
    space.add(call.g, offsetof(PointwiseBlock, g), false);
  }
  if (!call.reduce) space.add(call.value, offsetof(PointwiseBlock, value), true);
  for (int i = 0; i < call.inputs; ++i) space.add(call.d[i], nth(offsetof(PointwiseBlock, d), i), true);
  space.add(call.dw, offsetof(PointwiseBlock, dw), true);
  space.simplify();

  const bool want_sum = call.reduce && call.value.exists(), dense = space.is_dense();
  const int64_t chunks = (space.numel + kChunk - 1) / kChunk;
  Scratch<double> partial(want_sum ? chunks : 0);
  const PointwiseBlock in_place = space.in_place();
  std::atomic<unsigned> errors{0};
  parallel_for(chunks, 1, [&](int64_t first_chunk, int64_t last_chunk) {
    Stage stage(space);
    unsigned made = 0;
    for (int64_t chunk = first_chunk; chunk < last_chunk; ++chunk) {
      ExactSum sum;
      const int64_t end = std::min(space.numel, (chunk + 1) * kChunk);
      for (int64_t start = chunk * kChunk; start < end; start += kBlock) {
        const int64_t n = std::min(kBlock, end - start);
        Outcome outcome;
        if (dense && n % kLanes<float> == 0) {
          outcome = kernel.compute(call, in_place, start, n);
        } else {
          outcome = kernel.compute(call, stage.load(start, n), 0, n);
          stage.store(start, n);
        }
        sum.add(outcome.sum);
        made |= outcome.errors;
      }
      if (want_sum) partial[chunk] = sum.value();
    }
    errors |= made;
  });
  if (errors != 0) kernel.raise(kernel.errors[__builtin_ctz(errors)]);
  if (!want_sum) return;
  ExactSum sum;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum.add(partial[chunk]);
  set_number(call.value, 0, sum.value() * call.scale);
}

}  // namespace

// x0, x1, … are the inputs, p0, p1, … the options and d0, d1, … the gradients. With reduce, the value is the sum times
// scale, else one per element. The booleans after it select the results. Gradients are for the upstream gradient g
// times scale.
std::string pointwise_schema(const PointwiseSignature& signature) {
  std::string arguments = "(", wanted, results = ") -> (Tensor?";
  for (int i = 0; i < signature.inputs; ++i) {
    const std::string number = std::to_string(i);
    arguments += ((signature.optional >> i & 1) != 0 ? "Tensor? x" : "Tensor x") + number + ", ";
    wanted += ", bool d" + number;
    results += ", Tensor?";
  }
  arguments += "Tensor? w, Tensor? g, ";
  for (int i = 0; i < signature.options; ++i) arguments += "float p" + std::to_string(i) + ", ";
  return arguments + "float scale, bool reduce, bool value" + wanted + ", bool dw" + results + ", Tensor?)";
}

void run_pointwise(StableIValue* stack, const PointwiseSignature& signature,
                   PointwiseKernel (*choose)(const PointwiseCall&)) {
  Arguments arguments(stack);
  PointwiseCall call;
  call.inputs = signature.inputs;
  for (int i = 0; i < call.inputs; ++i)
    call.in[i] = (signature.optional >> i & 1) != 0 ? arguments.optional_tensor() : arguments.tensor();
  call.w = arguments.optional_tensor();
  call.g = arguments.optional_tensor();
  for (int i = 0; i < signature.options; ++i) call.option[i] = arguments.real();
  call.scale = arguments.real();
  call.reduce = arguments.boolean();
  const Tensor& x = call.in[0];
  auto require_fit = [&](const Tensor& tensor, bool fits) {
    if (tensor.exists() && !fits)
      throw std::runtime_error("manual_grad: a pointwise kernel takes tensors of one dtype and one shape");
  };
  const auto alike = [&](const Tensor& tensor) { return same_shape(tensor, x) && tensor.dtype == x.dtype; };
  for (int i = 1; i < call.inputs; ++i) {
    const Tensor& in = call.in[i];
    require_fit(in, alike(in) || (same_shape(in, x) && is_integer(in.dtype)));
  }
  require_fit(call.w, alike(call.w));
  require_fit(call.g, alike(call.g) || (call.g.numel == 1 && call.g.dtype == x.dtype));
  if (x.dim > kMaxDims) throw std::runtime_error("manual_grad: a pointwise kernel takes at most 64 dimensions");
  if (arguments.boolean()) call.value = call.reduce ? empty_scalar(x.dtype) : empty_like(x);
  for (int i = 0; i < call.inputs; ++i)
    if (arguments.boolean()) {
      if (is_integer(call.in[i].dtype)) throw std::runtime_error("manual_grad: an integer has no gradient");
      call.d[i] = empty_like(call.in[i]);
    }
  if (arguments.boolean()) call.dw = empty_like(call.w);
  run(call, choose(call));
  Results results(stack);
  results.put(static_cast<Tensor&&>(call.value));
  for (int i = 0; i < call.inputs; ++i) results.put(static_cast<Tensor&&>(call.d[i]));
  results.put(static_cast<Tensor&&>(call.dw));
}

}  // namespace mg
