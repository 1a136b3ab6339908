// SPDX-License-Identifier: Apache-2.0
// The column matrix of a convolution, never built whole: strips of it are gathered straight into the panels of a
// matrix product. Rows are (channel, tap), columns are (image, grid point).
//
// A forward grid point is an output pixel and its taps lie in x:       x[o * stride + t * dilation - pad].
// A backward-data grid is one *phase* of x, the pixels i = phase + stride * o; only the taps with
// (phase + pad - t * dilation) divisible by stride reach them, and they lie in y at o + (phase + pad - t * dilation) /
// stride. Both are linear in o and in the tap's number within the phase, which is all that ColumnAxis holds.
//
// Padding that shows cells of x (reflect, replicate, circular) gives their gradients further terms: csrc/border.h.
#pragma once

#include <algorithm>

#include "kernels/kernel_table.h"
#include "problem.h"
#include "stored.h"

namespace fastconv {

struct ColumnAxis {
  int64_t columns;  // grid points
  int64_t size;     // of the tensor that is read
  int64_t step;     // read coordinate = column * step + offset + tap * offset_step
  int64_t offset, offset_step;
  int64_t taps;                 // taps that take part
  int64_t first_tap, tap_step;  // the filter coordinate of tap j is first_tap + j * tap_step
  int64_t out_size;             // of the tensor whose pixels the grid points are
  int64_t out_first, out_step;  // pixel = out_first + column * out_step
};

struct ColumnGrid {
  ColumnAxis axis[kMaxSpatial];
  // What is read beyond the tensor: gathering maps coordinates, no padded copy is made.
  PaddingMode padding_mode = PaddingMode::kZeros;
  double pad_value = 0;
  // A block of padding (csrc/border.h): columns may share pixels, and are added to them.
  bool adds = false;

  int64_t columns() const { return axis[0].columns * axis[1].columns * axis[2].columns; }
  int64_t taps() const { return axis[0].taps * axis[1].taps * axis[2].taps; }
  // Every pixel of the written tensor, in order: its columns lie one after the other in memory.
  bool is_dense() const {
    for (const ColumnAxis& a : axis)
      if (a.out_first != 0 || a.columns != a.out_size || a.out_step != 1) return false;
    return true;
  }
  // Windows side by side: every pixel that is read belongs to one column and one tap.
  bool is_cut_in_patches() const {
    for (const ColumnAxis& a : axis)
      if (a.offset != 0 || a.offset_step != 1 || a.step != a.taps || a.columns * a.step > a.size) return false;
    return !adds;
  }
  // is_dense, and one tap reads exactly the pixel of the same coordinate.
  bool reads_as_written() const {
    for (const ColumnAxis& a : axis)
      if (a.step != 1 || a.offset != 0 || a.size != a.out_size || a.taps != 1) return false;
    return is_dense();
  }
};

// `pad_value` matters to PaddingMode::kConstant, and only where columns are gathered.
ColumnGrid forward_grid(const ConvProblem& problem, double pad_value = 0);
int64_t phase_count(const ConvProblem& problem, int axis);  // of x itself

// The coordinates of x on one axis, and those of the padding before and after it.
enum class Side { kAlong, kBefore, kAfter };
struct Extent {
  int64_t begin, end;
};
Extent extent_of(const ConvProblem& problem, int axis, Side side);
// `phase` per axis, below the stride and the extent.
ColumnGrid backward_data_grid(const ConvProblem& problem, const Side* side, const int64_t* phase);

// visit(grid) for the phases of x, or of the block of padding on these sides; also for those that no tap reaches.
template <class Visit>
void each_backward_data_grid(const ConvProblem& p, const Side* side, const Visit& visit) {
  int64_t phases[kMaxSpatial], phase[kMaxSpatial];
  for (int a = 0; a < kMaxSpatial; ++a) {
    const Extent extent = extent_of(p, a, side[a]);
    phases[a] = std::min(p.stride[a], extent.end - extent.begin);
  }
  for (phase[0] = 0; phase[0] < phases[0]; ++phase[0])
    for (phase[1] = 0; phase[1] < phases[1]; ++phase[1])
      for (phase[2] = 0; phase[2] < phases[2]; ++phase[2]) visit(backward_data_grid(p, side, phase));
}
template <class Visit>
void each_backward_data_grid(const ConvProblem& p, const Visit& visit) {
  constexpr Side kX[kMaxSpatial] = {Side::kAlong, Side::kAlong, Side::kAlong};
  each_backward_data_grid(p, kX, visit);
}

// The pixels of y themselves, one tap: the other factor of a filter gradient. And those of x.
ColumnGrid identity_grid(const ConvProblem& problem);
ColumnGrid pixels_of_x(const ConvProblem& problem);

// Where a tensor's elements lie.
struct ImageLayout {
  Layout layout;
  int64_t batch_pitch;
  int64_t channel_pitch;  // channels last: of two pixels

  int64_t channel_step() const { return layout == Layout::kChannelsLast ? 1 : channel_pitch; }
  int64_t pixel_step() const { return layout == Layout::kChannelsLast ? channel_pitch : 1; }

  // dst[pixel][lane] of `count` pixels side by side from element `from` on; lanes beyond `channels` are zero.
  template <class T>
  void load_pixels(const GemmKernelsOf<T>& kernels, const Stored<T>& image, int64_t from, int64_t count,
                   int64_t channels, int64_t lanes, T* dst) const {
    if (count <= 0) return;
    if (layout == Layout::kChannelsLast)
      image.gather_row(kernels, lanes, 0, channels, from, 1, channel_pitch, dst, lanes, count);
    else
      image.transpose(kernels, channels, count, lanes, from, channel_pitch, dst, lanes);
  }
};

inline constexpr int64_t kMostColumns = 1024;  // of a strip

// Elements of scratch that gathering a strip of `columns` columns and `channels` channels takes at most.
int64_t gather_scratch(const ColumnGrid& grid, int64_t columns, int64_t channels, int nr);

// dst[panel][channel * taps + tap][nr] for columns [column, column + columns) of all images laid end to end, and
// channels [channel, channel + channels). Lanes beyond the last column are undefined, and so are nr elements after
// the last panel.
template <class T>
void pack_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout,
                  const Stored<T>& image, int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst,
                  T* scratch);

// Moves c[row][column - first] to (or, with `gather`, from) the pixels that the columns stand for; row r is channel
// `channel` + r.
template <class T>
void move_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, bool gather,
                  const Stored<T>& image, int64_t column, int64_t columns, int64_t channel, int64_t rows, T* c,
                  int64_t ldc);

}  // namespace fastconv
