// SPDX-License-Identifier: Apache-2.0
// Weights as the right order for a matrix product whose rows are written channels: dst[depth][width], `rows` of them
// followed by zeros up to `width`. depth is (channel read, tap): forward (c, tap) of w[k][c][tap], backward-data (k,
// tap of the phase) of the same array.
#pragma once

#include "im2col.h"

namespace fastconv {

// `w` is the group's first element; `row_total`, `channels` and `all_taps` are per group. Rows begin .. begin + rows.
template <class T>
void pack_weight_rows(const ConvProblem& p, const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const T* w,
                      int64_t row_total, int64_t channels, int64_t all_taps, int64_t begin, int64_t rows, int64_t width,
                      T* dst) {
  if (p.pass == Pass::kForward) {
    const int64_t depth = channels * all_taps;
    return kernels.transpose(rows, depth, width, w + begin * depth, depth, dst, width);
  }
  // For each k, rows c of taps become [tap][c]; all taps of a stride-1 phase at once.
  const ColumnAxis* a = grid.axis;
  const int64_t count = grid.taps();
  for (int64_t k = 0; k < channels; ++k, dst += count * width) {
    const T* filter = w + (k * row_total + begin) * all_taps;
    if (count == all_taps) {
      kernels.transpose(rows, count, width, filter, all_taps, dst, width);
      continue;
    }
    T* at = dst;
    for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
      for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
        for (int64_t t2 = 0; t2 < a[2].taps; ++t2, at += width) {
          const int64_t tap =
              ((a[0].first_tap + t0 * a[0].tap_step) * p.filter[1] + a[1].first_tap + t1 * a[1].tap_step) *
                  p.filter[2] +
              a[2].first_tap + t2 * a[2].tap_step;
          for (int64_t r = 0; r < width; ++r) at[r] = r < rows ? filter[r * all_taps + tap] : T(0);
        }
  }
}

}  // namespace fastconv
