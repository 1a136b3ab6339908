// SPDX-License-Identifier: Apache-2.0
// How implicit_gemm.cc cuts a problem, where it reads and where it writes; from the problem and the machine alone.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../algorithm.h"
#include "../halo.h"
#include "../kernels/implicit_kernels.h"
#include "../rounding.h"
#include "column_gemm_blocking.h"

namespace fastconv {

template <class T>
const ImplicitKernelsOf<T>& implicit_kernels(const Machine& m) {
  if constexpr (std::is_same_v<T, float>)
    return m.kernels->implicit->f32;
  else
    return m.kernels->implicit->f64;
}

// Where a tile finds the pixels that it reads.
enum class Reading {
  kHalo,    // in a copy of the strip's rows, padding included and channels first
  kPlanes,  // where they lie, channels first: no tap meets padding
  kPixels,  // where they lie, channels last: a tap has a list of pixels of its own, padding is a pixel like any other
};

// Where its sums go.
enum class Writing {
  kPixels,  // where they belong, channels last
  kRows,    // to sums[pixel][row], turned to rows of the written tensor: channels first, the pixels of one image
  kMoved,   // to sums[pixel][row], turned to rows of a strip that are moved to their pixels
};

template <class T>
struct ImplicitBlocking {
  static constexpr int64_t kLeastStrip = 48;     // pixels; otherwise what a strip reads takes half of L2
  static constexpr int64_t kImageAlone = 96;     // pixels from which an image's strips do not join the next one's
  static constexpr int64_t kEnoughChannels = 6;  // of a block of depth, for a list of pixels per tap

  const ImplicitKernelsOf<T>& tiles;
  bool forward;
  Reading reading;
  Writing writing;
  int64_t groups, rows, channels;  // per group: written, read
  int64_t all_taps, largest_taps;  // of the filter; of a phase
  int64_t vectors, row_blocks, row_shares;
  int64_t channel_block, tap_block;  // of depth, at most
  int64_t strip;                     // pixels
  int64_t halo_elements = 0;
  bool packs_blocks;  // weights that come unpacked are packed where they are used, for they are used once

  ImplicitBlocking(const ConvProblem& p, const Machine& m) : tiles(implicit_kernels<T>(m)) {
    forward = p.pass == Pass::kForward;
    groups = p.groups;
    rows = (forward ? p.k : p.c) / groups;
    channels = (forward ? p.c : p.k) / groups;
    all_taps = taps(p);
    vectors = ceil_div(rows, int64_t{tiles.lanes});
    row_blocks = ceil_div(vectors, int64_t{tiles.vectors});
    largest_taps = 1;
    int64_t pixels = 1, phases = 1;
    bool inside = true;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      largest_taps = std::max(largest_taps, grid.taps());
      pixels = std::max(pixels, grid.columns());
      for (const ColumnAxis& a : grid.axis) inside = inside && stays_inside(a);
    });
    for (int a = 0; a < kMaxSpatial; ++a) phases *= forward ? 1 : phase_count(p, a);
    block_depth();

    const bool reads_last = (forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
    const bool writes_last = (forward ? p.y_layout : p.x_layout) == Layout::kChannelsLast;
    const bool many = channel_block >= kEnoughChannels || largest_taps == 1;
    const int64_t row = forward ? p.size[2] : output_size(p, 2), plane = forward ? x_plane(p) : y_plane(p);
    const bool halves = is_half(p.dtype);  // they are not read or written in place
    reading = reads_last && many                                           ? Reading::kPixels
              : !reads_last && !halves && inside && lies_close(plane, row) ? Reading::kPlanes
                                                                           : Reading::kHalo;
    writing = writes_last                                                     ? Writing::kPixels
              : phases == 1 && !halves && (p.n == 1 || pixels >= kImageAlone) ? Writing::kRows
                                                                              : Writing::kMoved;
    const int64_t all_pixels = std::max<int64_t>(1, joins_images() ? p.n * pixels : pixels);
    strip = std::min(kMostColumns, all_pixels);
    const int64_t elements = m.l2_bytes / 2 / static_cast<int64_t>(sizeof(T));
    while (strip > kLeastStrip && strip_elements(p) > elements)
      strip = std::max(kLeastStrip, ceil_div(strip, int64_t{2}));
    // Equal shares, in whole tiles.
    const int64_t shares = ceil_div(all_pixels, strip);
    strip = std::min(strip, ceil_div(ceil_div(all_pixels, shares), int64_t{tiles.pixels}) * tiles.pixels);
    if (reading == Reading::kHalo) halo_elements = strip_elements(p);
    const int64_t strips = shares * (joins_images() ? 1 : p.n), items = phases * groups * strips;
    row_shares = std::clamp(ceil_div(kItems, std::max<int64_t>(1, items)), int64_t{1}, row_blocks);
    packs_blocks = strips <= 1;
  }

  // Whether strips run from one image into the next.
  bool joins_images() const { return writing != Writing::kRows; }
  // In elements from the group's first row; the last block may end beyond the last row.
  int64_t block_begin(int64_t block) const { return block * vectors / row_blocks * tiles.lanes; }
  int64_t width() const { return int64_t{tiles.vectors} * tiles.lanes; }
  int64_t group_elements() const { return vectors * tiles.lanes * channels * all_taps; }
  int64_t packed_elements() const { return groups * group_elements(); }
  // Of the largest block of depth and all its taps.
  int64_t block_elements() const { return channel_block * largest_taps * width(); }

 private:
  static bool stays_inside(const ColumnAxis& a) {
    const int64_t end = a.offset + (a.columns - 1) * a.step, reach = reach_of(a);
    return std::min(a.offset, a.offset + reach) >= 0 && std::max(end, end + reach) < a.size;
  }

  // A block of weights takes 32 KiB of L1 (48 KiB); 16 KiB were 3 to 6 % slower. Of one tap, where every step reads
  // another line, 24 KiB: 32 were 9 % slower there. All taps of few channels rather than few taps of many: a line read
  // for one tap is there for the others.
  void block_depth() {
    const int64_t row_bytes = tiles.vectors * tiles.lanes * static_cast<int64_t>(sizeof(T));
    const int64_t steps = row_bytes < 256 ? 256 : largest_taps > 1 ? 128 : 96;
    const auto equal = [](int64_t total, int64_t most) {
      return ceil_div(total, ceil_div(total, std::clamp(most, int64_t{1}, total)));
    };
    channel_block = equal(channels, steps / largest_taps);
    tap_block = equal(largest_taps, steps / channel_block);
  }

  // Whether a block of depth, read where it lies, stays within few pages: the first level of translation has 64.
  bool lies_close(int64_t plane, int64_t row) const {
    const int64_t size = static_cast<int64_t>(sizeof(T)), apart = std::min<int64_t>(plane * size, 4096);
    const int64_t window = largest_taps > 1 ? ceil_div(largest_taps * row * size, int64_t{4096}) : 1;
    return channel_block * window * apart <= 24 * 4096;
  }

  // What a strip reads, about.
  int64_t strip_elements(const ConvProblem& p) const {
    if (reading != Reading::kHalo) {
      const int64_t step = forward ? std::min<int64_t>(p.stride[2], 4) : 1;
      return channels * strip * (reading == Reading::kPlanes ? step : 1);
    }
    int64_t most = 0;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      if (grid.taps() > 0) most = std::max(most, HaloGather<T>::scratch(grid, strip, channels, 64));
    });
    return most;
  }
};

// implicit_gemm_estimate.cc
void implicit_gemm_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);

}  // namespace fastconv
