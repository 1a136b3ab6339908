// SPDX-License-Identifier: Apache-2.0
// The kernels of the depthwise convolution. depthwise.cc reads a halo buffer (csrc/halo.h); the others read the images
// where they lie, padding by masks and by rows that are left out: depthwise_planes.cc and depthwise_taps.cc (its
// backward-filter) with lanes of neighbouring pixels, depthwise_pixels.cc with lanes of channels.
#pragma once

#include <cstdint>

namespace fastconv {

template <class T>
struct DepthwiseKernelsOf {
  // y[i] = sum over taps, in order, of w[tap] * x[offsets[tap] + i]. Up to two vectors of x beyond `count` are read.
  void (*row)(int64_t count, int64_t taps, const int64_t* offsets, const T* w, const T* x, T* y);
  // sums[tap][lane] += y[i] * x[offsets[tap] + i], i = lane modulo the number of lanes. Nothing beyond count is read.
  void (*filter_row)(int64_t count, int64_t taps, const int64_t* offsets, const T* x, const T* y, T* sums);
  // w[tap] += sum of sums[tap][...], in a fixed tree.
  void (*filter_finish)(int64_t taps, const T* sums, T* w);
  int lanes;
};
struct DepthwiseKernels {
  DepthwiseKernelsOf<float> f32;
  DepthwiseKernelsOf<double> f64;
};

// How the taps of one filter row are read. kPlain: a vector at the step's offset is tap 0. kEvenOdd: of two vectors the
// even elements are tap 0 and the odd ones tap 1 (stride 2). kInterleaved: tap 0 belongs to the even and tap 1 to the
// odd pixels written, which are stored in turn (backward-data of stride 2).
enum class DepthwiseWay : int32_t { kPlain, kEvenOdd, kInterleaved };
inline constexpr int kDepthwiseWays = 3;

struct DepthwiseStep {
  int64_t x;        // where column 0 reads, from the row's own start
  int64_t w[2];     // of the filter
  int32_t taps;     // bit t: tap t exists
  int32_t padding;  // unused
};
// A sum's share that reads elsewhere: a tap of depth, a channel of y, some rows of a large filter.
struct DepthwiseGroup {
  int64_t x, w;
  int64_t row;  // the read row, relative to the plane's, that written row 0 begins with
};

// Rows of a plane: y[j][i] = sum over groups, steps and filter rows r of w[r] * x[step_of_rows * j + r][i ...]. The
// same of so many channels, these pitches apart.
template <class T>
struct DepthwisePlane {
  int64_t channels, x_channel, y_channel, w_channel;
  const T* x;
  int64_t x_row;                // of two read rows
  int64_t first_row, last_row;  // the read rows that exist
  T* y;
  int64_t y_row, rows, columns;  // columns are lanes: pairs of pixels where they are interleaved
  int64_t pixels;                // written of a row
  const T* w;
  int64_t w_row;
  const DepthwiseGroup* group;
  const DepthwiseStep* step;
  int64_t groups, steps;
  // Which elements a step reads: bits[vector][step], whole vectors from `left` to below `right` share one row.
  const uint32_t* bits;
  int64_t left, right;
  bool accumulate;  // to what is there
  bool clamps;      // y = min(max(sum + bias, low), high)
  const T* bias;    // of the channels; null: none
  T low, high;
};

// Sums over the planes of some images for a tile of the filter, one channel after the other:
// sums[r][t][lane] (+)= y[j][i] * x[stride * j + r][x_of[t] + stride * i].
template <class T>
struct DepthwiseTaps {
  const T* x;
  int64_t x_row, first_row, last_row;
  const T* y;
  int64_t y_row, rows, columns;
  const int64_t* x_of;   // where column 0 reads; with stride 2 of every second tap
  const uint32_t* bits;  // as in DepthwisePlane; elements whose column does not exist are left out too
  int64_t left, right;
  int64_t channels = 1, x_channel = 0, y_channel = 0;
  int64_t images = 1, x_image = 0, y_image = 0;
  int64_t spill_first = 0, spill_last = 0;  // channels whose vectors may be read beyond the rows that they begin in
  bool asks = false;                        // for the next channel's planes
  T* sums;                                  // of one channel, added to; or, if there are totals, null
  T* totals = nullptr;                      // [channel][r][t], all lanes added
};

template <class T>
struct DepthwisePlaneKernelsOf {
  int lanes;
  // By way, number of filter rows (of a group) and of written rows at a time; null where there is none.
  void (*(*rows)(DepthwiseWay way, int filter_rows, int64_t rows))(const DepthwisePlane<T>*);
  int most_filter_rows[kDepthwiseWays];
};
struct DepthwisePlaneKernels {
  DepthwisePlaneKernelsOf<float> f32;
  DepthwisePlaneKernelsOf<double> f64;
};

template <class T>
struct DepthwiseTapsKernelsOf {
  int lanes, most_filter_rows, most_taps;
  // Filter rows up to the most, an odd number of taps up to the most.
  void (*(*taps)(int stride, int filter_rows, int taps))(const DepthwiseTaps<T>*);
};
struct DepthwiseTapsKernels {
  DepthwiseTapsKernelsOf<float> f32;
  DepthwiseTapsKernelsOf<double> f64;
};

// ---- Lanes are channels ------------------------------------------------------------------------------------------

// One column written: the filter columns [first, first + count) lie inside, the first of them reads at `x`.
struct DepthwiseColumn {
  int64_t x, first, count;
};
// y[j][i][c] = sum over groups, filter columns s and filter rows r of w[r][s][c] * x[step * j + r][column i, s][c].
template <class T>
struct DepthwisePixels {
  const T* x;
  int64_t x_row, x_step;  // of two rows; of two filter columns
  int64_t first_row, last_row;
  T* y;
  int64_t y_row, y_pixel, rows, columns, channels;
  const T* w;
  int64_t w_row, w_step;
  const DepthwiseGroup* group;
  int64_t groups;
  const DepthwiseColumn* column;
  const T* bias;  // null: none
  bool accumulate, clamps;
  T low, high;
};
// sums[r][t][c] += y[j][i][c] * x[step * j + r][column i, t][c] for one vector of channels and a tile of the filter.
template <class T>
struct DepthwisePixelTaps {
  const T* x;
  int64_t x_row, x_step, first_row, last_row;
  const T* y;
  int64_t y_row, y_pixel, rows, columns, channels;
  const DepthwiseColumn* column;  // of the tile
  T* sums;
};
template <class T>
struct DepthwisePixelKernelsOf {
  int lanes, most_filter_rows, most_tile_rows, most_tile_taps;
  void (*(*rows)(int step, int filter_rows, int64_t rows))(const DepthwisePixels<T>*);
  void (*(*taps)(int step, int filter_rows, int taps))(const DepthwisePixelTaps<T>*);
};
struct DepthwisePixelKernels {
  DepthwisePixelKernelsOf<float> f32;
  DepthwisePixelKernelsOf<double> f64;
};

}  // namespace fastconv
