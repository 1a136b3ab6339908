// SPDX-License-Identifier: Apache-2.0
// Max, min, average and Lp pooling, forward; average and Lp pooling, backward. What follows the positions of maxima is
// in pool_positions.h.
#pragma once

#include "plan.h"
#include "problem.h"

namespace fastconv {

// Buffers keep their names: forward reads x and writes y (and indices). The backward pass of an average reads dy and
// writes dx; that of a norm reads x and y too. Everything but x in forward is dense.
struct PoolBuffers {
  const void* x;
  int64_t x_batch_pitch, x_channel_pitch;  // elements, as in RunContext; in backward x is dense
  void* y;
  int64_t* indices;  // laid out like y: positions in x's plane. Max and min: null when not wanted
  const void* dy;
  void* dx;
  double norm;  // p of an Lp pooling, at least 1
};

// The problem is a valid one. On failure `text` (kTextCapacity characters) holds one sentence.
Failure run_pool(const PoolProblem& problem, const Options& options, const PoolBuffers& buffers, char* text);

}  // namespace fastconv
