// SPDX-License-Identifier: Apache-2.0
// Where the pixels of a strip are read and written: one pointer each, so that a register tile takes any of them.
#pragma once

#include <algorithm>

#include "../halo.h"

namespace fastconv {

template <class T>
struct PixelSource {
  const T** places;            // [pixel], or [tap][pixel]
  int64_t channel_pitch;       // from there
  const int64_t* tap_offsets;  // likewise; null: the taps have places of their own
};

// In a copy that this makes in `halo`: padding included, channels first.
template <class T>
void find_in_halo(const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const ImageLayout& layout,
                  const Stored<T>& image, int64_t channel, int64_t channels, int64_t pixel, int64_t pixels, T* halo,
                  PixelSource<T>* source) {
  if (grid.reads_as_written() && layout.layout == Layout::kChannelsFirst) {  // 1 x 1: planes as they are
    int64_t* tap_offset = reinterpret_cast<int64_t*>(halo);
    halo += sizeof(int64_t) / sizeof(T);
    copy_planes(kernels, grid, layout, image, channel, channels, pixel, pixels, halo);
    *tap_offset = 0;
    source->tap_offsets = tap_offset;
    source->channel_pitch = pixels;
    for (int64_t i = 0; i < pixels; ++i) source->places[i] = halo + i;
    return;
  }
  const HaloGather<T> gather(kernels, grid, pixel, pixels, Strides::kKept);
  gather.fill(layout, image, channel, channels, halo);
  source->channel_pitch = gather.channel_pitch();
  source->tap_offsets = gather.tap_offsets(halo);
  int64_t slab = 0;
  each_run(grid, pixel, pixels, [&](const Run& run) {
    const T* place = gather.halo(halo) + gather.offset_of(run, &slab);
    for (int64_t i = 0; i < run.count; ++i) source->places[run.lane + i] = place + i * gather.point_step();
  });
}

// In the image, channels first, where no tap meets padding.
template <class T>
void find_in_planes(const ColumnGrid& grid, const ImageLayout& layout, const T* image, int64_t channel, int64_t pixel,
                    int64_t pixels, int64_t* tap_offsets, PixelSource<T>* source) {
  const ColumnAxis* a = grid.axis;
  source->channel_pitch = layout.channel_pitch;
  source->tap_offsets = tap_offsets;
  for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
    for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
      for (int64_t t2 = 0; t2 < a[2].taps; ++t2)
        *tap_offsets++ =
            (t0 * a[0].offset_step * a[1].size + t1 * a[1].offset_step) * a[2].size + t2 * a[2].offset_step;
  each_run(grid, pixel, pixels, [&](const Run& run) {
    int64_t at[kMaxSpatial];
    for (int axis = 0; axis < kMaxSpatial; ++axis) at[axis] = run.o[axis] * a[axis].step + a[axis].offset;
    const T* place = image + run.n * layout.batch_pitch + channel * layout.channel_pitch +
                     (at[0] * a[1].size + at[1]) * a[2].size + at[2];
    for (int64_t i = 0; i < run.count; ++i) source->places[run.lane + i] = place + i * a[2].step;
  });
}

// In the image, channels last, a list per tap, `list` apart; padding of every mode is a pixel, or `outside`.
template <class T>
void find_pixels(const ColumnGrid& grid, const ImageLayout& layout, const T* image, int64_t channel, int64_t pixel,
                 int64_t pixels, int64_t list, const T* outside, PixelSource<T>* source) {
  const ColumnAxis* a = grid.axis;
  source->channel_pitch = 1;
  source->tap_offsets = nullptr;
  const T** places = source->places;
  int64_t tap[kMaxSpatial];
  const auto coordinate = [&](const Run& run, int axis) {
    return run.o[axis] * a[axis].step + a[axis].offset + tap[axis] * a[axis].offset_step;
  };
  const auto shown = [&](int64_t at, int axis) { return padded_source(grid.padding_mode, at, a[axis].size); };
  const auto list_run = [&](const Run& run) {
    const int64_t depth = shown(coordinate(run, 0), 0), line = shown(coordinate(run, 1), 1), at = coordinate(run, 2);
    const T** place = places + run.lane;
    if (depth == kOutside || line == kOutside) {
      std::fill_n(place, run.count, outside);
      return;
    }
    const int64_t pitch = layout.channel_pitch, step = a[2].step;
    const T* row = image + run.n * layout.batch_pitch + channel + (depth * a[1].size + line) * a[2].size * pitch;
    const auto border = [&](int64_t from, int64_t to) {
      for (int64_t i = from; i < to; ++i) {
        const int64_t x = shown(at + i * step, 2);
        place[i] = x == kOutside ? outside : row + x * pitch;
      }
    };
    const Inside inside(at, step, run.count, a[2].size);
    border(0, inside.first);
    for (int64_t i = inside.first; i < inside.last; ++i) place[i] = row + (at + i * step) * pitch;
    border(inside.last, run.count);
  };
  for (tap[0] = 0; tap[0] < a[0].taps; ++tap[0])
    for (tap[1] = 0; tap[1] < a[1].taps; ++tap[1])
      for (tap[2] = 0; tap[2] < a[2].taps; ++tap[2], places += list) each_run(grid, pixel, pixels, list_run);
}

// The pixels themselves, channels last.
template <class T>
void find_written(const ColumnGrid& grid, const ImageLayout& layout, T* image, int64_t pixel, int64_t pixels,
                  T** places) {
  const int64_t step = grid.axis[2].out_step * layout.channel_pitch;
  each_pixel_run(grid, pixel, pixels, [&](int64_t lane, int64_t count, int64_t n, int64_t at) {
    T* place = image + n * layout.batch_pitch + at * layout.channel_pitch;
    for (int64_t i = 0; i < count; ++i) places[lane + i] = place + i * step;
  });
}

}  // namespace fastconv
