// SPDX-License-Identifier: Apache-2.0
// What every pooling kernel is given: the windows along each axis, the places of cells, and the sums that a plain float
// cannot hold. Windows, orders of sums and what is computed again are those of csrc/kernels/pool_fold.h and pool_mend.h.
#pragma once

#include <algorithm>

#include "backend.h"
#include "conv.cuh"
#include "roofline.h"

namespace fastconv::cuda {

struct PoolAxis {
  int64_t size, out, window, stride, dilation, pad_begin, pad_end;
  int64_t inner_begin, inner_end;  // outputs whose whole window lies inside the input
  Divisor by_stride, by_dilation, by_out, by_size;
};

// By value: a parameter of the kernel. Images of x and of y; all but x in forward is dense.
template <class T>
struct Pool {
  PoolAxis axis[kMaxSpatial];
  int64_t divisor;
  int32_t adaptive, include_pad;
  int32_t channels_last, reserved;
  Image xs, ys;
  const T *x, *y, *dy;
  T *to_y, *dx;
  int64_t* indices;
  uint8_t* offsets;
  Sum<T> sign;  // of min: -1, which makes a maximum of it
  double norm;
};

// Channels that one thread owns, of channels last: 16 bytes.
template <class T>
inline constexpr int kLanes = 16 / static_cast<int>(sizeof(T));

constexpr int kPoolThreads = 256;
// Blocks that a multiprocessor must hold, of kernels for any window and of those that mend their sums: enough to keep
// memory busy, and so few that nothing is spilled.
constexpr int kPoolBlocks = 2;

inline PoolAxis axis_of(const PoolProblem& p, int i) {
  PoolAxis a{};
  a.size = p.size[i], a.out = output_size(p, i), a.window = p.window[i], a.stride = p.stride[i];
  a.dilation = p.dilation[i], a.pad_begin = p.pad_begin[i], a.pad_end = p.pad_end[i];
  const int64_t room = a.size + a.pad_begin - ((a.window - 1) * a.dilation + 1);
  a.inner_begin = divide_up(a.pad_begin, a.stride);
  a.inner_end = room < 0 ? 0 : std::min(a.out, room / a.stride + 1);
  a.by_stride = Divisor(a.stride), a.by_dilation = Divisor(a.dilation);
  a.by_out = Divisor(a.out), a.by_size = Divisor(a.size);
  return a;
}

template <class T>
Pool<T> pool_of(const PoolProblem& p, const PoolBuffers& b) {
  Pool<T> pool{};
  for (int i = 0; i < kMaxSpatial; ++i) pool.axis[i] = axis_of(p, i);
  pool.divisor = p.divisor;
  pool.adaptive = p.adaptive, pool.include_pad = p.count_include_pad;
  const bool last = p.layout == Layout::kChannelsLast, forward = p.pass == Pass::kForward;
  pool.channels_last = last;
  const int64_t x_pixels = x_plane(p), y_pixels = y_plane(p);
  pool.xs = image_of(p.layout, forward ? b.x_batch_pitch : p.c * x_pixels,
                     forward ? b.x_channel_pitch
                     : last  ? p.c
                             : x_pixels);
  pool.ys = image_of(p.layout, p.c * y_pixels, last ? p.c : y_pixels);
  pool.x = static_cast<const T*>(b.x), pool.y = static_cast<const T*>(b.y), pool.dy = static_cast<const T*>(b.dy);
  pool.to_y = static_cast<T*>(b.y), pool.dx = static_cast<T*>(b.dx);
  pool.indices = b.indices, pool.offsets = b.offsets;
  pool.sign = p.kind == PoolKind::kMin ? -1 : 1;
  pool.norm = b.norm;
  return pool;
}

// Whether `lanes` neighbours (of channels last: channels, else columns) of all tensors but y's columns may be loaded and
// stored at once.
template <class T>
bool has_vectors(const PoolProblem& p, const Pool<T>& pool, int lanes) {
  const auto aligned = [](const void* data, size_t bytes) { return reinterpret_cast<uintptr_t>(data) % bytes == 0; };
  const size_t bytes = lanes * sizeof(T);
  const bool pointers = aligned(pool.x, bytes) && aligned(pool.y, bytes) && aligned(pool.dy, bytes) &&
                        aligned(pool.dx, bytes) && aligned(pool.offsets, static_cast<size_t>(lanes));
  if (!pointers || pool.xs.batch % lanes) return false;
  return p.layout == Layout::kChannelsLast ? p.c % lanes == 0 && pool.xs.pixel % lanes == 0
                                           : p.size[2] % lanes == 0 && pool.xs.channel % lanes == 0;
}

// Windows of `window` x `window` of a 2-D problem, without dilation and `stride` apart (0: any), as the fast paths have
// them.
inline bool is_square(const PoolProblem& p, int64_t window, int64_t stride) {
  bool square = !p.adaptive && p.size[0] == 1 && p.window[0] == 1 && p.pad_begin[0] == 0 && p.pad_end[0] == 0;
  for (int i = 1; i < kMaxSpatial; ++i)
    square = square && p.window[i] == window && p.dilation[i] == 1 && (stride == 0 || p.stride[i] == stride);
  return square;
}

// One block for each piece of `per_block` units, as far as a grid goes; kernels walk on in steps of the grid.
inline Grid grid_of(int64_t units, int64_t per_block) {
  return Grid{std::min(divide_up(units, per_block), kMostBlocksX)};
}
__device__ __forceinline__ int64_t first_unit() { return int64_t{blockIdx.x} * kPoolThreads + threadIdx.x; }
__device__ __forceinline__ int64_t grid_step() { return int64_t{gridDim.x} * kPoolThreads; }

__device__ __forceinline__ int64_t clamped(int64_t at, int64_t size) { return at < 0 ? 0 : at < size ? at : size - 1; }

// Takes the number of a cell apart: of channels last its channel is fastest (in groups of neighbours), else its pixel.
struct Cells {
  Divisor channels, pixels;
  Plane plane;
  int64_t channels_last, lanes, count;

