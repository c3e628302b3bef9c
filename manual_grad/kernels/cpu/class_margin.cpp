// losses/rowwise/multi_margin_loss.py and losses/rowwise/multilabel_margin_loss.py. The classes of a row are compared
// with its labels; there is one label, or as many as precede the first -1.
#include "rowwise.h"

namespace mg {
namespace {

struct Call {
  Tensor x, t, w, g;
  int64_t power;
  double margin, scale;
  bool reduce;
  Tensor value, dx;
};

// T is the compute type, S the type of the scores; bf16 stands for both half-precision types.
template <class S, class T>
class ClassMargin {
  using Open = typename Raw<int8_t, kLanes<T>>::V;

 public:
  explicit ClassMargin(const Call& call)
      : call_(call),
        rows_(call.x),
        sweep_(rows_, call.value, call.g, call.scale, call.reduce),
        many_labels_(call.t.dim == call.x.dim),
        label_step_(many_labels_ ? rows_.class_stride(call.t) : 0),
        most_labels_(many_labels_ ? rows_.classes : 1) {
    check_labels();
    advise_huge_pages(call.dx);
  }

  void run() const {
    with_pack<T>(rows_, call_.x, [&](const auto& pack) {
      using Pack = std::decay_t<decltype(pack)>;
      sweep_.template run<Pack::kRows>([&] { return Worker<Pack>(*this, pack); });
    });
  }

 private:
  template <class Pack>
  class Worker {
    static constexpr int64_t kRows = Pack::kRows;

   public:
    Worker(const ClassMargin& of, const Pack& pack)
        : of_(of), pack_(pack), size_(pack.vectors * kLanes<T>), x_(size_), d_(size_), open_(size_) {
      std::fill(open_.get(), open_.get() + size_, int8_t{0});
      for (int64_t j = 0; j < kRows; ++j)
        for (int64_t c = 0; c < of.rows_.classes; ++c) open_[Pack::at(c, j)] = -1;
    }

    void operator()(int64_t r, int64_t n, T* loss) {
      const Call& call = of_.call_;
      if constexpr (kRows == 1)
        if (!of_.many_labels_) return single_label(r, loss);
      load_pack(of_.rows_, call.x, r, n, pack_, T{0}, x_.get());
      std::fill(d_.get(), d_.get() + size_, T{0});
      find_labels(r, n);
      mark_labels(n, 0);
      const int64_t most = *std::max_element(count_, count_ + n);
      Vec<T> total{};
      for (int64_t k = 0; k < most; ++k) total += call.power == 1 ? compare<false>(k, n) : compare<true>(k, n);
      mark_labels(n, -1);

      alignas(64) T share[kRows] = {};
      for (int64_t j = 0; j < n; ++j) {
        const double w = call.w.exists() ? class_weight(call.w, labels_[j][0]) : 1.0;
        share[j] = static_cast<T>(w / static_cast<double>(of_.rows_.classes));
      }
      // a cost of 0 stays 0 even if its weight is infinite
      const Vec<T> of_row = Pack::per_row(share), cost = Pack::sum(total), zero{};
      Pack::per_row(cost == zero ? zero : of_row * cost, loss);
      if (!call.dx.exists()) return;
      const Vec<T> up = of_row * of_.sweep_.template upstream<Pack>(r, n);
      for (int64_t i = 0; i < size_; i += kLanes<T>) {
        const Vec<T> d = load(d_.get() + i);
        store<T>(d_.get() + i, d == zero ? zero : up * d);
      }
      store_pack(of_.rows_, call.dx, r, n, pack_, d_.get());
    }

