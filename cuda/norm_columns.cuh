// SPDX-License-Identifier: Apache-2.0
// The blocks of partial sums over columns: threads beside each other own a few channels each, those below each other take
// the rows of a part in turn and meet in a tree.
#pragma once

#include "norm.cuh"

namespace fastconv::cuda {

constexpr int kRowsAtOnce = 4;

struct ColumnSums {
  double of_thread[4 * kNormThreads];
};

// The rows of a thread's part, its first row among them, and its channels.
struct ColumnPlace {
  int64_t image, begin, rows, row;
  int64_t channel, count;  // the first one, and how many there are from there on
  int64_t first;           // element of x: row 0 of the part
  int64_t to;              // of the partial sums
};
template <int lanes>
__device__ __forceinline__ ColumnPlace column_place(const Columns& s) {
  ColumnPlace p;
  int64_t block, part;
  p.image = s.by_parts.divide(s.by_blocks.divide(int64_t{blockIdx.x}, &block), &part);
  p.begin = part * s.part;
  p.rows = part + 1 < s.parts ? s.part : s.last;
  p.row = static_cast<int64_t>(threadIdx.x) / s.wide;
  p.channel = (block * s.wide + static_cast<int64_t>(threadIdx.x) % s.wide) * lanes;
  p.count = s.channels - p.channel;
  p.first = (p.image * s.rows + p.begin) * s.channels + p.channel;
  p.to = (p.image * s.parts + part) * s.channels + p.channel;
  return p;
}

// Of channels beyond the last: zeros.
template <class T>
__device__ __forceinline__ Vector<T, kColumnPiece<T>> column_piece(const T* from, int64_t count, int32_t vectors) {
  if (vectors && count >= kColumnPiece<T>) return load<kColumnPiece<T>>(from);
  Vector<T, kColumnPiece<T>> piece;
#pragma unroll
  for (int u = 0; u < kColumnPiece<T>; ++u) piece.at[u] = u < count ? from[u] : narrowed<T>(0);
  return piece;
}
template <class T, class... Data>
int32_t column_vectors(const Columns& s, const Data*... data) {
  return aligned_pieces(data...) && s.channels % kColumnPiece<T> == 0;
}

// The sums over all rows of the block, for all its threads.
template <int lanes>
__device__ __forceinline__ void column_totals(double (&value)[lanes], ColumnSums& s, int wide) {
  const int thread = static_cast<int>(threadIdx.x);
  sync();  // what the last totals left has been read
#pragma unroll
  for (int u = 0; u < lanes; ++u) s.of_thread[u * kNormThreads + thread] = value[u];
#pragma unroll 1
  for (int half = kNormThreads / 2; half >= wide; half /= 2) {
    sync();
    if (thread >= half) continue;
#pragma unroll
    for (int u = 0; u < lanes; ++u)
      s.of_thread[u * kNormThreads + thread] += s.of_thread[u * kNormThreads + thread + half];
  }
  sync();
#pragma unroll
  for (int u = 0; u < lanes; ++u) value[u] = s.of_thread[u * kNormThreads + thread % wide];
}

inline Grid span_grid(const Spans& s, bool narrow) {
  return Grid{std::min(divide_up(s.channels * s.parts, narrow ? kNormWarps : 1), kMostBlocksX)};
}
inline Grid column_grid(const Columns& s) { return Grid{s.images * s.parts * s.blocks}; }

}  // namespace fastconv::cuda
