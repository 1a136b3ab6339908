// SPDX-License-Identifier: Apache-2.0
// The halo buffer: the input rows that a strip of grid points reads, copied once, padding included and strides
// taken apart, so that every tap of every run of grid points is a plain vector load.
#pragma once

#include <algorithm>
#include <cstdlib>

#include "im2col.h"
#include "rounding.h"
#include "stored.h"

namespace fastconv {

// Grid points that follow each other along the last axis.
struct Run {
  int64_t lane, count, n, o[kMaxSpatial];
};

// visit(run) over [column, column + columns), images laid end to end.
template <class Visit>
void each_run(const ColumnGrid& grid, int64_t column, int64_t columns, const Visit& visit) {
  const int64_t width = grid.axis[2].columns, height = grid.axis[1].columns, per_image = grid.columns();
  Run run;
  int64_t at = column;
  run.n = at / per_image;
  at -= run.n * per_image;
  run.o[2] = at % width;
  run.o[1] = at / width % height;
  run.o[0] = at / width / height;
  for (run.lane = 0; run.lane < columns;) {
    run.count = std::min(width - run.o[2], columns - run.lane);
    visit(run);
    run.lane += run.count;
    run.o[2] = 0;
    if (++run.o[1] == height) {
      run.o[1] = 0;
      if (++run.o[0] == grid.axis[0].columns) run.o[0] = 0, ++run.n;
    }
  }
}

// The same with the pixels of a dense grid joined over rows: runs end at the end of an image only.
template <class Visit>
void each_pixel_run(const ColumnGrid& grid, int64_t column, int64_t columns, const Visit& visit) {
  const ColumnAxis* a = grid.axis;
  if (!grid.is_dense()) {
    return each_run(grid, column, columns, [&](const Run& run) {
      int64_t at[kMaxSpatial];
      for (int i = 0; i < kMaxSpatial; ++i) at[i] = a[i].out_first + run.o[i] * a[i].out_step;
      visit(run.lane, run.count, run.n, (at[0] * a[1].out_size + at[1]) * a[2].out_size + at[2]);
    });
  }
  const int64_t per_image = grid.columns();
  for (int64_t lane = 0; lane < columns;) {
    const int64_t n = (column + lane) / per_image, pixel = (column + lane) % per_image;
    const int64_t count = std::min(per_image - pixel, columns - lane);
    visit(lane, count, n, pixel);
    lane += count;
  }
}

// Which of `count` cells from coordinate `at` on, `step` apart, lie inside an axis: those from `first` to below `last`.
struct Inside {
  int64_t first = 0, last = 0;

  Inside() = default;
  Inside(int64_t at, int64_t step, int64_t count, int64_t size) {
    first = at < 0 ? std::min(count, ceil_div(-at, step)) : 0;
    last = at < size ? std::clamp((size - 1 - at) / step + 1, first, count) : first;
  }
};

// What stands beyond the tensor where padding shows none of its cells.
template <class T>
T border_value(const ColumnGrid& grid) {
  return grid.padding_mode == PaddingMode::kConstant ? static_cast<T>(grid.pad_value) : T(0);
}

inline int64_t reach_of(const ColumnAxis& a) { return (a.taps - 1) * a.offset_step; }  // negative in backward-data

// How the rows that grid rows read are laid out: grid row o (counted from the slab's first) and tap t lie at entry
// o * point_step + t * tap_step + shift. Shared: one entry per input row, in order, so that taps overlap; otherwise one
// per (row, tap), for dilations and strides that leave gaps.
struct RowMap {
  bool shared;
  int64_t point_step, tap_step, shift;

  RowMap(const ColumnAxis& a, int64_t most_rows) {
    const int64_t span = std::abs(reach_of(a));
    shared = (most_rows - 1) * a.step + span + 1 <= most_rows * a.taps;
    point_step = shared ? a.step : a.taps;
    tap_step = shared ? a.offset_step : 1;
    shift = shared ? -std::min<int64_t>(reach_of(a), 0) : 0;
  }
  int64_t entries(const ColumnAxis& a, int64_t rows) const {
    return shared ? (rows - 1) * a.step + std::abs(reach_of(a)) + 1 : rows * a.taps;
  }
  int64_t coordinate(const ColumnAxis& a, int64_t first, int64_t entry) const {
    if (shared) return first * a.step + a.offset + std::min<int64_t>(reach_of(a), 0) + entry;
    return (first + entry / a.taps) * a.step + a.offset + entry % a.taps * a.offset_step;
  }
};

// Whether grid points that follow each other must do so in the copy of a strided row: vectors of them are loaded, or
// single values.
enum class Strides { kTakenApart, kKept };

// The innermost axis. A strided row is taken apart into lines, one per residue of the stride (shared) or one per tap;
// where its stride is kept, a shared row is a single line, which costs a plain copy.
struct LineMap {
  bool shared;
  int64_t first, lines, length;
  int64_t cell_step, point_step;  // of a line's elements in the input; of grid points in a line

