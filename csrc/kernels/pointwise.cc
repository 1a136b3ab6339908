// SPDX-License-Identifier: Apache-2.0
#include "pointwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PointwiseKernels kPointwiseKernels;
namespace {

#include "activation.h"

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

// The kind is known to the compiler inside of the loops: one instance of each for every kind.
template <class T, int32_t KIND = 0>
void activate(int32_t kind, T alpha, int64_t count, const T* x, T* y) {
  if (kind == KIND) return activate_all<T, KIND>(alpha, count, x, y);
  if constexpr (KIND + 1 < kKinds) activate<T, KIND + 1>(kind, alpha, count, x, y);
}

template <class T, int32_t KIND = 0>
void activate_backward(int32_t kind, T alpha, int64_t count, const T* dy, const T* saved, T* dx) {
  if (kind == KIND) return slope_all<T, KIND>(alpha, count, dy, saved, dx);
  if constexpr (KIND + 1 < kKinds) activate_backward<T, KIND + 1>(kind, alpha, count, dy, saved, dx);
}

template <class T>
void prelu(int64_t count, const T* x, const T* w, bool one_slope, T* y) {
  const V<T> slope = splat(w[0]), zero{};
  for (int64_t i = 0; i < count; i += Vec<T>::lanes) {
    const V<T> v = load_lanes(x + i, 0, count - i);
    store_first(y + i, select<T>(v > zero, v, v * (one_slope ? slope : load_lanes(w + i, 0, count - i))), count - i);
  }
}

template <class T>
void prelu_backward(int64_t count, const T* dy, const T* x, const T* w, bool one_slope, T* dx, T* below) {
  const V<T> slope = splat(w[0]), zero{};
  for (int64_t i = 0; i < count; i += Vec<T>::lanes) {
    const V<T> v = load_lanes(x + i, 0, count - i), g = load_lanes(dy + i, 0, count - i);
    const V<T> factor = one_slope ? slope : load_lanes(w + i, 0, count - i);
    store_first(dx + i, select<T>(v > zero, g, g * factor), count - i);
    store_first(below + i, select<T>(v > zero, zero, g * v), count - i);
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
    {activate<float>, activate_backward<float>, prelu<float>, prelu_backward<float>, add<float>, scale_mask<float>},
    {activate<double>, activate_backward<double>, prelu<double>, prelu_backward<double>, add<double>,
     scale_mask<double>},
};

}  // namespace fastconv::FC_ISA
