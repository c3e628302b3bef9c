// losses/rowwise/selected_log_prob.py; equation numbers refer to it. Notation: x scores, z the logits made of them,
// m the largest score, d = z_k - z, rho and tau the sums of e^-d and of d e^-d without the leader's, y class index, q
// the weights of the classes in the cross entropy, Q their sum, delta the sum of q d.
//
// One op computes the state of each row, the other all that follows from it: the outputs in O(rows), the gradient in
// one sweep over the scores.
#include <cmath>
#include <memory>

#include "logits.h"

namespace mg {
namespace {

using Yes = std::true_type;
using No = std::false_type;

// The weights q are read as the compute type, which for wider scores is double.
bool fits_weights(const Rows& rows, const Tensor& x, const Tensor& q) {
  return rows.fit(q, true) && (element_bytes(q.dtype) > 2 || element_bytes(x.dtype) == 2);
}

// The state (3, rows): m, rho, and tau / (1 + rho) if ``entropy``; with q, (6, rows): also delta, Q, and the sum of the
// q behind the leader. For tau, T must hold the sums to more digits than the scores have, for digits may cancel in d -
// tau; so for q, since Q p may be close to it.
template <class S, class T, bool capped>
void state_of(const Rows& rows, const Tensor& x, const Tensor& q, const Logits& logits, bool entropy, double* state) {
  const Tensor none;
  const LogitsOf<S, T, capped> of(logits);
  const RowSweep<T> sweep(rows, none, none, 1.0, false);
  with_pack<T>(rows, x, [&](const auto& pack) {
    using Pack = std::decay_t<decltype(pack)>;
    sweep.template run<Pack::kRows>([&] {
      return [&, reader = std::make_shared<Reader<S, T>>(rows, x, pack),
              weights = std::make_shared<Scratch<T>>(q.exists() ? pack.vectors * kLanes<T> : 0)](int64_t r, int64_t n,
                                                                                                 T*) {
        if (q.exists()) load_pack(rows, q, r, n, pack, T{0}, weights->get());
        reader->read(r, n, pack, [&](const auto& scores) {
          const Vec<T> low = splat(static_cast<T>(-INFINITY)), zero{}, one = splat(T{1});
          Vec<T> largest[4] = {low, low, low, low};  // four independent chains hide the latency of the comparison
          auto join = [](Vec<T>& most, Vec<T> x) { most = ((x > most) | (x != x)) ? x : most; };  // keeps NaN
          scores.for_each([&](int64_t i, Vec<T> x) { join(largest[i % 4], x); });
          for (int j = 1; j < 4; ++j) join(largest[0], largest[j]);
          const Vec<T> most = Pack::max(largest[0]), level = of.level(most);
          Vec<T> leaders{};
          WideSum<T> rest, tau, delta, total, behind;
          auto sum = [&](auto with_tau, auto with_q) {
            scores.for_each([&](int64_t i, Vec<T> x) {
              const auto [d, e] = of.gap_and_exp(x, level);
              rest.add(d == zero ? zero : e);
              leaders += d == zero ? one : zero;
              if constexpr (decltype(with_tau)::value) tau.add(e == zero ? zero : e * d);
              if constexpr (decltype(with_q)::value) {
                const Vec<T> own = load(weights->get() + i * kLanes<T>);
                total.add(own);
                behind.add(d == zero ? zero : own);
                delta.add((own == zero) | (d == zero) ? zero : own * d);  // 0 log 0 = 0
              }
            });
          };
          if (q.exists())
            entropy ? sum(Yes{}, Yes{}) : sum(No{}, Yes{});
          else
            entropy ? sum(Yes{}, No{}) : sum(No{}, No{});
          // the leader's term is NaN in a row without one, else 0
          const Vec<T> rho = Pack::sum(rest.narrow()) + (Pack::sum(leaders) - one) + (level - level) * zero;
          alignas(64) T found[6][Pack::kRows];
          Pack::per_row(most, found[0]);
          Pack::per_row(rho, found[1]);
          Pack::per_row(Pack::sum(tau.narrow()) / (one + rho), found[2]);
          WideSum<T>* of_q[] = {&delta, &total, &behind};
          for (int k = 0; k < 3; ++k) Pack::per_row(Pack::sum(of_q[k]->narrow()), found[3 + k]);
          for (int k = 0; k < (q.exists() ? 6 : 3); ++k)
            for (int64_t j = 0; j < n; ++j) state[k * rows.count + r + j] = static_cast<double>(found[k][j]);
        });
      };
    });
  });
}

void log_prob_state(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  const Tensor x = in.tensor(), q = in.optional_tensor();
  Logits logits;
  for (double* option : {&logits.temperature, &logits.softcap, &logits.scale}) *option = in.real();
  const bool entropy = in.boolean();
  const Tensor state = in.tensor();
  const Rows rows(x);
  if (state.dtype != Dtype::f64 || state.numel != (q.exists() ? 6 : 3) * rows.count ||
      (q.exists() && !fits_weights(rows, x, q)))
    throw std::runtime_error("manual_grad: the tensors of log_prob_state do not fit together");
  auto run = [&](auto s, auto t) {
    using S = decltype(s);
    using T = decltype(t);
    auto* out = state.as<double>();
    logits.capped() ? state_of<S, T, true>(rows, x, q, logits, entropy, out)
                    : state_of<S, T, false>(rows, x, q, logits, entropy, out);
  };
  if (x.dtype == Dtype::f64)
    run(double{}, double{});
  else if (x.dtype == Dtype::f32 && !entropy && !logits.capped() && !q.exists())
    state_of<float, float, false>(rows, x, q, logits, entropy, state.as<double>());
  else if (x.dtype == Dtype::f32)
    run(float{}, double{});
  else
    run(bf16{}, float{});
}

struct Call {
  Tensor x, t, q, state, g_log_prob, g_entropy, g_lse, g_cross;
  int64_t ignore_index;
  Logits logits;
  Tensor log_prob, entropy, lse, cross, correct, dx;

