// SPDX-License-Identifier: Apache-2.0
// The ways of the depthwise convolution. Each says whether it serves a problem; the halo buffer serves every one.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <limits>

#include "../algorithm.h"
#include "../im2col.h"
#include "../kernels/depthwise_kernels.h"
#include "../machine.h"
#include "../rounding.h"
#include "../stored.h"

namespace fastconv {

// The tables of rows and columns of each way are vectors; this is what they take at most. depthwise_tables.cc
int64_t depthwise_table_bytes(const ConvProblem& p, const Machine& m, int slots);
inline constexpr int64_t kPlaneCallBytes = 320;  // of a call of depthwise_planes.cc, at most

inline constexpr int kMostSums = 3 * 7 * 16;  // lanes of a tile of the filter gradient
inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -ceil_div(-a, b); }

// Grid points of one axis that share the rows they read: o = residue + residues * j reads, for the t-th of its taps in
// ascending order, the coordinate begin(residue) + pitch * (step * j + t). A kernel has one step.
struct SharedRows {
  int64_t residues = 1, pitch = 1, step;
  bool fits = true;

  SharedRows(const ColumnAxis& a, int64_t kernel_step) : step(kernel_step) {
    const int64_t distance = std::abs(a.offset_step);
    if (a.taps <= 1 && a.step % step == 0)
      pitch = a.step / step;
    else if (a.columns == 1)
      pitch = distance;
    else if (a.step == 1 && step == 1)
      residues = pitch = distance;
    else
      fits = a.step == step && distance == 1;
  }
  int64_t begin(const ColumnAxis& a, int64_t residue) const {
    return a.offset + std::min<int64_t>(0, (a.taps - 1) * a.offset_step) + residue * a.step;
  }
  int64_t points(const ColumnAxis& a, int64_t residue) const { return ceil_div(a.columns - residue, residues); }
  // The rows of a kernel's call that lie in the tensor, counted from coordinate `begin`.
  template <class Call>
  void set_limits(const ColumnAxis& a, int64_t begin, Call* call) const {
    call->first_row = ceil_div(std::max<int64_t>(0, -begin), pitch);
    call->last_row = floor_div(a.size - 1 - begin, pitch) + 1;
  }
  // visit(point, rows, begin) for each residue that has grid points in [first, last): `rows` of them from `point` on,
  // `residues` apart, the first of which reads coordinate `begin` by tap t.
  template <class Visit>
  void each_residue(const ColumnAxis& a, int64_t first, int64_t last, int64_t t, const Visit& visit) const {
    for (int64_t residue = 0; residue < std::min(residues, a.columns); ++residue) {
      const int64_t j = ceil_div(std::max<int64_t>(0, first - residue), residues);
      const int64_t end = ceil_div(std::max<int64_t>(0, last - residue), residues);
      if (j < end) visit(residue + residues * j, end - j, begin(a, residue) + pitch * (step * j + t));
    }
  }
};

// The filter coordinates of an axis in ascending order of what they read: first + step * t.
struct TapOrder {
  int64_t first, step;
  explicit TapOrder(const ColumnAxis& a) : first(a.first_tap), step(a.tap_step) {
    if (a.offset_step > 0) return;
    first += (a.taps - 1) * a.tap_step;
    step = -step;
  }
};

// Axis `a` of phase `phase` of the pass; forward has one phase.
inline ColumnAxis phase_axis(const ConvProblem& p, int a, int64_t phase) {
  if (p.pass != Pass::kBackwardData) return forward_grid(p).axis[a];
  constexpr Side kX[kMaxSpatial] = {Side::kAlong, Side::kAlong, Side::kAlong};
  int64_t phases[kMaxSpatial] = {0, 0, 0};
  phases[a] = phase;
  return backward_data_grid(p, kX, phases).axis[a];
}
inline int64_t phases_of(const ConvProblem& p, int a) { return p.pass == Pass::kBackwardData ? phase_count(p, a) : 1; }

inline bool has_padding(const ConvProblem& p) {
  for (int a = 0; a < kMaxSpatial; ++a)
    if (p.pad_begin[a] + p.pad_end[a] != 0) return true;
  return false;
}
// Padding that shows cells of x adds its terms after those of zero padding (depthwise_border.cc).
inline bool adds_border(const ConvProblem& p) { return shows_cells(p.padding_mode) && has_padding(p); }
// Begins with what zero padding gives: all but a constant that is read.
inline bool begins_with_zeros(const ConvProblem& p) {
  return p.padding_mode != PaddingMode::kConstant || p.pass == Pass::kBackwardData || !has_padding(p);
}

// What a sum goes through in the kernels, min(max(sum + bias, low), high), and what is left to do after them.
template <class T>
struct DepthwiseStore {
  T low = 0, high = std::numeric_limits<T>::infinity();
  bool clamps = false;
  bool more;  // a residual, another activation, or anything after a border is added

  DepthwiseStore(const ConvProblem& p, const RunContext& r) : more(r.residual) {
    if (p.activation == Activation::kNone) return;
    const bool simple = p.activation == Activation::kRelu || p.activation == Activation::kRelu6;
    more = more || !simple || adds_border(p);
    clamps = !more;
    if (p.activation == Activation::kRelu6) high = T(6);
  }
};

// Adds the terms of padding that shows cells of x. `turned`: the weights as [tap][pitch] of channels, or null.
template <class T>
void depthwise_border_run(const ConvProblem& problem, const RunContext& context, const T* turned, int64_t pitch);

// Channels first, halves of two axes at most: what a strip of rows, or small planes together, read and write passes
// through elements of T, few enough for L1.
struct DepthwiseStage {
  int64_t rows;                     // of a strip: written, or of y in backward-filter
  int64_t read, written, residual;  // elements of a channel
  int64_t channels = 1;             // together

  explicit DepthwiseStage(const ConvProblem& problem);
  // One plane of x for each of y, without what is added to tensors after that.
  static bool serves(const ConvProblem& problem);
  int64_t bytes() const { return is_half_ ? aligned(4 * channels * (read + written + residual)) : 0; }
  // The rows of the plane that is read for rows [first, last).
  Extent read_rows(int64_t first, int64_t last) const;

 private:
  bool is_half_, forward_;
  int64_t size_, stride_, reach_, pad_;  // size: of the axis read
};

bool depthwise_planes_serve(const ConvProblem& problem);
template <class T>
void depthwise_planes_run(const ConvProblem& problem, const RunContext& context);

bool depthwise_filter_serves(const ConvProblem& problem);
int64_t depthwise_filter_bytes(const ConvProblem& problem, const Machine& machine, int slots);  // of workspace
int64_t depthwise_filter_call_bytes(const ConvProblem& problem, const Machine& machine);        // of its lists
template <class T>
void depthwise_filter_run(const ConvProblem& problem, const RunContext& context);

bool depthwise_pixels_serve(const ConvProblem& problem);  // every pass, channels last
template <class T>
int64_t depthwise_pixels_bytes(const ConvProblem& problem, const Machine& machine);
template <class T>
void depthwise_pixels_run(const ConvProblem& problem, const RunContext& context);

}  // namespace fastconv
