// SPDX-License-Identifier: Apache-2.0
// A tile of a matrix product on the tensor cores of sm_80 and later: sums[rows][columns] += a b over steps of 64 bytes
// of depth (32 halves, 16 floats), which pass through a ring of kStages buffers in shared memory.
//
//   each block of threads: S::kRows x S::kColumns sums, each warp a part of them in registers
//     for each step: the loader's copies for the step kStages - 1 ahead are started
//                    for each half of the step: ldmatrix of both operands, then mma of every pair of 16 rows, 8 columns
//
// Per step and warp of 64 x 32 sums: 12 ldmatrix (512 bytes each) for 32 mma of halves (or of tf32; 96 of 3xTF32). So a
// multiprocessor moves 96 x 4 cycles of shared memory for 8 warps in the time of 64 mma of each of its four units: 512
// cycles on sm_80, where the tensor cores are the limit. On sm_90 mma.sync takes half as long or a little more, and
// shared memory is the limit, at two thirds of the peak. Registers: 64 sums a thread, 3xTF32 128, and 24 (48) of
// fragments.
//
// An operand lies in shared memory either deep (a row or column of the product: its 64 bytes of depth, 4 pieces of 16)
// or wide (one depth: all rows or columns). Pieces change places within 128 bytes by row or depth, so that neither the
// copies' writes nor the reads of fragments meet in a bank: counted in the comments of deep_piece and wide_piece.
#pragma once

#include "products.cuh"

namespace fastconv::cuda {

constexpr int kStages = 4;
constexpr int kStepBytes = 64, kStepWords = kStepBytes / 4;

// `totals`: chunks of steps have sums of their own, which are added up in their order (see sum_products).
template <int rows, int columns, int warps_down, int warps_across, bool totals>
struct TileShape {
  static constexpr int kRows = rows, kColumns = columns, kWarpsAcross = warps_across;
  static constexpr int kThreads = kWarp * warps_down * warps_across;
  static constexpr int kWarpRows = rows / warps_down, kWarpColumns = columns / warps_across;
  static constexpr int kDown = kWarpRows / 16, kAcross = kWarpColumns / 8;  // mma's sums in a warp
  static constexpr bool kTotals = totals;
};
// Blocks that a multiprocessor must have registers for: as many as do without spilling. `tight`: neither sums twice nor
// elements that pass through registers one by one.
template <class S>
constexpr int resident_blocks(bool tight) {
  return S::kThreads == 256 ? (tight ? 2 : 1) : (tight ? 3 : 2);
}

using LargeTile = TileShape<128, 128, 2, 4, false>;
using SmallTile = TileShape<64, 64, 2, 2, true>;
using FlatTile = TileShape<32, 128, 1, 4, true>;  // for few rows

template <class S>
using WarpSums = float[S::kDown][S::kAcross][4];

// ---- Operands in shared memory --------------------------------------------------------------------------------------
// The word where a piece starts. Deep: 8 rows of one piece lie in the 8 different sixteen bytes of 128.
__device__ __forceinline__ int deep_piece(int row, int piece) {
  return row * kStepWords + (piece ^ (row >> 1 & 3)) * 4;
}
// Wide, of halves: 8 depths of one piece likewise; of floats: 8 neighbours of 4 depths lie in the 32 banks.
template <class T, int extent>
__device__ __forceinline__ int wide_piece(int depth, int piece) {
  constexpr int kPieces = extent * static_cast<int>(sizeof(T)) / 16;
  const int turn = sizeof(T) == 4 ? (depth & 3) * 2 : kPieces >= 8 ? depth & 7 : depth >> 1 & 3;
  return depth * kPieces * 4 + (piece ^ turn) * 4;
}

template <class T>
constexpr int kStepDepth = kStepBytes / static_cast<int>(sizeof(T));
template <class T>
constexpr int kPiece = 16 / static_cast<int>(sizeof(T));  // elements

// Rows first .. first + 15 of the left operand (or, with `right`, as many columns of the right one: two fragments of b)
// of half `half` of a step.
template <class T, int extent, bool deep, bool right>
__device__ __forceinline__ void load_fragments(const uint32_t* from, int first, int half, uint32_t (&to)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  // Fragments of the left operand go by rows, then depth; of the right one by depth, then columns.
  const int low = lane >> 3 & 1, high = lane >> 4, along = right ? high : low, down = right ? low : high;
  if constexpr (deep) {
    load_matrices(to, from + deep_piece(first + (lane & 7) + along * 8, half * 2 + down));
  } else if constexpr (sizeof(T) == 2) {
    const int depth = half * 16 + (lane & 7) + down * 8;
    load_matrices_transposed(to, from + wide_piece<T, extent>(depth, first / 8 + along));
  } else {
    const int depth = half * 8 + lane % 4;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int at = first + lane / 4 + (right ? i / 2 : i % 2) * 8;
      to[i] = from[wide_piece<T, extent>(depth + (right ? i % 2 : i / 2) * 4, at / 4) + at % 4];
    }
  }
}

