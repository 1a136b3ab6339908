// SPDX-License-Identifier: Apache-2.0
// The gradient of max and min pooling from the numbers of the winners' taps: each cell of x gathers from the outputs over
// it those whose winner it was. Planes (channels first) add outputs in ascending order, pixels in descending order, as
// the CPU's kernels do.
#include "pool_tiles.cuh"

namespace fastconv::cuda {
namespace {

constexpr uint8_t kNoTap = 255;  // of an output that is not there; square windows have at most 9 taps

template <class T, int lanes, bool ascending>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) extreme_gradient(Pool<T> p, Cells cells) {
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const int64_t y = at.n * p.ys.batch + at.channel * p.ys.channel;
    Sum<T> sum[lanes];
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] = 0;
    for_rows_over<ascending>(p, at.place, [&](int64_t row, int64_t d, int64_t h, int64_t, int64_t) {
      for_outputs_over<ascending>(p, 2, at.place[2], [&](int64_t o, int64_t w) {
        const int64_t from = y + (row * p.axis[2].out + o) * p.ys.pixel;
        const int64_t tap = (d * p.axis[1].window + h) * p.axis[2].window + w;
        const auto offsets = load<lanes>(static_cast<const uint8_t*>(p.offsets) + from);
        const auto dy = load<lanes>(p.dy + from);
#pragma unroll
        for (int u = 0; u < lanes; ++u)
          if (offsets.at[u] == tap) sum[u] += widen(dy.at[u]);
      });
    });
    Vector<T, lanes> values;
#pragma unroll
    for (int u = 0; u < lanes; ++u) values.at[u] = narrowed<T>(sum[u]);
    store(p.dx + at.n * p.xs.batch + at.channel * p.xs.channel + at.pixel * p.xs.pixel, values);
  }
}

template <class T, int side>
__global__ void __launch_bounds__(kPoolThreads) extreme_gradient_of_tiles(Pool<T> p, Cells tiles) {
  constexpr int lanes = kLanes<T>, over = side - 1;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  for (int64_t i = first_unit(); i < tiles.count; i += grid_step()) {
    const Cell at = cell_of(i, tiles);
    const TileAxis th = tile_axis<side>(at.place[1], ah.pad_begin), tw = tile_axis<side>(at.place[2], aw.pad_begin);
    Vector<T, lanes> dy[over][over];
    Vector<uint8_t, lanes> offsets[over][over];
#pragma unroll
    for (int t = 0; t < over; ++t)
#pragma unroll
      for (int s = 0; s < over; ++s) {
        const int64_t h = th.base + t, w = tw.base + s;
        const bool inside = h >= 0 && h < ah.out && w >= 0 && w < aw.out;
        const int64_t from =
            at.n * p.ys.batch + (clamped(h, ah.out) * aw.out + clamped(w, aw.out)) * p.ys.pixel + at.channel;
        dy[t][s] = load<lanes>(p.dy + from);
        offsets[t][s] = load<lanes>(static_cast<const uint8_t*>(p.offsets) + from);
#pragma unroll
        for (int u = 0; u < lanes; ++u)
          if (!inside) offsets[t][s].at[u] = kNoTap;
      }
#pragma unroll
    for (int v = 0; v < 2; ++v)
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int64_t row = at.place[1] * 2 + v, column = at.place[2] * 2 + c;
        if (row >= ah.size || column >= aw.size) continue;
        Sum<T> sum[lanes];
#pragma unroll
        for (int u = 0; u < lanes; ++u) sum[u] = 0;
#pragma unroll
        for (int t = over - 1; t >= 0; --t)
#pragma unroll
          for (int s = over - 1; s >= 0; --s) {
            const int tap_h = tile_tap<side>(th.shift, v, t), tap_w = tile_tap<side>(tw.shift, c, s);
            if (tap_h < 0 || tap_w < 0) continue;
            const int tap = tap_h * side + tap_w;
#pragma unroll
            for (int u = 0; u < lanes; ++u)
              if (offsets[t][s].at[u] == tap) sum[u] += widen(dy[t][s].at[u]);
          }
        Vector<T, lanes> values;
#pragma unroll
        for (int u = 0; u < lanes; ++u) values.at[u] = narrowed<T>(sum[u]);
        store(p.dx + at.n * p.xs.batch + (row * aw.size + column) * p.xs.pixel + at.channel, values);
      }
  }
}

