// SPDX-License-Identifier: Apache-2.0
// Lp pooling, by the formulas of csrc/kernels/pool_norm.cc: with m the largest |x| under the window,
//
//   y  = (sum of (|x| / scale)^p)^(1/p) * scale                scale: m, or for whole p the power of two below it
//   dx = sum over windows of dy * sign(x) (|x| / y)^(p - 1)    0 where y is 0
//
// and where powers are signed, the sum is of sign(x) |x|^p and dx = sum of dy * (|x| / |y|)^(p - 1). A thread owns one
// element and reads its window twice, the second time from the cache.
#include <bit>
#include <cmath>

#include "pool.cuh"

namespace fastconv::cuda {
namespace {

constexpr double kWholePowers = 32;  // up to here a whole power is multiplied out, and 4^p is far from overflowing

__device__ __forceinline__ float power_of(float base, float exponent) { return powf(base, exponent); }
__device__ __forceinline__ double power_of(double base, double exponent) { return pow(base, exponent); }
__device__ __forceinline__ float root_of(float value) { return sqrtf(value); }
__device__ __forceinline__ double root_of(double value) { return sqrt(value); }

__device__ __forceinline__ bool is_whole(double exponent) {
  return exponent <= kWholePowers && exponent == static_cast<double>(static_cast<int64_t>(exponent));
}
template <class S>
__device__ __forceinline__ S magnitude(S v) {
  return v < 0 ? -v : v;
}

// base^exponent, base not negative.
template <class S>
__device__ __forceinline__ S raise(S base, double exponent) {
  if (!is_whole(exponent)) return power_of(base, static_cast<S>(exponent));
  S result = 1;
#pragma unroll 1
  for (int n = static_cast<int>(exponent); n > 0; n >>= 1, base *= base)
    if (n & 1) result *= base;
  return result;
}

template <class S>
__device__ __forceinline__ S root(S sum, double p) {
  if (p == 1) return sum;
  const S m = magnitude(sum), y = p == 2 ? root_of(m) : power_of(m, static_cast<S>(1 / p));
  return sum < 0 ? -y : y;
}

// 1 / scale for whole p: a power of two that brings m to [2, 4), and neither an infinity nor a subnormal for any m.
__device__ __forceinline__ int64_t clipped(int64_t field, int64_t most) {
  return field < 1 ? 1 : field >= most ? most - 1 : field;
}
__device__ __forceinline__ float reciprocal_power_of_two(float m) {
  return std::bit_cast<float>(static_cast<uint32_t>(clipped(255 - (std::bit_cast<uint32_t>(m) >> 23), 255)) << 23);
}
__device__ __forceinline__ double reciprocal_power_of_two(double m) {
  const int64_t field = 2047 - static_cast<int64_t>(std::bit_cast<uint64_t>(m) >> 52);
  return std::bit_cast<double>(static_cast<uint64_t>(clipped(field, 2047)) << 52);
}

// Of one window: `largest` is m. Not whole: the largest term is 1 exactly, also where m is infinite or 0.
template <class S>
struct Norm {
  double p;
  bool is_signed, whole;
  S largest, factor;

  __device__ __forceinline__ Norm(double norm, bool signed_powers, S m)
      : p(norm), is_signed(signed_powers), whole(is_whole(norm)), largest(m), factor(reciprocal_power_of_two(m)) {}

