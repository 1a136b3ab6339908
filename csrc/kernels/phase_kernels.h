// SPDX-License-Identifier: Apache-2.0
// The part of the kernel table that is phase_tile.h's.
#pragma once

#include <cstdint>

namespace fastconv {

template <class T>
struct PhaseKernelsOf {
  int units;      // a tile has at most so many
  int chunks[6];  // and, for 1 .. 6 units, so many chunks, vectors of pixels
  // For each unit u < units and chunk i: sums[u * pitch + i * lanes + lane] (+)= sum over steps of
  // w[step][u] * x[places[i] + offsets[step] + lane]. Whole vectors are read and written.
  void (*tile)(int units, int64_t steps, const int64_t* offsets, const T* x, const int64_t* places, const T* w, T* sums,
               int64_t pitch, bool accumulate);
  // dst[i * phases + phase] = src[phase * pitch + i], below count elements of dst.
  void (*interleave)(int64_t count, int64_t phases, const T* src, int64_t pitch, T* dst);
};

}  // namespace fastconv
