// losses/rowwise/nll_loss.py. The gradient of a row has a single nonzero entry, so rows are zeroed and their entries
// written in the same pass.
#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor x, t, w, g;
  int64_t ignore_index;
  bool by_weight;
  double scale;
  bool reduce;
  Tensor value, dx;
};

template <class T>
class NegativeLogLikelihood {
  static constexpr int64_t kBatch = 512;

 public:
  explicit NegativeLogLikelihood(const Call& call)
      : call_(call), rows_(call.x), sweep_(rows_, call.value, call.g, call.scale / divisor(call, rows_), call.reduce) {
    advise_huge_pages(call.dx);
  }

  void run() const {
    sweep_.template run<kBatch>([this] { return [this](int64_t r, int64_t n, T* loss) { batch(r, n, loss); }; });
  }

 private:
  static double divisor(const Call& call, const Rows& rows) {
    const double weight = kept_weight("nll_loss", rows, call.t, call.w, call.ignore_index);  // also checks the indices
    return call.by_weight ? weight : 1;
  }

  void batch(int64_t r, int64_t n, T* loss) const {
    int64_t y[kBatch], at[kBatch];
    rows_.offsets(call_.t, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) y[j] = call_.t.as<int64_t>()[at[j]];
    if (call_.value.exists()) {
      const int64_t step = rows_.class_stride(call_.x);
      rows_.offsets(call_.x, r, n, true, at);
      with_dtype(call_.x.dtype, [&](auto s) {
        using S = decltype(s);
        const S* x = call_.x.as<S>();
        auto of_row = [&](int64_t j) {  // (1)
          return -static_cast<T>(weight<S>(y[j])) * static_cast<T>(widen(x[at[j] + y[j] * step]));
        };
        for (int64_t j = 0; j < n; ++j) loss[j] = kept(y[j]) ? of_row(j) : T{0};
      });
    }
    if (!call_.dx.exists()) return;
    const int64_t step = rows_.class_stride(call_.dx);
    T up[kBatch];
    sweep_.upstream(r, n, up);
    rows_.offsets(call_.dx, r, n, true, at);
    zero(call_.dx, step, at, n);
    with_dtype(call_.dx.dtype, [&](auto s) {
      using S = decltype(s);
      S* dx = call_.dx.as<S>();
      for (int64_t j = 0; j < n; ++j)
        if (kept(y[j])) dx[at[j] + y[j] * step] = narrow<S>(-weight<S>(y[j]) * static_cast<double>(up[j]));  // (2)
    });
  }

  template <class S>
  double weight(int64_t y) const {
    return call_.w.exists() ? static_cast<double>(widen(call_.w.as<S>()[y * call_.w.strides[0]])) : 1.0;
  }
  bool kept(int64_t y) const { return y != call_.ignore_index; }

  static void clear(const Tensor& dx, int64_t offset, int64_t n) {
    const int64_t bytes = element_bytes(dx.dtype);
    std::memset(dx.as<char>() + offset * bytes, 0, static_cast<size_t>(n * bytes));
  }

  // Zeroes runs of rows that are adjacent in memory, one after the other or interleaved, at once.
  void zero(const Tensor& dx, int64_t step, const int64_t* at, int64_t n) const {
    const int64_t C = rows_.classes, next = step == 1 ? C : 1;
    for (int64_t j = 0, length = 1; j < n; j += length, length = 1) {
      while (j + length < n && at[j + length] == at[j] + length * next) ++length;
      if (step == 1) {
        clear(dx, at[j], length * C);
      } else {
        for (int64_t c = 0; c < C; ++c) clear(dx, at[j] + c * step, length);
      }
    }
  }

  const Call& call_;
  const Rows rows_;
  const RowSweep<T> sweep_;
};

void nll_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.t = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.ignore_index = in.integer();
  call.by_weight = in.boolean();
  call.scale = in.real();
  call.reduce = in.boolean();
  call.value = in.optional_tensor();
  call.dx = in.optional_tensor();
  const Rows rows = checked_rows("nll_loss", call.x, call.g, call.value, call.reduce, {&call.dx});
  if (call.t.dtype != Dtype::i64 || !rows.fit(call.t, false) ||
      (call.w.exists() && (call.w.dtype != call.x.dtype || !rows.fit_classes(call.w))))
    throw std::runtime_error("manual_grad: the tensors of nll_loss do not fit together");
  with_compute_type(call.x.dtype, [&](auto t) { NegativeLogLikelihood<decltype(t)>(call).run(); });
}

const Op op{"nll_loss",
            "(Tensor x, Tensor t, Tensor? w, Tensor? g, int ignore_index, bool by_weight, float scale, "
            "bool reduce, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
            nll_loss};

}  // namespace
}  // namespace mg
