// SPDX-License-Identifier: Apache-2.0
// Local response normalisation of dense arrays: y = x s^-beta with s = k + alpha (sum of squares over a window), the
// window across channels or along the spatial axes. T is float or double.
#pragma once

#include "algorithm.h"

namespace fastconv {

// x is (n, c, *size), or (n, *size, c) when channels are last; `rank` spatial axes. The window of a cell reaches from
// `before` cells before it to `after` behind it, along the channels or, `spatial`, along every spatial axis; beyond the
// array there is nothing. alpha is what one square counts.
struct ResponseNorm {
  int64_t n, c, size[3];
  int rank;
  bool channels_last, spatial;
  int64_t before, after;
  double alpha, beta, k;
};

// False when there is no memory for scratch.
template <class T>
bool response_norm_forward(const Machine& machine, const ResponseNorm& norm, const T* x, T* y);
// dx = dy s^-beta - 2 alpha beta x (sum over the windows that x is in of dy y / s)
template <class T>
bool response_norm_backward(const Machine& machine, const ResponseNorm& norm, const T* dy, const T* x, T* dx);

}  // namespace fastconv
