// SPDX-License-Identifier: Apache-2.0
// Operations on one element at a time: activations and sums (pointwise.cc), optimiser steps (optim.cc).
#pragma once

#include <cstdint>

namespace fastconv {

template <class T>
struct PointwiseKernelsOf {
  // kind: an Activation (problem.h).
  void (*activate)(int32_t kind, T alpha, int64_t count, const T* x, T* y);
  // dx = dy times the slope. `saved` is y where the slope follows from it, else x (pointwise_ops.h says for which).
  void (*activate_backward)(int32_t kind, T alpha, int64_t count, const T* dy, const T* saved, T* dx);
  // y = x > 0 ? x : w x; w is one slope for all, or one for each element.
  void (*prelu)(int64_t count, const T* x, const T* w, bool one_slope, T* y);
  // dx, and below = x > 0 ? 0 : x dy, whose sum is the gradient of w.
  void (*prelu_backward)(int64_t count, const T* dy, const T* x, const T* w, bool one_slope, T* dx, T* below);
  void (*add)(int64_t count, const T* a, const T* b, T* sum);
  // y = mask ? x * scale : 0
  void (*scale_mask)(int64_t count, const T* x, const uint8_t* mask, T scale, T* y);
};
struct PointwiseKernels {
  PointwiseKernelsOf<float> f32;
  PointwiseKernelsOf<double> f64;
};

template <class T>
struct SgdStep {
  T lr, momentum, weight_decay;
  T rest;  // 1 - dampening
  bool nesterov;
};
template <class T>
struct AdamStep {
  T lr;  // divided by 1 - beta1^step
  T beta2;
  T rest1, rest2;  // 1 - beta1, 1 - beta2
  T root_scale;    // 1 / sqrt(1 - beta2^step)
  T eps;
  T l2;     // times w, part of the gradient
  T decay;  // w's factor
};
template <class T>
struct RmspropStep {
  T lr, alpha;
  T rest;  // 1 - alpha
  T eps, weight_decay, momentum;
};
template <class T>
struct OptimKernelsOf {
  void (*sgd)(const SgdStep<T>& step, int64_t count, const T* g, T* w, T* velocity);  // velocity may be null
  // highest: the largest v so far, which then stands for v; may be null
  void (*adam)(const AdamStep<T>& step, int64_t count, const T* g, T* w, T* m, T* v, T* highest);
  // mean: null unless centred; velocity: null without momentum
  void (*rmsprop)(const RmspropStep<T>& step, int64_t count, const T* g, T* w, T* square, T* mean, T* velocity);
};
struct OptimKernels {
  OptimKernelsOf<float> f32;
  OptimKernelsOf<double> f64;
};

}  // namespace fastconv
