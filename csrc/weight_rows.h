// SPDX-License-Identifier: Apache-2.0
// Weights in the right order for a matrix product whose rows are written channels: dst[depth][width], `rows` of them
// followed by zeros up to `width`. depth is (channel read, tap): forward (c, tap) of w[k][c][tap], backward-data (k,
// tap of the phase) of the same array.
#pragma once

#include "im2col.h"

namespace fastconv {

// Backward-data: dst[k * channel_step + tap * tap_step][width] for `channels` channels k; element `first` of w is the
// first k and the first row.
template <class T>
void pack_gradient_rows(const ConvProblem& p, const GemmKernelsOf<T>& kernels, const ColumnGrid& grid,
                        const Stored<T>& w, int64_t first, int64_t row_total, int64_t channels, int64_t all_taps,
                        int64_t rows, int64_t width, int64_t channel_step, int64_t tap_step, T* dst) {
  const ColumnAxis* a = grid.axis;
  const int64_t count = grid.taps();
  if (all_taps == 1 && count == 1)  // rows lie side by side already
    return w.gather_row(kernels, width, 0, rows, first, 1, row_total, dst, channel_step * width, channels);
  // For each k, rows c of taps become [tap][c]; all taps of a stride-1 phase at once.
  for (int64_t k = 0; k < channels; ++k, dst += channel_step * width) {
    const int64_t filter = first + k * row_total * all_taps;
    if (count == all_taps) {
      w.transpose(kernels, rows, count, width, filter, all_taps, dst, tap_step * width);
      continue;
    }
    w.each_rows(rows, all_taps, filter, all_taps, [&](int64_t row, int64_t some, const T* from, int64_t) {
      T* at = dst + row;
      for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
        for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
          for (int64_t t2 = 0; t2 < a[2].taps; ++t2, at += tap_step * width) {
            const int64_t tap =
                ((a[0].first_tap + t0 * a[0].tap_step) * p.filter[1] + a[1].first_tap + t1 * a[1].tap_step) *
                    p.filter[2] +
                a[2].first_tap + t2 * a[2].tap_step;
            for (int64_t r = 0; r < some; ++r) at[r] = from[r * all_taps + tap];
            if (row + some == rows) std::fill(at + some, at + width - row, T(0));
          }
    });
  }
}

// Element `group` of w is the group's first; `row_total`, `channels` and `all_taps` are per group. Rows begin .. begin
// + rows.
template <class T>
void pack_weight_rows(const ConvProblem& p, const GemmKernelsOf<T>& kernels, const ColumnGrid& grid, const Stored<T>& w,
                      int64_t group, int64_t row_total, int64_t channels, int64_t all_taps, int64_t begin, int64_t rows,
                      int64_t width, T* dst) {
  if (p.pass == Pass::kForward) {
    const int64_t depth = channels * all_taps;
    return w.transpose(kernels, rows, depth, width, group + begin * depth, depth, dst, width);
  }
  pack_gradient_rows(p, kernels, grid, w, group + begin * all_taps, row_total, channels, all_taps, rows, width,
                     grid.taps(), 1, dst);
}

}  // namespace fastconv
