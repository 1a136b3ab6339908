// SPDX-License-Identifier: Apache-2.0
// The gradient of 2x2 and 3x3 windows with a stride of 2: a thread gathers for tiles of 2 x 2 cells of x, which lie under
// the same outputs, 1 of 2x2 windows and 2 x 2 of 3x3. With i the number of a tile along an axis, output base + t has tap
// v + shift - 2 t on cell 2 i + v:
//
//                      base    shift
//   2x2                i       0
//   3x3, no padding    i - 1   2
//   3x3, padding 1     i       1
#pragma once

#include "pool_strips.cuh"

namespace fastconv::cuda {

struct TileAxis {
  int64_t base;
  int shift;
};
template <int side>
__device__ __forceinline__ TileAxis tile_axis(int64_t tile, int64_t pad) {
  if (side == 2) return {tile, 0};
  return pad ? TileAxis{tile, 1} : TileAxis{tile - 1, 2};
}
// The tap of output base + t on cell v; -1: none.
template <int side>
__device__ __forceinline__ int tile_tap(int shift, int v, int t) {
  const int tap = v + shift - 2 * t;
  return tap >= 0 && tap < side ? tap : -1;
}

// Channels last: tiles in the place of pixels. 0: not for this problem.
template <class T>
int tile_side(const PoolProblem& p, const Pool<T>& pool) {
  if (p.layout != Layout::kChannelsLast || sizeof(T) > 4 || !has_vectors(p, pool, kLanes<T>)) return 0;
  if (is_square(p, 2, 2) && p.pad_begin[1] == 0 && p.pad_begin[2] == 0) return 2;
  return is_square(p, 3, 2) && p.pad_begin[1] <= 1 && p.pad_begin[2] <= 1 ? 3 : 0;
}
template <class T>
Cells tile_cells(const PoolProblem& p) {
  const int64_t tiles[] = {1, divide_up(p.size[1], 2), divide_up(p.size[2], 2)};
  return Cells(p, tiles, kLanes<T>);
}

// Channels first: strips of kStrip tiles. The outputs over one are kOver, from `first` on.
template <int side>
inline constexpr int kOver = kStrip + side - 2;
template <int side, bool left>
__device__ __forceinline__ int64_t first_over(int64_t strip) {
  return strip * kStrip - (side == 3 && !left ? 1 : 0);
}
template <int side, bool left>
inline constexpr int kShift = side == 2 ? 0
                              : left    ? 1
                                        : 2;

inline Strips tile_strips(const PoolProblem& p) { return strips_of(p, divide_up(p.size[1], 2), p.size[2], 2 * kStrip); }

// Reads the outputs over a strip of one row of y (or of something laid out like it). `whole`: rows of y may be read in
// vectors.
template <int side, bool left, class U>
__device__ __forceinline__ void read_over(const U* row, int64_t strip, int64_t out, bool whole, U fill,
                                          U (&values)[kOver<side>]) {
  constexpr int lead = side == 3 && !left ? 1 : 0;  // before the aligned ones
  const int64_t o = strip * kStrip;
  if (whole && o < out) {
    const auto piece = load<kStrip>(row + o);
#pragma unroll
    for (int u = 0; u < kStrip; ++u) values[lead + u] = piece.at[u];
  } else {
#pragma unroll
    for (int u = 0; u < kStrip; ++u) values[lead + u] = o + u < out ? row[o + u] : fill;
  }
  if constexpr (side == 3) {
    const int64_t beside = lead ? o - 1 : o + kStrip;
    values[lead ? 0 : kStrip] = beside >= 0 && beside < out ? row[beside] : fill;
  }
}

// Stores a row of a strip of x.
template <class T>
__device__ __forceinline__ void store_cells(T* row, int64_t column, int64_t size, const Sum<T> (&values)[2 * kStrip]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (column + i * kStrip >= size) break;
    Vector<T, kStrip> piece;
#pragma unroll
    for (int u = 0; u < kStrip; ++u) piece.at[u] = narrowed<T>(values[i * kStrip + u]);
    store(row + column + i * kStrip, piece);
  }
}

}  // namespace fastconv::cuda
