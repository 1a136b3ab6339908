// SPDX-License-Identifier: Apache-2.0
// Convolution by Winograd's F(m0 x m1, r0 x r1) (csrc/winograd_math.h); of an axis where r is 1, m is too. Its stride is
// 1, or 2 on both axes: then neighbouring tiles read cells two points apart, or write two pixels for each cell.
//
// Every problem becomes *planes*: an image, a depth of the result and, of a dilated one, a phase on both axes. A plane
// is an undilated image of tiles, m0 x m1 pixels of the result each, that reads cell i + t of every axis for tap t; cell
// i is coordinate i * dilation + base of the tensor read, padding included. Backward-data reads y in the same way, with
// the taps of a filter in reverse order. Depth taps are summed like further channels.
//
// Tiles are numbered over all planes of all images. In a plane they are cut into strips of columns, and a strip is
// numbered row by row: neighbours in number share cells.
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
inline constexpr int64_t kWinogradTaps = 144;  // of a filter in all axes, at most

// One axis of a plane.
struct WinogradAxis {
  int64_t points, tiles;  // of the result
  int64_t base;           // the coordinate that cell 0 reads
  int64_t first;          // the coordinate of point 0; the others follow a dilation apart
};

// Tiles that follow each other in number, of one strip.
struct WinogradSegment {
  int64_t index;         // of the first one, counted from the block's first
  int64_t tiles;         // how many
  int64_t image, depth;  // of the result
  WinogradAxis axis[2];
  int64_t column, width;  // the strip's first tile, its tiles in a row
  int64_t first;          // the first tile, counted within the strip

  int64_t first_row() const { return first / width; }
  int64_t rows() const { return (first + tiles - 1) / width - first_row() + 1; }
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
  int64_t strip;  // tiles of a row of a strip, at most
  int64_t lanes;
  int64_t groups, written, read;  // channels per group
  int64_t depth_taps, depths;     // depths: of the result
  int64_t read_size[kMaxSpatial];
  int64_t written_size[kMaxSpatial];
  int64_t dilation[kMaxSpatial], pad[kMaxSpatial];
  int64_t phases[2];
  int64_t plane_tiles;  // of one image's depth, all phases
  int64_t tiles;        // of all images

  WinogradGeometry(const WinogradForm& form, const ConvProblem& p, const Machine& machine);

  // Of spatial axis 1 or 2.
  WinogradAxis axis_of(int axis, int64_t phase) const {
    WinogradAxis a;
    a.points = ceil_div(written_size[axis] - phase, dilation[axis]);
    a.tiles = ceil_div(a.points, m[axis - 1]);
    a.base = phase + (forward       ? -pad[axis]
                      : stride == 2 ? (pad[axis] - 1) / 2
                                    : pad[axis] - dilation[axis] * (r[axis - 1] - 1));
    a.first = phase;
    return a;
  }
  // Of a row of tiles, or of a column of them.
  int64_t cells_of(int axis, int64_t tile_count) const {
    return tile_count * step[axis - 1] + cells[axis - 1] - step[axis - 1];
  }
  // Those that the results of so many points need.
  int64_t cells_for(int axis, int64_t count) const {
    if (stride == 1) return count + r[axis - 1] - 1;
    return forward ? 2 * count + 1 : ceil_div(count, int64_t{2}) + 1;
  }
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
    for (int64_t phase = 0; phase < g.phases[0] * g.phases[1] && s.index < count; ++phase) {
      s.axis[0] = g.axis_of(1, phase / g.phases[1]);
      s.axis[1] = g.axis_of(2, phase % g.phases[1]);
      const int64_t all = s.axis[0].tiles * s.axis[1].tiles;
      if (at >= all) {
        at -= all;
        continue;
      }
      const int64_t strips = ceil_div(s.axis[1].tiles, g.strip);
      for (int64_t strip = 0; strip < strips && s.index < count; ++strip) {
        s.column = strip * s.axis[1].tiles / strips;
        s.width = (strip + 1) * s.axis[1].tiles / strips - s.column;
        const int64_t here = s.width * s.axis[0].tiles;
        if (at >= here) {
          at -= here;
          continue;
        }
        s.first = at;
        s.tiles = std::min(here - at, count - s.index);
        visit(s);
        s.index += s.tiles;
        at = 0;
      }
    }
    ++plane;
  }
}

// visit(row, column, tiles, index) for the parts of a segment in one row of tiles each; row and column count tiles of
// the plane, index those of the block.
template <class Visit>
void each_tile_row(const WinogradSegment& s, const Visit& visit) {
  for (int64_t done = 0; done < s.tiles;) {
    const int64_t at = s.first + done, across = at % s.width;
    const int64_t tiles = std::min(s.width - across, s.tiles - done);
    visit(at / s.width, s.column + across, tiles, s.index + done);
    done += tiles;
  }
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
  void load_cells(const WinogradSegment& s, int64_t channel, int64_t channels, int64_t tap, float* cells,
                  float* row) const;
  void load_border(int64_t row, int64_t coordinate, int64_t channels, float* cell) const;
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
  void store_row(const WinogradSegment& s, int64_t row, int64_t column, int64_t columns, int64_t channel,
                 int64_t channels, const float* cells, float* scratch) const;
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
int64_t winograd_workspace_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots,
                                 bool packed);
int64_t winograd_packed_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m);
int winograd_pack(const WinogradForm& form, const ConvProblem& p, const Machine& m, const Parallel& parallel,
                  const void* w, void* packed);
int winograd_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r);

}  // namespace fastconv
