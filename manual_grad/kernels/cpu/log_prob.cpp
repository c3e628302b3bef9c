// losses/rowwise/log_prob_and_entropy.py; equation numbers refer to it. Notation: x scores, z the logits made of them,
// m the largest logit, d = m - z, e = exp(-d), rest the sum of e without the leader's, tau that of e d, y class index.
#include <cmath>

#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor x, t, g_log_prob, g_entropy, g_lse;
  int64_t ignore_index;
  double temperature, softcap, scale;  // softcap 0: none
  Tensor log_prob, entropy, lse, correct, dx;
  const Tensor none;

  bool wants_entropy() const { return entropy.exists() || (dx.exists() && g_entropy.exists()); }
};

// T is the compute type: the type of the scores S or, where digits cancel in d - tau, the next wider one.
template <class S, class T, bool capped>
class LogProb {
 public:
  explicit LogProb(const Call& call)
      : call_(call),
        rows_(call.x),
        sweep_(rows_, call.none, call.none, 1.0, false),
        scale_(static_cast<T>(call.scale / call.temperature)),
        per_cap_(static_cast<T>(capped ? call.scale / call.softcap : 0.0)),
        height_(static_cast<T>(call.softcap / call.temperature)) {
    kept_weight("log_prob", rows_, call.t, call.none, call.ignore_index);  // checks the indices
    advise_huge_pages(call.dx);
  }

  void run() const {
    with_pack<T>(rows_, call_.x, [&](const auto& pack) {
      using Pack = std::decay_t<decltype(pack)>;
      sweep_.template run<Pack::kRows>([&] { return Worker<Pack>(*this, pack); });
    });
  }

 private:
  // A row's scores, where they lie or staged, in whole vectors and a padded rest.
  template <class Source>
  struct Scores {
    const Source* p;
    int64_t whole, classes;
    alignas(64) T rest[kLanes<T>];

    template <class Body>
    void for_each(const Body& body) const {
      for (int64_t i = 0; i < whole; ++i) body(i, load_vector<T>(p + i * kLanes<T>));
      if (whole * kLanes<T> < classes) body(whole, load(rest));
    }
  };

  // tanh(u), and 1 - tanh(u)^2 without cancellation
  struct Tanh {
    Vec<T> value, slope;
    explicit Tanh(Vec<T> u) {
      const Vec<T> t = expm1<T>(abs<T>(u) * T{-2}), two = splat(T{2}), positive = -t / (two + t);
      value = u < Vec<T>{} ? -positive : positive;
      slope = T{4} * exp<T>(abs<T>(u) * T{-2}) / ((two + t) * (two + t));
    }
  };

  // d of (3); ``most`` is the largest x or, with a cap, the largest tanh. -inf rules out a class, also with a cap.
  Vec<T> gap(Vec<T> x, Vec<T> most) const {
    if constexpr (!capped) return (most - x) * scale_;
    const Vec<T> inf = splat(static_cast<T>(INFINITY)), d = (most - Tanh(x * per_cap_).value) * height_;
    return x == -inf ? inf : d;
  }

  struct Sums {
    Vec<T> most, m, rest, leaders, mean_gap;
  };

  template <class Pack, class Source>
  Sums sums(const Scores<Source>& scores, T* e_out) const {
    const Vec<T> low = splat(static_cast<T>(-INFINITY)), zero{}, one = splat(T{1});
    Vec<T> largest[4] = {low, low, low, low};  // four independent chains hide the latency of the comparison
    scores.for_each([&](int64_t i, Vec<T> x) {
      Vec<T>& most = largest[i % 4];
      most = ((x > most) | (x != x)) ? x : most;
    });
    for (int j = 1; j < 4; ++j)
      largest[0] = ((largest[j] > largest[0]) | (largest[j] != largest[j])) ? largest[j] : largest[0];
    Vec<T> most = Pack::max(largest[0]);
    const Vec<T> capped_most = Tanh(most * per_cap_).value, top = !capped ? most : most == low ? low : capped_most;
    Vec<T> leaders{};
    WideSum<T> rest, tau;
    const bool entropy = call_.wants_entropy();
    scores.for_each([&](int64_t i, Vec<T> x) {
      const Vec<T> d = gap(x, top), e = exp_for<S, T>(-d);
      const Mask<T> leads = d == zero;
      if (e_out != nullptr) store<T>(e_out + i * kLanes<T>, e);
      rest.add(leads ? zero : e);
      leaders += leads ? one : zero;
      if (entropy) tau.add((leads | (e == zero)) ? zero : e * d);
    });
    leaders = Pack::sum(leaders);
    const Vec<T> total = Pack::sum(rest.narrow()) + (leaders - one);
    return {top, top * (capped ? height_ : scale_), total, leaders, Pack::sum(tau.narrow()) / (one + total)};
  }

