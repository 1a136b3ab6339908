// SPDX-License-Identifier: Apache-2.0
// Max, min, average and Lp pooling, forward and backward. What follows the positions of maxima is in pool_positions.h.
#pragma once

#include "plan.h"
#include "problem.h"

namespace fastconv {

// Buffers keep their names: forward reads x and writes y (and indices or offsets). The backward pass of an average
// reads dy and writes dx; that of a norm reads x and y too, that of an extreme offsets. All but x in forward is dense.
struct PoolBuffers {
  const void* x;
  int64_t x_batch_pitch, x_channel_pitch;  // elements, as in RunContext; in backward x is dense
  void* y;
  // Max and min, laid out like y; at most one is wanted in forward, the others are null.
  int64_t* indices;  // positions in x's plane
  uint8_t* offsets;  // numbers of taps in their window, where has_offsets
  const void* dy;
  void* dx;
  double norm;  // p of an Lp pooling, at least 1
};

// Whether a winner is known by its tap's number in 8 bits: extremes of at most 256 taps, not adaptive.
bool has_offsets(const PoolProblem& problem);

// indices of the offsets: both laid out like y.
void positions_of_offsets(const PoolProblem& problem, const Options& options, const uint8_t* offsets, int64_t* indices);

// The problem is a valid one. On failure `text` (kTextCapacity characters) holds one sentence.
Failure run_pool(const PoolProblem& problem, const Options& options, const PoolBuffers& buffers, char* text);

}  // namespace fastconv
