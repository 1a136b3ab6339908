// SPDX-License-Identifier: Apache-2.0
// The columns of im2col_gemm: for every output the cells that it reads, `taps` of each channel. Of a tensor that is stored
// in planes they are rows of pixels, [group][channel][tap][pixel]; with channels last [pixel][group][tap][channel]: either
// way neighbouring threads read and write neighbours.
#pragma once

#include "positions.cuh"

namespace fastconv::cuda {

constexpr int kColumnThreads = 256;

// Steps in columns, from one image, pixel, ... to the next. Channels are members of their group.
struct ColumnSteps {
  int64_t image, pixel, group, member, tap;
};

// Which part of the tensors: `pixels` outputs of each of `images` images, or `members` channels of each of `groups` groups.
struct ColumnPart {
  int64_t first_image, images, first_pixel, pixels;
  int64_t first_group, groups, first_member, members;
};

struct ColumnPlaces {
  Divisor fast, pixels, of_group;
  Plane outputs;
  bool channels_last;
  ColumnPlaces(Layout layout, const ColumnPart& part, const int64_t* out)
      : fast(layout == Layout::kChannelsLast ? part.groups * part.members : part.images * part.pixels),
        pixels(part.pixels),
        of_group(part.members),
        outputs(out),
        channels_last(layout == Layout::kChannelsLast) {}
};

// One thread for each output and channel.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    im2col(Conv<T> c, ColumnPart part, ColumnSteps steps, ColumnPlaces places, T* columns, int64_t elements) {
  const ConvProblem& p = c.p;
  const T outside = p.padding_mode == PaddingMode::kConstant ? narrowed<T>(c.pad_value) : T{};
  for (int64_t i = int64_t{blockIdx.x} * kColumnThreads + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * kColumnThreads) {
    int64_t fast, pixel, member, o[kMaxSpatial];
    const int64_t slow = places.fast.divide(i, &fast);
    const int64_t channel = places.channels_last ? fast : slow;
    const int64_t image = places.pixels.divide(places.channels_last ? slow : fast, &pixel);
    const int64_t group = places.of_group.divide(channel, &member);
    places.outputs.places(part.first_pixel + pixel, o);
    const T* x = c.x + (part.first_image + image) * c.xs.batch + channel * c.xs.channel;
    T* to = columns + image * steps.image + pixel * steps.pixel + group * steps.group + member * steps.member;
    for (int64_t t0 = 0; t0 < p.filter[0]; ++t0) {
      const int64_t a0 = source(c, 0, o[0], t0);
      for (int64_t t1 = 0; t1 < p.filter[1]; ++t1) {
        const int64_t a1 = source(c, 1, o[1], t1);
        const int64_t line = a0 == kOutside || a1 == kOutside ? kOutside : (a0 * p.size[1] + a1) * p.size[2];
        for (int64_t t2 = 0; t2 < p.filter[2]; ++t2, to += steps.tap) {
          const int64_t a2 = source(c, 2, o[2], t2);
          *to = line == kOutside || a2 == kOutside ? outside : x[(line + a2) * c.xs.pixel];
        }
      }
    }
  }
}

// Adds to *sum what all taps read at a place.
template <class T>
__device__ __forceinline__ void add_taps(const Conv<T>& c, const ColumnSteps& steps, const Strides& strides,
                                         const Sum<T>* from, int64_t a0, int64_t a1, int64_t a2, Sum<T>* sum) {
  const ConvProblem& p = c.p;
  for (int64_t t0 = 0; t0 < p.filter[0]; ++t0) {
    const int64_t o0 = output_at(c, strides, 0, a0, t0);
    if (o0 == kOutside) continue;
    for (int64_t t1 = 0; t1 < p.filter[1]; ++t1) {
      const int64_t o1 = output_at(c, strides, 1, a1, t1);
      if (o1 == kOutside) continue;
      const int64_t line = (o0 * c.out[1] + o1) * c.out[2], tap = (t0 * p.filter[1] + t1) * p.filter[2];
      for (int64_t t2 = 0; t2 < p.filter[2]; ++t2) {
        const int64_t o2 = output_at(c, strides, 2, a2, t2);
        if (o2 != kOutside) *sum += from[(line + o2) * steps.pixel + (tap + t2) * steps.tap];
      }
    }
  }
}

// One thread for each element of x: the sum of the columns that it went into, in ascending order of its places and taps.
// `shown`: padding shows cells of x.
template <bool shown, class T>
__global__ void __launch_bounds__(kColumnThreads)
    col2im(Conv<T> c, ColumnPart part, ColumnSteps steps, Positions positions, Strides strides, const Sum<T>* columns,
           int64_t elements) {
  for (int64_t i = int64_t{blockIdx.x} * kColumnThreads + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * kColumnThreads) {
    const Position at = position_of(i, positions);
    const Sum<T>* from = columns + at.n * steps.image + at.group * steps.group + at.member * steps.member;
    Sum<T> sum = 0;
    if constexpr (shown) {
      const Places places0 = places_of(c, 0, at.place[0]), places1 = places_of(c, 1, at.place[1]);
      const Places places2 = places_of(c, 2, at.place[2]);
      const int64_t count0 = 1 + places0.below + places0.above, count1 = 1 + places1.below + places1.above;
      const int64_t count2 = 1 + places2.below + places2.above;
      for (int64_t i0 = 0, i1 = 0, i2 = 0; i0 < count0;) {
        add_taps(c, steps, strides, from, place(c, 0, places0, i0), place(c, 1, places1, i1), place(c, 2, places2, i2),
                 &sum);
        if (++i2 < count2) continue;
        i2 = 0;
        if (++i1 < count1) continue;
        i1 = 0, ++i0;
      }
    } else {
      add_taps(c, steps, strides, from, at.place[0], at.place[1], at.place[2], &sum);
    }
    const int64_t channel = (part.first_group + at.group) * c.group_c + part.first_member + at.member;
    finish(c, c.x, (part.first_image + at.n) * c.xs.batch + channel * c.xs.channel + at.pixel * c.xs.pixel, channel,
           sum);
  }
}

// w[k][channel][tap] as [k][tap][channel], the order of columns with channels last.
template <class T>
__global__ void __launch_bounds__(kColumnThreads)
    columns_of_weights(const T* w, T* to, Divisor channels, Divisor taps, int64_t channel_count, int64_t tap_count,
                       int64_t elements) {
  for (int64_t i = int64_t{blockIdx.x} * kColumnThreads + threadIdx.x; i < elements;
       i += int64_t{gridDim.x} * kColumnThreads) {
    int64_t channel, tap;
    const int64_t k = taps.divide(channels.divide(i, &channel), &tap);
    to[i] = w[(k * channel_count + channel) * tap_count + tap];
  }
}

}  // namespace fastconv::cuda
