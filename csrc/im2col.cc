// SPDX-License-Identifier: Apache-2.0
#include "im2col.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace fastconv {

ColumnGrid forward_grid(const ConvProblem& p) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t out = output_size(p, a);
    grid.axis[a] = {out, p.size[a], p.stride[a], -p.pad_begin[a], p.dilation[a], p.filter[a], 0, 1, out, 0, 1};
  }
  return grid;
}

int64_t phase_count(const ConvProblem& p, int axis) { return std::min(p.stride[axis], p.size[axis]); }

ColumnGrid backward_data_grid(const ConvProblem& p, const int64_t* phase) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t stride = p.stride[a], dilation = p.dilation[a], divisor = std::gcd(stride, dilation);
    const int64_t reach = phase[a] + p.pad_begin[a], period = stride / divisor;
    ColumnAxis& axis = grid.axis[a];
    axis = {(p.size[a] - phase[a] + stride - 1) / stride,
            output_size(p, a),
            1,
            0,
            -(dilation / divisor),
            0,
            0,
            period,
            p.size[a],
            phase[a],
            stride};
    // The first tap that reaches this phase; the others follow every `period` taps.
    int64_t first = 0;
    while (first < period && first < p.filter[a] && (reach - first * dilation) % stride != 0) ++first;
    if (first < period && first < p.filter[a]) {
      axis.first_tap = first;
      axis.taps = (p.filter[a] - 1 - first) / period + 1;
      axis.offset = (reach - first * dilation) / stride;
    }
  }
  return grid;
}

ColumnGrid identity_grid(const ConvProblem& p) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t out = output_size(p, a);
    grid.axis[a] = {out, out, 1, 0, 1, 1, 0, 1, out, 0, 1};
  }
  return grid;
}

namespace {

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

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t reach_of(const ColumnAxis& a) { return (a.taps - 1) * a.offset_step; }  // negative in backward-data

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

// The innermost axis: lanes of a run must follow each other, so a strided row is taken apart into lines, one per
// residue of the stride (shared) or one per tap.
struct LineMap {
  bool shared;
  int64_t first, lines, length;

  LineMap(const ColumnAxis& a, int64_t first_point, int64_t points) : first(first_point) {
    const int64_t shared_length = points + ceil_div(std::abs(reach_of(a)), a.step);
    shared = a.step * shared_length <= a.taps * points;
    lines = shared ? a.step : a.taps;
    length = shared ? shared_length : points;
  }
  int64_t entries() const { return lines * length; }
  int64_t tap_offset(const ColumnAxis& a, int64_t tap) const {
    if (!shared) return tap * length;
    const int64_t above = tap * a.offset_step - std::min<int64_t>(reach_of(a), 0);
    return above % a.step * length + above / a.step;
  }
  // The input coordinate of a line's first element; the others follow `step` apart.
  int64_t coordinate(const ColumnAxis& a, int64_t line) const {
    const int64_t start = first * a.step + a.offset;
    return shared ? start + std::min<int64_t>(reach_of(a), 0) + line : start + line * a.offset_step;
  }
};

// The grid rows of a strip within one (image, outermost coordinate).
struct Slab {
  int64_t n, o0, row, rows, entry;
};

// Gathers in two steps. The input rows that a strip reads are copied once into a halo buffer, zero padding included,
// strides taken apart: halo[channel][tap 0][row entry][line][element]. The rows of a panel are then whole vectors
// copied from there: a run may write past its end, because the next run, or the next row, overwrites that.
template <class T>
class HaloGather {
 public:
  HaloGather(const GemmKernelsOf<T>& table, const ColumnGrid& column_grid, int64_t column, int64_t columns)
      : kernels(table), grid(column_grid), a(grid.axis), row_map(a[1], 1), lines(line_map(grid, column, columns)) {
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
    const int64_t points = std::min(a[2].columns, columns);
    const LineMap lines(a[2], 0, points);
    const int64_t elements = std::max(lines.entries(), a[2].taps * points);
    return offset_elements(grid) + channels * slabs * a[0].taps * entries * elements + nr;
  }

  void fill(const ImageLayout& layout, const T* image, int64_t channel, int64_t channels, T* scratch) const {
    for (int64_t i = 0; i < slab_count; ++i) {
      const Slab& slab = slabs[i];
      const int64_t entries = row_map.entries(a[1], slab.rows);
      for (int64_t t0 = 0; t0 < a[0].taps; ++t0) {
        const int64_t depth = slab.o0 * a[0].step + a[0].offset + t0 * a[0].offset_step;
        T* dst = halo(scratch) + (t0 * row_entries + slab.entry) * lines.entries();
        for (int64_t entry = 0; entry < entries; ++entry) {
          const int64_t row = row_map.coordinate(a[1], slab.row, entry);
          const bool inside = depth >= 0 && depth < a[0].size && row >= 0 && row < a[1].size;
          const T* src = image + slab.n * layout.batch_pitch + channel * layout.channel_step() +
                         (inside ? (depth * a[1].size + row) * a[2].size : 0) * layout.pixel_step();
          for (int64_t line = 0; line < lines.lines; ++line, dst += lines.length)
            fill_line(layout, src, inside, lines.coordinate(a[2], line), channels, dst);
        }
      }
    }
  }

