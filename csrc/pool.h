// SPDX-License-Identifier: Apache-2.0
// Max, min, average and Lp pooling, forward and backward. What follows the positions of maxima is in pool_positions.h.
#pragma once

#include "plan.h"
#include "pool_buffers.h"
#include "problem.h"

namespace fastconv {

// Whether a winner is known by its tap's number in 8 bits: extremes of at most 256 taps, not adaptive.
bool has_offsets(const PoolProblem& problem);

// indices of the offsets: both laid out like y.
void positions_of_offsets(const PoolProblem& problem, const Options& options, const uint8_t* offsets, int64_t* indices);

// The problem is a valid one. On failure `text` (kTextCapacity characters) holds one sentence.
Failure run_pool(const PoolProblem& problem, const Options& options, const PoolBuffers& buffers, char* text);

}  // namespace fastconv
