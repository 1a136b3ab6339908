// SPDX-License-Identifier: Apache-2.0
// Per-channel sums, batch normalisation on dense arrays. T is float or double.
#pragma once

#include "algorithm.h"

namespace fastconv {

// An array (n, c, pixels). Sums run over fixed chunks and a pairwise tree: they depend on these three alone.
struct ChannelShape {
  int64_t n, c, pixels;
};

// These return false when there is no memory for the partial sums.
template <class T>
bool channel_sum(const Machine& machine, const ChannelShape& shape, const T* x, T* sum);
// y = gamma (x - mean) / sqrt(variance + eps) + beta with the batch's own statistics, variance biased; n pixels > 0.
template <class T>
bool batch_norm_forward(const Machine& machine, const ChannelShape& shape, const T* x, const T* gamma, const T* beta,
                        double eps, T* y, T* mean, T* variance);
template <class T>
bool batch_norm_inference(const Machine& machine, const ChannelShape& shape, const T* x, const T* gamma, const T* beta,
                          const T* mean, const T* variance, double eps, T* y);
template <class T>
bool batch_norm_backward(const Machine& machine, const ChannelShape& shape, const T* dy, const T* x, const T* gamma,
                         const T* mean, const T* variance, double eps, T* dx, T* dgamma, T* dbeta);

}  // namespace fastconv
