// SPDX-License-Identifier: Apache-2.0
// Group normalisation of dense arrays, of which instance normalisation (as many groups as channels) and layer
// normalisation (one group, one pixel) are special cases. T is float or double.
#pragma once

#include "algorithm.h"

namespace fastconv {

// An array (n, c, pixels), or (n, pixels, c) when channels are last; groups divide c. Every extent is positive.
struct GroupShape {
  int64_t n, c, pixels, groups;
  bool channels_last;
};

// y = gamma (x - mean) inverse + beta, gamma and beta per channel; mean and inverse = 1 / sqrt(variance + eps), with
// the biased variance, are (n, groups). False when there is no memory for scratch, as below.
template <class T>
bool group_norm_forward(const Machine& machine, const GroupShape& shape, const T* x, const T* gamma, const T* beta,
                        double eps, T* y, double* mean, double* inverse);
template <class T>
bool group_norm_backward(const Machine& machine, const GroupShape& shape, const T* dy, const T* x, const T* gamma,
                         const double* mean, const double* inverse, T* dx, T* dgamma, T* dbeta);

}  // namespace fastconv
