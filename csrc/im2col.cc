// SPDX-License-Identifier: Apache-2.0
#include "im2col.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

#include "halo.h"

namespace fastconv {

ColumnGrid forward_grid(const ConvProblem& p, double pad_value) {
  ColumnGrid grid;
  grid.padding_mode = p.padding_mode;
  grid.pad_value = pad_value;
  for (int a = 0; a < kMaxSpatial; ++a) {
    const int64_t out = output_size(p, a);
    grid.axis[a] = {out, p.size[a], p.stride[a], -p.pad_begin[a], p.dilation[a], p.filter[a], 0, 1, out, 0, 1};
  }
  return grid;
}

int64_t phase_count(const ConvProblem& p, int axis) { return std::min(p.stride[axis], p.size[axis]); }

Extent extent_of(const ConvProblem& p, int axis, Side side) {
  if (side == Side::kBefore) return {-p.pad_begin[axis], 0};
  if (side == Side::kAfter) return {p.size[axis], p.size[axis] + p.pad_end[axis]};
  return {0, p.size[axis]};
}

namespace {

ColumnAxis backward_data_axis(const ConvProblem& p, int a, Side side, int64_t phase, bool few_taps) {
  const int64_t stride = p.stride[a], dilation = p.dilation[a], divisor = std::gcd(stride, dilation);
  const int64_t out = output_size(p, a), period = stride / divisor;
  const Extent extent = extent_of(p, a, side);
  const int64_t first = extent.begin + phase, reach = first + p.pad_begin[a];
  ColumnAxis axis = {
      ceil_div(extent.end - first, stride), out, 1, 0, -(dilation / divisor), 0, 0, period, p.size[a], first, stride};
  if (side != Side::kAlong) {
    axis.out_first = padded_source(p.padding_mode, first, p.size[a]);
    axis.out_step *= p.padding_mode == PaddingMode::kReflect ? -1 : p.padding_mode == PaddingMode::kReplicate ? 0 : 1;
  }
  if (axis.columns == 1) axis.out_step = 1;  // as good as any: rows of one pixel are dense
  // Of a block of padding only the taps that meet y somewhere: all below `end`, from `tap` on. The first that reaches
  // this phase, the others follow every `period` taps.
  int64_t tap = 0, end = p.filter[a];
  if (few_taps) {
    const int64_t farthest = reach + (axis.columns - 1) * stride, too_far = reach - (out - 1) * stride;
    end = std::min(end, farthest / dilation + 1);
    tap = too_far > 0 ? ceil_div(too_far, dilation) : 0;
  }
  const int64_t last_try = std::min(end, tap + period);
  while (tap < last_try && (reach - tap * dilation) % stride != 0) ++tap;
  if (tap < last_try) {
    axis.first_tap = tap;
    axis.taps = (end - 1 - tap) / period + 1;
    axis.offset = (reach - tap * dilation) / stride;
  }
  return axis;
}

}  // namespace

ColumnGrid backward_data_grid(const ConvProblem& p, const Side* side, const int64_t* phase) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) grid.adds = grid.adds || side[a] != Side::kAlong;
  for (int a = 0; a < kMaxSpatial; ++a) grid.axis[a] = backward_data_axis(p, a, side[a], phase[a], grid.adds);
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

ColumnGrid pixels_of_x(const ConvProblem& p) {
  ColumnGrid grid;
  for (int a = 0; a < kMaxSpatial; ++a) grid.axis[a] = {p.size[a], p.size[a], 1, 0, 1, 1, 0, 1, p.size[a], 0, 1};
  return grid;
}

