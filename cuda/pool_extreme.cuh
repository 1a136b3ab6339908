// SPDX-License-Identifier: Apache-2.0
// The best value of a window, and where it was.
#pragma once

#include "pool.cuh"

namespace fastconv::cuda {

// Starts as what loses against every number, at the window's first cell: infinities leave it there. Of equals the first
// one wins, and the first NaN before all. Untracked, `where` is never read and costs nothing.
template <class S, class Place, bool tracked>
struct Best {
  S value = -static_cast<S>(INFINITY);
  Place where = 0;

  __device__ __forceinline__ void take(S v, Place at) {
    const bool better = !(v <= value) && value == value;
    value = better ? v : value;
    if constexpr (tracked) where = better ? at : where;
  }
};

// Stores `outputs` neighbours of y and their offsets, aligned where they are `whole`, else the first `count`.
template <class T, int outputs, bool tracked>
__device__ __forceinline__ void store_best(const Pool<T>& p, int64_t at,
                                           const Best<Sum<T>, int32_t, tracked> (&best)[outputs], bool whole = true,
                                           int64_t count = outputs) {
  Vector<T, outputs> values;
  Vector<uint8_t, outputs> offsets;
#pragma unroll
  for (int u = 0; u < outputs; ++u) {
    values.at[u] = narrowed<T>(p.sign * best[u].value);
    if constexpr (tracked) offsets.at[u] = static_cast<uint8_t>(best[u].where);
  }
  store_some(p.to_y + at, values, whole, count);
  if constexpr (tracked) store_some(p.offsets + at, offsets, whole, count);
}

// Where strip_side is not 0, and no indices are wanted.
template <class T>
int pool_extreme_strips(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context);

}  // namespace fastconv::cuda
