// losses/rowwise/distillation_loss.py; equation numbers refer to it. Notation: x scores of the student, t of the
// teacher, m the largest, d how far a class is behind it, p and q probabilities, u = log(p / q).
//
// A row of both is swept for the maxima; for the sums of (5), keeping the exponentials; for the value and the means of
// (9), keeping the slopes; and for the gradients, unless they need no mean.
#include <array>
#include <cmath>
#include <memory>

#include "divergence.h"
#include "logits.h"

namespace mg {
namespace {

struct Call {
  Tensor x, t, w, g;
  int64_t kind;
  double beta, temperature, scale;
  bool reduce;
  Tensor loss, dx, dt;
};

// Writes rows of a gradient: where they are to lie, if that is one dense row of type S, else by way of a stage.
template <class S, class T>
class Writer {
 public:
  template <class Pack>
  Writer(const Rows& rows, const Tensor& to, const Pack& pack)
      : rows_(rows),
        to_(to),
        direct_(to.exists() && Reader<S, T>::template lies_dense<Pack>(rows, to)),
        staged_(to.exists() ? pack.vectors * kLanes<T> : 0) {}

  bool wanted() const { return to_.exists(); }
  void begin(int64_t r) {
    if (!direct_) return;
    int64_t at;
    rows_.offsets(to_, r, 1, true, &at);
    p_ = to_.as<S>() + at;
  }
  void put(int64_t i, Vec<T> v) const {
    if (direct_ && i < rows_.classes / kLanes<T>)
      store_vector(p_ + i * kLanes<T>, v);
    else
      store<T>(staged_.get() + i * kLanes<T>, v);
  }
  template <class Pack>
  void end(int64_t r, int64_t n, const Pack& pack) const {
    if (!direct_) return store_pack(rows_, to_, r, n, pack, staged_.get());
    for (int64_t c = rows_.classes / kLanes<T> * kLanes<T>; c < rows_.classes; ++c)
      p_[c] = narrow<S>(static_cast<double>(staged_[c]));
  }

 private:
  const Rows& rows_;
  const Tensor& to_;
  const bool direct_;
  const Scratch<T> staged_;
  S* p_ = nullptr;
};

template <class S, class T, int kind>
class Sweep {
  using Of = Divergence<S, T, kind>;
  using OfTeacher = typename Of::Exchanged;

 public:
  Sweep(const Rows& rows, const Call& call)
      : rows_(rows),
        call_(call),
        of_(call.beta),
        of_teacher_(1 - call.beta),
        factor_(static_cast<T>(1 / call.temperature)),
        sweep_(rows, call.loss, call.g, call.scale, call.reduce) {
    for (const Tensor* d : {&call.dx, &call.dt})
      if (d->exists()) advise_huge_pages(*d);
  }

  void run() const {
    with_pack<T>(rows_, call_.x, [&](const auto& pack) {
      using Pack = std::decay_t<decltype(pack)>;
      sweep_.template run<Pack::kRows>([&] {
        auto worker = std::make_shared<Worker<Pack>>(*this, pack);
        return [worker](int64_t r, int64_t n, T* loss) { worker->rows(r, n, loss); };
      });
    });
  }

 private:
  // A number for each class of a pack.
  class Shelf {
   public:
    explicit Shelf(int64_t vectors) : numbers_(vectors * kLanes<T>) {}
    Vec<T> load(int64_t i) const { return mg::load(numbers_.get() + i * kLanes<T>); }
    Vec<T> keep(int64_t i, Vec<T> v) const {
      store<T>(numbers_.get() + i * kLanes<T>, v);
      return v;
    }

   private:
    const Scratch<T> numbers_;
  };

