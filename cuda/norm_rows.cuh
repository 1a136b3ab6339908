// SPDX-License-Identifier: Apache-2.0
// Rows that are read again for each of several passes, by then from a cache: a warp for a short one, a block for a long one.
#pragma once

#include "norm.cuh"

namespace fastconv::cuda {

constexpr int64_t kRowOfWarp = 1024;

inline Grid grid_of_rows(int64_t rows, bool narrow) {
  return Grid{std::min(divide_up(rows, narrow ? kNormWarps : 1), kMostBlocksX)};
}

// Calls work(the row's first element, the number of the thread in it) for the rows of a warp or of a block.
template <int threads, class Work>
__device__ __forceinline__ void for_rows(int64_t rows, int64_t columns, const Work& work) {
  constexpr int per_block = kNormThreads / threads;
  const int64_t step = int64_t{gridDim.x} * per_block;
  for (int64_t r = int64_t{blockIdx.x} * per_block + threadIdx.x / threads; r < rows; r += step)
    work(r * columns, static_cast<int>(threadIdx.x) % threads);
}

// Each row's pieces, by threads in turn: visit(the first element, how many there are from there on).
template <class T, int threads, class Visit>
__device__ __forceinline__ void for_row_pieces(int64_t columns, int thread, const Visit& visit) {
#pragma unroll 2
  for (int64_t i = int64_t{thread} * kPiece<T>; i < columns; i += threads * kPiece<T>) visit(i, columns - i);
}

}  // namespace fastconv::cuda
