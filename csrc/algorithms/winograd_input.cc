// SPDX-License-Identifier: Apache-2.0
// The cells that a segment reads are brought once into cells[row][column][lane], padding included: a transposition of
// channels-first rows, a copy of channels-last pixels, of all phases of the columns together. They stay in L1 for the
// transforms of all tile rows of the segment, which have r0 - 1 rows in common.
#include "../halo.h"
#include "winograd.h"

namespace fastconv {

WinogradGeometry::WinogradGeometry(const WinogradForm& form, const ConvProblem& p, const Machine& machine)
    : transforms(&(machine.kernels->winograd_transforms->*form.transforms_of(p))),
      forward(p.pass != Pass::kBackwardData),
      m{transforms->m[0], transforms->m[1]},
      r{transforms->r[0], transforms->r[1]},
      cells{transforms->cells[0], transforms->cells[1]},
      step{transforms->step[0], transforms->step[1]},
      points(transforms->n[0] * transforms->n[1]),
      filters(transforms->filters[0] * transforms->filters[1]),
      stride(form.stride),
      lanes(machine.kernels->winograd->lanes) {
  groups = p.groups;
  written = (forward ? p.k : p.c) / groups;
  read = (forward ? p.c : p.k) / groups;
  for (int a = 0; a < kMaxSpatial; ++a) {
    read_size[a] = forward ? p.size[a] : output_size(p, a);
    written_size[a] = forward ? output_size(p, a) : p.size[a];
    dilation[a] = p.dilation[a];
    pad[a] = p.pad_begin[a];
  }
  depth_taps = p.filter[0];
  depths = written_size[0];
  for (int a = 0; a < 2; ++a) phases[a] = std::min(dilation[a + 1], written_size[a + 1]);
  columns = axis_of(2, 0).tiles;
  last_phases = std::min(phases[1], written_size[2] - (columns - 1) * m[1] * dilation[2]);
  phase_groups = std::max<int64_t>(1, ceil_div(phases[1], kStripPhases));
  strip_phases = std::max<int64_t>(1, ceil_div(phases[1], phase_groups));
  const int64_t most = std::min(kMostStrip, kStripCells / std::max(step[1], m[1])) / strip_phases;
  column_groups = std::max<int64_t>(1, ceil_div(columns, std::max<int64_t>(1, most)));
  strip_columns = ceil_div(columns, column_groups);
  column_groups = strip_columns > 0 ? ceil_div(columns, strip_columns) : 0;
  row_tiles = phase_tiles(phases[1]);
  int64_t rows = 0;
  for (int64_t phase = 0; phase < phases[0]; ++phase) rows += axis_of(1, phase).tiles;
  plane_tiles = rows * row_tiles;
  tiles = p.n * depths * plane_tiles;
}

void WinogradGeometry::add_transforms(const ConvProblem& p, double read_blocks, double vectors, Estimate* e) const {
  if (tiles == 0) return;
  const bool reads_last = (forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  const bool writes_last = (forward ? p.y_layout : p.x_layout) == Layout::kChannelsLast;
  const WinogradAxis rows = axis_of(1, 0);
  const double planes = times(p.n, depths, phases[0]);
  const double lines = planes * times(rows.tiles * step[0] + 2 * (cells[0] - step[0]));
  double across = 0;  // cells of a line
  each_strip([&](const WinogradStrip& s) { across += times(read_cells(s)); });
  const double strips = times(phase_groups, column_groups);
  e->add("input tiles", 1e-9 * times(points, tiles) * read_blocks);
  e->add(reads_last ? "input pixels" : "input cells", 1e-9 * lines * across * read_blocks);
  e->add(reads_last ? "input rows of pixels" : "input rows", 10e-9 * lines * strips * read_blocks);
  const double stored = planes * times(rows.points) * vectors;
  e->add("output tiles", 1e-9 * times(points, tiles) * vectors);
  e->add(writes_last ? "output rows of pixels" : "output rows", 10e-9 * stored * strips);
  e->add(writes_last ? "output pixels" : "output cells", 1e-9 * stored * times(written_size[2]));
}

int64_t WinogradGeometry::segment_cells(int64_t block_tiles) const {
  if (tiles == 0) return 0;
  int64_t most = 0;
  each_strip([&](const WinogradStrip& s) {
    if (s.tiles == 0) return;
    const int64_t rows = std::min(axis_of(1, 0).tiles, (block_tiles + s.tiles - 2) / s.tiles + 1);
    most = std::max(most, cells_of(1, rows) * read_cells(s));
  });
  return most * lanes;
}

WinogradInput::WinogradInput(const ConvProblem& p, const RunContext& r, const WinogradGeometry& geometry)
    : g(geometry),
      kernels(gemm_kernels<float>(*r.machine)),
      padding_mode(g.forward ? p.padding_mode : PaddingMode::kZeros),
      pad_value(padding_mode == PaddingMode::kConstant ? static_cast<float>(r.pad_value) : 0.0f),
      layout{g.forward ? p.x_layout : p.y_layout, g.forward ? r.x_batch_pitch : r.y_batch_pitch,
             g.forward ? r.x_channel_pitch : r.y_channel_pitch},
      read(*r.machine, p.dtype, g.forward ? r.x : r.y) {}

int64_t WinogradInput::scratch(const WinogradGeometry& g, int64_t block_tiles) { return g.segment_cells(block_tiles); }

void WinogradInput::transform(int64_t first, int64_t tiles, int64_t group, int64_t tap, int64_t block, float* v,
                              int64_t point_pitch, float* cells) const {
  const int64_t channels = std::min(g.lanes, g.read - block * g.lanes);
  each_segment(g, first, tiles, [&](const WinogradSegment& s) {
    load_cells(s, group * g.read + block * g.lanes, channels, tap, cells);
    const int64_t pitch = g.read_cells(s.strip) * g.lanes;
    each_tile_row(s, [&](int64_t tile_row, int64_t from, int64_t count, int64_t index) {
      each_run(s.strip, from, count, [&](int64_t column, int64_t phase, int64_t done, int64_t some) {
        const float* rows[9];
        const float* at = cells + (tile_row - s.first_row()) * g.step[0] * pitch +
                          (column * g.step[1] * s.strip.phases + phase) * g.lanes;
        for (int64_t i = 0; i < g.cells[0]; ++i) rows[i] = at + i * pitch;
        g.transforms->input(some, s.strip.phases, rows, v + (index + done) * g.lanes, point_pitch);
      });
    });
  });
}

void WinogradInput::load_cells(const WinogradSegment& s, int64_t channel, int64_t channels, int64_t tap,
                               float* cells) const {
  const int64_t width = g.read_cells(s.strip), phases = s.strip.phases, apart = g.dilation[2];
  const int64_t row_count = g.cells_of(1, s.row_count()), first_row = s.first_row() * g.step[0];
  const int64_t first_cell = s.strip.column * g.step[1] * apart + s.strip.first_phase;
  const int64_t together = phases == apart ? width : phases;  // cells side by side in the tensor
  const int64_t depth = padded_source(padding_mode, g.depth_coordinate(s.depth, tap), g.read_size[0]);
  const int64_t image = s.image * layout.batch_pitch + channel * layout.channel_step();
  for (int64_t i = 0; i < row_count; ++i, cells += width * g.lanes) {
    if (first_row + i >= g.cells_for(1, s.rows.points, 1)) {
      std::fill_n(cells, width * g.lanes, 0.0f);
      continue;
    }
    const int64_t y = padded_source(padding_mode, (first_row + i) * g.dilation[1] + s.rows.base, g.read_size[1]);
    if (depth == kOutside || y == kOutside) {
      std::fill_n(cells, width * g.lanes, pad_value);
      continue;
    }
    const int64_t row = image + (depth * g.read_size[1] + y) * g.read_size[2] * layout.pixel_step();
    for (int64_t done = 0, cell = first_cell; done < width; done += together, cell += apart)
      load_line(row, cell, together, channels, cells + done * g.lanes);
  }
}

// `count` cells side by side from `cell` on, counted from the first one that the first phase reads.
void WinogradInput::load_line(int64_t row, int64_t cell, int64_t count, int64_t channels, float* cells) const {
  const int64_t lanes = g.lanes, start = cell + g.base_of(2, 0);
  // Cells beyond those that the last point reads belong to results that are dropped.
  const int64_t shown = std::clamp(g.cells_for(2, g.written_size[2], g.dilation[2]) - cell, int64_t{0}, count);
  const auto [first, last] = Inside(start, 1, shown, g.read_size[2]);
  layout.load_pixels(kernels, read, row + (start + first) * layout.pixel_step(), last - first, channels, lanes,
                     cells + first * lanes);
  load_border(row, start, first, channels, cells);
  load_border(row, start + last, shown - last, channels, cells + last * lanes);
  std::fill_n(cells + shown * lanes, (count - shown) * lanes, 0.0f);
}

// Cells of padding beside a row, from a coordinate on.
void WinogradInput::load_border(int64_t row, int64_t coordinate, int64_t count, int64_t channels, float* cells) const {
  if (!shows_cells(padding_mode)) return void(std::fill_n(cells, count * g.lanes, pad_value));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t x = padded_source(padding_mode, coordinate + i, g.read_size[2]);
    read.gather_row(kernels, g.lanes, 0, channels, row + x * layout.pixel_step(), layout.channel_step(), 0,
                    cells + i * g.lanes, 0, 1);
  }
}

}  // namespace fastconv
