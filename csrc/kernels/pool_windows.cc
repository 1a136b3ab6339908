// SPDX-License-Identifier: Apache-2.0
// Pooling of planes (channels first) by windows of different sizes, as adaptive and global pooling have them: one
// window of as many planes as there are lanes at a time, lanes along its columns, which are neighbours (dilation 1).
// The order of a sum comes from the window alone.
#include "pool_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolWindowKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

// The best lane and its position: of equals, or of several NaNs, the first position. The halves meet, again and again.
template <class T, bool MIN>
FC_INLINE void best_of_lanes(V<T>* best, I<T>* where) {
  constexpr int lanes = Vec<T>::lanes;
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2) {
    I<T> from{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) from[i] = (i + half) % lanes;
    const V<T> v = __builtin_shuffle(*best, from);
    const I<T> at = __builtin_shuffle(*where, from);
    const Mask<T> better = (Mask<T>)(beyond<T, MIN>(v, *best) | (ties<T>(v, *best) & less_int<T>(at, *where)));
    *where = pick_int<T>(better, at, *where);
    *best = pick<T>(better, v, *best);
  }
}

// Where windows are as wide as the plane, the rows under one output row are one run of cells.
FC_INLINE int64_t runs_under(const PoolGeometry& g, int64_t row, int64_t* rows, int64_t* row_count, int64_t* width) {
  const int64_t counted = rows_under(g, row, rows, row_count);
  *width = 1;
  if (g.out[2] == 1 && rows[*row_count - 1] == rows[0] + (*row_count - 1) * g.size[2])
    *width = *row_count, *row_count = 1;
  return counted;
}

// visit(plane, vector of its cells' results) for all planes, and store(first plane, results, how many) for as many as
// there are lanes: the lanes of their vectors are folded together.
template <class T, class Visit, class Combine, class Store>
FC_INLINE void fold_planes(int64_t planes, const Visit& visit, const Combine& combine, const Store& store) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t first = 0; first < planes; first += lanes) {
    const int64_t count = planes - first < lanes ? planes - first : lanes;
    V<T> all[lanes];
    for (int64_t i = 0; i < count; ++i) all[i] = visit(first + i);
    for (int64_t i = count; i < lanes; ++i) all[i] = V<T>{};
    store(first, fold_square<T>(all, combine), count);
  }
}

template <class T, bool MIN>
void best_values(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  const auto take = [](V<T> m, V<T> v) __attribute__((always_inline)) { return pick<T>(beyond<T, MIN>(v, m), v, m); };
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count, width;
    runs_under(g, row, rows, &row_count, &width);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const int64_t cells = taps.count * width;
      const uint32_t rest = bits_of_lanes<T>(0, cells % lanes);
      const auto best_of = [&](int64_t plane) __attribute__((always_inline)) {
        V<T> m = splat(worst<T, MIN>());
        for (int64_t r = 0; r < row_count; ++r) {
          const T* p = x + plane * part.x_plane + rows[r] + taps.position;
          int64_t i = 0;
          for (; i + lanes <= cells; i += lanes) m = take(m, load(p + i));
          if (i < cells) m = take(m, load_or(p + i, rest, splat(worst<T, MIN>())));
        }
        return m;
      };
      fold_planes<T>(part.planes, best_of, take, [&](int64_t plane, V<T> m, int64_t count) {
        for (int64_t i = 0; i < count; ++i) y[(plane + i) * part.y_plane + row * g.out[2] + o] = m[i];
      });
    });
  }
}

template <class T, bool MIN>
void best_positions(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count, width;
    runs_under(g, row, rows, &row_count, &width);
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const int64_t base = rows[0] + taps.position, cells = taps.count * width;
      const uint32_t rest = bits_of_lanes<T>(0, cells % lanes);
      for (int64_t plane = 0; plane < part.planes; ++plane) {
        const T* const from = x + plane * part.x_plane + base;
        V<T> m = splat(worst<T, MIN>());
        I<T> where = splat_int<T>(sizeof(T) == 4 ? INT32_MAX : INT64_MAX);  // a lane without a tap loses
        for (int64_t r = 0; r < row_count; ++r)
          for (int64_t i = 0; i < cells; i += lanes) {
            const int64_t below = rows[r] - rows[0] + i;
            const uint32_t bits = i + lanes <= cells ? (1u << lanes) - 1 : rest;
            const V<T> v = load_or(from + below, bits, splat(worst<T, MIN>()));
            // The lane's first tap is taken even where it is as bad as the start.
            const I<T> position = lane_numbers<T>(below);
            const Mask<T> better = (Mask<T>)((beyond<T, MIN>(v, m) | (ties<T>(v, m) & less_int<T>(position, where))) &
                                             mask_of_bits<T>(bits));
            where = pick_int<T>(better, position, where);
            m = pick<T>(better, v, m);
          }
        best_of_lanes<T, MIN>(&m, &where);
        const int64_t at = plane * part.y_plane + row * g.out[2] + o;
        y[at] = m[0];
        indices[at] = base + where[0];
      }
    });
  }
}

template <class T, bool MIN>
void best(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, const PoolWinners& winners, void* scratch) {
  if (winners.indices)
    best_positions<T, MIN>(g, part, x, y, winners.indices, scratch);
  else
    best_values<T, MIN>(g, part, x, y, scratch);
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* scratch) {
  constexpr int lanes = Vec<T>::lanes;
  int64_t* rows = static_cast<int64_t*>(scratch);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t row_count, width;
    const int64_t counted = runs_under(g, row, rows, &row_count, &width);
    V<T> zero{};  // until a mean is infinite or NaN
    for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
      const int64_t cells = taps.count * width;
      const uint32_t rest = bits_of_lanes<T>(0, cells % lanes);
      const T divisor = (T)(counted * taps.counted);
      const auto sum_of = [&](int64_t plane) __attribute__((always_inline)) {
        V<T> sum{};
        for (int64_t r = 0; r < row_count; ++r) {
          const T* p = x + plane * part.x_plane + rows[r] + taps.position;
          int64_t i = 0;
          for (; i + lanes <= cells; i += lanes) sum += load(p + i);
          if (i < cells) sum += load_bits(p + i, rest);
        }
        return sum;
      };
      const auto add = [](V<T> a, V<T> b) __attribute__((always_inline)) { return a + b; };
      fold_planes<T>(part.planes, sum_of, add, [&](int64_t plane, V<T> sums, int64_t count) {
        const V<T> means = sums / splat(divisor);
        zero += means - means;
        for (int64_t i = 0; i < count; ++i) y[(plane + i) * part.y_plane + row * g.out[2] + o] = means[i];
      });
    });
    for (int64_t plane = 0; plane < part.planes && any_not_finite<T>(zero); ++plane) {
      T* const means = y + plane * part.y_plane;
      if (finite_outputs(g, part, row, means)) continue;
      int64_t all;
      rows_under(g, row, rows, &all);
      mend_means(g, part, rows, all, counted, row, x + plane * part.x_plane, means);
      runs_under(g, row, rows, &row_count, &width);
    }
  }
}

}  // namespace

const PoolKernels kPoolWindowKernels = {
    {best<float, false>, best<float, true>, average<float>},
    {best<double, false>, best<double, true>, average<double>},
};

}  // namespace fastconv::FC_ISA
