// SPDX-License-Identifier: Apache-2.0
// Convolution by Winograd's F(m0 x m1, r0 x r1) (csrc/winograd_math.h); of an axis where r is 1, m is too. Its stride
// is 1, or 2 on both axes: then neighbouring tiles read cells two points apart, or write two pixels for each cell.
//
// Every problem becomes *planes*: an image, a depth of the result and, of a dilated one, a phase of the rows. A plane
// has the tiles, m0 x m1 pixels of the result each, of all phases of the columns. A tile reads cell i + t of every axis
// for tap t; cell i is coordinate i * dilation + base of the tensor read, padding included. Backward-data reads y in
// the same way, with the taps of a filter in reverse order. Depth taps are summed like further channels.
//
// Tiles are numbered over all planes of all images. In a plane they are cut into strips: some phases of the columns,
// some tiles of each. A strip is numbered row by row, in a row the first tiles of all phases come first, then the
// second ones. So neighbours in number share cells or have cells side by side, and rows of the tensors are moved whole.
#pragma once

#include <algorithm>

#include "../algorithm.h"
#include "../im2col.h"
#include "../kernels/winograd_gradient_kernels.h"
#include "../kernels/winograd_kernels.h"
#include "../machine.h"
#include "../rounding.h"
#include "../stored.h"

namespace fastconv {

inline constexpr int64_t kMostStrip = 16;      // tiles of a row of a strip, at most
inline constexpr int64_t kStripCells = 64;     // likewise, that it reads or writes
inline constexpr int64_t kStripPhases = 16;    // phases of the columns in a strip, at most
inline constexpr int64_t kWinogradTaps = 144;  // of a filter in all axes, at most

// One axis of a plane, of one phase.
struct WinogradAxis {
  int64_t points, tiles;  // of the result
  int64_t base;           // the coordinate that cell 0 reads
  int64_t first;          // the coordinate of point 0; the others follow a dilation apart
};

// A row of a strip: tile t is number column + t / phases of its phase, the phase is first_phase + t % phases.
struct WinogradStrip {
  int64_t column, first_phase, phases;
  int64_t columns, tiles;  // the last column may lack phases
};

// Tiles that follow each other in number, of one strip.
struct WinogradSegment {
  int64_t index;         // of the first one, counted from the block's first
  int64_t tiles;         // how many
  int64_t image, depth;  // of the result
  WinogradAxis rows;
  WinogradStrip strip;
  int64_t first;  // the first tile, counted within the strip

  int64_t first_row() const { return first / strip.tiles; }
  int64_t row_count() const { return (first + tiles - 1) / strip.tiles - first_row() + 1; }
};

// One F(m0 x m1, r0 x r1); `filter` says it in words. With stride 2, backward-data has other transforms.
struct WinogradForm {
  const char* filter;
  int64_t stride;
  WinogradTransforms WinogradTransformTable::* transforms;
  WinogradTransforms WinogradTransformTable::* backward_data;
  WinogradAdjoints WinogradGradientKernels::* adjoints;

  auto transforms_of(const ConvProblem& p) const { return p.pass == Pass::kBackwardData ? backward_data : transforms; }
};

struct WinogradGeometry {
  const WinogradTransforms* transforms;
  bool forward;
  int64_t m[2], r[2];
  int64_t cells[2], step[2];  // of a tile; to the next one's
  int64_t points, filters;    // products of a tile; values of a filter
  int64_t stride;
  int64_t lanes;
  int64_t groups, written, read;  // channels per group
  int64_t depth_taps, depths;     // depths: of the result
  int64_t read_size[kMaxSpatial];
  int64_t written_size[kMaxSpatial];
  int64_t dilation[kMaxSpatial], pad[kMaxSpatial];
  int64_t phases[2];
  int64_t columns, last_phases;         // tiles of the first phase of a row; phases that have the last of them
  int64_t strip_phases, strip_columns;  // of a strip, at most
  int64_t phase_groups, column_groups;  // that make strips
  int64_t row_tiles;                    // of all strips
  int64_t plane_tiles;                  // of one image's depth, all phases
  int64_t tiles;                        // of all images

  WinogradGeometry(const WinogradForm& form, const ConvProblem& p, const Machine& machine);

