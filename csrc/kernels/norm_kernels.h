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
