// SPDX-License-Identifier: Apache-2.0
// The kernels of Winograd convolution (float32): transforms whose lanes are channels, and the matrix product of one
// point. A *cell* is one pixel of `lanes` channels; L stands for lanes below.
#pragma once

#include <cstdint>

namespace fastconv {

// One F(m0 x m1, r0 x r1). Point xi = i * n1 + j of a tile's n0 x n1, i counts rows. On each axis a tile reads `cells`
// cells, those of the next one begin `step` cells on. The points from `filters` - 1 on share a filter's value: with
// stride 2 those of the middle tap.
struct WinogradTransforms {
  int m[2], r[2], n[2], cells[2], step[2], filters[2];
  // B^T d B of `tiles` tiles of a row: rows[i] points to cells of input row i of the tile row. With one phase, tile t
  // reads cells from t * step1 on; of `phases` phases, tile t is of the t-th and reads cells from t on, `phases` apart.
  // Writes v[xi * point_pitch + t * L].
  void (*input)(int64_t tiles, int64_t phases, const float* const* rows, float* v, int64_t point_pitch);
  // G g G^T of `channels` filters for L written channels: filter c has its taps at g + c * channel_pitch, [r0][r1][L],
  // from the last one to the first when `flipped`. Writes u[i * point_pitch + c * u_pitch] for the filters0 x filters1
  // values.
  void (*filter)(int64_t channels, const float* g, int64_t channel_pitch, bool flipped, float* u, int64_t point_pitch,
                 int64_t u_pitch);
  // A^T M A of `tiles` tiles of a row, from products[xi * point_pitch + t * L]; writes the cells j of output rows i <
  // m0, y[i * row_pitch + (t * m1 + j) * L], or, of several phases, y[i * row_pitch + (t + j * phases) * L].
  void (*output)(int64_t tiles, int64_t phases, const float* products, int64_t point_pitch, float* y,
                 int64_t row_pitch);
};

struct WinogradTransformTable {  // winograd_transform.cc
  WinogradTransforms f2x2_3x3, f4x4_3x3, f3x3_4x4, f5x5_2x2, f2x2_5x5, f1x4_1x3, f4x1_3x1;
  WinogradTransforms down_3x3, up_3x3;  // 3 x 3 of stride 2: 4 x 4 pixels of y, or 8 x 8 of x in backward-data
};

inline constexpr int64_t kWinogradChunk = 64;  // channels of one chain of multiply-adds

struct WinogradKernels {  // winograd_tile.cc
  int lanes;
  int vectors;       // of written channels in a register tile, at most
  int tile_rows[5];  // tiles in a register tile of so many vectors, at most
  // products[v * vector_pitch + t * L ..] (+)= sum over c < channels of input[c / L][t][c % L] * u[c][vectors][L] for
  // tiles t < rows and vectors v; blocks of L channels are block_pitch and u_block_pitch apart. The sum is one chain in
  // ascending c from zero; `accumulate` adds it to what is there. `next`: the next chunk of u,
  // kWinogradChunk channels behind, comes from beyond L1 and is asked for.
  void (*multiply)(int rows, int vectors, int64_t channels, const float* input, int64_t block_pitch, const float* u,
                   int64_t u_block_pitch, bool next, float* products, int64_t vector_pitch, bool accumulate);
  // dst[row * dst_pitch + column] = src[column * L + row] + bias[row] + residual[row * dst_pitch + column], negative
  // ones made zero by `relu`, for row < rows <= L and column < columns; bias and residual may be null. Whole
  // squares of src are read.
  void (*store_rows)(int64_t rows, int64_t columns, const float* src, float* dst, int64_t dst_pitch, const float* bias,
                     const float* residual, bool relu);
  // The same for channels last: pixels dst_pitch apart.
  void (*store_pixels)(int64_t columns, int64_t channels, const float* src, float* dst, int64_t dst_pitch,
                       const float* bias, const float* residual, bool relu);
};

}  // namespace fastconv
