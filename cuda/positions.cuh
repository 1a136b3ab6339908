// SPDX-License-Identifier: Apache-2.0
// Flat positions of tensors, the places that show a cell of x and the outputs that read a place.
#pragma once

#include "conv.cuh"

namespace fastconv::cuda {

// Takes apart the positions of a dense x or y: pixels are fastest where planes are stored, else channels.
struct Positions {
  Divisor channels, pixels, of_group;
  Plane plane;
  bool channels_last;
  Positions(Layout layout, int64_t channel_count, int64_t channels_of_group, const int64_t* size)
      : channels(channel_count),
        pixels(size[0] * size[1] * size[2]),
        of_group(channels_of_group),
        plane(size),
        channels_last(layout == Layout::kChannelsLast) {}
};
struct Position {
  int64_t n, channel, pixel, place[kMaxSpatial], group, member;  // the channel is a member of its group
};
__device__ __forceinline__ Position position_of(int64_t i, const Positions& positions) {
  Position at;
  if (positions.channels_last)
    at.n = positions.pixels.divide(positions.channels.divide(i, &at.channel), &at.pixel);
  else
    at.n = positions.channels.divide(positions.pixels.divide(i, &at.pixel), &at.channel);
  positions.plane.places(at.pixel, at.place);
  at.group = positions.of_group.divide(at.channel, &at.member);
  return at;
}

// The places at which padding shows a cell: itself, some below the axis and some above it.
struct Places {
  int64_t cell, below, above;
};
template <class T>
__device__ __forceinline__ Places places_of(const Conv<T>& c, int axis, int64_t cell) {
  const ConvProblem& p = c.p;
  const int64_t last = p.size[axis] - 1, begin = p.pad_begin[axis], end = p.pad_end[axis];
  switch (p.padding_mode) {
    case PaddingMode::kReflect:
      return {cell, cell > 0 && cell <= begin, cell < last && last - cell <= end};
    case PaddingMode::kReplicate:
      return {cell, cell == 0 ? begin : 0, cell == last ? end : 0};
    case PaddingMode::kCircular:
      return {cell, last + 1 - cell <= begin, cell < end};
    default:
      return {cell, 0, 0};
  }
}
// Number `i` of them; 0 is the cell itself.
template <class T>
__device__ __forceinline__ int64_t place(const Conv<T>& c, int axis, const Places& places, int64_t i) {
  const int64_t size = c.p.size[axis];
  if (i == 0) return places.cell;
  const bool below = i <= places.below;
  switch (c.p.padding_mode) {
    case PaddingMode::kReflect:
      return (below ? 0 : 2 * (size - 1)) - places.cell;
    case PaddingMode::kReplicate:
      return below ? -i : size + i - places.below - 1;
    default:
      return places.cell + (below ? -size : size);
  }
}

struct Strides {
  Divisor of[kMaxSpatial];
  explicit Strides(const ConvProblem& p) : of{Divisor(p.stride[0]), Divisor(p.stride[1]), Divisor(p.stride[2])} {}
};

// The output whose tap `t` lies at `place`, or kOutside.
template <class T>
__device__ __forceinline__ int64_t output_at(const Conv<T>& c, const Strides& strides, int axis, int64_t place,
                                             int64_t t) {
  const int64_t start = place + c.p.pad_begin[axis] - t * c.p.dilation[axis];
  if (start < 0) return kOutside;
  int64_t rest;
  const int64_t o = strides.of[axis].divide(start, &rest);
  return rest == 0 && o < c.out[axis] ? o : kOutside;
}

}  // namespace fastconv::cuda
