// losses/cross_entropy.py. Letters: z logits, q effective target, Q its sum, m largest logit, e = exp(z - m), rest the sum
// of e without the leader's, g upstream.
#include <cmath>

#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor z, t, w, g;
  int64_t ignore_index, reduction;
  double smoothing;
  Tensor value, dz, dt, dw;
};

template <class S>
class CrossEntropy {
  using T = typename ComputeType<S>::T;

 public:
  explicit CrossEntropy(const Call& call)
      : call_(call),
        rows_(call.z),
        by_index_(call.t.dtype == Dtype::i64),
        sweep_(rows_, call.value, call.g, call.reduction,
               by_index_ ? kept_weight<S>("cross_entropy", rows_, call.t, call.w, call.ignore_index)
                         : static_cast<double>(rows_.count)),
        base_(by_index_ ? rows_.classes + kLanes<T> : 0) {
    if (by_index_) share_out_smoothing();
    for (const Tensor* result : {&call.dz, &call.dt, &call.dw})
      if (result->exists()) advise_huge_pages(*result, result->numel * static_cast<int64_t>(sizeof(S)));
  }

  void run() {
    with_pack<T>(rows_, call_.z, [&](const auto& pack) {
      using Pack = std::decay_t<decltype(pack)>;
      sweep_.template run<Pack::kRows>([&] { return Worker<Pack>(*this, pack); });
    });
  }

 private:
  struct Buffers {
    T *z, *q, *scores, *t, *w;
  };

  template <class Pack>
  class Worker {
   public:
    Worker(const CrossEntropy& of, const Pack& pack)
        : of_(of),
          pack_(pack),
          z_(size()),
          q_(of.by_index_ ? 0 : size()),
          scores_(of.wants_scores() ? size() : 0),
          t_(of.wants_scores() ? size() : 0),
          w_(of.by_index_ ? 0 : size()) {}

    void operator()(int64_t r, int64_t n, T* loss) {
      const Buffers buffers{z_.get(), q_.get(), scores_.get(), t_.get(), w_.get()};
      load_pack<S>(of_.rows_, of_.call_.z, r, n, pack_, static_cast<T>(-INFINITY), buffers.z);
      if (of_.by_index_) {
        of_.index_rows(pack_, r, n, buffers, loss);
      } else {
        of_.probability_rows(pack_, r, n, buffers, loss);
      }
      if (of_.call_.dz.exists()) store_pack<S>(of_.rows_, of_.call_.dz, r, n, pack_, buffers.z);
    }

   private:
    int64_t size() const { return pack_.vectors * kLanes<T>; }

    const CrossEntropy& of_;
    const Pack& pack_;
    const Scratch<T> z_, q_, scores_, t_, w_;
  };

  bool wants_scores() const { return call_.dt.exists() || call_.dw.exists(); }

  void share_out_smoothing() {
    const int64_t C = rows_.classes;
    ExactSum total;
    for (int64_t c = 0; c < C + kLanes<T>; ++c) {
      const double share = c < C ? class_weight<S>(call_.w, c) * call_.smoothing / static_cast<double>(C) : 0.0;
      base_[c] = static_cast<T>(share);
      total.add(share);
    }
    base_total_ = static_cast<T>(total.value());
  }

  struct Sums {
    Vec<T> m, rest, leaders, rest_q, distance;  // distance = sum of q (m - z)
  };

  // z becomes e = exp(z - m). The leading class' own e = 1 is left out of rest, so that 1 - p keeps its digits.
  // q(i) is the effective target of the i-th vector of the pack.
  template <class Pack, class Target>
  static Sums exponentials(const Pack& pack, T* z, const Target* q) {
    Vec<T> m = splat(static_cast<T>(-INFINITY));
    for (int64_t i = 0; i < pack.vectors; ++i) {
      const Vec<T> v = load(z + i * kLanes<T>);
      m = ((v > m) | (v != v)) ? v : m;
    }
    m = Pack::max(m);
    const Vec<T> zero{}, one = splat(T{1});
    Vec<T> rest{}, leaders{}, rest_q{}, distance{};
    for (int64_t i = 0; i < pack.vectors; ++i) {
      T* at = z + i * kLanes<T>;
      const Vec<T> gap = load(at) - m, e = exp_for<S, T>(gap);
      store<T>(at, e);
      rest += e == one ? zero : e;
      leaders += e == one ? one : zero;
      if (q != nullptr) {
        const Vec<T> at_q = (*q)(i);
        rest_q += e == one ? zero : at_q;
        distance -= at_q == zero ? zero : at_q * gap;  // 0 log 0 = 0
      }
    }
    leaders = Pack::sum(leaders);
    return {m, Pack::sum(rest) + (leaders - one), leaders, Pack::sum(rest_q), Pack::sum(distance)};
  }

