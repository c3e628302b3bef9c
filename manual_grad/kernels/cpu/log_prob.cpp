// losses/rowwise/selected_log_prob.py; equation numbers refer to it. Notation: x scores, z the logits made of them,
// m the largest score, d = z_k - z, rho and tau the sums of e^-d and of d e^-d without the leader's, y class index.
//
// One op computes the state of each row, the other all that follows from it: the outputs in O(rows), the gradient in
// one sweep over the scores.
#include <cmath>
#include <memory>

#include "logits.h"

namespace mg {
namespace {

// The state (3, rows): m, rho, and tau / (1 + rho) if ``entropy``. For that, T must hold the sums to more digits than
// the scores have, for digits may cancel in d - tau.
template <class S, class T, bool capped>
void state_of(const Rows& rows, const Tensor& x, const Logits& logits, bool entropy, double* state) {
  const Tensor none;
  const LogitsOf<T, capped> of(logits);
  const RowSweep<T> sweep(rows, none, none, 1.0, false);
  with_pack<T>(rows, x, [&](const auto& pack) {
    using Pack = std::decay_t<decltype(pack)>;
    sweep.template run<Pack::kRows>([&] {
      return [&, reader = std::make_shared<Reader<S, T>>(rows, x, pack)](int64_t r, int64_t n, T*) {
        reader->read(r, n, pack, [&](const auto& scores) {
          const Vec<T> low = splat(static_cast<T>(-INFINITY)), zero{}, one = splat(T{1});
          Vec<T> largest[4] = {low, low, low, low};  // four independent chains hide the latency of the comparison
          auto join = [](Vec<T>& most, Vec<T> x) { most = ((x > most) | (x != x)) ? x : most; };  // keeps NaN
          scores.for_each([&](int64_t i, Vec<T> x) { join(largest[i % 4], x); });
          for (int j = 1; j < 4; ++j) join(largest[0], largest[j]);
          const Vec<T> most = Pack::max(largest[0]), level = of.level(most);
          Vec<T> leaders{};
          WideSum<T> rest, tau;
          auto sum = [&](auto with_tau) {
            scores.for_each([&](int64_t, Vec<T> x) {
              const auto [d, e] = of.template gap_and_exp<S>(x, level);
              rest.add(d == zero ? zero : e);
              leaders += d == zero ? one : zero;
              if constexpr (decltype(with_tau)::value) tau.add(e == zero ? zero : e * d);
            });
          };
          entropy ? sum(std::true_type{}) : sum(std::false_type{});
          // the leader's term is NaN in a row without one, else 0
          const Vec<T> rho = Pack::sum(rest.narrow()) + (Pack::sum(leaders) - one) + (level - level) * zero;
          alignas(64) T found[3][Pack::kRows];
          Pack::per_row(most, found[0]);
          Pack::per_row(rho, found[1]);
          Pack::per_row(Pack::sum(tau.narrow()) / (one + rho), found[2]);
          for (int k = 0; k < 3; ++k)
            for (int64_t j = 0; j < n; ++j) state[k * rows.count + r + j] = static_cast<double>(found[k][j]);
        });
      };
    });
  });
}

void log_prob_state(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  const Tensor x = in.tensor();
  Logits logits;
  for (double* option : {&logits.temperature, &logits.softcap, &logits.scale}) *option = in.real();
  const bool entropy = in.boolean();
  const Tensor state = in.tensor();
  const Rows rows(x);
  if (state.dtype != Dtype::f64 || state.numel != 3 * rows.count)
    throw std::runtime_error("manual_grad: the tensors of log_prob_state do not fit together");
  auto run = [&](auto s, auto t) {
    using S = decltype(s);
    using T = decltype(t);
    auto* out = state.as<double>();
    logits.capped() ? state_of<S, T, true>(rows, x, logits, entropy, out)
                    : state_of<S, T, false>(rows, x, logits, entropy, out);
  };
  if (x.dtype == Dtype::f64)
    run(double{}, double{});
  else if (x.dtype == Dtype::f32 && !entropy && !logits.capped())
    state_of<float, float, false>(rows, x, logits, entropy, state.as<double>());
  else if (x.dtype == Dtype::f32)
    run(float{}, double{});
  else
    run(bf16{}, float{});
}

struct Call {
  Tensor x, t, state, g_log_prob, g_entropy, g_lse;
  int64_t ignore_index;
  Logits logits;
  Tensor log_prob, entropy, lse, correct, dx;