namespace {

// One tap: columns are copied straight from the image. Channels go in small blocks, so that a channel's columns are
// read while their lines are near.
template <class T>
void copy_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout,
                  const Stored<T>& image, int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst) {
  constexpr int64_t kChannelBlock = 16;
  const ColumnAxis* a = grid.axis;
  const int64_t nr = kernels.nr, panel = channels * nr, step = a[2].step;
  const T value = border_value<T>(grid);
  const auto copy = [&](int64_t lane, int64_t count, int64_t n, int64_t pixel, int64_t c, int64_t size) {
    const int64_t first = n * layout.batch_pitch + pixel * layout.pixel_step() + (channel + c) * layout.channel_step();
    for (int64_t i = 0, part; i < count; i += part) {
      part = std::min(count - i, nr - (lane + i) % nr);
      T* at = dst + (lane + i) / nr * panel + c * nr + (lane + i) % nr;
      const int64_t from = first + i * step * layout.pixel_step();
      if (layout.layout == Layout::kChannelsFirst)
        image.gather_row(kernels, part, 0, part, from, step, layout.channel_pitch, at, nr, size);
      else
        image.transpose(kernels, part, size, part, from, step * layout.channel_pitch, at, nr);
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
      for (int i = 0; i < kMaxSpatial; ++i) at[i] = run.o[i] * a[i].step + a[i].offset;
      const int64_t depth = padded_source(grid.padding_mode, at[0], a[0].size);
      const int64_t row = padded_source(grid.padding_mode, at[1], a[1].size);
      const bool shown = depth != kOutside && row != kOutside;
      const int64_t pixel = (depth * a[1].size + row) * a[2].size;
      const Inside inside = shown ? Inside(at[2], step, run.count, a[2].size) : Inside{};
      if (inside.first < inside.last)
        copy(run.lane + inside.first, inside.last - inside.first, run.n, pixel + at[2] + inside.first * step, c, size);
      for (int64_t i = 0; i < run.count; ++i) {  // padding around a single tap: rare
        if (i == inside.first) i = inside.last;
        if (i == run.count) break;
        const int64_t x = shown ? padded_source(grid.padding_mode, at[2] + i * step, a[2].size) : kOutside;
        const int64_t lane = run.lane + i;
        if (x != kOutside)
          copy(lane, 1, run.n, pixel + x, c, size);
        else
          kernels.gather_row(1, 0, 1, &value, 0, 0, dst + lane / nr * panel + c * nr + lane % nr, nr, size);
      }
    });
  }
}

// visit(image, pixel at the corner of the patch, lane, how many patches side by side)
template <class Visit>
void each_patches(const ColumnGrid& grid, int64_t column, int64_t columns, const Visit& visit) {
  const ColumnAxis* a = grid.axis;
  each_run(grid, column, columns, [&](const Run& run) {
    const int64_t line = run.o[0] * a[0].step * a[1].size + run.o[1] * a[1].step;
    visit(run.n, line * a[2].size + run.o[2] * a[2].step, run.lane, run.count);
  });
}
// visit(first tap, pixels from the corner) of a patch's rows
template <class Visit>
void each_patch_row(const ColumnGrid& grid, const Visit& visit) {
  const ColumnAxis* a = grid.axis;
  for (int64_t row = 0; row < a[0].taps * a[1].taps; ++row)
    visit(row * a[2].taps, (row / a[1].taps * a[1].size + row % a[1].taps) * a[2].size);
}

