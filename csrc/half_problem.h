// SPDX-License-Identifier: Apache-2.0
// Convolutions in float16 and bfloat16. They run as float32 problems, by any algorithm: what it reads is widened into
// the workspace, what it writes is rounded once, after the epilogue. So sums, bias, residual and activation are
// float32's, and an algorithm never sees a half. Large problems are cut into slices whose copies stay in L2
// (half_slices.h).
#pragma once

#include "algorithm.h"

namespace fastconv {

// The problem that the CPU's algorithms are asked about: float32 for a half, else the same.
ConvProblem computed_problem(const ConvProblem& problem);

// These are the algorithm's own for float32 and float64, and for a half those of its float32 problem and of what
// conversion adds. A half's weights that are handed over packed are at least widened: where the algorithm has no
// packed form of its own, float32 as they are.
Estimate estimate(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, bool packed);
int64_t workspace_bytes(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, int slots,
                        bool packed);
int64_t packed_bytes(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine);
// False when there is no memory.
bool pack(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, const Parallel& parallel,
          const void* w, void* packed);
int run(const Algorithm& algorithm, const ConvProblem& problem, const RunContext& context);

}  // namespace fastconv
