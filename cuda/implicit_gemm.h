// SPDX-License-Identifier: Apache-2.0
// What the tensor cores' products are made of, worked out on the host: the forward pass and backward-data are one
// kernel
//   written[place of position][row] = sum over (tap, channel) of read[place for position and tap][channel] * weights
// where the place read is position * step + tap * tap_step + origin along each axis. Forward has one phase;
// backward-data one for every residue of the places of x by the stride, each with the taps that reach it.
#pragma once

#include <algorithm>
#include <numeric>

#include "roofline.h"

namespace fastconv::cuda {

constexpr int kMostPhases = 8;  // of one launch
constexpr int64_t kMostPlace = int64_t{1} << 29;

struct ImplicitAxis {
  int64_t positions, first;               // the places written are first + position * stride (forward: position)
  int64_t taps, first_tap, between_taps;  // of w: first_tap + tap * between_taps
  int64_t origin, tap_step;               // of what is read
};
struct ImplicitPhase {
  ImplicitAxis axis[kMaxSpatial];
  int64_t pixels, taps;  // products of the axes
};

inline bool is_forward(const ConvProblem& p) { return p.pass == Pass::kForward; }
inline int64_t phases_of_axis(const ConvProblem& p, int i) {
  return is_forward(p) ? 1 : std::min(p.stride[i], p.size[i]);
}
inline int64_t phase_count(const ConvProblem& p) {
  return phases_of_axis(p, 0) * phases_of_axis(p, 1) * phases_of_axis(p, 2);
}

inline ImplicitAxis axis_of(const ConvProblem& p, int i, int64_t residue) {
  if (is_forward(p)) return {output_size(p, i), 0, p.filter[i], 0, 1, -p.pad_begin[i], p.dilation[i]};
  const int64_t stride = p.stride[i], common = std::gcd(p.dilation[i], stride), at = residue + p.pad_begin[i];
  ImplicitAxis a{divide_up(p.size[i] - residue, stride), residue, 0, 0, stride / common, 0, -(p.dilation[i] / common)};
  while (a.first_tap < a.between_taps && (at - a.first_tap * p.dilation[i]) % stride != 0) ++a.first_tap;
  if (a.first_tap == a.between_taps || a.first_tap >= p.filter[i]) return a;
  a.taps = (p.filter[i] - 1 - a.first_tap) / a.between_taps + 1;
  a.origin = (at - a.first_tap * p.dilation[i]) / stride;
  return a;
}
inline ImplicitPhase phase_of(const ConvProblem& p, int64_t index) {
  ImplicitPhase phase{};
  phase.pixels = phase.taps = 1;
  for (int i = kMaxSpatial; i-- > 0;) {
    const int64_t count = phases_of_axis(p, i);
    phase.axis[i] = axis_of(p, i, index % count);
    index /= count;
    phase.pixels *= phase.axis[i].positions, phase.taps *= phase.axis[i].taps;
  }
  return phase;
}

// The matrix product of a forward or backward-data problem.
struct ImplicitSizes {
  int64_t groups, rows, channels;  // rows written and channels read, of a group
  int64_t depth;                   // of a step
  explicit ImplicitSizes(const ConvProblem& p)
      : groups(p.groups),
        rows((is_forward(p) ? p.k : p.c) / p.groups),
        channels((is_forward(p) ? p.c : p.k) / p.groups),
        depth(64 / element_size(p.dtype)) {}
  int64_t steps(const ImplicitPhase& phase) const { return divide_up(phase.taps * channels, depth); }
  // Packed weights lie as [phase][group][step][row][depth of the step].
  int64_t weights(const ImplicitPhase& phase) const { return groups * steps(phase) * rows * depth; }
};

enum class ImplicitShape : int32_t { kLarge, kSmall, kFlat };

// How the products are shared among blocks of threads. `chunk` follows from the problem without n, and the order of
// every sum from `chunk` alone; the rest may follow from anything.
struct ImplicitSharing {
  ImplicitShape shape;
  int64_t chunk;   // steps
  int64_t chunks;  // of the longest phase; more than 1: each by blocks of its own, their sums by way of the workspace
};
ImplicitSharing sharing_of(const ConvProblem& p, const Machine& m);

constexpr int64_t rows_of(ImplicitShape shape) {
  return shape == ImplicitShape::kLarge ? 128 : shape == ImplicitShape::kSmall ? 64 : 32;
}
constexpr int64_t columns_of(ImplicitShape shape) { return shape == ImplicitShape::kSmall ? 64 : 128; }

// The filter gradient: w[row][column] = sum over pixels of y[row][pixel] x[place for pixel and tap][channel], with
// columns (tap, channel). Parts of the pixels are summed by blocks of their own and added by a second kernel, both in
// their order.
struct FilterSharing {
  ImplicitShape shape;
  int64_t rows, columns, steps;  // of a group; steps of all pixels
  int64_t part, parts;           // steps of one, and how many
};
FilterSharing filter_sharing_of(const ConvProblem& p);

// The passes, for each kind of arithmetic in the file of its name. `one_product`: tf32 without its corrections.
// `weights`: packed. `scratch`: partial sums.
int implicit_images_half(const ConvProblem& p, const RunContext& r, const void* weights, void* scratch);
int implicit_images_float(const ConvProblem& p, const RunContext& r, const void* weights, void* scratch,
                          bool one_product);
int implicit_filter_half(const ConvProblem& p, const RunContext& r, void* scratch);
int implicit_filter_float(const ConvProblem& p, const RunContext& r, void* scratch, bool one_product);

}  // namespace fastconv::cuda
