// SPDX-License-Identifier: Apache-2.0
// The kernel table's entry of implicit_gradient_tile.cc.
#pragma once

#include <cstdint>

#include "phase_kernels.h"

namespace fastconv {

template <class T>
struct ImplicitGradientKernelsOf {
  int rows, lanes, vectors;  // a tile is at most `rows` rows by at most `vectors` vectors of `lanes`
  // For each row i < rows: sums[i * pitch + (0 .. width)] (+)= sum over pixels of x[offsets[i] + places[pixel]] *
  // panel[pixel][0 .. width). width is a multiple of `lanes`; each call is summed by itself, `accumulate` adds it to
  // what is there. `next`: the offsets of `rows` rows that are read next, asked for meanwhile; or null.
  void (*tile)(int rows, int64_t width, int64_t pixels, const int64_t* places, const T* x, const int64_t* offsets,
               const int64_t* next, const T* panel, T* sums, int64_t pitch, bool accumulate);
  PhaseKernelsOf<T> phase;
};
struct ImplicitGradientKernels {
  ImplicitGradientKernelsOf<float> f32;
  ImplicitGradientKernelsOf<double> f64;
};

}  // namespace fastconv
