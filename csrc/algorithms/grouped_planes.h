// SPDX-License-Identifier: Apache-2.0
// What a band of grid points reads, copied as planes of one pitch: every tap of point (row, column) lies at
//   tap offset + row * pitch + column
// so that vectors of points may run over the ends of rows, and planes of any width fill them. A strided axis is taken
// apart into the residues of its stride, or, where taps leave gaps, into taps (LineMap, csrc/halo.h):
//   planes[channel][tap 0][class of rows][class of columns][row][pitch]
#pragma once

#include "../halo.h"
#include "../kernels/grouped_kernels.h"
#include "../machine.h"

namespace fastconv {

template <class T>
const GroupedKernelsOf<T>& grouped_kernels(const Machine& machine) {
  if constexpr (sizeof(T) == 8)
    return machine.kernels->grouped->f64;
  else
    return machine.kernels->grouped->f32;
}

// The grid points of one image and outermost coordinate that are computed together.
struct GroupedPlace {
  int64_t n, o0, row, rows, column, columns;
};

template <class Visit>
void each_tap(const ColumnGrid& grid, const Visit& visit) {
  for (int64_t t0 = 0; t0 < grid.axis[0].taps; ++t0)
    for (int64_t t1 = 0; t1 < grid.axis[1].taps; ++t1)
      for (int64_t t2 = 0; t2 < grid.axis[2].taps; ++t2) visit(t0, t1, t2);
}

// How a grid is cut into bands of whole rows, or, where rows are long, of parts of rows.
struct GroupedBands {
  int64_t rows, columns;            // of a band, at most
  int64_t row_bands, column_bands;  // of a slice
  int64_t slices;                   // of an image

  GroupedBands(const ColumnGrid& grid, int64_t most_rows, int64_t most_columns) {
    const ColumnAxis* a = grid.axis;
    slices = a[0].columns;
    row_bands = std::max<int64_t>(1, ceil_div(a[1].columns, most_rows));
    column_bands = std::max<int64_t>(1, ceil_div(a[2].columns, most_columns));
    rows = ceil_div(a[1].columns, row_bands);
    columns = ceil_div(a[2].columns, column_bands);
  }
  int64_t count() const { return slices * row_bands * column_bands; }
  // False for what rounding leaves empty.
  bool place(const ColumnGrid& grid, int64_t band, GroupedPlace* at) const {
    at->column = band % column_bands * columns;
    at->row = band / column_bands % row_bands * rows;
    at->o0 = band / column_bands / row_bands;
    at->columns = std::min(columns, grid.axis[2].columns - at->column);
    at->rows = std::min(rows, grid.axis[1].columns - at->row);
    return at->columns > 0 && at->rows > 0;
  }
};

template <class T>
class GroupedPlanes {
 public:
  GroupedPlanes(const Machine& machine, const ColumnGrid& column_grid, const GroupedBands& bands)
      : kernels(grouped_kernels<T>(machine)),
        grid(column_grid),
        a(grid.axis),
        gather(gemm_kernels<T>(machine), grid, a[2].step),
        most_rows(bands.rows),
        h(a[1], 0, bands.rows),
        w(a[2], 0, bands.columns, Strides::kTakenApart, bands.columns + std::max<int64_t>(4, bands.columns / 4)),
        pitch(w.length),
        plane(h.length * w.length),
        channel_pitch(a[0].taps * h.lines * w.lines * plane) {}

  const GroupedKernelsOf<T>& kernels;
  const ColumnGrid& grid;
  const ColumnAxis* a;
  const LineGather<T> gather;
  const int64_t most_rows;
  const LineMap h, w;
  const int64_t pitch, plane, channel_pitch;

  // Vectors reach beyond the last plane.
  int64_t elements(int64_t channels) const { return channels * channel_pitch + 2 * kernels.lanes; }
  int64_t vectors(const GroupedPlace& at) const {
    return ceil_div((at.rows - 1) * pitch + at.columns, int64_t{kernels.lanes});
  }

  // Of a tap of point 0.
  int64_t offset(int64_t channel, int64_t t0, int64_t t1, int64_t t2) const {
    const int64_t y = h.tap_offset(a[1], t1), x = w.tap_offset(a[2], t2);
    return channel * channel_pitch + ((t0 * h.lines + y / h.length) * w.lines + x / w.length) * plane +
           y % h.length * pitch + x % w.length;
  }

