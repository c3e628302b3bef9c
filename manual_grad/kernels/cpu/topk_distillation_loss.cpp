// losses/rowwise/topk_distillation_loss.py; equation numbers refer to it. Notation: x scores of the student, b
// log-probabilities of the teacher and y their classes; p, q and u = log(p / q) of the categories, the tail last.
//
// A row is staged in float64, and its exponentials take the place of the scores there; what concerns the categories,
// which are few, is computed in float64, too.
#include <cmath>
#include <memory>

#include "divergence.h"
#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor x, b, y, w, g;
  int64_t kind;
  double beta, temperature, scale;
  bool reduce;
  Tensor loss, dx;
};

constexpr double kLeastTail = 0x1p-126;  // of the teacher, in place of 0

template <int kind>
class Sweep {
  using T = double;
  using Of = Divergence<double, double, kind>;

 public:
  Sweep(const Rows& rows, const Rows& known, const Call& call, FirstRow& bad)
      : rows_(rows),
        known_(known),
        call_(call),
        of_(call.beta),
        bad_(bad),
        sweep_(rows, call.loss, call.g, call.scale, call.reduce) {
    if (call.dx.exists()) advise_huge_pages(call.dx);
  }

  void run() const {
    sweep_.template run<1>([&] {
      auto worker = std::make_shared<Worker>(*this);
      return [worker](int64_t r, int64_t, T* loss) { *loss = worker->row(r); };
    });
  }

 private:
  class Worker {
   public:
    explicit Worker(const Sweep& sweep)
        : sweep_(sweep),
          pack_(sweep.rows_.classes),
          known_(sweep.known_.classes),
          count_(known_ + (known_ < sweep.rows_.classes)),
          vectors_((count_ + kLanes<T> - 1) / kLanes<T>),
          row_(pack_.vectors * kLanes<T>),
          y_(known_),
          own_(known_),
          b_(known_),
          p_(vectors_ * kLanes<T>),
          q_(vectors_ * kLanes<T>),
          u_(vectors_ * kLanes<T>) {}

    double row(int64_t r) {
      const double weight = sweep_.number(sweep_.call_.w, r, 1);
      double* x = row_.get();
      if (weight == 0 || !read_indices(r)) {
        if (sweep_.call_.dx.exists()) {
          std::fill(x, x + sweep_.rows_.classes, 0);
          put(r);
        }
        return 0;
      }
      const double tail = categories(r);
      const double T_ = sweep_.call_.temperature;
      WideSum<T> value;
      for (int64_t i = 0; i < vectors_; ++i) value.add(sweep_.of_.term(at(p_, i), at(q_, i), at(u_, i)));
      if (sweep_.call_.dx.exists()) {
        double up;
        sweep_.sweep_.upstream(r, 1, &up);
        gradient(up * weight * T_, tail);
        put(r);
      }
      return sum<T>(value.narrow()) * T_ * T_ * weight;  // (2)
    }

   private:
    // Copies the row from the scores, and to the gradient.
    void take(int64_t r) const {
      const Tensor& x = sweep_.call_.x;
      int64_t from;
      sweep_.rows_.offsets(x, r, 1, true, &from);
      with_dtype(x.dtype, [&](auto s) {
        load_elements(x.as<decltype(s)>() + from, sweep_.rows_.class_stride(x), sweep_.rows_.classes, row_.get());
      });
      std::fill(row_.get() + sweep_.rows_.classes, row_.get() + pack_.vectors * kLanes<T>, -INFINITY);
    }
    void put(int64_t r) const {
      const Tensor& dx = sweep_.call_.dx;
      int64_t to;
      sweep_.rows_.offsets(dx, r, 1, true, &to);
      with_dtype(dx.dtype, [&](auto s) {
        store_elements(dx.as<decltype(s)>() + to, sweep_.rows_.class_stride(dx), sweep_.rows_.classes, row_.get());
      });
    }

    static Vec<T> at(const Scratch<T>& of, int64_t i) { return load(of.get() + i * kLanes<T>); }

