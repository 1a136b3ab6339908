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

template <class T>
struct LossKernelsOf {
  // y = softmax of each row of x. With labels, loss[row] = -log(y[row][labels[row]]).
  void (*softmax)(int64_t rows, int64_t columns, const T* x, const int64_t* labels, T* y, T* loss);
  // dx[row] = dloss[row] (p[row] - the unit vector of labels[row])
  void (*cross_entropy_backward)(int64_t rows, int64_t columns, const T* dloss, const T* p, const int64_t* labels,
                                 T* dx);
};
struct LossKernels {
  LossKernelsOf<float> f32;
  LossKernelsOf<double> f64;
};

}  // namespace fastconv
