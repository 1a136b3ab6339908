// SPDX-License-Identifier: Apache-2.0
// One input channel per group: what the files of depthwise share. Which kernel takes what, of zeros padding:
//   depthwise_planes.cu  channels first, square filters of 3, 5 and 7, strides 1 and 2, dilation 1
//   depthwise_pixels.cu  the same, channels last
//   depthwise_long.cu    channels last, filters of 11x11 to 31x31, no strides
//   depthwise_any.cu     everything else: rows (no stride or dilation along them) and single outputs
//   depthwise_filter.cu  backward-filter
#pragma once

#include "tile_plan.h"

namespace fastconv::cuda {

// A two-dimensional 3x3, 5x5 or 7x7 without dilation, of stride 1 or (not backward-data) 2.
inline bool is_depthwise_square(const ConvProblem& p) {
  const int64_t f = p.filter[2], s = p.stride[2];
  return p.size[0] == 1 && p.filter[0] == 1 && p.pad_begin[0] == 0 && p.pad_end[0] == 0 && p.filter[1] == f &&
         (f == 3 || f == 5 || f == 7) && p.stride[1] == s && (s == 1 || s == 2) && p.dilation[1] == 1 &&
         p.dilation[2] == 1 && (p.pass != Pass::kBackwardData || s == 1);
}

// Rows of outputs that a thread computes of them, channels first.
constexpr int square_rows(int stride) { return stride == 1 ? 4 : 2; }
// Where the first cell that output 0 reads lies in its row of shared memory: there, the usual padding of half the
// filter leaves the rows of the tensor and of the box aligned alike.
constexpr int square_lead(int element, int filter) {
  const int piece = 16 / element;
  return (piece - filter / 2 % piece) % piece;
}

// Forward and backward-data: chooses the tile; false: none fits. `bytes`, if given, gets what moves.
bool plan_depthwise_planes(const ConvProblem& p, Tile* g, double* bytes = nullptr);
bool plan_depthwise_pixels(const ConvProblem& p, Tile* g, double* bytes = nullptr);
bool plan_depthwise_any(const ConvProblem& p, Tile* g, double* bytes = nullptr);
int run_depthwise_planes(const ConvProblem& p, const RunContext& r);
int run_depthwise_pixels(const ConvProblem& p, const RunContext& r);
int run_depthwise_any(const ConvProblem& p, const RunContext& r);

// Its tiles need more shared memory than every device has.
bool is_depthwise_long(const ConvProblem& p, const Machine& m);
bool plan_depthwise_long(const ConvProblem& p, Tile* g, double* bytes);
int run_depthwise_long(const ConvProblem& p, const RunContext& r);

// What the kernels multiply whose threads compute each of their items whole, beyond the edges of the tensor too.
inline double products_of_items(const Tile& g) {
  return times(g.blocks, g.items.total, g.unit_w, g.unit_h) * times(g.unit_planes, g.terms, g.taps);
}

bool plan_depthwise_filter(const ConvProblem& p, double* bytes = nullptr);
int64_t depthwise_filter_workspace(const ConvProblem& p);
int run_depthwise_filter(const ConvProblem& p, const RunContext& r);

}  // namespace fastconv::cuda
