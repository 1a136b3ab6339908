// SPDX-License-Identifier: Apache-2.0
#include "kernel_table.h"
#include "pointwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PointwiseKernels kPointwiseKernels;
namespace {

#include "activation.h"

template <class T>
FC_INLINE V<T> gelu_slope(V<T> x) {  // Phi(x) + x phi(x)
  V<T> cdf = x;
  for (int i = 0; i < Vec<T>::lanes; ++i) cdf[i] = T(0.5) * (T)__builtin_erfc(-(double)x[i] * 0.70710678118654752440);
  return cdf + x * (splat(T(0.39894228040143267794)) * vexp<T>(splat(T(-0.5)) * x * x));
}

// dy times the slope. Formulas in y hold for alpha >= 0, where y has the sign of x.
template <class T>
FC_INLINE V<T> slope(V<T> dy, V<T> saved, int32_t kind, T alpha) {
  typedef typename Vec<T>::ints I;
  const V<T> zero{}, one = splat(T(1));
  switch (kind) {
    case kRelu:
      return select<T>(saved <= zero, zero, dy);
    case kLeakyRelu:
      return select<T>(saved > zero, dy, dy * splat(alpha));
    case kRelu6:
      return select<T>((I)(saved <= zero) | (I)(saved >= splat(T(6))), zero, dy);
    case kElu:
      return select<T>(saved <= zero, dy * (saved + splat(alpha)), dy);
    case kSigmoid:
      return dy * (saved * (one - saved));
    case kTanh:
      return dy * (one - saved * saved);
    case kSilu: {
      const V<T> s = vsigmoid<T>(saved);
      return dy * (s + saved * s * (one - s));
    }
    case kGelu:
      return dy * gelu_slope<T>(saved);
    case kHardSwish: {
      const V<T> three = splat(T(3)), inner = dy * (saved / three + splat(T(0.5)));
      return select<T>(saved <= -three, zero, select<T>(saved < three, inner, dy));
    }
    default:
      return dy;
  }
}

template <class T, int32_t KIND>
void activate_all(T alpha, int64_t count, const T* x, T* y) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(y + i, activate<T>(load(x + i), KIND, alpha));
  if (i < count) store_first(y + i, activate<T>(load_lanes(x + i, 0, count - i), KIND, alpha), count - i);
}

template <class T, int32_t KIND>
void slope_all(T alpha, int64_t count, const T* dy, const T* saved, T* dx) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) store(dx + i, slope<T>(load(dy + i), load(saved + i), KIND, alpha));
  if (i < count) {
    const V<T> last = slope<T>(load_lanes(dy + i, 0, count - i), load_lanes(saved + i, 0, count - i), KIND, alpha);
    store_first(dx + i, last, count - i);
  }
}

template <class T>
void activate(int32_t kind, T alpha, int64_t count, const T* x, T* y) {
  switch (kind) {
    case kRelu:
      return activate_all<T, kRelu>(alpha, count, x, y);
    case kLeakyRelu:
      return activate_all<T, kLeakyRelu>(alpha, count, x, y);
    case kRelu6:
      return activate_all<T, kRelu6>(alpha, count, x, y);
    case kElu:
      return activate_all<T, kElu>(alpha, count, x, y);
    case kSigmoid:
      return activate_all<T, kSigmoid>(alpha, count, x, y);
    case kTanh:
      return activate_all<T, kTanh>(alpha, count, x, y);
    case kSilu:
      return activate_all<T, kSilu>(alpha, count, x, y);
    case kGelu:
      return activate_all<T, kGelu>(alpha, count, x, y);
    case kHardSwish:
      return activate_all<T, kHardSwish>(alpha, count, x, y);
    default:
      return activate_all<T, kNone>(alpha, count, x, y);
  }
}

template <class T>
void activate_backward(int32_t kind, T alpha, int64_t count, const T* dy, const T* saved, T* dx) {
  switch (kind) {
    case kRelu:
      return slope_all<T, kRelu>(alpha, count, dy, saved, dx);
    case kLeakyRelu:
      return slope_all<T, kLeakyRelu>(alpha, count, dy, saved, dx);
    case kRelu6:
      return slope_all<T, kRelu6>(alpha, count, dy, saved, dx);
    case kElu:
      return slope_all<T, kElu>(alpha, count, dy, saved, dx);
    case kSigmoid:
      return slope_all<T, kSigmoid>(alpha, count, dy, saved, dx);
    case kTanh:
      return slope_all<T, kTanh>(alpha, count, dy, saved, dx);
    case kSilu:
      return slope_all<T, kSilu>(alpha, count, dy, saved, dx);
    case kGelu:
      return slope_all<T, kGelu>(alpha, count, dy, saved, dx);
    case kHardSwish:
      return slope_all<T, kHardSwish>(alpha, count, dy, saved, dx);
    default:
      return slope_all<T, kNone>(alpha, count, dy, saved, dx);
  }
}

template <class T>
void add(int64_t count, const T* __restrict a, const T* __restrict b, T* __restrict sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] = a[i] + b[i];
}

template <class T>
void scale_mask(int64_t count, const T* __restrict x, const uint8_t* __restrict mask, T scale, T* __restrict y) {
  for (int64_t i = 0; i < count; ++i) {
    const T scaled = x[i] * scale;
    y[i] = mask[i] ? scaled : T(0);
  }
}

}  // namespace

const PointwiseKernels kPointwiseKernels = {
    {activate<float>, activate_backward<float>, add<float>, scale_mask<float>},
    {activate<double>, activate_backward<double>, add<double>, scale_mask<double>},
};

}  // namespace fastconv::FC_ISA