  // Of spatial axis 1 or 2.
  WinogradAxis axis_of(int axis, int64_t phase) const {
    WinogradAxis a;
    a.points = ceil_div(written_size[axis] - phase, dilation[axis]);
    a.tiles = ceil_div(a.points, m[axis - 1]);
    a.base = base_of(axis, phase);
    a.first = phase;
    return a;
  }
  int64_t base_of(int axis, int64_t phase) const {
    if (forward) return phase - pad[axis];
    return phase + (stride == 2 ? (pad[axis] - 1) / 2 : pad[axis] - dilation[axis] * (r[axis - 1] - 1));
  }
  // Tiles of a row of the first `count` phases.
  int64_t phase_tiles(int64_t count) const { return (columns - 1) * count + std::min(count, last_phases); }
  WinogradStrip strip(int64_t group, int64_t part) const {
    WinogradStrip s;
    s.first_phase = group * strip_phases;
    s.phases = std::min(strip_phases, phases[1] - s.first_phase);
    s.column = part * strip_columns;
    s.columns = std::min(strip_columns, columns - s.column);
    s.tiles = s.columns * s.phases;
    if (s.column + s.columns < columns) return s;
    const int64_t last = std::clamp(last_phases - s.first_phase, int64_t{0}, s.phases);
    s.tiles -= s.phases - last;
    if (last == 0) --s.columns;
    return s;
  }
  template <class Visit>
  void each_strip(const Visit& visit) const {
    for (int64_t group = 0; group < phase_groups; ++group)
      for (int64_t part = 0; part < column_groups; ++part) visit(strip(group, part));
  }
  // Cells of a column of tiles, or of a row of them for each phase.
  int64_t cells_of(int axis, int64_t tile_count) const {
    return tile_count * step[axis - 1] + cells[axis - 1] - step[axis - 1];
  }
  // Those that the results of so many points need, `apart` from the first cell of one to that of the next tap.
  int64_t cells_for(int axis, int64_t count, int64_t apart) const {
    if (stride == 1) return count + (r[axis - 1] - 1) * apart;
    return forward ? 2 * count + 1 : ceil_div(count, int64_t{2}) + 1;
  }
  // Cells that a row of a strip reads; that a row of any writes.
  int64_t read_cells(const WinogradStrip& s) const { return cells_of(2, s.columns) * s.phases; }
  int64_t most_written_cells() const { return strip_columns * m[1] * strip_phases; }
  // Which value of a filter a point is multiplied by.
  int64_t filter_of(int64_t point) const {
    const int64_t across = transforms->n[1], i = point / across, j = point % across;
    return std::min<int64_t>(i, transforms->filters[0] - 1) * transforms->filters[1] +
           std::min<int64_t>(j, transforms->filters[1] - 1);
  }
  // visit(point) for those of one value.
  template <class Visit>
  void each_point(int64_t value, const Visit& visit) const {
    const int64_t across = transforms->n[1], f0 = transforms->filters[0], f1 = transforms->filters[1];
    const int64_t i0 = value / f1, j0 = value % f1;
    for (int64_t i = i0; i < (i0 == f0 - 1 ? transforms->n[0] : i0 + 1); ++i)
      for (int64_t j = j0; j < (j0 == f1 - 1 ? across : j0 + 1); ++j) visit(i * across + j);
  }
  int64_t depth_coordinate(int64_t depth, int64_t tap) const {
    return forward ? depth - pad[0] + tap * dilation[0] : depth + pad[0] - tap * dilation[0];
  }
  int64_t read_blocks() const { return ceil_div(read, lanes); }  // of lanes channels, of one depth tap
  int64_t written_vectors() const { return ceil_div(written, lanes); }
  int64_t all_taps() const { return depth_taps * r[0] * r[1]; }
  // Adds the work of reading `read_blocks` blocks of channels of every tile, and of writing `vectors`.
  void add_transforms(const ConvProblem& p, double read_blocks, double vectors, Estimate* e) const;
  // Elements of cells that a segment of a block of `tiles` tiles takes at most.
  int64_t segment_cells(int64_t block_tiles) const;
};

// visit(segment) for tiles [first, first + count).
template <class Visit>
void each_segment(const WinogradGeometry& g, int64_t first, int64_t count, const Visit& visit) {
  WinogradSegment s;
  s.index = 0;
  int64_t plane = first / g.plane_tiles, at = first % g.plane_tiles;
  while (s.index < count) {
    s.image = plane / g.depths, s.depth = plane % g.depths;
    for (int64_t phase = 0; phase < g.phases[0] && s.index < count; ++phase) {
      s.rows = g.axis_of(1, phase);
      if (at >= s.rows.tiles * g.row_tiles) {
        at -= s.rows.tiles * g.row_tiles;
        continue;
      }
      for (int64_t group = 0; group < g.phase_groups && s.index < count; ++group) {
        const int64_t begin = group * g.strip_phases, end = std::min(begin + g.strip_phases, g.phases[1]);
        const int64_t all = (g.phase_tiles(end) - g.phase_tiles(begin)) * s.rows.tiles;
        if (at >= all) {
          at -= all;
          continue;
        }
        const int64_t full = g.strip_columns * (end - begin) * s.rows.tiles;
        int64_t part = at / full;
        at -= part * full;
        for (; part < g.column_groups && s.index < count; ++part, at = 0) {
          s.strip = g.strip(group, part);
          s.first = at;
          s.tiles = std::min(s.strip.tiles * s.rows.tiles - at, count - s.index);
          if (s.tiles > 0) visit(s);
          s.index += s.tiles;
        }
      }
    }
    ++plane;
  }
}

// visit(row, first, tiles, index) for the parts of a segment in one row of tiles each: `first` counts tiles of the
// strip's row, index those of the block.
template <class Visit>
void each_tile_row(const WinogradSegment& s, const Visit& visit) {
  for (int64_t done = 0; done < s.tiles;) {
    const int64_t at = s.first + done, first = at % s.strip.tiles;
    const int64_t tiles = std::min(s.strip.tiles - first, s.tiles - done);
    visit(at / s.strip.tiles, first, tiles, s.index + done);
    done += tiles;
  }
}

// visit(column, phase, done, tiles) for the parts of such a part that the kernels take: tiles of one phase, or side by
// side from `phase` of the strip on.
template <class Visit>
void each_run(const WinogradStrip& s, int64_t first, int64_t tiles, const Visit& visit) {
  if (s.phases == 1) return visit(first, int64_t{0}, int64_t{0}, tiles);
  int64_t column = first / s.phases, phase = first - column * s.phases;
  for (int64_t done = 0, some; done < tiles; done += some, phase = 0, ++column) {
    some = std::min(s.phases - phase, tiles - done);
    visit(column, phase, done, some);
  }
}

// visit(cell, column, count, shown) for the cells that such a part writes, as far as they lie side by side in the
// tensor, from coordinate `column` on; `shown` of them are there.
template <class Visit>
void each_stretch(const WinogradGeometry& g, const WinogradStrip& s, int64_t first, int64_t tiles, const Visit& visit) {
  const int64_t m = g.m[1], apart = g.dilation[2];
  const auto stretch = [&](int64_t point, int64_t phase, int64_t count) {
    const int64_t column = (s.column * m + point) * apart + s.first_phase + phase;
    visit(point * s.phases + phase, column, count, std::clamp(g.written_size[2] - column, int64_t{0}, count));
  };
  if (s.phases == apart) {
    const int64_t column = first / apart, whole = tiles / apart;
    const bool ends = first + tiles == s.tiles || whole * apart == tiles;
    if (column * apart == first && ends)
      return stretch(column * m, 0, (first + tiles == s.tiles ? s.columns - column : whole) * m * apart);
  }
  each_run(s, first, tiles, [&](int64_t column, int64_t phase, int64_t, int64_t count) {
    for (int64_t j = 0; j < m; ++j) stretch(column * m + j, phase, count);
  });
}

// ---- winograd_input.cc ----------------------------------------------------------------------------------------
// The tensor that is read, a block of lanes channels at a time.
struct WinogradInput {
  const WinogradGeometry& g;
  const GemmKernelsOf<float>& kernels;
  PaddingMode padding_mode;
  float pad_value;
  ImageLayout layout;
  const Stored<float> read;

