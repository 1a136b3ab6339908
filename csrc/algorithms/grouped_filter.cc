// SPDX-License-Identifier: Apache-2.0
// The filter gradient with few channels per group: lanes are grid points, the vectors of a tile of weights are summed
// over a chunk of bands in registers and their lanes are added in a tree.
//
//   for each part of the bands and block of groups (the items that threads share):
//     for each chunk of bands: copy what they read of x, and dy with zeros where a row ends, to planes of one pitch;
//                              dy stays where it is if its rows are whole vectors
//       for each group, piece of k and piece of (channel, tap): one register tile over all points of the chunk
//   the parts are added in a pairwise tree.
// The parts and chunks, and so every sum, come from the problem alone.
//
// A zero of dy beyond the end of a row meets a cell of x there: if that one is not finite, the weight is computed again
// from what belongs to it.
#include <cmath>

#include "../parallel.h"
#include "../phases.h"
#include "grouped.h"

namespace fastconv {
namespace {

constexpr int64_t kItems = 8;
constexpr int64_t kPartBytes = int64_t{8} << 20;  // of all parts together
constexpr int64_t kChunkVectors = 96;             // wanted in a chunk: adding the lanes takes as long as 8 vectors
constexpr int64_t kNearVectors = 60;              // where dy is not copied: what a piece reads of it stays in L1

template <class T>
class GroupedFilterGradient {
 public:
  GroupedFilterGradient(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        gemm(gemm_kernels<T>(*r.machine)),
        kernels(grouped_kernels<T>(*r.machine)),
        grid(forward_grid(p, r.pad_value)),
        y_grid(identity_grid(p)),
        cut(p, *r.machine),
        planes(*r.machine, grid, cut.bands),
        y_lines(gemm, y_grid, y_grid.axis[2].step),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        image(*r.machine, p.dtype, r.x),
        gradient(*r.machine, p.dtype, r.y) {}

  // The geometry, the same for any number of threads.
  struct Cut {
    GroupedBlocking<T> b;
    GroupedBands bands;
    int64_t group_block, blocks, units, chunk, parts;  // a unit is a band of an image
    bool by_pixels;                                    // lanes are channels of y
    bool in_place;                                     // y is read where it lies, row by row
    int64_t x_elements, y_row, y_elements;             // of a unit; y_row is that of a group where lanes are channels
    int64_t pitch;                                     // of the planes of x
    int64_t width;                                     // channels of y of a group, whole vectors
    int64_t weights;

    Cut(const ConvProblem& p, const Machine& m) : b(p, m), bands(forward_grid(p), b.band_rows, b.band_columns) {
      const ColumnGrid grid = forward_grid(p);
      const GroupedPlanes<T> planes(m, grid, bands);
      const int64_t lanes = grouped_kernels<T>(m).lanes;
      const bool turned = p.x_layout == Layout::kChannelsLast || p.y_layout == Layout::kChannelsLast;
      group_block = turned ? std::min(b.groups, ceil_div(lanes, std::min(b.channels, b.rows))) : 1;
      blocks = ceil_div(b.groups, group_block);
      units = p.n * bands.count();
      width = ceil_div(b.rows, lanes) * lanes;
      pitch = planes.pitch;
      in_place = p.y_layout == Layout::kChannelsFirst && !is_half(p.dtype) && bands.columns % lanes == 0 &&
                 grid.axis[2].columns % bands.columns == 0;
      // A line takes a few cycles more in every tile, a copy a third of one for each element.
      const int64_t tile_rows = ceil_div(b.rows, b.pieces);
      const int64_t tiles =
          b.pieces *
          ceil_div(b.channels * b.all_taps, int64_t{grouped_kernels<T>(m).filter_columns(static_cast<int>(tile_rows))});
      in_place = in_place && 12 * tiles < b.rows * pitch;
      const double planar = planar_cycles(m), pixels = pixel_cycles(m);
      by_pixels = pixels < planar;
      in_place = in_place && !by_pixels;
      y_row = by_pixels ? bands.rows * bands.columns * width : ceil_div(bands.rows * planes.pitch, lanes) * lanes;
      x_elements = group_block * b.channels * planes.channel_pitch;
      y_elements = in_place ? 0 : group_block * (by_pixels ? 1 : b.rows) * y_row;
      chunk = (in_place ? bands.count() : bands.row_bands * bands.column_bands) > 1
                  ? 1
                  : ceil_div(in_place ? kNearVectors : kChunkVectors, std::max<int64_t>(1, y_row / lanes));
      const int64_t unit_bytes = std::max<int64_t>(1, (x_elements + y_elements) * static_cast<int64_t>(sizeof(T)));
      chunk = std::clamp(m.l2_bytes / 2 / unit_bytes, int64_t{1}, chunk);
      weights = p.k * b.channels * b.all_taps;
      parts = std::clamp(ceil_div(kItems, blocks), int64_t{1}, std::max<int64_t>(1, units));
      parts =
          std::clamp(parts, int64_t{1}, std::max<int64_t>(1, kPartBytes / (weights * static_cast<int64_t>(sizeof(T)))));
    }
    // Of the multiply-adds of a band and what comes with them, for one group.
    double planar_cycles(const Machine& m) const {
      const GroupedKernelsOf<T>& k = grouped_kernels<T>(m);
      const double rows = static_cast<double>(b.rows) / static_cast<double>(b.pieces);
      const double columns = k.filter_columns(static_cast<int>(ceil_div(b.rows, b.pieces)));
      const int64_t row = in_place ? bands.columns : pitch;
      const double vectors = static_cast<double>(ceil_div(bands.rows * row, int64_t{k.lanes}));
      const double bands_together = std::max(1.0, std::min(static_cast<double>(units), kChunkVectors / vectors));
      const double tiles = static_cast<double>(b.pieces * b.channels * b.all_taps) / columns;
      // Loads across two lines count twice; a tile's totals take as long as 8 vectors.
      return tiles * (vectors * std::max(rows * columns / 2, rows / 2 + columns) + 100 / bands_together);
    }
    double pixel_cycles(const Machine& m) const {
      const GroupedKernelsOf<T>& k = grouped_kernels<T>(m);
      const double vectors = static_cast<double>(width / k.lanes), columns = k.pixel_columns;
      const double whole = std::min(vectors, 2.0), loads = 0.5 * (columns + whole) + 0.5;
      return static_cast<double>(bands.rows * bands.columns) *
             (static_cast<double>(b.channels * b.all_taps) / columns * vectors / whole *
                  std::max(0.5 * columns * whole, loads) +
              2 * vectors * k.lanes / 4);
    }
    int64_t turned_elements() const { return by_pixels ? group_block * b.channels * b.all_taps * width : 0; }
    int64_t part_bytes() const { return parts > 1 ? parts * aligned(weights * sizeof(T)) : 0; }
    int64_t slot_bytes(int64_t lanes) const {
      return aligned((chunk * x_elements + 2 * lanes) * sizeof(T)) + aligned((chunk * y_elements + lanes) * sizeof(T)) +
             aligned(b.channels * b.all_taps * sizeof(int64_t)) + aligned(turned_elements() * sizeof(T));
    }
  };

  void run() const {
    T* w = static_cast<T*>(r.w);
    if (cut.units == 0) return std::fill(w, w + cut.weights, T(0));
    char* workspace = static_cast<char*>(r.workspace);
    const int64_t pitch = aligned(cut.weights * sizeof(T)) / static_cast<int64_t>(sizeof(T));
    T* sums = cut.parts > 1 ? reinterpret_cast<T*>(workspace) : w;
    parallel_for(r.parallel, cut.parts * cut.blocks, [&](int64_t item, int slot) {
      compute(item / cut.blocks, item % cut.blocks * cut.group_block, sums + item / cut.blocks * pitch,
              workspace + cut.part_bytes() + slot * cut.slot_bytes(kernels.lanes));
    });
    parallel_for(r.parallel, cut.b.groups, [&](int64_t group, int) {
      const PhaseScope adding(r.phases, Phase::kSums);
      const int64_t count = cut.weights / cut.b.groups, begin = group * count;
      if (cut.parts > 1) gemm.reduce(count, cut.parts, sums + begin, pitch, w + begin);
      repair(group);
    });
  }

 private:
  void compute(int64_t part, int64_t group, T* sums, char* mine) const {
    const GroupedBlocking<T>& b = cut.b;
    const int64_t lanes = kernels.lanes, groups = std::min(cut.group_block, b.groups - group);
    const int64_t depth = b.channels * b.all_taps, x_size = cut.chunk * cut.x_elements + 2 * lanes;
    T* x = reinterpret_cast<T*>(mine);
    T* y = reinterpret_cast<T*>(mine += aligned(x_size * sizeof(T)));
    int64_t* offsets = reinterpret_cast<int64_t*>(mine + aligned((cut.chunk * cut.y_elements + lanes) * sizeof(T)));
    for (int64_t c = 0, i = 0; c < b.channels; ++c)
      each_tap(grid, [&](int64_t t0, int64_t t1, int64_t t2) { offsets[i++] = planes.offset(c, t0, t1, t2); });
    std::fill(x, x + x_size, T(0));  // what no band fills is multiplied by zero
    T* turned = reinterpret_cast<T*>(reinterpret_cast<char*>(offsets) + aligned(depth * sizeof(int64_t)));
    T* w = sums + group * b.rows * depth;
    if (cut.by_pixels)
      std::fill(turned, turned + groups * depth * cut.width, T(0));
    else
      std::fill(w, w + groups * b.rows * depth, T(0));

    const int64_t first = part * cut.units / cut.parts, last = (part + 1) * cut.units / cut.parts;
    for (int64_t unit = first; unit < last;) {
      int64_t filled = 0;
      GroupedPlace at{}, begin{};  // bands of a chunk are of one size
      for (; unit < last && filled < cut.chunk; ++unit) {
        if (!cut.bands.place(grid, unit % cut.bands.count(), &at)) continue;
        const PhaseScope gathering(r.phases, Phase::kInput);
        at.n = unit / cut.bands.count();
        if (filled == 0) begin = at;
        planes.fill(x_layout, image, at, group * b.channels, groups * b.channels, x + filled * cut.x_elements);
        T* to = y + filled * cut.y_elements;
        if (cut.by_pixels)
          for (int64_t g = 0; g < groups; ++g) turn_y(at, (group + g) * b.rows, to + g * cut.y_row);
        else if (!cut.in_place)
          fill_y(at, group * b.rows, groups * b.rows, planes.vectors(at) * lanes, to);
        ++filled;
      }
      if (filled == 0) continue;
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      for (int64_t g = 0; g < groups; ++g) {
        const T* group_x = x + g * b.channels * planes.channel_pitch;
        if (cut.by_pixels)
          pixel_tiles(filled, at, y + g * cut.y_row, group_x, offsets, turned + g * depth * cut.width);
        else
          planar_tiles(filled, at,
                       cut.in_place ? gradient.at(place_of(begin, (group + g) * b.rows)) : y + g * b.rows * cut.y_row,
                       group_x, offsets, w + g * b.rows * depth);
      }
    }
    if (!cut.by_pixels) return;
    const PhaseScope turning_back(r.phases, Phase::kOutput);
    for (int64_t g = 0; g < groups; ++g, turned += depth * cut.width)
      gemm.transpose(depth, b.rows, depth, turned, cut.width, w + g * b.rows * depth, depth);
  }

  void planar_tiles(int64_t filled, const GroupedPlace& at, const T* y, const T* x, const int64_t* offsets,
                    T* w) const {
    const GroupedBlocking<T>& b = cut.b;
    const int64_t depth = b.channels * b.all_taps;
    GroupedFilter<T> tile{};
    tile.y_row = cut.in_place ? y_layout.channel_pitch : cut.y_row;
    tile.blocks = filled;
    tile.x_block = cut.x_elements;
    tile.y_block = cut.in_place ? y_layout.batch_pitch : cut.y_elements;
    tile.lines = cut.in_place ? at.rows : 1;
    tile.x_line = planes.pitch;
    tile.y_line = y_grid.axis[2].size;
    tile.vectors = cut.in_place ? at.columns / kernels.lanes : planes.vectors(at);
    tile.x = x;
    tile.w_row = depth;
    for (int64_t piece = 0; piece < b.pieces; ++piece) {
      const int64_t row = b.piece_begin(piece);
      tile.rows = static_cast<int>(b.piece_begin(piece + 1) - row);
      tile.y = y + row * tile.y_row;
      const int64_t pieces = ceil_div(depth, int64_t{kernels.filter_columns(tile.rows)});
      // A row of the next piece in each tile; of the next chunk after the last piece.
      const T* next = piece + 1 < b.pieces ? tile.y + tile.rows * tile.y_row : y + filled * tile.y_block;
      for (int64_t i = 0; i < pieces; ++i) {
        tile.ahead = cut.in_place ? next + std::min<int64_t>(i, tile.rows - 1) * tile.y_row : tile.y;
        const int64_t column = i * depth / pieces;
        tile.columns = static_cast<int>((i + 1) * depth / pieces - column);
        tile.offsets = offsets + column;
        tile.w = w + row * depth + column;
        kernels.filter(&tile);
      }
    }
  }

  void pixel_tiles(int64_t filled, const GroupedPlace& at, const T* y, const T* x, const int64_t* offsets, T* w) const {
    const int64_t depth = cut.b.channels * cut.b.all_taps, lanes = kernels.lanes;
    GroupedPixels<T> tile{};
    tile.y_point = cut.width;
    tile.y_block = cut.y_elements;
    tile.x = x;
    tile.x_row = planes.pitch;
    tile.x_block = cut.x_elements;
    tile.blocks = filled;
    tile.rows = at.rows;
    tile.points = at.columns;
    tile.w_column = cut.width;
    const int64_t pieces = ceil_div(depth, int64_t{kernels.pixel_columns}), vectors = cut.width / lanes;
    for (int64_t v = 0; v < vectors; v += tile.vectors) {
      tile.vectors = static_cast<int>(std::min<int64_t>(kernels.pixel_vectors, vectors - v));
      tile.y = y + v * lanes;
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t column = i * depth / pieces;
        tile.columns = static_cast<int>((i + 1) * depth / pieces - column);
        tile.offsets = offsets + column;
        tile.w = w + column * cut.width + v * lanes;
        kernels.pixels(&tile);
      }
    }
  }

