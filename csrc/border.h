// SPDX-License-Identifier: Apache-2.0
// Backward-data of padding that shows cells of x (reflect, replicate, circular). The gradient of a cell sums over the
// cell itself and over the padded coordinates that show it:
//   dx[i] = sum over p that show i, taps t of w[t] * y[(p + pad - t * dilation) / stride]
// The p beyond x lie in up to 3^rank - 1 *blocks* around it: before it, after it or along it on every axis. Each block
// has phases and grids like those of x, with few taps, because few reach outside. On every axis its cells are shown
// back to front, all one, or in order, so that the pixels they stand for are linear in the grid point as well.
//
// No padded gradient is built but of few channels (algorithms/col2im_border.h); three ways use the blocks, each in an
// order that is the problem's alone:
//   each_border_run   product by product                             depthwise
//   fold_border       y is added into the columns of x itself,       matrix products of stride 1, where every tap is in
//                     so that no product is computed twice           every column
//   grids that `adds` a matrix product for each block, its columns   matrix products of other strides
//                     added to their pixels (add_columns)
#pragma once

#include "halo.h"
#include "im2col.h"

namespace fastconv {

// visit(grid) for the phases of the blocks that some tap reaches.
template <class Visit>
void each_border_grid(const ConvProblem& p, const Visit& visit) {
  if (!shows_cells(p.padding_mode)) return;
  for (int block = 1; block < 27; ++block) {
    const Side side[] = {Side(block / 9), Side(block / 3 % 3), Side(block % 3)};
    each_backward_data_grid(p, side, [&](const ColumnGrid& grid) {
      if (grid.taps() > 0) visit(grid);
    });
  }
}

// The terms that the blocks add to one plane of dx for each plane of y, about.
inline double border_terms(const ConvProblem& p) {
  double terms = 0;
  each_border_grid(p, [&](const ColumnGrid& grid) { terms += static_cast<double>(grid.columns() * grid.taps()); });
  return terms;
}

// For i < count: dx[target + i * target_step] has the term w[tap] * y[source + i * source_step]; pixels of x and of y,
// tap of w.
struct BorderRun {
  int64_t target, target_step, source, source_step, count, tap;
};

// visit(run) for all terms of x's rows (depth * height + y) from first_row to last_row, and maybe for others. A run
// follows the longer of the two inner axes: blocks beside x are narrow.
template <class Visit>
void each_border_run(const ConvProblem& p, int64_t first_row, int64_t last_row, const Visit& visit) {
  each_border_grid(p, [&](const ColumnGrid& grid) {
    const ColumnAxis* a = grid.axis;
    const int inner = a[1].columns > a[2].columns ? 1 : 2, outer = 3 - inner;
    const int64_t x_pitch[] = {p.size[1] * p.size[2], p.size[2], 1};
    const int64_t y_pitch[] = {a[1].size * a[2].size, a[2].size, 1};
    const int64_t w_pitch[] = {p.filter[1] * p.filter[2], p.filter[2], 1};
    const auto target = [&](int axis, int64_t o) { return (a[axis].out_first + o * a[axis].out_step) * x_pitch[axis]; };
    const auto source = [&](int axis, int64_t o, int64_t t) { return o + a[axis].offset + t * a[axis].offset_step; };
    const auto tap = [&](int axis, int64_t t) { return (a[axis].first_tap + t * a[axis].tap_step) * w_pitch[axis]; };
    for (int64_t o0 = 0; o0 < a[0].columns; ++o0) {
      const int64_t plane = target(0, o0);
      if (plane > last_row * p.size[2] || plane + x_pitch[0] <= first_row * p.size[2]) continue;
      for (int64_t o = 0; o < a[outer].columns; ++o) {
        const int64_t pixel = plane + target(outer, o);
        if (outer == 1 && (pixel > last_row * p.size[2] || pixel < first_row * p.size[2])) continue;
        for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
          for (int64_t t = 0; t < a[outer].taps; ++t) {
            const int64_t at0 = source(0, o0, t0), at = source(outer, o, t);
            if (at0 < 0 || at0 >= a[0].size || at < 0 || at >= a[outer].size) continue;
            for (int64_t u = 0; u < a[inner].taps; ++u) {
              const int64_t start = source(inner, 0, u);
              const auto [first, last] = Inside(start, 1, a[inner].columns, a[inner].size);
              if (first == last) continue;
              visit(BorderRun{pixel + target(inner, first), a[inner].out_step * x_pitch[inner],
                              at0 * y_pitch[0] + at * y_pitch[outer] + (start + first) * y_pitch[inner], y_pitch[inner],
                              last - first, tap(0, t0) + tap(outer, t) + tap(inner, u)});
            }
          }
      }
    }
  });
}

// Stride 1: adds to panels that pack_columns filled for x itself (whose columns are its pixels, with all taps) what
// the blocks of padding read.
template <class T>
void fold_border(const ConvProblem& problem, const ImageLayout& layout, const T* y, int64_t column, int64_t columns,
                 int64_t channel, int64_t channels, int nr, T* panels);

// Adds c[row][column - first] to the pixels that the columns stand for, in ascending order of the columns.
template <class T>
void add_columns(const ColumnGrid& grid, const ImageLayout& layout, T* image, int64_t column, int64_t columns,
                 int64_t channel, int64_t rows, const T* c, int64_t ldc);

}  // namespace fastconv
