// SPDX-License-Identifier: Apache-2.0
// Weighted sums of neighbours along one axis: lanes lie along the axes behind it (mix), or there are none (gather).
#include "simd.h"
#include "window_kernels.h"

namespace fastconv::FC_ISA {
extern const ResampleKernels kResampleKernels;
namespace {

template <class T>
void mix(int64_t count, int64_t taps, const T* weights, int64_t pitch, const T* x, T* y) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t i = 0; i < count; i += lanes) {
    const int64_t n = count - i;
    V<T> sum{};
    // The first tap is not added to 0: a copied -0 stays one.
    if (n >= lanes) {
      if (taps > 0) sum = splat(weights[0]) * load(x + i);
      for (int64_t tap = 1; tap < taps; ++tap) sum += splat(weights[tap]) * load(x + tap * pitch + i);
      store(y + i, sum);
    } else {
      if (taps > 0) sum = splat(weights[0]) * load_lanes(x + i, 0, n);
      for (int64_t tap = 1; tap < taps; ++tap) sum += splat(weights[tap]) * load_lanes(x + tap * pitch + i, 0, n);
      store_first(y + i, sum, n);
    }
  }
}

template <class T>
void gather(int64_t count, const int64_t* first, const int64_t* start, const T* weights, const T* x, T* y) {
  for (int64_t j = 0; j < count; ++j) {
    const T *w = weights + start[j], *p = x + first[j];
    const int64_t taps = start[j + 1] - start[j];
    T sum = taps > 0 ? w[0] * p[0] : T(0);
    for (int64_t i = 1; i < taps; ++i) sum += w[i] * p[i];
    y[j] = sum;
  }
}

}  // namespace

const ResampleKernels kResampleKernels = {{mix<float>, gather<float>}, {mix<double>, gather<double>}};

}  // namespace fastconv::FC_ISA
