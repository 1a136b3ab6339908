// SPDX-License-Identifier: Apache-2.0
// Sums are float64 in four vectors of running sums (planes) or one per column, so that float32 data lose nothing; the
// variance is taken from the chunk's own mean while the chunk is in L1, which also serves float64 data.
#include "norm_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const NormKernels kNormKernels;
namespace {

#include "sums.h"

// ---- Planes: all values belong to one channel --------------------------------------------------------------------

template <class T>
void plane_sum(const Runs& chunk, const T* x, double* sum) {
  *sum = sum_of(chunk, [&](int64_t i, int64_t count) __attribute__((always_inline)) { return widen(x + i, count); });
}

template <class T>
void plane_moments(const Runs& chunk, const T* x, double* mean, double* squares) {
  plane_sum(chunk, x, mean);
  *mean /= (double)(chunk.runs * chunk.length);
  const V<double> m = splat(*mean);
  *squares = sum_of(chunk, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    const V<double> d = first_lanes(widen(x + i, count) - m, count);
    return d * d;
  });
}

// A dy, an x - mean and their product.
struct Terms {
  V<double> g, d, product;
};
FC_INLINE Terms operator+(const Terms& a, const Terms& b) { return {a.g + b.g, a.d + b.d, a.product + b.product}; }
FC_INLINE void operator+=(Terms& a, const Terms& b) { a = a + b; }

template <class T>
void plane_backward_sums(const Runs& chunk, const T* dy, const T* x, const T* mean, double* dy_sum, double* x_sum,
                         double* product_sum) {
  const V<double> m = splat((double)*mean);
  const Terms sums = sum_vectors<Terms>(chunk, [&](int64_t i, int64_t count) __attribute__((always_inline)) {
    const V<double> g = widen(dy + i, count), d = first_lanes(widen(x + i, count) - m, count);
    return Terms{g, d, g * d};
  });
  *dy_sum = horizontal_sum<double>(sums.g);
  *x_sum = horizontal_sum<double>(sums.d);
  *product_sum = horizontal_sum<double>(sums.product);
}

// Calls visit(index, count) for vectors of T.
template <class T, class Visit>
FC_INLINE void for_vectors(const Runs& chunk, const Visit& visit) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t r = 0; r < chunk.runs; ++r) {
    int64_t i = 0;
    for (; i + lanes <= chunk.length; i += lanes) visit(r * chunk.pitch + i, i, lanes);
    if (i < chunk.length) visit(r * chunk.pitch + i, i, chunk.length - i);
  }
}

template <class T>
void plane_apply(const Runs& chunk, const T* x, const T* mean, const T* scale, const T* shift, T* y) {
  const V<T> m = splat(*mean), a = splat(*scale), b = splat(*shift);
  for_vectors<T>(chunk, [&](int64_t i, int64_t, int64_t count) __attribute__((always_inline)) {
    store_count(y + i, (load_count(x + i, count) - m) * a + b, count);
  });
}

template <class T>
void plane_backward(const Runs& chunk, const T* dy, const T* x, const T* dy_mean, const T* mean, const T* scale,
                    const T* slope, T* dx) {
  const V<T> g = splat(*dy_mean), m = splat(*mean), a = splat(*scale), b = splat(*slope);
  for_vectors<T>(chunk, [&](int64_t i, int64_t, int64_t count) __attribute__((always_inline)) {
    store_count(dx + i, (load_count(dy + i, count) - g) * a + (load_count(x + i, count) - m) * b, count);
  });
}

// ---- Columns: every column is a channel ----------------------------------------------------------------------------

