// SPDX-License-Identifier: Apache-2.0
// Backward-data of few channels: products of pixels and taps are added at the pixels of dx that they belong to
// (col2im.cc).
#pragma once

#include <cstdint>

namespace fastconv {

// A phase of the columns of dx (csrc/im2col.h): its columns, a vector of `lanes` at a time, are reached by `taps` taps.
struct Col2imPhase {
  int64_t taps;
  int64_t place, step;   // of the first tap's product for the first column, and from one tap to the next
  const uint32_t* bits;  // [vector][tap]: the lanes that the tap reaches
};

// A row of dx: element place of lines[i] is the product of a tap that reaches it by the i-th of its filter rows.
template <class T>
struct Col2imRow {
  const T* const* lines;
  int64_t count;
  T* dst;
};

template <class T>
struct Col2imKernelsOf {
  // Rows of a channel, whose places are `channel` further. dst[i] = sum over the taps of its columns of the sums over
  // the rows of the filter, both in the order in which they are given.
  void (*add_up)(const Col2imPhase* phase, int64_t channel, int64_t rows, const Col2imRow<T>* row, int64_t count);
  // The same of two phases: dst[2 * i + phase], `count` elements of both.
  void (*add_up_two)(const Col2imPhase* phases, int64_t channel, int64_t rows, const Col2imRow<T>* row, int64_t count);
};
struct Col2imKernels {
  Col2imKernelsOf<float> f32;
  Col2imKernelsOf<double> f64;
};

}  // namespace fastconv