// Halves that are copied one by one pass through registers: all are asked for before a step's products and looked at
// after them. Where there is nothing to read, `instead` is read, so that no load waits behind a branch.
template <int count>
struct Gathered {
  static_assert(count <= 32);
  uint16_t bits[count];
  uint32_t present;
  template <class T>
  __device__ __forceinline__ void ask(int i, const T* from, bool valid, const T* instead) {
    bits[i] = (valid ? from : instead)->bits;
    present = (i == 0 ? 0u : present) | (valid ? 1u << i : 0u);
  }
  __device__ __forceinline__ uint32_t value(int i) const { return present >> i & 1 ? bits[i] : 0u; }
  __device__ __forceinline__ uint32_t word(int i) const { return value(i * 2) | value(i * 2 + 1) << 16; }
};

template <class S>
struct Stages {
  alignas(128) uint32_t a[kStages][S::kRows * kStepWords];
  alignas(128) uint32_t b[kStages][S::kColumns * kStepWords];
};
template <class S>
struct TileMemory {
  union {
    Stages<S> stages;
    float sums[S::kRows * S::kColumns];  // when the products are done
  };
};

template <class A, class S, bool a_deep, bool b_deep>
__device__ __forceinline__ void multiply_step(const uint32_t* a, const uint32_t* b, WarpSums<S>& sums) {
  typedef typename A::T T;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = warp / S::kWarpsAcross * S::kWarpRows, column = warp % S::kWarpsAcross * S::kWarpColumns;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32_t left[S::kDown][4], right[S::kAcross / 2][4];
#pragma unroll
    for (int i = 0; i < S::kDown; ++i) load_fragments<T, S::kRows, a_deep, false>(a, row + i * 16, half, left[i]);
#pragma unroll
    for (int j = 0; j < S::kAcross / 2; ++j)
      load_fragments<T, S::kColumns, b_deep, true>(b, column + j * 16, half, right[j]);
    A::template multiply<S::kDown, S::kAcross>(left, right, sums);
  }
}

// to += from, from = 0.
template <class S>
__device__ __forceinline__ void move_sums(WarpSums<S>& from, WarpSums<S>& to) {
#pragma unroll
  for (int i = 0; i < S::kDown; ++i)
#pragma unroll
    for (int j = 0; j < S::kAcross; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) to[i][j][e] += from[i][j][e], from[i][j][e] = 0;
}

// result = the products of steps begin .. end. Steps form chunks of `chunk` whose sums are added in their order where
// the shape has totals: the bits of a block that does all chunks are those of blocks that do one each, their sums being
// added later from 0 in the same order. Others take one chunk.
// The loader: prepare(step) comes before the barrier that precedes issue(step, stage), which starts the step's copies;
// land(stage) ends what copy_async could not do.
template <class A, class S, bool a_deep, bool b_deep, class Loader>
__device__ __forceinline__ void sum_products(TileMemory<S>& s, Loader& loader, int begin, int end, int chunk,
                                             WarpSums<S>& result) {
  WarpSums<S> sums = {}, promoted = {};
#pragma unroll
  for (int i = 0; i < S::kDown * S::kAcross * 4; ++i) result[i / 4 / S::kAcross][i / 4 % S::kAcross][i % 4] = 0;
  loader.prepare(begin);
  if constexpr (Loader::kPrepares) sync();
  for (int i = 0; i < kStages - 1; ++i) {
    if (begin + i < end) {
      loader.issue(begin + i, i);
      loader.land(i);
    }
    copy_async_commit();
    loader.prepare(begin + i + 1);
    if constexpr (Loader::kPrepares) sync();
  }
  int stage = 0, left = chunk;
  for (int step = begin; step < end; ++step) {
    copy_async_wait<kStages - 2>();
    sync();
    const int ahead = step + kStages - 1, free = stage == 0 ? kStages - 1 : stage - 1;
    if (ahead < end) loader.issue(ahead, free);
    loader.prepare(ahead + 1);
    multiply_step<A, S, a_deep, b_deep>(s.stages.a[stage], s.stages.b[stage], sums);
    if (ahead < end) loader.land(free);
    copy_async_commit();
    if constexpr (A::kPromotes && S::kTotals)
      move_sums<S>(sums, promoted);
    else if constexpr (A::kPromotes)
      move_sums<S>(sums, result);
    if constexpr (S::kTotals) {
      if (step + 1 == end || --left == 0) {
        move_sums<S>(A::kPromotes ? promoted : sums, result);
        left = chunk;
      }
    }
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }
  if constexpr (!A::kPromotes && !S::kTotals) move_sums<S>(sums, result);
  copy_async_wait<0>();
  sync();
}

// ---- Sums by way of shared memory -----------------------------------------------------------------------------------
// The place of a sum: pairs of columns of 8 rows, 8 columns of one row, and 8 columns of rows 8 apart lie in
// different banks.
template <class S>
__device__ __forceinline__ int sum_place(int row, int column) {
  return row * S::kColumns + (column ^ ((row ^ row >> 3) & 3) * 8);
}
template <class S>
__device__ __forceinline__ void put_sums(TileMemory<S>& s, const WarpSums<S>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  const int row = warp / S::kWarpsAcross * S::kWarpRows + lane / 4;
  const int column = warp % S::kWarpsAcross * S::kWarpColumns + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < S::kDown; ++i)
#pragma unroll
    for (int j = 0; j < S::kAcross; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        store(s.sums + sum_place<S>(row + i * 16 + half * 8, column + j * 8),
              Vector<float, 2>{{sums[i][j][half * 2], sums[i][j][half * 2 + 1]}});
  sync();
}

}  // namespace fastconv::cuda
