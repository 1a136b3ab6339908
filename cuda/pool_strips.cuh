// SPDX-License-Identifier: Apache-2.0
// Channels first, 2-D windows of 2x2 and 3x3 with a stride of 2: a thread owns a strip of kStrip outputs of one row, and
// in backward of 2 x 2 kStrip cells of x. Rows are read in vectors that start at multiples of kStrip, and of a 3x3 window
// one more cell on the side of the padding or on the other:
//
//   columns    2s-1  |  2s  2s+1  2s+2  2s+3  |  2s+4 ...
//   left       [  output s  ]
//   not left            [  output s  ]
#pragma once

#include "pool.cuh"

namespace fastconv::cuda {

constexpr int kStrip = 4;

// The side of the windows where strips compute a problem, else 0.
template <class T>
int strip_side(const PoolProblem& p, const Pool<T>& pool) {
  if (p.layout != Layout::kChannelsFirst || sizeof(T) > 4 || !has_vectors(p, pool, kStrip)) return 0;
  if (is_square(p, 2, 2) && p.pad_begin[1] == 0 && p.pad_begin[2] == 0) return 2;
  return is_square(p, 3, 2) && p.pad_begin[1] <= 1 && p.pad_begin[2] <= 1 ? 3 : 0;
}

// Calls work with the side and whether the padding is on the left, as numbers that the compiler knows.
template <int side_, bool left_>
struct StripKind {
  static constexpr int side = side_;
  static constexpr bool left = left_;
};
template <class Work>
int by_strip_kind(const PoolProblem& p, const Work& work) {
  if (p.window[2] == 2) return work(StripKind<2, false>());
  return p.pad_begin[2] ? work(StripKind<3, true>()) : work(StripKind<3, false>());
}

// Takes the number of a strip apart.
struct Strips {
  Divisor per_row, rows, channels;
  int64_t count, whole;  // whole: no strip of y sticks out
};
// Of planes of `rows` rows with `columns` columns, each strip `width` of them.
inline Strips strips_of(const PoolProblem& p, int64_t rows, int64_t columns, int64_t width) {
  const int64_t per_row = divide_up(columns, width);
  return {Divisor(per_row), Divisor(rows), Divisor(p.c), p.n * p.c * rows * per_row, output_size(p, 2) % kStrip == 0};
}
struct StripAt {
  int64_t n, channel, row, number;
};
__device__ __forceinline__ StripAt strip_at(int64_t i, const Strips& strips) {
  StripAt at;
  at.n = strips.channels.divide(strips.rows.divide(strips.per_row.divide(i, &at.number), &at.row), &at.channel);
  return at;
}

// What a strip of outputs reads of one row of x.
template <class T, int side, bool left>
struct StripRow {
  Vector<T, kStrip> pieces[2];
  T edge;

  // `column`: of the first piece. Beyond the row is `fill`.
  __device__ __forceinline__ void read(const T* row, int64_t column, int64_t size, T fill) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (column + i * kStrip < size) {
        pieces[i] = load<kStrip>(row + column + i * kStrip);
      } else {
#pragma unroll
        for (int u = 0; u < kStrip; ++u) pieces[i].at[u] = fill;
      }
    }
    edge = fill;
    const int64_t beside = left ? column - 1 : column + 2 * kStrip;
    if (side == 3 && beside >= 0 && beside < size) edge = row[beside];
  }
  // Tap 0 of the strip's output u is cell 2 u.
  __device__ __forceinline__ Sum<T> cell(int u) const {
    const int i = left ? u - 1 : u;
    return widen(i < 0 || i == 2 * kStrip ? edge : pieces[i / kStrip].at[i % kStrip]);
  }
};

}  // namespace fastconv::cuda
