// SPDX-License-Identifier: Apache-2.0
// Matrix products on Intel's tile registers (AMX): 16 x 32 bfloat16 times 32 x 16 bfloat16, added in float32. Wider
// numbers come as a sum of parts: float32 is exactly three bfloat16, float16 two (implicit_gemm_amx.cc says which
// products of parts are made).
#pragma once

#include <cstdint>

namespace fastconv {

inline constexpr int64_t kTileRows = 16, kTileColumns = 16;  // of a tile of sums
inline constexpr int64_t kTileDepth = 32;                    // products that one instruction adds to a sum
inline constexpr int64_t kTileBytes = 1024;

enum class AmxStored : int32_t { kFloat32, kFloat16, kBFloat16 };  // what numbers are stored in

// c[row][column] = sum over steps of (tile of a) (tile of b), whose pieces may lie anywhere. All distances are bytes.
struct AmxProduct {
  // 16 rows of 32 numbers, a_pitch apart: at a + a_steps[step], the next tile of rows a_tile further.
  const char* a;
  int64_t a_pitch, a_tile, a_part;
  const int64_t* a_steps;
  // 16 pairs of numbers that follow each other in depth, b_pitch apart, each for 16 columns: at b + b_steps[step] +
  // b_tiles[tile].
  const char* b;
  int64_t b_pitch, b_part;
  const int64_t *b_steps, *b_tiles;
  int64_t steps, column_tiles;
  int parts, products;  // of each number, of each product: 3 and 6, 2 and 4, 2 and 3, 1 and 1
  int row_tiles;        // 1 or 2
  // Tile t of columns begins at element 16 t of a row; rows are c_pitch elements apart.
  float* c;
  int64_t c_pitch;
  bool accumulate;
};

struct AmxKernels {
  void (*product)(const AmxProduct* product);
  // Rows as so many bfloat16 each, the parts dst_part bytes apart: dst[row][i] is element first_cell + i * step of the
  // row for first <= i < last, else 0; i < count. Elements of `stored`, rows src_pitch of them apart, dst_pitch bytes
  // there.
  void (*split_rows)(int parts, AmxStored stored, int64_t rows, int64_t count, int64_t first, int64_t last,
                     const void* src, int64_t first_cell, int64_t step, int64_t src_pitch, char* dst, int64_t dst_pitch,
                     int64_t dst_part);
  // The same of rows two at a time: dst[pair][i] are elements first_cell + i * step of rows 2 pair and 2 pair + 1 for
  // first <= i < last, else 0, as are rows that are not there; i < count. Elements of `stored`, rows src_pitch of them
  // apart; pairs dst_pitch bytes apart.
  void (*split_pairs)(int parts, AmxStored stored, int64_t rows, int64_t pairs, int64_t count, int64_t first,
                      int64_t last, const void* src, int64_t first_cell, int64_t step, int64_t src_pitch, char* dst,
                      int64_t dst_pitch, int64_t dst_part);
  // A tile of 16 rows of 32 bfloat16, src_pitch bytes apart, as pairs: dst[i / 2][row][i % 2], dst_pitch bytes apart.
  void (*turn)(const char* src, int64_t src_pitch, char* dst, int64_t dst_pitch);
  // Pixels of bfloat16 channels, the other way round: dst[channel][i] is channel `channel` of pixel i for first <= i <
  // last, else 0, as are channels that are not there, of 32; i < count. `src` is pixel 0, the others src_pitch bytes
  // apart; channels dst_pitch bytes apart, or with `pairs` dst[channel / 2][i][channel % 2], pairs of them that far
  // apart.
  void (*turn_pixels)(bool pairs, int64_t count, int64_t first, int64_t last, int64_t channels, const char* src,
                      int64_t src_pitch, char* dst, int64_t dst_pitch);
};

namespace amx {
extern const AmxKernels kAmxKernels;
}

}  // namespace fastconv
