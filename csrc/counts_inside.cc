// SPDX-License-Identifier: Apache-2.0
// What of counts.h a device's library counts with too.
#include <algorithm>

#include "counts.h"
#include "rounding.h"

namespace fastconv {

int64_t pairs_inside(const ConvProblem& p, int axis) {
  const int64_t out = output_size(p, axis), stride = p.stride[axis];
  int64_t pairs = 0;
  for (int64_t t = 0; t < p.filter[axis]; ++t) {  // outputs from `first` to below `last` read a cell
    const int64_t at = t * p.dilation[axis] - p.pad_begin[axis];
    const int64_t first = at < 0 ? std::min(out, ceil_div(-at, stride)) : 0;
    const int64_t last = at < p.size[axis] ? std::clamp((p.size[axis] - 1 - at) / stride + 1, first, out) : first;
    pairs += last - first;
  }
  return pairs;
}

int64_t channel_pairs(const ConvProblem& p) { return p.n * p.k * (p.c / p.groups); }

bool reads_padding(const ConvProblem& p) {
  return shows_cells(p.padding_mode) || (p.padding_mode == PaddingMode::kConstant && p.pass != Pass::kBackwardData);
}

int64_t products_inside(const ConvProblem& p) {
  if (reads_padding(p)) return multiply_adds(p);
  return channel_pairs(p) * pairs_inside(p, 0) * pairs_inside(p, 1) * pairs_inside(p, 2);
}

}  // namespace fastconv
