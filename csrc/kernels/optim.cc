// SPDX-License-Identifier: Apache-2.0
// Optimiser steps, each array read and written once.
#include "pointwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const OptimKernels kOptimKernels;
namespace {

template <class T>
void sgd(const SgdStep<T>& step, int64_t count, const T* __restrict g, T* __restrict w, T* __restrict velocity) {
  const T lr = step.lr, momentum = step.momentum, decay = step.weight_decay, rest = step.rest;
  if (!velocity) {
    for (int64_t i = 0; i < count; ++i) w[i] -= lr * (g[i] + decay * w[i]);
  } else if (step.nesterov) {
    for (int64_t i = 0; i < count; ++i) {
      const T gradient = g[i] + decay * w[i];
      velocity[i] = momentum * velocity[i] + rest * gradient;
      w[i] -= lr * (gradient + momentum * velocity[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      velocity[i] = momentum * velocity[i] + rest * (g[i] + decay * w[i]);
      w[i] -= lr * velocity[i];
    }
  }
}

template <class T>
FC_INLINE T square_root(T x) {
  if constexpr (sizeof(T) == 4)
    return __builtin_sqrtf(x);
  else
    return __builtin_sqrt(x);
}

template <bool kHighest, class T>
FC_INLINE void adam_loop(const AdamStep<T>& s, int64_t count, const T* __restrict g, T* __restrict w, T* __restrict m,
                         T* __restrict v, T* __restrict highest) {
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = g[i] + s.l2 * w[i];
    m[i] += s.rest1 * (gradient - m[i]);
    v[i] = s.beta2 * v[i] + s.rest2 * (gradient * gradient);
    T square = v[i];
    if constexpr (kHighest) {
      square = highest[i] > square ? highest[i] : square;
      highest[i] = square;
    }
    w[i] = w[i] * s.decay - s.lr * (m[i] / (square_root(square) * s.root_scale + s.eps));
  }
}

template <class T>
void adam(const AdamStep<T>& step, int64_t count, const T* g, T* w, T* m, T* v, T* highest) {
  const AdamStep<T> s = step;
  if (highest)
    adam_loop<true>(s, count, g, w, m, v, highest);
  else
    adam_loop<false>(s, count, g, w, m, v, highest);
}

template <bool kCentred, bool kMomentum, class T>
FC_INLINE void rmsprop_loop(const RmspropStep<T>& s, int64_t count, const T* __restrict g, T* __restrict w,
                            T* __restrict square, T* __restrict mean, T* __restrict velocity) {
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = g[i] + s.weight_decay * w[i];
    square[i] = s.alpha * square[i] + s.rest * (gradient * gradient);
    T variance = square[i];
    if constexpr (kCentred) {
      mean[i] += s.rest * (gradient - mean[i]);
      variance -= mean[i] * mean[i];
      variance = variance > 0 ? variance : 0;  // below zero by rounding, for a gradient that hardly changes
    }
    const T scaled = gradient / (square_root(variance) + s.eps);
    if constexpr (kMomentum) {
      velocity[i] = s.momentum * velocity[i] + scaled;
      w[i] -= s.lr * velocity[i];
    } else {
      w[i] -= s.lr * scaled;
    }
  }
}

template <class T>
void rmsprop(const RmspropStep<T>& step, int64_t count, const T* g, T* w, T* square, T* mean, T* velocity) {
  const RmspropStep<T> s = step;
  if (mean && velocity)
    rmsprop_loop<true, true>(s, count, g, w, square, mean, velocity);
  else if (mean)
    rmsprop_loop<true, false>(s, count, g, w, square, mean, velocity);
  else if (velocity)
    rmsprop_loop<false, true>(s, count, g, w, square, mean, velocity);
  else
    rmsprop_loop<false, false>(s, count, g, w, square, mean, velocity);
}

}  // namespace

const OptimKernels kOptimKernels = {{sgd<float>, adam<float>, rmsprop<float>},
                                    {sgd<double>, adam<double>, rmsprop<double>}};

}  // namespace fastconv::FC_ISA
