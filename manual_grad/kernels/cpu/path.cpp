// Losses of paths through a lattice: CTC. Notation and equation numbers are those of losses/path/ctc_loss.py.
//
// Every second state of CTC's lattice is a blank. A frame is therefore stored as two arrays, blank[i] for state 2i and
// label[i] for state 2i + 1. The neighbors of a state are then at the same or an adjacent index, all blanks share one
// emission, and everything works on vectors of states. All dtypes are computed in double.
#include <algorithm>

#include "layout.h"

namespace mg {
namespace {

using V = Vec<double>;
constexpr int kStep = kLanes<double>;
constexpr double kInfinity = __builtin_inf();

inline V larger(V a, V b) { return a > b ? a : b; }

inline double largest(V v) {
  return fold<double>(v, [](double a, double b) { return a > b ? a : b; });
}

// (9)
inline V log_add(V a, V b) {
  const V high = larger(a, b), low = a > b ? b : a;  // complementary, so that a NaN ends up in one of them
  const V base = high > splat(-kInfinity) ? high : V{};  // -inf - -inf would be NaN
  return high + log1p_unit<double>(exp<double>(low - base));
}

// The log weights of one frame: `width` labels and as many blanks, with one vector of padding before and after each.
struct Frame {
  Frame(double* memory, int64_t width) : label(memory + kStep), blank(memory + width + 2 * kStep), width(width) {}
  static int64_t size(int64_t width) { return 2 * width + 3 * kStep; }
  void clear() const { std::fill(label - kStep, blank + width + kStep, -kInfinity); }
  void clear_around(int64_t begin, int64_t end) const {
    for (double* edge : {label + begin - kStep, blank + begin - kStep, label + end, blank + end})
      store(edge, splat(-kInfinity));
  }

  double *label, *blank;
  int64_t width;
};

struct Call {
  Tensor x, targets, input_lengths, target_lengths, g;
  int64_t blank;
  bool zero_infinity, by_length;
  double scale;
  bool reduce;
  Tensor value, dx;

  int64_t frames(int64_t n) const { return input_lengths.as<int64_t>()[n * input_lengths.strides[0]]; }
  int64_t labels(int64_t n) const { return target_lengths.as<int64_t>()[n * target_lengths.strides[0]]; }
};

void check_lengths(const Call& call) {
  const bool concatenated = call.targets.dim == 1;
  auto outside = [](const char* name, const char* bound, int64_t limit, int64_t got) {
    throw std::runtime_error(std::string("Expected ") + name + " to have value at " + bound + " " +
                             std::to_string(limit) + ", but got value " + std::to_string(got));
  };
  auto wrong_size = [](const std::string& expected, int dim, int64_t got) {
    throw std::runtime_error("Expected tensor to have size " + expected + " at dimension " + std::to_string(dim) +
                             ", but got size " + std::to_string(got) + " for argument #2 'targets'");
  };
  uint64_t total = 0;
  int64_t most_labels = 0;
  for (int64_t n = 0; n < call.x.sizes[1]; ++n) {
    const int64_t frames = call.frames(n), labels = call.labels(n);
    if (labels < 0) outside("target_lengths", "least", 0, labels);
    if (frames < 0) outside("input_lengths", "least", 0, frames);
    if (frames > call.x.sizes[0]) outside("input_lengths", "most", call.x.sizes[0], frames);
    total += static_cast<uint64_t>(labels);
    most_labels = std::max(most_labels, labels);
  }
  // the sum may wrap around, but not if no length exceeds the number of labels
  const int64_t stored = call.targets.numel;
  if (concatenated && (total != static_cast<uint64_t>(stored) || most_labels > stored))
    wrong_size(std::to_string(total), 0, stored);
  if (!concatenated && most_labels > call.targets.sizes[1])
    wrong_size("at least " + std::to_string(most_labels), 1, call.targets.sizes[1]);
}

// Computes where the labels of each sample begin, in its row of a matrix or after those of the previous sample, and
// checks them.
void locate(const Call& call, int64_t* begin) {
  const bool concatenated = call.targets.dim == 1;
  const int64_t step = call.targets.strides[call.targets.dim - 1];
  int64_t next = 0;
  for (int64_t n = 0; n < call.x.sizes[1]; ++n) {
    begin[n] = next;
    for (int64_t i = 0; i < call.labels(n); ++i) {
      const int64_t label = call.targets.as<int64_t>()[next + i * step];
      if (label < 0 || label >= call.x.sizes[2])
        throw std::out_of_range("Target " + std::to_string(label) +
                                " is out of bounds: ctc_loss's targets must be in [0, " +
                                std::to_string(call.x.sizes[2]) + ")");
    }
    next += concatenated ? call.labels(n) * step : call.targets.strides[0];
  }
}

// Computes one sample at a time: its loss and its part of the gradient.
class Sample {
 public:
  Sample(const Call& call, int64_t most_frames, int64_t most_labels)
      : call_(call),
        keep_(call.dx.exists()),
        runs_(runs_of(call.x.dtype)),
        labels_(most_labels),
        skip_(round_up(most_labels + 1) + kStep),
        emission_(round_up(most_labels + 1)),
        table_((keep_ ? most_frames + 1 : 2) * Frame::size(round_up(most_labels + 1))),
        ahead_(Frame::size(round_up(most_labels + 1))),
        around_(round_up(most_labels + 1) + kStep),
        gradient_(keep_ ? call.x.sizes[2] : 0) {
    std::fill_n(gradient_.get(), keep_ ? call.x.sizes[2] : 0, 0.0);
  }