  template <class Pack>
  class Worker {
   public:
    Worker(const Sweep& sweep, const Pack& pack)
        : sweep_(sweep),
          pack_(pack),
          stage_(!(Reader<S, T>::template lies_dense<Pack>(sweep.rows_, sweep.call_.x) &&
                   Reader<S, T>::template lies_dense<Pack>(sweep.rows_, sweep.call_.t))),
          x_(sweep.rows_, sweep.call_.x, pack, stage_),
          t_(sweep.rows_, sweep.call_.t, pack, stage_),
          dx_(sweep.rows_, sweep.call_.dx, pack),
          dt_(sweep.rows_, sweep.call_.dt, pack),
          e_x_(pack.vectors),
          e_t_(pack.vectors),
          h_x_(dx_.wanted() ? pack.vectors : 0),
          h_t_(dt_.wanted() ? pack.vectors : 0) {}

    void rows(int64_t r, int64_t n, T* loss) {
      if constexpr (Pack::kRows == 1)
        if (!stage_) return rows(r, n, loss, x_.lying(r), t_.lying(r));
      rows(r, n, loss, x_.staged(r, n, pack_), t_.staged(r, n, pack_));
    }

   private:
    template <class Source>
    void rows(int64_t r, int64_t n, T* loss, const Source& x, const Source& t) {
      alignas(64) T weight[Pack::kRows] = {};
      bool any = false;
      for (int64_t j = 0; j < n; ++j) {
        weight[j] = static_cast<T>(weight_of(r + j));
        any = any || weight[j] != 0;
      }
      const Vec<T> zero{}, weights = Pack::per_row(weight);
      const Mask<T> kept = weights != zero;
      const int64_t vectors = x.vectors();
      dx_.begin(r);
      dt_.begin(r);
      if (!any) {
        std::fill(loss, loss + n, T{0});
        for (int64_t i = 0; i < vectors; ++i) {
          if (dx_.wanted()) dx_.put(i, zero);
          if (dt_.wanted()) dt_.put(i, zero);
        }
        return end(r, n);
      }
      const Vec<T> m_x = largest(x), m_t = largest(t);
      const auto deltas = [&](int64_t i) { return this->delta(x[i], t[i], m_x, m_t); };
      const Sums sums = summed(vectors, x, t, m_x, m_t, deltas);
      const auto lead_x = sweep_.of_.leader(sums.lead_x - sums.ratio);
      const auto lead_t = sweep_.of_teacher_.leader(sums.ratio - sums.lead_t);
      const bool by_x = dx_.wanted() && !Of::kPlain, by_t = dt_.wanted() && !OfTeacher::kPlain;
      const bool at_once = !by_x && !by_t;  // no mean is needed
      const Vec<T> up =
          sweep_.sweep_.template upstream<Pack>(r, n) * weights * static_cast<T>(sweep_.call_.temperature);
      auto put = [&](int64_t i, Vec<T> by_x, Vec<T> by_t) {
        if (dx_.wanted()) dx_.put(i, kept ? up * by_x : zero);
        if (dt_.wanted()) dt_.put(i, kept ? up * by_t : zero);
      };
      WideSum<T> value, mean_x, mean_t;
      for (int64_t i = 0; i < vectors; ++i) {
        const Vec<T> p = e_x_.load(i) * sums.per_x, q = e_t_.load(i) * sums.per_t, u = deltas(i) - sums.ratio;
        value.add(sweep_.of_.term(p, q, u));
        if constexpr (!Of::kPlain) {
          if (by_x) mean_x.add(times<T>(p, h_x_.keep(i, sweep_.of_.h_ahead(u, lead_x))));
        }
        if constexpr (!OfTeacher::kPlain) {
          if (by_t) mean_t.add(times<T>(q, h_t_.keep(i, sweep_.of_teacher_.h_ahead(-u, lead_t))));
        }
        if (Of::kPlain || OfTeacher::kPlain) {
          const Vec<T> apart = difference<S, T>(p, q, u);
          if (at_once)
            put(i, apart, -apart);
          else if (Of::kPlain ? dx_.wanted() : dt_.wanted())
            Of::kPlain ? h_x_.keep(i, apart) : h_t_.keep(i, -apart);
        }
      }
      const T square = static_cast<T>(sweep_.call_.temperature * sweep_.call_.temperature);
      alignas(64) T found[Pack::kRows];
      Pack::per_row(kept ? Pack::sum(value.narrow()) * square * weights : zero, found);  // (3)
      std::copy(found, found + n, loss);
      if (!at_once) {
        const Vec<T> middle_x = Pack::sum(mean_x.narrow()), middle_t = Pack::sum(mean_t.narrow());
        for (int64_t i = 0; i < vectors; ++i) {  // (9)
          Vec<T> by_x{}, by_t{};
          if (dx_.wanted())
            by_x = Of::kPlain ? h_x_.load(i) : times<T>(e_x_.load(i) * sums.per_x, h_x_.load(i) - middle_x);
          if (dt_.wanted())
            by_t = OfTeacher::kPlain ? h_t_.load(i) : times<T>(e_t_.load(i) * sums.per_t, h_t_.load(i) - middle_t);
          put(i, by_x, by_t);
        }
      }
      end(r, n);
    }

