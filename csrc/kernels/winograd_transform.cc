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
//   stride 2: B^T 10, G 4, A^T 13 for the F(4,2) of two taps; the third tap's cells and products go as they are
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

// F(4,2), of cells `apart` from each other.
FC_INLINE void input_pass_42(const Cell* d, int apart, Cell* v) {
  constexpr double a2 = kWinogradNear * kWinogradNear, b2 = kWinogradFar * kWinogradFar;
  const Cell near = splat((float)kWinogradNear), far = splat((float)kWinogradFar);
  const Cell odd = d[3 * apart] - splat((float)b2) * d[apart], even = d[2 * apart] - splat((float)b2) * d[0];
  const Cell odd2 = d[3 * apart] - splat((float)a2) * d[apart], even2 = d[2 * apart] - splat((float)a2) * d[0];
  v[0] = odd + near * even;
  v[1] = odd - near * even;
  v[2] = odd2 + far * even2;
  v[3] = odd2 - far * even2;
  v[4] = (d[4 * apart] + splat((float)(a2 * b2)) * d[0]) - splat((float)(a2 + b2)) * d[2 * apart];
}
FC_INLINE void output_pass_42(const Cell* m, Cell* y, int apart) {
  constexpr double a = kWinogradNear, b = kWinogradFar, near = 1 / (2 * a * (a * a - b * b)),
                   far = 1 / (2 * b * (b * b - a * a));
  const Cell sum = m[0] + m[1], difference = m[0] - m[1], sum2 = m[2] + m[3], difference2 = m[2] - m[3];
  y[0] = splat((float)near) * difference + splat((float)far) * difference2;
  y[apart] = splat((float)(near * a)) * sum + splat((float)(far * b)) * sum2;
  y[2 * apart] = splat((float)(near * a * a)) * difference + splat((float)(far * b * b)) * difference2;
  y[3 * apart] = m[4] + (splat((float)(near * a * a * a)) * sum + splat((float)(far * b * b * b)) * sum2);
}

template <class A>
FC_INLINE void input_pass(const Cell* d, Cell* v) {
  if constexpr (A::step == 8 || A::cells < A::points) {
    constexpr int apart = A::step / 4;
    input_pass_42(d, apart, v);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) v[5 + i] = d[i * apart + (apart - 1)];
  } else if constexpr (A::points == 1) {
    v[0] = d[0];
  } else if constexpr (A::points == 4) {
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

template <class A>
FC_INLINE void filter_pass(const Cell* g, Cell* u) {
  constexpr int R = A::r, N = A::points;
  if constexpr (N == 9) {
    const Cell near = splat((float)kWinogradNear), far = splat((float)kWinogradFar);
    u[0] = g[0] + near * g[2];
    u[1] = g[0] - near * g[2];
    u[2] = g[0] + far * g[2];
    u[3] = g[0] - far * g[2];
    u[4] = g[2];
    u[5] = g[1];
    return;
  }
  u[0] = g[0];
  if constexpr (N > 1) u[A::filters - 1] = g[R - 1];
  if constexpr (N == 4) {
    const Cell even = g[0] + g[2];
    u[1] = even + g[1];
    u[2] = even - g[1];
  } else if constexpr (N == 6) {
    const Cell two = splat(2.0f), half = splat(0.5f), p = splat(kRoot), q = splat(2 * kRoot);
    Cell even = g[0], even2 = g[0], odd = g[1], odd2 = g[1];
    if constexpr (R > 2) even += half * g[2], even2 += two * g[2];
    if constexpr (R > 3) odd += half * g[3], odd2 += two * g[3];
    if constexpr (R > 4) even += splat(0.25f) * g[4], even2 += splat(4.0f) * g[4];
    u[1] = even + p * odd;
    u[2] = even - p * odd;
    u[3] = even2 + q * odd2;
    u[4] = even2 - q * odd2;
  }
}

template <class A>
FC_INLINE void output_pass(const Cell* m, Cell* y) {
  if constexpr (A::points == 9) {
    constexpr int apart = A::m / 4;  // up: the sums of two taps follow those of one
    output_pass_42(m, y + (apart - 1), apart);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) y[i * apart] = apart == 1 ? y[i] + m[5 + i] : m[5 + i];
  } else if constexpr (A::points == 1) {
    y[0] = m[0];
  } else if constexpr (A::points == 4) {
    const Cell half = splat(0.5f);
    y[0] = m[0] + half * (m[1] + m[2]);
    y[1] = m[3] + half * (m[1] - m[2]);
  } else {
    const Cell sum = m[1] + m[2], difference = m[1] - m[2], sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    const Cell two = splat(2.0f), third = splat(1 / 3.0f), root = splat(kRoot / 3);
    y[0] = m[0] + (splat(1 / 6.0f) * sum2 - splat(2 / 3.0f) * sum);
    y[1] = root * (difference2 - two * difference);
    if constexpr (A::m > 2) y[2] = third * (sum2 - sum);
    if constexpr (A::m > 3) y[3] = root * (two * difference2 - difference);
    if constexpr (A::m > 4) y[4] = splat(2 / 3.0f) * sum2 - splat(1 / 6.0f) * sum;
    y[A::m - 1] += m[5];
  }
}

