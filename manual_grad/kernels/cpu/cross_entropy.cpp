// losses/rowwise/cross_entropy.py by the sums of engine/softmax.py; equation numbers refer to the latter. Notation: z
// logits, q effective target, Q its sum, m largest logit, e = exp(z - m), rest the sum of e without the leader's, g
// upstream gradient.
#include <cmath>

#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor z, t, w, g;
  int64_t ignore_index;
  double smoothing;
  bool by_weight;
  double scale;
  bool reduce;
  Tensor value, dz, dt, dw;
};

// T is the compute type. With class indices, every cancellation is avoided by the formulas, so float32 is not widened;
// a soft target can be arbitrarily close to p. S is the type of the scores and determines how accurate an exponential
// must be; bf16 stands for both half-precision types.
template <class S, class T>
class CrossEntropy {
  static constexpr bool kByIndexOnly = std::is_same_v<S, float> && std::is_same_v<T, float>;

 public:
  explicit CrossEntropy(const Call& call)
      : call_(call),
        rows_(call.z),
        by_index_(call.t.dtype == Dtype::i64),
        sweep_(rows_, call.value, call.g, call.scale / divisor(call, rows_), call.reduce),
        base_(by_index_ ? rows_.classes + kLanes<T> : 0) {
    if (by_index_) share_out_smoothing();
    for (const Tensor* result : {&call.dz, &call.dt, &call.dw}) advise_huge_pages(*result);
  }

  void run() {
    with_pack<T>(rows_, call_.z, [&](const auto& pack) {
      using Pack = std::decay_t<decltype(pack)>;
      sweep_.template run<Pack::kRows>([&] { return Worker<Pack>(*this, pack); });
    });
  }

 private:
  struct Buffers {
    const T* z;
    T *e, *q, *scores, *t, *w;  // e may alias z
  };

  template <class Pack>
  class Worker {
   public:
    Worker(const CrossEntropy& of, const Pack& pack)
        : of_(of),
          pack_(pack),
          in_place_(kInPlace && of.by_index_ && is_dense(of.call_.z) &&
                    (!of.call_.dz.exists() || is_dense(of.call_.dz))),
          z_(in_place_ && of.call_.dz.exists() ? 0 : size()),
          q_(of.by_index_ ? 0 : size()),
          scores_(of.wants_scores() ? size() : 0),
          t_(of.wants_scores() ? size() : 0),
          w_(of.by_index_ ? 0 : size()) {}

    void operator()(int64_t r, int64_t n, T* loss) {
      Buffers buffers{z_.get(), z_.get(), q_.get(), scores_.get(), t_.get(), w_.get()};
      if constexpr (kInPlace) {
        if (in_place_) {  // read the row of z and write that of dz without staging
          int64_t from, to;
          of_.rows_.offsets(of_.call_.z, r, 1, true, &from);
          buffers.z = of_.call_.z.template as<S>() + from;
          if (of_.call_.dz.exists()) {
            of_.rows_.offsets(of_.call_.dz, r, 1, true, &to);
            buffers.e = of_.call_.dz.template as<S>() + to;
          }
          of_.index_rows(Pack::in_place(of_.rows_.classes), r, n, buffers, loss);
          return;
        }
      }
      load_pack(of_.rows_, of_.call_.z, r, n, pack_, static_cast<T>(-INFINITY), buffers.e);
      if (of_.by_index_) {
        of_.index_rows(pack_, r, n, buffers, loss);
      } else if constexpr (!kByIndexOnly) {
        of_.probability_rows(pack_, r, n, buffers, loss);
      }
      if (of_.call_.dz.exists()) store_pack(of_.rows_, of_.call_.dz, r, n, pack_, buffers.e);
    }

   private:
    static constexpr bool kInPlace = std::is_same_v<S, T> && Pack::kRows == 1;
    int64_t size() const { return pack_.vectors * kLanes<T>; }
    bool is_dense(const Tensor& tensor) const { return of_.rows_.class_stride(tensor) == 1; }

    const CrossEntropy& of_;
    const Pack& pack_;
    const bool in_place_;
    const Scratch<T> z_, q_, scores_, t_, w_;
  };

  // kept_weight also checks the indices.
  static double divisor(const Call& call, const Rows& rows) {
    if (call.t.dtype != Dtype::i64) return 1;
    const double weight = kept_weight("cross_entropy", rows, call.t, call.w, call.ignore_index);
    return call.by_weight ? weight : 1;
  }

  bool wants_scores() const { return call_.dt.exists() || call_.dw.exists(); }

  void share_out_smoothing() {
    const int64_t C = rows_.classes;
    ExactSum total;
    for (int64_t c = 0; c < C + kLanes<T>; ++c) {
      const double share = c < C ? class_weight(call_.w, c) * call_.smoothing / static_cast<double>(C) : 0.0;
      base_[c] = static_cast<T>(share);
      total.add(share);
    }
    base_total_ = static_cast<T>(total.value());
  }

  struct Sums {
    Vec<T> m, rest, leaders, rest_q, distance;  // (1), the number of leaders, (2)
  };