  // Of the first point of y.
  int64_t place_of(const GroupedPlace& at, int64_t channel) const {
    const int64_t pixel = (at.o0 * y_grid.axis[1].size + at.row) * y_grid.axis[2].size + at.column;
    return at.n * y_layout.batch_pitch + channel * y_layout.channel_step() + pixel * y_layout.pixel_step();
  }

  // dst[point][channel], zero from the group's last channel on.
  void turn_y(const GroupedPlace& at, int64_t channel, T* dst) const {
    const int64_t width = y_grid.axis[2].size;
    int64_t y = place_of(at, channel);
    const bool whole = at.columns == width;
    const int64_t lines = whole ? 1 : at.rows, points = whole ? at.rows * width : at.columns;
    for (int64_t i = 0; i < lines; ++i, y += width * y_layout.pixel_step(), dst += points * cut.width) {
      if (y_layout.layout == Layout::kChannelsFirst)
        gradient.transpose(gemm, cut.b.rows, points, cut.width, y, y_layout.channel_pitch, dst, cut.width);
      else
        copy_rows(points, cut.width, cut.b.rows, y, y_layout.channel_pitch, dst);
    }
  }

  // dst[channel][row * pitch + column], zero elsewhere below `size`.
  void fill_y(const GroupedPlace& at, int64_t channel, int64_t channels, int64_t size, T* dst) const {
    const int64_t width = y_grid.axis[2].size, pitch = planes.pitch, filled = at.rows * pitch;
    int64_t y = place_of(at, channel);
    const bool planar = y_layout.layout == Layout::kChannelsFirst;
    if (!planar)
      for (int64_t row = 0; row < at.rows; ++row, y += width * y_layout.pixel_step()) {
        y_lines.line(y_layout, gradient, y, 0, at.columns, channels, dst + row * pitch, cut.y_row);
        if (pitch > at.columns) y_lines.value(pitch - at.columns, channels, dst + row * pitch + at.columns, cut.y_row);
      }
    for (int64_t c = 0; c < channels; ++c, y += y_layout.channel_step(), dst += cut.y_row) {
      if (planar) copy_rows(at.rows, pitch, at.columns, y, width, dst);
      if (filled < size) std::fill(dst + filled, dst + size, T(0));
    }
  }

