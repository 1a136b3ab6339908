// SPDX-License-Identifier: Apache-2.0
// How implicit_gemm_data.cc cuts a problem; from the problem and the register tiles alone.
#pragma once

#include <algorithm>
#include <type_traits>

#include "../halo.h"
#include "../kernels/implicit_gradient_kernels.h"
#include "../machine.h"
#include "../rounding.h"

namespace fastconv {

constexpr int64_t kStrip = 512;         // grid points, about
constexpr int64_t kChannelSteps = 128;  // of a block of weights: 32 KiB of L1, lanes are channels; of dy in place, 64
constexpr int64_t kPixelSteps = 1024;   // lanes are pixels: 12 KiB
constexpr int64_t kMostUsed = 64;       // taps of the columns, lanes are pixels
constexpr int64_t kMostPhases = 8;      // of the columns, lanes are pixels
constexpr int64_t kMostTogether = 2;    // phases of the rows that are stored together
constexpr int64_t kItems = 4;           // wanted at least
constexpr Side kX[kMaxSpatial] = {Side::kAlong, Side::kAlong, Side::kAlong};

template <class T, class Table>
const auto& of_type(const Table& table) {
  if constexpr (std::is_same_v<T, float>)
    return table.f32;
  else
    return table.f64;
}

// The grid points of phase 0, of which there are most, with all cells of dy between the first and the last that the
// taps of any phase read.
inline ColumnGrid joined_grid(const ConvProblem& p) {
  ColumnGrid joined;
  for (int a = 0; a < kMaxSpatial; ++a) {
    int64_t lowest = INT64_MAX, highest = INT64_MIN, phase[kMaxSpatial] = {0, 0, 0};
    ColumnAxis& axis = joined.axis[a];
    for (phase[a] = 0; phase[a] < phase_count(p, a); ++phase[a]) {
      const ColumnAxis one = backward_data_grid(p, kX, phase).axis[a];
      if (phase[a] == 0) axis = one;
      if (one.taps == 0) continue;
      highest = std::max(highest, one.offset);
      lowest = std::min(lowest, one.offset + (one.taps - 1) * one.offset_step);
    }
    if (lowest > highest) lowest = highest = 0;
    axis.offset = highest;
    axis.offset_step = -1;
    axis.taps = highest - lowest + 1;
  }
  return joined;
}

// visit(grid, taps of the phases before it)
template <class Visit>
void each_phase(const ConvProblem& p, const Visit& visit) {
  int64_t before = 0;
  each_backward_data_grid(p, [&](const ColumnGrid& grid) {
    visit(grid, before);
    before += grid.taps();
  });
}

// visit(grid of the first phase of the columns, taps of the phases of the rows before it)
template <class Visit>
void each_row_phase(const ConvProblem& p, const Visit& visit) {
  int64_t before = 0;
  each_backward_data_grid(p, [&](const ColumnGrid& grid) {
    if (grid.axis[2].out_first != 0) return;
    visit(grid, before);
    before += grid.axis[0].taps * grid.axis[1].taps;
  });
}

// The geometry and blocking of one problem; nothing here depends on the number of threads.
template <class T>
struct DataBlocking {
  const ImplicitGradientKernelsOf<T>& tiles;
  const PhaseKernelsOf<T>& phases;
  const ColumnGrid joined;
  int64_t groups, channels, k, all_taps;  // per group: of x, of y
  int64_t phase_total[kMaxSpatial];
  int64_t rows_together;  // phases of the rows that are stored together
  bool pixel_lanes;
  bool in_place;                 // dy is read where it is: one tap, without padding
  int64_t row_taps, used_count;  // lanes are pixels: taps of all phases of the rows; of the columns
  int64_t used[kMostUsed], used_tap[kMostUsed][kMostPhases];
  int64_t lanes, units, blocks;  // units: vectors of channels, or channels; blocks of units
  int64_t width, chunks;         // grid points of a row or its segment; vectors of them
  int64_t segments, rows, strip_rows, strips, shares;
  double tile_cycles, move_cycles;  // of one image

