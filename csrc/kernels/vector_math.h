// SPDX-License-Identifier: Apache-2.0
// exp, log and what follows from them, on vectors; included inside the anonymous namespace of a kernel file. The same
// polynomials on every instruction set, no libm call in a loop. Results are right to a few units in the last place
// over the whole range; subnormal numbers count as zero (see parallel.cc).
#pragma once

template <class T>
constexpr bool is_single = sizeof(T) == 4;
// ln 2 in two parts: k * ln2_high is exact for the k that occur.
template <class T>
constexpr T ln2_high = is_single<T> ? T(0.693359375) : T(0.693147180369123816490);
template <class T>
constexpr T ln2_low = is_single<T> ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);

template <class T>
FC_INLINE V<T> vabs(V<T> x) {
  return select<T>(x < V<T>{}, -x, x);
}
template <class T>
FC_INLINE V<T> vclamp(V<T> x, T low, T high) {  // NaN passes
  return vmax<T>(splat(low), vmin<T>(splat(high), x));
}
// The nearest whole number, for |x| < 2^22 (2^51).
template <class T>
FC_INLINE V<T> nearest(V<T> x) {
  const V<T> magic = splat(is_single<T> ? T(12582912) : T(6755399441055744));  // 1.5 * 2^23, 1.5 * 2^52
  return (x + magic) - magic;
}

// exp(x) for |error| of 1-2 ulp: x = k ln2 + r, |r| <= ln2/2, exp(r) by its Taylor polynomial (degree 7 for
// float, 13 for double), then scaled by 2^k in two steps so that results near both ends of the range are right.
template <class T>
FC_INLINE V<T> scale_by_power_of_two(V<T> v, typename Vec<T>::ints k) {
  typedef typename Vec<T>::ints I;
  constexpr int mantissa = is_single<T> ? 23 : 52;
  constexpr int bias = is_single<T> ? 127 : 1023;
  const I half = k >> 1;
  const V<T> a = (V<T>)((half + bias) << mantissa), b = (V<T>)((k - half + bias) << mantissa);
  return v * a * b;
}

