// SPDX-License-Identifier: Apache-2.0
// The weights of implicit_gemm.cc in the order in which its tiles read them.
#pragma once

#include <algorithm>

#include "../parallel.h"
#include "../weight_rows.h"
#include "implicit_gemm_blocking.h"

namespace fastconv {

// dst[tap][channel][row of the block] for channels first .. first + count.
template <class T>
void implicit_pack_channels(const ConvProblem& p, const Machine& m, const ImplicitBlocking<T>& b,
                            const ColumnGrid& grid, const Stored<T>& w, int64_t group, int64_t block, int64_t first,
                            int64_t count, T* dst) {
  const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
  const int64_t rows = std::min(width, b.rows - begin);
  const int64_t of_group = group * b.rows * b.channels * b.all_taps, pitch = b.channels * b.all_taps;
  if (!b.forward)
    return pack_gradient_rows(p, gemm_kernels<T>(m), grid, w, of_group + (first * b.rows + begin) * b.all_taps, b.rows,
                              count, b.all_taps, rows, width, 1, count, dst);
  const int64_t from = of_group + (begin * b.channels + first) * b.all_taps, lanes = b.tiles.lanes;
  if (!w.is_half())
    return b.tiles.reorder(rows, count, b.all_taps, width, w.at(from), pitch, dst, width, count * width);
  // A vector of rows and a few channels at a time; of many taps, less than that.
  const int64_t most = std::max<int64_t>(1, Stored<T>::kRoom / (lanes * b.all_taps));
  const bool whole = lanes * b.all_taps <= Stored<T>::kRoom;
  for (int64_t row = 0; row < width; row += lanes)
    for (int64_t c = 0, some; c < count; c += some) {
      some = std::min(most, count - c);
      const int64_t here = std::clamp(rows - row, int64_t{0}, lanes), at = from + row * pitch + c * b.all_taps;
      T* to = dst + row + c * width;
      if (here < lanes || !whole)
        for (int64_t i = 0; i < b.all_taps * some; ++i)
          std::fill_n(to + (i / some * count + i % some) * width, lanes, T(0));
      w.each_rows(
          here, some * b.all_taps, at, pitch, [&](int64_t first, int64_t rows_here, const T* src, int64_t src_pitch) {
            if (whole)
              return b.tiles.reorder(rows_here, some, b.all_taps, lanes, src, src_pitch, to, width, count * width);
            for (int64_t i = 0; i < rows_here; ++i)
              for (int64_t tap = 0; tap < b.all_taps; ++tap)
                to[tap * count * width + first + i] = src[i * src_pitch + tap];
          });
    }
}

// dst[group][phase][block of rows][block of channels][tap][channel][row of the block]
template <class T>
void implicit_pack(const ConvProblem& p, const Machine& m, const Parallel& parallel, const Stored<T>& w, void* packed) {
  const ImplicitBlocking<T> b(p, m);
  each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
    parallel_for(parallel, b.groups * b.row_blocks, [&](int64_t item, int) {
      const int64_t group = item / b.row_blocks, block = item % b.row_blocks;
      const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
      T* dst = static_cast<T*>(packed) + group * b.group_elements() +
               (before * b.vectors * b.tiles.lanes + begin * grid.taps()) * b.channels;
      for (int64_t c = 0; c < b.channels; c += b.channel_block) {
        const int64_t count = std::min(b.channel_block, b.channels - c);
        implicit_pack_channels(p, m, b, grid, w, group, block, c, count, dst);
        dst += count * grid.taps() * width;
      }
    });
  });
}

}  // namespace fastconv
