// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "partial_sums.cuh"
#include "roofline.h"

namespace fastconv::cuda {
namespace {

constexpr int kSlices = 8, kThreads = kSlices * kWarp;

template <class T>
struct Slices {
  Sum<T> sums[kSlices][kWarp];
};

// Each warp adds every kSlices-th part of 32 weights; then the warps' sums are added in order.
template <class T>
__global__ void __launch_bounds__(kThreads) add_parts(T* w, const Sum<T>* sums, int64_t parts, int64_t weights) {
  auto& s = shared<Slices<T>>();
  const int slice = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t i = int64_t{blockIdx.x} * kWarp + lane;
  Sum<T> sum = 0;
  if (i < weights)
#pragma unroll 4
    for (int64_t part = slice; part < parts; part += kSlices) sum += sums[part * weights + i];
  s.sums[slice][lane] = sum;
  sync();
  if (slice > 0 || i >= weights) return;
#pragma unroll
  for (int k = 1; k < kSlices; ++k) sum += s.sums[k][lane];
  w[i] = narrowed<T>(sum);
}

}  // namespace

int sum_parts(const ConvProblem& p, const RunContext& r, const void* sums, int64_t parts, int64_t weights) {
  starts(r, Phase::kSums);
  return by_dtype(p.dtype, [&](auto type) {
    typedef decltype(type) T;
    return launch(r, add_parts<T>, Grid{divide_up(weights, kWarp)}, kThreads, sizeof(Slices<T>), static_cast<T*>(r.w),
                  static_cast<const Sum<T>*>(sums), parts, weights);
  });
}

}  // namespace fastconv::cuda
