// SPDX-License-Identifier: Apache-2.0
// Softmax and losses on dense arrays. T is float or double.
#pragma once

#include "algorithm.h"
#include "kernels/norm_kernels.h"

namespace fastconv {

// Softmax of each of `rows` rows, or its logarithm.
template <class T>
void softmax(const Machine& machine, int64_t rows, int64_t columns, bool log, const T* x, T* y);
template <class T>
void softmax_backward(const Machine& machine, int64_t rows, int64_t columns, bool log, const T* dy, const T* y, T* dx);

// Each label is in [0, columns) or the one to ignore. p = softmax(x).
template <class T>
void cross_entropy(const Machine& machine, const EntropyOptions<T>& options, int64_t rows, int64_t columns, const T* x,
                   const int64_t* labels, T* p, T* loss);
template <class T>
void cross_entropy_backward(const Machine& machine, const EntropyOptions<T>& options, int64_t rows, int64_t columns,
                            const T* dloss, const T* p, const int64_t* labels, T* dx);

template <class T>
void pair_loss(const Machine& machine, PairLoss kind, double alpha, int64_t count, const T* x, const T* t, T* loss);
// *sum in float64: over chunks that depend on count alone, then pairwise. False when there is no memory.
template <class T>
bool pair_loss_sum(const Machine& machine, PairLoss kind, double alpha, int64_t count, const T* x, const T* t,
                   double* sum);
// dloss is one number (one) or has `count`.
template <class T>
void pair_loss_backward(const Machine& machine, PairLoss kind, double alpha, int64_t count, const T* dloss, bool one,
                        const T* x, const T* t, T* dx);

}  // namespace fastconv