  template <class Pack>
  static Vec<T> largest(const Pack& pack, const T* z) {
    const Vec<T> low = splat(static_cast<T>(-INFINITY));
    Vec<T> m[4] = {low, low, low, low};  // four independent chains hide the latency of the comparison
    auto join = [](Vec<T>& m, Vec<T> v) { m = ((v > m) | (v != v)) ? v : m; };
    int64_t i = 0;
    for (; i + 4 <= pack.vectors; i += 4)
      for (int j = 0; j < 4; ++j) join(m[j], load(z + (i + j) * kLanes<T>));
    for (; i < pack.vectors; ++i) join(m[0], load(z + i * kLanes<T>));
    if (pack.rest > 0) join(m[0], load_part(z + i * kLanes<T>, pack.rest, low));
    for (int j = 1; j < 4; ++j) join(m[0], m[j]);
    return Pack::max(m[0]);
  }

  static Vec<T> exp_of_gap(Vec<T> z, Vec<T> m) {
    if constexpr (kByIndexOnly) {
      return exp_of_difference<T>(z, m);
    } else {
      return exp_for<S, T>(z - m);
    }
  }

  // (1) and (2); also writes e = exp(z - m) for the gradient. rest leaves out the leader's own e = 1; those of classes
  // that tie with it are added back. q(i) is the effective target of the i-th vector of the pack.
  template <class Pack, class Target>
  static Sums exponentials(const Pack& pack, const T* z, T* e_out, const Target* q) {
    const Vec<T> m = largest(pack, z), zero{}, one = splat(T{1}), low = splat(static_cast<T>(-INFINITY));
    Vec<T> leaders{}, rest_q{}, distance{};
    WideSum<T> rest;
    for_each_vector<T>(pack, [&](int64_t i, auto load, auto store) {
      const Vec<T> v = load(z, low), e = exp_of_gap(v, m);
      store(e_out, e);
      rest.add(e == one ? zero : e);
      leaders += e == one ? one : zero;
      if (q != nullptr) {
        const Vec<T> at_q = (*q)(i);
        rest_q += e == one ? zero : at_q;
        distance -= (at_q == zero) | (v == m) ? zero : at_q * (v - m);  // 0 log 0 = 0; avoids inf * 0 for the leader
      }
    });
    leaders = Pack::sum(leaders);
    if (q != nullptr) {
      rest_q = Pack::sum(rest_q);
      distance = Pack::sum(distance);
    }
    return {m, Pack::sum(rest.narrow()) + (leaders - one), leaders, rest_q, distance};
  }

  // Rows with a leader whose p is above 1/2, for the second form of (8), where an infinite Q could give inf - inf.
  static Mask<T> sole_leader(const Sums& sums, Vec<T> Q) {
    const Vec<T> one = splat(T{1});
    return (sums.leaders == one) & (sums.rest < one) & (abs<T>(Q) < static_cast<T>(INFINITY));
  }

  // Overwrites e with up times (8); lanes of aimed_at use the second form for the leader.
  template <class Pack, class Target>
  static void gradient(const Pack& pack, T* e, const Target* q, Vec<T> Q, Vec<T> up, const Sums& sums,
                       Mask<T> aimed_at) {
    const Vec<T> one = splat(T{1}), slope = up * Q / (one + sums.rest), leader = up * sums.rest_q - slope * sums.rest;
    for_each_vector<T>(pack, [&](int64_t i, auto load, auto store) {
      const Vec<T> v = load(e, Vec<T>{});
      Vec<T> d = v * slope;
      if (q != nullptr) d -= up * (*q)(i);
      store(e, (aimed_at & (v == one)) ? leader : d);
    });
  }