  double run(int64_t n, int64_t first_label, double upstream) {
    n_ = n;
    frames_ = call_.frames(n);
    count_ = call_.labels(n);
    width_ = round_up(count_ + 1);
    const int64_t step = call_.targets.strides[call_.targets.dim - 1];
    std::fill_n(skip_.get(), width_ + kStep, 0.0);
    std::fill_n(emission_.get(), width_, -kInfinity);
    for (int64_t i = 0; i < count_; ++i) {
      labels_[i] = call_.targets.as<int64_t>()[first_label + i * step];
      skip_[i] = i > 0 && labels_[i] != labels_[i - 1];
    }
    const double loss = 0 - forward();
    const bool impossible = loss == kInfinity;
    if (keep_) {
      if (impossible) {
        fill_gradient(0, frames_, call_.zero_infinity ? 0.0 : __builtin_nan(""));
      } else {
        backward(upstream);
      }
      fill_gradient(frames_, call_.x.sizes[0], 0.0);
    }
    return impossible && call_.zero_infinity ? 0.0 : loss;
  }

 private:
  static int64_t round_up(int64_t n) { return (n + kStep - 1) / kStep * kStep; }
  Frame frame(int64_t t) const { return {table_.get() + (keep_ ? t : t & 1) * Frame::size(width_), width_}; }

  // The states, rounded to whole vectors, that a path can be in at frame t: reachable from the start, and able to reach
  // the end. In the adjacent vectors alpha is -inf; vectors beyond are never read. beta is -inf where the end is out of
  // reach. Where the start is out of reach it is arbitrary, since alpha is -inf there.
  int64_t begin(int64_t t) const { return std::max<int64_t>(0, count_ - (frames_ - t)) / kStep * kStep; }
  int64_t end(int64_t t) const { return round_up(std::min(count_, t) + 1); }

  // Loads the emissions of the states at frame t, subtracts the largest one and returns it.
  double emit(int64_t t) {
    const int64_t first = begin(t), behind = end(t), last = std::min(behind, count_);
    const int64_t at = t * call_.x.strides[0] + n_ * call_.x.strides[1], stride = call_.x.strides[2];
    runs_.pick(call_.x, at, stride, labels_.get() + first, last - first, emission_.get() + first);
    runs_.pick(call_.x, at, stride, &call_.blank, 1, &blank_emission_);
    V top = splat(blank_emission_);
    for (int64_t i = first; i < behind; i += kStep) top = larger(load(emission_.get() + i), top);
    const double level = finite_or_zero(largest(top));
    for (int64_t i = first; i < behind; i += kStep) store(emission_.get() + i, load(emission_.get() + i) - level);
    blank_emission_ -= level;
    return level;
  }