  template <class Pack>
  class Worker {
   public:
    Worker(const LogProb& of, const Pack& pack)
        : of_(of),
          pack_(pack),
          direct_(Pack::kRows == 1 && of.rows_.class_stride(of.call_.x) == 1 && is_of_type_s(of.call_.x)),
          x_(direct_ ? 0 : size()),
          e_(of.call_.dx.exists() ? size() : 0) {}

    void operator()(int64_t r, int64_t n, T*) {
      const Call& call = of_.call_;
      if (direct_) {
        int64_t at;
        of_.rows_.offsets(call.x, r, 1, true, &at);
        Scores<S> scores{call.x.template as<S>() + at, of_.rows_.classes / kLanes<T>, of_.rows_.classes, {}};
        std::fill(scores.rest, scores.rest + kLanes<T>, static_cast<T>(-INFINITY));
        for (int64_t c = scores.whole * kLanes<T>; c < scores.classes; ++c)
          scores.rest[c - scores.whole * kLanes<T>] = widen(scores.p[c]);
        rows(r, n, scores);
      } else {
        load_pack(of_.rows_, call.x, r, n, pack_, static_cast<T>(-INFINITY), x_.get());
        rows(r, n, Scores<T>{x_.get(), pack_.vectors, 0, {}});
      }
    }

   private:
    int64_t size() const { return pack_.vectors * kLanes<T>; }
    static bool is_of_type_s(const Tensor& x) {
      return element_bytes(x.dtype) != 2 || (std::is_same_v<S, bf16> && x.dtype == Dtype::bf16);
    }

    template <class Source>
    [[gnu::noinline]] void rows(int64_t r, int64_t n, const Scores<Source>& scores) {
      const Call& call = of_.call_;
      int64_t y[Pack::kRows] = {}, at[Pack::kRows];
      alignas(64) T kept[Pack::kRows] = {}, x_y[Pack::kRows] = {};
      of_.rows_.offsets(call.t, r, n, false, at);
      bool any = false;
      for (int64_t j = 0; j < n; ++j) {
        const int64_t label = call.t.template as<int64_t>()[at[j]];
        if (label == call.ignore_index) continue;
        any = true;
        kept[j] = 1;
        y[j] = label;
        x_y[j] = widen(scores.p[Pack::at(label, j)]);
      }
      const Vec<T> zero{}, one = splat(T{1});
      const Mask<T> is_kept = Pack::per_row(kept) == one;
      Vec<T> log_prob{}, entropy{}, lse{}, correct{};
      Sums sums{};
      Vec<T> d_y{};
      if (any) {
        sums = of_.template sums<Pack>(scores, call.dx.exists() ? e_.get() : nullptr);
        d_y = of_.gap(Pack::per_row(x_y), sums.most);
        const Vec<T> log_s = log1p<T>(sums.rest);
        log_prob = is_kept ? -(d_y + log_s) : zero;  // (4)
        entropy = is_kept ? log_s + sums.mean_gap : zero;
        lse = is_kept ? sums.m + log_s : zero;
        correct = is_kept & (d_y == zero) ? one : zero;
      }
      put(call.log_prob, r, n, log_prob);
      put(call.entropy, r, n, entropy);
      put(call.lse, r, n, lse);
      if (call.correct.exists()) {
        alignas(64) T leads[Pack::kRows], leaders[Pack::kRows];
        Pack::per_row(correct, leads);
        Pack::per_row(sums.leaders, leaders);
        for (int64_t j = 0; j < n; ++j)  // of tied classes, the first one leads
          if (leads[j] != 0 && leaders[j] != 1)
            for (int64_t c = 0; c < y[j]; ++c)
              if (widen(scores.p[Pack::at(c, j)]) == x_y[j]) leads[j] = 0;
        int64_t to[Pack::kRows];
        of_.rows_.offsets(call.correct, r, n, false, to);
        scatter(call.correct, to, n, leads);
      }
      if (!call.dx.exists()) return;
      gradient(scores, sums, y, x_y, d_y, is_kept, any, r, n);
    }