  // `longest`: a shared line is no longer than that.
  LineMap(const ColumnAxis& a, int64_t first_point, int64_t points, Strides strides = Strides::kTakenApart,
          int64_t longest = INT64_MAX)
      : first(first_point), cell_step(a.step), point_step(1) {
    const int64_t shared_length = points + ceil_div(std::abs(reach_of(a)), a.step);
    shared = a.step * shared_length <= a.taps * points && shared_length <= longest;
    lines = shared ? a.step : a.taps;
    length = shared ? shared_length : points;
    if (!shared || strides == Strides::kTakenApart) return;
    lines = cell_step = 1, point_step = a.step;
    length = (points - 1) * a.step + std::abs(reach_of(a)) + 1;
  }
  int64_t entries() const { return lines * length; }
  int64_t tap_offset(const ColumnAxis& a, int64_t tap) const {
    if (!shared) return tap * length;
    const int64_t above = tap * a.offset_step - std::min<int64_t>(reach_of(a), 0);
    return above % lines * length + above / lines;
  }
  // The input coordinate of a line's first element; the others follow `cell_step` apart.
  int64_t coordinate(const ColumnAxis& a, int64_t line) const {
    const int64_t start = first * a.step + a.offset;
    return shared ? start + std::min<int64_t>(reach_of(a), 0) + line : start + line * a.offset_step;
  }
};

// One line of cells in every channel, padding included: what halo buffers are made of.
//
// Padding of every mode is made here. A row beyond the plane is the row that it shows; so is a cell beyond the row, and
// the cells on one side show a walk of constant step (back for reflect, none for replicate, on for circular), a
// gather like that of the row itself.
template <class T>
class LineGather {
 public:
  const GemmKernelsOf<T>& kernels;

  LineGather(const GemmKernelsOf<T>& table, const ColumnGrid& column_grid, int64_t cell_step)
      : kernels(table), grid(column_grid), axis(grid.axis[2]), step(cell_step), border(border_value<T>(grid)) {}

  // dst[channel * pitch + i] for i < length: cells of an input row, whose first element is `row`, from coordinate `at`
  // on, a step apart.
  void line(const ImageLayout& layout, const Stored<T>& image, int64_t row, int64_t at, int64_t length,
            int64_t channels, T* dst, int64_t pitch) const {
    const auto [first, last] = Inside(at, step, length, axis.size);
    if (grid.padding_mode == PaddingMode::kZeros) {  // zeros come with the copy
      if (layout.layout == Layout::kChannelsFirst)
        return image.gather_row(kernels, length, first, last, row + at, step, layout.channel_pitch, dst, pitch,
                                channels);
      if (first > 0) value(first, channels, dst, pitch);
      return cells(layout, image, row, at + first * step, step, last - first, length - first, channels, dst + first,
                   pitch);
    }
    side(layout, image, row, at, first, channels, dst, pitch);
    cells(layout, image, row, at + first * step, step, last - first, last - first, channels, dst + first, pitch);
    side(layout, image, row, at + last * step, length - last, channels, dst + last, pitch);
  }
  // The same of a row that shows none of the tensor.
  void value(int64_t count, int64_t channels, T* dst, int64_t pitch) const {
    const int64_t last = grid.padding_mode == PaddingMode::kConstant ? count : 0;
    kernels.gather_row(count, 0, last, &border, 0, 0, dst, pitch, channels);
  }

 private:
  // Cells on one side of the row.
  void side(const ImageLayout& layout, const Stored<T>& image, int64_t row, int64_t at, int64_t count, int64_t channels,
            T* dst, int64_t pitch) const {
    if (count == 0) return;
    const int64_t size = axis.size, from = padded_source(grid.padding_mode, at, size);
    // A line may be longer than what is read of it: beyond the padding no walk is defined.
    if (from < 0 || from >= size) return value(count, channels, dst, pitch);
    if (grid.padding_mode == PaddingMode::kReplicate)
      return cells(layout, image, row, from, 0, count, count, channels, dst, pitch);
    if (grid.padding_mode == PaddingMode::kReflect)
      return cells(layout, image, row, from, -step, std::min(count, from / step + 1), count, channels, dst, pitch);
    cells(layout, image, row, from, step, std::min(count, (size - 1 - from) / step + 1), count, channels, dst, pitch);
  }
  // dst[channel * pitch + i] = row[from + i * step], i < shown; 0 from there to count.
  void cells(const ImageLayout& layout, const Stored<T>& image, int64_t row, int64_t from, int64_t step, int64_t shown,
             int64_t count, int64_t channels, T* dst, int64_t pitch) const {
    if (count == 0) return;
    const int64_t first = row + from * layout.pixel_step();
    if (layout.layout == Layout::kChannelsFirst)
      image.gather_row(kernels, count, 0, shown, first, step, layout.channel_pitch, dst, pitch, channels);
    else  // channels lie side by side: a transposition
      image.transpose(kernels, shown, channels, count, first, step * layout.channel_pitch, dst, pitch);
  }

