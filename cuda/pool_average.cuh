// SPDX-License-Identifier: Apache-2.0
// Means: divisors of square windows, and what is stored.
#pragma once

#include "pool_strips.cuh"

namespace fastconv::cuda {

// The axis' part of the divisor, of windows of `side` cells without dilation.
template <int side, class T>
__device__ __forceinline__ int32_t square_counted(const Pool<T>& p, int axis, int64_t o) {
  const PoolAxis& a = p.axis[axis];
  const int64_t start = o * a.stride - a.pad_begin, end = a.size + (p.include_pad ? a.pad_end : 0);
  const int64_t begin = start < 0 && !p.include_pad ? 0 : start;
  return static_cast<int32_t>((start + side < end ? start + side : end) - begin);
}
template <int side, class T>
__device__ __forceinline__ Sum<T> square_divisor(const Pool<T>& p, int64_t h, int64_t w) {
  if (p.divisor) return static_cast<Sum<T>>(p.divisor);
  return static_cast<Sum<T>>(square_counted<side>(p, 1, h) * square_counted<side>(p, 2, w));
}

// Stores the means of neighbouring channels; returns whether all are finite. Those that are not are computed again by a
// loop of their own (mend_pixel), at the end of the kernel: so it costs the first one no registers.
template <class T, int lanes>
__device__ __forceinline__ bool store_means(const Pool<T>& p, const Cell& at, const Sum<T> (&sum)[lanes],
                                            Sum<T> divisor) {
  Vector<T, lanes> means;
  bool finite = true;
#pragma unroll
  for (int u = 0; u < lanes; ++u) {
    const Sum<T> mean = sum[u] / divisor;
    finite = finite && is_finite(mean);
    means.at[u] = narrowed<T>(mean);
  }
  store(p.to_y + at.n * p.ys.batch + at.channel * p.ys.channel + at.pixel * p.ys.pixel, means);
  return finite;
}

// Means that this thread stored at `to`: the windows of `lanes` channels, x being the first one's first pixel.
template <class T>
__device__ __forceinline__ void mend_pixel(const Pool<T>& p, const T* x, T* to, const int64_t* place, int lanes) {
#pragma unroll 1
  for (int u = 0; u < lanes; ++u)
    if (!is_finite(widen(to[u]))) to[u] = narrowed<T>(mended_mean(p, x + u, place[0], place[1], place[2]));
}
template <class T>
__device__ __forceinline__ void mend_pixels(const Pool<T>& p, const Cells& cells, int lanes) {
#pragma unroll 1
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    mend_pixel(p, p.x + at.n * p.xs.batch + at.channel * p.xs.channel,
               p.to_y + at.n * p.ys.batch + at.channel * p.ys.channel + at.pixel * p.ys.pixel, at.place, lanes);
  }
}

// A cell of dx that this thread stored.
template <class T>
__device__ __forceinline__ void mend_cell(const Pool<T>& p, int64_t n, int64_t channel, int64_t pixel,
                                          const int64_t* place) {
  T* const to = p.dx + n * p.xs.batch + channel * p.xs.channel + pixel * p.xs.pixel;
  if (is_finite(widen(*to))) return;
  *to = narrowed<T>(mended_mean_gradient(p, p.dy + n * p.ys.batch + channel * p.ys.channel, place));
}
template <class T>
__device__ __forceinline__ void mend_square(const Pool<T>& p, int64_t n, int64_t channel, int64_t row, int64_t column) {
  if (row >= p.axis[1].size || column >= p.axis[2].size) return;
  const int64_t place[] = {0, row, column};
  mend_cell(p, n, channel, row * p.axis[2].size + column, place);
}

// One window over the whole plane: its sum is that of a tree, in an order that comes from the number of cells.
inline bool is_whole_plane(const PoolProblem& p) {
  bool whole = true;
  for (int i = 0; i < kMaxSpatial; ++i)
    whole = whole && output_size(p, i) == 1 &&
            (p.adaptive || p.size[i] == 1 || (p.dilation[i] == 1 && p.pad_begin[i] + p.size[i] <= p.window[i]));
  return whole;
}
// pool_mean.cu: y, and in backward dx.
template <class T>
int mean_of_planes(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context);
template <class T>
int spread_over_planes(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context);

}  // namespace fastconv::cuda
