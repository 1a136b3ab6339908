// SPDX-License-Identifier: Apache-2.0
// The kernels of Winograd's filter gradient (float32): the adjoints of the transforms in winograd_kernels.h. A *cell*
// is one pixel of `lanes` channels; L stands for lanes below, *block* for L channels side by side.
#pragma once

#include <cstdint>

namespace fastconv {

// Of one F(m0 x m1, r0 x r1).
struct WinogradAdjoints {
  // A y A^T, without the 1/N of csrc/winograd_math.h, of `tiles` tiles of a row: tile t has the m0 x m1 cells
  // y[i * row_pitch + (t * m1 + j) * L], or, of several phases, y[i * row_pitch + (t + j * phases) * L]. Writes
  // d[point * point_pitch + t * L].
  void (*gradient)(int64_t tiles, int64_t phases, const float* y, int64_t row_pitch, float* d, int64_t point_pitch);
  // G^T u G, with that 1/N, of `rows` filters in L channels each, which are lanes: u[value * point_pitch + row *
  // u_pitch + lane]. Writes w[row * w_row + lane * w_channel + tap] for lane < channels and the r0 x r1 taps.
  void (*filter)(int64_t rows, int64_t channels, const float* u, int64_t point_pitch, int64_t u_pitch, float* w,
                 int64_t w_row, int64_t w_channel);
};

// u[row][block][lane] (+)= sum over tiles of d[tile][row] * v[block][tile][lane], at every one of `points` points.
struct WinogradProducts {
  int64_t points, tiles, rows;
  int blocks;  // of v
  bool accumulate;
  const float* v;  // v[point * v_point + block * v_block + tile * L + lane]
  int64_t v_point, v_block;
  const float* d;  // row i is d[point * d_point + i / L * d_block + tile * L + i % L]
  int64_t d_point, d_block;
  int64_t v_ahead, d_ahead;  // how far ahead of these lies what is read next: it is asked for
  float* u;                  // u[point * u_point + row * u_row + block * L + lane]
  int64_t u_point, u_row;
};

struct WinogradGradientKernels {  // winograd_gradient.cc
  int blocks;                     // of v in one call, at most
  void (*multiply)(const WinogradProducts* products);
  WinogradAdjoints f2x2_3x3, f4x4_3x3, f3x3_4x4, f5x5_2x2, f2x2_5x5, f1x4_1x3, f4x1_3x1, down_3x3;
};

}  // namespace fastconv
