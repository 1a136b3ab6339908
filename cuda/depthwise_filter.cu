// SPDX-License-Identifier: Apache-2.0
// depthwise, backward-filter: tiles, partial sums and which kernel takes what.
#include "depthwise_filter.cuh"

namespace fastconv::cuda {
namespace {

bool is_empty(const ConvProblem& p) { return p.n == 0 || y_plane(p) == 0; }

bool plan_filter_tiles(const ConvProblem& p, FilterTiles* f, double* bytes = nullptr) {
  TileWish wish{};
  const bool last = p.x_layout == Layout::kChannelsLast, square = is_depthwise_square(p);
  const int32_t element = narrow_int(element_size(p.dtype)), vector = element == 8 ? 2 : 4;
  wish.element = wish.sum = element, wish.no_weights = true;
  wish.arena = kFilterArena, wish.unit_w = wish.unit_h = wish.unit_planes = 1;
  if (square && last) {
    wish.unit_w = 4, wish.unit_planes = vector;
    wish.most_planes = 16 * vector;  // with 7 rows of the filter each: 112 threads
  } else if (square) {
    wish.unit_w = 4, wish.unit_h = square_rows(narrow_int(p.stride[2])), wish.most_items = kTileThreads;
    wish.lead = square_lead(element, narrow_int(p.filter[2]));
  }
  Tile& g = f->tile;
  if (!plan_tile(p, wish, &g, bytes)) return false;
  f->units = last ? divide_up(p.k, g.planes) : p.k;
  f->works = g.blocks / f->units;
  const int64_t weights = int64_t{g.taps} * (last ? g.planes : 1);
  f->chunks = square ? 1 : divide_up(weights, kFilterOwned * kTileThreads);
  f->parts = std::clamp<int64_t>(divide_up(kFilterBlocks, f->units * f->chunks), 1, f->works);
  f->owners = kTileThreads;
  if (square && last)
    f->owners = g.planes / vector * g.axis[2].taps;
  else if (weights < kTileThreads)
    f->owners = narrow_int(weights);
  f->slices = kTileThreads / f->owners;
  f->by_units = Divisor(f->units), f->by_chunks = Divisor(f->chunks), f->by_owners = Divisor32(f->owners);
  f->by_lines = Divisor32(g.axis[1].taps);
  return true;
}

}  // namespace

bool plan_depthwise_filter(const ConvProblem& p, double* bytes) {
  FilterTiles f;
  return is_empty(p) || plan_filter_tiles(p, &f, bytes);
}

int64_t depthwise_filter_workspace(const ConvProblem& p) {
  FilterTiles f;
  if (is_empty(p) || !plan_filter_tiles(p, &f)) return 0;
  return f.parts * p.k * taps(p) * computed_size(p.dtype);
}

int run_depthwise_filter(const ConvProblem& p, const RunContext& r) {
  FilterTiles f;
  f.parts = 0;
  if (!is_empty(p)) {
    plan_filter_tiles(p, &f);
    int status;
    if (!is_depthwise_square(p))
      status = run_depthwise_filter_any(p, r, f);
    else if (p.x_layout == Layout::kChannelsLast)
      status = run_depthwise_filter_pixels(p, r, f);
    else
      status = run_depthwise_filter_planes(p, r, f);
    if (status) return status;
  }
  return sum_parts(p, r, r.workspace, f.parts, p.k * taps(p));
}

}  // namespace fastconv::cuda
