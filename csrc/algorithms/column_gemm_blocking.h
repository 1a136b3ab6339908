// SPDX-License-Identifier: Apache-2.0
// How column_gemm.cc cuts a forward or backward-data problem; from the problem and the register tile alone.
#pragma once

#include <algorithm>
#include <numeric>

#include "../border.h"
#include "../im2col.h"
#include "../kernels/kernel_table.h"
#include "../rounding.h"

namespace fastconv {

inline constexpr int64_t kDepthBlock = 384;          // rows of a panel: 24 KiB of float32 for AVX2, in L1
inline constexpr int64_t kWideDepthBlock = 512;      // of panels that do not fit there in any case
inline constexpr int64_t kStripElements = 28 << 10;  // panels of a strip: 112 KiB of float32, in L2 beside the weights
inline constexpr int64_t kRowElements = 48 << 10;    // packed weights that pass by a panel: 192 KiB of float32
inline constexpr int64_t kItems = 4;                 // wanted at least: each share of rows gathers its columns again

// Whether what padding shows is added to the columns of x itself, see border.h.
inline bool folds_border(const ConvProblem& p) {
  return p.pass == Pass::kBackwardData && shows_cells(p.padding_mode) && p.stride[0] == 1 && p.stride[1] == 1 &&
         p.stride[2] == 1;
}

// visit(grid, taps of the grids before it) for every phase, then for blocks of padding with grids of their own; forward
// has one.
template <class Visit>
void each_phase(const ConvProblem& p, const Visit& visit, double pad_value = 0) {
  if (p.pass == Pass::kForward) return visit(forward_grid(p, pad_value), int64_t{0});
  int64_t before = 0;
  const auto next = [&](const ColumnGrid& grid) {
    visit(grid, before);
    before += grid.taps();
  };
  each_backward_data_grid(p, next);
  if (!folds_border(p)) each_border_grid(p, next);
}

// Which of `strips` columns' strips and of `shares` of the rows an item is. A thread, which gets neighbouring items, is
// to come back to what it has read already, the columns or the weights, whichever is more.
struct StripAndShare {
  int64_t strip, share;
  StripAndShare(int64_t item, int64_t strips, int64_t shares, int64_t columns, int64_t rows)
      : strip(columns >= rows ? item / shares : item % strips),
        share(columns >= rows ? item % shares : item / strips) {}
};

struct ColumnBlocking {
  bool forward;
  int64_t groups, rows, channels;  // per group: written, read
  int64_t all_taps;
  int64_t packed_taps;    // of all phases
  int64_t largest_taps;   // of a phase
  int64_t group_block;    // groups whose columns are gathered together
  int64_t channel_block;  // channels of a depth block
  int64_t strip_columns;
  int64_t pieces, row_chunks;  // register-tile rows per group; shares of them
  bool direct;                 // tiles go straight to the output
  int64_t gather_elements;     // scratch of gathering
  // Blocks of padding: images whose columns share a strip, shares of the pieces; 0 where there are none.
  int64_t border_images = 0, border_chunks = 0;