  // (2) including each frame's own emission, with frame t in row t + 1; returns log P. Every frame is stored relative
  // to the largest weight of the previous one, so that the digits represent the differences between states.
  double forward() {
    if (count_ > frames_) return -kInfinity;
    frame(0).clear();
    frame(0).blank[0] = 0;  // before the first frame, every path is in the first blank, with nothing emitted
    ExactSum log_p;
    double offset = 0;
    for (int64_t t = 0; t < frames_; ++t) {
      const Frame from = frame(t), to = frame(t + 1);
      const int64_t first = begin(t), behind = end(t);
      log_p.add(emit(t));
      log_p.add(offset);
      const double blank_emission = blank_emission_ - offset;
      V top = splat(-kInfinity);
      for (int64_t i = first; i < behind; i += kStep)  // arrivals in the blank, or past it where it may be skipped
        store(around_.get() + i, log_add(load(from.blank + i), load(from.label + i - 1)));
      for (int64_t i = first; i < behind; i += kStep) {
        const V around = load(around_.get() + i), before = load(skip_.get() + i) != V{} ? around : load(from.blank + i);
        const V blank = around + blank_emission;
        const V label = log_add(load(from.label + i), before) + (load(emission_.get() + i) - offset);
        store(to.blank + i, blank);
        store(to.label + i, label);
        top = larger(top, larger(blank, label));
      }
      to.clear_around(first, behind);
      offset = finite_or_zero(largest(top));
    }
    const Frame last = frame(frames_);
    log_p.add(log_add(splat(last.blank[count_]), splat(last.label[count_ - 1]))[0]);  // (4)
    return log_p.value();
  }

  // (3), (5) and (6), frame by frame from the last one: beta needs only the next frame.
  void backward(double upstream) {
    const Frame ahead(ahead_.get(), width_);  // beta of the next frame, including its own emission
    ahead.clear();
    ahead.blank[count_] = 0;  // after the last frame, every path is in the last blank
    double offset = 0;
    for (int64_t t = frames_ - 1; t >= 0; --t) {
      const Frame alpha = frame(t + 1);  // becomes log gamma up to a constant per frame, then gamma up to a factor
      const int64_t first = begin(t), behind = end(t);
      emit(t);
      const double blank_emission = blank_emission_ - offset;
      V top = splat(-kInfinity), far = splat(-kInfinity);
      // a label may skip to the next label, which may be in the next vector
      store(around_.get() + behind, log_add(load(ahead.blank + behind), load(ahead.label + behind)));
      for (int64_t i = first; i < behind; i += kStep) {
        const V beta = log_add(load(ahead.blank + i), load(ahead.label + i));
        const V score = beta + load(alpha.blank + i);
        store(around_.get() + i, beta);
        store(alpha.blank + i, score);
        top = larger(top, score);
      }
      for (int64_t i = first; i < behind; i += kStep) {
        const V past = load(skip_.get() + i + 1) != V{} ? load(around_.get() + i + 1) : load(ahead.blank + i + 1);
        const V beta = log_add(load(ahead.label + i), past);
        const V score = beta + load(alpha.label + i);
        const V label = beta + (load(emission_.get() + i) - offset), blank = load(around_.get() + i) + blank_emission;
        store(alpha.label + i, score);
        store(ahead.label + i, label);
        store(ahead.blank + i, blank);
        top = larger(top, score);
        far = larger(far, larger(blank, label));
      }
      offset = finite_or_zero(largest(far));

      const double peak = largest(top);
      V blanks{}, labels{};
      for (int64_t i = first; i < behind; i += kStep) {
        const V label = exp<double>(load(alpha.label + i) - peak);
        store(alpha.label + i, label);
        labels += label;
        blanks += exp<double>(load(alpha.blank + i) - peak);
      }
      const double blank_total = sum<double>(blanks), scale = -upstream / (blank_total + sum<double>(labels));
      const int64_t last = std::min(behind, count_);
      gradient_[call_.blank] += blank_total * scale;
      for (int64_t i = first; i < last; ++i) gradient_[labels_[i]] += alpha.label[i] * scale;
      write_gradient(t);
      gradient_[call_.blank] = 0;
      for (int64_t i = first; i < last; ++i) gradient_[labels_[i]] = 0;
    }
  }

  void write_gradient(int64_t t) const {
    const int64_t* strides = call_.dx.strides;
    runs_.store(call_.dx, t * strides[0] + n_ * strides[1], strides[2], call_.x.sizes[2], gradient_.get());
  }

  void fill_gradient(int64_t begin, int64_t end, double value) const {
    if (begin == end) return;
    std::fill_n(gradient_.get(), call_.x.sizes[2], value);
    for (int64_t t = begin; t < end; ++t) write_gradient(t);
    std::fill_n(gradient_.get(), call_.x.sizes[2], 0.0);
  }

