// SPDX-License-Identifier: Apache-2.0
#include "counts.h"

#include "border.h"
#include "halo.h"

namespace fastconv {
namespace {

// Pairs of an output and a tap of one axis that lie inside x.
int64_t pairs_inside(const ConvProblem& p, int axis) {
  const int64_t out = output_size(p, axis);
  int64_t pairs = 0;
  for (int64_t t = 0; t < p.filter[axis]; ++t) {
    const Inside inside(t * p.dilation[axis] - p.pad_begin[axis], p.stride[axis], out, p.size[axis]);
    pairs += inside.last - inside.first;
  }
  return pairs;
}

// Pairs of a grid point and a tap of its phase on one axis.
int64_t pairs_gathered(const ConvProblem& p, int axis) {
  if (p.pass != Pass::kBackwardData) return output_size(p, axis) * p.filter[axis];
  int64_t pairs = 0, phase[kMaxSpatial] = {0, 0, 0};
  constexpr Side kX[kMaxSpatial] = {Side::kAlong, Side::kAlong, Side::kAlong};
  for (; phase[axis] < phase_count(p, axis); ++phase[axis]) {
    const ColumnAxis a = backward_data_grid(p, kX, phase).axis[axis];
    pairs += a.columns * a.taps;
  }
  return pairs;
}

int64_t channel_pairs(const ConvProblem& p) { return p.n * p.k * (p.c / p.groups); }

int64_t border_pairs(const ConvProblem& p) {
  int64_t pairs = 0;
  if (p.pass != Pass::kBackwardData) return 0;
  each_border_grid(p, [&](const ColumnGrid& grid) { pairs += grid.columns() * grid.taps(); });
  return pairs;
}

int64_t pairs_of_zeros(const ConvProblem& p) { return pairs_inside(p, 0) * pairs_inside(p, 1) * pairs_inside(p, 2); }

}  // namespace

bool reads_padding(const ConvProblem& p) {
  return shows_cells(p.padding_mode) || (p.padding_mode == PaddingMode::kConstant && p.pass != Pass::kBackwardData);
}

int64_t gathered_products(const ConvProblem& p, bool border) {
  const int64_t pairs = pairs_gathered(p, 0) * pairs_gathered(p, 1) * pairs_gathered(p, 2);
  return channel_pairs(p) * (pairs + (border ? border_pairs(p) : 0));
}

int64_t products_of_rows(const ConvProblem& p) {
  const int64_t rows = channel_pairs(p) * pairs_inside(p, 0) * pairs_inside(p, 1) * pairs_gathered(p, 2);
  return shows_cells(p.padding_mode) ? rows + multiply_adds(p) - channel_pairs(p) * pairs_of_zeros(p) : rows;
}

int64_t products_inside(const ConvProblem& p) {
  return reads_padding(p) ? multiply_adds(p) : channel_pairs(p) * pairs_of_zeros(p);
}

}  // namespace fastconv
