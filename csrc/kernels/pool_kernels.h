// SPDX-License-Identifier: Apache-2.0
// Pooling: what the kernel files offer, and the geometry they read.
//
//   pool_planes.cc   channels first: rows are folded with whole vectors, then columns
//   pool_windows.cc  channels first, any windows (adaptive ones): one window at a time
//   pool_pixels.cc   channels last: one window at a time, vectors along the channels
//   pool_norm.cc     Lp pooling in both layouts
#pragma once

#include <cstdint>

namespace fastconv {

struct PoolGeometry {
  int64_t size[3], out[3], window[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
  int64_t inner_begin[3], inner_end[3];  // outputs whose whole window lies inside the input
  int64_t include_pad;
  int64_t divisor;           // what every average divides by; 0: its window's count
  int64_t adaptive;          // window o of an axis is [floor(o size / out), ceil((o + 1) size / out))
  int64_t x_pixel, y_pixel;  // elements between neighbouring pixels; in a plane 1
  // Scratch of one worker: row_count int64's and, for pool_planes.cc, three rows of row_elements T's, with room for
  // whole vectors.
  int64_t row_count, row_elements;
};

// What one call computes: rows (those of all depths, one after the other) and columns of y, or of x in backward.
struct PoolPart {
  int64_t row_begin, row_end, column_begin, column_end;
  int64_t channels;  // 1 for planes
};

// Pointers are to the first row, column and computed channel of the image; indices are laid out like y.
template <class T>
struct PoolKernelsOf {
  // indices: null, or positions in the input plane: of the first extreme value, or of the first NaN.
  // For float, the positions under one window differ by less than 2^31.
  void (*max)(const PoolGeometry& geometry, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch);
  void (*min)(const PoolGeometry& geometry, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch);
  void (*average)(const PoolGeometry& geometry, const PoolPart& part, const T* x, T* y, void* scratch);
  void (*average_backward)(const PoolGeometry& geometry, const PoolPart& part, const T* dy, T* dx, void* scratch);
};
struct PoolKernels {
  PoolKernelsOf<float> f32;
  PoolKernelsOf<double> f64;
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
