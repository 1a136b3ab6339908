// SPDX-License-Identifier: Apache-2.0
// Sums over windows, local response normalisation (response_norm.cc) and resampling (resample.cc).
#pragma once

#include <cstdint>

namespace fastconv {

template <class T>
struct ResponseNormKernelsOf {
  void (*square)(int64_t count, const T* x, T* y);
  // y[i] = sum over tap < taps of x[tap * pitch + i]
  void (*window_sum)(int64_t count, int64_t taps, int64_t pitch, const T* x, T* y);
  // With s = k + alpha sums: y = x s^-beta
  void (*scale)(int64_t count, T k, T alpha, T beta, const T* x, const T* sums, T* y);
  // dx = dy s^-beta, ratio = dx x / s
  void (*backward)(int64_t count, T k, T alpha, T beta, const T* dy, const T* x, const T* sums, T* dx, T* ratio);
  // dx -= factor x ratio_sums
  void (*backward_rest)(int64_t count, T factor, const T* x, const T* ratio_sums, T* dx);
};
struct ResponseNormKernels {
  ResponseNormKernelsOf<float> f32;
  ResponseNormKernelsOf<double> f64;
};

template <class T>
struct ResampleKernelsOf {
  // y[i] = sum over tap < taps of weights[tap] x[tap * pitch + i], 0 without taps
  void (*mix)(int64_t count, int64_t taps, const T* weights, int64_t pitch, const T* x, T* y);
  // y[j] = sum of weights[i] x[first[j] + i - start[j]] over start[j] <= i < start[j + 1]
  void (*gather)(int64_t count, const int64_t* first, const int64_t* start, const T* weights, const T* x, T* y);
};
struct ResampleKernels {
  ResampleKernelsOf<float> f32;
  ResampleKernelsOf<double> f64;
};

}  // namespace fastconv