  __device__ __forceinline__ S term(S v) const {
    const S a = magnitude(v);
    if (p == 1) return is_signed ? v : a;
    const S s = raise(whole ? a * factor : a == largest ? S(1) : a / largest, p);
    return is_signed && v < 0 ? -s : s;
  }
  __device__ __forceinline__ S scaled(S root_of_sum) const {
    if (p == 1) return root_of_sum;
    return whole ? root_of_sum / factor : root_of_sum * largest;
  }
};

// dy/dx of one cell under one window. Where powers are signed and cancel, it may pass every float: it is 0 there.
template <class S>
__device__ __forceinline__ S slope(S x, S y, double p, bool is_signed) {
  const S sign = x < 0 ? S(-1) : x > 0 ? S(1) : x;
  if (p == 1) return is_signed ? S(1) : sign;
  const S a = magnitude(x), b = magnitude(y);
  S s = raise(a == b ? S(1) : a / b, p - 1);
  if (!is_signed) s *= sign;
  return b == 0 || magnitude(s) == static_cast<S>(INFINITY) ? S(0) : s;
}

// What a float cannot hold on the way (p = 1), or what roundings make an infinity (p > 1).
template <class T, class ForCells>
__device__ __forceinline__ Sum<T> mended_norm(const T* x, const Image& xs, double p, bool is_signed, Sum<T> norm,
                                              const ForCells& for_cells) {
  ScaledSum sum;
  double m = 1;
  if (p != 1) {
    m = 0;
    for_cells([&](int64_t pixel) {
      const double a = magnitude(static_cast<double>(widen(x[pixel * xs.pixel])));
      m = a > m || a != a ? a : m;
    });
    if (!is_finite(m)) return norm;
  }
  for_cells([&](int64_t pixel) {
    const double v = static_cast<double>(widen(x[pixel * xs.pixel])), a = magnitude(v);
    const double term = p == 1 ? a : pow(a / m, p);
    sum.add((is_signed && v < 0 ? -term : term) * kTermScale);
  });
  return static_cast<Sum<T>>(root(sum.over(1), p) * m);
}

template <class T>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) norm_of_windows(Pool<T> p, Cells cells, bool is_signed) {
  typedef Sum<T> S;
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const T* const x = p.x + at.n * p.xs.batch + at.channel * p.xs.channel;
    const Taps d = taps_of(p, 0, at.place[0]), h = taps_of(p, 1, at.place[1]), w = taps_of(p, 2, at.place[2]);
    const auto for_cells = [&](const auto& visit) { for_cells_under(p, d, h, w, visit); };
    S largest = 0, sum = 0;
    if (p.norm != 1)
      for_cells([&](int64_t pixel) {
        const S a = magnitude(widen(x[pixel * p.xs.pixel]));
        largest = a > largest || a != a ? a : largest;
      });
    const Norm<S> norm(p.norm, is_signed, largest);
    for_cells([&](int64_t pixel) { sum += norm.term(widen(x[pixel * p.xs.pixel])); });
    S y = norm.scaled(root(sum, p.norm));
    if (!is_finite(y)) y = mended_norm<T>(x, p.xs, p.norm, is_signed, y, for_cells);
    p.to_y[at.n * p.ys.batch + at.channel * p.ys.channel + at.pixel * p.ys.pixel] = narrowed<T>(y);
  }
}

template <class T>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks) norm_gradient(Pool<T> p, Cells cells, bool is_signed) {
  typedef Sum<T> S;
  for (int64_t i = first_unit(); i < cells.count; i += grid_step()) {
    const Cell at = cell_of(i, cells);
    const int64_t from = at.n * p.ys.batch + at.channel * p.ys.channel;
    const int64_t cell = at.n * p.xs.batch + at.channel * p.xs.channel + at.pixel * p.xs.pixel;
    const S x = widen(p.x[cell]);
    S sum = 0;
    for_rows_over<false>(p, at.place, [&](int64_t row, int64_t, int64_t, int64_t, int64_t) {
      for_outputs_over<true>(p, 2, at.place[2], [&](int64_t o, int64_t) {
        const int64_t y = from + (row * p.axis[2].out + o) * p.ys.pixel;
        sum += widen(p.dy[y]) * slope<S>(x, widen(p.y[y]), p.norm, is_signed);
      });
    });
    if (!is_finite(sum))
      sum = mended_gradient(p, at.place, [&](ScaledSum& all, int64_t pixel, double) {
        const int64_t y = from + pixel * p.ys.pixel;
        const double dy = static_cast<double>(widen(p.dy[y]));
        const double share = dy * kTermScale * static_cast<double>(slope<S>(x, widen(p.y[y]), p.norm, is_signed));
        const double most = 0x1p960;  // cancelled powers may pass it; two such shares are no NaN
        all.add(!is_finite(dy) || share != share ? share : share > most ? most : share < -most ? -most : share);
      });
    p.dx[cell] = narrowed<T>(sum);
  }
}

}  // namespace

int pool_norm(const PoolProblem& p, const PoolBuffers& b, const RunContext& context) {
  return by_dtype(p.dtype, [&](auto type) {
    typedef decltype(type) T;
    const bool forward = p.pass == Pass::kForward;
    const Cells cells = forward ? y_cells(p, 1) : x_cells(p, 1);
    return launch(context, forward ? norm_of_windows<T> : norm_gradient<T>, grid_of(cells.count, kPoolThreads),
                  kPoolThreads, 0, pool_of<T>(p, b), cells, p.kind == PoolKind::kSignedLp);
  });
}

}  // namespace fastconv::cuda