    // (6) (8)
    template <class Source>
    void gradient(const Scores<Source>& scores, const Sums& sums, const int64_t* y, const T* x_y, Vec<T> d_y,
                  Mask<T> is_kept, bool any, int64_t r, int64_t n) {
      const Call& call = of_.call_;
      if (!any) {
        std::fill(e_.get(), e_.get() + size(), T{0});
        store_pack(of_.rows_, call.dx, r, n, pack_, e_.get());
        return;
      }
      const Vec<T> zero{}, one = splat(T{1}), scale = splat(of_.scale_);
      const Vec<T> by_log_prob = upstream(call.g_log_prob, r, n), by_entropy = upstream(call.g_entropy, r, n),
                   by_lse = upstream(call.g_lse, r, n), all = one + sums.rest;
      const Vec<T> level = is_kept ? scale * (by_lse - by_log_prob) / all : zero;
      const Vec<T> tilt = is_kept ? scale * by_entropy / all : zero;
      const bool tilted = call.g_entropy.exists();
      T* e = e_.get();
      alignas(64) T e_y[Pack::kRows], at_y[Pack::kRows], keeps[Pack::kRows];
      Pack::per_row(exp_for<S, T>(-d_y), e_y);
      const Vec<T> p_y = Pack::per_row(e_y) / all;
      const Vec<T> missing = d_y == zero ? sums.rest / all : one - p_y;  // 1 - p_y by (7)
      Vec<T> own = by_log_prob * missing + by_lse * p_y;
      if (tilted) own += p_y == zero ? zero : by_entropy * (p_y * (d_y - sums.mean_gap));
      if constexpr (capped) own *= Tanh(Pack::per_row(x_y) * of_.per_cap_).slope;
      Pack::per_row(is_kept ? own * scale : zero, at_y);
      Pack::per_row(is_kept ? one : zero, keeps);
      scores.for_each([&](int64_t i, Vec<T> x) {
        Vec<T> d = load(e + i * kLanes<T>);
        Vec<T> slope = level;
        if (tilted) slope += tilt * (of_.gap(x, sums.most) - sums.mean_gap);
        d = is_kept & (d != zero) ? d * slope : zero;
        if constexpr (capped) d *= Tanh(x * of_.per_cap_).slope;
        store<T>(e + i * kLanes<T>, d);
      });
      for (int64_t j = 0; j < n; ++j)
        if (keeps[j] != 0) e[Pack::at(y[j], j)] = at_y[j];
      store_pack(of_.rows_, call.dx, r, n, pack_, e);
    }

    Vec<T> upstream(const Tensor& g, int64_t r, int64_t n) const {
      alignas(64) T up[Pack::kRows] = {};
      if (g.exists()) {
        int64_t at[Pack::kRows];
        of_.rows_.offsets(g, r, n, false, at);
        gather(g, at, n, up);
      }
      return Pack::per_row(up);
    }

    void put(const Tensor& result, int64_t r, int64_t n, Vec<T> values) const {
      if (!result.exists()) return;
      int64_t at[Pack::kRows];
      alignas(64) T numbers[Pack::kRows];
      of_.rows_.offsets(result, r, n, false, at);
      Pack::per_row(values, numbers);
      scatter(result, at, n, numbers);
    }

    const LogProb& of_;
    const Pack& pack_;
    const bool direct_;
    const Scratch<T> x_, e_;
  };

  const Call& call_;
  const Rows rows_;
  const RowSweep<T> sweep_;
  const T scale_, per_cap_, height_;
};

template <class S, class T>
void run(const Call& call) {
  if (call.softcap != 0)
    LogProb<S, T, true>(call).run();
  else
    LogProb<S, T, false>(call).run();
}

void log_prob(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.t = in.tensor();
  for (Tensor* g : {&call.g_log_prob, &call.g_entropy, &call.g_lse}) *g = in.optional_tensor();
  call.ignore_index = in.integer();
  for (double* option : {&call.temperature, &call.softcap, &call.scale}) *option = in.real();
  for (Tensor* result : {&call.log_prob, &call.entropy, &call.lse, &call.correct, &call.dx})
    *result = in.optional_tensor();
  const Rows rows = checked_rows("log_prob", call.x, call.none, call.none, false, {&call.dx});
  bool fits = call.t.dtype == Dtype::i64 && rows.fit(call.t, false);
  for (const Tensor* of_row :
       {&call.g_log_prob, &call.g_entropy, &call.g_lse, &call.log_prob, &call.entropy, &call.lse, &call.correct})
    fits = fits && (!of_row->exists() || rows.fit(*of_row, false));
  if (!fits) throw std::runtime_error("manual_grad: the tensors of log_prob do not fit together");
  if (call.x.dtype == Dtype::f64)
    run<double, double>(call);
  else if (call.x.dtype == Dtype::f32)
    run<float, double>(call);
  else
    run<bf16, float>(call);
}

const Op op{"log_prob",
            "(Tensor x, Tensor t, Tensor? g_log_prob, Tensor? g_entropy, Tensor? g_lse, int ignore_index, "
            "float temperature, float softcap, float scale, Tensor(a!)? log_prob, Tensor(b!)? entropy, "
            "Tensor(c!)? lse, Tensor(d!)? correct, Tensor(e!)? dx) -> ()",
            log_prob};

}  // namespace
}  // namespace mg
