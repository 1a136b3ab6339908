// SPDX-License-Identifier: Apache-2.0
// Positions in the plane of the winners that max and min pooling know by the numbers of their taps.
#include "pool.h"
#include "streaming.h"

namespace fastconv {

bool has_offsets(const PoolProblem& p) {
  const bool extreme = p.kind == PoolKind::kMax || p.kind == PoolKind::kMin;
  constexpr int64_t kMost = 256;
  int64_t taps = 1;
  for (int i = 0; i < kMaxSpatial; ++i) taps = std::min(p.window[i], kMost + 1) * taps;
  return extreme && !p.adaptive && taps <= kMost;
}

void positions_of_offsets(const PoolProblem& p, const Options& options, const uint8_t* offsets, int64_t* indices) {
  int64_t below[256];  // from the first tap, which may lie in the padding, to each tap
  int64_t tap = 0;
  for (int64_t d = 0; d < p.window[0]; ++d)
    for (int64_t h = 0; h < p.window[1]; ++h)
      for (int64_t w = 0; w < p.window[2]; ++w)
        below[tap++] = (d * p.dilation[0] * p.size[1] + h * p.dilation[1]) * p.size[2] + w * p.dilation[2];
  const int64_t out[] = {output_size(p, 0), output_size(p, 1), output_size(p, 2)};
  const bool planes = p.layout == Layout::kChannelsFirst;
  const int64_t channels = planes ? 1 : p.c, rows = (planes ? p.n * p.c : p.n) * out[0] * out[1];
  const int64_t row_values = out[2] * channels;
  const Parallel parallel = worth_sharing(*options.machine, rows * row_values * 9, options.threads);
  parallel_for(parallel, rows, [&](int64_t row, int) {
    const int64_t d = row / out[1] % out[0] * p.stride[0] - p.pad_begin[0];
    const int64_t h = row % out[1] * p.stride[1] - p.pad_begin[1];
    for (int64_t o = 0; o < out[2]; ++o) {
      const int64_t first = (d * p.size[1] + h) * p.size[2] + o * p.stride[2] - p.pad_begin[2];
      const int64_t at = row * row_values + o * channels;
      for (int64_t i = at; i < at + channels; ++i) indices[i] = first + below[offsets[i]];
    }
  });
}

}  // namespace fastconv
