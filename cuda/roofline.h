// SPDX-License-Identifier: Apache-2.0
// Estimates on the device: seconds of the whole of it, from counts of launches, products and bytes and the committed speeds
// of the machine. The fractions of the peaks are guesses until bench.gpu_report has measured them.
#pragma once

#include <algorithm>

#include "../csrc/algorithm.h"

namespace fastconv::cuda {

constexpr int64_t divide_up(int64_t value, int64_t unit) { return (value + unit - 1) / unit; }
constexpr int64_t round_up(int64_t value, int64_t unit) { return divide_up(value, unit) * unit; }

// FLOP/s of the problem's dtype outside the tensor cores, at a `fraction` of the peak.
inline double rate(const ConvProblem& p, const Machine& m, double fraction) {
  return fraction * (p.dtype == DType::kFloat64 ? m.flops_f64 : m.flops_f32);
}

inline void add_launches(int count, Estimate* e) { e->add("start", 3e-6 * count); }

// `bytes` that are moved to or from memory once.
inline void add_traffic(const char* kind, double bytes, const Machine& m, Estimate* e) {
  e->add(kind, bytes / m.bytes_per_second);
}

// What of the device `blocks` equal blocks keep busy, when each multiprocessor holds `resident` of them: the last wave is
// not full.
inline double occupancy(int64_t blocks, int resident, const Machine& m) {
  const int64_t room = std::max<int64_t>(1, int64_t{m.multiprocessors} * resident);
  const int64_t waves = std::max<int64_t>(1, divide_up(blocks, room));
  return std::max(1e-3, static_cast<double>(blocks) / static_cast<double>(waves * room));
}

}  // namespace fastconv::cuda
