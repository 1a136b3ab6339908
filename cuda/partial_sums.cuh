// SPDX-License-Identifier: Apache-2.0
// Backward-filter's last step: blocks leave their sums in the workspace, and these are added in the order of the
// blocks.
#pragma once

#include "conv.cuh"

namespace fastconv::cuda {

// Blocks that a launch should have at least, so that the partial sums (and the bits) follow from the problem alone.
constexpr int64_t kFilterBlocks = 8 * 132;

// Writes w: for each of `weights` numbers the sum of `parts` numbers, `weights` apart in `sums`. No parts: zeros.
int sum_parts(const ConvProblem& p, const RunContext& r, const void* sums, int64_t parts, int64_t weights);

}  // namespace fastconv::cuda