  void expand(int64_t column, int64_t columns, int64_t channels, T* scratch, T* panels) const {
    int64_t* offsets = reinterpret_cast<int64_t*>(scratch);
    int64_t* offset = offsets;
    for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
      for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
        for (int64_t t2 = 0; t2 < a[2].taps; ++t2)
          *offset++ = (t0 * row_entries + t1 * row_map.tap_step) * lines.entries() + lines.tap_offset(a[2], t2);
    const int64_t taps = grid.taps(), nr = kernels.nr;
    int64_t slab = 0;
    for (int64_t at = 0; at < columns; at += nr, panels += channels * taps * nr) {
      int64_t run_lane[64], run_offset[64];  // nr is at most 64
      int runs = 0;
      each_run(grid, column + at, std::min(nr, columns - at), [&](const Run& run) {
        while (slabs[slab].n != run.n || slabs[slab].o0 != run.o[0]) ++slab;
        const int64_t entry = slabs[slab].entry + (run.o[1] - slabs[slab].row) * row_map.point_step + row_map.shift;
        run_lane[runs] = run.lane;
        run_offset[runs++] = entry * lines.entries() + run.o[2] - lines.first;
      });
      kernels.expand(channels, channel_pitch(), taps, offsets, runs, run_lane, run_offset, halo(scratch), panels);
    }
  }

 private:
  static LineMap line_map(const ColumnGrid& grid, int64_t column, int64_t columns) {
    const int64_t width = grid.axis[2].columns, first = column % width;
    return first + columns <= width ? LineMap(grid.axis[2], first, columns) : LineMap(grid.axis[2], 0, width);
  }
  static int64_t offset_elements(const ColumnGrid& grid) {
    return grid.taps() * static_cast<int64_t>(sizeof(int64_t) / sizeof(T));
  }
  T* halo(T* scratch) const { return scratch + offset_elements(grid); }
  int64_t channel_pitch() const { return a[0].taps * row_entries * lines.entries(); }

  // lines.length elements, `step` apart, of an input row from coordinate `at` on, in every channel.
  void fill_line(const ImageLayout& layout, const T* row, bool inside, int64_t at, int64_t channels, T* dst) const {
    const int64_t step = a[2].step, length = lines.length;
    int64_t first = 0, last = 0;
    if (inside && at < a[2].size) {
      first = std::min(length, at < 0 ? ceil_div(-at, step) : 0);
      last = std::min(length, (a[2].size - 1 - at) / step + 1);
    }
    if (first >= last) return kernels.gather_row(length, 0, 0, row, 1, 0, dst, channel_pitch(), channels);
    const T* src = row + (at + first * step) * layout.pixel_step();
    if (layout.layout == Layout::kChannelsFirst)
      return kernels.gather_row(length, first, last, src - first * step, step, layout.channel_pitch, dst,
                                channel_pitch(), channels);
    // Channels lie side by side: a transposition.
    if (first > 0) kernels.gather_row(first, 0, 0, row, 1, 0, dst, channel_pitch(), channels);
    kernels.transpose(last - first, channels, length - first, src, step * layout.channel_pitch, dst + first,
                      channel_pitch());
  }

