// SPDX-License-Identifier: Apache-2.0
// The register tiles of both gradients without a column matrix. Of the filter's: lanes are channels of the one tensor,
// rows are (channel, tap) of the other, and depth is pixels.
//
//                  panel[pixel][4 vectors]      AVX-512 and NEON: 6 rows x 4 vectors = 24 accumulators, 4 vectors of
//                  the
//                  +-----+-----+-----+-----+    panel and 1 broadcast of x = 29 of 32 registers; a pixel has 4 loads,
//   x[offset of    |     |     |     |     |    6 broadcasts and 24 multiply-adds. AVX2 and the baseline: 6 x 2.
//     row + place  |     |     |     |     | x 6
//     of pixel]    +-----+-----+-----+-----+    Each row has a pointer of its own, a pixel one place for all of them.
//
// Backward-data with lanes of channels is the same product: rows are pixels, depth is (k, tap), the panel is weights.
//
// A row is a channel at a tap, wherever the pixels lie: padding, strides and few channels cost no lanes. Panels of 100
// to 400 pixels stream from L2 at no loss: 160 to 175 GFLOP/s beside a peak of 160 to 175 (Ice Lake server, shared,
// 2026-11); 12 x 2 reached 155, 9 x 3 as much as 6 x 4. Where one vector is all there is, the pixels take turns with
// two sets of accumulators; every multiply-add then has a broadcast of its own, and half the peak is the limit.
#include "implicit_gradient_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const ImplicitGradientKernels kImplicitGradientKernels;
namespace {

constexpr int kRows = 6;
constexpr int kVectors = kVectorRegisters == 32 ? 4 : 2;

template <class T, int ROWS, int VECTORS>
void tile_of(int64_t pixels, const int64_t* places, const T* x, const int64_t* offsets, const int64_t* next,
             const T* __restrict panel, T* __restrict sums, int64_t pitch, bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr int turns = 2 * VECTORS <= kVectors ? 2 : 1;
  V<T> sum[turns][ROWS][VECTORS] = {};
  const T* row[ROWS];
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i) row[i] = x + offsets[i];
  const auto step = [&](int turn, int64_t place, const T* at) __attribute__((always_inline)) {
    V<T> column[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) column[v] = load(at + v * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const V<T> factor = splat(row[i][place]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[turn][i][v] += factor * column[v];
    }
  };
  // A line of each row of the next tile with every line of these, where loads are not what is scarce; and of its sums,
  // if few pixels leave as many stores as multiply-adds can hide.
  const bool asks = VECTORS > 2 && next;
  constexpr int64_t of_line = 64 / (int64_t)sizeof(T);
  const bool stores = pixels <= 4 * of_line;
  int64_t pixel = 0;
  while (pixel + 2 <= pixels) {
#pragma GCC unroll 8
    for (int i = 0; asks && i < ROWS; ++i) {
      __builtin_prefetch(x + next[i] + places[pixel], 0, 3);
      if (stores) __builtin_prefetch(sums + (ROWS + i) * pitch + pixel / of_line % VECTORS * lanes, 1, 3);
    }
    const int64_t end = asks && pixel + of_line < pixels ? pixel + of_line : pixels;
    for (; pixel + 2 <= end; pixel += 2, panel += 2 * VECTORS * lanes) {
      step(0, places[pixel], panel);
      step(turns - 1, places[pixel + 1], panel + VECTORS * lanes);
    }
  }
  if (pixel < pixels) step(0, places[pixel], panel);
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      T* at = sums + i * pitch + v * lanes;
      if (turns > 1) sum[0][i][v] += sum[turns - 1][i][v];
      if (accumulate) sum[0][i][v] += load(at);
      store(at, sum[0][i][v]);
    }
}

template <class T, int VECTORS>
void tile_rows(int rows, int64_t pixels, const int64_t* places, const T* x, const int64_t* offsets, const int64_t* next,
               const T* panel, T* sums, int64_t pitch, bool accumulate) {
  switch (rows) {
    case 1:
      return tile_of<T, 1, VECTORS>(pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
    case 2:
      return tile_of<T, 2, VECTORS>(pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
    case 3:
      return tile_of<T, 3, VECTORS>(pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
    case 4:
      return tile_of<T, 4, VECTORS>(pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
    case 5:
      return tile_of<T, 5, VECTORS>(pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
    default:
      return tile_of<T, 6, VECTORS>(pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
  }
}

template <class T>
void tile(int rows, int64_t width, int64_t pixels, const int64_t* places, const T* x, const int64_t* offsets,
          const int64_t* next, const T* panel, T* sums, int64_t pitch, bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  if (width == lanes) return tile_rows<T, 1>(rows, pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
  if (kVectors == 2 || width == 2 * lanes)
    return tile_rows<T, 2>(rows, pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
  if constexpr (kVectors > 2) {
    if (width == 3 * lanes)
      return tile_rows<T, 3>(rows, pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
    return tile_rows<T, 4>(rows, pixels, places, x, offsets, next, panel, sums, pitch, accumulate);
  }
}

#include "phase_tile.h"

}  // namespace

const ImplicitGradientKernels kImplicitGradientKernels = {
    {kRows, Vec<float>::lanes, kVectors, tile<float>, kPhase<float>},
    {kRows, Vec<double>::lanes, kVectors, tile<double>, kPhase<double>}};

}  // namespace fastconv::FC_ISA