  Cells() = default;
  Cells(const PoolProblem& p, const int64_t* size, int channels_of_thread)
      : channels(p.c / channels_of_thread),
        pixels(size[0] * size[1] * size[2]),
        plane(size),
        channels_last(p.layout == Layout::kChannelsLast),
        lanes(channels_of_thread),
        count(p.n * (p.c / channels_of_thread) * size[0] * size[1] * size[2]) {}
};
struct Cell {
  int64_t n, channel, pixel, place[kMaxSpatial];
};
__device__ __forceinline__ Cell cell_of(int64_t i, const Cells& cells) {
  Cell at;
  if (cells.channels_last)
    at.n = cells.pixels.divide(cells.channels.divide(i, &at.channel), &at.pixel);
  else
    at.n = cells.channels.divide(cells.pixels.divide(i, &at.pixel), &at.channel);
  at.channel *= cells.lanes;
  cells.plane.places(at.pixel, at.place);
  return at;
}
inline Cells x_cells(const PoolProblem& p, int lanes) { return Cells(p, p.size, lanes); }
inline Cells y_cells(const PoolProblem& p, int lanes) {
  const int64_t out[] = {output_size(p, 0), output_size(p, 1), output_size(p, 2)};
  return Cells(p, out, lanes);
}

// The taps of output `o`'s window that lie inside the input: first + i for i < count, at position + i * dilation.
struct Taps {
  int64_t first, position, count;
};
template <class T>
__device__ __forceinline__ Taps taps_of(const Pool<T>& p, int axis, int64_t o) {
  const PoolAxis& a = p.axis[axis];
  if (p.adaptive) {
    const int64_t begin = a.by_out.quotient(o * a.size);
    return {0, begin, a.by_out.quotient((o + 1) * a.size + a.out - 1) - begin};
  }
  const int64_t start = o * a.stride - a.pad_begin;
  if (o >= a.inner_begin && o < a.inner_end) return {0, start, a.window};
  const int64_t first = start < 0 ? a.by_dilation.quotient(a.dilation - 1 - start) : 0;
  const int64_t inside = a.by_dilation.quotient(a.size - start + a.dilation - 1);
  return {first, start + first * a.dilation, (inside < a.window ? inside : a.window) - first};
}

// The axis' part of what the average of output `o` divides by; `taps`: those of its window.
template <class T>
__device__ __forceinline__ int64_t counted_of(const Pool<T>& p, int axis, int64_t o, const Taps& taps) {
  const PoolAxis& a = p.axis[axis];
  if (p.divisor) return axis == 2 ? p.divisor : 1;
  if (p.adaptive || !p.include_pad || (o >= a.inner_begin && o < a.inner_end)) return taps.count;
  const int64_t padded = a.by_dilation.quotient(a.size + a.pad_end + a.pad_begin - o * a.stride + a.dilation - 1);
  return padded < a.window ? padded : a.window;
}
template <class T>
__device__ __forceinline__ int64_t counted_of(const Pool<T>& p, int axis, int64_t o) {
  return counted_of(p, axis, o, taps_of(p, axis, o));
}

// The outputs [begin, end) of an axis that may have a tap on `position`.
struct Over {
  int64_t begin, end;
};
template <class T>
__device__ __forceinline__ Over outputs_over(const Pool<T>& p, int axis, int64_t position) {
  const PoolAxis& a = p.axis[axis];
  if (p.adaptive)
    return {a.by_size.quotient(position * a.out), a.by_size.quotient((position + 1) * a.out + a.size - 1)};
  const int64_t low = position + a.pad_begin - (a.window - 1) * a.dilation;
  const int64_t end = a.by_stride.quotient(position + a.pad_begin) + 1;
  return {low > 0 ? a.by_stride.quotient(low + a.stride - 1) : 0, end < a.out ? end : a.out};
}
// The tap of output `o` on `position`; -1: dilation steps over it. (Adaptive windows have a tap on all their cells.)
template <class T>
__device__ __forceinline__ int64_t tap_on(const Pool<T>& p, int axis, int64_t o, int64_t position) {
  const PoolAxis& a = p.axis[axis];
  if (p.adaptive) return 0;
  int64_t rest;
  const int64_t tap = a.by_dilation.divide(position + a.pad_begin - o * a.stride, &rest);
  return rest ? -1 : tap;
}

// Calls visit(output, tap) for the outputs of the axis with a tap on `position`.
template <bool ascending, class T, class Visit>
__device__ __forceinline__ void for_outputs_over(const Pool<T>& p, int axis, int64_t position, const Visit& visit) {
  const Over over = outputs_over(p, axis, position);
  for (int64_t i = over.begin; i < over.end; ++i) {
    const int64_t o = ascending ? i : over.end - 1 - (i - over.begin);
    const int64_t tap = tap_on(p, axis, o, position);
    if (tap >= 0) visit(o, tap);
  }
}
// Calls visit(output row, tap of the first axis, of the second, both outputs) for the rows of windows over a place.
template <bool ascending, class T, class Visit>
__device__ __forceinline__ void for_rows_over(const Pool<T>& p, const int64_t* place, const Visit& visit) {
  for_outputs_over<ascending>(p, 0, place[0], [&](int64_t d, int64_t tap_d) {
    for_outputs_over<ascending>(p, 1, place[1],
                                [&](int64_t h, int64_t tap_h) { visit(d * p.axis[1].out + h, tap_d, tap_h, d, h); });
  });
}

// ---- Sums that are not finite ----------------------------------------------------------------------------------------
template <class S>
__device__ __forceinline__ bool is_finite(S v) {
  return v - v == 0;
}

constexpr double kTermScale = 0x1p-64;  // fewer than 2^63 terms: their sum stays below the largest float64

// value / divisor for a whole divisor of at least 1, without the device's subroutine for it: what is seldom computed must
// not cost a kernel its registers. Newton's steps double the digits of the reciprocal, at first 3 bits; the quotient is
// corrected by its remainder (P. Markstein, IBM J. Res. Dev. 34, 1990).
__device__ __forceinline__ double over_count(double value, double divisor) {
  double reciprocal = static_cast<double>(float_of_bits(0x7ef311c7u - bits_of_float(static_cast<float>(divisor))));
#pragma unroll 1
  for (int i = 0; i < 5; ++i) reciprocal = fma(reciprocal, fma(-divisor, reciprocal, 1), reciprocal);
  const double quotient = value * reciprocal;
  return is_finite(quotient) ? fma(fma(-quotient, divisor, value), reciprocal, quotient) : quotient;
}

// A sum and what its roundings lost (A. Neumaier, ZAMM 54, 1974): the mean of equal values is their value and does not
// round to an infinity beside the largest float.
struct ScaledSum {
  double sum = 0, lost = 0;