    double weight_of(int64_t r) const {
      const Tensor& w = sweep_.call_.w;
      if (!w.exists()) return 1;
      int64_t at;
      sweep_.rows_.offsets(w, r, 1, false, &at);
      return number_at(w, at);
    }

    template <class Source>
    static Vec<T> largest(const Source& scores) {
      const Vec<T> low = splat(static_cast<T>(-INFINITY));
      Vec<T> most[4] = {low, low, low, low};  // four independent chains hide the latency of the comparison
      auto join = [](Vec<T>& most, Vec<T> x) { most = ((x > most) | (x != x)) ? x : most; };  // keeps NaN
      scores.for_each([&](int64_t i, Vec<T> x) { join(most[i % 4], x); });
      for (int j = 1; j < 4; ++j) join(most[0], most[j]);
      return Pack::max(most[0]);
    }

    Vec<T> delta(Vec<T> x, Vec<T> t, Vec<T> m_x, Vec<T> m_t) const {
      const Vec<T> low = splat(static_cast<T>(-INFINITY)), zero{};
      const Vec<T> d_x = m_x - x, d_t = m_t - t, direct = x - t;
      // of two equal differences, the one of smaller terms, so that neither a small one nor a common offset is rounded
      const Vec<T> delta = abs<T>(direct) < d_x + d_t ? direct - (m_x - m_t) : d_t - d_x;
      const Mask<T> ruled_out = (x == low) & (t == low);
      return ruled_out ? zero : delta * sweep_.factor_;
    }

    struct Sums {
      Vec<T> per_x, per_t;  // 1 / sum of e^-d
      Vec<T> ratio;  // of these sums, its logarithm
      Vec<T> lead_x, lead_t;  // delta of a leader
    };

