// SPDX-License-Identifier: Apache-2.0
// A sparse matrix times one axis of a dense array: resizing, and by the transposed matrix its gradient. T is float or
// double.
#pragma once

#include "algorithm.h"

namespace fastconv {

// Output j is the sum over start[j] <= i < start[j + 1] of weights[i] times input first[j] + i - start[j].
struct Taps {
  int64_t inputs, outputs;
  const int64_t *first, *start;
  const double* weights;
};

// x (outer, inputs, inner) -> y (outer, outputs, inner). False when there is no memory for scratch.
template <class T>
bool resample(const Machine& machine, const Taps& taps, int64_t outer, int64_t inner, const T* x, T* y);

}  // namespace fastconv
