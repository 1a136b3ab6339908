// SPDX-License-Identifier: Apache-2.0
// Activations on vectors and their slopes; included inside the anonymous namespace of a kernel file.
//
// silu, mish and both forms of gelu are x times a gate between 0 and 1 with gate(-x) = 1 - gate(x) (mish: without
// that). With u = |x| they are computed as q = u gate(-u): f(-u) = -q, f(u) = u - q. So nothing cancels in the tail,
// and an infinity gives the limit. Likewise f'(u) = 1 - f'(-u).

#pragma once

#include "vector_math.h"

// Kinds in the order of Activation (problem.h).
enum : int32_t {
  kNone,
  kRelu,
  kLeakyRelu,
  kRelu6,
  kElu,
  kSigmoid,
  kTanh,
  kSilu,
  kGelu,
  kHardSwish,
  kGeluTanh,
  kSelu,
  kCelu,
  kHardSigmoid,
  kSoftplus,
  kSoftsign,
  kMish,
  kLogSigmoid,
  kKinds
};

// Klambauer et al., "Self-normalizing neural networks", 2017: lambda, and lambda alpha.
constexpr double kSeluScale = 1.0507009873554804934193349852946, kSeluFloor = 1.7580993408473768599402175208123;
// Beyond it every gate is 0 or 1; below it u is finite, so that 0 u is 0.
constexpr double kGateEnd = 1000;

// gelu_tanh: 0.5 x (1 + tanh(z)) = x sigmoid(2 z), 2 z = x (a + b x^2). From 30 on (10 in float) the gate is 0 or 1.
constexpr double kGeluA = 1.5957691216057307117597842397375, kGeluB = 0.071354816272600248;

template <class T>
FC_INLINE V<T> gate_distance(V<T> x) {
  return vclamp<T>(vabs<T>(x), T(0), T(kGateEnd));
}

template <class T>
FC_INLINE V<T> gelu_tanh_exponent(V<T> u) {
  u = vclamp<T>(u, T(0), T(30));
  return -u * (splat(T(kGeluA)) + splat(T(kGeluB)) * (u * u));
}

template <class T>
FC_INLINE V<T> log_one_plus_exp(V<T> x) {  // of -|x| the exponential: no overflow
  return select<T>(x > V<T>{}, x, V<T>{}) + vlog1p_of_unit<T>(vexp<T>(-vabs<T>(x)));
}

// q = u gate(-u), see above.
template <class T>
FC_INLINE V<T> gated(V<T> u, typename Vec<T>::ints negative, int32_t kind) {
  const V<T> one = splat(T(1)), two = splat(T(2));
  V<T> e;
  switch (kind) {
    case kGelu:
      return normal_tail<T>(u, u);
    case kMish: {  // tanh(log(1 + e)) = (e^2 + 2 e) / (e^2 + 2 e + 2)
      const V<T> ue = vexp_times<T>(-u, u, &e);
      return select<T>(negative, ue * (two + e) / (two + e * (two + e)), two * ue * e / (one + two * e * (one + e)));
    }
    default: {
      const V<T> ue = vexp_times<T>(kind == kGeluTanh ? gelu_tanh_exponent<T>(u) : -u, u, &e);
      return ue / (one + e);
    }
  }
}

template <class T>
FC_INLINE V<T> activate(V<T> x, int32_t kind, T alpha) {
  const V<T> zero{}, one = splat(T(1)), six = splat(T(6));
  switch (kind) {
    case kRelu:
      return vmax<T>(zero, x);  // NaN and -0 pass
    case kLeakyRelu:
      return select<T>(x < zero, x * splat(alpha), x);
    case kRelu6:
      return vclamp<T>(x, T(0), T(6));
    case kElu:
      return select<T>(x < zero, splat(alpha) * vexpm1<T>(x), x);
    case kSigmoid:
      return vsigmoid<T>(x);
    case kTanh:
      return vtanh<T>(x);
    case kSilu:
    case kGelu:
    case kGeluTanh:
    case kMish: {
      const V<T> q = gated<T>(gate_distance<T>(x), x < zero, kind);
      return select<T>(x < zero, -q, x - q);
    }
    case kHardSwish: {  // -inf times 0 would be NaN, x times 6 could overflow
      const V<T> gate = vclamp<T>(x + splat(T(3)), T(0), T(6)) / six;
      return select<T>(x < splat(T(-3)), zero, x * gate);
    }
    case kSelu:
      return select<T>(x < zero, splat(T(kSeluFloor)) * vexpm1<T>(x), splat(T(kSeluScale)) * x);
    case kCelu:
      return select<T>(x < zero, splat(alpha) * vexpm1<T>(x / splat(alpha)), x);
    case kHardSigmoid:
      return vclamp<T>(x + splat(T(3)), T(0), T(6)) / six;
    case kSoftplus:
      return log_one_plus_exp<T>(x * splat(alpha)) / splat(alpha);
    case kSoftsign: {
      const V<T> u = vclamp<T>(vabs<T>(x), T(0), T(1e30)), y = u / (one + u);
      return select<T>(x < zero, -y, y);
    }
    case kLogSigmoid:
      return -log_one_plus_exp<T>(-x);
    default:
      return x;
  }
}

