// SPDX-License-Identifier: Apache-2.0
// What implicit_gemm_amx costs. On a shared server (Emerald Rapids) a tile load took 64 to 90 cycles instead of 8 for
// long stretches, probably while the other hardware thread of the core worked: 600 GFLOP/s instead of 2400. Products
// are priced in between, so that the choice is not far off on either.
#include "implicit_gemm_amx_blocking.h"

namespace fastconv {

void amx_estimate(const ConvProblem& p, const Machine& machine, AmxParts parts, Estimate* e) {
  const double products = parts.products;
  const double split = parts.count == 3 ? 12e-9 : parts.count == 2 ? 6e-9 : 2e-9;  // of 16 pairs
  e->add("start", 3e-6);
  if (p.pass == Pass::kBackwardFilter) return amx_filter_estimate(p, parts, split, e);
  const AmxBlocking b(p, machine, parts);
  const bool reads_last = (b.forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  const bool writes_last = (b.forward ? p.y_layout : p.x_layout) == Layout::kChannelsLast;
  const bool by_halo = (reads_last && p.dtype != DType::kBFloat16) || p.padding_mode != PaddingMode::kZeros;
  each_phase(p, [&](const ColumnGrid& grid, int64_t) {
    const AmxStrips strips(grid, p.n, b.strip);
    if (strips.count == 0 || grid.taps() == 0) return;
    const int64_t strip = strips.pixels(0), width = std::min(strip, grid.axis[2].columns);
    const bool dense = grid.reads_as_written() && !reads_last;
    const int64_t places = dense ? strip : amx_places(grid, strip);
    // Tiles of each row, or of all that lies between the first place and the last.
    const int64_t rows = ceil_div(strip, width);
    const int64_t tiles = dense ? ceil_div(strip, kTileColumns)
                                : std::min(rows * ceil_div(width, kTileColumns), ceil_div(places, kTileColumns) + 1);
    const double items = times(strips.count, b.groups), steps = times(b.channel_tiles, grid.taps());
    e->add("products", items * times(b.row_tiles, tiles) * steps * products * kTileProduct);
    e->add("tiles", items * times(b.row_tiles, tiles) * 25e-9);
    e->add(by_halo ? "input by halo" : "input",
           items * times(b.channel_tiles, kTileDepth / 2, ceil_div(places, int64_t{16})) *
               (split + (by_halo ? 12e-9 : 0)));
  });
  const double written = times(p.n, b.forward ? y_plane(p) : x_plane(p), b.rows, b.groups);
  const bool strided = !b.forward && p.stride[0] * p.stride[1] * p.stride[2] > 1;
  e->add(writes_last ? "moved to pixels"
         : strided   ? "moved apart"
                     : "moved",
         written * (writes_last ? 0.6e-9
                    : strided   ? 0.7e-9
                                : 0.15e-9));
  // The taps of a phase are gathered one by one.
  const double weights = times(b.packed_bytes()) / (2 * parts.count);
  if (!b.forward) e->add("packing", weights * (b.all_taps == 1 ? 0.25e-9 : strided ? 2.5e-9 : 0.6e-9));
}

}  // namespace fastconv
