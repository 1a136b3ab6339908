// SPDX-License-Identifier: Apache-2.0
#include "depthwise.h"

namespace fastconv {
namespace {

constexpr int64_t kElements = 6 << 10;  // 24 KiB of float32: half of L1
constexpr int64_t kFewestRows = 8;      // the rows that neighbouring strips both read stay few

}  // namespace

DepthwiseStage::DepthwiseStage(const ConvProblem& p)
    : is_half_(is_half(p.dtype)),
      forward_(p.pass != Pass::kBackwardData),
      size_(forward_ ? p.size[1] : output_size(p, 1)),
      stride_(p.stride[1]),
      reach_((p.filter[1] - 1) * p.dilation[1]),
      pad_(p.pad_begin[1]) {
  const int64_t x_width = p.size[2], y_width = output_size(p, 2);
  const int64_t all = forward_ ? output_size(p, 1) : p.size[1];
  const int64_t read_width = forward_ ? x_width : y_width, written_width = forward_ ? y_width : x_width;
  const int64_t row = written_width + (forward_ ? read_width * stride_ : ceil_div(read_width, stride_));
  rows = std::clamp(ceil_div(kElements / std::max<int64_t>(1, row), kFewestRows) * kFewestRows, kFewestRows,
                    std::max(kFewestRows, all));
  // As many rows as the strip with the most reads.
  const int64_t most = forward_ ? (rows - 1) * stride_ + reach_ + 1 : (rows + reach_) / stride_ + 1;
  read = std::min(size_, most) * read_width;
  written = std::min(rows, all) * written_width;
  residual = p.epilogue & kEpilogueResidual ? written : 0;
  const bool planes = rows >= all && p.k == p.groups && p.pass != Pass::kBackwardFilter;
  if (planes) channels = std::clamp(kElements / std::max<int64_t>(1, read + written), int64_t{1}, p.k);
}

bool DepthwiseStage::serves(const ConvProblem& p) {
  const bool flat = p.size[0] == 1 && p.filter[0] == 1 && output_size(p, 0) == 1 && p.size[1] > 1;
  if (!flat || adds_border(p) || (p.pass == Pass::kBackwardData && p.k != p.groups)) return false;
  return depthwise_planes_serve(p) || depthwise_filter_serves(p);
}

Extent DepthwiseStage::read_rows(int64_t first, int64_t last) const {
  const int64_t begin =
      forward_ ? first * stride_ - pad_ : ceil_div(std::max<int64_t>(0, first + pad_ - reach_), stride_);
  const int64_t end = forward_ ? (last - 1) * stride_ - pad_ + reach_ + 1 : (last - 1 + pad_) / stride_ + 1;
  const int64_t from = std::clamp(begin, int64_t{0}, size_);
  return {from, std::clamp(end, from, size_)};
}

}  // namespace fastconv
