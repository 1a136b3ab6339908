// SPDX-License-Identifier: Apache-2.0
// How much memory the depthwise ways allocate besides their workspace: bounds, from the geometry alone, which
// tests/native/check_workspace.cc compares with what is allocated.
#include "../border.h"
#include "depthwise.h"

namespace fastconv {
namespace {

constexpr int64_t kGrowth = 3;  // a vector that grows holds its old elements beside room for twice as many

int64_t border_bytes(const ConvProblem& p) {
  int64_t runs = 0;
  if (shows_cells(p.padding_mode)) each_border_run(p, 0, x_plane(p), [&](const BorderRun&) { ++runs; });
  return kGrowth * runs * static_cast<int64_t>(sizeof(BorderRun));
}

}  // namespace

int64_t depthwise_table_bytes(const ConvProblem& p, const Machine& m, int slots) {
  constexpr int64_t kGroup = sizeof(DepthwiseGroup), kStep = sizeof(DepthwiseStep), kColumn = sizeof(DepthwiseColumn);
  const int64_t lanes = m.kernels->vector_bytes / element_size(p.dtype);
  const int64_t columns = std::max(p.size[2], output_size(p, 2)), vectors = ceil_div(columns, lanes) + 3;
  const int64_t taps = p.filter[2] + 1, groups = p.filter[0] * (p.filter[1] + 1) * (p.k / p.groups);
  const int64_t masks = kGrowth * vectors * taps * 4;
  if (depthwise_planes_serve(p)) {
    const int64_t slices = std::max(p.size[0], output_size(p, 0)), rows = std::max(p.size[1], output_size(p, 1));
    const int64_t calls = 3 * std::min(rows, p.stride[1] * p.dilation[1]);
    const int64_t slice = 64 + kGrowth * calls * (kPlaneCallBytes + groups * kGroup);
    return border_bytes(p) + masks + kGrowth * taps * (kStep + 4) + (slices + 1) * slice;
  }
  // x_of, bits and the tile itself
  if (depthwise_filter_serves(p))
    return border_bytes(p) + kGrowth * taps * 96 + kGrowth * taps * 8 + masks +
           kGrowth * depthwise_filter_call_bytes(p, m);
  if (depthwise_pixels_serve(p))
    return border_bytes(p) + kGrowth * (columns + p.stride[2]) * kColumn +
           slots * kGrowth * (groups * kGroup + columns * kColumn);
  return p.pass == Pass::kBackwardData ? border_bytes(p) : 0;
}

}  // namespace fastconv
