// SPDX-License-Identifier: Apache-2.0
// The matrices of Winograd's minimal filtering F(m, r) in Toom-Cook form: m outputs of a correlation with r taps from
// n = m + r - 1 products instead of m r.
//
//   y = A^T [(G g) . (B^T d)],   y[j] = sum over t of g[t] d[j + t]
//   Y = A^T [(G g G^T) . (B^T d B)] A   in two dimensions
//
// With finite points a_0 .. a_{n-2}, the point at infinity last, M(x) = prod (x - a_i) and
// N_i = prod_{k != i} (a_i - a_k):
//   A^T[j][i] = a_i^j / N_i    (the last column is the last unit vector)
//   G[i][t]   = a_i^t          (the last row is the last unit vector)
//   B^T[i]    = the coefficients of M(x) / (x - a_i), the last row those of M(x) itself
// It is usual to divide G by N_i. Here A^T is divided: a pair of points +-a then costs three operations in the filter's
// transform, and F(2,3) stays exact on integers, since A^T halves what is even.
//
// A convolution of stride 2 is a sum of two of stride 1, over the even and the odd cells: of 3 taps, the two outer ones
// meet every second cell, the middle one the others between them:
//   y[j] = (g0 d[2j] + g2 d[2j + 2]) + g1 d[2j + 1]        F(4,2) and four products, 9 for 4 outputs instead of 12
// Its transposition, backward-data, has the two sums in turn: 9 products for 8 outputs instead of 12. In two dimensions
// 81 products take the place of 144.
//
// Points: F(2,3) 0, +-1. F(4,3), and F(3,4), F(5,2) and F(2,5), which share B^T: 0, +-1/sqrt(2), +-sqrt(2), of the
// symmetric family (c, 1/c) of Alam, Anderson, Barabasz, Gregg, "Winograd convolution for deep neural networks:
// efficient point selection", TECS 2022. Their error is a quarter of that of the usual 0, +-1, +-2; docs/numerics.md
// has the figures. F(4,2): +-0.45, +-1.2, found by trying: less than half the error of 0, +-1, 2.
#pragma once

namespace fastconv {

template <int M, int R>
struct WinogradMatrices {
  static constexpr int n = M + R - 1;
  double at[M][n], g[n][R], bt[n][n];
};

template <int M, int R>
constexpr WinogradMatrices<M, R> winograd_matrices(const double (&points)[M + R - 2]) {
  constexpr int n = M + R - 1;
  WinogradMatrices<M, R> w{};
  for (int i = 0; i < n; ++i) {
    const bool infinite = i == n - 1;
    double norm = 1;
    w.bt[i][0] = 1;  // the empty product
    for (int k = 0, degree = 0; k < n - 1; ++k) {
      if (k == i) continue;
      if (!infinite) norm *= points[i] - points[k];
      for (int j = ++degree; j >= 0; --j) w.bt[i][j] = (j > 0 ? w.bt[i][j - 1] : 0) - points[k] * w.bt[i][j];
    }
    double power = 1;
    for (int j = 0; j < M || j < R; ++j) {
      if (j < M) w.at[j][i] = infinite ? j == M - 1 : power / norm;
      if (j < R) w.g[i][j] = infinite ? j == R - 1 : power;
      if (!infinite) power *= points[i];
    }
  }
  return w;
}

constexpr double kWinogradRoot = 0.70710678118654752440;    // the inner pair of points; the outer one is twice that
constexpr double kWinogradNear = 0.45, kWinogradFar = 1.2;  // those of F(4,2)
constexpr double kWinogradPoints42[] = {kWinogradNear, -kWinogradNear, kWinogradFar, -kWinogradFar};
constexpr double kWinogradPoints23[] = {0, 1, -1};
constexpr double kWinogradPoints43[] = {0, kWinogradRoot, -kWinogradRoot, 2 * kWinogradRoot, -2 * kWinogradRoot};
constexpr WinogradMatrices<2, 3> kWinograd23 = winograd_matrices<2, 3>(kWinogradPoints23);
constexpr WinogradMatrices<4, 3> kWinograd43 = winograd_matrices<4, 3>(kWinogradPoints43);
constexpr WinogradMatrices<4, 2> kWinograd42 = winograd_matrices<4, 2>(kWinogradPoints42);
constexpr WinogradMatrices<3, 4> kWinograd34 = winograd_matrices<3, 4>(kWinogradPoints43);
constexpr WinogradMatrices<5, 2> kWinograd52 = winograd_matrices<5, 2>(kWinogradPoints43);
constexpr WinogradMatrices<2, 5> kWinograd25 = winograd_matrices<2, 5>(kWinogradPoints43);

// Whether the three matrices together are the correlation: every product of a unit filter and unit data.
template <int M, int R>
constexpr bool is_correlation(const WinogradMatrices<M, R>& w) {
  for (int t = 0; t < R; ++t)
    for (int d = 0; d < w.n; ++d)
      for (int j = 0; j < M; ++j) {
        double y = 0;
        for (int i = 0; i < w.n; ++i) y += w.at[j][i] * w.g[i][t] * w.bt[i][d];
        const double error = y - (d == j + t ? 1 : 0);
        if (error > 1e-14 || error < -1e-14) return false;
      }
  return true;
}
// The axes of a form, see kernels/winograd_kernels.h. Plain: F(M, R). Down: 4 outputs of 3 taps with stride 2. Up: its
// transposition, 8 outputs.
template <int M, int R>
struct Plain {
  static constexpr int m = M, r = R, points = M + R - 1, cells = points, step = M, filters = points;
};
struct Down {
  static constexpr int m = 4, r = 3, points = 9, cells = 9, step = 8, filters = 6;
};
struct Up {
  static constexpr int m = 8, r = 3, points = 9, cells = 5, step = 4, filters = 6;
};

static_assert(is_correlation(kWinograd23) && is_correlation(kWinograd43) && is_correlation(kWinograd34) &&
              is_correlation(kWinograd52) && is_correlation(kWinograd25) && is_correlation(kWinograd42));

}  // namespace fastconv
