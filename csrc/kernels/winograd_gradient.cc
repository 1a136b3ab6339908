// SPDX-License-Identifier: Apache-2.0
// Winograd's filter gradient: the adjoint of Y = A^T [(G g G^T) . (B^T x B)] A in g,
//   G^T [sum over tiles of (A y A^T) . (B^T x B)] G.
// The products of one point are a matrix product over tiles: lanes are channels of x, rows are channels of y.
//
//   for each point, each block of rows, each tile:     AVX-512: 6 rows x 4 vectors (16 rows are 5 + 5 + 6), 8 x 3 or
//               v[4 blocks][tile][lanes]               8 x 2; AVX2: 4 x 3. Of 6 x 4 a step has 4 loads and 6
//               +-----+-----+-----+-----+              broadcasts for 24 multiply-adds.
//   d[tile]     |     |     |     |     | x 6
//               +-----+-----+-----+-----+
//
// Operations of a one-dimensional pass (a multiply-add counts as one), p = 1/sqrt(2):
//   A, 2 of 4: 2       A, 4 of 6: 8, a pair +-a is (y0 + a^2 y2) +- a (y1 + a^2 y3)     A, 2 of 6: 4
//   G^T, 3 of 4: 6     G^T, 3 of 6: 11     G^T, 5 of 6: 17
// The 1/N belong to A^T in csrc/winograd_math.h; here G^T has them, since it is applied once, not for every tile.
#include "../winograd_math.h"
#include "simd.h"
#include "winograd_gradient_kernels.h"

namespace fastconv::FC_ISA {
extern const WinogradGradientKernels kWinogradGradientKernels;
namespace {

typedef V<float> Cell;
constexpr int L = Vec<float>::lanes;
constexpr float kRoot = (float)kWinogradRoot;

// ---- the products of one point ----------------------------------------------------------------------------------

constexpr int kBlocks = kVectorRegisters == 32 ? 4 : 3;
constexpr int most_rows(int blocks) { return kVectorRegisters == 32 ? (blocks == 4 ? 6 : 8) : 4; }

template <int ROWS, int BLOCKS>
void multiply_tile(const WinogradProducts& p, const float* __restrict v, const float* __restrict d, const float* next,
                   float* __restrict u) {
  Cell sum[ROWS][BLOCKS] = {};
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) __builtin_prefetch(u + i * p.u_row + b * L, 1);
  const float* end = v + p.tiles * L;
  for (; v < end; v += L, d += L, next += L) {
    Cell column[BLOCKS];
    __builtin_prefetch(next);
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) column[b] = load(v + b * p.v_block);
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i) {
      const Cell factor = splat(d[i]);
#pragma GCC unroll 4
      for (int b = 0; b < BLOCKS; ++b) sum[i][b] += factor * column[b];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 4
    for (int b = 0; b < BLOCKS; ++b) {
      float* to = u + i * p.u_row + b * L;
      if (p.accumulate) sum[i][b] += load(to);
      store(to, sum[i][b]);
    }
}

template <int BLOCKS>
void multiply_rows(int64_t rows, const WinogradProducts& p, const float* v, const float* d, const float* next,
                   float* u) {
#define FC_CASE(n)                                                                           \
  case n:                                                                                    \
    if constexpr (n <= most_rows(BLOCKS)) return multiply_tile<n, BLOCKS>(p, v, d, next, u); \
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
    default:
      break;
  }
#undef FC_CASE
}

// Every register tile asks for one block of what comes next while it reads its own: first those of d, then those of v.
template <int BLOCKS>
void multiply_points(const WinogradProducts& p) {
  const int64_t d_blocks = (p.rows + L - 1) / L;
  for (int64_t point = 0; point < p.points; ++point) {
    const float* v = p.v + point * p.v_point;
    const float* d = p.d + point * p.d_point;
    float* u = p.u + point * p.u_point;
    for (int64_t block = 0, call = 0; block < d_blocks; ++block, d += p.d_block, u += L * p.u_row) {
      const int64_t rows = p.rows - block * L < L ? p.rows - block * L : L;
      const int64_t parts = (rows + most_rows(BLOCKS) - 1) / most_rows(BLOCKS);
      for (int64_t part = 0; part < parts; ++part, ++call) {
        const float* next = call < d_blocks ? d + p.d_ahead + (call - block) * p.d_block
                                            : v + p.v_ahead + (call - d_blocks) % BLOCKS * p.v_block;
        const int64_t row = part * rows / parts;
        multiply_rows<BLOCKS>((part + 1) * rows / parts - row, p, v, d + row, next, u + row * p.u_row);
      }
    }
  }
}

