// SPDX-License-Identifier: Apache-2.0
// Average pooling. Sums are taken in the CPU's order: of channels last tap by tap, of planes (channels first) the rows of
// a window's column first. Whole planes are summed by a warp or a block, in a fixed tree (pool_mean.cu).
#include "pool_average.cuh"

namespace fastconv::cuda {
namespace {

// The plain sums of a window, of `lanes` neighbouring channels.
template <class T, int lanes>
__device__ __forceinline__ void sum_window(const Pool<T>& p, const T* x, const Taps& d, const Taps& h, const Taps& w,
                                           Sum<T> (&sum)[lanes]) {
  const int64_t width = p.axis[2].size, step = p.axis[2].dilation * p.xs.pixel;
  const T* const first = x + ((d.position * p.axis[1].size + h.position) * width + w.position) * p.xs.pixel;
  const int64_t step_h = p.axis[1].dilation * width * p.xs.pixel;
  const int64_t step_d = p.axis[0].dilation * p.axis[1].size * width * p.xs.pixel;
  const bool by_columns = !p.channels_last;
  // Of planes a pass of the outer loop is one column of the window, else there is one pass.
  for (int64_t column = 0; column < (by_columns ? w.count : 1); ++column) {
    Sum<T> part[lanes];
#pragma unroll
    for (int u = 0; u < lanes; ++u) part[u] = 0;
    for (int64_t a = 0; a < d.count; ++a)
      for (int64_t b = 0; b < h.count; ++b)
        for (int64_t c = 0; c < (by_columns ? 1 : w.count); ++c) {
          const auto values = load<lanes>(first + a * step_d + b * step_h + (column + c) * step);
#pragma unroll
          for (int u = 0; u < lanes; ++u) part[u] += widen(values.at[u]);
        }
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] += part[u];
  }
}

template <class T, int lanes>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) mean_of_windows(Pool<T> p, Cells cells) {
  bool finite = true;
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const T* const x = p.x + at.n * p.xs.batch + at.channel * p.xs.channel;
    const Taps d = taps_of(p, 0, at.place[0]), h = taps_of(p, 1, at.place[1]), w = taps_of(p, 2, at.place[2]);
    Sum<T> sum[lanes];
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] = 0;
    sum_window(p, x, d, h, w, sum);
    const Sum<T> divisor = static_cast<Sum<T>>(counted_of(p, 0, at.place[0], d) * counted_of(p, 1, at.place[1], h) *
                                               counted_of(p, 2, at.place[2], w));
    finite &= store_means(p, at, sum, divisor);
  }
  if (!finite) mend_pixels(p, cells, lanes);
}

// Channels last, windows of side x side without dilation: all loads in flight, cells in the padding from the plane's edge
// and not added.
template <class T, int side>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) mean_of_pixels(Pool<T> p, Cells cells) {
  constexpr int lanes = kLanes<T>;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  bool finite = true;
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
    Sum<T> sum[lanes];
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] = 0;
#pragma unroll
    for (int h = 0; h < side; ++h) {
      if (row + h < 0 || row + h >= ah.size) continue;
#pragma unroll
      for (int w = 0; w < side; ++w) {
        if (column + w < 0 || column + w >= aw.size) continue;
#pragma unroll
        for (int u = 0; u < lanes; ++u) sum[u] += widen(values[h][w].at[u]);
      }
    }
    finite &= store_means(p, at, sum, square_divisor<side>(p, at.place[1], at.place[2]));
  }
  if (!finite) mend_pixels(p, cells, lanes);
}