  template <class T>
  ColumnBlocking(const ConvProblem& p, const GemmKernelsOf<T>& kernels) {
    const int mr = kernels.mr, nr = kernels.nr;
    forward = p.pass == Pass::kForward;
    groups = p.groups;
    rows = (forward ? p.k : p.c) / groups;
    channels = (forward ? p.c : p.k) / groups;
    all_taps = taps(p);
    packed_taps = 0;
    largest_taps = 1;
    int64_t grid_columns = 1, phase_total = 1;
    for (int a = 0; a < kMaxSpatial; ++a) {
      phase_total *= forward ? 1 : phase_count(p, a);
      const int64_t period = forward ? 1 : p.stride[a] / std::gcd(p.stride[a], p.dilation[a]);
      largest_taps *= ceil_div(p.filter[a], period);
      grid_columns *= forward ? output_size(p, a) : ceil_div(p.size[a], p.stride[a]);
    }
    const Layout written = forward ? p.y_layout : p.x_layout;
    // Small planes share panels across images instead, unless they fill theirs: 49 pixels of 3 x 3 filters would fill
    // 49 of 64 lanes.
    const bool fills = all_taps == 1 && grid_columns % nr <= grid_columns / nr * (kernels.widest - nr);
    direct = written == Layout::kChannelsFirst && phase_total == 1 && (p.n == 1 || grid_columns >= 8 * nr || fills) &&
             !is_half(p.dtype);
    const int64_t depth_block = nr > 2 * kernels.lanes ? kWideDepthBlock : kDepthBlock;
    channel_block = std::clamp(depth_block / largest_taps, int64_t{1}, channels);
    channel_block = ceil_div(channels, ceil_div(channels, channel_block));  // as equal as can be
    group_block =
        channel_block < channels ? 1 : std::clamp(depth_block / (channels * largest_taps), int64_t{1}, groups);
    const int64_t depth = group_block * channel_block * largest_taps;
    const int64_t all_columns = direct ? grid_columns : p.n * grid_columns;
    const int64_t width = forward ? output_size(p, 2) : ceil_div(p.size[2], p.stride[2]);
    // Strips of whole vectors begin on a line of the cache where rows do: wider panels would end that.
    const int widest = all_taps == 1 && all_columns % kernels.lanes ? kernels.widest : nr;
    strip_columns =
        strip_of(std::clamp(kStripElements / depth, int64_t{widest}, kMostColumns), all_columns, width, nr, widest);
    pieces = ceil_div(rows, mr);
    const int64_t items =
        phase_total * ceil_div(groups, group_block) * ceil_div(all_columns, strip_columns) * (direct ? p.n : 1);
    int64_t border_columns = 0;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      packed_taps += grid.taps();
      if (grid.adds) border_columns = std::max(border_columns, grid.columns());
    });
    if (border_columns > 0) {
      border_images =
          std::clamp(strip_columns / border_columns, int64_t{1}, ceil_div(std::max<int64_t>(1, p.n), kItems));
      const int64_t border_items = ceil_div(std::max<int64_t>(1, p.n), border_images) * ceil_div(groups, group_block);
      border_chunks = std::clamp(ceil_div(kItems, border_items), int64_t{1}, ceil_div(pieces, 8));
    }
    gather_elements = 0;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      const int64_t columns = grid.adds ? std::min(strip_columns, border_images * grid.columns()) : strip_columns;
      gather_elements = std::max(gather_elements, gather_scratch(grid, columns, group_block * channel_block, nr));
    });
    row_chunks = std::clamp(ceil_div(kItems, std::max<int64_t>(1, items)), int64_t{1}, ceil_div(pieces, 4));
  }

  // Columns of a strip, at most `limit`: whole rows of the grid, or an equal part of one, where they fill panels
  // exactly, because a strip that crosses rows gathers them whole; otherwise equal shares of all columns. Panels are nr
  // wide, up to `widest` where that leaves none that is not full.
  static int64_t strip_of(int64_t limit, int64_t all_columns, int64_t width, int nr, int widest) {
    if (all_columns <= limit) return std::max<int64_t>(1, all_columns);
    const int64_t full = limit / nr * nr;
    for (int64_t rows = full / width; rows > 0 && 2 * rows * width > full; --rows)
      if (rows * width % nr == 0) return rows * width;
    for (int64_t parts = ceil_div(width, full); parts < 8; ++parts)
      if (width % (parts * nr) == 0 && width / parts <= full) return width / parts;
    const int64_t share = ceil_div(all_columns, ceil_div(all_columns, limit));
    if (share % nr <= share / nr * (widest - nr)) return share;
    return std::min(ceil_div(share, nr) * nr, full);
  }

  // Rows of piece i: as equal as can be.
  int64_t piece_begin(int64_t piece) const { return piece * rows / pieces; }
  int64_t chunk_piece(int64_t chunk, int64_t chunks) const { return chunk * pieces / chunks; }
  int64_t chunk_rows(int64_t chunks) const {
    int64_t most = 0;
    for (int64_t i = 0; i < chunks; ++i)
      most = std::max(most, piece_begin(chunk_piece(i + 1, chunks)) - piece_begin(chunk_piece(i, chunks)));
    return most;
  }
  int64_t panel_elements(int nr) const {
    return group_block * channel_block * largest_taps * ceil_div(strip_columns, nr) * nr + nr;
  }
  int64_t strip_elements() const {
    return std::max(direct ? 0 : chunk_rows(row_chunks), chunk_rows(border_chunks)) * strip_columns;
  }
};

}  // namespace fastconv