template <class T, int side, bool left>
__global__ void __launch_bounds__(kPoolThreads) extreme_gradient_of_strips(Pool<T> p, Strips strips) {
  constexpr int over = kOver<side>, rows = side - 1;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  for (int64_t i = first_unit(); i < strips.count; i += grid_step()) {
    const StripAt at = strip_at(i, strips);
    const TileAxis th = tile_axis<side>(at.row, ah.pad_begin);
    const int64_t y = at.n * p.ys.batch + at.channel * p.ys.channel;
    T dy[rows][over];
    uint8_t offsets[rows][over];
#pragma unroll
    for (int t = 0; t < rows; ++t) {
      const bool inside = th.base + t >= 0 && th.base + t < ah.out;
      const int64_t from = y + clamped(th.base + t, ah.out) * aw.out;
      read_over<side, left>(p.dy + from, at.number, aw.out, strips.whole, narrowed<T>(0), dy[t]);
      read_over<side, left>(static_cast<const uint8_t*>(p.offsets) + from, at.number, aw.out, strips.whole, kNoTap,
                            offsets[t]);
#pragma unroll
      for (int k = 0; k < over; ++k)
        if (!inside) offsets[t][k] = kNoTap;
    }
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const int64_t row = at.row * 2 + v, column = at.number * (2 * kStrip);
      if (row >= ah.size) continue;
      Sum<T> sum[2 * kStrip];
#pragma unroll
      for (int u = 0; u < 2 * kStrip; ++u) sum[u] = 0;
#pragma unroll
      for (int t = 0; t < rows; ++t) {
        const int tap_h = tile_tap<side>(th.shift, v, t);
        if (tap_h < 0) continue;
#pragma unroll
        for (int k = 0; k < over; ++k)
#pragma unroll
          for (int u = 0; u < 2 * kStrip; ++u) {
            const int tap_w = tile_tap<side>(kShift<side, left>, u, k);
            if (tap_w >= 0 && offsets[t][k] == tap_h * side + tap_w) sum[u] += widen(dy[t][k]);
          }
      }
      store_cells(p.dx + at.n * p.xs.batch + at.channel * p.xs.channel + row * aw.size, column, aw.size, sum);
    }
  }
}

template <class T, int lanes, bool ascending>
int run_cells(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const Cells cells = x_cells(problem, lanes);
  return launch(context, extreme_gradient<T, lanes, ascending>, grid_of(cells.count, kPoolThreads), kPoolThreads, 0,
                pool, cells);
}

template <class T>
int run(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context) {
  const Pool<T> pool = pool_of<T>(problem, buffers);
  if constexpr (sizeof(T) <= 4) {
    if (strip_side(problem, pool)) {
      const Strips strips = tile_strips(problem);
      return by_strip_kind(problem, [&](auto kind) {
        typedef decltype(kind) Kind;
        return launch(context, extreme_gradient_of_strips<T, Kind::side, Kind::left>,
                      grid_of(strips.count, kPoolThreads), kPoolThreads, 0, pool, strips);
      });
    }
    if (const int side = tile_side(problem, pool)) {
      const Cells tiles = tile_cells<T>(problem);
      return launch(context, side == 2 ? extreme_gradient_of_tiles<T, 2> : extreme_gradient_of_tiles<T, 3>,
                    grid_of(tiles.count, kPoolThreads), kPoolThreads, 0, pool, tiles);
    }
  }
  if (problem.layout == Layout::kChannelsFirst) return run_cells<T, 1, true>(problem, pool, context);
  return has_vectors(problem, pool, kLanes<T>) ? run_cells<T, kLanes<T>, false>(problem, pool, context)
                                               : run_cells<T, 1, false>(problem, pool, context);
}

}  // namespace

int pool_extreme_backward(const PoolProblem& p, const PoolBuffers& b, const RunContext& context) {
  return by_dtype(p.dtype, [&](auto type) { return run<decltype(type)>(p, b, context); });
}

}  // namespace fastconv::cuda