    bool read_indices(int64_t r) {
      int64_t from;
      sweep_.known_.offsets(sweep_.call_.y, r, 1, true, &from);
      const int64_t step = sweep_.known_.class_stride(sweep_.call_.y);
      for (int64_t i = 0; i < known_; ++i) {
        y_[i] = sweep_.call_.y.as<int64_t>()[from + i * step];
        if (y_[i] >= 0 && y_[i] < sweep_.rows_.classes) continue;
        sweep_.bad_.note(r);
        return false;
      }
      return true;
    }

    // Leaves the exponentials of the tail's classes in the row, and returns their sum.
    double categories(int64_t r) {
      double* x = row_.get();
      take(r);
      int64_t from;
      sweep_.known_.offsets(sweep_.call_.b, r, 1, true, &from);
      const int64_t step = sweep_.known_.class_stride(sweep_.call_.b);
      double most = -INFINITY;
      auto join = [&](double s) { most = s > most || s != s ? s : most; };  // keeps NaN
      for (int64_t i = 0; i < known_; ++i) {
        b_[i] = number_at(sweep_.call_.b, from + i * step);
        own_[i] = x[y_[i]];
        join(own_[i]);
      }
      for (int64_t i = 0; i < known_; ++i) x[y_[i]] = -INFINITY;
      Vec<T> largest = splat(static_cast<T>(-INFINITY));
      for (int64_t i = 0; i < pack_.vectors; ++i) {
        const Vec<T> s = load(x + i * kLanes<T>);
        largest = (s > largest) | (s != s) ? s : largest;
      }
      join(Across<T>::max(largest)[0]);
      const double factor = 1 / sweep_.call_.temperature;
      WideSum<T> sum_of_tail;
      for (int64_t i = 0; i < pack_.vectors; ++i) {
        const Vec<T> e = exp<T>((load(x + i * kLanes<T>) - most) * factor);
        store<T>(x + i * kLanes<T>, e);
        sum_of_tail.add(e);
      }
      const double tail = sum<T>(sum_of_tail.narrow());
      double top = 0, rest = tail;  // rest: without the leader, if it is one of the teacher's classes
      bool leads = false;
      for (int64_t i = 0; i < known_; ++i) {
        p_[i] = std::exp((own_[i] - most) * factor);
        top += p_[i];
        const bool leader = !leads && own_[i] == most;
        if (!leader) rest += p_[i];
        leads = leads || leader;
      }
      const double whole = top + tail, log_sum = leads ? std::log1p(rest) : std::log(whole);
      for (int64_t i = 0; i < known_; ++i) {
        p_[i] /= whole;
        q_[i] = std::exp(b_[i]);
        const bool ruled_out = own_[i] == -INFINITY && b_[i] == -INFINITY;
        u_[i] = ruled_out ? 0 : ((own_[i] - most) * factor - log_sum) - b_[i];
      }
      if (known_ < count_) {
        const double small = top / whole;
        p_[known_] = tail / whole;
        const double log_tail = small < 0.5 ? std::log1p(-small) : std::log(tail) - log_sum;  // (3)
        u_[known_] = log_tail - tail_of_teacher(q_[known_]);
      }
      for (int64_t i = count_; i < vectors_ * kLanes<T>; ++i) p_[i] = q_[i] = u_[i] = 0;
      return tail;
    }

    // Q, and its logarithm.
    double tail_of_teacher(double& Q) const {
      int64_t k = 0;
      for (int64_t i = 1; i < known_; ++i)
        if (b_[i] > b_[k]) k = i;
      double others = 0;
      for (int64_t i = 0; i < known_; ++i)
        if (i != k) others += q_[i];
      const double known = known_ > 0 ? q_[k] + others : 0;
      Q = known_ > 0 ? -std::expm1(b_[k]) - others : 1;  // (4)
      if (Q < kLeastTail) Q = kLeastTail;
      return known < 0.5 ? std::log1p(-known) : std::log(Q);
    }

