// What all ops have in common.
#pragma once

#include "abi.h"

namespace mg {

enum Reduction : int64_t { kNone, kMean, kSum };  // kernels/__init__.py, REDUCTION

}  // namespace mg