  __device__ __forceinline__ void add(double scaled) {
    const double next = sum + scaled;
    const double a = sum < 0 ? -sum : sum, b = scaled < 0 ? -scaled : scaled;
    lost += a >= b ? (sum - next) + scaled : (scaled - next) + sum;
    sum = next;
  }
  __device__ __forceinline__ void add_quotient(double scaled, double divisor) {
    const double quotient = over_count(scaled, divisor);
    add(quotient);
    if (is_finite(quotient)) add(over_count(fma(-quotient, divisor, scaled), divisor));
  }
  __device__ __forceinline__ double over(double divisor) const {
    if (!is_finite(lost)) return over_count(sum, divisor);  // a term was infinite or NaN, and so is the sum
    const double whole = sum + lost, quotient = over_count(whole, divisor);
    const double rest = fma(-quotient, divisor, whole) + (lost - (whole - sum));
    return (quotient + over_count(rest, divisor)) * (1 / kTermScale);
  }
};

// Calls visit(cell's pixel) for the taps of a window that lie inside the input, ascending.
template <class T, class Visit>
__device__ __forceinline__ void for_cells_under(const Pool<T>& p, const Taps& d, const Taps& h, const Taps& w,
                                                const Visit& visit) {
#pragma unroll 1
  for (int64_t i = 0; i < d.count; ++i)
#pragma unroll 1
    for (int64_t j = 0; j < h.count; ++j) {
      const int64_t row =
          ((d.position + i * p.axis[0].dilation) * p.axis[1].size + h.position + j * p.axis[1].dilation) *
              p.axis[2].size +
          w.position;
#pragma unroll 1
      for (int64_t k = 0; k < w.count; ++k) visit(row + k * p.axis[2].dilation);
    }
}

// The mean of a window of one channel, whose plain sum is not finite. `x`: the channel's first pixel.
template <class T>
__device__ __forceinline__ Sum<T> mended_mean(const Pool<T>& p, const T* x, int64_t d, int64_t h, int64_t w) {
  const Taps td = taps_of(p, 0, d), th = taps_of(p, 1, h), tw = taps_of(p, 2, w);
  const double counted =
      static_cast<double>(counted_of(p, 0, d, td) * counted_of(p, 1, h, th) * counted_of(p, 2, w, tw));
  ScaledSum sum;
  for_cells_under(p, td, th, tw,
                  [&](int64_t pixel) { sum.add(static_cast<double>(widen(x[pixel * p.xs.pixel])) * kTermScale); });
  return static_cast<Sum<T>>(sum.over(counted));
}

// The gradient of one cell of x, whose plain sum is not finite; add(sum, pixel of y, divisor) adds what a window gives.
template <class T, class Add>
__device__ __forceinline__ Sum<T> mended_gradient(const Pool<T>& p, const int64_t* place, const Add& add) {
  ScaledSum sum;
  for_rows_over<false>(p, place, [&](int64_t row, int64_t, int64_t, int64_t d, int64_t h) {
    const int64_t rows = counted_of(p, 0, d) * counted_of(p, 1, h);
    for_outputs_over<false>(p, 2, place[2], [&](int64_t o, int64_t) {
      add(sum, row * p.axis[2].out + o, static_cast<double>(rows * counted_of(p, 2, o)));
    });
  });
  return static_cast<Sum<T>>(sum.over(1));
}
template <class T>
__device__ __forceinline__ Sum<T> mended_mean_gradient(const Pool<T>& p, const T* dy, const int64_t* place) {
  return mended_gradient(p, place, [&](ScaledSum& sum, int64_t pixel, double divisor) {
    sum.add_quotient(static_cast<double>(widen(dy[pixel * p.ys.pixel])) * kTermScale, divisor);
  });
}

// Stores neighbours at once where they are `whole` (and aligned), else the first `count` one by one.
template <class T, int lanes>
__device__ __forceinline__ void store_some(T* to, const Vector<T, lanes>& values, bool whole, int64_t count) {
  if (whole) {
    store(to, values);
    return;
  }
#pragma unroll
  for (int u = 0; u < lanes; ++u)
    if (u < count) to[u] = values.at[u];
}

// ---- What the files offer; each returns as `launch` does -----------------------------------------------------------
int pool_extreme(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context);
int pool_extreme_backward(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context);
int pool_average(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context);
int pool_average_backward(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context);
int pool_norm(const PoolProblem& problem, const PoolBuffers& buffers, const RunContext& context);
}  // namespace fastconv::cuda
