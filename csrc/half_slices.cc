// SPDX-License-Identifier: Apache-2.0
#include "half_slices.h"

#include <algorithm>

#include "rounding.h"

namespace fastconv {
namespace {

constexpr int64_t kBytes = 320 << 10;  // of the float32 copies of a slice, about
constexpr int64_t kTileRows = 4;       // of the tallest tile: bands begin at multiples
constexpr int64_t kMostBands = 256;
constexpr int64_t kMostParts = 8;

// Of the float32 copies of one image and group.
int64_t copied_bytes(const ConvProblem& p) {
  const int64_t x = p.c / p.groups * x_plane(p), y = p.k / p.groups * y_plane(p);
  const int64_t residual = p.epilogue & kEpilogueResidual ? (p.pass == Pass::kBackwardData ? x : y) : 0;
  return 4 * (x + y + residual);
}

// As many as fit, as equal as can be and, if few, an even number of blocks for two threads.
void share(int64_t total, int64_t most, int64_t* each, int64_t* blocks) {
  *blocks = ceil_div(total, std::clamp(most, int64_t{1}, total));
  if (*blocks < 8) *blocks = std::min(total, *blocks + *blocks % 2);
  *each = ceil_div(total, *blocks);
  *blocks = ceil_div(total, *each);
}

}  // namespace

HalfSlices::HalfSlices(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine) : p(problem) {
  while (axis < kMaxSpatial - 1 && p.size[axis] == 1 && p.filter[axis] == 1) ++axis;
  const bool filter = p.pass == Pass::kBackwardFilter;
  const int64_t packed = filter ? 0 : algorithm.packed_bytes(&p, &machine);
  // Small beside a slice: the weights that each reads again, the gradient that each adds to.
  const int64_t again = filter ? 8 * p.k * (p.c / p.groups) * taps(p) : packed;
  images = p.n, groups = p.groups;
  rows = p.pass == Pass::kBackwardData ? p.size[axis] : output_size(p, axis);
  image_blocks = group_blocks = 1;
  if (taken_halves(algorithm, p) != TakenHalves::kNone || again > 2 * kBytes ||
      copied_bytes(p) * p.groups * p.n <= kBytes)
    return;
  cut(packed);
  bool same = true;
  if (packed > 0)
    each_kind([&](const HalfSlice& s) { same = same && algorithm.packed_bytes(&s.problem, &machine) == packed; });
  if (!same) images = p.n, groups = p.groups, image_blocks = group_blocks = bands = 1;
  if (filter) parts = std::clamp(ceil_div(kMostParts, group_blocks), int64_t{1}, image_blocks * bands);
}

void HalfSlices::cut(int64_t packed) {
  const int64_t bytes = copied_bytes(p), image = bytes * p.groups;
  if (image <= kBytes) return share(p.n, kBytes / image, &images, &image_blocks);
  const bool planes = p.x_layout == Layout::kChannelsFirst && p.y_layout == Layout::kChannelsFirst;
  share(p.n, 1, &images, &image_blocks);
  if (p.groups > 1 && packed == 0 && planes) share(p.groups, kBytes / bytes, &groups, &group_blocks);
  if (groups * bytes > kBytes && !cut_rows(groups * bytes)) bands = 1;
}

bool HalfSlices::cut_rows(int64_t bytes) {
  // Where padding is read, or one long row, a band might take another way, which sums in another order.
  const bool one_row = axis == kMaxSpatial - 1;
  if (p.padding_mode != PaddingMode::kZeros || (one_row && (p.groups > 1 || p.pass == Pass::kBackwardData)))
    return false;
  const int64_t all = rows, unit = kTileRows * p.dilation[axis] * (p.pass == Pass::kBackwardData ? p.stride[axis] : 1);
  const int64_t wanted = ceil_div(bytes, kBytes), height = ceil_div(ceil_div(all, wanted), unit) * unit;
  rows = std::max(height, ceil_div(ceil_div(all, kMostBands), unit) * unit);
  bands = ceil_div(all, rows);
  for (int64_t band = 0; band < bands; ++band) {
    HalfSlice slice{p, 0, 0, 0, 0};
    if (!set_band(band * rows, std::min(all, (band + 1) * rows), &slice)) return rows = all, false;
  }
  return true;
}

HalfSlice HalfSlices::at(int64_t image_block, int64_t group_block, int64_t band) const {
  HalfSlice slice{p, image_block * images, group_block * groups, 0, 0};
  ConvProblem& q = slice.problem;
  q.n = std::min(images, p.n - slice.image);
  q.groups = std::min(groups, p.groups - slice.group);
  q.c = p.c / p.groups * q.groups, q.k = p.k / p.groups * q.groups;
  const int64_t all = p.pass == Pass::kBackwardData ? p.size[axis] : output_size(p, axis);
  if (bands > 1) set_band(band * rows, std::min(all, (band + 1) * rows), &slice);
  return slice;
}

// The rows [first, last) of what is written, or of y in backward-filter. False where they read nothing.
bool HalfSlices::set_band(int64_t first, int64_t last, HalfSlice* slice) const {
  ConvProblem& q = slice->problem;
  const int64_t stride = p.stride[axis], reach = (p.filter[axis] - 1) * p.dilation[axis], pad = p.pad_begin[axis];
  if (p.pass != Pass::kBackwardData) {
    const int64_t from = first * stride - pad, to = (last - 1) * stride - pad + reach + 1;
    slice->y_row = first;
    slice->x_row = std::max<int64_t>(0, from);
    q.size[axis] = std::min(p.size[axis], to) - slice->x_row;
    q.pad_begin[axis] = slice->x_row - from;
    q.pad_end[axis] = std::max<int64_t>(0, to - p.size[axis]);
    return q.size[axis] > 0;
  }
  // y's row o reaches x's rows o * stride - pad + tap * dilation.
  const int64_t from = std::max<int64_t>(0, ceil_div(std::max<int64_t>(0, first + pad - reach), stride));
  const int64_t to = std::min(output_size(p, axis), (last - 1 + pad) / stride + 1);
  slice->x_row = first;
  slice->y_row = from;
  q.size[axis] = last - first;
  q.pad_begin[axis] = pad + first - from * stride;
  q.pad_end[axis] = std::max<int64_t>(0, (to - from - 1) * stride + reach + 1 - q.size[axis] - q.pad_begin[axis]);
  return to > from && q.pad_begin[axis] >= 0 && output_size(q, axis) == to - from;
}

}  // namespace fastconv
