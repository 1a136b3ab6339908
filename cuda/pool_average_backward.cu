// SPDX-License-Identifier: Apache-2.0
// The gradient of average pooling: each cell of x gathers its shares of the outputs over it, in the CPU's order. Of equal
// windows of planes (channels first) the shares of a column of outputs are added first; of pixels and of adaptive windows
// row by row.
#include "pool_average.cuh"
#include "pool_tiles.cuh"

namespace fastconv::cuda {
namespace {

enum class Order { kByColumns, kAscending, kDescending };  // of the columns; rows descend

template <class T, int lanes, Order order>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) mean_gradient(Pool<T> p, Cells cells) {
  bool finite = true;
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const T* const dy = p.dy + at.n * p.ys.batch + at.channel * p.ys.channel;
    Sum<T> sum[lanes];
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] = 0;
    const auto add_share = [&](int64_t pixel, int64_t counted, Sum<T>(&to)[lanes]) {
      const auto values = load<lanes>(dy + pixel * p.ys.pixel);
      const Sum<T> divisor = static_cast<Sum<T>>(counted);
#pragma unroll
      for (int u = 0; u < lanes; ++u) to[u] += widen(values.at[u]) / divisor;
    };
    if constexpr (order == Order::kByColumns) {
      for_outputs_over<false>(p, 2, at.place[2], [&](int64_t o, int64_t) {
        const int64_t columns = counted_of(p, 2, o);
        Sum<T> part[lanes];
#pragma unroll
        for (int u = 0; u < lanes; ++u) part[u] = 0;
        for_rows_over<false>(p, at.place, [&](int64_t row, int64_t, int64_t, int64_t d, int64_t h) {
          add_share(row * p.axis[2].out + o, counted_of(p, 0, d) * counted_of(p, 1, h) * columns, part);
        });
#pragma unroll
        for (int u = 0; u < lanes; ++u) sum[u] += part[u];
      });
    } else {
      for_rows_over<false>(p, at.place, [&](int64_t row, int64_t, int64_t, int64_t d, int64_t h) {
        const int64_t rows = counted_of(p, 0, d) * counted_of(p, 1, h);
        for_outputs_over<order == Order::kAscending>(p, 2, at.place[2], [&](int64_t o, int64_t) {
          add_share(row * p.axis[2].out + o, rows * counted_of(p, 2, o), sum);
        });
      });
    }
    Vector<T, lanes> values;
#pragma unroll
    for (int u = 0; u < lanes; ++u) {
      finite &= is_finite(sum[u]);
      values.at[u] = narrowed<T>(sum[u]);
    }
    store(p.dx + at.n * p.xs.batch + at.channel * p.xs.channel + at.pixel * p.xs.pixel, values);
  }
  if (finite) return;
#pragma unroll 1
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
#pragma unroll 1
    for (int u = 0; u < lanes; ++u) mend_cell(p, at.n, at.channel + u, at.pixel, at.place);
  }
}

template <class T, int side>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) mean_gradient_of_tiles(Pool<T> p, Cells tiles) {
  constexpr int lanes = kLanes<T>, over = side - 1;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  bool finite = true;
  for (int64_t i = first_unit(); i < tiles.count; i += grid_step()) {
    const Cell at = cell_of(i, tiles);
    const TileAxis th = tile_axis<side>(at.place[1], ah.pad_begin), tw = tile_axis<side>(at.place[2], aw.pad_begin);
    Sum<T> share[over][over][lanes];  // 0: the output is not there
#pragma unroll
    for (int t = 0; t < over; ++t)
#pragma unroll
      for (int s = 0; s < over; ++s) {
        const int64_t h = th.base + t, w = tw.base + s;
        const bool inside = h >= 0 && h < ah.out && w >= 0 && w < aw.out;
        const auto dy = load<lanes>(p.dy + at.n * p.ys.batch +
                                    (clamped(h, ah.out) * aw.out + clamped(w, aw.out)) * p.ys.pixel + at.channel);
        const Sum<T> divisor = square_divisor<side>(p, h, w);
#pragma unroll
        for (int u = 0; u < lanes; ++u) share[t][s][u] = inside ? widen(dy.at[u]) / divisor : 0;
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
            if (tile_tap<side>(th.shift, v, t) < 0 || tile_tap<side>(tw.shift, c, s) < 0) continue;
#pragma unroll
            for (int u = 0; u < lanes; ++u) sum[u] += share[t][s][u];
          }
        Vector<T, lanes> values;
#pragma unroll
        for (int u = 0; u < lanes; ++u) {
          finite &= is_finite(sum[u]);
          values.at[u] = narrowed<T>(sum[u]);
        }
        store(p.dx + at.n * p.xs.batch + (row * aw.size + column) * p.xs.pixel + at.channel, values);
      }
  }
  if (finite) return;
