// losses/nll_loss.py. The gradient is zero but for one entry of a row: the rows are zeroed and their entries written in
// one sweep.
#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor x, t, w, g;
  int64_t ignore_index, reduction;
  Tensor value, dx;
};

template <class S>
class NegativeLogLikelihood {
  using T = typename ComputeType<S>::T;
  static constexpr int64_t kBatch = 512;

 public:
  explicit NegativeLogLikelihood(const Call& call)
      : call_(call),
        rows_(call.x),
        sweep_(rows_, call.value, call.g, call.reduction,
               kept_weight<S>("nll_loss", rows_, call.t, call.w, call.ignore_index)) {
    if (call.dx.exists()) advise_huge_pages(call.dx, call.dx.numel * static_cast<int64_t>(sizeof(S)));
  }

  void run() const {
    sweep_.template run<kBatch>([this] { return [this](int64_t r, int64_t n, T* loss) { batch(r, n, loss); }; });
  }

 private:
  void batch(int64_t r, int64_t n, T* loss) const {
    int64_t y[kBatch], at[kBatch];
    rows_.offsets(call_.t, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) y[j] = call_.t.as<int64_t>()[at[j]];
    if (call_.value.exists()) {
      const S* x = call_.x.as<S>();
      const int64_t step = rows_.class_stride(call_.x);
      rows_.offsets(call_.x, r, n, true, at);
      for (int64_t j = 0; j < n; ++j)
        loss[j] = kept(y[j]) ? -static_cast<T>(class_weight<S>(call_.w, y[j])) * widen(x[at[j] + y[j] * step]) : T{0};  // (1)
    }
    if (!call_.dx.exists()) return;
    S* dx = call_.dx.as<S>();
    const int64_t step = rows_.class_stride(call_.dx);
    T up[kBatch];
    sweep_.upstream(r, n, up);
    rows_.offsets(call_.dx, r, n, true, at);
    zero(dx, step, at, n);
    for (int64_t j = 0; j < n; ++j)
      if (kept(y[j])) dx[at[j] + y[j] * step] = narrow<S>(-class_weight<S>(call_.w, y[j]) * static_cast<double>(up[j]));  // (2)
  }

  bool kept(int64_t y) const { return y != call_.ignore_index; }

  // Rows that lie one after the other, or side by side, are zeroed together.
  void zero(S* dx, int64_t step, const int64_t* at, int64_t n) const {
    const int64_t C = rows_.classes, next = step == 1 ? C : 1;
    for (int64_t j = 0, length = 1; j < n; j += length, length = 1) {
      while (j + length < n && at[j + length] == at[j] + length * next) ++length;
      if (step == 1) {
        std::memset(dx + at[j], 0, static_cast<size_t>(length * C) * sizeof(S));
      } else {
        for (int64_t c = 0; c < C; ++c) std::memset(dx + at[j] + c * step, 0, static_cast<size_t>(length) * sizeof(S));
      }
    }
  }

  const Call& call_;
  const Rows rows_;
  const RowSweep<S> sweep_;
};

void nll_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.t = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.ignore_index = in.integer();
  call.reduction = in.integer();
  call.value = in.optional_tensor();
  call.dx = in.optional_tensor();
  const Rows rows = checked_rows("nll_loss", call.x, call.g, call.value, call.reduction, {&call.dx});
  if (call.t.dtype != Dtype::i64 || !rows.fit(call.t, false) ||
      (call.w.exists() && (call.w.dtype != call.x.dtype || !rows.fit_classes(call.w))))
    throw std::runtime_error("manual_grad: the tensors of nll_loss do not fit together");
  with_dtype(call.x.dtype, [&](auto s) { NegativeLogLikelihood<decltype(s)>(call).run(); });
}

}  // namespace

const std::initializer_list<Op> nll_loss_ops = {
    {"nll_loss",
     "(Tensor x, Tensor t, Tensor? w, Tensor? g, int ignore_index, int reduction, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
     nll_loss},
};

}  // namespace mg
