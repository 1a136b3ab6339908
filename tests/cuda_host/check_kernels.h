// SPDX-License-Identifier: Apache-2.0
// Kernels of the emulation's own tests: sound ones, and each of them with one bug planted.
#pragma once

#include "../../cuda/device.cuh"

namespace fastconv::cuda {

constexpr int kNumbers = 4096;  // of `from`, small integers, and of `to`

enum class Caught {
  kNever,     // sound: nothing may be reported and the values are right
  kByShadow,  // by the checked library; another sees wrong values or nothing
  kByValues,  // at some seed without the shadow too: wrong values
  kAlways,    // reported by both at every seed
};

struct Trial {
  const char* name;
  Caught caught;
  int (*run)(const RunContext& context, const float* from, float* to);
  void (*expect)(const float* from, float* to);  // writes what `run` must; the rest of `to` stays NaN
};
extern const Trial kBlockTrials[], kWarpTrials[];  // the last ones have no name

}  // namespace fastconv::cuda
