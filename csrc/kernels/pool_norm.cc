// SPDX-License-Identifier: Apache-2.0
// Lp pooling. Nothing overflows that fits in the end: with m the largest |x| under the window, found in a first pass,
//
//   y  = (sum of (|x| / scale)^p)^(1/p) * scale                scale: m, or for whole p the power of two below it,
//                                                              which rounds nothing: sums of integers stay exact
//   dx = sum over windows of dy * sign(x) (|x| / y)^(p - 1)    0 where y is 0
//
// and where powers are signed, the sum is of sign(x) |x|^p and dx = sum of dy * (|x| / |y|)^(p - 1). p = 1 is a plain
// sum. Lanes lie along the channels (channels last), or along the columns of one window at a time (channels first).
#include "pool_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const PoolNormKernels kPoolNormKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

constexpr double kWholePowers = 32;  // up to here a whole power is multiplied out, and 4^p is far from overflowing

FC_INLINE bool is_whole(double exponent) { return exponent <= kWholePowers && exponent == (double)(int64_t)exponent; }

template <class T>
FC_INLINE V<T> magnitude(V<T> v) {
  return select<T>(v < V<T>{}, -v, v);
}

// r^exponent, r not negative.
template <class T>
FC_INLINE V<T> raise(V<T> r, double exponent) {
  if (is_whole(exponent)) {
    V<T> result = splat((T)1), factor = r;
    for (int64_t n = (int64_t)exponent; n > 0; n >>= 1, factor *= factor)
      if (n & 1) result *= factor;
    return result;
  }
  T lanes[Vec<T>::lanes];
  memcpy(lanes, &r, sizeof lanes);
  for (int i = 0; i < Vec<T>::lanes; ++i)
    lanes[i] = sizeof(T) == 4 ? (T)__builtin_powf((float)lanes[i], (float)exponent)
                              : (T)__builtin_pow((double)lanes[i], exponent);
  return load(lanes);
}

template <class T>
FC_INLINE T root(T sum, double p) {
  if (p == 1) return sum;
  const T m = sum < 0 ? -sum : sum;
  T y;
  if (p == 2)
    y = sizeof(T) == 4 ? (T)__builtin_sqrtf((float)m) : (T)__builtin_sqrt((double)m);
  else
    y = sizeof(T) == 4 ? (T)__builtin_powf((float)m, (float)(1 / p)) : (T)__builtin_pow((double)m, 1 / p);
  return sum < 0 ? -y : y;
}

template <class T>
FC_INLINE V<T> roots(V<T> sum, double p) {
  T lanes[Vec<T>::lanes];
  memcpy(lanes, &sum, sizeof lanes);
  for (int i = 0; i < Vec<T>::lanes; ++i) lanes[i] = root(lanes[i], p);
  return load(lanes);
}

// The larger magnitude; a NaN stays.
template <class T>
FC_INLINE V<T> larger(V<T> v, V<T> m) {
  const V<T> a = magnitude<T>(v);
  return select<T>((a > m) | (a != a), a, m);
}

// 1 / scale for whole p: a power of two that brings m to [2, 4), and neither an infinity nor a subnormal for any m.
template <class T>
FC_INLINE V<T> reciprocal_power_of_two(V<T> m) {
  constexpr int mantissa = sizeof(T) == 4 ? 23 : 52;
  constexpr int64_t most = sizeof(T) == 4 ? 255 : 2047;
  I<T> field = splat_int<T>(most) - ((I<T>)m >> mantissa);  // m has no sign
  field = choose<T>(field < splat_int<T>(1), splat_int<T>(1), field);
  field = choose<T>(field >= splat_int<T>(most), splat_int<T>(most - 1), field);
  return (V<T>)(field << mantissa);
}

// How the windows of one vector are scaled: by `factor` for whole p, else to 1 / m.
template <class T>
struct Norm {
  const PoolPower& power;
  const bool whole;
  V<T> m, factor;

  __attribute__((always_inline)) Norm(const PoolPower& p, V<T> largest)
      : power(p), whole(is_whole(p.p)), m(largest), factor(reciprocal_power_of_two<T>(largest)) {}

  // The term of v in the sum. Not whole: the largest one is 1 exactly, also where m is infinite or 0.
  __attribute__((always_inline)) V<T> term(V<T> v) const {
    const V<T> a = magnitude<T>(v);
    if (power.p == 1) return power.is_signed ? v : a;
    const V<T> s = raise<T>(whole ? a * factor : select<T>(a == m, splat((T)1), a / m), power.p);
    return power.is_signed ? select<T>(v < V<T>{}, -s, s) : s;
  }
  // y from the root of the sum.
  __attribute__((always_inline)) V<T> scaled(V<T> root_of_sum) const {
    if (power.p == 1) return root_of_sum;
    return whole ? root_of_sum / factor : root_of_sum * m;
  }
};

