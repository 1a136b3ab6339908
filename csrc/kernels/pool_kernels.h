// SPDX-License-Identifier: Apache-2.0
// Pooling: what the kernel files offer, and the geometry they read.
//
//   pool_planes.cc           channels first: rows are folded with whole vectors, then columns
//   pool_windows.cc          channels first, any windows (adaptive ones): one window at a time
//   pool_pixels.cc           channels last: one window at a time, vectors along the channels
//   pool_planes_backward.cc, pool_pixels_backward.cc    the gradients, gathered cell by cell
//   pool_norm.cc             Lp pooling in both layouts
#pragma once

#include <cstdint>

namespace fastconv {

constexpr int kPoolScratchRows = 5;
constexpr int kPoolSourceNumbers = 3;  // int64's in an entry of the lists of what is over or under a row or column

struct PoolGeometry {
  int64_t size[3], out[3], window[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
  int64_t inner_begin[3], inner_end[3];  // outputs whose whole window lies inside the input
  int64_t include_pad;
  int64_t divisor;           // what every average divides by; 0: its window's count
  int64_t adaptive;          // window o of an axis is [floor(o size / out), ceil((o + 1) size / out))
  int64_t x_pixel, y_pixel;  // elements between neighbouring pixels; in a plane 1
  // Scratch of one worker: `numbers` int64's and, for planes, kPoolScratchRows rows of row_elements T's with room for
  // whole vectors.
  int64_t numbers, row_elements;
  int64_t table_rows;  // rows whose windows are listed at once
};

// What one call computes: rows (those of all depths, one after the other) and columns of y, or of x in backward, in
// each of so many planes (of one image; 1 for channels last).
struct PoolPart {
  int64_t row_begin, row_end, column_begin, column_end;
  int64_t channels;                  // 1 for planes
  int64_t planes, x_plane, y_plane;  // x_plane, y_plane: elements between neighbouring planes
};

// Where the extreme values were, laid out like y; at most one is wanted. Of equals the first one, or the first NaN.
struct PoolWinners {
  int64_t* indices;  // positions in the input plane. For float, those under one window differ by less than 2^31
  uint8_t* offsets;  // numbers of taps in their window, of at most 256. Not for adaptive windows
};

// Pointers are to the first row, column and computed channel of the first plane, or of the image.
template <class T>
struct PoolKernelsOf {
  void (*max)(const PoolGeometry& geometry, const PoolPart& part, const T* x, T* y, const PoolWinners& winners,
              void* scratch);
  void (*min)(const PoolGeometry& geometry, const PoolPart& part, const T* x, T* y, const PoolWinners& winners,
              void* scratch);
  void (*average)(const PoolGeometry& geometry, const PoolPart& part, const T* x, T* y, void* scratch);
};
struct PoolKernels {
  PoolKernelsOf<float> f32;
  PoolKernelsOf<double> f64;
};

// Each cell of dx is the sum of what the outputs over it give, in an order that comes from the geometry.
template <class T>
struct PoolBackwardKernelsOf {
  void (*average)(const PoolGeometry& geometry, const PoolPart& part, const T* dy, T* dx, void* scratch);
  void (*extreme)(const PoolGeometry& geometry, const PoolPart& part, const T* dy, const uint8_t* offsets, T* dx,
                  void* scratch);
};
struct PoolBackwardKernels {
  PoolBackwardKernelsOf<float> f32;
  PoolBackwardKernelsOf<double> f64;
};

// y = (sum over the window of |x|^p)^(1/p), or of x^p with its sign where `is_signed` (p is odd then).
struct PoolPower {
  double p;
  int32_t is_signed, reserved;
};
template <class T>
struct PoolNormKernelsOf {
  void (*norm)(const PoolGeometry& geometry, const PoolPart& part, const PoolPower& power, const T* x, T* y,
               void* scratch);
  void (*norm_backward)(const PoolGeometry& geometry, const PoolPart& part, const PoolPower& power, const T* dy,
                        const T* x, const T* y, T* dx);
};
struct PoolNormKernels {
  struct {
    PoolNormKernelsOf<float> f32;
    PoolNormKernelsOf<double> f64;
  } planes, pixels;
};

}  // namespace fastconv
