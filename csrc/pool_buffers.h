// SPDX-License-Identifier: Apache-2.0
// The buffers of a pooling: plain C, for the CPU's kernels and for those of a device.
#pragma once

#include <cstdint>

namespace fastconv {

// Buffers keep their names: forward reads x and writes y (and indices or offsets). The backward pass of an average
// reads dy and writes dx; that of a norm reads x and y too, that of an extreme offsets. All but x in forward is dense.
struct PoolBuffers {
  const void* x;
  int64_t x_batch_pitch, x_channel_pitch;  // elements, as in RunContext; in backward x is dense
  void* y;
  // Max and min, laid out like y; at most one is wanted in forward, the others are null.
  int64_t* indices;  // positions in x's plane
  uint8_t* offsets;  // numbers of taps in their window, where has_offsets
  const void* dy;
  void* dx;
  double norm;  // p of an Lp pooling, at least 1
  // Of y in forward without winners, on the CPU, as those of x; 0: y is dense.
  int64_t y_batch_pitch, y_channel_pitch;
};

}  // namespace fastconv