  // The state of one row.
  struct Row {
    double m, rho, mean_gap, delta, total, behind;
  };
  Row row(int64_t r, int64_t rows) const {
    const double* at = state.as<double>() + r;
    if (!q.exists()) return {at[0], at[rows], at[2 * rows], 0, 0, 0};
    return {at[0], at[rows], at[2 * rows], at[3 * rows], at[4 * rows], at[5 * rows]};
  }
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
      const Call::Row state = call.row(r, rows.count);
      const double log_s = std::log1p(state.rho), x_y = kept ? number_at(call.x, at + y * step) : 0;
      auto put = [&](const Tensor& result, double value) {
        if (!result.exists()) return;
        int64_t to;
        rows.offsets(result, r, 1, false, &to);
        set_number(result, to, kept ? value : 0);
      };
      put(call.log_prob, -(call.logits.gap(x_y, state.m) + log_s));  // (4)
      put(call.entropy, log_s + state.mean_gap);
      put(call.lse, call.logits.of(state.m) + log_s);
      put(call.cross, state.delta + state.total * log_s);  // (12)
      if (!call.correct.exists()) continue;
      bool leads = kept && x_y == state.m;
      for (int64_t c = 0; leads && c < y; ++c) leads = number_at(call.x, at + c * step) != x_y;  // the first one leads
      put(call.correct, leads ? 1 : 0);
    }
  });
}

