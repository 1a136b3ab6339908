// SPDX-License-Identifier: Apache-2.0
// Convolution with few channels per group (grouped.cc): lanes are grid points of planes that were copied with their
// padding (csrc/algorithms/grouped_planes.h), and a vector may run over the end of a row.
#pragma once

#include <cstdint>

namespace fastconv {

// Lanes of a vector of grid points that have a place: lane i goes to y[at + i] where bit i is set.
struct GroupedRun {
  int64_t at;
  uint32_t bits;
};

// A channel read and a tap: where its points lie in x, and its factors in w.
struct GroupedStep {
  int64_t x, w;
};

template <class T>
struct GroupedBand {
  int rows;  // channels written, at most GroupedKernelsOf::rows
  int64_t step_count;
  const GroupedStep* steps;
  const T* x;
  const T* w;     // the weights as they are
  int64_t w_row;  // distance of two rows
  const T* bias;  // of the rows, or null
  bool relu;
  T* y;
  int64_t y_row;
  int64_t vectors;
  const int64_t* first_run;  // of each vector, and the end
  const GroupedRun* runs;
  // What the next band reads, asked for while this one is computed: `ahead_channels` pieces of ahead_count elements.
  const T* ahead;
  int64_t ahead_channels, ahead_pitch, ahead_count;
};

template <class T>
struct GroupedFilter {
  int rows, columns;  // at most GroupedKernelsOf::filter_rows and filter_columns(rows)
  const T* y;         // zero where a lane has no grid point
  int64_t y_row;
  const T* x;
  const int64_t* offsets;            // of a column in x
  int64_t blocks, y_block, x_block;  // bands summed one after the other, and their distances
  int64_t lines, y_line, x_line;     // of a band, the same
  int64_t vectors;                   // of a line
  const T* ahead;                    // laid out as a row of y: asked for while this is computed
  T* w;                              // += the sums
  int64_t w_row;
};

// The same with the channels written as lanes.
template <class T>
struct GroupedPixels {
  int columns, vectors;  // at most GroupedKernelsOf::pixel_columns and pixel_vectors
  const T* y;            // [block][point][y_point]
  int64_t y_point, y_block;
  const T* x;
  const int64_t* offsets;  // of a column in x
  int64_t x_row, x_block;
  int64_t blocks, rows, points;  // points of a row
  T* w;                          // [column][w_column] += the sums
  int64_t w_column;
};

template <class T>
struct GroupedKernelsOf {
  int lanes, rows;
  int (*vectors)(int rows);  // of points, of a tile
  int filter_rows, pixel_columns, pixel_vectors;
  int (*filter_columns)(int rows);
  // y[row][point] = activation(bias[row] + sum over steps of w[step.w + row * w_row] * x[step.x + point]), whole
  // vectors of x read.
  void (*band)(const GroupedBand<T>* band);
  // w[row * w_row + column] += sum over points of y[row][point] * x[offsets[column] + point].
  void (*filter)(const GroupedFilter<T>* filter);
  void (*pixels)(const GroupedPixels<T>* pixels);
  // dst[row * dst_pitch + i] = first <= i < last ? src[row * src_pitch + i * step] : 0 for i < count. Up to a vector
  // beyond `count` is written in each row, and no src but those.
  void (*copy_rows)(int64_t rows, int64_t count, int64_t first, int64_t last, const T* src, int64_t step,
                    int64_t src_pitch, T* dst, int64_t dst_pitch);
  // even[i] = src[2 i], odd[i] = src[2 i + 1] where their place is from `first` to below `last`, else 0. Nothing beyond
  // `count` is written.
  void (*copy_pairs)(int64_t rows, int64_t count, int64_t first, int64_t last, const T* src, int64_t src_pitch, T* even,
                     T* odd, int64_t dst_pitch);
  // dst[row * dst_pitch + 2 * i] = src[row * src_pitch + i] for i < count; what lies between stays.
  void (*spread)(int64_t rows, int64_t count, const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch);
};
struct GroupedKernels {
  GroupedKernelsOf<float> f32;
  GroupedKernelsOf<double> f64;
};

}  // namespace fastconv