// dy/dx of one cell under one window. Where powers are signed and cancel, it may pass every float: it is 0 there.
template <class T>
FC_INLINE V<T> slope(V<T> x, V<T> y, const PoolPower& power) {
  const V<T> one = splat((T)1), zero{};
  const V<T> sign = select<T>(x < zero, -one, select<T>(x > zero, one, x));
  if (power.p == 1) return power.is_signed ? one : sign;
  const V<T> a = magnitude<T>(x), b = magnitude<T>(y);
  V<T> s = raise<T>(select<T>(a == b, one, a / b), power.p - 1);
  if (!power.is_signed) s *= sign;
  const I<T> none = (b == zero) | (magnitude<T>(s) == splat((T)__builtin_inf()));
  return select<T>(none, zero, s);
}

// As in pool_mend.h: what a float cannot hold on the way (p = 1), or what roundings make an infinity (p > 1).
template <class T>
__attribute__((noinline)) void mend_norms(const PoolGeometry& g, const PoolPart& part, const PoolPower& power,
                                          const int64_t* rows, int64_t row_count, int64_t row, const T* x, T* y) {
  for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
    for (int64_t c = 0; c < part.channels; ++c) {
      T* const norm = y + (row * g.out[2] + o) * g.y_pixel + c;
      if (is_finite(*norm)) continue;
      const auto for_taps = [&](const auto& visit) {
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = 0; i < taps.count; ++i)
            visit((double)x[(rows[r] + taps.position + i * g.dilation[2]) * g.x_pixel + c]);
      };
      const auto size_of = [](double v) { return v < 0 ? -v : v; };
      ScaledSum sum;
      if (power.p == 1) {
        for_taps([&](double v) { sum.add((power.is_signed ? v : size_of(v)) * kTermScale); });
        *norm = (T)sum.over(1);
        continue;
      }
      double m = 0;
      for_taps([&](double v) { m = size_of(v) > m || v != v ? size_of(v) : m; });
      if (!is_finite(m)) continue;
      for_taps([&](double v) {
        const double term = __builtin_pow(size_of(v) / m, power.p);
        sum.add((power.is_signed && v < 0 ? -term : term) * kTermScale);
      });
      *norm = (T)(root(sum.over(1), power.p) * m);
    }
  });
}

template <class T>
__attribute__((noinline)) void mend_norm_gradient(const PoolGeometry& g, const PoolPart& part, const PoolPower& power,
                                                  int64_t row, const T* dy, const T* x, const T* y, T* dx) {
  mend_gradient(g, part, row, dx, [&](ScaledSum& sum, int64_t cell, int64_t at, double) {
    const double share = dy[at] * kTermScale * slope<T>(splat(x[cell]), splat(y[at]), power)[0];
    // Of the largest dy a share is 2^960 times the slope. Cancelled powers may pass any float; two such shares are no
    // NaN.
    const double most = 0x1p990;
    sum.add(!is_finite(dy[at]) || share != share ? share : share > most ? most : share < -most ? -most : share);
  });
}

// ---- Channels first: lane i is the window's tap first + i, at p[i * step]. ----------------------------------------

template <class T>
FC_INLINE V<T> load_taps(const T* p, int64_t step, int64_t count) {
  if (step == 1) return load_lanes(p, 0, count);
  T values[Vec<T>::lanes] = {};
  for (int64_t i = 0; i < Vec<T>::lanes && i < count; ++i) values[i] = p[i * step];
  return load(values);
}

template <class T>
void norm_of_planes(const PoolGeometry& g, const PoolPart& part, const PoolPower& power, const T* x, T* y,
                    void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  const int64_t step = g.dilation[2];
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    rows_under(g, row, rows, &row_count);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const auto for_taps = [&](const auto& visit) __attribute__((always_inline)) {
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = 0; i < taps.count; i += lanes)
            visit(load_taps(x + rows[r] + taps.position + i * step, step, taps.count - i));
      };
      V<T> largest{}, sum{};
      if (power.p != 1) for_taps([&](V<T> v) __attribute__((always_inline)) { largest = larger<T>(v, largest); });
      T of_lane[lanes], m = 0;
      memcpy(of_lane, &largest, sizeof of_lane);
      for (int i = 0; i < lanes; ++i) m = of_lane[i] > m || of_lane[i] != of_lane[i] ? of_lane[i] : m;
      const Norm<T> norm(power, splat(m));
      for_taps([&](V<T> v) __attribute__((always_inline)) { sum += norm.term(v); });
      y[row * g.out[2] + o] = norm.scaled(splat(root<T>(horizontal_sum<T>(sum), power.p)))[0];
    });
    if (!finite_outputs(g, part, row, y)) mend_norms(g, part, power, rows, row_count, row, x, y);
  }
}

