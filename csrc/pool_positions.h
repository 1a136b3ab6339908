// SPDX-License-Identifier: Apache-2.0
// What follows the int64 positions that max pooling returns: values put to them (the gradient of max pooling, and
// unpooling) and read from them (the gradient of that).
#pragma once

#include "plan.h"

namespace fastconv {

// n images of c channels with `pixels` pixels each (the plane), and `outputs` values per channel that name a pixel.
// All buffers are dense, in one layout.
struct PositionProblem {
  Layout layout;
  DType dtype;
  int64_t n, c, pixels, outputs;
  int64_t least;  // 0: every index must be a pixel; -1: -1 names none, and stands for 0
};

// plane[indices[i]] = sum of values[i], in ascending order of i, and 0 where no index points.
Failure scatter_positions(const PositionProblem& problem, const Options& options, const void* values,
                          const int64_t* indices, void* plane, char* text);
// values[i] = plane[indices[i]].
Failure gather_positions(const PositionProblem& problem, const Options& options, const void* plane,
                         const int64_t* indices, void* values, char* text);
// Of the i that name the same pixel, the last one keeps its index in `last`; the others get -1.
Failure last_positions(const PositionProblem& problem, const Options& options, const int64_t* indices, int64_t* last,
                       char* text);

}  // namespace fastconv