// f'(-u) of the gated kinds, for u >= 0.
template <class T>
FC_INLINE V<T> gated_slope(V<T> u, int32_t kind) {
  const V<T> one = splat(T(1));
  if (kind == kGelu) {  // Q(u) - u phi(u)
    V<T> density;
    const V<T> tail = normal_tail<T>(u, one, &density);
    return tail - u * density;
  }
  // s(-z) (1 - u s(z) dz/du) for the gate s(z): z = u, or 2 z of gelu_tanh.
  V<T> z = -u, steepness = one;
  if (kind == kGeluTanh) {
    z = gelu_tanh_exponent<T>(u);
    steepness = splat(T(kGeluA)) + splat(T(3 * kGeluB)) * (u * u);
  }
  const V<T> e = vexp<T>(z), s = one / (one + e);
  return e * s * (one - u * s * steepness);
}

template <class T>
FC_INLINE V<T> mish_slope(V<T> x) {  // tanh(p) + x sigmoid(x) (1 - tanh(p)^2), p = softplus(x), over one denominator
  const V<T> zero{}, one = splat(T(1)), two = splat(T(2)), u = gate_distance<T>(x), e = vexp<T>(-u);
  const V<T> up = one + two * e, down = e * (two + e);
  const V<T> top = select<T>(x < zero, down, up), bottom = select<T>(x < zero, down + two, up + two * e * e);
  const V<T> rest = splat(T(4)) * u * e * (one + e) * select<T>(x < zero, -one, e);
  return (top * bottom + rest) / (bottom * bottom);
}

// dy times the slope. `saved` is x, or y for the kinds where the slope follows from it (see pointwise_ops.h).
template <class T>
FC_INLINE V<T> slope(V<T> dy, V<T> saved, int32_t kind, T alpha) {
  typedef typename Vec<T>::ints I;
  const V<T> zero{}, one = splat(T(1)), three = splat(T(3));
  switch (kind) {
    case kRelu:
      return select<T>(saved <= zero, zero, dy);
    case kLeakyRelu:
      return select<T>(saved > zero, dy, dy * splat(alpha));
    case kRelu6:
      return select<T>((I)(saved <= zero) | (I)(saved >= splat(T(6))), zero, dy);
    case kElu:
      if (alpha < 0) return select<T>(saved <= zero, dy * (splat(alpha) * vexp<T>(saved)), dy);
      return select<T>(saved <= zero, dy * (saved + splat(alpha)), dy);
    case kSigmoid:
      return dy * (saved * (one - saved));
    case kTanh:
      return dy * (one - saved * saved);
    case kSilu:
    case kGelu:
    case kGeluTanh: {
      const V<T> d = gated_slope<T>(gate_distance<T>(saved), kind);
      return dy * select<T>(saved < zero, d, one - d);
    }
    case kMish:
      return dy * mish_slope<T>(saved);
    case kHardSwish: {
      const V<T> inner = dy * (saved / three + splat(T(0.5)));
      return select<T>(saved <= -three, zero, select<T>(saved < three, inner, dy));
    }
    case kSelu:
      return dy * select<T>(saved <= zero, saved + splat(T(kSeluFloor)), splat(T(kSeluScale)));
    case kCelu:
      return select<T>(saved <= zero, dy * (one + saved / splat(alpha)), dy);
    case kHardSigmoid:
      return select<T>((I)(saved <= -three) | (I)(saved >= three), zero, dy / splat(T(6)));
    case kSoftplus:
      return dy * vsigmoid<T>(saved * splat(alpha));
    case kSoftsign: {
      const V<T> s = one / (one + vabs<T>(saved));
      return dy * (s * s);
    }
    case kLogSigmoid:
      return dy * vsigmoid<T>(-saved);
    default:
      return dy;
  }
}
