// SPDX-License-Identifier: Apache-2.0
// What every convolution kernel is given, and the places of its elements.
#pragma once

#include "activation.cuh"
#include "divide.cuh"
#include "element.cuh"

namespace fastconv::cuda {

// Distances of neighbours, in elements. Rows and planes are dense: pixel i of a plane lies i * pixel further.
struct Image {
  int64_t batch, channel, pixel;
};

// By value: a parameter of the kernel. Buffers keep their names in every pass.
template <class T>
struct Conv {
  ConvProblem p;
  int64_t out[kMaxSpatial];  // of y
  int64_t group_c, group_k;  // channels and filters of a group
  Image xs, ys;
  T *x, *w, *y;
  const T* bias;      // null: none
  const T* residual;  // null: none; laid out like y
  Sum<T> alpha, pad_value;
};

inline Image image_of(Layout layout, int64_t batch_pitch, int64_t channel_pitch) {
  if (layout == Layout::kChannelsLast) return {batch_pitch, 1, channel_pitch};
  return {batch_pitch, channel_pitch, 1};
}

template <class T>
Conv<T> conv_of(const ConvProblem& p, const RunContext& r) {
  Conv<T> c{};
  c.p = p;
  c.group_c = p.c / p.groups, c.group_k = p.k / p.groups;
  for (int i = 0; i < kMaxSpatial; ++i) c.out[i] = output_size(p, i);
  c.xs = image_of(p.x_layout, r.x_batch_pitch, r.x_channel_pitch);
  c.ys = image_of(p.y_layout, r.y_batch_pitch, r.y_channel_pitch);
  c.x = static_cast<T*>(r.x), c.w = static_cast<T*>(r.w), c.y = static_cast<T*>(r.y);
  c.bias = p.epilogue & kEpilogueBias ? static_cast<const T*>(r.bias) : nullptr;
  c.residual = p.epilogue & kEpilogueResidual ? static_cast<const T*>(r.residual) : nullptr;
  c.alpha = static_cast<Sum<T>>(r.alpha), c.pad_value = static_cast<Sum<T>>(r.pad_value);
  return c;
}

// Takes flat positions of a plane apart.
struct Plane {
  Divisor row, column;  // by size[1] and size[2]
  Plane() = default;
  explicit Plane(const int64_t* size) : row(size[1]), column(size[2]) {}
  __device__ __forceinline__ void places(int64_t pixel, int64_t* at) const {
    const int64_t line = column.divide(pixel, &at[2]);
    at[0] = row.divide(line, &at[1]);
  }
};

// The cell of an axis that output `o` reads through tap `t`, or kOutside.
template <class T>
__device__ __forceinline__ int64_t source(const Conv<T>& c, int axis, int64_t o, int64_t t) {
  return padded_source(c.p.padding_mode, o * c.p.stride[axis] + t * c.p.dilation[axis] - c.p.pad_begin[axis],
                       c.p.size[axis]);
}

// activation(sum + bias + residual) of channel `channel` at `at` (an offset in the tensor that the pass writes).
template <class T>
__device__ __forceinline__ Sum<T> finished(const Conv<T>& c, int64_t at, int64_t channel, Sum<T> sum) {
  if (c.bias) sum += widen(c.bias[channel]);
  if (c.residual) sum += widen(c.residual[at]);
  return activate(sum, c.p.activation, c.alpha);
}
// Puts it there.
template <class T>
__device__ __forceinline__ void finish(const Conv<T>& c, T* to, int64_t at, int64_t channel, Sum<T> sum) {
  to[at] = narrowed<T>(finished(c, at, channel, sum));
}

}  // namespace fastconv::cuda
