// SPDX-License-Identifier: Apache-2.0
// Depthwise, lanes are channels. Forward and backward-data:
//   for each block of ROWS written rows, for each column, for each vector of channels:
//     for each group, for each filter column that lies inside: FILTER vectors of weights in registers
//       for each of the rows that the block reads: one load, up to FILTER multiply-adds
// Neighbouring columns find what they share in L1. Backward-filter keeps a tile of FILTER x TAPS sums over all columns
// of a vector of channels. Rows outside are left out, channels beyond the last are masked.
#include "depthwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const DepthwisePixelKernels kDepthwisePixelKernels;
namespace {

#include "depthwise_rows.h"

template <class T, int STEP, int FILTER, int ROWS, bool INNER>
FC_INLINE void add_columns(const DepthwisePixels<T>& p, const T* x, const T* w, int64_t count, uint32_t bits,
                           uint32_t valid, V<T>* acc) {
  constexpr int read = (ROWS - 1) * STEP + FILTER;
  for (; count > 0; --count, x += p.x_step, w += p.w_step) {
    V<T> factor[FILTER];
#pragma GCC unroll 8
    for (int r = 0; r < FILTER; ++r) factor[r] = load_some<T, INNER>(w + r * p.w_row, bits);
    const T* at = x;
    if constexpr (!INNER) asm("" : "+r"(valid));
#pragma GCC unroll 32
    for (int i = 0; i < read; ++i, at += p.x_row) {
      if (!INNER && !(valid >> i & 1)) continue;
      spread<T, STEP, FILTER, ROWS>(i, factor, load_some<T, INNER>(at, bits), acc);
    }
  }
}

template <class T, int STEP, int FILTER, int ROWS>
void rows_of(const DepthwisePixels<T>* pixels) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr uint32_t all = static_cast<uint32_t>((uint64_t{1} << ((ROWS - 1) * STEP + FILTER)) - 1);
  const DepthwisePixels<T>& p = *pixels;
  for (int64_t done = 0; done < p.rows; done += ROWS) {
    // The last block begins earlier and stores what is missing.
    const int64_t row = done + ROWS <= p.rows || p.rows < ROWS ? done : p.rows - ROWS;
    const uint32_t stored = row_bits(done - row, p.rows - row);
    for (int64_t i = 0; i < p.columns; ++i) {
      const DepthwiseColumn& column = p.column[i];
      for (int64_t c = 0; c < p.channels; c += lanes) {
        const uint32_t bits = row_bits(0, p.channels - c < lanes ? p.channels - c : lanes);
        const bool whole = p.channels - c >= lanes;
        V<T> acc[ROWS];
        const V<T> bias = p.bias ? load_bits(p.bias + c, bits) : V<T>{};
#pragma GCC unroll 16
        for (int o = 0; o < ROWS; ++o) acc[o] = bias;
        for (const DepthwiseGroup* group = p.group; group < p.group + p.groups; ++group) {
          const int64_t first = row * STEP + group->row;
          const uint32_t valid = row_bits(p.first_row - first, p.last_row - first) & all;
          const T* x = p.x + group->x + first * p.x_row + column.x + c;
          const T* w = p.w + group->w + column.first * p.w_step + c;
          if (whole && valid == all)
            add_columns<T, STEP, FILTER, ROWS, true>(p, x, w, column.count, bits, valid, acc);
          else
            add_columns<T, STEP, FILTER, ROWS, false>(p, x, w, column.count, bits, valid, acc);
        }
        T* y = p.y + row * p.y_row + i * p.y_pixel + c;
        uint32_t some = stored;
        asm("" : "+r"(some));
#pragma GCC unroll 16
        for (int o = 0; o < ROWS; ++o, y += p.y_row) {
          if (!(some >> o & 1)) continue;
          if (p.accumulate) acc[o] += load_bits(y, bits);
          if (p.clamps) acc[o] = clamp<T>(acc[o], p.low, p.high);
          store_first(y, acc[o], p.channels - c);
        }
      }
    }
  }
}

// ---- Backward-filter -----------------------------------------------------------------------------------------------

