// SPDX-License-Identifier: Apache-2.0
// Max and min pooling of planes (channels first) by strips.
#include <cmath>

#include "pool_extreme.cuh"
#include "pool_strips.cuh"

namespace fastconv::cuda {
namespace {

template <class T, int side, bool left, bool tracked>
__global__ void __launch_bounds__(kPoolThreads) best_of_strips(Pool<T> p, Strips strips) {
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  const T fill = narrowed<T>(p.sign * -static_cast<Sum<T>>(INFINITY));
  for (int64_t i = first_unit(); i < strips.count; i += grid_step()) {
    const StripAt at = strip_at(i, strips);
    const int64_t first = at.row * 2 - ah.pad_begin, column = at.number * (2 * kStrip);
    const T* const x = p.x + at.n * p.xs.batch + at.channel * p.xs.channel;
    StripRow<T, side, left> rows[side];
#pragma unroll
    for (int h = 0; h < side; ++h) rows[h].read(x + clamped(first + h, ah.size) * aw.size, column, aw.size, fill);
    Best<Sum<T>, int32_t, tracked> best[kStrip];
    if constexpr (tracked) {
      const int32_t row_tap = first < 0 ? static_cast<int32_t>(-first) * side : 0;
#pragma unroll
      for (int u = 0; u < kStrip; ++u) best[u].where = row_tap + (left && u == 0 && column == 0 ? 1 : 0);
    }
#pragma unroll
    for (int h = 0; h < side; ++h) {
      if (first + h < 0 || first + h >= ah.size) continue;
#pragma unroll
      for (int u = 0; u < kStrip; ++u)
#pragma unroll
        for (int w = 0; w < side; ++w) best[u].take(p.sign * rows[h].cell(2 * u + w), h * side + w);
    }
    const int64_t o = at.number * kStrip;
    const int64_t to = at.n * p.ys.batch + at.channel * p.ys.channel + at.row * aw.out + o;
    store_best(p, to, best, strips.whole, aw.out - o);
  }
}

}  // namespace

template <class T>
int pool_extreme_strips(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const Strips strips = strips_of(problem, output_size(problem, 1), output_size(problem, 2), kStrip);
  return by_strip_kind(problem, [&](auto kind) {
    typedef decltype(kind) Kind;
    const auto kernel = pool.offsets ? best_of_strips<T, Kind::side, Kind::left, true>
                                     : best_of_strips<T, Kind::side, Kind::left, false>;
    return launch(context, kernel, grid_of(strips.count, kPoolThreads), kPoolThreads, 0, pool, strips);
  });
}
template int pool_extreme_strips(const PoolProblem&, const Pool<float>&, const RunContext&);
template int pool_extreme_strips(const PoolProblem&, const Pool<Half>&, const RunContext&);
template int pool_extreme_strips(const PoolProblem&, const Pool<BFloat16>&, const RunContext&);

}  // namespace fastconv::cuda