// (6), (8) and (13). T may be the type of the scores, for the rounding errors of float32 are carried along (exact);
// with q it must be wider.
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
                staged = std::make_shared<Scratch<T>>(pack.vectors * kLanes<T>),
                weights = std::make_shared<Scratch<T>>(call_.g_cross.exists() ? pack.vectors * kLanes<T> : 0)](
                   int64_t r, int64_t n, T*) {
          if (call_.g_cross.exists()) load_pack(rows_, call_.q, r, n, pack, T{0}, weights->get());
          reader->read(r, n, pack, [&](const auto& scores) {
            this->rows(r, n, pack, scores, call_.g_cross.exists() ? weights->get() : nullptr, staged->get(),
                       reader->dense() && rows_.class_stride(call_.dx) == 1);
          });
        };
      });
    });
  }

 private:
  template <class Pack, class Source>
  void rows(int64_t r, int64_t n, const Pack& pack, const Scores<T, Source>& scores, const T* q, T* out,
            bool direct) const {
    alignas(64) T flat[Pack::kRows] = {}, tilt[Pack::kRows] = {}, mean[Pack::kRows] = {}, low[Pack::kRows] = {},
                  most[Pack::kRows] = {}, by_q[Pack::kRows] = {}, lead[Pack::kRows] = {}, sole[Pack::kRows] = {};
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
                   by_cross = number_of(rows_, call_.g_cross, r + j);
      const auto [m, rho, tau, delta, Q, behind] = call_.row(r + j, rows_.count);
      const double x_y = static_cast<double>(widen(scores.p[Pack::at(y[j], j)])), d_y = call_.logits.gap(x_y, m),
                   p_y = std::exp(-d_y) / (1 + rho), factor = capped ? 1 : call_.logits.factor(), p_k = 1 / (1 + rho);
      const bool sure = p_k > 0.5 && std::isfinite(Q);
      const double cross_k = by_cross * (behind - Q * (rho * p_k));  // (13) of the leader, if it is sure
      // flat + tilt (d - tau) as tilt (d - (tau - flat / tilt)): one difference, in which digits may cancel, of numbers
      // that are known to more digits than T has
      const double level = factor * (by_lse - by_log_prob + by_cross * Q) * p_k, slope = factor * by_entropy * p_k,
                   middle = tau - level / slope;
      const bool tilted = std::isfinite(middle);
      flat[j] = static_cast<T>(tilted ? 0 : level);
      tilt[j] = static_cast<T>(tilted ? slope : 0);
      mean[j] = static_cast<T>(tilted ? middle : 0);
      low[j] = static_cast<T>(tilted ? middle - static_cast<double>(mean[j]) : 0);
      most[j] = static_cast<T>(m);
      own[j] = by_log_prob * (d_y == 0 ? rho / (1 + rho) : 1 - p_y) + by_lse * p_y;  // (7)
      if (p_y != 0) own[j] += by_entropy * p_y * (d_y - tau);
      if (q != nullptr)
        own[j] += d_y == 0 && sure ? cross_k : by_cross * (Q * p_y - static_cast<double>(q[Pack::at(y[j], j)]));
      own[j] *= call_.logits.stretch(x_y);
      by_q[j] = static_cast<T>(factor * by_cross);
      sole[j] = static_cast<T>(sure);
      lead[j] = static_cast<T>(factor * ((by_lse - by_log_prob) * p_k + cross_k - by_entropy * p_k * tau));
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
                         lows = Pack::per_row(low), level = of_.level(Pack::per_row(most)), by_qs = Pack::per_row(by_q),
                         leads = Pack::per_row(lead);
    const Mask<T> soles = Pack::per_row(sole) != zero;
    const T factor = static_cast<T>(call_.logits.factor());
    auto sweep = [&](auto tilted, auto crossed) {
      constexpr bool with_q = decltype(crossed)::value;
      scores.for_each([&](int64_t i, Vec<T> x) {
        Vec<T> e, slope = flats, stretch;
        Mask<T> leading{};
        if constexpr (exact && !capped && !with_q) {
          const auto gap = of_.exact_gap(x, level);
          e = exp<T>(-gap.d, -gap.lost);
          if constexpr (decltype(tilted)::value) slope += tilts * ((gap.d - means) + (gap.lost - lows));
        } else {
          const auto at = of_.at(x);
          const Vec<T> d = of_.gap(at.level, level);
          stretch = at.stretch;
          e = exp_for<S, T>(-d);
          if constexpr (decltype(tilted)::value) slope += tilts * (d - means);
          leading = (d == zero) & soles;
        }
        Vec<T> d = e == zero ? zero : e * slope;
        if constexpr (with_q) d = leading ? leads : d - by_qs * load(q + i * kLanes<T>);
        if constexpr (capped) d *= stretch * factor;
        put(i, d);
      });
    };
    if (!any)
      scores.for_each([&](int64_t i, Vec<T>) { put(i, zero); });
    else if (q != nullptr)
      call_.g_entropy.exists() ? sweep(Yes{}, Yes{}) : sweep(No{}, Yes{});
    else
      call_.g_entropy.exists() ? sweep(Yes{}, No{}) : sweep(No{}, No{});
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
  const LogitsOf<S, T, capped> of_;
  const Tensor none_;
  const RowSweep<T> sweep_;
};