  WinogradInput(const ConvProblem& p, const RunContext& r, const WinogradGeometry& geometry);
  // Scratch, in elements, for blocks of that many tiles.
  static int64_t scratch(const WinogradGeometry& g, int64_t block_tiles);
  // v[point * point_pitch + tile * lanes + lane] for `tiles` tiles from `first` on, one depth tap and the group's
  // channels [block * lanes, ...); lanes beyond the last channel are zero.
  void transform(int64_t first, int64_t tiles, int64_t group, int64_t tap, int64_t block, float* v, int64_t point_pitch,
                 float* scratch) const;

 private:
  void load_cells(const WinogradSegment& s, int64_t channel, int64_t channels, int64_t tap, float* cells) const;
  void load_line(int64_t row, int64_t cell, int64_t count, int64_t channels, float* cells) const;
  void load_border(int64_t row, int64_t coordinate, int64_t count, int64_t channels, float* cells) const;
};

// ---- winograd_output.cc ---------------------------------------------------------------------------------------
struct WinogradOutput {
  const ConvProblem& p;
  const RunContext& r;
  const WinogradGeometry& g;
  const WinogradKernels& winograd;
  const GemmKernelsOf<float>& kernels;
  ImageLayout layout;
  const Stored<float> written, residual;

  WinogradOutput(const ConvProblem& problem, const RunContext& context, const WinogradGeometry& geometry);
  static int64_t scratch(const WinogradGeometry& g);
  // `tiles` tiles from `first` on of `vectors` vectors of written channels from `channel` of the group on:
  // products[point * point_pitch + vector * vector_pitch + tile * lanes].
  void transform(int64_t first, int64_t tiles, int64_t group, int64_t channel, int64_t vectors, const float* products,
                 int64_t point_pitch, int64_t vector_pitch, float* scratch) const;

