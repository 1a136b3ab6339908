// SPDX-License-Identifier: Apache-2.0
// How depthwise_planes.cc reads the columns of a row.
#pragma once

#include <algorithm>
#include <vector>

#include "depthwise.h"

namespace fastconv {

inline DepthwiseWay depthwise_way(const ConvProblem& p) {
  if (p.pass == Pass::kForward) return p.stride[2] == 1 ? DepthwiseWay::kPlain : DepthwiseWay::kEvenOdd;
  return phases_of(p, 2) == 1 ? DepthwiseWay::kPlain : DepthwiseWay::kInterleaved;
}

// How the columns of a row are read, the same for every row.
struct DepthwiseColumns {
  DepthwiseWay way;
  int64_t stride, sets;  // elements read per column, pixels written
  int64_t columns, pixels, vectors, left, right;
  std::vector<DepthwiseStep> steps;
  std::vector<uint32_t> bits;  // see DepthwisePlane

  DepthwiseColumns(const ConvProblem& p, int lanes)
      : way(depthwise_way(p)),
        stride(way == DepthwiseWay::kEvenOdd ? 2 : 1),
        sets(way == DepthwiseWay::kInterleaved ? 2 : 1) {
    const ColumnAxis axis = phase_axis(p, 2, 0);
    columns = axis.columns;
    pixels = axis.out_size;
    vectors = ceil_div(columns, lanes);
    for (int64_t phase = 0; phase < sets; ++phase) add_taps(phase_axis(p, 2, phase), static_cast<int>(phase));
    find_bits(axis.size, lanes);
  }

  const uint32_t* bits_of(int64_t vector) const {
    const int64_t shared = right > left ? right - left - 1 : 0;
    const int64_t row = vector <= left ? vector : vector < right ? left : vector - shared;
    return bits.data() + row * static_cast<int64_t>(steps.size());
  }

 private:
  void add_taps(const ColumnAxis& a, int tap) {
    const TapOrder order(a);
    const int64_t start = a.offset + std::min<int64_t>(0, (a.taps - 1) * a.offset_step);
    for (int64_t t = 0; t < a.taps; ++t) {
      const int64_t at = start + t * std::abs(a.offset_step), w = order.first + t * order.step;
      if (way == DepthwiseWay::kEvenOdd && t % 2 == 1) {
        steps.back().w[1] = w, steps.back().taps = 3;
        continue;
      }
      auto step = std::find_if(steps.begin(), steps.end(), [&](const DepthwiseStep& s) { return s.x >= at; });
      if (step == steps.end() || step->x != at) step = steps.insert(step, DepthwiseStep{at, {0, 0}, 0, 0});
      step->w[tap] = w, step->taps |= 1 << tap;
    }
  }
  void find_bits(int64_t size, int64_t lanes) {
    const int64_t width = lanes * stride;
    // A vector that is whole is also written as a whole: with more padding than the filter reaches the last may read
    // cells for pixels that do not exist.
    const int64_t written = pixels / (lanes * sets);
    left = 0, right = written;
    if (!steps.empty()) {
      left = std::clamp(ceil_div(std::max<int64_t>(0, -steps.front().x), width), int64_t{0}, vectors);
      right = std::clamp(floor_div(size - steps.back().x, width), left, std::max(left, written));
    }
    for (int64_t v = 0; v < vectors; v = v == left && right > left ? right : v + 1)
      for (const DepthwiseStep& step : steps) {
        uint32_t set = 0;
        for (int64_t i = 0; i < width; ++i) {
          const int64_t at = v * width + i + step.x;
          if (at >= 0 && at < size) set |= 1u << i;
        }
        bits.push_back(set);
      }
  }
};

}  // namespace fastconv