    // (7): the gradient by the scores, in place of the exponentials.
    void gradient(double up, double tail) {
      Vec<T> middle{};
      typename Of::Leader lead{};
      if constexpr (!Of::kPlain) {
        int64_t k = 0;
        for (int64_t i = 1; i < count_; ++i)
          if (p_[i] > p_[k]) k = i;
        lead = sweep_.of_.leader(splat(u_[k]));
        WideSum<T> mean;
        for (int64_t i = 0; i < vectors_; ++i) mean.add(times<T>(at(p_, i), sweep_.of_.h_ahead(at(u_, i), lead)));
        middle = splat(sum<T>(mean.narrow()));
      }
      for (int64_t i = 0; i < vectors_; ++i) {
        const Vec<T> p = at(p_, i), q = at(q_, i), u = at(u_, i);
        Vec<T> slope;
        if constexpr (Of::kPlain)
          slope = difference<double, T>(p, q, u);
        else
          slope = times<T>(p, sweep_.of_.h_ahead(u, lead) - middle);  // (6)
        store<T>(p_.get() + i * kLanes<T>, slope * up);  // the slope takes the place of the probability
      }
      double* x = row_.get();
      const Vec<T> share = splat(known_ < count_ && tail != 0 ? p_[known_] / tail : 0.0);
      for (int64_t i = 0; i < pack_.vectors; ++i) store<T>(x + i * kLanes<T>, load(x + i * kLanes<T>) * share);
      for (int64_t i = 0; i < known_; ++i) x[y_[i]] = p_[i];
    }

    const Sweep& sweep_;
    const Across<T> pack_;
    const int64_t known_, count_, vectors_;  // of the teacher's classes; of the categories
    const Scratch<T> row_;
    const Scratch<int64_t> y_;
    const Scratch<T> own_, b_, p_, q_, u_;
  };

  double number(const Tensor& of_row, int64_t r, double absent) const {
    if (!of_row.exists()) return absent;
    int64_t at;
    rows_.offsets(of_row, r, 1, false, &at);
    return number_at(of_row, at);
  }

  const Rows &rows_, &known_;
  const Call& call_;
  const Of of_;
  FirstRow& bad_;
  const RowSweep<T> sweep_;
};

void check_indices(const Rows& rows, const Rows& known, const Call& call, int64_t r) {
  int64_t from;
  known.offsets(call.y, r, 1, true, &from);
  for (int64_t i = 0; i < known.classes; ++i) {
    const int64_t y = call.y.as<int64_t>()[from + i * known.class_stride(call.y)];
    if (y < 0 || y >= rows.classes)
      throw std::out_of_range("teacher_indices: index " + std::to_string(y) + " is out of bounds for " +
                              std::to_string(rows.classes) + " classes");
  }
}

void topk_distillation_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  for (Tensor* tensor : {&call.x, &call.b, &call.y}) *tensor = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.kind = in.integer();
  for (double* option : {&call.beta, &call.temperature, &call.scale}) *option = in.real();
  call.reduce = in.boolean();
  for (Tensor* result : {&call.loss, &call.dx}) *result = in.optional_tensor();
  const Tensor none, &g = call.g, &loss = call.loss;
  const Rows rows = checked_rows("topk_distillation_loss", call.x, none, none, false, {&call.dx});
  const Rows known(call.y);
  if (!(same_shape(call.b, call.y) && call.y.dtype == Dtype::i64 && call.y.dim == call.x.dim &&
        known.count == rows.count && known.classes <= rows.classes && (!call.w.exists() || rows.fit(call.w, false)) &&
        (!g.exists() || g.numel == 1 || rows.fit(g, false)) &&
        (!loss.exists() || (call.reduce ? loss.numel == 1 : rows.fit(loss, false)))))
    throw std::runtime_error("manual_grad: the tensors of topk_distillation_loss do not fit together");
  FirstRow bad(rows.count);
  with_divergence(call.kind, [&](auto kind) { Sweep<decltype(kind)::value>(rows, known, call, bad).run(); });
  if (bad.exists()) check_indices(rows, known, call, bad.row());
}

const Op op{"topk_distillation_loss",
            "(Tensor x, Tensor b, Tensor y, Tensor? w, Tensor? g, int divergence, float beta, float temperature, "
            "float scale, bool reduce, Tensor(a!)? loss, Tensor(b!)? dx) -> ()",
            topk_distillation_loss};

}  // namespace
}  // namespace mg