  static double finite_or_zero(double x) { return __builtin_isfinite(x) ? x : 0; }

  const Call& call_;
  const bool keep_;  // keep every frame for the gradient; the loss alone needs two
  const Runs runs_;
  int64_t n_ = 0, frames_ = 0, count_ = 0, width_ = 0;
  double blank_emission_ = 0;
  Scratch<int64_t> labels_;
  Scratch<double> skip_, emission_, table_, ahead_, around_, gradient_;
};

void run(const Call& call) {
  check_lengths(call);
  const int64_t samples = call.x.sizes[1];
  Scratch<int64_t> begin(samples);
  locate(call, begin.get());
  int64_t most_frames = 0, most_labels = 0;
  for (int64_t n = 0; n < samples; ++n) {
    most_frames = std::max(most_frames, call.frames(n));
    most_labels = std::max(most_labels, call.labels(n));
  }
  advise_huge_pages(call.dx);

  auto share = [&](int64_t n) {  // weight of a sample in the reduced loss
    return call.by_length ? call.scale / static_cast<double>(std::max<int64_t>(call.labels(n), 1)) : call.scale;
  };
  Scratch<double> losses(samples);
  const int64_t grain = 1 + 2048 / ((most_frames + 1) * (most_labels + 1));
  parallel_for(samples, grain, [&](int64_t first, int64_t last) {
    Sample sample(call, most_frames, most_labels);
    const int64_t g_step = call.g.exists() && call.g.dim == 1 ? call.g.strides[0] : 0;
    for (int64_t n = first; n < last; ++n) {
      const double g = call.g.exists() ? number_at(call.g, n * g_step) : 1.0;
      losses[n] = sample.run(n, begin[n], g * share(n));
    }
  });
  if (!call.value.exists()) return;
  if (!call.reduce) {
    runs_of(call.value.dtype).store(call.value, 0, call.value.strides[0], samples, losses.get());
  } else {
    ExactSum total;
    for (int64_t n = 0; n < samples; ++n) total.add(losses[n] * share(n));
    set_number(call.value, 0, total.value());
  }
}

void ctc_loss(StableIValue* stack, uint64_t, uint64_t) {
  Arguments in(stack);
  Call call;
  call.x = in.tensor();
  call.targets = in.tensor();
  call.input_lengths = in.tensor();
  call.target_lengths = in.tensor();
  call.g = in.optional_tensor();
  call.blank = in.integer();
  call.zero_infinity = in.boolean();
  call.by_length = in.boolean();
  call.scale = in.real();
  call.reduce = in.boolean();
  call.value = in.optional_tensor();
  call.dx = in.optional_tensor();

  const Tensor& x = call.x;
  bool fits = x.dim == 3 && (call.targets.dim == 1 || call.targets.dim == 2);
  for (const Tensor* lengths : {&call.input_lengths, &call.target_lengths})
    fits = fits && lengths->dtype == Dtype::i64 && lengths->dim == 1 && lengths->numel == x.sizes[1];
  fits = fits && call.targets.dtype == Dtype::i64 && (call.targets.dim == 1 || call.targets.sizes[0] == x.sizes[1]);
  fits = fits && call.blank >= 0 && call.blank < x.sizes[2];
  for (const Tensor* tensor : {&call.g, &call.value})
    if (tensor->exists())
      fits = fits && tensor->dtype == x.dtype && tensor->dim == (call.reduce ? 0 : 1) &&
             tensor->numel == (call.reduce ? 1 : x.sizes[1]);
  if (call.dx.exists())
    fits = fits && call.dx.dtype == x.dtype && call.dx.dim == 3 && std::equal(x.sizes, x.sizes + 3, call.dx.sizes);
  if (!fits) throw std::runtime_error("manual_grad: the tensors of ctc_loss do not fit together");
  run(call);
}

const Op op{"ctc_loss",
            "(Tensor x, Tensor targets, Tensor input_lengths, Tensor target_lengths, Tensor? g, int blank, "
            "bool zero_infinity, bool by_length, float scale, bool reduce, Tensor(a!)? value, Tensor(b!)? dx) -> ()",
            ctc_loss};

}  // namespace
}  // namespace mg
