// SPDX-License-Identifier: Apache-2.0
// The register tile of the implicit matrix product: lanes are written channels, rows are pixels that may lie anywhere.
//
//              w[step][4 vectors]             AVX-512 and NEON: 6 pixels x 4 vectors = 24 accumulators, 4 vectors of w
//              and
//              +-----+-----+-----+-----+      1 broadcast of x = 29 of 32 registers; a step has 4 loads, 6 broadcasts
//              and
//  x[pixel +   |     |     |     |     | x 6  24 multiply-adds. AVX2 and the baseline: 6 x 2. Each pixel has a pointer
//  of
//    offset]   +-----+-----+-----+-----+      its own, a step one offset for all of them: 9 of 16 integer registers.
//
// Loads are what to save: with 16 of them for 28 multiply-adds, 14 x 2 reached 77 % of the multiply-add peak where 6 x
// 4 reached 93 % (Ice Lake server, shared, 2026-11).
#include "kernel_table.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const ImplicitKernels kImplicitKernels;
namespace {

constexpr int kPixels = 6;
constexpr int kVectors = kVectorRegisters == 32 ? 4 : 2;

template <class T, int VECTORS>
void tile_of(int64_t steps, const int64_t* offsets, const T* x, const int64_t* pixels, const T* __restrict w,
             T* __restrict y, bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[kPixels][VECTORS] = {};
  const T* place[kPixels];
#pragma GCC unroll 8
  for (int i = 0; i < kPixels; ++i) place[i] = x + pixels[i];
#pragma GCC unroll 2
  for (int64_t step = 0; step < steps; ++step, w += VECTORS * lanes) {
    const int64_t offset = offsets[step];
    V<T> column[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) column[v] = load(w + v * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < kPixels; ++i) {
      const V<T> factor = splat(place[i][offset]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[i][v] += factor * column[v];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kPixels; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v, y += lanes) {
      if (accumulate) sum[i][v] += load(y);
      store(y, sum[i][v]);
    }
}

template <class T>
void tile(int64_t width, int64_t steps, const int64_t* offsets, const T* x, const int64_t* pixels, const T* w, T* y,
          bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  if (width == lanes) return tile_of<T, 1>(steps, offsets, x, pixels, w, y, accumulate);
  if (kVectors == 2 || width == 2 * lanes) return tile_of<T, 2>(steps, offsets, x, pixels, w, y, accumulate);
  if constexpr (kVectors > 2) {
    if (width == 3 * lanes) return tile_of<T, 3>(steps, offsets, x, pixels, w, y, accumulate);
    return tile_of<T, 4>(steps, offsets, x, pixels, w, y, accumulate);
  }
}

}  // namespace

const ImplicitKernels kImplicitKernels = {{kPixels, Vec<float>::lanes, kVectors, tile<float>},
                                          {kPixels, Vec<double>::lanes, kVectors, tile<double>}};

}  // namespace fastconv::FC_ISA