 private:
  void store_line(int64_t at, int64_t columns, int64_t channel, int64_t channels, const float* cells,
                  float* scratch) const;
};

// ---- winograd_filter.cc ---------------------------------------------------------------------------------------
// Turned weights: taps[group][vector][channel read][depth tap][r0][r1][lane], lanes are written channels.
int64_t winograd_turned_elements(const WinogradGeometry& g);
void winograd_turn(const ConvProblem& p, const Machine& m, const WinogradGeometry& g, const Parallel& parallel,
                   const Stored<float>& w, float* turned);
// The transformed filters of `vectors` vectors from `vector` on: u[point * point_pitch + channel * vectors * lanes +
// lane] for one depth tap and channels [channel, channel + channels), counted from `channel`. One of w and turned.
struct WinogradFilter {
  const ConvProblem& p;
  const GemmKernelsOf<float>& kernels;
  const WinogradGeometry& g;
  const Stored<float> w;
  const float* turned;

  void transform(int64_t group, int64_t vector, int64_t vectors, int64_t tap, int64_t channel, int64_t channels,
                 float* u, int64_t point_pitch) const;
  // Asks for one of `points` shares of the turned weights that `transform` will read.
  void prefetch(int64_t group, int64_t vector, int64_t vectors, int64_t channel, int64_t channels, int64_t share) const;
};

// ---- winograd_backward_filter.cc ------------------------------------------------------------------------------
void winograd_filter_estimate(const WinogradForm& form, const ConvProblem& p, const Machine& m, Estimate* e);
int64_t winograd_filter_workspace(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots);
void winograd_filter_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r);

// ---- winograd.cc ----------------------------------------------------------------------------------------------
bool winograd_why_not(const char* name, const WinogradForm& form, const ConvProblem& p, const Machine& m, char* text);
void winograd_estimate(const WinogradForm& form, const ConvProblem& p, const Machine& m, Estimate* e);
// Of exactly so many threads; of that many or fewer.
int64_t winograd_workspace_of(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots, bool packed);
int64_t winograd_workspace_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots,
                                 bool packed);
int64_t winograd_multiplications(const WinogradForm& form, const ConvProblem& p, const Machine& m);  // of all passes
int64_t winograd_packed_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m);
int winograd_pack(const WinogradForm& form, const ConvProblem& p, const Machine& m, const Parallel& parallel,
                  const void* w, void* packed);
int winograd_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r);

}  // namespace fastconv
