// SPDX-License-Identifier: Apache-2.0
// Depthwise rows: a vector is neighbouring pixels, a tap is one broadcast weight and one unaligned load. Blocks of
// 4 vectors x 1 tap keep 4 chains of multiply-adds going; each pixel's sum is one chain in tap order.
#include "depthwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const DepthwiseKernels kDepthwiseKernels;
namespace {

template <class T, int VECTORS>
FC_INLINE void sum_taps(int64_t taps, const int64_t* offsets, const T* w, const T* x, V<T>* sum) {
  constexpr int lanes = Vec<T>::lanes;
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) sum[v] = V<T>{};
  for (int64_t tap = 0; tap < taps; ++tap) {
    const V<T> factor = splat(w[tap]);
    const T* from = x + offsets[tap];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; ++v) sum[v] += factor * load(from + v * lanes);
  }
}

template <class T, int VECTORS>
FC_INLINE void whole_block(int64_t taps, const int64_t* offsets, const T* w, const T* x, T* y) {
  V<T> sum[VECTORS];
  sum_taps<T, VECTORS>(taps, offsets, w, x, sum);
#pragma GCC unroll 8
  for (int v = 0; v < VECTORS; ++v) store(y + v * Vec<T>::lanes, sum[v]);
}

template <class T>
void row(int64_t count, int64_t taps, const int64_t* offsets, const T* w, const T* x, T* y) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t i = 0;
  for (; i + 8 * lanes <= count; i += 8 * lanes) whole_block<T, 8>(taps, offsets, w, x + i, y + i);
  for (; i + 4 * lanes <= count; i += 4 * lanes) whole_block<T, 4>(taps, offsets, w, x + i, y + i);
  for (; i < count; i += 2 * lanes) {  // two chains even for a short rest: one would wait for itself
    V<T> sum[2];
    sum_taps<T, 2>(taps, offsets, w, x + i, sum);
    store_first(y + i, sum[0], count - i);
    store_first(y + i + lanes, sum[1], count - i - lanes);
  }
}

template <class T, int TAPS>
FC_INLINE void filter_taps(int64_t count, const int64_t* offsets, const T* x, const T* y, T* sums) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[TAPS];
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t) sum[t] = load(sums + t * lanes);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const V<T> factor = load(y + i);
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) sum[t] += factor * load(x + offsets[t] + i);
  }
  if (i < count) {  // zeros beyond the end on both sides: what lies there may be NaN
    const V<T> factor = load_lanes(y + i, 0, count - i);
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) sum[t] += factor * load_lanes(x + offsets[t] + i, 0, count - i);
  }
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t) store(sums + t * lanes, sum[t]);
}

template <class T>
void filter_row(int64_t count, int64_t taps, const int64_t* offsets, const T* x, const T* y, T* sums) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t t = 0;
  for (; t + 8 <= taps; t += 8) filter_taps<T, 8>(count, offsets + t, x, y, sums + t * lanes);
  for (; t + 3 <= taps; t += 3) filter_taps<T, 3>(count, offsets + t, x, y, sums + t * lanes);
  for (; t < taps; ++t) filter_taps<T, 1>(count, offsets + t, x, y, sums + t * lanes);
}

template <class T>
void filter_finish(int64_t taps, const T* sums, T* w) {
  for (int64_t t = 0; t < taps; ++t) w[t] += horizontal_sum<T>(load(sums + t * Vec<T>::lanes));
}

}  // namespace

const DepthwiseKernels kDepthwiseKernels = {
    {row<float>, filter_row<float>, filter_finish<float>, Vec<float>::lanes},
    {row<double>, filter_row<double>, filter_finish<double>, Vec<double>::lanes},
};

}  // namespace fastconv::FC_ISA
