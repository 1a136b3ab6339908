// SPDX-License-Identifier: Apache-2.0
//   for each block of rows and of columns (the items that threads share):
//     for each block of depth:
//       pack a to [piece][depth][rows <= mr] and b to [panel][depth][nr], in L2
//       for each piece, for each panel: one register tile
#include "gemm.h"

#include <algorithm>

#include "machine.h"
#include "parallel.h"
#include "rounding.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kDepthBlock = 384;
constexpr int64_t kRowBlock = 192;
constexpr int64_t kColumnBlock = 256;
constexpr int64_t kItems = 8;

// dst[depth][width] from lines first .. first + count of a matrix whose (line, depth) lies at line * pitch + depth *
// step.
template <class T>
void pack_lines(const GemmKernelsOf<T>& kernels, const T* src, int64_t line_pitch, int64_t depth_pitch, int64_t count,
                int64_t width, int64_t depth, T* dst) {
  if (depth_pitch == 1)
    kernels.transpose(count, depth, width, src, line_pitch, dst, width);
  else
    kernels.gather_row(width, 0, count, src, line_pitch, depth_pitch, dst, width, depth);
}

}  // namespace

template <class T>
bool multiply(const Machine& machine, const Parallel& parallel, const Gemm<T>& g) {
  if (g.rows == 0 || g.columns == 0) return true;
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(machine);
  const int64_t mr = kernels.mr, nr = kernels.nr;
  int64_t row_chunks = ceil_div(g.rows, kRowBlock);
  int64_t column_chunks = ceil_div(g.columns, kColumnBlock);
  if (row_chunks * column_chunks < kItems)
    column_chunks = std::clamp(ceil_div(kItems, row_chunks), column_chunks, ceil_div(g.columns, nr));
  const int64_t column_block = ceil_div(ceil_div(g.columns, column_chunks), nr) * nr;
  column_chunks = ceil_div(g.columns, column_block);
  const int64_t row_block = ceil_div(g.rows, row_chunks);
  const int64_t a_elements = row_block * kDepthBlock, b_elements = column_block * kDepthBlock;
  const Workspace workspace((a_elements + b_elements) * static_cast<int64_t>(sizeof(T)) * parallel.slots);
  if (workspace.failed()) return false;

  parallel_for(parallel, row_chunks * column_chunks, [&](int64_t item, int slot) {
    T* left = static_cast<T*>(workspace.data()) + slot * (a_elements + b_elements);
    T* right = left + a_elements;
    const int64_t row = item / column_chunks * row_block, rows = std::min(row_block, g.rows - row);
    const int64_t column = item % column_chunks * column_block, columns = std::min(column_block, g.columns - column);
    if (rows <= 0) return;
    const int64_t pieces = ceil_div(rows, mr);
    for (int64_t i = 0; g.bias && i < rows; ++i)
      std::copy_n(g.bias + column, columns, g.c + (row + i) * g.c_row + column);
    for (int64_t d = 0; d < g.depth || d == 0; d += kDepthBlock) {
      const int64_t depth = std::min(kDepthBlock, g.depth - d);
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t begin = i * rows / pieces, size = (i + 1) * rows / pieces - begin;
        pack_lines(kernels, g.a + (row + begin) * g.a_row + d * g.a_depth, g.a_row, g.a_depth, size, size, depth,
                   left + begin * depth);
      }
      for (int64_t j = 0; j < columns; j += nr)
        pack_lines(kernels, g.b + (column + j) * g.b_column + d * g.b_depth, g.b_column, g.b_depth,
                   std::min(nr, columns - j), nr, depth, right + j * depth);
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t begin = i * rows / pieces, size = (i + 1) * rows / pieces - begin;
        for (int64_t j = 0; j < columns; j += nr) {
          const TileSums<T> out{g.c + (row + begin) * g.c_row + column + j,
                                size,
                                std::min(nr, columns - j),
                                g.c_row,
                                d > 0 || g.bias,
                                left + (begin + size) * depth,
                                g.c + (row + begin) * g.c_row + column + j + nr,
                                right + j * depth};
          kernels.tile(depth, left + begin * depth, right + j * depth, &out);
        }
      }
    }
  });
  return true;
}

template bool multiply<float>(const Machine&, const Parallel&, const Gemm<float>&);
template bool multiply<double>(const Machine&, const Parallel&, const Gemm<double>&);

}  // namespace fastconv
