// SPDX-License-Identifier: Apache-2.0
#include "counts.h"

#include "border.h"
#include "halo.h"

namespace fastconv {
namespace {

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

int64_t border_pairs(const ConvProblem& p) {
  int64_t pairs = 0;
  if (p.pass != Pass::kBackwardData) return 0;
  each_border_grid(p, [&](const ColumnGrid& grid) { pairs += grid.columns() * grid.taps(); });
  return pairs;
}

}  // namespace

int64_t gathered_products(const ConvProblem& p, bool border) {
  const int64_t pairs = pairs_gathered(p, 0) * pairs_gathered(p, 1) * pairs_gathered(p, 2);
  return channel_pairs(p) * (pairs + (border ? border_pairs(p) : 0));
}

int64_t products_of_rows(const ConvProblem& p) {
  const int64_t rows = channel_pairs(p) * pairs_inside(p, 0) * pairs_inside(p, 1) * pairs_gathered(p, 2);
  if (!shows_cells(p.padding_mode)) return rows;
  return rows + multiply_adds(p) - channel_pairs(p) * pairs_inside(p, 0) * pairs_inside(p, 1) * pairs_inside(p, 2);
}

}  // namespace fastconv
