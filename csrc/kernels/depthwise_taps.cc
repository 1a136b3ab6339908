// SPDX-License-Identifier: Apache-2.0
// Backward-filter of depthwise planes, lanes are neighbouring pixels: a tile of FILTER x TAPS sums in registers over
// a whole plane,
//   for each block of ROWS rows of y, for each vector of columns: ROWS vectors of y in registers
//     for each tap of the tile, for each row of x that the block meets: one load, up to FILTER multiply-adds
// 3x3 and seven rows: 7 + 27 loads for 63 multiply-adds. The lanes of a sum are added at the end.
// With stride 2 two taps come from two loads and two shuffles.
#include "depthwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const DepthwiseTapsKernels kDepthwiseTapsKernels;
namespace {

#include "depthwise_rows.h"

// What a block reads of its rows: every lane; lanes that exist, by masked loads, each of which takes a port from the
// multiply-adds; or every lane, wherever it lies, and masks on the multiply-adds, which cost nothing.
enum class Lanes { kAll, kMasked, kSpilling };
template <class T, int STRIDE, int ROWS>
constexpr bool kSpills = kMasksProducts && sizeof(T) == 4 && STRIDE == 1 && ROWS > 1;

template <class T, int STRIDE, int FILTER, int TAPS, int ROWS, Lanes LANES>
FC_INLINE void add_block(const DepthwiseTaps<T>& p, const T* x, const T* from, const uint32_t* bits, uint32_t y_bits,
                         uint32_t valid, V<T> (*sum)[TAPS]) {
  constexpr int lanes = Vec<T>::lanes, read = (ROWS - 1) * STRIDE + FILTER;
  constexpr bool masked = LANES == Lanes::kMasked, spilling = LANES == Lanes::kSpilling;
  V<T> y[ROWS];
#pragma GCC unroll 8
  for (int o = 0; o < ROWS; ++o, from += p.y_row) {
    y[o] = load_some<T, !masked>(from, y_bits);
    if (spilling && p.asks) __builtin_prefetch(from + p.y_channel);
  }
  if constexpr (LANES != Lanes::kAll) asm("" : "+r"(valid));
#pragma GCC unroll 8
  for (int t = 0; t < TAPS; t += STRIDE) {
    const T* at = x + p.x_of[t / STRIDE];
    const uint32_t set = bits[t / STRIDE];
#pragma GCC unroll 16
    for (int i = 0; i < read; ++i, at += p.x_row) {
      const bool surely = LANES == Lanes::kAll || (spilling && i >= FILTER - 1 && i <= read - FILTER);
      if (!surely && !(valid >> i & 1)) continue;
      if (spilling && t == 0 && p.asks) __builtin_prefetch(at + p.x_channel);
      V<T> v[2];
      if constexpr (STRIDE == 1)
        v[0] = load_some<T, !masked>(at, set);
      else
        unzip<T>(load_some<T, !masked>(at, set), load_some<T, !masked>(at + lanes, set >> lanes), &v[0], &v[1]);
#pragma GCC unroll 4
      for (int r = 0; r < FILTER; ++r) {
        const int o = i - r;
        if (o < 0 || o % STRIDE != 0 || o / STRIDE >= ROWS) continue;
        // What is not read adds nothing in either case, not even zero times infinity.
        if constexpr (LANES != Lanes::kAll && kSpills<T, STRIDE, ROWS>)
          sum[r][t] = add_product_bits(sum[r][t], y[o / STRIDE], v[0], set);
        else
          sum[r][t] += y[o / STRIDE] * v[0];
        if (STRIDE == 2 && t + 1 < TAPS) sum[r][t + 1 < TAPS ? t + 1 : t] += y[o / STRIDE] * v[1];
      }
    }
  }
}

template <class T, int STRIDE, int FILTER, int TAPS, int ROWS>
FC_INLINE void add_rows(const DepthwiseTaps<T>& p, const T* x, const T* y, bool spills, V<T> (*sum)[TAPS],
                        int64_t row) {
  constexpr int lanes = Vec<T>::lanes, steps = (TAPS + STRIDE - 1) / STRIDE;
  constexpr int read = (ROWS - 1) * STRIDE + FILTER;
  constexpr uint32_t all = (1u << read) - 1, ends = (1u << (FILTER - 1)) - 1;
  constexpr uint32_t middle = read < 2 * FILTER - 1 ? 0 : (all >> (FILTER - 1)) & ~ends;
  const uint32_t valid = row_bits(p.first_row - row * STRIDE, p.last_row - row * STRIDE) & all;
  const uint32_t* bits = p.bits;
  x += row * STRIDE * p.x_row, y += row * p.y_row;
  for (int64_t v = 0, column = 0; column < p.columns; ++v, column += lanes, x += lanes * STRIDE, y += lanes) {
    const uint32_t y_bits = row_bits(0, p.columns - column);
    const bool whole = v >= p.left && v < p.right;
    if (whole && valid == all)
      add_block<T, STRIDE, FILTER, TAPS, ROWS, Lanes::kAll>(p, x, y, bits, y_bits, valid, sum);
    else if (kSpills<T, STRIDE, ROWS> && spills && (valid & middle) == middle)
      add_block<T, STRIDE, FILTER, TAPS, ROWS, kSpills<T, STRIDE, ROWS> ? Lanes::kSpilling : Lanes::kAll>(
          p, x, y, bits, y_bits, valid, sum);
    else
      add_block<T, STRIDE, FILTER, TAPS, ROWS, Lanes::kMasked>(p, x, y, bits, y_bits, valid, sum);
    if (v + 1 <= p.left || v + 1 >= p.right) bits += steps;
  }
}

template <class T, int FILTER, int TAPS>
FC_INLINE void store_totals(V<T> (*sum)[TAPS], T* to) {
  constexpr int lanes = Vec<T>::lanes, count = FILTER * TAPS, rest = count % lanes;
  V<T> all[count];
#pragma GCC unroll 4
  for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
    for (int t = 0; t < TAPS; ++t) all[r * TAPS + t] = sum[r][t];
#pragma GCC unroll 16
  for (int i = 0; i + lanes <= count; i += lanes) store(to + i, sum_lanes<T, lanes>(all + i));
  if constexpr (rest > 0) store_first(to + count - rest, sum_lanes<T, rest>(all + count - rest), rest);
}

template <class T, int STRIDE, int FILTER, int TAPS>
void taps_of(const DepthwiseTaps<T>* taps) {
  constexpr int lanes = Vec<T>::lanes;
  const DepthwiseTaps<T>& p = *taps;
  for (int64_t c = 0; c < p.channels; ++c) {
    const bool spills = c >= p.spill_first && c < p.spill_last;
    V<T> sum[FILTER][TAPS];
#pragma GCC unroll 4
    for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
      for (int t = 0; t < TAPS; ++t) sum[r][t] = p.sums ? load(p.sums + (r * TAPS + t) * lanes) : V<T>{};
    const T *x = p.x + c * p.x_channel, *y = p.y + c * p.y_channel;
    for (int64_t i = 0; i < p.images; ++i, x += p.x_image, y += p.y_image) {
      int64_t row = 0;
      for (; row + kTileBlock <= p.rows; row += kTileBlock)
        add_rows<T, STRIDE, FILTER, TAPS, kTileBlock>(p, x, y, spills, sum, row);
      for (; row < p.rows; ++row) add_rows<T, STRIDE, FILTER, TAPS, 1>(p, x, y, spills, sum, row);
    }
    if (p.totals) {
      store_totals<T, FILTER, TAPS>(sum, p.totals + c * FILTER * TAPS);
      continue;
    }
#pragma GCC unroll 4
    for (int r = 0; r < FILTER; ++r)
#pragma GCC unroll 8
      for (int t = 0; t < TAPS; ++t) store(p.sums + (r * TAPS + t) * lanes, sum[r][t]);
  }
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