// Calls keep(j, sum over the runs of term(index, j, count)) for kWide columns from j on, a few of these side by side.
template <class Value, class Term, class Keep>
FC_INLINE void sum_columns(const Runs& chunk, const Term& term, const Keep& keep) {
  constexpr int kSide = 4;
  int64_t j = 0;
  for (; j + kSide * kWide <= chunk.length; j += kSide * kWide) {
    Value sums[kSide] = {};
    for (int64_t r = 0; r < chunk.runs; ++r)
#pragma GCC unroll 4
      for (int i = 0; i < kSide; ++i) sums[i] += term(r * chunk.pitch + j + i * kWide, j + i * kWide, kWide);
#pragma GCC unroll 4
    for (int i = 0; i < kSide; ++i) keep(j + i * kWide, sums[i]);
  }
  for (; j < chunk.length; j += kWide) {
    const int64_t count = chunk.length - j;
    Value sum{};
    if (count >= kWide)
      for (int64_t r = 0; r < chunk.runs; ++r) sum += term(r * chunk.pitch + j, j, kWide);
    else
      for (int64_t r = 0; r < chunk.runs; ++r) sum += term(r * chunk.pitch + j, j, count);
    keep(j, sum);
  }
}

template <class T>
void column_sum(const Runs& chunk, const T* x, double* sum) {
  sum_columns<V<double>>(
      chunk, [&](int64_t i, int64_t, int64_t count) __attribute__((always_inline)) { return widen(x + i, count); },
      [&](int64_t j, V<double> v) __attribute__((always_inline)) { store_first(sum + j, v, chunk.length - j); });
}

template <class T>
void column_moments(const Runs& chunk, const T* x, double* mean, double* squares) {
  column_sum(chunk, x, mean);
  for (int64_t j = 0; j < chunk.length; ++j) mean[j] /= (double)chunk.runs;
  sum_columns<V<double>>(
      chunk,
      [&](int64_t i, int64_t j, int64_t count) __attribute__((always_inline)) {
        const V<double> d = widen(x + i, count) - widen(mean + j, count);
        return d * d;
      },
      [&](int64_t j, V<double> v) __attribute__((always_inline)) { store_first(squares + j, v, chunk.length - j); });
}

template <class T>
void column_backward_sums(const Runs& chunk, const T* dy, const T* x, const T* mean, double* dy_sum, double* x_sum,
                          double* product_sum) {
  sum_columns<Terms>(
      chunk,
      [&](int64_t i, int64_t j, int64_t count) __attribute__((always_inline)) {
        const V<double> g = widen(dy + i, count), d = widen(x + i, count) - widen(mean + j, count);
        return Terms{g, d, g * d};
      },
      [&](int64_t j, const Terms& v) __attribute__((always_inline)) {
        const int64_t count = chunk.length - j;
        store_first(dy_sum + j, v.g, count);
        store_first(x_sum + j, v.d, count);
        store_first(product_sum + j, v.product, count);
      });
}

template <class T>
void column_apply(const Runs& chunk, const T* x, const T* mean, const T* scale, const T* shift, T* y) {
  for_vectors<T>(chunk, [&](int64_t i, int64_t j, int64_t count) __attribute__((always_inline)) {
    const V<T> centred = load_count(x + i, count) - load_count(mean + j, count);
    store_count(y + i, centred * load_count(scale + j, count) + load_count(shift + j, count), count);
  });
}

template <class T>
void column_backward(const Runs& chunk, const T* dy, const T* x, const T* dy_mean, const T* mean, const T* scale,
                     const T* slope, T* dx) {
  for_vectors<T>(chunk, [&](int64_t i, int64_t j, int64_t count) __attribute__((always_inline)) {
    const V<T> g = load_count(dy + i, count) - load_count(dy_mean + j, count);
    const V<T> centred = load_count(x + i, count) - load_count(mean + j, count);
    store_count(dx + i, g * load_count(scale + j, count) + centred * load_count(slope + j, count), count);
  });
}

}  // namespace

const NormKernels kNormKernels = {
    {plane_sum<float>, plane_moments<float>, plane_backward_sums<float>, plane_apply<float>, plane_backward<float>},
    {column_sum<float>, column_moments<float>, column_backward_sums<float>, column_apply<float>,
     column_backward<float>},
    {plane_sum<double>, plane_moments<double>, plane_backward_sums<double>, plane_apply<double>,
     plane_backward<double>},
    {column_sum<double>, column_moments<double>, column_backward_sums<double>, column_apply<double>,
     column_backward<double>},
};

}  // namespace fastconv::FC_ISA
