// SPDX-License-Identifier: Apache-2.0
// Pooling of planes (channels first) by windows of different sizes, as adaptive and global pooling have them: one
// window at a time, lanes along its columns, which are neighbours (dilation 1). The order of a sum comes from the
// window alone.
#include "pool_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolWindowKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

// The best lane and its position: of equals, or of several NaNs, the first position.
template <class T, bool MIN>
void best_of_lanes(V<T> lanes, I<T> positions, T* value, int64_t* position) {
  T v[Vec<T>::lanes];
  LaneInt<T> p[Vec<T>::lanes];
  memcpy(v, &lanes, sizeof v);
  memcpy(p, &positions, sizeof p);
  int best = 0;
  for (int i = 1; i < Vec<T>::lanes; ++i) {
    const bool beaten = (MIN ? v[i] < v[best] : v[i] > v[best]) || (v[i] != v[i] && v[best] == v[best]);
    const bool equal = v[i] == v[best] || (v[i] != v[i] && v[best] != v[best]);
    if (beaten || (equal && p[i] < p[best])) best = i;
  }
  *value = v[best];
  *position = p[best];
}

template <class T, bool MIN>
void best(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    rows_under(g, row, rows, &row_count);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const int64_t base = rows[0] + taps.position, at = row * g.out[2] + o;
      V<T> m = splat(worst<T, MIN>());
      I<T> where = splat_int<T>(sizeof(T) == 4 ? INT32_MAX : INT64_MAX);  // a lane without a tap loses
      for (int64_t r = 0; r < row_count; ++r)
        for (int64_t i = 0; i < taps.count; i += lanes) {
          const int64_t below = rows[r] - rows[0] + i, count = taps.count - i;
          const V<T> v = load_lanes(x + base + below, 0, count);
          const I<T> position = lane_numbers<T>(below);
          // The lane's first tap is taken even where it is as bad as the start.
          I<T> better = beats<T, MIN>(v, m) | ((v == m) & (position < where));
          if (count < lanes) better &= lane_numbers<T>(0) < splat_int<T>(count);
          m = select<T>(better, v, m);
          where = choose<T>(better, position, where);
        }
      int64_t position;
      best_of_lanes<T, MIN>(m, where, y + at, &position);
      if (indices) indices[at] = base + position;
    });
  }
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count;
    const int64_t counted = rows_under(g, row, rows, &row_count);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      V<T> sum{};
      for (int64_t r = 0; r < row_count; ++r)
        for (int64_t i = 0; i < taps.count; i += lanes)
          sum += load_lanes(x + rows[r] + taps.position + i, 0, taps.count - i);
      y[row * g.out[2] + o] = horizontal_sum<T>(sum) / (T)(counted * taps.counted);
    });
    if (!finite_outputs(g, part, row, y)) mend_means(g, part, rows, row_count, counted, row, x, y);
  }
}

template <class T>
void average_backward(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void*) {
  constexpr int lanes = Vec<T>::lanes;
  const Range outputs = outputs_over(g, 2, part.column_begin, part.column_end);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    T* line = dx + row * g.size[2];
    memset(line + part.column_begin, 0, (part.column_end - part.column_begin) * sizeof(T));
    for_rows_over(g, row, [&](int64_t over, int64_t counted) {
      for_windows(g, outputs.begin, outputs.end, [&](int64_t o, const Taps& taps) {
        const V<T> share = splat(dy[over * g.out[2] + o] / (T)(counted * taps.counted));
        const int64_t end = taps.position + taps.count, last = end < part.column_end ? end : part.column_end;
        for (int64_t i = taps.position > part.column_begin ? taps.position : part.column_begin; i < last; i += lanes)
          store_first(line + i, load_lanes(line + i, 0, last - i) + share, last - i);
      });
    });
    mend_mean_gradient(g, part, row, dy, dx);
  }
}

}  // namespace

const PoolKernels kPoolWindowKernels = {
    {best<float, false>, best<float, true>, average<float>, average_backward<float>},
    {best<double, false>, best<double, true>, average<double>, average_backward<double>},
};

}  // namespace fastconv::FC_ISA