   private:
    // A row with one label needs one pass, over the scores where they lie if they are dense.
    void single_label(int64_t r, T* loss) {
      const Call& call = of_.call_;
      find_labels(r, 1);
      const double w = call.w.exists() ? class_weight(call.w, labels_[0][0]) : 1.0;
      const T share = static_cast<T>(w / static_cast<double>(of_.rows_.classes));
      if constexpr (sizeof(S) != 2) {
        if (of_.rows_.class_stride(call.x) == 1 && (!call.dx.exists() || of_.rows_.class_stride(call.dx) == 1)) {
          *loss = compare_all(r, of_.rows_.template row<S>(call.x, r),
                              call.dx.exists() ? of_.rows_.template row<S>(call.dx, r) : nullptr, share);
          return;
        }
      }
      load_pack(of_.rows_, call.x, r, 1, pack_, T{0}, x_.get());
      *loss = compare_all(r, x_.get(), call.dx.exists() ? d_.get() : nullptr, share);
      if (call.dx.exists()) store_pack(of_.rows_, call.dx, r, 1, pack_, d_.get());
    }

    template <class Number>
    T compare_all(int64_t r, const Number* x, Number* dx, T share) const {
      const bool squared = of_.call_.power != 1;
      const int64_t classes = of_.rows_.classes, y = labels_[0][0], whole = classes / kLanes<T>;
      const T margin = static_cast<T>(of_.call_.margin), at_y = static_cast<T>(x[y]);
      const Vec<T> up = share * of_.sweep_.template upstream<Pack>(r, 1), zero{}, one = splat(T{1});
      Vec<T> sum{}, slopes{};
      for_each_vector<T>(Run{whole, classes % kLanes<T>}, [&](int64_t i, auto load, auto store) {
        const Vec<T> h = (load(x, zero) - at_y) + margin;  // (1)
        Vec<T> excess = h <= zero ? zero : h;  // keeps NaN
        if (i == y / kLanes<T>) excess[y % kLanes<T>] = 0;
        if (i == whole) excess = first_lanes<T>(excess, classes - whole * kLanes<T>);
        const Vec<T> slope = squared ? excess + excess : (excess > zero ? one : excess);
        sum += squared ? excess * excess : excess;
        slopes += slope;
        if (dx != nullptr) store(dx, slope == zero ? zero : up * slope);
      });
      const T cost = Pack::sum(sum)[0], received = Pack::sum(slopes)[0];
      if (dx != nullptr) dx[y] = static_cast<Number>(received == 0 ? 0 : up[0] * -received);
      return cost == 0 ? 0 : share * cost;  // a cost of 0 stays 0 even if its weight is infinite
    }

    int64_t label(int64_t j, int64_t k) const { return labels_[j][k * of_.label_step_]; }

    void find_labels(int64_t r, int64_t n) {
      int64_t at[kRows];
      of_.rows_.offsets(of_.call_.t, r, n, of_.many_labels_, at);
      for (int64_t j = 0; j < n; ++j) {
        labels_[j] = of_.call_.t.template as<int64_t>() + at[j];
        for (count_[j] = 0; count_[j] < of_.most_labels_ && label(j, count_[j]) >= 0;) ++count_[j];
      }
    }

    // Marks the labels (mark 0) so that only the other classes are compared with them, or unmarks them.
    void mark_labels(int64_t n, int8_t mark) {
      for (int64_t j = 0; j < n; ++j)
        for (int64_t k = 0; k < count_[j]; ++k) open_[Pack::at(label(j, k), j)] = mark;
    }

