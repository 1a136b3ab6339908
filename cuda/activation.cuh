// SPDX-License-Identifier: Apache-2.0
// The activations of the epilogue, on a sum: the same formulas as csrc/algorithms/reference.cc.
#pragma once

#include <cmath>

#include "device.cuh"

namespace fastconv::cuda {

template <class A>
__device__ __forceinline__ A hard_sigmoid(A v) {
  const A t = v + A(3);
  return (t < A(0) ? A(0) : t > A(6) ? A(6) : t) / A(6);
}

template <class A>
__device__ __forceinline__ A log_one_plus_exp(A v) {
  return (v > A(0) ? v : A(0)) + log1p(exp(-fabs(v)));
}

// Comparisons are written so that NaN passes through.
template <class A>
__device__ __forceinline__ A activate(A v, Activation kind, A alpha) {
  constexpr A zero = 0;
  switch (kind) {
    case Activation::kRelu:
      return v < zero ? zero : v;
    case Activation::kLeakyRelu:
      return v < zero ? alpha * v : v;
    case Activation::kRelu6:
      return v < zero ? zero : v > A(6) ? A(6) : v;
    case Activation::kElu:
      return v < zero ? alpha * expm1(v) : v;
    case Activation::kSigmoid:
      return A(1) / (A(1) + exp(-v));
    case Activation::kTanh:
      return tanh(v);
    case Activation::kSilu:
      return v / (A(1) + exp(-v));
    case Activation::kGelu:
      return A(0.5) * v * erfc(-v / A(1.4142135623730950488));
    case Activation::kHardSwish:
      return v * hard_sigmoid(v);
    case Activation::kHardSigmoid:
      return hard_sigmoid(v);
    case Activation::kGeluTanh:  // 2 z = 2 sqrt(2 / pi) (v + 0.044715 v^3)
      return v / (A(1) + exp(A(-1.5957691216057307118) * (v + A(0.044715) * v * v * v)));
    case Activation::kSelu:
      return A(1.0507009873554804934) * (v < zero ? A(1.6732632423543772848) * expm1(v) : v);
    case Activation::kCelu:
      return v < zero ? alpha * expm1(v / alpha) : v;
    case Activation::kSoftplus:
      return log_one_plus_exp(alpha * v) / alpha;
    case Activation::kSoftsign:
      return v / (A(1) + fabs(v));
    case Activation::kMish:
      return v * tanh(log_one_plus_exp(v));
    case Activation::kLogSigmoid:
      return -log_one_plus_exp(-v);
    default:
      return v;
  }
}

}  // namespace fastconv::cuda
