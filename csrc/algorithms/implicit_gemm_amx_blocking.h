// SPDX-License-Identifier: Apache-2.0
// How implicit_gemm_amx.cc cuts a problem; from the problem and the machine alone.
#pragma once

#include <algorithm>

#include "../algorithm.h"
#include "../halo.h"
#include "../kernels/amx_kernels.h"
#include "../rounding.h"
#include "column_gemm_blocking.h"

namespace fastconv {

inline constexpr int64_t kChannelsAtOnce = 4;  // that are split together: rows of each follow each other in memory
inline constexpr int64_t kHaloChannels = kTileDepth;  // that go through a halo buffer of float32 together
inline constexpr int64_t kMostStrip = 4096;           // pixels
inline constexpr int64_t kTilesAtOnce = 64;           // of columns, whose sums lie in L2
inline constexpr double kTileProduct = 13e-9;         // seconds of one, loads included: implicit_gemm_amx_estimate.cc
inline constexpr int64_t kBlockRows = 2 * kTileRows;

// Of how many bfloat16 each number is the sum, and how many products of parts are made of each product.
struct AmxParts {
  int count, products;
};
inline AmxParts amx_parts(DType dtype) {
  return dtype == DType::kBFloat16 ? AmxParts{1, 1} : dtype == DType::kFloat16 ? AmxParts{2, 4} : AmxParts{3, 6};
}
inline constexpr AmxParts kTwoParts = {2, 3};  // of a float32 that is cut

inline AmxStored amx_stored(DType dtype) {
  return dtype == DType::kBFloat16  ? AmxStored::kBFloat16
         : dtype == DType::kFloat16 ? AmxStored::kFloat16
                                    : AmxStored::kFloat32;
}

// The pixels of a grid cut into strips. Those of long rows do not go on from one row to the next, so that they read
// parts of rows alone.
struct AmxStrips {
  int64_t count, each, per_row = 0;

  AmxStrips(const ColumnGrid& grid, int64_t n, int64_t strip)
      : each(strip), width_(grid.axis[2].columns), all_(grid.columns() * n) {
    if (strip < width_) {
      per_row = ceil_div(width_, strip);
      each = std::min(strip, ceil_div(ceil_div(width_, per_row), kTileColumns) * kTileColumns);
    }
    count = per_row ? all_ / width_ * per_row : ceil_div(all_, each);
  }
  int64_t pixel(int64_t strip) const {
    return per_row ? strip / per_row * width_ + strip % per_row * each : strip * each;
  }
  int64_t pixels(int64_t strip) const {
    return per_row ? std::min(each, width_ - strip % per_row * each) : std::min(each, all_ - strip * each);
  }

 private:
  int64_t width_, all_;
};

// Places of a channel that HaloGather makes of such a strip, at most.
inline int64_t amx_places(const ColumnGrid& grid, int64_t strip) {
  const ColumnAxis* a = grid.axis;
  const int64_t width = std::max<int64_t>(1, a[2].columns), slice = std::max<int64_t>(1, a[1].columns) * width;
  const bool in_row = strip < width;
  const int64_t slabs = in_row ? 1 : std::min(strip, (strip + slice - 2) / slice + 1);
  const int64_t rows = in_row ? 1 : std::min(strip, (strip + width - 2) / width + 1);
  const int64_t span = std::abs(reach_of(a[1])) + 1;
  const bool shared = RowMap(a[1], std::min(rows, std::max<int64_t>(1, a[1].columns))).shared;
  const int64_t entries = shared ? rows * a[1].step + slabs * std::max<int64_t>(0, span - a[1].step) : rows * a[1].taps;
  return a[0].taps * entries * LineMap(a[2], 0, std::min(strip, width)).entries();
}

// The most pixels of a strip: a halo buffer has kMostColumns slabs (halo.h).
inline int64_t amx_most_strip(const ColumnGrid& grid) {
  const int64_t slice = std::max<int64_t>(1, grid.axis[1].columns * grid.axis[2].columns);
  return std::min(kMostStrip, (kMostColumns - 2) * std::min(slice, kMostStrip));
}

struct AmxBlocking {
  bool forward;
  AmxParts parts;
  int64_t groups, rows, channels;               // per group: written, read
  int64_t all_taps, largest_taps, packed_taps;  // of the filter; of a phase; of all phases
  int64_t row_tiles, channel_tiles;
  int64_t strip;          // pixels
  int64_t places;         // of a channel in the halo buffer, at most
  int64_t halo_elements;  // of kHaloChannels

  AmxBlocking(const ConvProblem& p, const Machine& m, AmxParts of_numbers) : parts(of_numbers) {
    forward = p.pass == Pass::kForward;
    groups = p.groups;
    rows = (forward ? p.k : p.c) / groups;
    channels = (forward ? p.c : p.k) / groups;
    all_taps = taps(p);
    row_tiles = ceil_div(rows, kTileRows), channel_tiles = ceil_div(channels, kTileDepth);
    largest_taps = 1, packed_taps = 0;
    int64_t pixels = 1, most = kMostStrip, row = 1;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      largest_taps = std::max(largest_taps, grid.taps());
      packed_taps += grid.taps();
      pixels = std::max(pixels, grid.columns());
      most = std::min(most, amx_most_strip(grid));
      row = std::max(row, grid.axis[2].columns);
    });
    const int64_t all_pixels = std::max<int64_t>(1, pixels * p.n);
    strip = std::min(most, all_pixels);
    find_places(p);
    while (strip > kTileColumns && split_bytes() > m.l2_bytes / 2) {
      strip = std::max(kTileColumns, ceil_div(strip, int64_t{2}));
      find_places(p);
    }
    // Equal shares, of whole rows if they are long.
    const int64_t whole = row > kTileColumns && row < strip / 2 ? row : kTileColumns;
    strip = std::min(strip, ceil_div(ceil_div(all_pixels, ceil_div(all_pixels, strip)), whole) * whole);
    find_places(p);
  }

  // Pairs of channels lie an odd number of cache lines apart: 16 of them, read together, are in different sets.
  int64_t pair_bytes() const { return (aligned((places + kTileColumns) * 4) / 64 | 1) * 64; }
  int64_t part_bytes() const { return channel_tiles * (kTileDepth / 2) * pair_bytes(); }
  int64_t split_bytes() const { return parts.count * part_bytes(); }
  // Weights: [group][phase][tile of rows][channel tile][tap][part][row][channel].
  int64_t step_bytes() const { return parts.count * kTileBytes; }
  int64_t row_tile_bytes(int64_t grid_taps) const { return channel_tiles * grid_taps * step_bytes(); }
  int64_t packed_bytes() const { return groups * row_tiles * row_tile_bytes(packed_taps); }

 private:
  void find_places(const ConvProblem& p) {
    places = strip;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      if (grid.taps() > 0) places = std::max(places, amx_places(grid, strip));
    });
    halo_elements = kHaloChannels * places + 2 * largest_taps;
  }
};

void amx_estimate(const ConvProblem& problem, const Machine& machine, AmxParts parts, Estimate* estimate);
// `split`: the seconds that 16 pairs take to be split.
void amx_filter_estimate(const ConvProblem& problem, AmxParts parts, double split, Estimate* estimate);

}  // namespace fastconv