void multiply(const WinogradProducts* p) {
  if (p->blocks == 1) return multiply_points<1>(*p);
  if (p->blocks == 2) return multiply_points<2>(*p);
  if (p->blocks == 3) return multiply_points<3>(*p);
  if constexpr (kBlocks > 3) multiply_points<4>(*p);
}

// ---- one dimension ----------------------------------------------------------------------------------------------

template <class A>
FC_INLINE void gradient_pass(const Cell* y, Cell* d) {
  constexpr int M = A::m, N = A::points;
  if constexpr (N == 9) {
    constexpr double a = kWinogradNear, b = kWinogradFar;
    const Cell even = y[0] + splat((float)(a * a)) * y[2], odd = y[1] + splat((float)(a * a)) * y[3];
    const Cell even2 = y[0] + splat((float)(b * b)) * y[2], odd2 = y[1] + splat((float)(b * b)) * y[3];
    d[0] = even + splat((float)a) * odd;
    d[1] = even - splat((float)a) * odd;
    d[2] = even2 + splat((float)b) * odd2;
    d[3] = even2 - splat((float)b) * odd2;
    d[4] = y[3];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) d[5 + i] = y[i];
    return;
  }
  d[0] = y[0];
  if constexpr (N > 1) d[N - 1] = y[M - 1];
  if constexpr (N == 4) {
    d[1] = y[0] + y[1];
    d[2] = y[0] - y[1];
  } else if constexpr (N == 6) {
    const Cell two = splat(2.0f), half = splat(0.5f), p = splat(kRoot), q = splat(2 * kRoot);
    Cell even = y[0], odd = y[1], even2 = y[0], odd2 = y[1];
    if constexpr (M > 2) even += half * y[2], even2 += two * y[2];
    if constexpr (M > 3) odd += half * y[3], odd2 += two * y[3];
    if constexpr (M > 4) even += splat(0.25f) * y[4], even2 += splat(4.0f) * y[4];
    d[1] = even + p * odd;
    d[2] = even - p * odd;
    d[3] = even2 + q * odd2;
    d[4] = even2 - q * odd2;
  }
}

template <class A>
FC_INLINE void filter_pass(const Cell* u, Cell* w) {
  constexpr int R = A::r, N = A::points;
  if constexpr (N == 1) {
    w[0] = u[0];
  } else if constexpr (N == 9) {
    constexpr double a = kWinogradNear, b = kWinogradFar, near = 1 / (2 * a * (a * a - b * b)),
                     far = 1 / (2 * b * (b * b - a * a));
    w[0] = splat((float)near) * (u[0] - u[1]) + splat((float)far) * (u[2] - u[3]);
    w[1] = u[5];
    w[2] = u[4] + (splat((float)(near * a)) * (u[0] + u[1]) + splat((float)(far * b)) * (u[2] + u[3]));
  } else if constexpr (N == 4) {
    const Cell half = splat(0.5f), sum = half * (u[1] + u[2]);
    w[0] = u[0] + sum;
    w[1] = half * (u[1] - u[2]);
    w[2] = u[3] + sum;
  } else {
    const Cell sum = u[1] + u[2], difference = u[1] - u[2], sum2 = u[3] + u[4], difference2 = u[3] - u[4];
    const Cell two = splat(2.0f), third = splat(1 / 3.0f), root = splat(kRoot / 3);
    w[0] = u[0] + (splat(1 / 6.0f) * sum2 - splat(2 / 3.0f) * sum);
    w[1] = root * (difference2 - two * difference);
    if constexpr (R > 2) w[2] = third * (sum2 - sum);
    if constexpr (R > 3) w[3] = root * (two * difference2 - difference);
    if constexpr (R > 4) w[4] = splat(2 / 3.0f) * sum2 - splat(1 / 6.0f) * sum;
    w[R - 1] += u[5];
  }
}

