// SPDX-License-Identifier: Apache-2.0
// How implicit_gemm_filter.cc cuts a problem; from the problem and the register tile alone.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../halo.h"
#include "../kernels/implicit_gradient_kernels.h"
#include "../machine.h"
#include "../rounding.h"

namespace fastconv {

constexpr int64_t kFilterStrip = 384;       // pixels at most: the panel of a block of lanes takes 96 KiB of L2
constexpr int64_t kFilterFewChannels = 16;  // a strip of them stays near, whatever is left out between pixels
constexpr int64_t kFilterLeastStrip = 96;   // where many lanes need room
constexpr int64_t kFilterRowChunk = 96;     // rows on the way to dw: whole cache lines of it
constexpr int64_t kFilterItems = 8;         // wanted at least
constexpr int64_t kFilterPartBytes = int64_t{8} << 20;  // of all parts together
// Cycles for an element: turned to a panel, copied to the halo, of a part's sums.
constexpr double kTurned = 0.35, kCopied = 0.3, kSummed = 0.5;

template <class T>
const ImplicitGradientKernelsOf<T>& filter_tiles(const Machine& m) {
  if constexpr (std::is_same_v<T, float>)
    return m.kernels->implicit_gradient->f32;
  else
    return m.kernels->implicit_gradient->f64;
}

inline bool unpadded(const ConvProblem& p) {
  for (int a = 0; a < kMaxSpatial; ++a)
    if (p.pad_begin[a] != 0 || p.pad_end[a] != 0) return false;
  return true;
}

// The geometry and blocking of one problem; nothing here depends on the number of threads.
template <class T>
struct FilterBlocking {
  const ImplicitGradientKernelsOf<T>& tiles;
  bool swapped;                             // lanes are channels of x
  bool in_place;                            // rows are read from the tensor itself
  bool strided;                             // lanes lie apart by strides
  bool halves;                              // nothing is read or written in place
  int64_t groups, lanes, channels, filter;  // per group: channels of the lanes, of the rows; taps
  int64_t vectors, lane_blocks;
  int64_t pixels, strips;
  int64_t parts, lane_shares, channel_shares;
  int64_t channel_block;  // channels whose halo is copied at a time
  double tile_cycles, copy_cycles;

  FilterBlocking(const ConvProblem& p, const Machine& m) : tiles(filter_tiles<T>(m)) {
    groups = p.groups;
    filter = taps(p);
    pixels = p.n * y_plane(p);
    const int64_t k = p.k / groups, c = p.c / groups, stride = p.stride[0] * p.stride[1] * p.stride[2];
    halves = is_half(p.dtype);
    in_place = unpadded(p) && !halves && (p.stride[2] == 1 || c <= kFilterFewChannels);
    // What the halo holds for a pixel and channel, about.
    const double copied =
        in_place ? 0 : static_cast<double>(std::min(stride, filter)) + static_cast<double>(filter) / 8;
    const auto overhead = [&](int64_t lane_count, double copies) {
      return static_cast<double>(pixels) * (kTurned * static_cast<double>(lane_count) + kCopied * copies);
    };
    swapped = unpadded(p) && filter == 1 &&
              static_cast<double>(pixels) * tile_cost(c, k) + overhead(c, 0) <
                  static_cast<double>(pixels) * tile_cost(k, c) + overhead(k, copied * static_cast<double>(c)) +
                      kSummed * static_cast<double>(k * c);
    in_place = in_place || (swapped && !halves);
    strided = swapped && stride > 1;
    lanes = swapped ? c : k;
    channels = swapped ? k : c;
    vectors = ceil_div(lanes, int64_t{tiles.lanes});
    lane_blocks = ceil_div(vectors, int64_t{tiles.vectors});

    const auto strip_for = [&](int64_t shares) {
      const int64_t width = ceil_div(vectors, shares) * tiles.lanes * static_cast<int64_t>(sizeof(T));
      return std::clamp(m.l2_bytes / 2 / width, kFilterLeastStrip, kFilterStrip);
    };
    const int64_t weights = groups * vectors * tiles.lanes * channels * filter;
    tile_cycles = static_cast<double>(pixels * groups) * tile_cost(lanes, channels);
    double least = -1;
    const auto try_shares = [&](int64_t part_count, int64_t lane_count, int64_t channel_count) {
      const double points = static_cast<double>(pixels * groups);
      const double cycles = points * ((in_place ? 0 : copied) * kCopied * static_cast<double>(channels * lane_count) +
                                      kTurned * static_cast<double>(lanes * channel_count)) +
                            kSummed * static_cast<double>(swapped && part_count == 1 ? 0 : part_count * weights);
      // One channel cannot be shared: threads that find no item wait.
      const int64_t items = std::min(part_count * lane_count * channel_count * groups, kFilterItems);
      const double waiting =
          channels > 1 ? 0 : tile_cycles * (1.0 / static_cast<double>(items) - 1.0 / static_cast<double>(kFilterItems));
      if (least >= 0 && cycles + waiting >= least) return;
      least = cycles + waiting;
      copy_cycles = cycles;
      parts = part_count, lane_shares = lane_count, channel_shares = channel_count;
    };
    for (int64_t lane_count = 1; lane_count <= std::min(lane_blocks, kFilterItems); ++lane_count) {
      const int64_t most =
          std::max<int64_t>(1, std::min(ceil_div(pixels, strip_for(lane_count)),
                                        kFilterPartBytes / (weights * static_cast<int64_t>(sizeof(T)))));
      for (int64_t part_count = 1; part_count <= std::min(most, kFilterItems); ++part_count)
        try_shares(part_count, lane_count,
                   std::clamp(ceil_div(kFilterItems, part_count * lane_count * groups), int64_t{1}, channels));
    }
    // As equal as can be: every part has as many strips.
    strips = ceil_div(std::max<int64_t>(1, pixels), parts * strip_for(lane_shares)) * parts;

    const int64_t share = ceil_div(channels, channel_shares);
    channel_block =
        std::clamp(m.l2_bytes / 3 / std::max<int64_t>(1, halo_elements(p, 1) * static_cast<int64_t>(sizeof(T))),
                   int64_t{1}, share);
    if (in_place) channel_block = share;
    channel_block = ceil_div(share, ceil_div(share, channel_block));
  }

  // Cycles for a pixel of one group. A vector alone has a broadcast for each multiply-add.
  double tile_cost(int64_t lane_count, int64_t channel_count) const {
    const int64_t all = ceil_div(lane_count, int64_t{tiles.lanes});
    const int64_t width = ceil_div(all, ceil_div(all, int64_t{tiles.vectors}));
    return static_cast<double>(all * channel_count * filter) * (width == 1 ? 1.0 : width == 2 ? 0.65 : 0.55);
  }

  int64_t strip() const { return ceil_div(pixels, strips); }
  int64_t halo_elements(const ConvProblem& p, int64_t channel_count) const {
    return in_place || pixels == 0 ? 0 : HaloGather<T>::scratch(forward_grid(p), strip(), channel_count, 64);
  }
  // In lanes from the group's first.
  int64_t block_begin(int64_t block) const { return block * vectors / lane_blocks * tiles.lanes; }
  int64_t rows() const { return channels * filter; }
  int64_t part_elements() const { return groups * vectors * tiles.lanes * rows(); }
  // Tiles go to dw itself, or do so by way of L1.
  bool direct() const { return swapped && !halves && parts == 1 && lanes % tiles.lanes == 0; }
  bool straight() const { return strips == 1 && !direct(); }
};

}  // namespace fastconv
