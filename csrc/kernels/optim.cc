// SPDX-License-Identifier: Apache-2.0
// Optimiser steps, each array read and written once.
#include "kernel_table.h"
#include "pointwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const OptimKernels kOptimKernels;
namespace {

template <class T>
void sgd(const SgdStep<T>& step, int64_t count, const T* __restrict g, T* __restrict w, T* __restrict velocity) {
  const T lr = step.lr, momentum = step.momentum, decay = step.weight_decay;
  if (!velocity) {
    for (int64_t i = 0; i < count; ++i) w[i] -= lr * (g[i] + decay * w[i]);
  } else if (step.nesterov) {
    for (int64_t i = 0; i < count; ++i) {
      const T gradient = g[i] + decay * w[i];
      velocity[i] = momentum * velocity[i] + gradient;
      w[i] -= lr * (gradient + momentum * velocity[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      velocity[i] = momentum * velocity[i] + (g[i] + decay * w[i]);
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

template <class T>
void adam(const AdamStep<T>& step, int64_t count, const T* __restrict g, T* __restrict w, T* __restrict m,
          T* __restrict v) {
  const AdamStep<T> s = step;
  for (int64_t i = 0; i < count; ++i) {
    const T gradient = g[i] + s.l2 * w[i];
    m[i] += s.rest1 * (gradient - m[i]);
    v[i] = s.beta2 * v[i] + s.rest2 * (gradient * gradient);
    w[i] = w[i] * s.decay - s.lr * (m[i] / (square_root(v[i]) * s.root_scale + s.eps));
  }
}

}  // namespace

const OptimKernels kOptimKernels = {{sgd<float>, adam<float>}, {sgd<double>, adam<double>}};

}  // namespace fastconv::FC_ISA