// ---- two dimensions -------------------------------------------------------------------------------------------

// Tiles of a batch: columns that two of them share are computed once, but for those between batches. Tiles of several
// phases share none.
template <class A>
constexpr int kTilesAtOnce = A::step == 8 ? 4 : 8;

template <class A0, class A1>
void input(int64_t tiles, int64_t phases, const float* const* rows, float* v, int64_t point_pitch) {
  constexpr int most = kTilesAtOnce<A1>, shared = A1::cells - A1::step;
  Cell columns[A0::points][most * A1::step + shared];
  const int64_t batch = phases == 1 ? most : 1, next = phases == 1 ? A1::step : 1;
  for (int64_t first = 0; first < tiles; first += batch) {
    const int64_t count = tiles - first < batch ? tiles - first : batch;
    const int64_t offset = first * next * L;
    for (int64_t x = 0; x < count * A1::step + shared; ++x) {
      Cell d[A0::cells], down[A0::points];
#pragma GCC unroll 16
      for (int i = 0; i < A0::cells; ++i) d[i] = load(rows[i] + offset + x * phases * L);
      input_pass<A0>(d, down);
#pragma GCC unroll 16
      for (int i = 0; i < A0::points; ++i) columns[i][x] = down[i];
    }
    for (int64_t t = 0; t < count; ++t) {
      float* at = v + (first + t) * L;
#pragma GCC unroll 16
      for (int i = 0; i < A0::points; ++i) {
        Cell across[A1::points];
        input_pass<A1>(columns[i] + t * A1::step, across);
#pragma GCC unroll 16
        for (int j = 0; j < A1::points; ++j) store(at + (i * A1::points + j) * point_pitch, across[j]);
      }
    }
  }
}

template <class A0, class A1>
void filter(int64_t channels, const float* g, int64_t channel_pitch, bool flipped, float* u, int64_t point_pitch,
            int64_t u_pitch) {
  constexpr int R0 = A0::r, R1 = A1::r;
  const int64_t step = flipped ? -L : L;
  if (flipped) g += (R0 * R1 - 1) * L;
  for (int64_t c = 0; c < channels; ++c, g += channel_pitch, u += u_pitch) {
    Cell down[R1][A0::filters];
#pragma GCC unroll 8
    for (int s = 0; s < R1; ++s) {
      Cell column[R0];
#pragma GCC unroll 8
      for (int t = 0; t < R0; ++t) column[t] = load(g + (t * R1 + s) * step);
      filter_pass<A0>(column, down[s]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < A0::filters; ++i) {
      Cell row[R1], across[A1::filters];
#pragma GCC unroll 8
      for (int s = 0; s < R1; ++s) row[s] = down[s][i];
      filter_pass<A1>(row, across);
#pragma GCC unroll 8
      for (int j = 0; j < A1::filters; ++j) store(u + (i * A1::filters + j) * point_pitch, across[j]);
    }
  }
}

template <class A0, class A1>
void output(int64_t tiles, int64_t phases, const float* products, int64_t point_pitch, float* y, int64_t row_pitch) {
  const int64_t next = phases == 1 ? A1::m : 1;
  for (int64_t t = 0; t < tiles; ++t, products += L, y += next * L) {
    Cell down[A1::points][A0::m];
#pragma GCC unroll 16
    for (int j = 0; j < A1::points; ++j) {
      Cell column[A0::points];
#pragma GCC unroll 16
      for (int i = 0; i < A0::points; ++i) column[i] = load(products + (i * A1::points + j) * point_pitch);
      output_pass<A0>(column, down[j]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < A0::m; ++i) {
      Cell row[A1::points], across[A1::m];
#pragma GCC unroll 16
      for (int j = 0; j < A1::points; ++j) row[j] = down[j][i];
      output_pass<A1>(row, across);
#pragma GCC unroll 8
      for (int j = 0; j < A1::m; ++j) store(y + i * row_pitch + j * phases * L, across[j]);
    }
  }
}

template <class A0, class A1>
constexpr WinogradTransforms kTransforms = {{A0::m, A1::m},         {A0::r, A1::r},       {A0::points, A1::points},
                                            {A0::cells, A1::cells}, {A0::step, A1::step}, {A0::filters, A1::filters},
                                            input<A0, A1>,          filter<A0, A1>,       output<A0, A1>};

}  // namespace

const WinogradTransformTable kWinogradTransforms = {kTransforms<Plain<2, 3>, Plain<2, 3>>,
                                                    kTransforms<Plain<4, 3>, Plain<4, 3>>,
                                                    kTransforms<Plain<3, 4>, Plain<3, 4>>,
                                                    kTransforms<Plain<5, 2>, Plain<5, 2>>,
                                                    kTransforms<Plain<2, 5>, Plain<2, 5>>,
                                                    kTransforms<Plain<1, 1>, Plain<4, 3>>,
                                                    kTransforms<Plain<4, 3>, Plain<1, 1>>,
                                                    kTransforms<Down, Down>,
                                                    kTransforms<Up, Up>};

}  // namespace fastconv::FC_ISA