    // Compares the k-th label of every row with all open classes and adds their slopes to d.
    template <bool squared>
    [[gnu::noinline]] Vec<T> compare(int64_t k, int64_t n) {
      alignas(64) T own[kRows] = {}, has[kRows] = {}, received[kRows];
      for (int64_t j = 0; j < n; ++j) {
        if (k >= count_[j]) continue;
        own[j] = x_[Pack::at(label(j, k), j)];
        has[j] = 1;
      }
      const Vec<T> at_y = Pack::per_row(own), zero{}, one = splat(T{1});
      const Mask<T> has_label = Pack::per_row(has) == one;
      const T margin = static_cast<T>(of_.call_.margin);
      Vec<T> sum{}, slopes{};
      for (int64_t i = 0; i < size_; i += kLanes<T>) {
        const Vec<T> h = (load(x_.get() + i) - at_y) + margin;  // (1)
        const Mask<T> open = __builtin_convertvector(load_raw<Open>(open_.get() + i), Mask<T>);
        const Vec<T> excess = (open & has_label & ~(h <= zero)) ? h : zero;  // keeps NaN
        const Vec<T> slope = squared ? excess + excess : (excess > zero ? one : excess);
        sum += squared ? excess * excess : excess;
        slopes += slope;
        store<T>(d_.get() + i, load(d_.get() + i) + slope);
      }
      Pack::per_row(Pack::sum(slopes), received);
      for (int64_t j = 0; j < n; ++j)
        if (k < count_[j]) d_[Pack::at(label(j, k), j)] -= received[j];
      return sum;
    }

    const ClassMargin& of_;
    const Pack& pack_;
    const int64_t size_;
    const Scratch<T> x_, d_;
    const Scratch<int8_t> open_;
    const int64_t* labels_[kRows];
    int64_t count_[kRows];
  };

  // Checks every label before it is used as an index.
  void check_labels() const {
    const int64_t low = many_labels_ ? -1 : 0, high = rows_.classes - 1;
    FirstRow bad(rows_.count);
    parallel_for(rows_.count, std::max<int64_t>(1, kChunkElements / most_labels_), [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r)
        if (outside(r, low, high)) bad.note(r);
    });
    if (!bad.exists()) return;
    const int64_t* label = labels(bad.row());
    while (*label >= low && *label <= high) label += label_step_;
    throw std::runtime_error((many_labels_ ? "multilabel_margin_loss: argument #2 'target' is out of range: got "
                                           : "multi_margin_loss: target out of range: got ") +
                             std::to_string(*label) + ", expected [" + std::to_string(low) + ", " +
                             std::to_string(high) + "].");
  }
  bool outside(int64_t r, int64_t low, int64_t high) const {
    const int64_t* label = labels(r);
    bool found = false;
    for (int64_t k = 0; k < most_labels_; ++k)
      found |= (label[k * label_step_] < low) | (label[k * label_step_] > high);
    return found;
  }
  const int64_t* labels(int64_t r) const {
    int64_t at;
    rows_.offsets(call_.t, r, 1, many_labels_, &at);
    return call_.t.as<int64_t>() + at;
  }

  const Call& call_;
  const Rows rows_;
  const RowSweep<T> sweep_;
  const bool many_labels_;
  const int64_t label_step_, most_labels_;
};

void class_margin(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.t = in.tensor();
  call.w = in.optional_tensor();
  call.g = in.optional_tensor();
  call.power = in.integer();
  call.margin = in.real();
  call.scale = in.real();
  call.reduce = in.boolean();
  call.value = in.optional_tensor();
  call.dx = in.optional_tensor();
  const Rows rows = checked_rows("class_margin", call.x, call.g, call.value, call.reduce, {&call.dx});
  const bool many_labels = call.t.dim == call.x.dim;
  if (call.t.dtype != Dtype::i64 || !rows.fit(call.t, many_labels) || rows.classes < 1 ||
      (call.w.exists() && (many_labels || call.w.dtype != call.x.dtype || !rows.fit_classes(call.w))))
    throw std::runtime_error("manual_grad: the tensors of class_margin do not fit together");
  switch (call.x.dtype) {
    case Dtype::f64: return ClassMargin<double, double>(call).run();
    case Dtype::f32: return ClassMargin<float, double>(call).run();
    default: return ClassMargin<bf16, float>(call).run();
  }
}

const Op op{"class_margin",
            "(Tensor x, Tensor t, Tensor? w, Tensor? g, int power, float margin, float scale, "
            "bool reduce, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
            class_margin};

}  // namespace
}  // namespace mg