  template <class Pack>
  [[gnu::noinline]]
  void index_rows(const Pack& pack, int64_t r, int64_t n, const Buffers& buffers, T* loss) const {
    int64_t y[Pack::kRows] = {}, at[Pack::kRows];
    alignas(64) T own[Pack::kRows] = {}, kept[Pack::kRows] = {}, z_y[Pack::kRows] = {}, e_y[Pack::kRows];
    const T* z = buffers.z;
    T* e = buffers.e;
    rows_.offsets(call_.t, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) {
      y[j] = call_.t.as<int64_t>()[at[j]];
      if (y[j] == call_.ignore_index) {  // an ignored row contributes nothing, whatever it holds
        for (int64_t c = 0; c < rows_.classes; ++c) e[Pack::at(c, j)] = 0;
        if (Pack::kRows == 1) {
          loss[0] = 0;
          return;
        }
        y[j] = 0;
        continue;
      }
      kept[j] = 1;
      own[j] = static_cast<T>((1.0 - call_.smoothing) * class_weight(call_.w, y[j]));
      z_y[j] = z[Pack::at(y[j], j)];
    }
    const Vec<T> is_kept = Pack::per_row(kept), at_y = Pack::per_row(own), one = splat(T{1});
    auto share = [&](int64_t i) { return Pack::per_class(base_.get(), i) * is_kept; };
    const auto* q = call_.smoothing != 0.0 ? &share : nullptr;
    Sums sums = exponentials(pack, z, e, q);
    const Vec<T> Q = at_y + (q != nullptr ? base_total_ * is_kept : Vec<T>{});
    const Vec<T> gap = sums.m - Pack::per_row(z_y), zero{};
    const Vec<T> distance = (at_y == zero) | (gap == zero) ? zero : at_y * gap;  // 0 log 0 = 0
    Pack::per_row(distance + sums.distance + Q * log1p<T>(sums.rest), loss);  // (6)
    if (!call_.dz.exists()) return;

    for (int64_t j = 0; j < Pack::kRows; ++j) e_y[j] = j < n ? e[Pack::at(y[j], j)] : T{0};
    // the mean over no rows has the scale 1/0, which must not reach ignored rows
    const Vec<T> at_e = Pack::per_row(e_y), up = is_kept == one ? sweep_.template upstream<Pack>(r, n) : Vec<T>{};
    const Mask<T> leads = at_e == one, sole = sole_leader(sums, Q), exact = leads & sole;
    sums.rest_q += leads ? Vec<T>{} : at_y;
    gradient(pack, e, q, Q, up, sums, q != nullptr ? sole : exact);
    alignas(64) T d_y[Pack::kRows], done[Pack::kRows];
    Pack::per_row(up * (Q * (at_e / (one + sums.rest)) - at_y), d_y);
    Pack::per_row(exact ? one : Vec<T>{}, done);
    for (int64_t j = 0; j < n; ++j) {
      if (done[j] != 0) continue;
      T& d = e[Pack::at(y[j], j)];
      d = d_y[j] - (q != nullptr ? base_[y[j]] * kept[j] * up[Pack::kRows == 1 ? 0 : j] : T{0});
    }
  }

  template <class Pack>
  [[gnu::noinline]]
  void probability_rows(const Pack& pack, int64_t r, int64_t n, const Buffers& buffers, T* loss) const {
    const T keep = static_cast<T>(1.0 - call_.smoothing);
    const T share = static_cast<T>(call_.smoothing / static_cast<double>(rows_.classes));
    const int64_t size = pack.vectors * kLanes<T>;
    auto [z, e, q, scores, t, w] = buffers;
    const bool weighted = call_.w.exists(), want_scores = wants_scores();
    load_pack(rows_, call_.t, r, n, pack, T{0}, q);
    if (weighted) load_pack(rows_, call_.w, r, n, pack, T{0}, w);
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
    const Sums sums = exponentials(pack, z, e, &target);
    const Vec<T> log_s = log1p<T>(sums.rest);
    Pack::per_row(sums.distance + Q * log_s, loss);  // (6)
    if (call_.dz.exists()) gradient(pack, e, &target, Q, up, sums, sole_leader(sums, Q));
    if (!want_scores) return;
    for (int64_t i = 0; i < size; i += kLanes<T>) {
      const Vec<T> slope = up * ((sums.m - load(scores + i)) + log_s);
      store<T>(t + i, load(t + i) * slope);
      store<T>(scores + i, weighted ? keep * load(w + i) * slope : keep * slope);
    }
    if (call_.dt.exists()) store_pack(rows_, call_.dt, r, n, pack, scores);
    if (call_.dw.exists()) store_pack(rows_, call_.dw, r, n, pack, t);
  }

  const Call& call_;
  const Rows rows_;
  const bool by_index_;
  const RowSweep<T> sweep_;
  Scratch<T> base_;  // for class indices: the label smoothing of each class, zero beyond the last
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
  call.by_weight = in.boolean();
  call.scale = in.real();
  call.reduce = in.boolean();
  call.value = in.optional_tensor();
  call.dz = in.optional_tensor();
  call.dt = in.optional_tensor();
  call.dw = in.optional_tensor();
  const Rows rows =
      checked_rows("cross_entropy", call.z, call.g, call.value, call.reduce, {&call.dz, &call.dt, &call.dw});
  const bool by_index = call.t.dtype == Dtype::i64;
  if (!rows.fit(call.t, !by_index) || (!by_index && call.t.dtype != call.z.dtype) ||
      (call.w.exists() &&
       (call.w.dtype != call.z.dtype || !(by_index ? rows.fit_classes(call.w) : same_shape(call.w, call.z)))))
    throw std::runtime_error("manual_grad: the tensors of cross_entropy do not fit together");
  if (call.z.dtype == Dtype::f64)
    CrossEntropy<double, double>(call).run();
  else if (call.z.dtype != Dtype::f32)
    CrossEntropy<bf16, float>(call).run();
  else if (by_index && call.smoothing == 0)
    CrossEntropy<float, float>(call).run();
  else
    CrossEntropy<float, double>(call).run();
}

const Op op{"cross_entropy",
            "(Tensor z, Tensor t, Tensor? w, Tensor? g, int ignore_index, float smoothing, bool by_weight, "
            "float scale, bool reduce, Tensor(a!)? value, Tensor(b!)? dz, Tensor(c!)? dt, Tensor(d!)? dw) -> ()",
            cross_entropy};

}  // namespace
}  // namespace mg