void log_prob(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.t = in.tensor();
  call.q = in.optional_tensor();
  call.state = in.tensor();
  for (Tensor* g : {&call.g_log_prob, &call.g_entropy, &call.g_lse, &call.g_cross}) *g = in.optional_tensor();
  call.ignore_index = in.integer();
  for (double* option : {&call.logits.temperature, &call.logits.softcap, &call.logits.scale}) *option = in.real();
  for (Tensor* result : {&call.log_prob, &call.entropy, &call.lse, &call.cross, &call.correct, &call.dx})
    *result = in.optional_tensor();
  const Tensor none;
  const Rows rows = checked_rows("log_prob", call.x, none, none, false, {&call.dx});
  bool fits = call.t.dtype == Dtype::i64 && rows.fit(call.t, false) && call.state.dtype == Dtype::f64 &&
              call.state.numel == (call.q.exists() ? 6 : 3) * rows.count &&
              (call.q.exists() ? fits_weights(rows, call.x, call.q) : !call.g_cross.exists() && !call.cross.exists());
  for (const Tensor* of_row : {&call.g_log_prob, &call.g_entropy, &call.g_lse, &call.g_cross, &call.log_prob,
                               &call.entropy, &call.lse, &call.cross, &call.correct})
    fits = fits && (!of_row->exists() || rows.fit(*of_row, false));
  if (!fits) throw std::runtime_error("manual_grad: the tensors of log_prob do not fit together");
  kept_weight("log_prob", rows, call.t, none, call.ignore_index);  // checks the indices
  if (call.log_prob.exists() || call.entropy.exists() || call.lse.exists() || call.cross.exists() ||
      call.correct.exists())
    outputs(rows, call);
  if (!call.dx.exists()) return;
  const bool capped = call.logits.capped();
  if (call.x.dtype == Dtype::f64)
    capped ? Gradient<double, double, true>(rows, call).run() : Gradient<double, double, false>(rows, call).run();
  else if (call.x.dtype == Dtype::f32)
    capped                  ? Gradient<float, double, true>(rows, call).run()
    : call.g_cross.exists() ? Gradient<float, double, false>(rows, call).run()
                            : Gradient<float, float, false>(rows, call).run();
  else
    capped ? Gradient<bf16, float, true>(rows, call).run() : Gradient<bf16, float, false>(rows, call).run();
}

const Op state_op{"log_prob_state",
                  "(Tensor x, Tensor? q, float temperature, float softcap, float scale, bool entropy, "
                  "Tensor(a!) state) -> ()",
                  log_prob_state};

const Op op{"log_prob",
            "(Tensor x, Tensor t, Tensor? q, Tensor state, Tensor? g_log_prob, Tensor? g_entropy, Tensor? g_lse, "
            "Tensor? g_cross, int ignore_index, float temperature, float softcap, float scale, Tensor(a!)? log_prob, "
            "Tensor(b!)? entropy, Tensor(c!)? lse, Tensor(d!)? cross, Tensor(e!)? correct, Tensor(f!)? dx) -> ()",
            log_prob};

}  // namespace
}  // namespace mg