  void fill(const ImageLayout& layout, const Stored<T>& image, const GroupedPlace& at, int64_t channel,
            int64_t channels, T* dst) const {
    int64_t first = at.n * layout.batch_pitch + channel * layout.channel_step();
    const bool zeros = grid.padding_mode == PaddingMode::kZeros && layout.layout == Layout::kChannelsFirst;
    const bool pairs =
        zeros && a[2].step == 2 && w.lines == 2 && w.shared && image.fits(a[2].size);  // of a row at once
    const int64_t block = zeros ? 1 : channels;
    for (int64_t c = 0; c < channels; c += block, first += layout.channel_step(), dst += channel_pitch) {
      T* to = dst;
      for (int64_t t0 = 0; t0 < a[0].taps; ++t0) {
        const int64_t depth =
            padded_source(grid.padding_mode, at.o0 * a[0].step + a[0].offset + t0 * a[0].offset_step, a[0].size);
        for (int64_t i = 0; i < h.lines; ++i)
          for (int64_t j = 0; j < w.lines; j += pairs ? 2 : 1, to += pairs ? 2 * plane : plane) {
            const int64_t row = h.coordinate(a[1], i) + at.row * a[1].step;
            const int64_t column = w.coordinate(a[2], j) + at.column * a[2].step;
            const int64_t rows = h.length - (most_rows - at.rows);
            if (pairs)
              copy_two_planes(image, first, depth, row, rows, column, to);
            else if (zeros)
              copy_plane(image, first, depth, row, rows, column, to);
            else
              gather_plane(layout, image, first, depth, row, rows, column, channels, to);
          }
      }
    }
  }

 private:
  void copy_plane(const Stored<T>& image, int64_t first, int64_t depth, int64_t row, int64_t rows, int64_t column,
                  T* dst) const {
    const Inside y = depth == kOutside ? Inside{} : Inside(row, a[1].step, rows, a[1].size);
    const Inside x(column, a[2].step, pitch, a[2].size);
    std::fill(dst, dst + y.first * pitch, T(0));
    if (y.first < y.last) {
      const int64_t from = first + (depth * a[1].size + row + y.first * a[1].step) * a[2].size + column;
      const int64_t src_pitch = a[1].step * a[2].size, count = y.last - y.first;
      if (image.is_half())
        image.gather_row(gather.kernels, pitch, x.first, x.last, from, a[2].step, src_pitch, dst + y.first * pitch,
                         pitch, count);
      else
        kernels.copy_rows(count, pitch, x.first, x.last, image.at(from), a[2].step, src_pitch, dst + y.first * pitch,
                          pitch);
    }
    std::fill(dst + y.last * pitch, dst + rows * pitch, T(0));
  }

  void copy_two_planes(const Stored<T>& image, int64_t first, int64_t depth, int64_t row, int64_t rows, int64_t column,
                       T* dst) const {
    const Inside y = depth == kOutside ? Inside{} : Inside(row, a[1].step, rows, a[1].size);
    for (T* to : {dst, dst + plane}) {
      std::fill(to, to + y.first * pitch, T(0));
      std::fill(to + y.last * pitch, to + rows * pitch, T(0));
    }
    if (y.first == y.last) return;
    const int64_t row_first = first + (depth * a[1].size + row + y.first * a[1].step) * a[2].size;
    image.each_rows(y.last - y.first, a[2].size, row_first, a[1].step * a[2].size,
                    [&](int64_t done, int64_t count, const T* src, int64_t src_pitch) {
                      const int64_t to = (y.first + done) * pitch;
                      kernels.copy_pairs(count, pitch, -column, a[2].size - column, src + column, src_pitch, dst + to,
                                         dst + plane + to, pitch);
                    });
  }

  void gather_plane(const ImageLayout& layout, const Stored<T>& image, int64_t first, int64_t depth, int64_t row,
                    int64_t rows, int64_t column, int64_t channels, T* dst) const {
    for (int64_t i = 0; i < rows; ++i, dst += pitch) {
      const int64_t y = padded_source(grid.padding_mode, row + i * a[1].step, a[1].size);
      if (depth == kOutside || y < 0 || y >= a[1].size)
        gather.value(pitch, channels, dst, channel_pitch);
      else
        gather.line(layout, image, first + (depth * a[1].size + y) * a[2].size * layout.pixel_step(), column, pitch,
                    channels, dst, channel_pitch);
    }
  }
};

}  // namespace fastconv
