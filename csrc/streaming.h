// SPDX-License-Identifier: Apache-2.0
// What the drivers of memory-bound operations share: how work is cut (by the problem alone, so that results do not
// depend on the number of threads) and when it is worth sharing.
#pragma once

#include <algorithm>

#include "algorithm.h"
#include "parallel.h"
#include "rounding.h"

namespace fastconv {

// Bytes that one item of work touches: they stay in L2 between two passes over them, and cost more than being claimed.
inline constexpr int64_t kItemBytes = 128 << 10;

template <class T, class Kernels>
const auto& kernels_of(const Kernels& kernels) {
  if constexpr (sizeof(T) == 8)
    return kernels.f64;
  else
    return kernels.f32;
}

// Waking a thread costs as much as moving a few hundred KB: work below that stays with the caller.
inline Parallel worth_sharing(const Machine& machine, int64_t bytes, int threads = 0) {
  constexpr double kSharedFromSeconds = 20e-6;
  const bool small = static_cast<double>(bytes) < kSharedFromSeconds * machine.bytes_per_second;
  return make_parallel(small ? 1 : threads);
}

// Calls work(first, count) over [0, total) in chunks of about kItemBytes; each element touches `bytes`.
template <class Work>
void for_chunks(const Machine& machine, int64_t total, int64_t bytes, const Work& work) {
  const int64_t chunk = std::max<int64_t>(1, kItemBytes / std::max<int64_t>(1, bytes));
  parallel_for(worth_sharing(machine, total * bytes), ceil_div(total, chunk),
               [&](int64_t item, int) { work(item * chunk, std::min(chunk, total - item * chunk)); });
}

}  // namespace fastconv