  const ColumnGrid& grid;
  const ColumnAxis& axis;
  const int64_t step;
  const T border;
};

// A grid that reads as it writes, channels first (1 x 1): dst[channel][pixel] for pixels [pixel, pixel + pixels).
template <class T>
void copy_planes(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout,
                 const Stored<T>& image, int64_t channel, int64_t channels, int64_t pixel, int64_t pixels, T* dst) {
  each_pixel_run(grid, pixel, pixels, [&](int64_t lane, int64_t count, int64_t n, int64_t at) {
    image.gather_row(kernels, count, 0, count, n * layout.batch_pitch + channel * layout.channel_pitch + at, 1,
                     layout.channel_pitch, dst + lane, pixels, channels);
  });
}

// What a strip of so many grid points copies to a halo buffer of one channel, about.
struct HaloCounts {
  double lines, elements;

  HaloCounts(const ColumnGrid& grid, int64_t strip, Strides strides) {
    const ColumnAxis* a = grid.axis;
    const int64_t width = std::max<int64_t>(1, a[2].columns), height = std::max<int64_t>(1, a[1].columns);
    const int64_t rows = std::min(height, ceil_div(strip, width)), points = std::min(strip, width);
    const LineMap map(a[2], 0, points, strides);
    const double slabs = std::max(1.0, static_cast<double>(strip) / static_cast<double>(width * height));
    lines = slabs * static_cast<double>(a[0].taps * RowMap(a[1], rows).entries(a[1], rows) * map.lines);
    elements = lines * static_cast<double>(map.length);
  }
};

// The grid rows of a strip within one (image, outermost coordinate).
struct Slab {
  int64_t n, o0, row, rows, entry;
};

// Gathers in two steps. The input rows that a strip reads are copied once into a halo buffer, padding included,
// strides taken apart: halo[channel][tap 0][row entry][line][element]. The rows of a panel are then whole vectors
// copied from there: a run may write past its end, because the next run, or the next row, overwrites that.
template <class T>
class HaloGather {
 public:
  HaloGather(const GemmKernelsOf<T>& table, const ColumnGrid& column_grid, int64_t column, int64_t columns,
             Strides strides = Strides::kTakenApart)
      : kernels(table),
        grid(column_grid),
        a(grid.axis),
        row_map(a[1], 1),
        lines(line_map(grid, column, columns, strides)),
        gather(table, column_grid, lines.cell_step) {
    int64_t most_rows = 1;
    each_run(grid, column, columns, [&](const Run& run) {
      if (slab_count == 0 || slabs[slab_count - 1].n != run.n || slabs[slab_count - 1].o0 != run.o[0])
        slabs[slab_count++] = {run.n, run.o[0], run.o[1], 0, 0};
      Slab& slab = slabs[slab_count - 1];
      slab.rows = run.o[1] - slab.row + 1;
      most_rows = std::max(most_rows, slab.rows);
    });
    row_map = RowMap(a[1], most_rows);
    for (int64_t i = 0; i < slab_count; ++i) {
      slabs[i].entry = row_entries;
      row_entries += row_map.entries(a[1], slabs[i].rows);
    }
  }

  static int64_t scratch(const ColumnGrid& grid, int64_t columns, int64_t channels, int nr) {
    const ColumnAxis* a = grid.axis;
    const int64_t slice = a[1].columns * a[2].columns;
    const int64_t slabs = std::min(columns, (columns + slice - 2) / slice + 1);
    const int64_t rows = std::min(a[1].columns, (columns + a[2].columns - 2) / a[2].columns + 1);
    // A strip with fewer rows may use the other map: take what either needs at most.
    const int64_t entries =
        std::min((rows - 1) * a[1].step + std::abs(reach_of(a[1])) + 1, rows * a[1].taps) + a[1].taps;
    // A strip that begins in one row and ends in the next reads both from end to end, however short it is.
    const int64_t points = a[2].columns;
    const LineMap lines(a[2], 0, points);
    const int64_t elements = std::max(lines.entries(), a[2].taps * points);
    return offset_elements(grid) + channels * slabs * a[0].taps * entries * elements + nr;
  }

