// SPDX-License-Identifier: Apache-2.0
// What implicit_gemm_data.cc costs, as a sum over kinds of work; csrc/estimate.h.
#include <type_traits>

#include "implicit_gemm_data.h"
#include "implicit_gemm_data_blocking.h"

namespace fastconv {
namespace {

template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const DataBlocking<T> b(p, m);
  const double cycle = 4 * times(b.lanes) / (std::is_same_v<T, double> ? m.flops_f64 : m.flops_f32);
  const double items = times(b.strips, b.groups, b.shares), points = times(b.points());
  e->add("phases start", 2e-6);
  e->add(b.pixel_lanes ? "products of units" : "products of phases", times(p.n) * b.tile_cycles * cycle);
  e->add("phases packed", times(b.groups, b.group_elements()) * 1e-9);
  e->add("phases items", items * 0.5e-6);
  if (!b.in_place) {
    const HaloCounts halo(b.joined, b.points(), Strides::kTakenApart);
    const bool last = p.y_layout == Layout::kChannelsLast;
    e->add("phases halo lines", items * times(b.k) * halo.lines * 3e-9);
    e->add(last ? "phases halo turned" : "phases halo", items * times(b.k) * halo.elements * 0.2e-9);
  }
  double calls = 0;
  each_phase(p, [&](const ColumnGrid& grid, int64_t) {
    if (b.pixel_lanes ? grid.axis[2].out_first > 0 : grid.taps() == 0) return;
    calls += times(ceil_div(b.k, b.k_block(std::max<int64_t>(1, b.tap_count(grid)))));
  });
  const double tiles = b.pixel_lanes ? times(b.strip_rows, b.chunks) / 4 : points / b.tiles.rows;
  e->add(b.pixel_lanes ? "tiles of units" : "tiles of phases",
         times(b.strips, b.groups, b.blocks) * calls * tiles * 10e-9);
  const double written = times(p.n, p.c, x_plane(p));
  const bool last = p.x_layout == Layout::kChannelsLast;
  e->add(last ? "pixels of phases" : b.pixel_lanes ? "rows of units" : "rows of phases", written * 0.3e-9);
}

// Lanes are pixels: units of one phase of the columns meet the taps of all of them. Every phase has the grid points of
// the largest.
template <class T>
int64_t multiplications_as(const ConvProblem& p, const Machine& m) {
  const DataBlocking<T> b(p, m);
  const int64_t taps = b.pixel_lanes ? b.row_taps * b.used_count * b.phase_total[2] : b.all_taps;
  return p.n * b.joined.columns() * b.groups * b.channels * b.k * taps;
}

}  // namespace

void implicit_data_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  p.dtype == DType::kFloat64 ? estimate_as<double>(p, m, e) : estimate_as<float>(p, m, e);
}

int64_t implicit_data_multiplications(const ConvProblem& p, const Machine& m) {
  return p.dtype == DType::kFloat64 ? multiplications_as<double>(p, m) : multiplications_as<float>(p, m);
}

}  // namespace fastconv
