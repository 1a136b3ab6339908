// SPDX-License-Identifier: Apache-2.0
// Activations on vectors, included inside the anonymous namespace of a kernel file. exp is computed here: the same
// polynomial on every instruction set, no libm call in a loop.

// exp(x) for |error| of 1-2 ulp: x = k ln2 + r, |r| <= ln2/2, exp(r) by its Taylor polynomial (degree 7 for
// float, 13 for double), then scaled by 2^k in two steps so that results near both ends of the range are right.
template <class T>
FC_INLINE V<T> scale_by_power_of_two(V<T> v, typename Vec<T>::ints k) {
  typedef typename Vec<T>::ints I;
  constexpr int mantissa = sizeof(T) == 4 ? 23 : 52;
  constexpr int bias = sizeof(T) == 4 ? 127 : 1023;
  const I half = k >> 1;
  const V<T> a = (V<T>)((half + bias) << mantissa), b = (V<T>)((k - half + bias) << mantissa);
  return v * a * b;
}

// (exp(r) - 1) / r for |r| <= ln2/2.
template <class T>
FC_INLINE V<T> exp_series(V<T> r) {
  constexpr bool single = sizeof(T) == 4;
  V<T> p = splat(single ? T(1.0 / 5040) : T(1.0 / 6227020800));
  if constexpr (!single) {
    p = p * r + splat(T(1.0 / 479001600));
    p = p * r + splat(T(1.0 / 39916800));
    p = p * r + splat(T(1.0 / 3628800));
    p = p * r + splat(T(1.0 / 362880));
    p = p * r + splat(T(1.0 / 40320));
    p = p * r + splat(T(1.0 / 5040));
  }
  p = p * r + splat(T(1.0 / 720));
  p = p * r + splat(T(1.0 / 120));
  p = p * r + splat(T(1.0 / 24));
  p = p * r + splat(T(1.0 / 6));
  p = p * r + splat(T(0.5));
  p = p * r + splat(T(1));
  return p;
}

// factor * exp(x), right also where exp(x) alone would underflow.
template <class T>
FC_INLINE V<T> vexp_times(V<T> x, V<T> factor) {
  typedef typename Vec<T>::ints I;
  constexpr bool single = sizeof(T) == 4;
  const T low = single ? T(-104) : T(-746), high = single ? T(89) : T(710);
  const V<T> clamped = select<T>(x < splat(low), splat(low), select<T>(x > splat(high), splat(high), x));
  const V<T> magic = splat(single ? T(12582912) : T(6755399441055744));  // 1.5 * 2^23, 1.5 * 2^52: rounds to nearest
  const V<T> shifted = clamped * splat(T(1.4426950408889634)) + magic;
  const V<T> k = shifted - magic;
  const T ln2_high = single ? T(0.693359375) : T(0.693147180369123816490);
  const T ln2_low = single ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);
  const V<T> r = (clamped - k * splat(ln2_high)) - k * splat(ln2_low);
  const V<T> p = exp_series<T>(r) * r + splat(T(1));
  const V<T> y = scale_by_power_of_two<T>(p * factor, __builtin_convertvector(k, I));
  return select<T>(x != x, x, y);
}

template <class T>
FC_INLINE V<T> vexp(V<T> x) {
  return vexp_times<T>(x, splat(T(1)));
}

template <class T>
FC_INLINE V<T> vexpm1(V<T> x) {  // for x <= ln2/2: near zero exp(x) - 1 would cancel
  return select<T>(x > splat(T(-0.34)), x * exp_series<T>(x), vexp<T>(x) - splat(T(1)));
}

template <class T>
FC_INLINE V<T> vsigmoid(V<T> x) {  // exp of a non-positive number only: no overflow
  const V<T> e = vexp<T>(select<T>(x < V<T>{}, x, -x));
  const V<T> one = splat(T(1));
  return select<T>(x < V<T>{}, e, one) / (one + e);
}

template <class T>
FC_INLINE V<T> vtanh(V<T> x) {
  // |x| small: the odd series, because 1 - exp(-2|x|) would cancel; else (1 - e) / (1 + e) with e = exp(-2|x|).
  const V<T> magnitude = select<T>(x < V<T>{}, -x, x);
  const V<T> e = vexp<T>(splat(T(-2)) * magnitude);
  const V<T> one = splat(T(1));
  const V<T> far = (one - e) / (one + e);
  const V<T> s = x * x;
  V<T> p;
  T limit;
  if constexpr (sizeof(T) == 4) {
    limit = T(0.3);
    p = splat(T(62.0 / 2835));
    p = p * s - splat(T(17.0 / 315));
    p = p * s + splat(T(2.0 / 15));
    p = p * s - splat(T(1.0 / 3));
  } else {
    limit = T(0.12);
    p = splat(T(-929569.0 / 638512875));
    p = p * s + splat(T(21844.0 / 6081075));
    p = p * s - splat(T(1382.0 / 155925));
    p = p * s + splat(T(62.0 / 2835));
    p = p * s - splat(T(17.0 / 315));
    p = p * s + splat(T(2.0 / 15));
    p = p * s - splat(T(1.0 / 3));
  }
  const V<T> near = magnitude + magnitude * (s * p);
  const V<T> y = select<T>(magnitude < splat(limit), near, far);
  return select<T>(x < V<T>{}, -y, select<T>(x != x, x, y));
}

// Kinds in the order of Activation (problem.h).
enum : int32_t { kNone, kRelu, kLeakyRelu, kRelu6, kElu, kSigmoid, kTanh, kSilu, kGelu, kHardSwish };

template <class T>
FC_INLINE V<T> activate(V<T> x, int32_t kind, T alpha) {
  const V<T> zero{};
  switch (kind) {
    case kRelu:
      return select<T>(x < zero, zero, x);  // NaN and -0 pass
    case kLeakyRelu:
      return select<T>(x < zero, x * splat(alpha), x);
    case kRelu6:
      return select<T>(x < zero, zero, select<T>(x > splat(T(6)), splat(T(6)), x));
    case kElu:
      return select<T>(x < zero, splat(alpha) * vexpm1<T>(x), x);
    case kSigmoid:
      return vsigmoid<T>(x);
    case kTanh:
      return vtanh<T>(x);
    case kSilu: {  // far below zero, where the sigmoid underflows first, the clamp makes the limit 0 and not -inf
      const V<T> down = select<T>(x < zero, x, -x), floor = splat(T(-1000));
      const V<T> tail = vexp_times<T>(down, select<T>(x < floor, floor, x));
      return select<T>(x < zero, tail, x) / (splat(T(1)) + vexp<T>(down));
    }
    case kGelu: {  // 0.5 x (1 + erf(x / sqrt 2)), lane by lane: erf has no short polynomial
      V<T> y = x;
      for (int i = 0; i < Vec<T>::lanes; ++i)
        y[i] = T(0.5) * x[i] * (T(1) + (T)__builtin_erf((double)x[i] * 0.70710678118654752440));
      return y;
    }
    case kHardSwish: {
      const V<T> t = x + splat(T(3));
      const V<T> six = splat(T(6));
      return x * select<T>(t < zero, zero, select<T>(t > six, six, t)) / six;
    }
    default:
      return x;
  }
}
