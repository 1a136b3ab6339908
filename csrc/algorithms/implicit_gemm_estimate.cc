// SPDX-License-Identifier: Apache-2.0
// What implicit_gemm.cc costs, as a sum over kinds of work; csrc/estimate.h.
#include <type_traits>

#include "../machine.h"
#include "implicit_gemm_blocking.h"

namespace fastconv {
namespace {

template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const ImplicitBlocking<T> b(p, m);
  const double peak = std::is_same_v<T, double> ? m.flops_f64 : m.flops_f32;
  // A tile of fewer vectors has more loads for its multiply-adds; see implicit_tile.cc.
  int64_t row = 0;
  each_phase(p, [&](const ColumnGrid& grid, int64_t) { row = std::max(row, grid.axis[2].columns); });
  const bool sides = b.vectors == b.row_blocks && b.tiles.least_side > 0 && row >= b.tiles.least_side &&
                     b.reading != Reading::kPixels && p.stride[2] == 1;
  const auto speed = [&](double vectors) {
    const double pixels = b.tiles.pixels;
    return sides && vectors == 1 ? 0.72 : pixels * vectors / (pixels * vectors + 0.6 * (pixels + vectors));
  };
  const double vectors = times(b.vectors) / times(b.row_blocks);
  const double filled = times(b.rows) / times(b.vectors, b.tiles.lanes);
  const bool reads_last = (b.forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  e->add("start", 2e-6);
  e->add("products", 2.04 * times(multiply_adds(p)) / (peak * filled * speed(vectors) / speed(b.tiles.vectors)));
  e->add(b.forward ? "weights" : "packing", 0.2e-9 * times(b.packed_elements()));
  each_phase(p, [&](const ColumnGrid& grid, int64_t) {
    const int64_t pixels = b.joins_images() ? grid.columns() * p.n : grid.columns(),
                  images = b.joins_images() ? 1 : p.n;
    const int64_t length = std::min(b.strip, pixels), taps = grid.taps();
    const double strips = times(images, ceil_div(pixels, b.strip), b.groups), items = strips * times(b.row_shares);
    const int64_t depth_blocks = ceil_div(b.channels, b.channel_block) * ceil_div(taps, b.tap_block);
    e->add("items", items * 0.3e-6);
    e->add("pixels", items * times(length) * 1e-9);
    if (b.reading == Reading::kHalo && taps > 0) {
      const HaloCounts halo(grid, length, Strides::kKept);
      e->add("halo lines", items * times(b.channels) * halo.lines * 3e-9);
      e->add(reads_last ? "halo turned" : "halo", items * times(b.channels) * halo.elements * 0.2e-9);
    }
    if (b.reading == Reading::kPixels) e->add("lists", items * times(length, taps) * 1e-9);
    e->add("tiles", strips * times(b.row_blocks, depth_blocks, ceil_div(length, int64_t{b.tiles.pixels})) * 10e-9);
    e->add("calls", strips * times(b.row_blocks, depth_blocks) * 30e-9);
  });
  const double written = times(p.n, b.forward ? y_plane(p) : x_plane(p), b.rows, b.groups);
  const char* writing = b.writing == Writing::kPixels ? "stored in place"
                        : b.writing == Writing::kRows ? "turned"
                                                      : "moved";
  e->add(writing, written * (b.writing == Writing::kPixels ? 0.05e-9 : 0.3e-9));
}

}  // namespace

void implicit_gemm_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  p.dtype == DType::kFloat64 ? estimate_as<double>(p, m, e) : estimate_as<float>(p, m, e);
}

}  // namespace fastconv
