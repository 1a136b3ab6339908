// SPDX-License-Identifier: Apache-2.0
// Backward-filter of depthwise planes, lanes are neighbouring pixels: a tile of FILTER x TAPS sums in registers over
// a whole plane,
//   for each block of ROWS rows of y, for each vector of columns: ROWS vectors of y in registers
//     for each tap of the tile, for each row of x that the block meets: one load, up to FILTER multiply-adds
// 3x3 and seven rows: 7 + 27 loads for 63 multiply-adds. The lanes of a sum are added at the end (depthwise.cc).
// With stride 2 two taps come from two loads and two shuffles.
#include "depthwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const DepthwiseTapsKernels kDepthwiseTapsKernels;
namespace {

#include "depthwise_rows.h"

template <class T, int STRIDE, int FILTER, int TAPS, int ROWS, bool INNER>
FC_INLINE void add_block(const DepthwiseTaps<T>& p, int64_t row, int64_t column, const uint32_t* bits, uint32_t y_bits,
                         uint32_t valid, V<T> (*sum)[TAPS]) {
  constexpr int lanes = Vec<T>::lanes, read = (ROWS - 1) * STRIDE + FILTER;
  V<T> y[ROWS];
  const T* from = p.y + row * p.y_row + column;
#pragma GCC unroll 8
  for (int o = 0; o < ROWS; ++o, from += p.y_row) y[o] = load_some<T, INNER>(from, y_bits);
  const T* x = p.x + row * STRIDE * p.x_row + column * STRIDE;
  if constexpr (!INNER) asm("" : "+r"(valid));
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; t += STRIDE) {
    const T* at = x + p.x_of[t / STRIDE];
    const uint32_t set = bits[t / STRIDE];
#pragma GCC unroll 16
    for (int i = 0; i < read; ++i, at += p.x_row) {
      if (!INNER && !(valid >> i & 1)) continue;
      V<T> v[2];
      if constexpr (STRIDE == 1)
        v[0] = load_some<T, INNER>(at, set);
      else
        unzip<T>(load_some<T, INNER>(at, set), load_some<T, INNER>(at + lanes, set >> lanes), &v[0], &v[1]);
#pragma GCC unroll 4
      for (int r = 0; r < FILTER; ++r) {
        const int o = i - r;
        if (o < 0 || o % STRIDE != 0 || o / STRIDE >= ROWS) continue;
        sum[r][t] += y[o / STRIDE] * v[0];
        if (STRIDE == 2 && t + 1 < TAPS) sum[r][t + 1 < TAPS ? t + 1 : t] += y[o / STRIDE] * v[1];
      }
    }
  }
}

template <class T, int STRIDE, int FILTER, int TAPS, int ROWS>
FC_INLINE void add_rows(const DepthwiseTaps<T>& p, int64_t row, V<T> (*sum)[TAPS]) {
  constexpr int lanes = Vec<T>::lanes, steps = (TAPS + STRIDE - 1) / STRIDE;
  constexpr uint32_t all = (1u << ((ROWS - 1) * STRIDE + FILTER)) - 1;
  const uint32_t valid = row_bits(p.first_row - row * STRIDE, p.last_row - row * STRIDE) & all;
  const uint32_t* bits = p.bits;
  for (int64_t v = 0, column = 0; column < p.columns; ++v, column += lanes) {
    const uint32_t y_bits = row_bits(0, p.columns - column);
    const bool whole = v >= p.left && v < p.right;
    if (whole && valid == all)
      add_block<T, STRIDE, FILTER, TAPS, ROWS, true>(p, row, column, bits, y_bits, valid, sum);
    else
      add_block<T, STRIDE, FILTER, TAPS, ROWS, false>(p, row, column, bits, y_bits, valid, sum);
    if (v + 1 <= p.left || v + 1 >= p.right) bits += steps;
  }
}

template <class T, int STRIDE, int FILTER, int TAPS>
void taps_of(const DepthwiseTaps<T>* taps) {
  constexpr int lanes = Vec<T>::lanes;
  const DepthwiseTaps<T>& p = *taps;
  V<T> sum[FILTER][TAPS];
#pragma GCC unroll 4
  for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) sum[r][t] = load(p.sums + (r * TAPS + t) * lanes);
  int64_t row = 0;
  for (; row + kTileBlock <= p.rows; row += kTileBlock) add_rows<T, STRIDE, FILTER, TAPS, kTileBlock>(p, row, sum);
  for (; row < p.rows; ++row) add_rows<T, STRIDE, FILTER, TAPS, 1>(p, row, sum);
#pragma GCC unroll 4
  for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) store(p.sums + (r * TAPS + t) * lanes, sum[r][t]);
}

template <class T, int STRIDE, int FILTER, int TAPS>
struct TapsTile {
  static void run(const DepthwiseTaps<T>* taps) { taps_of<T, STRIDE, FILTER, TAPS>(taps); }
};

}  // namespace

const DepthwiseTapsKernels kDepthwiseTapsKernels = {
    {Vec<float>::lanes, kMostTileRows, kMostTileTaps, tile_kernel<TapsTile, float>},
    {Vec<double>::lanes, kMostTileRows, kMostTileTaps, tile_kernel<TapsTile, double>},
};

}  // namespace fastconv::FC_ISA