  // e becomes up (Q p - q); a sole leader's component is up (rest_q - Q (1 - p)).
  template <class Pack, class Target>
  static void gradient(const Pack& pack, T* e, const Target* q, Vec<T> Q, Vec<T> up, const Sums& sums) {
    const Vec<T> one = splat(T{1}), slope = up * Q / (one + sums.rest), leader = up * sums.rest_q - slope * sums.rest;
    const Mask<T> sole = sums.leaders == one;
    for (int64_t i = 0; i < pack.vectors; ++i) {
      T* at = e + i * kLanes<T>;
      const Vec<T> v = load(at);
      Vec<T> d = v * slope;
      if (q != nullptr) d -= (*q)(i) * up;
      store<T>(at, (sole & (v == one)) ? leader : d);
    }
  }

  template <class Pack>
  void index_rows(const Pack& pack, int64_t r, int64_t n, const Buffers& buffers, T* loss) const {
    int64_t y[Pack::kRows], at[Pack::kRows];
    alignas(64) T own[Pack::kRows] = {}, kept[Pack::kRows] = {}, z_y[Pack::kRows] = {}, e_y[Pack::kRows];
    T* z = buffers.z;
    rows_.offsets(call_.t, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) {
      y[j] = call_.t.as<int64_t>()[at[j]];
      if (y[j] == call_.ignore_index) {  // whatever the row holds, it has no part in the result
        for (int64_t c = 0; c < rows_.classes; ++c) z[Pack::at(c, j)] = 0;
        y[j] = 0;
        continue;
      }
      kept[j] = 1;
      own[j] = static_cast<T>((1.0 - call_.smoothing) * class_weight<S>(call_.w, y[j]));
      z_y[j] = z[Pack::at(y[j], j)];
    }
    const Vec<T> is_kept = Pack::per_row(kept), at_y = Pack::per_row(own), one = splat(T{1});
    auto share = [&](int64_t i) { return Pack::per_class(base_.get(), i) * is_kept; };
    const auto* q = call_.smoothing != 0.0 ? &share : nullptr;
    Sums sums = exponentials(pack, z, q);
    const Vec<T> Q = at_y + (q != nullptr ? base_total_ * is_kept : Vec<T>{});
    Pack::per_row(at_y * (sums.m - Pack::per_row(z_y)) + sums.distance + Q * log1p<T>(sums.rest), loss);
    if (!call_.dz.exists()) return;

    for (int64_t j = 0; j < Pack::kRows; ++j) e_y[j] = j < n ? z[Pack::at(y[j], j)] : T{0};
    // the mean over no rows has a scale of 1/0, which must not reach an ignored row
    const Vec<T> at_e = Pack::per_row(e_y), up = is_kept == one ? sweep_.template upstream<Pack>(r, n) : Vec<T>{};
    const Mask<T> leads = at_e == one, exact = leads & (sums.leaders == one);
    sums.rest_q += leads ? Vec<T>{} : at_y;
    gradient(pack, z, q, Q, up, sums);
    alignas(64) T d_y[Pack::kRows], done[Pack::kRows];
    Pack::per_row(up * (Q * (at_e / (one + sums.rest)) - at_y), d_y);
    Pack::per_row(exact ? one : Vec<T>{}, done);
    for (int64_t j = 0; j < n; ++j) {
      if (done[j] != 0) continue;
      T& d = z[Pack::at(y[j], j)];
      d = d_y[j] - (q != nullptr ? base_[y[j]] * kept[j] * up[Pack::kRows == 1 ? 0 : j] : T{0});
    }
  }

