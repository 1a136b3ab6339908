// SPDX-License-Identifier: Apache-2.0
// The matrix product of one Winograd point, and the way of its results to the tensor.
//
//              u[channel][4 vectors]        AVX-512 and NEON: 6 tiles x 4 vectors = 24 accumulators, 4 vectors of u
//              +-----+-----+-----+-----+    and 1 broadcast of V = 29 of 32 registers; a step has 4 loads, 6
//  V[tile]     |     |     |     |     |    broadcasts and 24 multiply-adds. 14 x 2 and 9 x 3 serve fewer vectors.
//   [channel]  |     |     |     |     |    AVX2 and the baseline: 6 x 2. Lanes are written channels.
//    x 6 tiles +-----+-----+-----+-----+
//
// A block of channels of V is [tile][lane], so that all broadcasts are constant displacements from one pointer. Out of
// the caches 6 x 4 and 9 x 3 run at the multiply-add peak, 14 x 2 at 85 to 95 % of it (Ice Lake server, 2026-11).
#include "simd.h"
#include "winograd_kernels.h"

namespace fastconv::FC_ISA {
extern const WinogradKernels kWinogradKernels;
namespace {

constexpr int L = Vec<float>::lanes;
constexpr int kVectors = kVectorRegisters == 32 ? 4 : 2;
constexpr int most_rows(int vectors) {
  if (kVectorRegisters == 32) return vectors <= 2 ? 14 : vectors == 3 ? 9 : 6;
  return vectors == 1 ? 12 : 6;
}

template <int ROWS, int VECTORS, bool NEXT>
void multiply_tile(int64_t channels, const float* __restrict input, int64_t block_pitch, const float* __restrict u,
                   int64_t u_block_pitch, float* __restrict products, int64_t vector_pitch, bool accumulate) {
  V<float> sum[ROWS][VECTORS] = {};
  for (; channels > 0; channels -= L, input += block_pitch, u += u_block_pitch) {
    const float* at = input;
    const float* end = input + (channels < L ? channels : L);
    const float* w = u;
#pragma GCC unroll 2
    for (; at < end; ++at, w += VECTORS * L) {
      V<float> column[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        column[v] = load(w + v * L);
        if constexpr (NEXT) __builtin_prefetch(w + (kWinogradChunk * VECTORS + v) * L, 0, 2);
      }
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; ++r) {
        const V<float> factor = splat(at[r * L]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[r][v] += factor * column[v];
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; ++v)
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      float* to = products + v * vector_pitch + r * L;
      if (accumulate) sum[r][v] += load(to);
      store(to, sum[r][v]);
    }
}

template <int VECTORS, bool NEXT>
void multiply_rows(int rows, int64_t channels, const float* input, int64_t block_pitch, const float* u,
                   int64_t u_block_pitch, float* products, int64_t vector_pitch, bool accumulate) {
#define FC_CASE(n)                                                                                                   \
  case n:                                                                                                            \
    if constexpr (n <= most_rows(VECTORS))                                                                           \
      return multiply_tile<n, VECTORS, NEXT>(channels, input, block_pitch, u, u_block_pitch, products, vector_pitch, \
                                             accumulate);                                                            \
    break;
  switch (rows) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    FC_CASE(4)
    FC_CASE(5)
    FC_CASE(6)
    FC_CASE(7)
    FC_CASE(8)
    FC_CASE(9)
    FC_CASE(10)
    FC_CASE(11)
    FC_CASE(12)
    FC_CASE(13)
    FC_CASE(14)
    default:
      break;
  }
#undef FC_CASE
}

template <bool NEXT>
void multiply_vectors(int rows, int vectors, int64_t channels, const float* input, int64_t block_pitch, const float* u,
                      int64_t u_block_pitch, float* products, int64_t vector_pitch, bool accumulate) {
#define FC_CASE(n)                                                                                                \
  if constexpr (n <= kVectors)                                                                                    \
    if (vectors == n)                                                                                             \
      return multiply_rows<n, NEXT>(rows, channels, input, block_pitch, u, u_block_pitch, products, vector_pitch, \
                                    accumulate);
  FC_CASE(1)
  FC_CASE(2)
  FC_CASE(3)
  FC_CASE(4)
#undef FC_CASE
}

void multiply(int rows, int vectors, int64_t channels, const float* input, int64_t block_pitch, const float* u,
              int64_t u_block_pitch, bool next, float* products, int64_t vector_pitch, bool accumulate) {
  (next ? multiply_vectors<true> : multiply_vectors<false>)(rows, vectors, channels, input, block_pitch, u,
                                                            u_block_pitch, products, vector_pitch, accumulate);
}

void store_rows(int64_t rows, int64_t columns, const float* src, float* dst, int64_t dst_pitch, const float* bias,
                const float* residual, bool relu) {
  for (int64_t x = 0; x < columns; x += L) {
    const int64_t count = columns - x;
    V<float> v[L];
    load_transposed<float>(src + x * L, L, v);
#pragma GCC unroll 16
    for (int i = 0; i < L; ++i) {
      if (i >= rows) continue;
      V<float> y = v[i];
      if (bias) y += splat(bias[i]);
      if (residual) y += load_lanes(residual + i * dst_pitch + x, 0, count);
      if (relu) y = select<float>(y < V<float>{}, V<float>{}, y);  // NaN passes
      store_first(dst + i * dst_pitch + x, y, count);
    }
  }
}

void store_pixels(int64_t columns, int64_t channels, const float* src, float* dst, int64_t dst_pitch, const float* bias,
                  const float* residual, bool relu) {
  const V<float> shift = bias ? load_lanes(bias, 0, channels) : V<float>{};
  for (int64_t x = 0; x < columns; ++x, src += L, dst += dst_pitch) {
    V<float> y = load(src);
    if (bias) y += shift;
    if (residual) y += load_lanes(residual + x * dst_pitch, 0, channels);
    if (relu) y = select<float>(y < V<float>{}, V<float>{}, y);
    store_first(dst, y, channels);
  }
}

}  // namespace

const WinogradKernels kWinogradKernels = {
    L, kVectors, {0, most_rows(1), most_rows(2), most_rows(3), most_rows(4)}, multiply, store_rows, store_pixels};

}  // namespace fastconv::FC_ISA