// Planes by strips: the rows of each column are added, then the columns of each output.
template <class T, int side, bool left>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) mean_of_strips(Pool<T> p, Strips strips) {
  constexpr int columns = 2 * kStrip + side - 2;
  const PoolAxis &ah = p.axis[1], &aw = p.axis[2];
  bool finite = true;
  for (int64_t i = first_unit(); i < strips.count; i += grid_step()) {
    const StripAt at = strip_at(i, strips);
    const int64_t first = at.row * 2 - ah.pad_begin, column = at.number * (2 * kStrip);
    const T* const x = p.x + at.n * p.xs.batch + at.channel * p.xs.channel;
    StripRow<T, side, left> rows[side];
#pragma unroll
    for (int h = 0; h < side; ++h)
      rows[h].read(x + clamped(first + h, ah.size) * aw.size, column, aw.size, narrowed<T>(0));
    Sum<T> sum[columns];
#pragma unroll
    for (int u = 0; u < columns; ++u) sum[u] = 0;
#pragma unroll
    for (int h = 0; h < side; ++h) {
      if (first + h < 0 || first + h >= ah.size) continue;
#pragma unroll
      for (int u = 0; u < columns; ++u) sum[u] += rows[h].cell(u);
    }
    const int64_t o = at.number * kStrip;
    T* const to = p.to_y + at.n * p.ys.batch + at.channel * p.ys.channel + at.row * aw.out + o;
    Vector<T, kStrip> means;
#pragma unroll
    for (int u = 0; u < kStrip; ++u) {
      Sum<T> all = sum[2 * u] + sum[2 * u + 1];
      if constexpr (side == 3) all += sum[2 * u + 2];
      const Sum<T> mean = all / square_divisor<side>(p, at.row, o + u);
      finite &= is_finite(mean);
      means.at[u] = narrowed<T>(mean);
    }
    store_some(to, means, strips.whole, aw.out - o);
  }
  if (finite) return;
#pragma unroll 1
  for (int64_t i = first_unit(); i < strips.count; i += grid_step()) {
    const StripAt at = strip_at(i, strips);
    const T* const x = p.x + at.n * p.xs.batch + at.channel * p.xs.channel;
    T* const to = p.to_y + at.n * p.ys.batch + at.channel * p.ys.channel + at.row * aw.out;
#pragma unroll 1
    for (int64_t o = at.number * kStrip; o < aw.out && o < (at.number + 1) * kStrip; ++o) {
      const int64_t place[] = {0, at.row, o};
      mend_pixel(p, x, to + o, place, 1);
    }
  }
}

template <class T, int lanes>
int run_windows(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const Cells cells = y_cells(problem, lanes);
  return launch(context, mean_of_windows<T, lanes>, grid_of(cells.count, kPoolThreads), kPoolThreads, 0, pool, cells);
}

template <class T>
int run(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context) {
  const Pool<T> pool = pool_of<T>(problem, buffers);
  if (is_whole_plane(problem)) return mean_of_planes(problem, pool, context);
  if constexpr (sizeof(T) <= 4)
    if (strip_side(problem, pool)) {
      const Strips strips = strips_of(problem, pool.axis[1].out, pool.axis[2].out, kStrip);
      return by_strip_kind(problem, [&](auto kind) {
        typedef decltype(kind) Kind;
        return launch(context, mean_of_strips<T, Kind::side, Kind::left>, grid_of(strips.count, kPoolThreads),
                      kPoolThreads, 0, pool, strips);
      });
    }
  if (problem.layout != Layout::kChannelsLast || !has_vectors(problem, pool, kLanes<T>))
    return run_windows<T, 1>(problem, pool, context);
  if constexpr (sizeof(T) <= 4)
    if (is_square(problem, 2, 0) || is_square(problem, 3, 0)) {
      const Cells cells = y_cells(problem, kLanes<T>);
      const auto kernel = is_square(problem, 2, 0) ? mean_of_pixels<T, 2> : mean_of_pixels<T, 3>;
      return launch(context, kernel, grid_of(cells.count, kPoolThreads), kPoolThreads, 0, pool, cells);
    }
  return run_windows<T, kLanes<T>>(problem, pool, context);
}

}  // namespace

int pool_average(const PoolProblem& p, const PoolBuffers& b, const RunContext& context) {
  return by_dtype(p.dtype, [&](auto type) { return run<decltype(type)>(p, b, context); });
}

}  // namespace fastconv::cuda