  template <class Pack>
  void probability_rows(const Pack& pack, int64_t r, int64_t n, const Buffers& buffers, T* loss) const {
    const T keep = static_cast<T>(1.0 - call_.smoothing);
    const T share = static_cast<T>(call_.smoothing / static_cast<double>(rows_.classes));
    const int64_t size = pack.vectors * kLanes<T>;
    auto [z, q, scores, t, w] = buffers;
    const bool weighted = call_.w.exists(), want_scores = wants_scores();
    load_pack<S>(rows_, call_.t, r, n, pack, T{0}, q);
    if (weighted) load_pack<S>(rows_, call_.w, r, n, pack, T{0}, w);
    Vec<T> total{};
    for (int64_t i = 0; i < size; i += kLanes<T>) {
      Vec<T> smooth = keep * load(q + i) + share;
      if (want_scores) store<T>(t + i, smooth);
      if (weighted) smooth *= load(w + i);
      store<T>(q + i, smooth);
    }
    if (Pack::kRows == 1) std::fill(q + rows_.classes, q + size, T{0});
    for (int64_t i = 0; i < size; i += kLanes<T>) total += load(q + i);
    if (want_scores) std::copy(z, z + size, scores);
    const Vec<T> Q = Pack::sum(total), up = sweep_.template upstream<Pack>(r, n);
    auto target = [q = q](int64_t i) { return load(q + i * kLanes<T>); };
    const Sums sums = exponentials(pack, z, &target);
    const Vec<T> log_s = log1p<T>(sums.rest);
    Pack::per_row(sums.distance + Q * log_s, loss);
    if (call_.dz.exists()) gradient(pack, z, &target, Q, up, sums);
    if (!want_scores) return;
    for (int64_t i = 0; i < size; i += kLanes<T>) {
      const Vec<T> slope = up * ((sums.m - load(scores + i)) + log_s);
      store<T>(t + i, load(t + i) * slope);
      store<T>(scores + i, weighted ? keep * load(w + i) * slope : keep * slope);
    }
    if (call_.dt.exists()) store_pack<S>(rows_, call_.dt, r, n, pack, scores);
    if (call_.dw.exists()) store_pack<S>(rows_, call_.dw, r, n, pack, t);
  }

  const Call& call_;
  const Rows rows_;
  const bool by_index_;
  const RowSweep<S> sweep_;
  Scratch<T> base_;  // index targets: the smoothing's share of every class, zero beyond the last
  T base_total_ = 0;
};

void cross_entropy(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.z = in.tensor();
  call.t = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.ignore_index = in.integer();
  call.smoothing = in.real();
  call.reduction = in.integer();
  call.value = in.optional_tensor();
  call.dz = in.optional_tensor();
  call.dt = in.optional_tensor();
  call.dw = in.optional_tensor();
  const Rows rows = checked_rows("cross_entropy", call.z, call.g, call.value, call.reduction, {&call.dz, &call.dt, &call.dw});
  const bool by_index = call.t.dtype == Dtype::i64;
  if (call.t.numel != (by_index ? rows.count : call.z.numel) || (!by_index && call.t.dtype != call.z.dtype) ||
      (call.w.exists() && (call.w.dtype != call.z.dtype || call.w.numel != (by_index ? rows.classes : call.z.numel))))
    throw std::runtime_error("manual_grad: the tensors of cross_entropy do not fit together");
  with_dtype(call.z.dtype, [&](auto s) { CrossEntropy<decltype(s)>(call).run(); });
}

}  // namespace

const std::initializer_list<Op> cross_entropy_ops = {
    {"cross_entropy",
     "(Tensor z, Tensor t, Tensor? w, Tensor? g, int ignore_index, float smoothing, int reduction, "
     "Tensor(a!)? value, Tensor(b!)? dz, Tensor(c!)? dt, Tensor(d!)? dw) -> ()",
     cross_entropy},
};

}  // namespace mg
