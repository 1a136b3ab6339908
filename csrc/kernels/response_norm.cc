// SPDX-License-Identifier: Apache-2.0
// Local response normalisation: y = x s^-beta with s = k + alpha (sum of squares over a window). The sums are plain,
// tap by tap: nothing is subtracted again, so nothing cancels.
#include "norm_kernels.h"
#include "simd.h"
#include "window_kernels.h"

namespace fastconv::FC_ISA {
extern const ResponseNormKernels kResponseNormKernels;
namespace {

#include "sums.h"
#include "vector_math.h"

template <class T>
void square(int64_t count, const T* x, T* y) {
  for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    const V<T> v = load_count(x + i, n);
    store_count(y + i, v * v, n);
  });
}

template <class T>
void window_sum(int64_t count, int64_t taps, int64_t pitch, const T* x, T* y) {
  for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    V<T> sum{};
    for (int64_t tap = 0; tap < taps; ++tap) sum += load_count(x + tap * pitch + i, n);
    store_count(y + i, sum, n);
  });
}

// s^-beta for s >= 0; infinity where s = 0 < beta.
template <class T>
FC_INLINE V<T> negative_power(V<T> s, T beta) {
  return beta == T(0) ? splat(T(1)) : vexp<T>(splat(-beta) * vlog<T>(s));
}

template <class T>
FC_INLINE V<T> base_of(const T* sums, int64_t count, T k, T alpha) {
  return splat(alpha) * load_count(sums, count) + splat(k);
}

template <class T>
void scale(int64_t count, T k, T alpha, T beta, const T* x, const T* sums, T* y) {
  for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    store_count(y + i, load_count(x + i, n) * negative_power<T>(base_of(sums + i, n, k, alpha), beta), n);
  });
}

template <class T>
void backward(int64_t count, T k, T alpha, T beta, const T* dy, const T* x, const T* sums, T* dx, T* ratio) {
  for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    const V<T> s = base_of(sums + i, n, k, alpha), g = load_count(dy + i, n) * negative_power<T>(s, beta);
    store_count(dx + i, g, n);
    store_count(ratio + i, g * load_count(x + i, n) / s, n);
  });
}

template <class T>
void backward_rest(int64_t count, T factor, const T* x, const T* ratio_sums, T* dx) {
  for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    const V<T> rest = splat(factor) * load_count(x + i, n) * load_count(ratio_sums + i, n);
    store_count(dx + i, load_count(dx + i, n) - rest, n);
  });
}

}  // namespace

const ResponseNormKernels kResponseNormKernels = {
    {square<float>, window_sum<float>, scale<float>, backward<float>, backward_rest<float>},
    {square<double>, window_sum<double>, scale<double>, backward<double>, backward_rest<double>},
};

}  // namespace fastconv::FC_ISA
