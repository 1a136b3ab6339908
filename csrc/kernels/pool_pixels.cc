// SPDX-License-Identifier: Apache-2.0
// Pooling of pixels (channels last): a window's taps are folded in registers, along the channels.
#include "kernel_table.h"
#include "pool_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolPixelKernels;
namespace {

#include "pool_fold.h"

// Calls visit(output pixel, first input column under it, number of columns under it, columns' part of the divisor).
template <class Visit>
FC_INLINE void for_windows(const PoolGeometry& g, int64_t row, int64_t begin, int64_t end, const Visit& visit) {
  for (int64_t o = begin; o < end; ++o) {
    const Taps t = taps_of(g, 2, o);
    visit(row * g.out[2] + o, o * g.stride[2] + t.first * g.dilation[2] - g.pad_begin[2], t.last - t.first, t.counted);
  }
}

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

template <class T, bool INDEXED>
void max_rows(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  const int64_t step = g.dilation[2];
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    rows_under(g, row, rows, &row_count);
    for_windows(g, row, part.column_begin, part.column_end,
                [&](int64_t pixel, int64_t column, int64_t columns, int64_t) {
                  const int64_t base = rows[0] + column;
                  for_channels<T>(part.channels, [&](int64_t c, auto vectors, int64_t count) {
                    constexpr int n = decltype(vectors)::count;
                    V<T> m[n];
                    I<T> where[n] = {};
#pragma GCC unroll 4
                    for (int u = 0; u < n; ++u) m[u] = load_some<T, n>(x + base * g.x_pixel + c + u * lanes, count);
                    for (int64_t r = 0; r < row_count; ++r)
                      for (int64_t i = r == 0 ? 1 : 0; i < columns; ++i) {  // m starts as the first tap
                        const int64_t below = rows[r] - rows[0] + i * step;
                        const T* p = x + (base + below) * g.x_pixel + c;
#pragma GCC unroll 4
                        for (int u = 0; u < n; ++u) {
                          const V<T> v = load_some<T, n>(p + u * lanes, count);
                          const I<T> better = beats<T>(v, m[u]);
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

template <class T>
void max(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  if (indices)
    max_rows<T, true>(g, part, x, y, indices, scratch);
  else
    max_rows<T, false>(g, part, x, y, indices, scratch);
}

template <class T>
bool max_backward(const PoolGeometry& g, int64_t channels, const T* dy, const int64_t* indices, T* dx) {
  const int64_t plane = g.size[0] * g.size[1] * g.size[2], outputs = g.out[0] * g.out[1] * g.out[2];
  for (int64_t i = 0; i < plane; ++i) memset(dx + i * g.x_pixel, 0, channels * sizeof(T));
  for (int64_t i = 0; i < outputs; ++i)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t at = i * g.y_pixel + c;
      if ((uint64_t)indices[at] >= (uint64_t)plane) return false;
      dx[indices[at] * g.x_pixel + c] += dy[at];
    }
  return true;
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    const int64_t counted = rows_under(g, row, rows, &row_count);
    for_windows(g, row, part.column_begin, part.column_end,
                [&](int64_t pixel, int64_t column, int64_t columns, int64_t counted_columns) {
                  const V<T> divisor = splat((T)(counted * counted_columns));
                  for_channels<T>(part.channels, [&](int64_t c, auto vectors, int64_t count) {
                    constexpr int n = decltype(vectors)::count;
                    V<T> sum[n] = {};
                    for (int64_t r = 0; r < row_count; ++r)
                      for (int64_t i = 0; i < columns; ++i) {
                        const T* p = x + (rows[r] + column + i * g.dilation[2]) * g.x_pixel + c;
#pragma GCC unroll 4
                        for (int u = 0; u < n; ++u) sum[u] += load_some<T, n>(p + u * lanes, count);
                      }
#pragma GCC unroll 4
                    for (int u = 0; u < n; ++u)
                      store_first(y + pixel * g.y_pixel + c + u * lanes, sum[u] / divisor, count - u * lanes);
                  });
                });
  }
}

template <class T>
void average_backward(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void*) {
  const Range outputs = columns_over(g, part.column_begin, part.column_end);
  const int64_t channels = part.channels;
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    T* line = dx + row * g.size[2] * g.x_pixel;
    for (int64_t i = part.column_begin; i < part.column_end; ++i) memset(line + i * g.x_pixel, 0, channels * sizeof(T));
    for_rows_over(g, row, [&](int64_t over, int64_t counted) {
      for_windows(g, over, outputs.begin, outputs.end,
                  [&](int64_t pixel, int64_t column, int64_t columns, int64_t counted_columns) {
                    const V<T> divisor = splat((T)(counted * counted_columns));
                    for (int64_t c = 0; c < channels; c += Vec<T>::lanes) {
                      const V<T> share = load_lanes(dy + pixel * g.y_pixel + c, 0, channels - c) / divisor;
                      for (int64_t i = 0, at = column; i < columns; ++i, at += g.dilation[2]) {
                        if (at < part.column_begin || at >= part.column_end) continue;
                        T* p = line + at * g.x_pixel + c;
                        store_first(p, load_lanes(p, 0, channels - c) + share, channels - c);
                      }
                    }
                  });
    });
  }
}

}  // namespace

const PoolKernels kPoolPixelKernels = {
    {max<float>, average<float>, average_backward<float>, max_backward<float>},
    {max<double>, average<double>, average_backward<double>, max_backward<double>},
};

}  // namespace fastconv::FC_ISA