    template <class Source, class Deltas>
    Sums summed(int64_t vectors, const Source& x, const Source& t, Vec<T> m_x, Vec<T> m_t, const Deltas& deltas) {
      const Vec<T> zero{}, one = splat(T{1}), low = splat(static_cast<T>(-INFINITY));
      WideSum<T> rest_x, rest_t, moved;
      Vec<T> leaders_x{}, leaders_t{}, lead_x = low, lead_t = low;
      for (int64_t i = 0; i < vectors; ++i) {
        const Vec<T> delta = deltas(i), e_x = e_x_.keep(i, exp_for<S, T>((x[i] - m_x) * sweep_.factor_)),
                     e_t = e_t_.keep(i, exp_for<S, T>((t[i] - m_t) * sweep_.factor_));
        const Mask<T> leads_x = x[i] == m_x, leads_t = t[i] == m_t;
        rest_x.add(leads_x ? zero : e_x);
        rest_t.add(leads_t ? zero : e_t);
        moved.add(difference<S, T>(e_x, e_t, delta));
        leaders_x += leads_x ? one : zero;
        leaders_t += leads_t ? one : zero;
        lead_x = leads_x & (delta > lead_x) ? delta : lead_x;
        lead_t = leads_t & (delta > lead_t) ? delta : lead_t;
      }
      // the term of the leader is NaN in a row without one, else 0
      const Vec<T> rho_x = Pack::sum(rest_x.narrow()) + (Pack::sum(leaders_x) - one) + (m_x - m_x);
      const Vec<T> rho_t = Pack::sum(rest_t.narrow()) + (Pack::sum(leaders_t) - one) + (m_t - m_t);
      alignas(64) T x_of[Pack::kRows], t_of[Pack::kRows], moved_of[Pack::kRows], ratio[Pack::kRows];
      Pack::per_row(rho_x, x_of);
      Pack::per_row(rho_t, t_of);
      Pack::per_row(Pack::sum(moved.narrow()), moved_of);
      for (int64_t j = 0; j < Pack::kRows; ++j) {
        const double sigma = static_cast<double>(moved_of[j]) / (1 + static_cast<double>(t_of[j]));
        const double of_sums = std::log1p(static_cast<double>(x_of[j])) - std::log1p(static_cast<double>(t_of[j]));
        ratio[j] = static_cast<T>(std::abs(sigma) <= 0.5 ? std::log1p(sigma) : of_sums);
      }
      return {one / (one + rho_x), one / (one + rho_t), Pack::per_row(ratio), Pack::max(lead_x), Pack::max(lead_t)};
    }

    void end(int64_t r, int64_t n) const {
      if (dx_.wanted()) dx_.end(r, n, pack_);
      if (dt_.wanted()) dt_.end(r, n, pack_);
    }

    const Sweep& sweep_;
    const Pack pack_;
    const bool stage_;
    const Reader<S, T> x_, t_;
    Writer<S, T> dx_, dt_;
    const Shelf e_x_, e_t_;  // e^-d
    const Shelf h_x_, h_t_;  // h and g relative to those of the leaders, or the difference of p and q
  };

  const Rows& rows_;
  const Call& call_;
  const Of of_;
  const OfTeacher of_teacher_;
  const T factor_;
  const RowSweep<T> sweep_;
};

void distillation_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.t = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.kind = in.integer();
  for (double* option : {&call.beta, &call.temperature, &call.scale}) *option = in.real();
  call.reduce = in.boolean();
  for (Tensor* result : {&call.loss, &call.dx, &call.dt}) *result = in.optional_tensor();
  const Tensor none;
  const Rows rows = checked_rows("distillation_loss", call.x, none, none, false, {&call.dx, &call.dt});
  const Tensor &g = call.g, &loss = call.loss;
  if (!(same_shape(call.t, call.x) && call.t.dtype == call.x.dtype && (!call.w.exists() || rows.fit(call.w, false)) &&
        (!g.exists() || g.numel == 1 || rows.fit(g, false)) &&
        (!loss.exists() || (call.reduce ? loss.numel == 1 : rows.fit(loss, false)))))
    throw std::runtime_error("manual_grad: the tensors of distillation_loss do not fit together");
  with_divergence(call.kind, [&](auto kind) {
    constexpr int k = decltype(kind)::value;
    if (call.x.dtype == Dtype::f64)
      Sweep<double, double, k>(rows, call).run();
    else if (call.x.dtype == Dtype::f32)
      Sweep<float, double, k>(rows, call).run();
    else
      Sweep<bf16, float, k>(rows, call).run();
  });
}

const Op op{"distillation_loss",
            "(Tensor x, Tensor t, Tensor? w, Tensor? g, int divergence, float beta, float temperature, float scale, "
            "bool reduce, Tensor(a!)? loss, Tensor(b!)? dx, Tensor(c!)? dt) -> ()",
            distillation_loss};

}  // namespace
}  // namespace mg