  DataBlocking(const ConvProblem& p, const Machine& m)
      : tiles(of_type<T>(*m.kernels->implicit_gradient)), phases(tiles.phase), joined(joined_grid(p)) {
    groups = p.groups;
    channels = p.c / groups;
    k = p.k / groups;
    all_taps = taps(p);
    lanes = tiles.lanes;
    for (int a = 0; a < kMaxSpatial; ++a) phase_total[a] = phase_count(p, a);
    rows_together = phase_total[1] <= kMostTogether ? phase_total[1] : 1;
    const ColumnAxis* axis = joined.axis;
    segments = ceil_div(axis[2].columns, kStrip);
    width = ceil_div(axis[2].columns, segments);
    chunks = ceil_div(width, lanes);

    // Cycles for all taps, all channels and one k of a grid point: multiply-adds at two a cycle and what the narrower
    // tiles lose.
    use_columns(p);
    const double by_channel = channel_cost(ceil_div(channels, lanes)) * static_cast<double>(all_taps);
    const double by_pixel = static_cast<double>(row_taps * used_count * phase_total[2] * channels * chunks) /
                            static_cast<double>(width) * pixel_cost();
    pixel_lanes = used_count > 0 && by_pixel < by_channel;
    units = pixel_lanes ? channels : ceil_div(channels, lanes);
    blocks = ceil_div(units, pixel_lanes ? std::max<int64_t>(1, phases.units / phase_total[2]) : tiles.vectors);
    const double points = static_cast<double>(joined.columns() * groups);
    tile_cycles = points * static_cast<double>(k) * (pixel_lanes ? by_pixel : by_channel);

    in_place = !pixel_lanes && reads_as_is() && !is_half(p.dtype);
    rows = p.n * axis[0].columns * axis[1].columns;
    strip_rows = std::max<int64_t>(1, kStrip / width);
    while (strip_rows > 1 && halo_elements() * static_cast<int64_t>(sizeof(T)) > m.l2_bytes / 2) --strip_rows;
    // Whole tiles, where a few rows make them, and as equal as can be.
    const int64_t wanted = std::max<int64_t>(1, ceil_div(kItems, groups * segments));
    strip_rows =
        std::min(strip_rows, std::max<int64_t>(ceil_div(48, width), ceil_div(std::max<int64_t>(1, rows), wanted)));
    strip_rows = ceil_div(std::max<int64_t>(1, rows), ceil_div(std::max<int64_t>(1, rows), strip_rows));
    strips = ceil_div(rows, strip_rows) * segments;
    shares = std::clamp(ceil_div(kItems, std::max<int64_t>(1, strips * groups)), int64_t{1}, blocks);
    const double written = static_cast<double>(x_plane(p) * p.c);
    move_cycles = points * static_cast<double>(k * shares) * 0.5 + written * (pixel_lanes ? 0.3 : 0.7);
  }

  // The taps of the joined grid's columns that some phase uses, and which tap of the filter each is to each phase.
  void use_columns(const ConvProblem& p) {
    row_taps = used_count = 0;
    if (phase_total[2] > kMostPhases || p.filter[2] > kMostUsed / 2) return;
    for (int64_t j = 0; j < joined.axis[2].taps; ++j) {
      bool is_used = false;
      for (int64_t phase = 0; phase < phase_total[2]; ++phase) {
        const int64_t at[kMaxSpatial] = {0, 0, phase};
        const ColumnAxis a = backward_data_grid(p, kX, at).axis[2];
        const int64_t above = a.offset - (joined.axis[2].offset - j);  // how far below the first tap's cell
        const bool has = a.taps > 0 && above >= 0 && above % -a.offset_step == 0 && above / -a.offset_step < a.taps;
        used_tap[used_count][phase] = has ? a.first_tap + above / -a.offset_step * a.tap_step : -1;
        is_used = is_used || has;
      }
      if (is_used) used[used_count++] = j;
    }
    each_row_phase(p, [&](const ColumnGrid& grid, int64_t) { row_taps += grid.axis[0].taps * grid.axis[1].taps; });
  }

