// SPDX-License-Identifier: Apache-2.0
// depthwise, backward-filter: what its kernels share. A block has one channel of y (channels last: a few) and every
// parts-th tile of all images; a tile of channels first has that channel's planes of several images. It adds products
// in registers over all its tiles and leaves one sum for each weight in the workspace (partial_sums.cuh).
#pragma once

#include "depthwise.cuh"
#include "partial_sums.cuh"

namespace fastconv::cuda {

constexpr int kFilterArena = 36 << 10;
constexpr int kFilterOwned = 8;  // weights of a thread of the kernel for any filter
typedef TileMemory<kFilterArena> FilterMemory;

struct FilterTiles {
  Tile tile;
  int64_t units, parts, works;  // channels or blocks of them; blocks of each; tiles of each
  int64_t chunks;               // blocks that share a unit's weights; 1 but for long filters
  Divisor by_units, by_chunks;
  int32_t owners, slices;         // threads with weights of their own; how often
  Divisor32 by_owners, by_lines;  // by_lines: rows of the filter
};

// A block's channels and first tile; later ones are `parts` apart.
struct FilterBlock {
  int64_t unit, part, chunk;
};
__device__ __forceinline__ FilterBlock filter_block(const FilterTiles& f) {
  FilterBlock b;
  b.part = f.by_units.divide(f.by_chunks.divide(blockIdx.x, &b.chunk), &b.unit);
  return b;
}

// Loads cells of x and y of tile `work`; barriers before and after.
template <class T>
__device__ __forceinline__ void load_filter_tile(const FilterTiles& f, const Conv<T>& c, const FilterBlock& b,
                                                 int64_t work, FilterMemory& s, TilePlace* place) {
  const Tile& g = f.tile;
  const int64_t group = tile_place(g, work, place);
  sync();
  for (int j = static_cast<int>(threadIdx.x); j < g.planes; j += kTileThreads) {
    const int64_t n = g.channels_last ? group : group * g.planes + j;
    const int64_t channel = g.channels_last ? b.unit * g.planes + j : b.unit;
    const bool there = n < c.p.n && channel < c.p.k;
    const int64_t read = g.by_multiplier.quotient(static_cast<int>(channel));
    s.source[j] = there ? n * c.xs.batch + read * c.xs.channel : -1;
    s.dest[j] = there ? n * c.ys.batch + channel * c.ys.channel : -1;
  }
  load_boxes(g, c, *place, s, s.template at<T>(0), s.template at<T>(g.stage_at));
}

template <class T>
void set_filter_pieces(const ConvProblem& p, const Conv<T>& c, Tile* g) {
  set_pieces(p, c, g);
  g->dest.piece = piece_of(g->dest, sizeof(T), c.y, c.ys, p.k, 0, g->axis[2].tile);
  g->dest.order = order_of(g->dest);
}

int run_depthwise_filter_planes(const ConvProblem& p, const RunContext& r, const FilterTiles& f);
int run_depthwise_filter_pixels(const ConvProblem& p, const RunContext& r, const FilterTiles& f);
int run_depthwise_filter_any(const ConvProblem& p, const RunContext& r, const FilterTiles& f);

}  // namespace fastconv::cuda
