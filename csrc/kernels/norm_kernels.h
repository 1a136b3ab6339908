// SPDX-License-Identifier: Apache-2.0
// Per-channel sums and batch normalisation (norm.cc). Everything is accumulated in float64.
#pragma once

#include <cstdint>

namespace fastconv {

// Values of a chunk: `runs` runs of `length` adjacent elements, `pitch` elements apart.
// By planes: all of one channel; the results are single numbers. By columns: run r holds element r of `length`
// channels; the results are arrays of that many.
struct Runs {
  int64_t runs, length, pitch;
};

template <class T>
struct NormKernelsOf {
  void (*sum)(const Runs& chunk, const T* x, double* sum);
  // Mean, and sum of squared distances from it.
  void (*moments)(const Runs& chunk, const T* x, double* mean, double* squares);
  // Sums of dy, of x - mean and of dy (x - mean).
  void (*backward_sums)(const Runs& chunk, const T* dy, const T* x, const T* mean, double* dy_sum, double* x_sum,
                        double* product_sum);
  // y = (x - mean) scale + shift
  void (*apply)(const Runs& chunk, const T* x, const T* mean, const T* scale, const T* shift, T* y);
  // dx = (dy - dy_mean) scale + (x - mean) slope
  void (*backward)(const Runs& chunk, const T* dy, const T* x, const T* dy_mean, const T* mean, const T* scale,
                   const T* slope, T* dx);
};
struct NormKernels {
  NormKernelsOf<float> planes_f32, columns_f32;
  NormKernelsOf<double> planes_f64, columns_f64;
};

// Group and layer normalisation (row_norm.cc); mean and inverse = 1 / sqrt(variance + eps) belong to a row.
template <class T>
struct RowNormKernelsOf {
  // y = (x - mean) inverse gamma + beta
  void (*apply)(int64_t count, const T* x, double mean, double inverse, const T* gamma, const T* beta, T* y);
  // Sums of g = dy gamma and of g (x - mean). gamma null: 1.
  void (*backward_sums)(int64_t count, const T* dy, const T* x, const T* gamma, double mean, double* sum,
                        double* product);
  // dx = dy gamma scale + (x - mean) slope + shift. gamma null: 1.
  void (*backward)(int64_t count, const T* dy, const T* x, const T* gamma, double mean, double scale, double slope,
                   double shift, T* dx);
  // Rows `pitch` apart, their statistics `step` apart: dgamma = sum of dy (x - mean) inverse, dbeta = sum of dy.
  void (*parameters)(int64_t rows, int64_t count, int64_t pitch, const T* dy, const T* x, int64_t step,
                     const double* mean, const double* inverse, double* dgamma, double* dbeta);
  // By columns, as in NormKernelsOf: dx = dy scale + (x - mean) slope + shift.
  void (*backward_columns)(const Runs& chunk, const T* dy, const T* x, const T* mean, const T* scale, const T* slope,
                           const T* shift, T* dx);
};
struct RowNormKernels {
  RowNormKernelsOf<float> f32;
  RowNormKernelsOf<double> f64;
};

// Cross-entropy with class numbers: loss = sum over k of t[k] (-log softmax(x)[k]) with
// t[k] = weight[k] (own [k is the label] + even), own = 1 - smoothing, even = smoothing / classes.
template <class T>
struct EntropyOptions {
  T own, even;
  const T* weight;  // per class; null: 1
  T total;          // the sum of the weights
  int64_t ignore;   // rows of this label have loss 0 and gradient 0
};

template <class T>
struct LossKernelsOf {
  // y = softmax of each row of x, or its logarithm.
  void (*softmax)(int64_t rows, int64_t columns, bool log, const T* x, T* y);
  void (*softmax_backward)(int64_t rows, int64_t columns, bool log, const T* dy, const T* y, T* dx);
  // Also p = softmax(x), for the gradient.
  void (*cross_entropy)(const EntropyOptions<T>& options, int64_t rows, int64_t columns, const T* x,
                        const int64_t* labels, T* p, T* loss);
  // dx[row][k] = dloss[row] (p[k] sum(t) - t[k])
  void (*cross_entropy_backward)(const EntropyOptions<T>& options, int64_t rows, int64_t columns, const T* dloss,
                                 const T* p, const int64_t* labels, T* dx);
};
struct LossKernels {
  LossKernelsOf<float> f32;
  LossKernelsOf<double> f64;
};

// ---- pair_loss.cc: losses of one x and one target t at a time -----------------------------------------------------
enum class PairLoss : int32_t {
  kSquare,
  kAbsolute,
  kHuber,
  kSmoothAbsolute,
  kEntropy,
  kEntropyOfLogits,
  kDivergence,
  kDivergenceOfLogs
};

template <class T>
struct PairLossKernelsOf {
  void (*loss)(int32_t kind, T alpha, int64_t count, const T* x, const T* t, T* loss);
  // The sum of the losses, in float64.
  double (*sum)(int32_t kind, T alpha, int64_t count, const T* x, const T* t);
  // dx = dloss times the slope in x; dloss is one number for all, or one for each.
  void (*backward)(int32_t kind, T alpha, int64_t count, const T* dloss, bool one, const T* x, const T* t, T* dx);
};
struct PairLossKernels {
  PairLossKernelsOf<float> f32;
  PairLossKernelsOf<double> f64;
};

}  // namespace fastconv
