// SPDX-License-Identifier: Apache-2.0
// Max and min pooling: a thread owns one output, of channels last those of 16 bytes of channels. Windows of 2x2 and 3x3
// have all their loads in flight at once.
#include <cmath>

#include "pool_extreme.cuh"
#include "pool_strips.cuh"

namespace fastconv::cuda {
namespace {

// Any window. Tracked places are positions in the plane or numbers of taps: both are sums of the three axes' parts.
template <class T, int lanes, bool tracked>
__global__ void __launch_bounds__(kPoolThreads) best_of_windows(Pool<T> p, Cells cells) {
  const PoolAxis &ad = p.axis[0], &ah = p.axis[1], &aw = p.axis[2];
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const T* const x = p.x + at.n * p.xs.batch + at.channel * p.xs.channel;
    const Taps d = taps_of(p, 0, at.place[0]), h = taps_of(p, 1, at.place[1]), w = taps_of(p, 2, at.place[2]);
    const int64_t pixel = (d.position * ah.size + h.position) * aw.size + w.position;
    const int64_t step_h = ah.dilation * aw.size, step_d = ad.dilation * ah.size * aw.size;
    Best<Sum<T>, int64_t, tracked> best[lanes];
    const bool positions = p.indices != nullptr;
    const int64_t place = positions ? pixel : (d.first * ah.window + h.first) * aw.window + w.first;
    const int64_t place_h = positions ? step_h : aw.window, place_d = positions ? step_d : ah.window * aw.window;
    const int64_t place_w = positions ? aw.dilation : 1;
    if constexpr (tracked) {
#pragma unroll
      for (int u = 0; u < lanes; ++u) best[u].where = place;
    }
    for (int64_t a = 0; a < d.count; ++a)
      for (int64_t b = 0; b < h.count; ++b)
        for (int64_t c = 0; c < w.count; ++c) {
          const auto values = load<lanes>(x + (pixel + a * step_d + b * step_h + c * aw.dilation) * p.xs.pixel);
          const int64_t here = place + a * place_d + b * place_h + c * place_w;
#pragma unroll
          for (int u = 0; u < lanes; ++u) best[u].take(p.sign * widen(values.at[u]), here);
        }
    const int64_t to = at.n * p.ys.batch + at.channel * p.ys.channel + at.pixel * p.ys.pixel;
    Vector<T, lanes> values;
#pragma unroll
    for (int u = 0; u < lanes; ++u) values.at[u] = narrowed<T>(p.sign * best[u].value);
    store(p.to_y + to, values);
    if constexpr (tracked) {
#pragma unroll
      for (int u = 0; u < lanes; ++u)
        if (positions)
          p.indices[to + u] = best[u].where;
        else
          p.offsets[to + u] = static_cast<uint8_t>(best[u].where);
    }
  }
}

// Channels last, windows of side x side without dilation: cells in the padding are loaded from the plane's edge and not
// looked at, so that no load waits for a comparison.
template <class T, int side, bool tracked>
__global__ void __launch_bounds__(kPoolThreads) best_of_pixels(Pool<T> p, Cells cells) {
  constexpr int lanes = kLanes<T>;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const T* const x = p.x + at.n * p.xs.batch + at.channel;
    const int64_t row = at.place[1] * ah.stride - ah.pad_begin, column = at.place[2] * aw.stride - aw.pad_begin;
    Vector<T, lanes> values[side][side];
#pragma unroll
    for (int h = 0; h < side; ++h)
#pragma unroll
      for (int w = 0; w < side; ++w)
        values[h][w] =
            load<lanes>(x + (clamped(row + h, ah.size) * aw.size + clamped(column + w, aw.size)) * p.xs.pixel);
    Best<Sum<T>, int32_t, tracked> best[lanes];
    if constexpr (tracked) {
      const int32_t first = static_cast<int32_t>((row < 0 ? -row * side : 0) + (column < 0 ? -column : 0));
#pragma unroll
      for (int u = 0; u < lanes; ++u) best[u].where = first;
    }
#pragma unroll
    for (int h = 0; h < side; ++h) {
      if (row + h < 0 || row + h >= ah.size) continue;
#pragma unroll
      for (int w = 0; w < side; ++w) {
        if (column + w < 0 || column + w >= aw.size) continue;
#pragma unroll
        for (int u = 0; u < lanes; ++u) best[u].take(p.sign * widen(values[h][w].at[u]), h * side + w);
      }
    }
    store_best(p, at.n * p.ys.batch + at.pixel * p.ys.pixel + at.channel, best);
  }
}

template <class T, int lanes>
int run_windows(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const Cells cells = y_cells(problem, lanes);
  const auto kernel = pool.indices || pool.offsets ? best_of_windows<T, lanes, true> : best_of_windows<T, lanes, false>;
  return launch(context, kernel, grid_of(cells.count, kPoolThreads), kPoolThreads, 0, pool, cells);
}

template <class T>
int run(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context) {
  const Pool<T> pool = pool_of<T>(problem, buffers);
  if constexpr (sizeof(T) <= 4)
    if (!pool.indices && strip_side(problem, pool)) return pool_extreme_strips(problem, pool, context);
  if (problem.layout != Layout::kChannelsLast || !has_vectors(problem, pool, kLanes<T>))
    return run_windows<T, 1>(problem, pool, context);
  if constexpr (sizeof(T) <= 4) {
    const bool two = is_square(problem, 2, 0), three = is_square(problem, 3, 0);
    if ((two || three) && !buffers.indices) {
      const Cells cells = y_cells(problem, kLanes<T>);
      const auto kernel = buffers.offsets ? (two ? best_of_pixels<T, 2, true> : best_of_pixels<T, 3, true>)
                                          : (two ? best_of_pixels<T, 2, false> : best_of_pixels<T, 3, false>);
      return launch(context, kernel, grid_of(cells.count, kPoolThreads), kPoolThreads, 0, pool, cells);
    }
  }
  return run_windows<T, kLanes<T>>(problem, pool, context);
}

}  // namespace

int pool_extreme(const PoolProblem& p, const PoolBuffers& b, const RunContext& context) {
  return by_dtype(p.dtype, [&](auto type) { return run<decltype(type)>(p, b, context); });
}

}  // namespace fastconv::cuda