// A patch's row of taps is turned straight into the rows of the panel.
template <class T>
void turn_patches(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout,
                  const Stored<T>& image, int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst) {
  constexpr int64_t kMostLanes = 64, kMostRows = 64;  // nr is at most 64
  const ColumnAxis& across = grid.axis[2];
  const int64_t nr = kernels.nr, taps = grid.taps();
  const bool first = layout.layout == Layout::kChannelsFirst;
  for (int64_t at = 0; at < columns; at += nr, dst += channels * taps * nr) {
    const int64_t count = std::min(nr, columns - at);
    if (first && !image.is_half() && across.taps >= kernels.piece) {
      int64_t places[kMostLanes];
      each_patches(grid, column + at, count, [&](int64_t n, int64_t pixel, int64_t lane, int64_t some) {
        for (int64_t i = 0; i < some; ++i) places[lane + i] = n * layout.batch_pitch + pixel + i * across.step;
      });
      int64_t offsets[kMostRows], rows = 0, done = 0;
      const auto turn = [&]() {
        kernels.turn_pieces(count, places, rows, offsets, across.taps, image.at(channel * layout.channel_pitch),
                            dst + done * across.taps * nr, nr);
        done += rows, rows = 0;
      };
      for (int64_t c = 0; c < channels; ++c)
        each_patch_row(grid, [&](int64_t, int64_t pixels) {
          offsets[rows++] = c * layout.channel_pitch + pixels;
          if (rows == kMostRows) turn();
        });
      turn();
      continue;
    }
    each_patches(grid, column + at, count, [&](int64_t n, int64_t pixel, int64_t lane, int64_t some) {
      each_patch_row(grid, [&](int64_t tap, int64_t pixels) {
        const int64_t from =
            n * layout.batch_pitch + channel * layout.channel_step() + (pixel + pixels) * layout.pixel_step();
        T* to = dst + tap * nr + lane;
        if (first)
          for (int64_t c = 0; c < channels; ++c)
            image.transpose(kernels, some, across.taps, some, from + c * layout.channel_pitch, across.step,
                            to + c * taps * nr, nr);
        else
          for (int64_t t = 0; t < across.taps; ++t)
            image.transpose(kernels, some, channels, some, from + t * layout.channel_pitch,
                            across.step * layout.channel_pitch, to + t * nr, taps * nr);
      });
    });
  }
}

}  // namespace

int64_t gather_scratch(const ColumnGrid& grid, int64_t columns, int64_t channels, int nr) {
  if (grid.taps() <= 1 || grid.is_cut_in_patches()) return 0;
  return HaloGather<float>::scratch(grid, columns, channels, nr);
}

template <class T>
void pack_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout,
                  const Stored<T>& image, int64_t column, int64_t columns, int64_t channel, int64_t channels, T* dst,
                  T* scratch) {
  if (grid.taps() == 0) return;
  if (grid.taps() == 1) return copy_columns(kernels, grid, layout, image, column, columns, channel, channels, dst);
  if (grid.is_cut_in_patches())
    return turn_patches(kernels, grid, layout, image, column, columns, channel, channels, dst);
  const HaloGather<T> gather(kernels, grid, column, columns);
  gather.fill(layout, image, channel, channels, scratch);
  gather.expand(column, columns, channels, scratch, dst);
}

template <class T>
void move_columns(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout, bool gather,
                  const Stored<T>& image, int64_t column, int64_t columns, int64_t channel, int64_t rows, T* c,
                  int64_t ldc) {
  const int64_t step = grid.axis[2].out_step;
  each_pixel_run(grid, column, columns, [&](int64_t lane, int64_t count, int64_t n, int64_t pixel) {
    const int64_t at = n * layout.batch_pitch + pixel * layout.pixel_step() + channel * layout.channel_step();
    T* strip = c + lane;
    if (layout.layout == Layout::kChannelsLast) {
      const int64_t pitch = step * layout.channel_pitch;
      if (gather)
        image.transpose(kernels, count, rows, count, at, pitch, strip, ldc);
      else
        image.put_transposed(kernels, rows, count, strip, ldc, at, pitch);
    } else if (gather) {
      image.gather_row(kernels, count, 0, count, at, step, layout.channel_pitch, strip, ldc, rows);
    } else {
      image.put_rows(kernels, rows, count, strip, ldc, at, layout.channel_pitch, step);
    }
  });
}

#define FC_INSTANCES(T)                                                                                           \
  template void pack_columns<T>(const GemmKernelsOf<T>&, const ColumnGrid&, const ImageLayout&, const Stored<T>&, \
                                int64_t, int64_t, int64_t, int64_t, T*, T*);                                      \
  template void move_columns<T>(const GemmKernelsOf<T>&, const ColumnGrid&, const ImageLayout&, bool,             \
                                const Stored<T>&, int64_t, int64_t, int64_t, int64_t, T*, int64_t);
FC_INSTANCES(float)
FC_INSTANCES(double)
#undef FC_INSTANCES

}  // namespace fastconv
