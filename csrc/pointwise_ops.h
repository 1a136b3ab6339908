// SPDX-License-Identifier: Apache-2.0
// Operations on one element at a time, and optimiser steps, on dense arrays of `count` elements. T is float or double.
#pragma once

#include "algorithm.h"
#include "problem.h"

namespace fastconv {

template <class T>
void activation_forward(const Machine& machine, Activation kind, double alpha, int64_t count, const T* x, T* y);
// `saved` is y for relu, relu6, sigmoid, tanh, selu, celu (alpha > 0), and for leaky_relu and elu where alpha >= 0;
// x for the others.
template <class T>
void activation_backward(const Machine& machine, Activation kind, double alpha, int64_t count, const T* dy,
                         const T* saved, T* dx);
// y = x > 0 ? x : w x (He et al., "Delving deep into rectifiers", 2015): x has n * channels planes of `pixels`; w has
// one slope for all (channels = 1) or one per channel. `below` has the size of x; its sum per channel is dw.
template <class T>
void prelu(const Machine& machine, int64_t n, int64_t channels, int64_t pixels, const T* x, const T* w, T* y);
template <class T>
void prelu_backward(const Machine& machine, int64_t n, int64_t channels, int64_t pixels, const T* dy, const T* x,
                    const T* w, T* dx, T* below);
template <class T>
void add(const Machine& machine, int64_t count, const T* a, const T* b, T* sum);
template <class T>
void scale_mask(const Machine& machine, int64_t count, const T* x, const uint8_t* mask, double scale, T* y);

// PyTorch's SGD: velocity = momentum velocity + (1 - dampening) (g + weight_decay w). Without velocity there is no
// momentum.
struct SgdOptions {
  double lr, momentum, weight_decay, dampening;
  bool nesterov;
};
template <class T>
void sgd_step(const Machine& machine, const SgdOptions& options, int64_t count, T* w, const T* g, T* velocity);

// Kingma and Ba (arXiv 1412.6980); decoupled: Loshchilov and Hutter's AdamW (arXiv 1711.05101). step counts from 1.
// highest, if not null: Reddi, Kale and Kumar's AMSGrad (arXiv 1904.09237), which divides by the largest v so far.
struct AdamOptions {
  double lr, beta1, beta2, eps, weight_decay;
  bool decoupled;
  int64_t step;
};
template <class T>
void adam_step(const Machine& machine, const AdamOptions& options, int64_t count, T* w, const T* g, T* m, T* v,
               T* highest);

// PyTorch's RMSprop (Tieleman and Hinton, 2012): square is a running mean of g^2; mean, if not null, one of g, whose
// square is taken off (Graves, arXiv 1308.0850); velocity, if not null, gathers the scaled gradients.
struct RmspropOptions {
  double lr, alpha, eps, weight_decay, momentum;
};
template <class T>
void rmsprop_step(const Machine& machine, const RmspropOptions& options, int64_t count, T* w, const T* g, T* square,
                  T* mean, T* velocity);

}  // namespace fastconv
