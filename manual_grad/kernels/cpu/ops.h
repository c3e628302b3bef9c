// The ops each kernel file offers; library.cpp registers them.
#pragma once

#include <initializer_list>

#include "abi.h"

namespace mg {

enum Reduction : int64_t { kNone, kMean, kSum };  // kernels/__init__.py, REDUCTION

extern const std::initializer_list<Op> regression_ops;
extern const std::initializer_list<Op> likelihood_ops;
extern const std::initializer_list<Op> margin_ops;
extern const std::initializer_list<Op> cross_entropy_ops;
extern const std::initializer_list<Op> nll_loss_ops;
extern const std::initializer_list<Op> class_margin_ops;
extern const std::initializer_list<Op> cosine_ops;
extern const std::initializer_list<Op> triplet_ops;
extern const std::initializer_list<Op> path_ops;
}  // namespace mg
