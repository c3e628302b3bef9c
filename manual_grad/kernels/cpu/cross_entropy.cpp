// losses/rowwise/cross_entropy.py by the sums of engine/softmax.py; equation numbers refer to the latter. Notation: z
// logits, q effective target, Q its sum, m largest logit, e = exp(z - m), rest the sum of e without the leader's, g
// upstream gradient.
#include <algorithm>
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
  // A row where it lies (Number is S), or staged rows (Number is T); null where there is none. e may be dz, and if
  // staged also z.
  template <class Number>
  struct Operands {
    const Number *z, *t, *w;
    T* e;
    Number *dz, *dt, *dw;
  };

  template <class Pack>
  class Worker {
   public:
    Worker(const CrossEntropy& of, const Pack& pack)
        : of_(of),
          pack_(pack),
          in_place_(lie_dense(of)),
          z_(in_place_ ? 0 : size()),
          e_(of.by_index_ && !in_place_ ? 0 : size()),
          t_(of.by_index_ || in_place_ ? 0 : size()),
          w_(of.by_index_ || in_place_ ? 0 : size()),
          dt_(of.wants_scores() && !in_place_ ? size() : 0),
          dw_(of.wants_scores() && !in_place_ ? size() : 0) {}

    void operator()(int64_t r, int64_t n, T* loss) {
      if constexpr (kInPlace)
        if (in_place_) {
          Operands<S> row{lying(of_.call_.z, r),  lying(of_.call_.t, r),  lying(of_.call_.w, r), e_.get(),
                          lying(of_.call_.dz, r), lying(of_.call_.dt, r), lying(of_.call_.dw, r)};
          if constexpr (std::is_same_v<S, T>)
            if (row.dz != nullptr && !of_.wants_scores()) row.e = row.dz;  // dz may be z, which dt and dw need
          of_.compute(Pack::in_place(of_.rows_.classes), r, n, row, loss);
          return;
        }
      const Call& call = of_.call_;
      load_pack(of_.rows_, call.z, r, n, pack_, static_cast<T>(-INFINITY), z_.get());
      if (!of_.by_index_) load_pack(of_.rows_, call.t, r, n, pack_, T{0}, t_.get());
      if (!of_.by_index_ && call.w.exists()) load_pack(of_.rows_, call.w, r, n, pack_, T{0}, w_.get());
      T* const e = of_.by_index_ ? z_.get() : e_.get();
      of_.compute(
          pack_, r, n,
          Operands<T>{z_.get(), t_.get(), call.w.exists() ? w_.get() : nullptr, e, call.dz.exists() ? e : nullptr,
                      call.dt.exists() ? dt_.get() : nullptr, call.dw.exists() ? dw_.get() : nullptr},
          loss);
      if (call.dz.exists()) store_pack(of_.rows_, call.dz, r, n, pack_, e);
      if (call.dt.exists()) store_pack(of_.rows_, call.dt, r, n, pack_, dt_.get());
      if (call.dw.exists()) store_pack(of_.rows_, call.dw, r, n, pack_, dw_.get());
    }

   private:
    static constexpr bool kInPlace = (std::is_same_v<S, float> || std::is_same_v<S, double>) && Pack::kRows == 1;
    int64_t size() const { return pack_.vectors * kLanes<T>; }

    static bool lie_dense(const CrossEntropy& of) {
      const Call& call = of.call_;
      bool dense = kInPlace;
      for (const Tensor* tensor : {&call.z, &call.dz})
        dense = dense && (!tensor->exists() || of.rows_.class_stride(*tensor) == 1);
      if (!of.by_index_)
        for (const Tensor* tensor : {&call.t, &call.w, &call.dt, &call.dw})
          dense = dense && (!tensor->exists() || of.rows_.class_stride(*tensor) == 1);
      return dense;
    }
    // The row of a tensor of scores.
    S* lying(const Tensor& tensor, int64_t r) const {
      if (!tensor.exists() || tensor.dtype != of_.call_.z.dtype || !of_.rows_.fit(tensor, true)) return nullptr;
      return of_.rows_.template row<S>(tensor, r);
    }

    const CrossEntropy& of_;
    const Pack& pack_;
    const bool in_place_;
    const Scratch<T> z_, e_, t_, w_, dt_, dw_;
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

  template <class Pack, class Number>
  void compute(const Pack& pack, int64_t r, int64_t n, const Operands<Number>& operands, T* loss) const {
    if (by_index_)
      index_rows(pack, r, n, operands, loss);
    else if constexpr (!kByIndexOnly)
      probability_rows(pack, r, n, operands, loss);
  }

  // What label smoothing gives to each class of the rows that are kept; the same to all but for class weights.
  template <class Pack>
  struct Shares {
    const T* base;
    int64_t equal;  // vectors of the pack of which all lanes are given the same
    Vec<T> kept, each;

    template <class Load>
    Vec<T> operator()(int64_t i, const Load&) const {
      return i < equal ? each : Pack::per_class(base, i) * kept;
    }
  };
  template <class Pack>
  Shares<Pack> shares(Vec<T> kept) const {
    const int64_t whole =
        rows_.classes / (Pack::kRows == 1 ? kLanes<T> : 1);  // in the last vector, the padding has none
    return {base_.get(), call_.w.exists() ? 0 : whole, kept, Pack::per_class(base_.get(), 0) * kept};
  }

  struct Sums {
    Vec<T> m, rest, leaders, rest_q, distance, Q;  // (1), the number of leaders, (2), the sum of q
  };

  // Passes over NaN, which the exponentials find.
  template <class Pack, class Number>
  static Vec<T> largest(const Pack& pack, const Number* z) {
    if constexpr (Pack::kRows > 1) {
      Vec<T> m = splat(static_cast<T>(-INFINITY));
      for (int64_t i = 0; i < pack.vectors; ++i) m = at_least_bound(m, load(z + i * kLanes<T>));
      return m;
    } else {
      constexpr int64_t lanes = kLanes<Number>;
      const int64_t n = pack.vectors * kLanes<T> + pack.rest;
      const Vec<Number> low = splat(static_cast<Number>(-INFINITY));
      Vec<Number> m[4] = {low, low, low, low};  // four independent chains hide the latency of the comparison
      int64_t i = 0;
      for (; i + 4 * lanes <= n; i += 4 * lanes)
        for (int j = 0; j < 4; ++j) m[j] = at_least_bound(m[j], load(z + i + j * lanes));
      for (; i + lanes <= n; i += lanes) m[0] = at_least_bound(m[0], load(z + i));
      if (i < n) m[1] = at_least_bound(m[1], load_part(z + i, n - i, low));
      for (int j = 1; j < 4; ++j) m[0] = at_least_bound(m[0], m[j]);
      return splat(static_cast<T>(fold<Number>(m[0], [](Number a, Number b) { return a > b ? a : b; })));
    }
  }

  static Vec<T> exp_of_gap(Vec<T> z, Vec<T> m) {
    if constexpr (kByIndexOnly) {
      return exp_of_difference<T>(z, m);
    } else {
      return exp_for<S, T>(z - m);
    }
  }

  // (1) and (2); also writes e = exp(z - m) for the gradient. rest leaves out the leader's own e = 1; those of classes
  // that tie with it are added back. q(i, load) is the effective target of the i-th vector of the pack; where it is the
  // same for all classes, it is a factor of the sums.
  template <class Pack, class Number, class Target>
  static Sums exponentials(const Pack& pack, const Number* z, T* e_out, const Target* q) {
    const Vec<T> m = largest(pack, z), zero{}, one = splat(T{1}), low = splat(static_cast<T>(-INFINITY));
    Vec<T> leaders{}, rest_q{}, distance{}, Q{}, equal_leaders{}, equal_gaps{};
    WideSum<T> rest;
    for_each_vector<T>(pack, [&](int64_t i, auto load, auto store) {
      const Vec<T> v = load(z, low), e = exp_of_gap(v, m);
      store(e_out, e);
      rest.add(e == one ? zero : e);
      if constexpr (std::is_same_v<Target, Shares<Pack>>)
        if (q != nullptr && i < q->equal) {
          equal_leaders += e == one ? one : zero;
          equal_gaps += m - v;
          return;
        }
      leaders += e == one ? one : zero;
      if (q != nullptr) {
        const Vec<T> at_q = (*q)(i, load);
        Q += at_q;
        rest_q += e == one ? zero : at_q;
        distance -= (at_q == zero) | (v == m) ? zero : at_q * (v - m);  // 0 log 0 = 0; avoids inf * 0 for the leader
      }
    });
    leaders = Pack::sum(leaders);
    if (q != nullptr) {
      rest_q = Pack::sum(rest_q);
      distance = Pack::sum(distance);
      Q = Pack::sum(Q);
    }
    if constexpr (std::is_same_v<Target, Shares<Pack>>)
      if (q != nullptr && q->equal > 0) {
        const auto classes = static_cast<T>(q->equal * (Pack::kRows == 1 ? kLanes<T> : 1));
        equal_leaders = Pack::sum(equal_leaders);
        leaders += equal_leaders;
        rest_q += q->each * (classes - equal_leaders);
        distance += q->each * Pack::sum(equal_gaps);
      }
    return {m, Pack::sum(rest.narrow()) + (leaders - one), leaders, rest_q, distance, Q};
  }

  // Rows with a leader whose p is above 1/2, for the second form of (8), where an infinite Q could give inf - inf.
  static Mask<T> sole_leader(const Sums& sums, Vec<T> Q) {
    const Vec<T> one = splat(T{1});
    return (sums.leaders == one) & (sums.rest < one) & (abs<T>(Q) < static_cast<T>(INFINITY));
  }

  // Makes dz of e: up times (8); lanes of aimed_at use the second form for the leader.
  template <class Pack, class Number, class Target>
  static void gradient(const Pack& pack, const T* e, Number* dz, const Target* q, Vec<T> Q, Vec<T> up, const Sums& sums,
                       Mask<T> aimed_at) {
    const Vec<T> one = splat(T{1}), slope = up * Q / (one + sums.rest), leader = up * sums.rest_q - slope * sums.rest;
    Vec<T> each{};
    if constexpr (std::is_same_v<Target, Shares<Pack>>)
      if (q != nullptr) each = up * q->each;
    for_each_vector<T>(pack, [&](int64_t i, auto load, auto store) {
      const Vec<T> v = load(e, Vec<T>{});
      Vec<T> d = v * slope;
      if constexpr (std::is_same_v<Target, Shares<Pack>>) {
        if (q != nullptr) d -= i < q->equal ? each : up * (*q)(i, load);
      } else if (q != nullptr) {
        d -= up * (*q)(i, load);
      }
      store(dz, (aimed_at & (v == one)) ? leader : d);
    });
  }

  template <class Pack, class Number>
  [[gnu::noinline]]
  void index_rows(const Pack& pack, int64_t r, int64_t n, const Operands<Number>& operands, T* loss) const {
    int64_t y[Pack::kRows] = {}, at[Pack::kRows];
    alignas(64) T own[Pack::kRows] = {}, kept[Pack::kRows] = {}, z_y[Pack::kRows] = {}, e_y[Pack::kRows];
    const auto [z, t, w, e, dz, dt, dw] = operands;
    rows_.offsets(call_.t, r, n, false, at);
    for (int64_t j = 0; j < n; ++j) {
      y[j] = call_.t.as<int64_t>()[at[j]];
      if (y[j] == call_.ignore_index) {  // an ignored row contributes nothing, whatever it holds
        if (Pack::kRows == 1) {
          if (dz != nullptr) std::fill(dz, dz + rows_.classes, Number{0});
          loss[0] = 0;
          return;
        }
        for (int64_t c = 0; c < rows_.classes; ++c) e[Pack::at(c, j)] = 0;  // e is z here
        y[j] = 0;
        continue;
      }
      kept[j] = 1;
      own[j] = static_cast<T>((1.0 - call_.smoothing) * class_weight(call_.w, y[j]));
      z_y[j] = static_cast<T>(z[Pack::at(y[j], j)]);
    }
    const Vec<T> is_kept = Pack::per_row(kept), at_y = Pack::per_row(own), one = splat(T{1});
    const Shares<Pack> given = shares<Pack>(is_kept), *q = call_.smoothing != 0.0 ? &given : nullptr;
    Sums sums = exponentials(pack, z, e, q);
    const Vec<T> Q = at_y + (q != nullptr ? base_total_ * is_kept : Vec<T>{});
    const Vec<T> gap = sums.m - Pack::per_row(z_y), zero{};
    const Vec<T> distance = (at_y == zero) | (gap == zero) ? zero : at_y * gap;  // 0 log 0 = 0
    Pack::per_row(distance + sums.distance + Q * log1p<T>(sums.rest), loss);  // (6)
    if (dz == nullptr) return;

    for (int64_t j = 0; j < Pack::kRows; ++j) e_y[j] = j < n ? e[Pack::at(y[j], j)] : T{0};
    // the mean over no rows has the scale 1/0, which must not reach ignored rows
    const Vec<T> at_e = Pack::per_row(e_y), up = is_kept == one ? sweep_.template upstream<Pack>(r, n) : Vec<T>{};
    const Mask<T> leads = at_e == one, sole = sole_leader(sums, Q), exact = leads & sole;
    sums.rest_q += leads ? Vec<T>{} : at_y;
    gradient(pack, e, dz, q, Q, up, sums, q != nullptr ? sole : exact);
    alignas(64) T d_y[Pack::kRows], done[Pack::kRows];
    Pack::per_row(up * (Q * (at_e / (one + sums.rest)) - at_y), d_y);
    Pack::per_row(exact ? one : Vec<T>{}, done);
    for (int64_t j = 0; j < n; ++j) {
      if (done[j] != 0) continue;
      const T smoothed = q != nullptr ? base_[y[j]] * kept[j] * up[Pack::kRows == 1 ? 0 : j] : T{0};
      dz[Pack::at(y[j], j)] = static_cast<Number>(d_y[j] - smoothed);
    }
  }

  template <class Pack, class Number>
  [[gnu::noinline]]
  void probability_rows(const Pack& pack, int64_t r, int64_t n, const Operands<Number>& operands, T* loss) const {
    const T keep = static_cast<T>(1.0 - call_.smoothing);
    const T share = static_cast<T>(call_.smoothing / static_cast<double>(rows_.classes));
    const auto [z, t, w, e, dz, dt, dw] = operands;
    const Vec<T> zero{}, one = splat(T{1});
    // What a class is given, zero in the padding, and its weight.
    const int64_t whole = Pack::kRows == 1 ? rows_.classes / kLanes<T> : pack.vectors;
    auto smoothed = [&, t = t](int64_t i, auto load) {
      const Vec<T> at_t = keep * load(t, zero) + share;
      return i < whole ? at_t : first_lanes<T>(at_t, rows_.classes - i * kLanes<T>);
    };
    auto weight = [&, w = w](auto load) { return w != nullptr ? load(w, zero) : one; };
    auto target = [&](int64_t i, auto load) { return smoothed(i, load) * weight(load); };
    const Sums sums = exponentials(pack, z, e, &target);
    const Vec<T> Q = sums.Q, log_s = log1p<T>(sums.rest), up = sweep_.template upstream<Pack>(r, n);
    Pack::per_row(sums.distance + Q * log_s, loss);  // (6)
    if (dt != nullptr || dw != nullptr)
      for_each_vector<T>(pack, [&, z = z, dt = dt, dw = dw](int64_t i, auto load, auto store) {
        const Vec<T> slope = up * ((sums.m - load(z, zero)) + log_s);
        if (dt != nullptr) store(dt, keep * weight(load) * slope);
        if (dw != nullptr) store(dw, smoothed(i, load) * slope);
      });
    if (dz != nullptr) gradient(pack, e, dz, &target, Q, up, sums, sole_leader(sums, Q));
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