  // dst[row][count]: `shown` elements of y, then zeros.
  void copy_rows(int64_t rows, int64_t count, int64_t shown, int64_t from, int64_t pitch, T* dst) const {
    if (gradient.is_half())
      gradient.gather_row(gemm, count, 0, shown, from, 1, pitch, dst, count, rows);
    else
      kernels.copy_rows(rows, count, 0, shown, gradient.at(from), 1, pitch, dst, count);
  }

  void repair(int64_t group) const {
    const int64_t cg = cut.b.channels, kg = cut.b.rows, count = kg * cg * cut.b.all_taps;
    T* w = static_cast<T*>(r.w) + group * count;
    T probe[8] = {};  // NaN where a weight is not finite
    for (int64_t i = 0; i + 8 <= count; i += 8)
      for (int j = 0; j < 8; ++j) probe[j] += w[i + j] - w[i + j];
    for (int64_t i = count / 8 * 8; i < count; ++i) probe[0] += w[i] - w[i];
    if (std::all_of(probe, probe + 8, [](T value) { return value == 0; })) return;
    for (int64_t i = 0; i < count; ++i) {
      if (std::isfinite(w[i])) continue;
      const int64_t tap = i % cut.b.all_taps, c = group * cg + i / cut.b.all_taps % cg;
      w[i] = plain_sum(group * kg + i / cut.b.all_taps / cg, c, tap);
    }
  }
  T plain_sum(int64_t k, int64_t c, int64_t tap) const {
    const ColumnAxis* a = grid.axis;
    const int64_t t[] = {tap / p.filter[2] / p.filter[1], tap / p.filter[2] % p.filter[1], tap % p.filter[2]};
    T sum = 0;
    for (int64_t n = 0; n < p.n; ++n) {
      int64_t y = n * y_layout.batch_pitch + k * y_layout.channel_step();
      const int64_t x = n * x_layout.batch_pitch + c * x_layout.channel_step();
      int64_t o[kMaxSpatial];
      for (o[0] = 0; o[0] < a[0].columns; ++o[0])
        for (o[1] = 0; o[1] < a[1].columns && !std::isnan(sum); ++o[1])
          for (o[2] = 0; o[2] < a[2].columns; ++o[2], y += y_layout.pixel_step()) {
            int64_t cell = 0;
            bool inside = true;
            for (int i = 0; i < kMaxSpatial; ++i) {
              const int64_t at =
                  padded_source(grid.padding_mode, o[i] * a[i].step + a[i].offset + t[i] * a[i].offset_step, a[i].size);
              inside = inside && at != kOutside;
              cell = cell * a[i].size + at;
            }
            if (inside)
              sum += gradient.value(y) * image.value(x + cell * x_layout.pixel_step());
            else if (grid.padding_mode == PaddingMode::kConstant)
              sum += gradient.value(y) * static_cast<T>(grid.pad_value);
          }
    }
    return sum;
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& gemm;
  const GroupedKernelsOf<T>& kernels;
  const ColumnGrid grid, y_grid;
  const Cut cut;
  const GroupedPlanes<T> planes;
  const LineGather<T> y_lines;
  const ImageLayout x_layout, y_layout;
  const Stored<T> image, gradient;
};

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots) {
  const typename GroupedFilterGradient<T>::Cut cut(p, m);
  return cut.part_bytes() + slots * cut.slot_bytes(grouped_kernels<T>(m).lanes);
}

template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const typename GroupedFilterGradient<T>::Cut cut(p, m);
  const ColumnGrid grid = forward_grid(p);
  const GroupedPlanes<T> planes(m, grid, cut.bands);
  const double units = times(cut.units), all = units * times(p.groups), blocks = units * times(cut.blocks);
  e->add("filter start", 3e-6);
  if (cut.by_pixels)
    e->add("pixel products", all * grouped_seconds<T>(1.25 * cut.pixel_cycles(m), p, m));
  else
    e->add(cut.in_place ? "filter products in place" : "filter products",
           all * grouped_seconds<T>(1.25 * cut.planar_cycles(m), p, m));
  const double plane_rows = times(grid.axis[0].taps, planes.h.lines, planes.h.length, planes.w.lines);
  e->add("filter plane rows", all * times(cut.b.channels) * plane_rows * 3e-9);
  const bool x_last = p.x_layout == Layout::kChannelsLast, y_last = p.y_layout == Layout::kChannelsLast;
  e->add(x_last                  ? "filter planes turned"
         : grid.axis[2].step > 1 ? "filter planes apart"
                                 : "filter planes",
         blocks * times(cut.x_elements) * 0.15e-9);
  e->add(y_last          ? "gradients turned"
         : cut.by_pixels ? "gradients to pixels"
                         : "gradients",
         blocks * times(cut.y_elements) * 0.15e-9);
  if (!cut.in_place) e->add("gradient rows", all * times(cut.b.rows, cut.bands.rows) * 3e-9);
  e->add("bands", blocks * 0.2e-6);
  e->add("sums", times(cut.weights, cut.parts) * 0.3e-9);
}

}  // namespace

void grouped_filter_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  p.dtype == DType::kFloat64 ? estimate_as<double>(p, m, e) : estimate_as<float>(p, m, e);
}

int64_t grouped_filter_workspace(const ConvProblem& p, const Machine& m, int slots) {
  return p.dtype == DType::kFloat64 ? workspace_as<double>(p, m, slots) : workspace_as<float>(p, m, slots);
}

void grouped_filter_run(const ConvProblem& p, const RunContext& r) {
  if (p.dtype == DType::kFloat64)
    GroupedFilterGradient<double>(p, r).run();
  else
    GroupedFilterGradient<float>(p, r).run();
}

}  // namespace fastconv