  // of row r
  double m(int64_t r) const { return state.as<double>()[r]; }
  double rho(int64_t r, int64_t rows) const { return state.as<double>()[rows + r]; }
  double mean_gap(int64_t r, int64_t rows) const { return state.as<double>()[2 * rows + r]; }
};

double number_of(const Rows& rows, const Tensor& tensor, int64_t r) {
  if (!tensor.exists()) return 0;
  int64_t at;
  rows.offsets(tensor, r, 1, false, &at);
  return number_at(tensor, at);
}

int64_t label_of(const Rows& rows, const Tensor& t, int64_t r) {
  int64_t at;
  rows.offsets(t, r, 1, false, &at);
  return t.as<int64_t>()[at];
}

void outputs(const Rows& rows, const Call& call) {
  parallel_for(rows.count, 1024, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int64_t y = label_of(rows, call.t, r);
      const bool kept = y != call.ignore_index;
      int64_t at = 0;
      rows.offsets(call.x, r, 1, true, &at);
      const int64_t step = rows.class_stride(call.x);
      const double log_s = std::log1p(call.rho(r, rows.count)), x_y = kept ? number_at(call.x, at + y * step) : 0;
      auto put = [&](const Tensor& result, double value) {
        if (!result.exists()) return;
        int64_t to;
        rows.offsets(result, r, 1, false, &to);
        set_number(result, to, kept ? value : 0);
      };
      put(call.log_prob, -(call.logits.gap(x_y, call.m(r)) + log_s));  // (4)
      put(call.entropy, log_s + call.mean_gap(r, rows.count));
      put(call.lse, call.logits.of(call.m(r)) + log_s);
      if (!call.correct.exists()) continue;
      bool leads = kept && x_y == call.m(r);
      for (int64_t c = 0; leads && c < y; ++c) leads = number_at(call.x, at + c * step) != x_y;  // the first one leads
      put(call.correct, leads ? 1 : 0);
    }
  });
}

// (6) and (8). T may be the type of the scores, for the rounding errors of float32 are carried along (exact).
template <class S, class T, bool capped>
class Gradient {
  static constexpr bool exact = std::is_same_v<S, float> && std::is_same_v<T, float>;

 public:
  Gradient(const Rows& rows, const Call& call)
      : rows_(rows), call_(call), of_(call.logits), sweep_(rows, none_, none_, 1.0, false) {
    advise_huge_pages(call.dx);
  }

  void run() const {
    with_pack<T>(rows_, call_.x, [&](const auto& pack) {
      using Pack = std::decay_t<decltype(pack)>;
      sweep_.template run<Pack::kRows>([&] {
        return [&, reader = std::make_shared<Reader<S, T>>(rows_, call_.x, pack),
                staged = std::make_shared<Scratch<T>>(pack.vectors * kLanes<T>)](int64_t r, int64_t n, T*) {
          reader->read(r, n, pack, [&](const auto& scores) {
            this->rows(r, n, pack, scores, staged->get(), reader->dense() && rows_.class_stride(call_.dx) == 1);
          });
        };
      });
    });
  }

 private:
  template <class Pack, class Source>
  void rows(int64_t r, int64_t n, const Pack& pack, const Scores<T, Source>& scores, T* out, bool direct) const {
    alignas(64) T flat[Pack::kRows] = {}, tilt[Pack::kRows] = {}, mean[Pack::kRows] = {}, low[Pack::kRows] = {},
                  most[Pack::kRows] = {};
    double own[Pack::kRows] = {};
    int64_t y[Pack::kRows] = {};
    bool any = false;
    for (int64_t j = 0; j < n; ++j) {
      y[j] = label_of(rows_, call_.t, r + j);
      if (y[j] == call_.ignore_index) {
        y[j] = -1;
        continue;
      }
      any = true;
      const double by_log_prob = number_of(rows_, call_.g_log_prob, r + j),
                   by_entropy = number_of(rows_, call_.g_entropy, r + j), by_lse = number_of(rows_, call_.g_lse, r + j),
                   m = call_.m(r + j), rho = call_.rho(r + j, rows_.count), tau = call_.mean_gap(r + j, rows_.count),
                   x_y = static_cast<double>(widen(scores.p[Pack::at(y[j], j)])), d_y = call_.logits.gap(x_y, m),
                   p_y = std::exp(-d_y) / (1 + rho), factor = capped ? 1 : call_.logits.factor();
      // flat + tilt (d - tau) as tilt (d - (tau - flat / tilt)): one difference, in which digits may cancel, of numbers
      // that are known to more digits than T has
      const double level = factor * (by_lse - by_log_prob) / (1 + rho), slope = factor * by_entropy / (1 + rho),
                   middle = tau - level / slope;
      const bool tilted = std::isfinite(middle);
      flat[j] = static_cast<T>(tilted ? 0 : level);
      tilt[j] = static_cast<T>(tilted ? slope : 0);
      mean[j] = static_cast<T>(tilted ? middle : 0);
      low[j] = static_cast<T>(tilted ? middle - static_cast<double>(mean[j]) : 0);
      most[j] = static_cast<T>(m);
      own[j] = by_log_prob * (d_y == 0 ? rho / (1 + rho) : 1 - p_y) + by_lse * p_y;  // (7)
      if (p_y != 0) own[j] += by_entropy * p_y * (d_y - tau);
      own[j] *= call_.logits.stretch(x_y);
    }
    S* to = nullptr;  // the row of dx, if it is written without staging
    if (direct) {
      int64_t at;
      rows_.offsets(call_.dx, r, 1, true, &at);
      to = call_.dx.as<S>() + at;
    }
    auto put = [&](int64_t i, Vec<T> d) {
      to != nullptr&& i < scores.whole ? store_vector(to + i * kLanes<T>, d) : store<T>(out + i * kLanes<T>, d);
    };
    const Vec<T> zero{}, flats = Pack::per_row(flat), tilts = Pack::per_row(tilt), means = Pack::per_row(mean),
                         lows = Pack::per_row(low), level = of_.level(Pack::per_row(most));
    const T factor = static_cast<T>(call_.logits.factor());
    auto sweep = [&](auto tilted) {
      scores.for_each([&](int64_t i, Vec<T> x) {
        Vec<T> e, slope = flats;
        if constexpr (exact && !capped) {
          const auto gap = of_.exact_gap(x, level);
          e = exp<T>(-gap.d, -gap.lost);
          if constexpr (decltype(tilted)::value) slope += tilts * ((gap.d - means) + (gap.lost - lows));
        } else {
          const Vec<T> d = of_.gap(x, level);
          e = exp_for<S, T>(-d);
          if constexpr (decltype(tilted)::value) slope += tilts * (d - means);
        }
        Vec<T> d = e == zero ? zero : e * slope;
        if constexpr (capped) d *= of_.stretch(x) * factor;
        put(i, d);
      });
    };
    if (!any)
      scores.for_each([&](int64_t i, Vec<T>) { put(i, zero); });
    else if (call_.g_entropy.exists())
      sweep(std::true_type{});
    else
      sweep(std::false_type{});
    if (to != nullptr) {
      for (int64_t c = scores.whole * kLanes<T>; c < scores.classes; ++c)
        to[c] = narrow<S>(static_cast<double>(out[c]));
      if (y[0] >= 0) to[y[0]] = narrow<S>(own[0]);
      return;
    }
    for (int64_t j = 0; j < n; ++j) {
      if (y[j] >= 0) {
        out[Pack::at(y[j], j)] = static_cast<T>(own[j]);
      } else {
        for (int64_t c = 0; c < rows_.classes; ++c) out[Pack::at(c, j)] = 0;  // whatever the row holds
      }
    }
    store_pack(rows_, call_.dx, r, n, pack, out);
  }

