// SPDX-License-Identifier: Apache-2.0
// Group and layer normalisation: one row has one mean and one variance. Both come in float64; where a row is worked on
// in T, the part of the mean that T cannot hold goes into the constant term.
#include "norm_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const RowNormKernels kRowNormKernels;
namespace {

#include "sums.h"

template <class T>
void apply(int64_t count, const T* x, double mean, double inverse, const T* gamma, const T* beta, T* y) {
  const T centre = (T)mean;
  const V<T> m = splat(centre), a = splat((T)inverse), b = splat((T)(((double)centre - mean) * inverse));
  for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    const V<T> normal = (load_count(x + i, n) - m) * a + b;
    store_count(y + i, normal * load_count(gamma + i, n) + load_count(beta + i, n), n);
  });
}

template <class T, bool SCALED>
FC_INLINE void sums(int64_t count, const T* dy, const T* x, const T* gamma, double mean, double* sum, double* product) {
  const V<double> m = splat(mean);
  V<double> g_sum{};
  *product = sum_of(Runs{1, count, 0}, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    V<double> g = widen(dy + i, n);
    if constexpr (SCALED) g *= widen(gamma + i, n);
    g_sum += g;
    return g * first_lanes(widen(x + i, n) - m, n);
  });
  *sum = horizontal_sum<double>(g_sum);
}

template <class T>
void backward_sums(int64_t count, const T* dy, const T* x, const T* gamma, double mean, double* sum, double* product) {
  if (gamma)
    sums<T, true>(count, dy, x, gamma, mean, sum, product);
  else
    sums<T, false>(count, dy, x, gamma, mean, sum, product);
}

template <class T>
void backward(int64_t count, const T* dy, const T* x, const T* gamma, double mean, double scale, double slope,
              double shift, T* dx) {
  const T centre = (T)mean;
  const V<T> m = splat(centre), a = splat((T)scale), b = splat((T)slope);
  const V<T> c = splat((T)(shift + ((double)centre - mean) * slope));
  if (gamma)
    for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      const V<T> g = load_count(dy + i, n) * load_count(gamma + i, n);
      store_count(dx + i, g * a + ((load_count(x + i, n) - m) * b + c), n);
    });
  else
    for_vectors<T>(count, [&](int64_t i, int64_t n) __attribute__((always_inline)) {
      store_count(dx + i, load_count(dy + i, n) * a + ((load_count(x + i, n) - m) * b + c), n);
    });
}

template <class T>
void parameters(int64_t rows, int64_t count, int64_t pitch, const T* dy, const T* x, int64_t step, const double* mean,
                const double* inverse, double* dgamma, double* dbeta) {
  for (int64_t j = 0; j < count; j += kWide) {
    const int64_t n = count - j < kWide ? count - j : kWide;
    V<double> product{}, sum{};
    for (int64_t r = 0; r < rows; ++r) {
      const V<double> g = widen(dy + r * pitch + j, n);
      product += g * ((widen(x + r * pitch + j, n) - splat(mean[r * step])) * splat(inverse[r * step]));
      sum += g;
    }
    store_first(dgamma + j, product, n);
    store_first(dbeta + j, sum, n);
  }
}

template <class T>
void backward_columns(const Runs& chunk, const T* dy, const T* x, const T* mean, const T* scale, const T* slope,
                      const T* shift, T* dx) {
  for (int64_t r = 0; r < chunk.runs; ++r)
    for_vectors<T>(chunk.length, [&](int64_t j, int64_t n) __attribute__((always_inline)) {
      const int64_t i = r * chunk.pitch + j;
      const V<T> centred = load_count(x + i, n) - load_count(mean + j, n);
      const V<T> constant = centred * load_count(slope + j, n) + load_count(shift + j, n);
      store_count(dx + i, load_count(dy + i, n) * load_count(scale + j, n) + constant, n);
    });
}

}  // namespace

const RowNormKernels kRowNormKernels = {
    {apply<float>, backward_sums<float>, backward<float>, parameters<float>, backward_columns<float>},
    {apply<double>, backward_sums<double>, backward<double>, parameters<double>, backward_columns<double>},
};

}  // namespace fastconv::FC_ISA
