// SPDX-License-Identifier: Apache-2.0
// The cells that a segment reads are brought once into cells[row][column][lane], padding included: a transposition of
// channels-first rows, a copy of channels-last pixels. They stay in L1 for the transforms of all tile rows of the
// segment, which have r0 - 1 rows in common.
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
      strip(std::min(kMostStrip, kStripCells / std::max(step[1], m[1]))),
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
  int64_t axis_tiles[2] = {0, 0};
  for (int a = 0; a < 2; ++a) {
    phases[a] = std::min(dilation[a + 1], written_size[a + 1]);
    for (int64_t phase = 0; phase < phases[a]; ++phase) axis_tiles[a] += axis_of(a + 1, phase).tiles;
  }
  plane_tiles = axis_tiles[0] * axis_tiles[1];
  tiles = p.n * depths * plane_tiles;
}

void WinogradGeometry::add_transforms(const ConvProblem& p, double read_blocks, double vectors, Estimate* e) const {
  if (tiles == 0) return;
  const bool reads_last = (forward ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  const bool writes_last = (forward ? p.y_layout : p.x_layout) == Layout::kChannelsLast;
  const WinogradAxis rows = axis_of(1, 0), columns = axis_of(2, 0);
  const int64_t strips = ceil_div(columns.tiles, strip), planes = p.n * depths * phases[0] * phases[1];
  const int64_t shared[2] = {this->cells[0] - step[0], this->cells[1] - step[1]};  // of neighbouring tiles
  const double lines = times(planes, strips, rows.tiles * step[0] + 2 * shared[0]);
  const double cells = lines * times(columns.tiles) / times(strips) * times(step[1]) + lines * times(shared[1]);
  e->add("input tiles", 1e-9 * times(points, tiles) * read_blocks);
  e->add(reads_last        ? "input pixels"
         : dilation[2] > 1 ? "input cells apart"
                           : "input cells",
         1e-9 * cells * read_blocks);
  e->add(reads_last ? "input rows of pixels" : "input rows", 10e-9 * lines * read_blocks);
  const double stored = times(planes, rows.points, strips) * vectors;
  e->add("output tiles", 1e-9 * times(points, tiles) * vectors);
  e->add(writes_last ? "output rows of pixels" : dilation[2] > 1 ? "output rows apart" : "output rows", 10e-9 * stored);
  e->add(writes_last ? "output pixels" : "output cells", 1e-9 * times(planes, rows.points, columns.points) * vectors);
}

int64_t WinogradGeometry::segment_cells(int64_t block_tiles) const {
  if (tiles == 0) return 0;
  const int64_t across = axis_of(2, 0).tiles, strips = ceil_div(across, strip);
  const int64_t narrow = std::max<int64_t>(1, axis_of(2, phases[1] - 1).tiles / strips);
  const int64_t rows = std::min(axis_of(1, 0).tiles, (block_tiles + narrow - 2) / narrow + 1);
  return cells_of(1, rows) * cells_of(2, std::min(across, strip)) * lanes;
}

WinogradInput::WinogradInput(const ConvProblem& p, const RunContext& r, const WinogradGeometry& geometry)
    : g(geometry),
      kernels(gemm_kernels<float>(*r.machine)),
      padding_mode(g.forward ? p.padding_mode : PaddingMode::kZeros),
      pad_value(padding_mode == PaddingMode::kConstant ? static_cast<float>(r.pad_value) : 0.0f),
      layout{g.forward ? p.x_layout : p.y_layout, g.forward ? r.x_batch_pitch : r.y_batch_pitch,
             g.forward ? r.x_channel_pitch : r.y_channel_pitch},
      read(*r.machine, p.dtype, g.forward ? r.x : r.y) {}

int64_t WinogradInput::scratch(const WinogradGeometry& g, int64_t block_tiles) {
  return g.segment_cells(block_tiles) + (g.cells_of(2, g.strip) + g.lanes) * g.lanes;
}

void WinogradInput::transform(int64_t first, int64_t tiles, int64_t group, int64_t tap, int64_t block, float* v,
                              int64_t point_pitch, float* scratch) const {
  const int64_t channels = std::min(g.lanes, g.read - block * g.lanes);
  float* row = scratch;
  float* cells = scratch + (g.cells_of(2, g.strip) + g.lanes) * g.lanes;
  each_segment(g, first, tiles, [&](const WinogradSegment& s) {
    load_cells(s, group * g.read + block * g.lanes, channels, tap, cells, row);
    const int64_t pitch = g.cells_of(2, s.width) * g.lanes;
    each_tile_row(s, [&](int64_t tile_row, int64_t column, int64_t count, int64_t index) {
      const float* rows[9];
      const float* at =
          cells + (tile_row - s.first_row()) * g.step[0] * pitch + (column - s.column) * g.step[1] * g.lanes;
      for (int64_t i = 0; i < g.cells[0]; ++i) rows[i] = at + i * pitch;
      g.transforms->input(count, rows, v + index * g.lanes, point_pitch);
    });
  });
}

void WinogradInput::load_cells(const WinogradSegment& s, int64_t channel, int64_t channels, int64_t tap, float* cells,
                               float* line) const {
  const int64_t lanes = g.lanes, width = g.cells_of(2, s.width);
  const int64_t step = g.dilation[2], size = g.read_size[2];
  const int64_t row_count = g.cells_of(1, s.rows());
  const int64_t first_row = s.first_row() * g.step[0], first_column = s.column * g.step[1];
  const int64_t start = first_column * step + s.axis[1].base;
  // Cells beyond those that the last point reads belong to results that are dropped.
  const int64_t shown = std::min(width, g.cells_for(2, s.axis[1].points) - first_column);
  const auto [first, last] = Inside(start, step, shown, size);
  const int64_t depth = padded_source(padding_mode, g.depth_coordinate(s.depth, tap), g.read_size[0]);
  const int64_t image = s.image * layout.batch_pitch + channel * layout.channel_step();
  for (int64_t i = 0; i < row_count; ++i, cells += width * lanes) {
    if (first_row + i >= g.cells_for(1, s.axis[0].points)) {
      std::fill_n(cells, width * lanes, 0.0f);
      continue;
    }
    const int64_t y = padded_source(padding_mode, (first_row + i) * g.dilation[1] + s.axis[0].base, g.read_size[1]);
    if (depth == kOutside || y == kOutside) {
      std::fill_n(cells, width * lanes, pad_value);
      continue;
    }
    const int64_t row = image + (depth * g.read_size[1] + y) * size * layout.pixel_step();
    const int64_t from = row + (start + first * step) * layout.pixel_step();
    float* inside = cells + first * lanes;
    if (first < last && layout.layout == Layout::kChannelsLast) {
      read.gather_row(kernels, lanes, 0, channels, from, 1, step * layout.channel_pitch, inside, lanes, last - first);
    } else if (first < last && step == 1) {
      read.transpose(kernels, channels, last - first, lanes, from, layout.channel_pitch, inside, lanes);
    } else if (first < last) {
      read.gather_row(kernels, last - first, 0, last - first, from, step, layout.channel_pitch, line, width, channels);
      kernels.transpose(channels, last - first, lanes, line, width, inside, lanes);
    }
    for (int64_t x = 0; x < first; ++x) load_border(row, start + x * step, channels, cells + x * lanes);
    for (int64_t x = last; x < shown; ++x) load_border(row, start + x * step, channels, cells + x * lanes);
    std::fill_n(cells + shown * lanes, (width - shown) * lanes, 0.0f);
  }
}

// One cell of padding beside a row.
void WinogradInput::load_border(int64_t row, int64_t coordinate, int64_t channels, float* cell) const {
  const int64_t x = padded_source(padding_mode, coordinate, g.read_size[2]);
  if (x == kOutside) {
    std::fill_n(cell, g.lanes, pad_value);
    return;
  }
  read.gather_row(kernels, g.lanes, 0, channels, row + x * layout.pixel_step(), layout.channel_step(), 0, cell, 0, 1);
}

}  // namespace fastconv