// ---- two dimensions ---------------------------------------------------------------------------------------------

template <class A0, class A1>
void gradient(int64_t tiles, int64_t phases, const float* y, int64_t row_pitch, float* d, int64_t point_pitch) {
  constexpr int M0 = A0::m, M1 = A1::m, n0 = A0::points, n1 = A1::points;
  const int64_t next = phases == 1 ? M1 : 1;
  for (int64_t t = 0; t < tiles; ++t, y += next * L, d += L) {
    Cell down[M1][n0];
#pragma GCC unroll 8
    for (int j = 0; j < M1; ++j) {
      Cell column[M0];
#pragma GCC unroll 8
      for (int i = 0; i < M0; ++i) column[i] = load(y + i * row_pitch + j * phases * L);
      gradient_pass<A0>(column, down[j]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < n0; ++i) {
      Cell row[M1], across[n1];
#pragma GCC unroll 8
      for (int j = 0; j < M1; ++j) row[j] = down[j][i];
      gradient_pass<A1>(row, across);
#pragma GCC unroll 8
      for (int j = 0; j < n1; ++j) store(d + (i * n1 + j) * point_pitch, across[j]);
    }
  }
}

template <class A0, class A1>
void filter(int64_t rows, int64_t channels, const float* u, int64_t point_pitch, int64_t u_pitch, float* w,
            int64_t w_row, int64_t w_channel) {
  constexpr int R0 = A0::r, R1 = A1::r, n0 = A0::filters, n1 = A1::filters, taps = R0 * R1;
  for (; rows > 0; --rows, u += u_pitch, w += w_row) {
    if (w_channel == taps)
      for (int i = 0; i < taps * L; i += 16) __builtin_prefetch(w + w_row + i, 1);
    Cell down[n1][R0];
#pragma GCC unroll 8
    for (int j = 0; j < n1; ++j) {
      Cell column[n0];
#pragma GCC unroll 8
      for (int i = 0; i < n0; ++i) column[i] = load(u + (i * n1 + j) * point_pitch);
      filter_pass<A0>(column, down[j]);
    }
    Cell all[(taps + L - 1) / L * L] = {};
#pragma GCC unroll 8
    for (int i = 0; i < R0; ++i) {
      Cell row[n1];
#pragma GCC unroll 8
      for (int j = 0; j < n1; ++j) row[j] = down[j][i];
      filter_pass<A1>(row, all + i * R1);
    }
#pragma GCC unroll 8
    for (int first = 0; first < taps; first += L) {
      transpose_square<float>(all + first);
#pragma GCC unroll 16
      for (int lane = 0; lane < L; ++lane)
        if (lane < channels) store_first(w + lane * w_channel + first, all[first + lane], taps - first);
    }
  }
}

template <class A0, class A1>
constexpr WinogradAdjoints kAdjoints = {gradient<A0, A1>, filter<A0, A1>};

}  // namespace

const WinogradGradientKernels kWinogradGradientKernels = {kBlocks,
                                                          multiply,
                                                          kAdjoints<Plain<2, 3>, Plain<2, 3>>,
                                                          kAdjoints<Plain<4, 3>, Plain<4, 3>>,
                                                          kAdjoints<Plain<3, 4>, Plain<3, 4>>,
                                                          kAdjoints<Plain<5, 2>, Plain<5, 2>>,
                                                          kAdjoints<Plain<2, 5>, Plain<2, 5>>,
                                                          kAdjoints<Plain<1, 1>, Plain<4, 3>>,
                                                          kAdjoints<Plain<4, 3>, Plain<1, 1>>,
                                                          kAdjoints<Down, Down>};

}  // namespace fastconv::FC_ISA