// (exp(r) - 1) / r for |r| <= ln2/2.
template <class T>
FC_INLINE V<T> exp_series(V<T> r) {
  constexpr bool single = is_single<T>;
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

// factor * exp(x), right also where exp(x) alone would underflow; *plain = exp(x).
template <class T>
FC_INLINE V<T> vexp_times(V<T> x, V<T> factor, V<T>* plain = nullptr) {
  typedef typename Vec<T>::ints I;
  const T low = is_single<T> ? T(-104) : T(-746), high = is_single<T> ? T(89) : T(710);
  const V<T> clamped = vclamp<T>(x, low, high);
  const V<T> k = nearest<T>(clamped * splat(T(1.4426950408889634)));
  const V<T> r = (clamped - k * splat(ln2_high<T>)) - k * splat(ln2_low<T>);
  const V<T> p = exp_series<T>(r) * r + splat(T(1));
  const I power = __builtin_convertvector(k, I);
  if (plain) *plain = select<T>(x != x, x, scale_by_power_of_two<T>(p, power));
  return select<T>(x != x, x, scale_by_power_of_two<T>(p * factor, power));
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
  const V<T> magnitude = vabs<T>(x);
  const V<T> e = vexp<T>(splat(T(-2)) * magnitude);
  const V<T> one = splat(T(1));
  const V<T> far = (one - e) / (one + e);
  const V<T> s = x * x;
  V<T> p;
  T limit;
  if constexpr (is_single<T>) {
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

// 2 atanh(w) = log((1 + w) / (1 - w)) for w^2 = s <= largest: its Taylor series, `terms` long.
template <class T, int TERMS>
FC_INLINE V<T> twice_atanh(V<T> w) {
  const V<T> s = w * w;
  V<T> p = splat(T(2.0 / (2 * TERMS + 1)));
#pragma GCC unroll 32
  for (int n = TERMS - 1; n >= 0; --n) p = p * s + splat(T(2.0 / (2 * n + 1)));
  return w * p;
}

// log(1 + e) for 0 <= e <= 1: w <= 1/3. A tiny e is its own result, where w could underflow.
template <class T>
FC_INLINE V<T> vlog1p_of_unit(V<T> e) {
  return select<T>(e < splat(T(1e-20)), e, twice_atanh<T, is_single<T> ? 7 : 16>(e / (splat(T(2)) + e)));
}

// log(x) = e ln2 + log(m) with m from sqrt(1/2) to sqrt(2), so that nothing cancels near 1.
template <class T>
FC_INLINE V<T> vlog(V<T> x) {
  typedef typename Vec<T>::ints I;
  constexpr int mantissa = is_single<T> ? 23 : 52;
  constexpr int bias = is_single<T> ? 127 : 1023;
  const V<T> one = splat(T(1));
  const I fraction = ((I{} + 1) << mantissa) - 1;
  V<T> m = (V<T>)(((I)x & fraction) | (I)one);
  V<T> e = __builtin_convertvector(((I)x >> mantissa) - bias, V<T>);
  const I high = m > splat(T(1.4142135623730951));
  m = select<T>(high, m * splat(T(0.5)), m);
  e = select<T>(high, e + one, e);
  const V<T> log_m = twice_atanh<T, is_single<T> ? 5 : 11>((m - one) / (m + one));
  const V<T> y = e * splat(ln2_high<T>) + (e * splat(ln2_low<T>) + log_m);
  const V<T> infinity = splat((T)__builtin_inf()), zero{};
  const V<T> low = select<T>(x == zero, -infinity, (V<T>)(~I{}));  // all bits: a NaN
  return select<T>(x > zero, select<T>(x < infinity, y, x), select<T>(x != x, x, low));
}

// What the normal distribution has beyond u >= 0: its tail is Q(u) = mills * exp(-u^2 / 2), and *density the
// exponential over sqrt(2 pi). Returns factor * Q(u). mills = P((u - a) / (u + a)) / (u + a), a Chebyshev interpolation
// in one piece: 1.5e-8 (float, u <= 15), 2.3e-17 (double, u <= 39.5). The square in the exponent is split into a part
// that is exact, from u to 1/16, and the rest, or its rounding error would be u^2 / 2 units in the last place.
template <class T>
FC_INLINE V<T> normal_tail(V<T> u, V<T> factor, V<T>* density = nullptr) {
  typedef typename Vec<T>::ints I;
  constexpr double single[] = {1.180887515e-4, 4.321439546e-4, -4.997669539e-4, -3.184780623e-3, 6.493882581e-3,
                               0.0174091819,   -0.1160530626,  0.3154247783,    -0.5655617435,   0.7444160782};
  constexpr double twice[] = {
      -2.53770738265040564e-9, -5.55826389403938533e-9, 2.28680213586630921e-8, 4.9971937824248736e-8,
      -1.7759262342966585e-7,  -2.67423011382630353e-7, 1.48394520985836526e-6, 4.46104103823939851e-7,
      -1.21189800961200779e-5, 1.63200867167784076e-5,  7.14148896339057215e-5, -3.24522679978784419e-4,
      2.69603990570165208e-4,  2.44298267927747446e-3,  -0.0139235105641273074, 0.0450975808144189626,
      -0.109703089958841506,   0.217872432857984221,    -0.367049065293615441,  0.53559648906249416,
      -0.685183420574338157,   0.773769634276406769};
  u = select<T>(u > splat(is_single<T> ? T(15) : T(39.5)), splat(is_single<T> ? T(15) : T(39.5)), u);
  const V<T> a = splat(is_single<T> ? T(3.5) : T(5.5)), s = splat(T(1)) / (u + a), t = (u - a) * s;
  constexpr int terms = is_single<T> ? sizeof single / sizeof(double) : sizeof twice / sizeof(double);
  V<T> mills = splat(T(is_single<T> ? single[0] : twice[0]));
#pragma GCC unroll 32
  for (int i = 1; i < terms; ++i) mills = mills * t + splat(T(is_single<T> ? single[i] : twice[i]));
  mills = mills * s;
  const V<T> coarse = nearest<T>(u * splat(T(16))) * splat(T(0.0625));
  const V<T> high = splat(T(-0.5)) * coarse * coarse, low = splat(T(-0.5)) * (u - coarse) * (u + coarse);
  const V<T> k = nearest<T>((high + low) * splat(T(1.4426950408889634)));
  const V<T> r = ((high - k * splat(ln2_high<T>)) + low) - k * splat(ln2_low<T>);
  const V<T> p = exp_series<T>(r) * r + splat(T(1));
  const I power = __builtin_convertvector(k, I);
  if (density) *density = scale_by_power_of_two<T>(p * splat(T(0.39894228040143267794)), power);
  return scale_by_power_of_two<T>(p * mills * factor, power);
}