#pragma unroll 1
  for (int64_t i = first_unit(); i < tiles.count; i += grid_step()) {
    const Cell at = cell_of(i, tiles);
#pragma unroll 1
    for (int u = 0; u < 4 * lanes; ++u)
      mend_square(p, at.n, at.channel + u / 4, at.place[1] * 2 + u / 2 % 2, at.place[2] * 2 + u % 2);
  }
}

template <class T, int side, bool left>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) mean_gradient_of_strips(Pool<T> p, Strips strips) {
  constexpr int over = kOver<side>, rows = side - 1;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  bool finite = true;
  for (int64_t i = first_unit(); i < strips.count; i += grid_step()) {
    const StripAt at = strip_at(i, strips);
    const TileAxis th = tile_axis<side>(at.row, ah.pad_begin);
    const T* const y = p.dy + at.n * p.ys.batch + at.channel * p.ys.channel;
    T dy[rows][over];
#pragma unroll
    for (int t = 0; t < rows; ++t)
      read_over<side, left>(y + clamped(th.base + t, ah.out) * aw.out, at.number, aw.out, strips.whole, narrowed<T>(0),
                            dy[t]);
    Sum<T> part[2][over];  // of the two rows of cells: the shares of each column of outputs
#pragma unroll
    for (int k = 0; k < over; ++k) part[0][k] = part[1][k] = 0;
#pragma unroll
    for (int t = rows - 1; t >= 0; --t) {
      const int64_t h = th.base + t;
      if (h < 0 || h >= ah.out) continue;
#pragma unroll
      for (int k = 0; k < over; ++k) {
        const int64_t o = first_over<side, left>(at.number) + k;
        if (o < 0 || o >= aw.out) continue;
        const Sum<T> share = widen(dy[t][k]) / square_divisor<side>(p, h, o);
#pragma unroll
        for (int v = 0; v < 2; ++v)
          if (tile_tap<side>(th.shift, v, t) >= 0) part[v][k] += share;
      }
    }
#pragma unroll
    for (int v = 0; v < 2; ++v) {
      const int64_t row = at.row * 2 + v, column = at.number * (2 * kStrip);
      if (row >= ah.size) continue;
      Sum<T> sum[2 * kStrip];
#pragma unroll
      for (int u = 0; u < 2 * kStrip; ++u) {
        sum[u] = 0;
#pragma unroll
        for (int k = over - 1; k >= 0; --k)
          if (tile_tap<side>(kShift<side, left>, u, k) >= 0) sum[u] += part[v][k];
        finite &= is_finite(sum[u]);
      }
      store_cells(p.dx + at.n * p.xs.batch + at.channel * p.xs.channel + row * aw.size, column, aw.size, sum);
    }
  }
  if (finite) return;
#pragma unroll 1
  for (int64_t i = first_unit(); i < strips.count; i += grid_step()) {
    const StripAt at = strip_at(i, strips);
#pragma unroll 1
    for (int u = 0; u < 4 * kStrip; ++u)
      mend_square(p, at.n, at.channel, at.row * 2 + u % 2, at.number * (2 * kStrip) + u / 2);
  }
}

template <class T, int lanes, Order order>
int run_cells(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const Cells cells = x_cells(problem, lanes);
  return launch(context, mean_gradient<T, lanes, order>, grid_of(cells.count, kPoolThreads), kPoolThreads, 0, pool,
                cells);
}

template <class T>
int run(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context) {
  const Pool<T> pool = pool_of<T>(problem, buffers);
  if (is_whole_plane(problem)) return spread_over_planes(problem, pool, context);
  if constexpr (sizeof(T) <= 4) {
    if (strip_side(problem, pool)) {
      const Strips strips = tile_strips(problem);
      return by_strip_kind(problem, [&](auto kind) {
        typedef decltype(kind) Kind;
        return launch(context, mean_gradient_of_strips<T, Kind::side, Kind::left>, grid_of(strips.count, kPoolThreads),
                      kPoolThreads, 0, pool, strips);
      });
    }
    if (const int side = tile_side(problem, pool)) {
      const Cells tiles = tile_cells<T>(problem);
      return launch(context, side == 2 ? mean_gradient_of_tiles<T, 2> : mean_gradient_of_tiles<T, 3>,
                    grid_of(tiles.count, kPoolThreads), kPoolThreads, 0, pool, tiles);
    }
  }
  if (problem.layout == Layout::kChannelsFirst)
    return problem.adaptive ? run_cells<T, 1, Order::kAscending>(problem, pool, context)
                            : run_cells<T, 1, Order::kByColumns>(problem, pool, context);
  return has_vectors(problem, pool, kLanes<T>) ? run_cells<T, kLanes<T>, Order::kDescending>(problem, pool, context)
                                               : run_cells<T, 1, Order::kDescending>(problem, pool, context);
}

}  // namespace

int pool_average_backward(const PoolProblem& p, const PoolBuffers& b, const RunContext& context) {
  return by_dtype(p.dtype, [&](auto type) { return run<decltype(type)>(p, b, context); });
}

}  // namespace fastconv::cuda