  const GemmKernelsOf<T>& kernels;
  const ColumnGrid& grid;
  const ColumnAxis* a;
  RowMap row_map;
  const LineMap lines;
  Slab slabs[kMostColumns];
  int64_t slab_count = 0, row_entries = 0;
};

// One tap: columns are copied straight from the image. Channels go in small blocks, so that a channel's columns are
// read while their lines are near.
template <class T>
void copy_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, const T* image,
                  int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst) {
  constexpr int64_t kChannelBlock = 16;
  const ColumnAxis* a = grid.axis;
  const int64_t nr = kernels.nr, panel = channels * nr, step = a[2].step;
  const auto copy = [&](int64_t lane, int64_t count, int64_t n, int64_t pixel, int64_t c, int64_t size) {
    const T* src = image + n * layout.batch_pitch + pixel * layout.pixel_step() + (channel + c) * layout.channel_step();
    for (int64_t i = 0, part; i < count; i += part) {
      part = std::min(count - i, nr - (lane + i) % nr);
      T* at = dst + (lane + i) / nr * panel + c * nr + (lane + i) % nr;
      const T* from = src + i * step * layout.pixel_step();
      if (layout.layout == Layout::kChannelsFirst)
        kernels.gather_row(part, 0, part, from, step, layout.channel_pitch, at, nr, size);
      else
        kernels.transpose(part, size, part, from, step * layout.channel_pitch, at, nr);
    }
  };
  for (int64_t c = 0; c < channels; c += kChannelBlock) {
    const int64_t size = std::min(kChannelBlock, channels - c);
    if (grid.reads_as_written()) {
      each_pixel_run(grid, column, columns, [&](int64_t lane, int64_t count, int64_t n, int64_t pixel) {
        copy(lane, count, n, pixel, c, size);
      });
      continue;
    }
    each_run(grid, column, columns, [&](const Run& run) {
      int64_t at[kMaxSpatial];
      bool inside = true;
      for (int i = 0; i < kMaxSpatial; ++i) {
        at[i] = run.o[i] * a[i].step + a[i].offset;
        inside = inside && at[i] >= 0 && at[i] + (i == 2 ? (run.count - 1) * step : 0) < a[i].size;
      }
      if (inside) return copy(run.lane, run.count, run.n, (at[0] * a[1].size + at[1]) * a[2].size + at[2], c, size);
      for (int64_t i = 0; i < run.count; ++i) {  // padding around a single tap: rare
        const int64_t x = at[2] + i * step, lane = run.lane + i;
        if (at[0] >= 0 && at[0] < a[0].size && at[1] >= 0 && at[1] < a[1].size && x >= 0 && x < a[2].size)
          copy(lane, 1, run.n, (at[0] * a[1].size + at[1]) * a[2].size + x, c, size);
        else
          kernels.gather_row(1, 0, 0, image, 1, 0, dst + lane / nr * panel + c * nr + lane % nr, nr, size);
      }
    });
  }
}

}  // namespace

int64_t gather_scratch(const ColumnGrid& grid, int64_t columns, int64_t channels, int nr) {
  if (grid.taps() <= 1) return 0;
  return HaloGather<float>::scratch(grid, columns, channels, nr);
}

template <class T>
void pack_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, const T* image,
                  int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst, T* scratch) {
  if (grid.taps() == 0) return;
  if (grid.taps() == 1) return copy_columns(kernels, grid, layout, image, column, columns, channel, channels, dst);
  const HaloGather<T> gather(kernels, grid, column, columns);
  gather.fill(layout, image, channel, channels, scratch);
  gather.expand(column, columns, channels, scratch, dst);
}

template <class T>
void move_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, bool gather,
                  T* image, int64_t column, int64_t columns, int64_t channel, int64_t rows, T* c, int64_t ldc) {
  const int64_t step = grid.axis[2].out_step;
  each_pixel_run(grid, column, columns, [&](int64_t lane, int64_t count, int64_t n, int64_t pixel) {
    T* at = image + n * layout.batch_pitch + pixel * layout.pixel_step() + channel * layout.channel_step();
    T* strip = c + lane;
    if (layout.layout == Layout::kChannelsLast) {
      const int64_t pitch = step * layout.channel_pitch;
      if (gather)
        kernels.transpose(count, rows, count, at, pitch, strip, ldc);
      else
        kernels.transpose(rows, count, rows, strip, ldc, at, pitch);
    } else if (gather) {
      kernels.gather_row(count, 0, count, at, step, layout.channel_pitch, strip, ldc, rows);
    } else if (step == 1) {
      kernels.gather_row(count, 0, count, strip, 1, ldc, at, layout.channel_pitch, rows);
    } else {
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t i = 0; i < count; ++i) at[r * layout.channel_pitch + i * step] = strip[r * ldc + i];
    }
  });
}

template void pack_columns<float>(const GemmKernelsOf<float>&, const ColumnGrid&, const ImageLayout&, const float*,
                                  int64_t, int64_t, int64_t, int64_t, float*, float*);
template void pack_columns<double>(const GemmKernelsOf<double>&, const ColumnGrid&, const ImageLayout&, const double*,
                                   int64_t, int64_t, int64_t, int64_t, double*, double*);
template void move_columns<float>(const GemmKernelsOf<float>&, const ColumnGrid&, const ImageLayout&, bool, float*,
                                  int64_t, int64_t, int64_t, int64_t, float*, int64_t);
template void move_columns<double>(const GemmKernelsOf<double>&, const ColumnGrid&, const ImageLayout&, bool, double*,
                                   int64_t, int64_t, int64_t, int64_t, double*, int64_t);

}  // namespace fastconv
