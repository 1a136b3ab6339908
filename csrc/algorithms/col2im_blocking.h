// SPDX-License-Identifier: Apache-2.0
// How col2im.cc cuts a problem; from the problem and the register tile alone.
#pragma once

#include <algorithm>

#include "../im2col.h"
#include "../kernels/kernel_table.h"
#include "../rounding.h"

namespace fastconv {

struct Col2imBlocking {
  static constexpr int64_t kChunkRows = 192;      // products of an item: enough for each panel that it moves
  static constexpr int64_t kProducts = 64 << 10;  // of a block of lines: 256 KiB of float32, in L2
  static constexpr int64_t kDepth = 512;          // channels of y that are multiplied at once
  static constexpr int64_t kRowsTogether = 16;    // of dx that are put together

  int64_t groups, channels, depth;  // of x, of y; per group
  int64_t taps, depths;             // of a plane; planes of the filter
  int64_t chunks;                   // of channels
  int64_t planes;                   // of x in all images; each has one of products
  int64_t height, width;            // of y
  bool plain;                       // planes of products are those of y
  int64_t window;                   // lines of y that a row of dx reaches at most
  int64_t segments, segment;        // of a row of grid points
  int64_t line;                     // products of a row of y, at most
  int64_t lines;                    // rows of y that are multiplied together
  int64_t ring;                     // blocks of lines that are kept
  int64_t pitch;                    // between products of two taps
  int64_t pixels;                   // of a segment of a row of dx, at most
  int mr, nr, lanes;

  template <class T>
  Col2imBlocking(const ConvProblem& p, const GemmKernelsOf<T>& kernels)
      : mr(kernels.mr), nr(kernels.nr), lanes(kernels.lanes) {
    groups = p.groups;
    channels = p.c / groups;
    depth = p.k / groups;
    taps = p.filter[1] * p.filter[2];
    depths = p.filter[0];
    chunks = ceil_div(channels, std::clamp(kChunkRows / taps, int64_t{1}, channels));
    planes = p.n * p.size[0];
    height = output_size(p, 1);
    width = output_size(p, 2);
    plain = depths == 1 && p.stride[0] == 1 && p.pad_begin[0] == 0 && p.pad_end[0] == 0;
    window = std::min(height, reach(p, 1) + 1);
    const int64_t columns = ceil_div(p.size[2], p.stride[2]), beyond = reach(p, 2) + 1;
    const int64_t room = std::max<int64_t>(nr, kProducts / most_rows() - beyond);
    segments = most_rows() * width <= kProducts ? 1 : ceil_div(columns, room);
    segment = ceil_div(columns, segments);
    segments = ceil_div(columns, segment);
    line = segments == 1 ? width : std::min(width, segment + beyond);
    pixels = std::min(p.size[2], segment * p.stride[2]);
    lines = segments > 1 ? 1 : lines_of(plain ? planes * height : height);
    ring = ceil_div(window - 1, lines) + 1;
    // Rows of products that lie whole pages apart would fall into the same set of the first cache.
    const int64_t of_line = 64 / static_cast<int64_t>(sizeof(T));
    const int64_t cache_lines = ceil_div(ring * lines * line, of_line);
    pitch = (cache_lines | 1) * of_line;
  }

  // Grid points of y on `axis` beyond the first that a pixel of x meets.
  static int64_t reach(const ConvProblem& p, int axis) {
    return (p.filter[axis] - 1) * p.dilation[axis] / p.stride[axis];
  }

  // Where y begins and ends that row, or column, `at` of x reads.
  static int64_t first_read(const ConvProblem& p, int axis, int64_t at) {
    const int64_t to = at + p.pad_begin[axis] - (p.filter[axis] - 1) * p.dilation[axis];
    return to > 0 ? ceil_div(to, p.stride[axis]) : 0;
  }
  static int64_t end_read(const ConvProblem& p, int axis, int64_t at, int64_t size) {
    return std::min(size, (at + p.pad_begin[axis]) / p.stride[axis] + 1);
  }

  int64_t first_channel(int64_t chunk) const { return chunk * channels / chunks; }
  int64_t most_rows() const { return ceil_div(channels, chunks) * taps; }
  // Rows of a register tile: as equal as can be.
  static int64_t piece_begin(int64_t piece, int64_t pieces, int64_t rows) { return piece * rows / pieces; }

  int64_t depth_block() const { return ceil_div(depth, ceil_div(depth, kDepth)); }

 private:
  // As many as there is room for, but whole panels where that costs at most half.
  int64_t lines_of(int64_t all) const {
    const int64_t most = std::clamp(kProducts / (most_rows() * width), int64_t{1}, std::max<int64_t>(1, all));
    int64_t best = most;
    for (int64_t some = most; 2 * some > most; --some)
      if (fill(some) > fill(best)) best = some;
    return best;
  }
  double fill(int64_t some) const {
    return static_cast<double>(some * width) / static_cast<double>(ceil_div(some * width, nr) * nr);
  }
};

}  // namespace fastconv
