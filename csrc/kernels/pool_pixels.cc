// SPDX-License-Identifier: Apache-2.0
// Pooling of pixels (channels last): a window's taps are folded in registers, along the channels.
#include "pool_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolPixelKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

// Calls visit(first channel, number of vectors as a type, channels from there on): four vectors at a time, then one.
template <int COUNT>
struct Vectors {
  static constexpr int count = COUNT;
};
template <class T, class Visit>
FC_INLINE void for_channels(int64_t channels, const Visit& visit) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t c = 0;
  for (; c + 4 * lanes <= channels; c += 4 * lanes) visit(c, Vectors<4>(), 4 * lanes);
  for (; c < channels; c += lanes) visit(c, Vectors<1>(), channels - c);
}

template <class T, int VECTORS>
FC_INLINE V<T> load_some(const T* p, int64_t count) {
  return VECTORS > 1 ? load(p) : load_lanes(p, 0, count);
}

template <class T, bool MIN, bool INDEXED>
void best_rows(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  const int64_t step = g.dilation[2];
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    rows_under(g, row, rows, &row_count);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const int64_t base = rows[0] + taps.position, pixel = row * g.out[2] + o;
      for_channels<T>(part.channels, [&](int64_t c, auto vectors, int64_t count) {
        constexpr int n = decltype(vectors)::count;
        V<T> m[n];
        I<T> where[n] = {};
#pragma GCC unroll 4
        for (int u = 0; u < n; ++u) m[u] = load_some<T, n>(x + base * g.x_pixel + c + u * lanes, count);
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = r == 0 ? 1 : 0; i < taps.count; ++i) {  // m starts as the first tap
            const int64_t below = rows[r] - rows[0] + i * step;
            const T* p = x + (base + below) * g.x_pixel + c;
#pragma GCC unroll 4
            for (int u = 0; u < n; ++u) {
              const V<T> v = load_some<T, n>(p + u * lanes, count);
              const I<T> better = beats<T, MIN>(v, m[u]);
              m[u] = select<T>(better, v, m[u]);
              if constexpr (INDEXED) where[u] = choose<T>(better, splat_int<T>(below), where[u]);
            }
          }
#pragma GCC unroll 4
        for (int u = 0; u < n; ++u) {
          const int64_t at = pixel * g.y_pixel + c + u * lanes;
          store_first(y + at, m[u], count - u * lanes);
          if constexpr (INDEXED) store_indices<T>(indices + at, where[u], base, count - u * lanes);
        }
      });
    });
  }
}

template <class T, bool MIN>
void best(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  if (indices)
    best_rows<T, MIN, true>(g, part, x, y, indices, scratch);
  else
    best_rows<T, MIN, false>(g, part, x, y, indices, scratch);
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    const int64_t counted = rows_under(g, row, rows, &row_count);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const V<T> divisor = splat((T)(counted * taps.counted));
      const int64_t pixel = row * g.out[2] + o;
      for_channels<T>(part.channels, [&](int64_t c, auto vectors, int64_t count) {
        constexpr int n = decltype(vectors)::count;
        V<T> sum[n] = {};
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = 0; i < taps.count; ++i) {
            const T* p = x + (rows[r] + taps.position + i * g.dilation[2]) * g.x_pixel + c;
#pragma GCC unroll 4
            for (int u = 0; u < n; ++u) sum[u] += load_some<T, n>(p + u * lanes, count);
          }
#pragma GCC unroll 4
        for (int u = 0; u < n; ++u)
          store_first(y + pixel * g.y_pixel + c + u * lanes, sum[u] / divisor, count - u * lanes);
      });
    });
    if (!finite_outputs(g, part, row, y)) mend_means(g, part, rows, row_count, counted, row, x, y);
  }
}

template <class T>
void average_backward(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void*) {
  const Range outputs = outputs_over(g, 2, part.column_begin, part.column_end);
  const int64_t channels = part.channels;
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    T* line = dx + row * g.size[2] * g.x_pixel;
    for (int64_t i = part.column_begin; i < part.column_end; ++i) memset(line + i * g.x_pixel, 0, channels * sizeof(T));
    for_rows_over(g, row, [&](int64_t over, int64_t counted) {
      for_windows(g, outputs.begin, outputs.end, [&](int64_t o, const Taps& taps) {
        const V<T> divisor = splat((T)(counted * taps.counted));
        for (int64_t c = 0; c < channels; c += Vec<T>::lanes) {
          const V<T> share = load_lanes(dy + (over * g.out[2] + o) * g.y_pixel + c, 0, channels - c) / divisor;
          for (int64_t i = 0, at = taps.position; i < taps.count; ++i, at += g.dilation[2]) {
            if (at < part.column_begin || at >= part.column_end) continue;
            T* p = line + at * g.x_pixel + c;
            store_first(p, load_lanes(p, 0, channels - c) + share, channels - c);
          }
        }
      });
    });
    mend_mean_gradient(g, part, row, dy, dx);
  }
}

}  // namespace

const PoolKernels kPoolPixelKernels = {
    {best<float, false>, best<float, true>, average<float>, average_backward<float>},
    {best<double, false>, best<double, true>, average<double>, average_backward<double>},
};

}  // namespace fastconv::FC_ISA