  void fill(const ImageLayout& layout, const Stored<T>& image, int64_t channel, int64_t channels, T* scratch) const {
    each_line(layout, channel, [&](int64_t place, int64_t row, int64_t at) {
      if (row != kOutside)
        gather.line(layout, image, row, at, lines.length, channels, halo(scratch) + place, channel_pitch());
      else
        gather.value(lines.length, channels, halo(scratch) + place, channel_pitch());
    });
  }
  // visit(place, row, at) for every line of the halo: where it begins there, the first element of the channel's row
  // that it shows, or kOutside, and the coordinate in that row of its first cell; the others follow cell_step() apart.
  template <class Visit>
  void each_line(const ImageLayout& layout, int64_t channel, const Visit& visit) const {
    for (int64_t i = 0; i < slab_count; ++i) {
      const Slab& slab = slabs[i];
      const int64_t entries = row_map.entries(a[1], slab.rows);
      for (int64_t t0 = 0; t0 < a[0].taps; ++t0) {
        const int64_t depth =
            padded_source(grid.padding_mode, slab.o0 * a[0].step + a[0].offset + t0 * a[0].offset_step, a[0].size);
        int64_t place = (t0 * row_entries + slab.entry) * lines.entries();
        for (int64_t entry = 0; entry < entries; ++entry) {
          const int64_t row = padded_source(grid.padding_mode, row_map.coordinate(a[1], slab.row, entry), a[1].size);
          const bool shown = depth != kOutside && row != kOutside;
          const int64_t first = shown ? slab.n * layout.batch_pitch + channel * layout.channel_step() +
                                            (depth * a[1].size + row) * a[2].size * layout.pixel_step()
                                      : kOutside;
          for (int64_t line = 0; line < lines.lines; ++line, place += lines.length)
            visit(place, first, lines.coordinate(a[2], line));
        }
      }
    }
  }
  int64_t cell_step() const { return lines.cell_step; }
  int64_t line_length() const { return lines.length; }

  // Where every tap lies, counted from a run's own offset; written to the front of the scratch.
  int64_t* tap_offsets(T* scratch) const {
    int64_t* offsets = reinterpret_cast<int64_t*>(scratch);
    int64_t* offset = offsets;
    for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
      for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
        for (int64_t t2 = 0; t2 < a[2].taps; ++t2)
          *offset++ = (t0 * row_entries + t1 * row_map.tap_step) * lines.entries() + lines.tap_offset(a[2], t2);
    return offsets;
  }
  // Where a run's first grid point lies in the halo, the others `point_step` apart; runs come in order, *slab remembers
  // how far.
  int64_t offset_of(const Run& run, int64_t* slab) const {
    while (slabs[*slab].n != run.n || slabs[*slab].o0 != run.o[0]) ++*slab;
    const int64_t entry = slabs[*slab].entry + (run.o[1] - slabs[*slab].row) * row_map.point_step + row_map.shift;
    return entry * lines.entries() + (run.o[2] - lines.first) * lines.point_step;
  }
  int64_t point_step() const { return lines.point_step; }
  T* halo(T* scratch) const { return scratch + offset_elements(grid); }
  int64_t channel_pitch() const { return a[0].taps * row_entries * lines.entries(); }

  void expand(int64_t column, int64_t columns, int64_t channels, T* scratch, T* panels) const {
    int64_t* offsets = tap_offsets(scratch);
    const int64_t taps = grid.taps(), nr = kernels.nr;
    int64_t slab = 0;
    for (int64_t at = 0; at < columns; at += nr, panels += channels * taps * nr) {
      int64_t run_lane[64], run_offset[64];  // nr is at most 64
      int runs = 0;
      each_run(grid, column + at, std::min(nr, columns - at), [&](const Run& run) {
        run_lane[runs] = run.lane;
        run_offset[runs++] = offset_of(run, &slab);
      });
      kernels.expand(channels, channel_pitch(), taps, offsets, runs, run_lane, run_offset, halo(scratch), panels);
    }
  }

 private:
  static LineMap line_map(const ColumnGrid& grid, int64_t column, int64_t columns, Strides strides) {
    const int64_t width = grid.axis[2].columns, first = column % width;
    if (first + columns <= width) return LineMap(grid.axis[2], first, columns, strides);
    return LineMap(grid.axis[2], 0, width, strides);
  }
  static int64_t offset_elements(const ColumnGrid& grid) {
    return grid.taps() * static_cast<int64_t>(sizeof(int64_t) / sizeof(T));
  }

  const GemmKernelsOf<T>& kernels;
  const ColumnGrid& grid;
  const ColumnAxis* a;
  RowMap row_map;
  const LineMap lines;
  const LineGather<T> gather;
  Slab slabs[kMostColumns];
  int64_t slab_count = 0, row_entries = 0;
};

}  // namespace fastconv
