// SPDX-License-Identifier: Apache-2.0
// The transforms of csrc/winograd_math.h, factored by hand: one vector holds one cell, so that every instruction serves
// as many channels as there are lanes, whatever the width of the image.
//
// Operations of a one-dimensional pass (a multiply-add counts as one), p = 1/sqrt(2):
//   B^T, 4 points: 4         d0 - d2, d1 + d2, d2 - d1, d3 - d1
//   B^T, 6 points: 12        the pair of +-a:  (d4 - b d2) +- a (d3 - b d1), where b is the square of the other pair
//   G, 3 taps: 3 a pair      (g0 + a^2 g2) +- a g1;  5 taps: 5, (g0 + a^2 g2 + a^4 g4) +- a (g1 + a^2 g3)
//   A^T, 2 of 4: 4           m0 + (m1 + m2) / 2, m3 + (m1 - m2) / 2      (row 0 of B^T has the sign that makes N_0 = 1)
//   A^T, 4 of 6: 12          1/N = -2/3 and 1/6;  2 of 6: 8, the first two rows
// A tile of F(4x4, 3x3) has (4 + 6) * 12 multiply-adds in its input transform, 60 stores and 60 loads, since two of six
// columns are shared with the next tile; (6 + 4) * 12 in its output transform, 36 loads and 16 stores.
#include "../winograd_math.h"
#include "simd.h"
#include "winograd_kernels.h"

