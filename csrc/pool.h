// SPDX-License-Identifier: Apache-2.0
// Max and average pooling, forward and backward.
#pragma once

#include "plan.h"
#include "problem.h"

namespace fastconv {

// Buffers keep their names: forward reads x and writes y (and indices), backward reads y (and indices) and writes x.
struct PoolBuffers {
  void* x;
  int64_t x_batch_pitch, x_channel_pitch;  // elements, as in RunContext; in backward x is dense
  void* y;                                 // dense
  int64_t* indices;  // laid out like y: positions in x's plane. Max pooling: null in forward when not wanted
};

// The problem is a valid one. On failure `text` (kTextCapacity characters) holds one sentence.
Failure run_pool(const PoolProblem& problem, const Options& options, const PoolBuffers& buffers, char* text);

}  // namespace fastconv
