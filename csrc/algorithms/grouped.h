// SPDX-License-Identifier: Apache-2.0
// How grouped convolution is cut; nothing here depends on the number of threads.
#pragma once

#include "../border.h"
#include "grouped_planes.h"

namespace fastconv {

// visit(grid): the phases of backward-data, then its blocks of padding; forward has one.
template <class Visit>
void each_grouped_grid(const ConvProblem& p, const Visit& visit, double pad_value = 0) {
  if (p.pass != Pass::kBackwardData) return visit(forward_grid(p, pad_value));
  each_backward_data_grid(p, visit);
  each_border_grid(p, visit);
}

template <class T>
struct GroupedBlocking {
  static constexpr int64_t kPlaneBytes = 32 << 10;   // what a group reads: in L1
  static constexpr int64_t kBlockBytes = 128 << 10;  // of all groups that are copied together: in L2
  // Backward-filter: all of a band in L2, the few channels of a tile in L1.
  static constexpr int64_t kFilterBytes = 256 << 10, kFilterVectors = 128;
  static constexpr int64_t kItems = 8;

  bool forward;
  int64_t groups, rows, channels;  // per group: written, read
  int64_t all_taps;
  int64_t pieces;       // of the rows
  int64_t group_block;  // groups of an item
  bool together;        // their channels are copied at once: they lie side by side
  bool direct;          // tiles go straight to the tensor
  bool border = false;  // blocks of padding
  int64_t band_rows = 1, band_columns = 1;
  int64_t plane_elements = 0, points = 0, vectors = 0, steps = 0;  // of a band, at most

  GroupedBlocking(const ConvProblem& p, const Machine& m) {
    const GroupedKernelsOf<T>& kernels = grouped_kernels<T>(m);
    forward = p.pass != Pass::kBackwardData;
    groups = p.groups;
    rows = (forward ? p.k : p.c) / groups;
    channels = (forward ? p.c : p.k) / groups;
    all_taps = taps(p);
    const int64_t most_rows = p.pass == Pass::kBackwardFilter ? kernels.filter_rows : kernels.rows;
    pieces = ceil_div(rows, most_rows);
    int64_t phases = 1, slices = 1;
    each_grouped_grid(p, [&](const ColumnGrid& grid) {
      border = border || grid.adds;
      if (grid.adds) return;
      slices = std::max(slices, grid.axis[0].columns);
      band_rows = std::max(band_rows, grid.axis[1].columns);
      band_columns = std::max(band_columns, grid.axis[2].columns);
    });
    for (int a = 0; a < kMaxSpatial; ++a) phases *= forward ? 1 : phase_count(p, a);
    const Layout written = forward ? p.y_layout : p.x_layout, read = forward ? p.x_layout : p.y_layout;
    direct = written == Layout::kChannelsFirst && phases == 1 && !is_half(p.dtype);
    together = read == Layout::kChannelsLast;
    // Transpositions fill vectors of channels.
    const int64_t least_read = together ? ceil_div(int64_t{kernels.lanes}, channels) : 1;
    const int64_t least_written = written == Layout::kChannelsLast ? ceil_div(int64_t{kernels.lanes}, rows) : 1;
    group_block = std::min(groups, std::max(least_read, least_written));
    const int64_t whole_rows = band_rows, whole_columns = band_columns;
    for (;;) {
      measure(p, m);
      const int64_t bytes = plane_elements * static_cast<int64_t>(sizeof(T)),
                    items = p.n * slices * phases * ceil_div(groups, group_block) * ceil_div(whole_rows, band_rows) *
                            ceil_div(whole_columns, band_columns);
      const bool filter = p.pass == Pass::kBackwardFilter;
      const bool large =
          filter ? bytes > kFilterBytes || vectors > kFilterVectors : bytes > (together ? kBlockBytes : kPlaneBytes);
      const bool few = items < kItems;
      if (band_rows > 8 && (large || few))
        band_rows = ceil_div(band_rows, int64_t{2});
      else if (band_columns >= 256 && (large || few))
        band_columns = ceil_div(band_columns, int64_t{2});
      else if (band_rows > 1 && bytes > 4 * kBlockBytes)
        band_rows = ceil_div(band_rows, int64_t{2});
      else
        break;
    }
  }

  // Rows of a piece: as equal as can be.
  int64_t piece_begin(int64_t piece) const { return piece * rows / pieces; }

 private:
  void measure(const ConvProblem& p, const Machine& m) {
    plane_elements = points = vectors = steps = 0;
    each_grouped_grid(p, [&](const ColumnGrid& grid) {
      const GroupedBands bands(grid, band_rows, band_columns);
      points = std::max(points, bands.rows * bands.columns);
      const int64_t width = grid.taps() > 0 ? GroupedPlanes<T>(m, grid, bands).pitch : bands.columns;
      vectors = std::max(vectors, ceil_div(bands.rows * width, int64_t{grouped_kernels<T>(m).lanes}));
      if (grid.taps() == 0) return;
      steps = std::max(steps, channels * grid.taps());
      plane_elements =
          std::max(plane_elements, GroupedPlanes<T>(m, grid, bands).elements(channels * (together ? group_block : 1)));
    });
  }
};

// Cycles of two multiply-adds of whole vectors, by the table of speeds.
template <class T>
double grouped_seconds(double cycles, const ConvProblem& p, const Machine& m) {
  const double peak = p.dtype == DType::kFloat64 ? m.flops_f64 : m.flops_f32;
  return cycles * 4 * grouped_kernels<T>(m).lanes / peak;
}

void grouped_filter_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);
int64_t grouped_filter_workspace(const ConvProblem& problem, const Machine& machine, int slots);
void grouped_filter_run(const ConvProblem& problem, const RunContext& context);

}  // namespace fastconv