  const Rows& rows_;
  const Call& call_;
  const LogitsOf<T, capped> of_;
  const Tensor none_;
  const RowSweep<T> sweep_;
};

void log_prob(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  for (Tensor* tensor : {&call.x, &call.t, &call.state}) *tensor = in.tensor();
  for (Tensor* g : {&call.g_log_prob, &call.g_entropy, &call.g_lse}) *g = in.optional_tensor();
  call.ignore_index = in.integer();
  for (double* option : {&call.logits.temperature, &call.logits.softcap, &call.logits.scale}) *option = in.real();
  for (Tensor* result : {&call.log_prob, &call.entropy, &call.lse, &call.correct, &call.dx})
    *result = in.optional_tensor();
  const Tensor none;
  const Rows rows = checked_rows("log_prob", call.x, none, none, false, {&call.dx});
  bool fits = call.t.dtype == Dtype::i64 && rows.fit(call.t, false) && call.state.dtype == Dtype::f64 &&
              call.state.numel == 3 * rows.count;
  for (const Tensor* of_row :
       {&call.g_log_prob, &call.g_entropy, &call.g_lse, &call.log_prob, &call.entropy, &call.lse, &call.correct})
    fits = fits && (!of_row->exists() || rows.fit(*of_row, false));
  if (!fits) throw std::runtime_error("manual_grad: the tensors of log_prob do not fit together");
  kept_weight("log_prob", rows, call.t, none, call.ignore_index);  // checks the indices
  if (call.log_prob.exists() || call.entropy.exists() || call.lse.exists() || call.correct.exists())
    outputs(rows, call);
  if (!call.dx.exists()) return;
  const bool capped = call.logits.capped();
  if (call.x.dtype == Dtype::f64)
    capped ? Gradient<double, double, true>(rows, call).run() : Gradient<double, double, false>(rows, call).run();
  else if (call.x.dtype == Dtype::f32)
    capped ? Gradient<float, double, true>(rows, call).run() : Gradient<float, float, false>(rows, call).run();
  else
    capped ? Gradient<bf16, float, true>(rows, call).run() : Gradient<bf16, float, false>(rows, call).run();
}

const Op state_op{"log_prob_state",
                  "(Tensor x, float temperature, float softcap, float scale, bool entropy, Tensor(a!) state) -> ()",
                  log_prob_state};

const Op op{"log_prob",
            "(Tensor x, Tensor t, Tensor state, Tensor? g_log_prob, Tensor? g_entropy, Tensor? g_lse, "
            "int ignore_index, float temperature, float softcap, float scale, Tensor(a!)? log_prob, "
            "Tensor(b!)? entropy, Tensor(c!)? lse, Tensor(d!)? correct, Tensor(e!)? dx) -> ()",
            log_prob};

}  // namespace
}  // namespace mg