namespace fastconv::FC_ISA {
extern const WinogradTransformTable kWinogradTransforms;
namespace {

typedef V<float> Cell;
constexpr int L = Vec<float>::lanes;
constexpr float kRoot = (float)kWinogradRoot;

// ---- one dimension --------------------------------------------------------------------------------------------

template <int N>
FC_INLINE void input_pass(const Cell* d, Cell* v) {
  if constexpr (N == 1) {
    v[0] = d[0];
  } else if constexpr (N == 4) {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  } else {
    const Cell two = splat(2.0f), half = splat(0.5f), both = splat(2.5f), p = splat(kRoot), q = splat(2 * kRoot);
    const Cell even = d[4] - two * d[2], odd = d[3] - two * d[1];
    const Cell even2 = d[4] - half * d[2], odd2 = d[3] - half * d[1];
    v[0] = (d[0] + d[4]) - both * d[2];
    v[1] = even + p * odd;
    v[2] = even - p * odd;
    v[3] = even2 + q * odd2;
    v[4] = even2 - q * odd2;
    v[5] = (d[1] + d[5]) - both * d[3];
  }
}

template <int R, int N>
FC_INLINE void filter_pass(const Cell* g, Cell* u) {
  u[0] = g[0];
  if constexpr (N > 1) u[N - 1] = g[R - 1];
  if constexpr (N == 4) {
    const Cell even = g[0] + g[2];
    u[1] = even + g[1];
    u[2] = even - g[1];
  } else if constexpr (N == 6) {
    const Cell two = splat(2.0f), half = splat(0.5f), p = splat(kRoot), q = splat(2 * kRoot);
    Cell even = g[0] + half * g[2], even2 = g[0] + two * g[2], odd = g[1], odd2 = g[1];
    if constexpr (R == 5) {
      even += splat(0.25f) * g[4], even2 += splat(4.0f) * g[4];
      odd += half * g[3], odd2 += two * g[3];
    }
    u[1] = even + p * odd;
    u[2] = even - p * odd;
    u[3] = even2 + q * odd2;
    u[4] = even2 - q * odd2;
  }
}

template <int M, int N>
FC_INLINE void output_pass(const Cell* m, Cell* y) {
  if constexpr (N == 1) {
    y[0] = m[0];
  } else if constexpr (N == 4) {
    const Cell half = splat(0.5f);
    y[0] = m[0] + half * (m[1] + m[2]);
    y[1] = m[3] + half * (m[1] - m[2]);
  } else {
    const Cell sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    const Cell two = splat(2.0f), third = splat(1 / 3.0f), root = splat(kRoot / 3);
    y[0] = m[0] + (splat(1 / 6.0f) * sum2 - splat(2 / 3.0f) * sum);
    y[1] = root * (difference2 - two * difference);
    if constexpr (M == 2) {
      y[1] += m[5];
    } else {
      y[2] = third * (sum2 - sum);
      y[3] = m[5] + root * (two * difference2 - difference);
    }
  }
}

// ---- two dimensions -------------------------------------------------------------------------------------------

constexpr int kTilesAtOnce = 8;  // columns that two tiles share are computed once, but for those between batches

template <int M0, int M1, int R0, int R1>
void input(int64_t tiles, const float* const* rows, float* v, int64_t point_pitch) {
  constexpr int n0 = M0 + R0 - 1, n1 = M1 + R1 - 1;
  Cell columns[n0][kTilesAtOnce * M1 + R1 - 1];
  for (int64_t first = 0; first < tiles; first += kTilesAtOnce) {
    const int64_t count = tiles - first < kTilesAtOnce ? tiles - first : kTilesAtOnce;
    const int64_t offset = first * M1 * L;
    for (int64_t x = 0; x < count * M1 + R1 - 1; ++x) {
      Cell d[n0], down[n0];
#pragma GCC unroll 8
      for (int i = 0; i < n0; ++i) d[i] = load(rows[i] + offset + x * L);
      input_pass<n0>(d, down);
#pragma GCC unroll 8
      for (int i = 0; i < n0; ++i) columns[i][x] = down[i];
    }
    for (int64_t t = 0; t < count; ++t) {
      float* at = v + (first + t) * L;
#pragma GCC unroll 8
      for (int i = 0; i < n0; ++i) {
        Cell across[n1];
        input_pass<n1>(columns[i] + t * M1, across);
#pragma GCC unroll 8
        for (int j = 0; j < n1; ++j) store(at + (i * n1 + j) * point_pitch, across[j]);
      }
    }
  }
}

template <int M0, int M1, int R0, int R1>
void filter(int64_t channels, const float* g, int64_t channel_pitch, bool flipped, float* u, int64_t point_pitch,
            int64_t u_pitch) {
  constexpr int n0 = M0 + R0 - 1, n1 = M1 + R1 - 1;
  const int64_t step = flipped ? -L : L;
  if (flipped) g += (R0 * R1 - 1) * L;
  for (int64_t c = 0; c < channels; ++c, g += channel_pitch, u += u_pitch) {
    Cell down[R1][n0];
#pragma GCC unroll 8
    for (int s = 0; s < R1; ++s) {
      Cell column[R0];
#pragma GCC unroll 8
      for (int t = 0; t < R0; ++t) column[t] = load(g + (t * R1 + s) * step);
      filter_pass<R0, n0>(column, down[s]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n0; ++i) {
      Cell row[R1], across[n1];
#pragma GCC unroll 8
      for (int s = 0; s < R1; ++s) row[s] = down[s][i];
      filter_pass<R1, n1>(row, across);
#pragma GCC unroll 8
      for (int j = 0; j < n1; ++j) store(u + (i * n1 + j) * point_pitch, across[j]);
    }
  }
}

template <int M0, int M1, int R0, int R1>
void output(int64_t tiles, const float* products, int64_t point_pitch, float* y, int64_t row_pitch) {
  constexpr int n0 = M0 + R0 - 1, n1 = M1 + R1 - 1;
  for (int64_t t = 0; t < tiles; ++t, products += L, y += M1 * L) {
    Cell down[n1][M0];
#pragma GCC unroll 8
    for (int j = 0; j < n1; ++j) {
      Cell column[n0];
#pragma GCC unroll 8
      for (int i = 0; i < n0; ++i) column[i] = load(products + (i * n1 + j) * point_pitch);
      output_pass<M0, n0>(column, down[j]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < M0; ++i) {
      Cell row[n1], across[M1];
#pragma GCC unroll 8
      for (int j = 0; j < n1; ++j) row[j] = down[j][i];
      output_pass<M1, n1>(row, across);
#pragma GCC unroll 8
      for (int j = 0; j < M1; ++j) store(y + i * row_pitch + j * L, across[j]);
    }
  }
}

template <int M0, int M1, int R0, int R1>
constexpr WinogradTransforms kTransforms = {{M0, M1},
                                            {R0, R1},
                                            {M0 + R0 - 1, M1 + R1 - 1},
                                            input<M0, M1, R0, R1>,
                                            filter<M0, M1, R0, R1>,
                                            output<M0, M1, R0, R1>};

}  // namespace

const WinogradTransformTable kWinogradTransforms = {kTransforms<2, 2, 3, 3>, kTransforms<4, 4, 3, 3>,
                                                    kTransforms<2, 2, 5, 5>, kTransforms<1, 4, 1, 3>,
                                                    kTransforms<4, 1, 3, 1>};

}  // namespace fastconv::FC_ISA
