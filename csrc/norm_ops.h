// SPDX-License-Identifier: Apache-2.0
// Per-channel sums, batch normalisation, softmax and cross-entropy on dense arrays. T is float or double.
#pragma once

#include "machine.h"

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

// Softmax of each of `rows` rows. With labels (each in [0, columns)), loss[row] = -log(y[row][labels[row]]).
template <class T>
void softmax(const Machine& machine, int64_t rows, int64_t columns, const T* x, const int64_t* labels, T* y, T* loss);
// dx[row] = dloss[row] (p[row] - the unit vector of labels[row])
template <class T>
void cross_entropy_backward(const Machine& machine, int64_t rows, int64_t columns, const T* dloss, const T* p,
                            const int64_t* labels, T* dx);

}  // namespace fastconv
