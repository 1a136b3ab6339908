// SPDX-License-Identifier: Apache-2.0
// Activations as operations of their own, and their slopes: those of csrc/kernels/activation.h, where an infinity gives the
// limit and nothing cancels in a tail. silu, mish and both forms of gelu are x times a gate between 0 and 1. With u = |x|
// they are computed from q = u gate(-u): f(-u) = -q, f(u) = u - q (mish has a q of its own on either side).
//
// The kind is known to the compiler: one switch serves all elements of a thread.
#pragma once

#include <cmath>

#include "device.cuh"

namespace fastconv::cuda {

constexpr double kSeluScale = 1.0507009873554804934193349852946, kSeluFloor = 1.7580993408473768599402175208123;
// Beyond it every gate is 0 or 1; below it u is finite, so that 0 u is 0.
constexpr double kGateEnd = 1000;
// gelu_tanh: the gate is the sigmoid of x (a + b x^2); from 30 on it is 0 or 1.
constexpr double kGeluA = 1.5957691216057307117597842397375, kGeluB = 0.071354816272600248;

// NaN passes through.
template <class A>
__device__ __forceinline__ A between(A v, A low, A high) {
  return v < low ? low : v > high ? high : v;
}
template <class A>
__device__ __forceinline__ A gate_distance(A v) {
  const A u = fabs(v);
  return u > A(kGateEnd) ? A(kGateEnd) : u;
}
template <class A>
__device__ __forceinline__ A sigmoid(A v) {
  const A e = exp(-fabs(v));  // of a non-positive number: no overflow
  return (v < A(0) ? e : A(1)) / (A(1) + e);
}
template <class A>
__device__ __forceinline__ A softplus(A v) {
  return (v > A(0) ? v : A(0)) + log1p(exp(-fabs(v)));
}
// exp(-2 z) of gelu_tanh.
template <class A>
__device__ __forceinline__ A gelu_tanh_gate(A u) {
  u = u > A(30) ? A(30) : u;
  return exp(-u * (A(kGeluA) + A(kGeluB) * (u * u)));
}

// q, see above.
template <Activation kind, class A>
__device__ __forceinline__ A gated(A u, bool negative) {
  constexpr A one = 1, two = 2;
  if constexpr (kind == Activation::kGelu) return A(0.5) * u * erfc(u * A(0.70710678118654752440));
  const A e = kind == Activation::kGeluTanh ? gelu_tanh_gate(u) : exp(-u);
  if constexpr (kind == Activation::kMish)  // tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2)
    return negative ? u * e * (two + e) / (two + e * (two + e)) : two * u * e * e / (one + two * e * (one + e));
  return u * e / (one + e);
}

template <Activation kind, class A>
__device__ __forceinline__ A activated(A v, A alpha) {
  constexpr A zero = 0, one = 1, three = 3, six = 6;
  switch (kind) {
    case Activation::kRelu:
      return v < zero ? zero : v;
    case Activation::kLeakyRelu:
      return v < zero ? v * alpha : v;
    case Activation::kRelu6:
      return between(v, zero, six);
    case Activation::kElu:
      return v < zero ? alpha * expm1(v) : v;
    case Activation::kSigmoid:
      return sigmoid(v);
    case Activation::kTanh:
      return tanh(v);
    case Activation::kSilu:
    case Activation::kGelu:
    case Activation::kGeluTanh:
    case Activation::kMish: {
      const A q = gated<kind>(gate_distance(v), v < zero);
      return v < zero ? -q : v - q;
    }
    case Activation::kHardSwish:  // -inf times 0 would be NaN, v times 6 could overflow
      return v < -three ? zero : v * (between(v + three, zero, six) / six);
    case Activation::kSelu:
      return v < zero ? A(kSeluFloor) * expm1(v) : A(kSeluScale) * v;
    case Activation::kCelu:
      return v < zero ? alpha * expm1(v / alpha) : v;
    case Activation::kHardSigmoid:
      return between(v + three, zero, six) / six;
    case Activation::kSoftplus:
      return softplus(v * alpha) / alpha;
    case Activation::kSoftsign: {
      const A u = fabs(v), y = u > A(1e30) ? one : u / (one + u);
      return v < zero ? -y : y;
    }
    case Activation::kLogSigmoid:
      return -softplus(-v);
    default:
      return v;
  }
}

// f'(-u) of silu and both gelu, for u >= 0.
template <Activation kind, class A>
__device__ __forceinline__ A gated_slope(A u) {
  constexpr A one = 1;
  if constexpr (kind == Activation::kGelu)  // Q(u) - u phi(u)
    return A(0.5) * erfc(u * A(0.70710678118654752440)) - u * (A(0.39894228040143267794) * exp(u * u * A(-0.5)));
  // s(-z) (1 - u s(z) dz/du) for the gate s(z): z = u, or 2 z of gelu_tanh.
  A e, steepness = one;
  if constexpr (kind == Activation::kGeluTanh) {
    e = gelu_tanh_gate(u);
    steepness = A(kGeluA) + A(3 * kGeluB) * (u * u);
  } else {
    e = exp(-u);
  }
  const A s = one / (one + e);
  return e * s * (one - u * s * steepness);
}

template <class A>
__device__ __forceinline__ A mish_slope(A v) {  // tanh(p) + v sigmoid(v) (1 - tanh(p)^2), p = softplus(v)
  constexpr A one = 1, two = 2;
  const bool negative = v < A(0);
  const A u = gate_distance(v), e = exp(-u), up = one + two * e, down = e * (two + e);
  const A top = negative ? down : up, bottom = negative ? down + two : up + two * e * e;
  const A rest = A(4) * u * e * (one + e) * (negative ? -one : e);
  return (top * bottom + rest) / (bottom * bottom);
}

// dy times the slope. `saved` is x, or y for the kinds where the slope follows from it (csrc/pointwise_ops.h).
template <Activation kind, class A>
__device__ __forceinline__ A sloped(A dy, A saved, A alpha) {
  constexpr A zero = 0, one = 1, three = 3, six = 6;
  switch (kind) {
    case Activation::kRelu:
      return saved <= zero ? zero : dy;
    case Activation::kLeakyRelu:
      return saved > zero ? dy : dy * alpha;
    case Activation::kRelu6:
      return saved <= zero || saved >= six ? zero : dy;
    case Activation::kElu:
      return saved <= zero ? dy * (alpha < zero ? alpha * exp(saved) : saved + alpha) : dy;
    case Activation::kSigmoid:
      return dy * (saved * (one - saved));
    case Activation::kTanh:
      return dy * (one - saved * saved);
    case Activation::kSilu:
    case Activation::kGelu:
    case Activation::kGeluTanh: {
      const A d = gated_slope<kind>(gate_distance(saved));
      return dy * (saved < zero ? d : one - d);
    }
    case Activation::kMish:
      return dy * mish_slope(saved);
    case Activation::kHardSwish:
      return saved <= -three ? zero : saved < three ? dy * (saved / three + A(0.5)) : dy;
    case Activation::kSelu:
      return dy * (saved <= zero ? saved + A(kSeluFloor) : A(kSeluScale));
    case Activation::kCelu:
      return saved <= zero ? dy * (one + saved / alpha) : dy;
    case Activation::kHardSigmoid:
      return saved <= -three || saved >= three ? zero : dy / six;
    case Activation::kSoftplus:
      return dy * sigmoid(saved * alpha);
    case Activation::kSoftsign: {
      const A s = one / (one + fabs(saved));
      return dy * (s * s);
    }
    case Activation::kLogSigmoid:
      return dy * sigmoid(-saved);
    default:
      return dy;
  }
}

template <Activation kind>
struct KindOf {
  static constexpr Activation value = kind;
};

// Calls work(KindOf<kind>()).
template <class Work>
__device__ __forceinline__ void by_kind(Activation kind, const Work& work) {
  switch (kind) {
    case Activation::kRelu:
      return work(KindOf<Activation::kRelu>());
    case Activation::kLeakyRelu:
      return work(KindOf<Activation::kLeakyRelu>());
    case Activation::kRelu6:
      return work(KindOf<Activation::kRelu6>());
    case Activation::kElu:
      return work(KindOf<Activation::kElu>());
    case Activation::kSigmoid:
      return work(KindOf<Activation::kSigmoid>());
    case Activation::kTanh:
      return work(KindOf<Activation::kTanh>());
    case Activation::kSilu:
      return work(KindOf<Activation::kSilu>());
    case Activation::kGelu:
      return work(KindOf<Activation::kGelu>());
    case Activation::kHardSwish:
      return work(KindOf<Activation::kHardSwish>());
    case Activation::kGeluTanh:
      return work(KindOf<Activation::kGeluTanh>());
    case Activation::kSelu:
      return work(KindOf<Activation::kSelu>());
    case Activation::kCelu:
      return work(KindOf<Activation::kCelu>());
    case Activation::kHardSigmoid:
      return work(KindOf<Activation::kHardSigmoid>());
    case Activation::kSoftplus:
      return work(KindOf<Activation::kSoftplus>());
    case Activation::kSoftsign:
      return work(KindOf<Activation::kSoftsign>());
    case Activation::kMish:
      return work(KindOf<Activation::kMish>());
    case Activation::kLogSigmoid:
      return work(KindOf<Activation::kLogSigmoid>());
    default:
      return work(KindOf<Activation::kNone>());
  }
}

}  // namespace fastconv::cuda