template <class T, int STEP, int FILTER, int TAPS, int ROWS, bool INNER>
FC_INLINE void add_pixel(const DepthwisePixelTaps<T>& p, const DepthwiseColumn& column, const T* x, const T* from,
                         uint32_t bits, uint32_t valid, V<T> (*sum)[TAPS]) {
  constexpr int read = (ROWS - 1) * STEP + FILTER;
  V<T> y[ROWS];
#pragma GCC unroll 8
  for (int o = 0; o < ROWS; ++o, from += p.y_row) y[o] = load_some<T, INNER>(from, bits);
  if constexpr (!INNER) asm("" : "+r"(valid));
  x += column.x - column.first * p.x_step;
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; ++t, x += p.x_step) {
    if (!INNER && (t < column.first || t >= column.first + column.count)) continue;
    const T* at = x;
#pragma GCC unroll 16
    for (int i = 0; i < read; ++i, at += p.x_row) {
      if (!INNER && !(valid >> i & 1)) continue;
      const V<T> v = load_some<T, INNER>(at, bits);
#pragma GCC unroll 4
      for (int r = 0; r < FILTER; ++r) {
        const int o = i - r;
        if (o >= 0 && o % STEP == 0 && o / STEP < ROWS) sum[r][t] += y[o / STEP] * v;
      }
    }
  }
}

template <class T, int STEP, int FILTER, int TAPS, int ROWS>
FC_INLINE void add_rows(const DepthwisePixelTaps<T>& p, int64_t row, uint32_t bits, V<T> (*sum)[TAPS]) {
  constexpr uint32_t all = (1u << ((ROWS - 1) * STEP + FILTER)) - 1;
  const uint32_t valid = row_bits(p.first_row - row * STEP, p.last_row - row * STEP) & all;
  const bool inner = p.channels >= Vec<T>::lanes && valid == all;
  const T *x = p.x + row * STEP * p.x_row, *y = p.y + row * p.y_row;
  for (int64_t i = 0; i < p.columns; ++i, y += p.y_pixel) {
    if (inner && p.column[i].count == TAPS)
      add_pixel<T, STEP, FILTER, TAPS, ROWS, true>(p, p.column[i], x, y, bits, valid, sum);
    else
      add_pixel<T, STEP, FILTER, TAPS, ROWS, false>(p, p.column[i], x, y, bits, valid, sum);
  }
}

template <class T, int STEP, int FILTER, int TAPS>
void taps_of(const DepthwisePixelTaps<T>* taps) {
  constexpr int lanes = Vec<T>::lanes;
  const DepthwisePixelTaps<T>& p = *taps;
  const uint32_t bits = row_bits(0, p.channels < lanes ? p.channels : lanes);
  V<T> sum[FILTER][TAPS];
#pragma GCC unroll 4
  for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) sum[r][t] = load(p.sums + (r * TAPS + t) * lanes);
  int64_t row = 0;
  for (; row + kTileBlock <= p.rows; row += kTileBlock) add_rows<T, STEP, FILTER, TAPS, kTileBlock>(p, row, bits, sum);
  for (; row < p.rows; ++row) add_rows<T, STEP, FILTER, TAPS, 1>(p, row, bits, sum);
#pragma GCC unroll 4
  for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) store(p.sums + (r * TAPS + t) * lanes, sum[r][t]);
}

// ---- The choice ----------------------------------------------------------------------------------------------------

template <class T>
using Rows = void (*)(const DepthwisePixels<T>*);

template <class T, int STEP, int FILTER>
Rows<T> by_rows(int64_t rows) {
  if (rows <= 1) return rows_of<T, STEP, FILTER, 1>;
  return rows_of<T, STEP, FILTER, 8>;
}
template <class T, int STEP>
Rows<T> rows_by_filter(int filter_rows, int64_t rows) {
  if (filter_rows == 1) return by_rows<T, STEP, 1>(rows);
  if (filter_rows == 2) return by_rows<T, STEP, 2>(rows);
  if (filter_rows == 3) return by_rows<T, STEP, 3>(rows);
  if constexpr (kMostFilterRows<T> > 4) {
    if (filter_rows == 5) return by_rows<T, STEP, 5>(rows);
    if (filter_rows == 7) return by_rows<T, STEP, 7>(rows);
  }
  return by_rows<T, STEP, 4>(rows);
}
template <class T>
Rows<T> rows_kernel(int step, int filter_rows, int64_t rows) {
  return step == 1 ? rows_by_filter<T, 1>(filter_rows, rows) : rows_by_filter<T, 2>(filter_rows, rows);
}

template <class T, int STEP, int FILTER, int TAPS>
struct TapsTile {
  static void run(const DepthwisePixelTaps<T>* taps) { taps_of<T, STEP, FILTER, TAPS>(taps); }
};

}  // namespace

const DepthwisePixelKernels kDepthwisePixelKernels = {
    {Vec<float>::lanes, kMostFilterRows<float>, kMostTileRows, kMostTileTaps, rows_kernel<float>,
     tile_kernel<TapsTile, float>},
    {Vec<double>::lanes, kMostFilterRows<double>, kMostTileRows, kMostTileTaps, rows_kernel<double>,
     tile_kernel<TapsTile, double>},
};

}  // namespace fastconv::FC_ISA