template <class T>
void norm_of_planes_backward(const PoolGeometry& g, const PoolPart& part, const PoolPower& power, const T* dy,
                             const T* x, const T* y, T* dx) {
  constexpr int lanes = Vec<T>::lanes;
  const Range outputs = outputs_over(g, 2, part.column_begin, part.column_end);
  const int64_t step = g.dilation[2];
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    T* line = dx + row * g.size[2];
    memset(line + part.column_begin, 0, (part.column_end - part.column_begin) * sizeof(T));
    for_rows_over(g, row, [&](int64_t over, int64_t, int64_t) {
      for_windows(g, outputs.begin, outputs.end, [&](int64_t o, const Taps& taps) {
        const int64_t at = over * g.out[2] + o;
        // The taps [first, last) that lie in this part.
        const int64_t before = part.column_begin - taps.position, inside = part.column_end - taps.position;
        const int64_t first = before > 0 ? (before + step - 1) / step : 0, end = (inside + step - 1) / step;
        const int64_t last = end < taps.count ? end : taps.count;
        for (int64_t i = first; i < last; i += lanes) {
          T* p = line + taps.position + i * step;
          const V<T> v = load_taps(x + row * g.size[2] + taps.position + i * step, step, last - i);
          const V<T> sum = load_taps<T>(p, step, last - i) + splat(dy[at]) * slope<T>(v, splat(y[at]), power);
          if (step == 1) {
            store_first(p, sum, last - i);
          } else {
            T values[lanes];
            memcpy(values, &sum, sizeof values);
            for (int64_t u = 0; u < lanes && u < last - i; ++u) p[u * step] = values[u];
          }
        }
      });
    });
    mend_norm_gradient(g, part, power, row, dy, x, y, dx);
  }
}

// ---- Channels last -------------------------------------------------------------------------------------------------

template <class T>
void norm_of_pixels(const PoolGeometry& g, const PoolPart& part, const PoolPower& power, const T* x, T* y,
                    void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    rows_under(g, row, rows, &row_count);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      for (int64_t c = 0; c < part.channels; c += lanes) {
        const int64_t count = part.channels - c;
        const auto for_taps = [&](const auto& visit) __attribute__((always_inline)) {
          for (int64_t r = 0; r < row_count; ++r)
            for (int64_t i = 0; i < taps.count; ++i)
              visit(load_lanes(x + (rows[r] + taps.position + i * g.dilation[2]) * g.x_pixel + c, 0, count));
        };
        V<T> m{}, sum{};
        if (power.p != 1) for_taps([&](V<T> v) __attribute__((always_inline)) { m = larger<T>(v, m); });
        const Norm<T> norm(power, m);
        for_taps([&](V<T> v) __attribute__((always_inline)) { sum += norm.term(v); });
        store_first(y + (row * g.out[2] + o) * g.y_pixel + c, norm.scaled(roots<T>(sum, power.p)), count);
      }
    });
    if (!finite_outputs(g, part, row, y)) mend_norms(g, part, power, rows, row_count, row, x, y);
  }
}

template <class T>
void norm_of_pixels_backward(const PoolGeometry& g, const PoolPart& part, const PoolPower& power, const T* dy,
                             const T* x, const T* y, T* dx) {
  const Range outputs = outputs_over(g, 2, part.column_begin, part.column_end);
  const int64_t channels = part.channels;
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    const int64_t line = row * g.size[2];
    for (int64_t i = part.column_begin; i < part.column_end; ++i)
      memset(dx + (line + i) * g.x_pixel, 0, channels * sizeof(T));
    for_rows_over(g, row, [&](int64_t over, int64_t, int64_t) {
      for_windows(g, outputs.begin, outputs.end, [&](int64_t o, const Taps& taps) {
        for (int64_t c = 0; c < channels; c += Vec<T>::lanes) {
          const int64_t out = (over * g.out[2] + o) * g.y_pixel + c, count = channels - c;
          const V<T> v_dy = load_lanes(dy + out, 0, count), v_y = load_lanes(y + out, 0, count);
          for (int64_t i = 0, at = taps.position; i < taps.count; ++i, at += g.dilation[2]) {
            if (at < part.column_begin || at >= part.column_end) continue;
            const int64_t cell = (line + at) * g.x_pixel + c;
            const V<T> share = v_dy * slope<T>(load_lanes(x + cell, 0, count), v_y, power);
            store_first(dx + cell, load_lanes(dx + cell, 0, count) + share, count);
          }
        }
      });
    });
    mend_norm_gradient(g, part, power, row, dy, x, y, dx);
  }
}

}  // namespace

const PoolNormKernels kPoolNormKernels = {
    {{norm_of_planes<float>, norm_of_planes_backward<float>},
     {norm_of_planes<double>, norm_of_planes_backward<double>}},
    {{norm_of_pixels<float>, norm_of_pixels_backward<float>},
     {norm_of_pixels<double>, norm_of_pixels_backward<double>}},
};

}  // namespace fastconv::FC_ISA