  // Few units have more loads, and those of pixels touch two lines.
  double pixel_cost() const {
    constexpr double kCost[6] = {1.6, 1.1, 0.9, 0.75, 0.7, 0.65};
    const int64_t block = std::min(channels, std::max<int64_t>(1, phases.units / phase_total[2]));
    return kCost[std::clamp<int64_t>(block * phase_total[2], 1, 6) - 1];
  }
  double channel_cost(int64_t vectors) const {
    const int64_t wide = ceil_div(vectors, ceil_div(vectors, int64_t{tiles.vectors}));
    return static_cast<double>(vectors) * (wide == 1 ? 1.0 : wide == 2 ? 0.65 : 0.55);
  }
  // In channels from the group's first; the last block may end beyond the last channel.
  int64_t block_begin(int64_t block) const { return block * units / blocks * (pixel_lanes ? 1 : lanes); }
  int64_t widest_block() const { return ceil_div(units, blocks) * (pixel_lanes ? 1 : lanes); }
  int64_t weights_of_channel() const { return k * (pixel_lanes ? row_taps * used_count * phase_total[2] : all_taps); }
  int64_t group_elements() const { return block_begin(blocks) * weights_of_channel(); }
  // Steps of a phase for one k, or of all phases of the columns.
  int64_t tap_count(const ColumnGrid& grid) const {
    return pixel_lanes ? grid.axis[0].taps * grid.axis[1].taps * used_count : grid.taps();
  }
  int64_t k_block(int64_t tap_count) const {
    return std::clamp((pixel_lanes ? kPixelSteps
                       : in_place  ? kChannelSteps / 2
                                   : kChannelSteps) /
                          tap_count,
                      int64_t{1}, k);
  }
  int64_t points() const { return strip_rows * width; }
  // From one channel of `turned` to the next: rows of whole vectors and a tile to spare, or grid points.
  int64_t pitch() const { return pixel_lanes ? (strip_rows * chunks + 8) * lanes : points(); }
  bool reads_as_is() const {
    for (const ColumnAxis& a : joined.axis)
      if (a.taps != 1 || a.offset != 0 || a.columns != a.size) return false;
    return true;
  }
  int64_t halo_elements() const { return in_place ? 0 : HaloGather<T>::scratch(joined, strip_rows * width, k, 64); }
};

// visit(tap of the filter's rows, tap of the joined grid's rows), numbered over the two outer axes.
template <class Visit>
void each_row_tap(const ConvProblem& p, const ColumnGrid& grid, const ColumnGrid& joined, const Visit& visit) {
  const ColumnAxis *a = grid.axis, *j = joined.axis;
  const auto filter_tap = [&](int axis, int64_t t) { return a[axis].first_tap + t * a[axis].tap_step; };
  const auto joined_tap = [&](int axis, int64_t t) {
    return j[axis].offset - a[axis].offset - t * a[axis].offset_step;
  };
  for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
    for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
      visit(filter_tap(0, t0) * p.filter[1] + filter_tap(1, t1), joined_tap(0, t0) * j[1].taps + joined_tap(1, t1));
}

// visit(number of the tap within the phase, tap of the filter, tap of the joined grid)
template <class Visit>
void each_tap(const ConvProblem& p, const ColumnGrid& grid, const ColumnGrid& joined, const Visit& visit) {
  const ColumnAxis &a = grid.axis[2], &j = joined.axis[2];
  int64_t number = 0;
  each_row_tap(p, grid, joined, [&](int64_t filter_row, int64_t joined_row) {
    for (int64_t t = 0; t < a.taps; ++t)
      visit(number++, filter_row * p.filter[2] + a.first_tap + t * a.tap_step,
            joined_row * j.taps + j.offset - a.offset - t * a.offset_step);
  });
}

}  // namespace fastconv
