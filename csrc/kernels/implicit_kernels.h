// SPDX-License-Identifier: Apache-2.0
// The kernels of the implicit matrix product (implicit_tile.cc): lanes are written channels.
#pragma once

#include <cstdint>

namespace fastconv {

// Some pixels, one block of rows (written channels) and one block of depth. For pixel i and row < `width`:
//   y[i][y_shift + row] (+)= sum over run, step of x[run * x_pitch + i][x_shift + offsets[step]] * w[run][step][row]
template <class T>
struct ImplicitBlock {
  int64_t pixels;
  int64_t width, columns;  // rows of w: whole vectors, at most `vectors`; those that are stored
  int64_t runs, steps;
  const T* const* x;  // every pixel of every run has a place of its own
  int64_t x_pitch, x_shift;
  const int64_t* offsets;
  const T* w;
  T* const* y;
  int64_t y_shift;
  bool accumulate;  // the block is summed by itself and added to what is there
  int64_t touch;    // x is not in the caches yet: every so many pixels its next lines are asked for; 0: it is
  // Not null: the weights lie here, those of a step so far from the last one's. The first tile moves them to where `w`
  // points, as it takes them.
  const T* source;
  int64_t source_pitch;
  T* moved;
  const T* next_w;  // the weights used next, asked for while these are: so many elements, or as many of each row of
  int64_t next_elements, next_pitch;  // the unpacked weights, this far apart (0: packed)
};

template <class T>
struct ImplicitKernelsOf {
  int pixels, lanes, vectors;  // a tile of the full width is `pixels` pixels by `vectors` vectors of `lanes` rows
  int least_side;              // of one vector, so many pixels side by side have a tile of their own; 0: there is none
  void (*product)(const ImplicitBlock<T>* block);
  // y[i][shift + row] = activation(that + bias[row] + residual), row < columns; the residual lies as far from
  // `residual` as y[i] from `written`. bias and residual may be null.
  void (*finish)(int64_t pixels, int64_t columns, T* const* y, int64_t shift, const T* bias, const T* residual,
                 const T* written, int32_t activation, T alpha);
  // dst[tap * tap_pitch + channel * dst_pitch + row] = src[row * src_pitch + channel * taps + tap] for row < rows, 0
  // for rows <= row < width.
  void (*reorder)(int64_t rows, int64_t channels, int64_t taps, int64_t width, const T* src, int64_t src_pitch, T* dst,
                  int64_t dst_pitch, int64_t tap_pitch);
};
struct ImplicitKernels {
  ImplicitKernelsOf<float> f32;
  ImplicitKernelsOf<double> f64;
};

}  // namespace fastconv
