// SPDX-License-Identifier: Apache-2.0
// Pooling of planes (channels first). Windows are separable: the input rows under one output row are first folded
// with whole vectors, then the columns of what they gave, where a stride of 2 takes every other lane of two vectors.
//
//   input rows  ----------------      folded row   ..----------------..      output row  --------
//               ----------------  =>  tap 0        |       |             =>
//               ----------------      tap 1          |       |
//
// Windows of 2 or 3 neighbouring columns, 1 or 2 apart, stay in registers: an output vector folds two or three vectors
// of each row, the lanes in the padding masked, and shuffles them. All others go by a folded row in L1, padded on both
// sides. For 16 outputs of a 3x3 window with a stride of 2 that is 9 loads (3 of one lane), 18 comparisons, 9 blends
// and 3 shuffles: 240 bytes of the map in about 30 cycles, more than L2 delivers.
#include "pool_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolPlaneKernels;
namespace {

#include "pool_columns.h"
#include "pool_fold.h"
#include "pool_mend.h"

// ---- Windows in registers --------------------------------------------------------------------------------------

enum Track { kNothing, kPositions, kTaps };
// A position or tap that is later than all, in the padding.
template <class T, Track TRACK>
FC_INLINE I<T> latest() {
  return splat_int<T>(TRACK == kTaps ? 1 << 16 : sizeof(T) == 4 ? INT32_MAX : INT64_MAX);
}

// The best so far of each lane, and where it was: positions are relative to the first row under the output row.
template <class T, bool MIN, Track TRACK>
struct Best {
  V<T> value;
  I<T> where;

  // Rows and taps come in ascending order.
  __attribute__((always_inline)) void take_later(V<T> v, I<T> at) {
    const Mask<T> better = beyond<T, MIN>(v, value);
    value = pick<T>(better, v, value);
    if constexpr (TRACK != kNothing) where = pick_int<T>(better, at, where);
  }
  // Rows come before columns in the plane: of equals the one that comes first.
  __attribute__((always_inline)) void take(V<T> v, I<T> at) {
    Mask<T> better = beyond<T, MIN>(v, value);
    if constexpr (TRACK != kNothing) {
      better = (Mask<T>)(better | (ties<T>(v, value) & less_int<T>(at, where)));
      where = pick_int<T>(better, at, where);
    }
    value = pick<T>(better, v, value);
  }
  // `base`: the position of the first row under the output row.
  __attribute__((always_inline)) void store(int64_t at, uint32_t bits, int64_t base, T* y, const PoolWinners& winners) {
    const int64_t count = __builtin_popcount(bits);
    store_bits(y + at, value, bits);
    if constexpr (TRACK == kPositions) store_indices<T>(winners.indices + at, where, base, count);
    if constexpr (TRACK == kTaps) store_bytes<T>(winners.offsets + at, where, count);
  }
};

// Where lane i of a vector from column `column` on lies in row r.
template <class T, Track TRACK>
FC_INLINE I<T> place_of(const Rows& rows, int64_t r, int64_t column) {
  if constexpr (TRACK == kPositions) return lane_numbers<T>(rows.pixels[r] - rows.pixels[0] + column);
  if constexpr (TRACK == kTaps) return splat_int<T>(rows.numbers[r]);
  return I<T>{};
}

template <class T, bool MIN, Track TRACK, int STRIDE, int WINDOW>
FC_INLINE void best_row(const Lanes* all_lanes, const Under& under, const Rows& rows, int64_t at, const T* x, T* y,
                        const PoolWinners& winners) {
  constexpr int lanes = Vec<T>::lanes, n = Vectors<T, STRIDE, WINDOW>::count;
  for (int64_t o = 0; o < under.outputs; o += lanes) {
    const int64_t column = under.start + o * STRIDE;
    const Lanes& those = *all_lanes++;
    Best<T, MIN, TRACK> best[n];
#pragma GCC unroll 3
    for (int v = 0; v < n; ++v) {
      best[v].value = load_or(x + rows.pixels[0] + column + v * lanes, those.bits[v], splat(worst<T, MIN>()));
      best[v].where = place_of<T, TRACK>(rows, 0, column + v * lanes);
    }
    for (int64_t r = 1; r < rows.count; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < n; ++v)
        best[v].take_later(load_or(x + rows.pixels[r] + column + v * lanes, those.bits[v], splat(worst<T, MIN>())),
                           place_of<T, TRACK>(rows, r, column + v * lanes));
    V<T> values[n];
    I<T> places[n];
#pragma GCC unroll 3
    for (int v = 0; v < n; ++v) {
      values[v] = best[v].value, places[v] = best[v].where;
      if constexpr (TRACK != kNothing)
        places[v] = pick_int<T>(mask_of_bits<T>(those.bits[v]), places[v], latest<T, TRACK>());
    }
    const I<T> step = splat_int<T>(TRACK == kTaps);
    Best<T, MIN, TRACK> all = {tap_of<T, STRIDE, 0>(values), tap_of<T, STRIDE, 0>(places)};
    all.take(tap_of<T, STRIDE, 1>(values), tap_of<T, STRIDE, 1>(places) + step);
    if constexpr (WINDOW == 3) all.take(tap_of<T, STRIDE, 2>(values), tap_of<T, STRIDE, 2>(places) + step + step);
    all.store(at + o, those.outputs, rows.pixels[0], y, winners);
  }
}

template <class T, int STRIDE, int WINDOW>
FC_INLINE void mean_row(const Lanes* all_lanes, const Under& under, const Rows& rows, const Divisors<T>& divisors,
                        const T* x, T* y, V<T>* zero) {
  constexpr int lanes = Vec<T>::lanes, n = Vectors<T, STRIDE, WINDOW>::count;
  for (int64_t o = 0; o < under.outputs; o += lanes) {
    const int64_t column = under.start + o * STRIDE;
    const Lanes& those = *all_lanes++;
    V<T> sum[n] = {};
    for (int64_t r = 0; r < rows.count; ++r)
#pragma GCC unroll 3
      for (int v = 0; v < n; ++v) sum[v] += load_bits(x + rows.pixels[r] + column + v * lanes, those.bits[v]);
    V<T> s = tap_of<T, STRIDE, 0>(sum) + tap_of<T, STRIDE, 1>(sum);
    if constexpr (WINDOW == 3) s += tap_of<T, STRIDE, 2>(sum);
    const V<T> mean = quotient<T>(s, load(divisors.value + o), load(divisors.reciprocal + o));
    *zero += mean - mean;
    store_bits(y + o, mean, those.outputs);
  }
}

// ---- Windows by a row in L1 --------------------------------------------------------------------------------------

// `value` and `place` point to where column 0 would be.
template <class T, bool MIN, Track TRACK, int VECTORS>
FC_INLINE void best_of_rows(const T* x, const Rows& rows, int64_t column, int64_t count, T* value, T* place) {
  constexpr int lanes = Vec<T>::lanes;
  const uint32_t bits = bits_of_lanes<T>(0, VECTORS > 1 ? lanes : count);
  const auto at = [&](int64_t r, int u) __attribute__((always_inline)) {
    const T* p = x + rows.pixels[r] + column + u * lanes;
    return VECTORS > 1 ? load(p) : load_or(p, bits, splat(worst<T, MIN>()));
  };
  Best<T, MIN, TRACK> best[VECTORS];
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u) best[u] = {at(0, u), place_of<T, TRACK>(rows, 0, column + u * lanes)};
  for (int64_t r = 1; r < rows.count; ++r)
#pragma GCC unroll 4
    for (int u = 0; u < VECTORS; ++u) best[u].take_later(at(r, u), place_of<T, TRACK>(rows, r, column + u * lanes));
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u) {
    store(value + column + u * lanes, best[u].value);
    if (VECTORS == 1) best[u].where = pick_int<T>(mask_of_bits<T>(bits), best[u].where, latest<T, TRACK>());
    if constexpr (TRACK != kNothing) store(place + column + u * lanes, (V<T>)best[u].where);
  }
}

template <class T, bool MIN, Track TRACK, int STRIDE>
FC_INLINE void best_of_columns(const PoolGeometry& g, int64_t outputs, const T* value, const T* place, int64_t base,
                               int64_t at, T* y, const PoolWinners& winners) {
  const int64_t stride = g.stride[2];
  for (int64_t o = 0; o < outputs; o += Vec<T>::lanes) {
    const int64_t count = outputs - o;
    const auto tap = [&](const T* row, int64_t t) __attribute__((always_inline)) {
      return load_step<T, STRIDE>(row + o * stride + t * g.dilation[2], stride, count);
    };
    Best<T, MIN, TRACK> best = {tap(value, 0), I<T>{}};
    if constexpr (TRACK != kNothing) best.where = (I<T>)tap(place, 0);
    for (int64_t t = 1; t < g.window[2]; ++t) {
      I<T> where{};
      if constexpr (TRACK != kNothing) where = (I<T>)tap(place, t) + splat_int<T>(TRACK == kTaps ? t : 0);
      best.take(tap(value, t), where);
    }
    best.store(at + o, bits_of_lanes<T>(0, count), base, y, winners);
  }
}

template <class T, bool MIN, Track TRACK>
FC_INLINE void best_row_by_memory(const PoolGeometry& g, const Under& under, const Rows& rows, int64_t at,
                                  const Scratch<T>& scratch, const T* x, T* y, const PoolWinners& winners) {
  constexpr int lanes = Vec<T>::lanes, block = 4 * lanes;
  T *v = scratch.rows[0] - under.start, *p = scratch.rows[1] - under.start;
  int64_t column = under.begin;
  for (; column + block <= under.end; column += block) best_of_rows<T, MIN, TRACK, 4>(x, rows, column, block, v, p);
  for (; column < under.end; column += lanes) best_of_rows<T, MIN, TRACK, 1>(x, rows, column, under.end - column, v, p);
  with_stride(g.stride[2], [&](auto stride) {
    best_of_columns<T, MIN, TRACK, decltype(stride)::value>(g, under.outputs, scratch.rows[0], scratch.rows[1],
                                                            rows.pixels[0], at, y, winners);
  });
}

template <class T, bool MIN, Track TRACK>
void best_rows(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, const PoolWinners& winners,
               void* memory) {
  constexpr int lanes = Vec<T>::lanes;
  const Scratch<T> scratch(g, memory);
  const Under under(g, part);
  const Lanes* const those = lanes_of(g, under, scratch);
  if (!in_registers(g, [](auto, auto) {}))
    for (int64_t i = 0; i < g.row_elements; i += lanes) {  // padding never wins
      store_first(scratch.rows[0] + i, splat(worst<T, MIN>()), g.row_elements - i);
      if (TRACK != kNothing) store_first(scratch.rows[1] + i, (V<T>)latest<T, TRACK>(), g.row_elements - i);
    }
  for (int64_t first = part.row_begin; first < part.row_end;) {
    const RowTable table(g, first, part.row_end, scratch.numbers);
    first = table.end;
    for (int64_t plane = 0; plane < part.planes; ++plane)
      for (int64_t row = table.begin; row < table.end; ++row) {
        const Rows rows(table[row]);
        const int64_t at = plane * part.y_plane + row * g.out[2] + part.column_begin;
        const T* const from = x + plane * part.x_plane;
        if (!in_registers(g, [&](auto stride, auto window) {
              best_row<T, MIN, TRACK, decltype(stride)::value, decltype(window)::value>(those, under, rows, at, from, y,
                                                                                        winners);
            }))
          best_row_by_memory<T, MIN, TRACK>(g, under, rows, at, scratch, from, y, winners);
      }
  }
}

template <class T, bool MIN>
void best(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, const PoolWinners& winners, void* scratch) {
  if (winners.indices)
    best_rows<T, MIN, kPositions>(g, part, x, y, winners, scratch);
  else if (winners.offsets)
    best_rows<T, MIN, kTaps>(g, part, x, y, winners, scratch);
  else
    best_rows<T, MIN, kNothing>(g, part, x, y, winners, scratch);
}

template <class T, int VECTORS>
FC_INLINE void sum_of_rows(const T* x, const Rows& rows, int64_t column, int64_t count, T* sum) {
  constexpr int lanes = Vec<T>::lanes;
  const uint32_t bits = bits_of_lanes<T>(0, count);
  V<T> s[VECTORS] = {};
  for (int64_t r = 0; r < rows.count; ++r) {
    const T* p = x + rows.pixels[r] + column;
#pragma GCC unroll 4
    for (int u = 0; u < VECTORS; ++u) s[u] += VECTORS > 1 ? load(p + u * lanes) : load_bits(p, bits);
  }
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u) store(sum + column + u * lanes, s[u]);
}

template <class T>
FC_INLINE void mean_row_by_memory(const PoolGeometry& g, const Under& under, const Rows& rows, T* sum,
                                  const Divisors<T>& divisors, const T* x, T* y, V<T>* zero) {
  constexpr int lanes = Vec<T>::lanes, block = 4 * lanes;
  T* s = sum - under.start;
  int64_t column = under.begin;
  for (; column + block <= under.end; column += block) sum_of_rows<T, 4>(x, rows, column, block, s);
  for (; column < under.end; column += lanes) sum_of_rows<T, 1>(x, rows, column, under.end - column, s);
  with_stride(g.stride[2], [&](auto step) {
    for (int64_t o = 0; o < under.outputs; o += lanes) {
      const int64_t count = under.outputs - o, stride = g.stride[2];
      V<T> v{};
      for (int64_t t = 0; t < g.window[2]; ++t)
        v += load_step<T, decltype(step)::value>(sum + o * stride + t * g.dilation[2], stride, count);
      const V<T> mean = quotient<T>(v, load(divisors.value + o), load(divisors.reciprocal + o));
      *zero += mean - mean;
      store_first(y + o, mean, count);
    }
  });
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* memory) {
  const Scratch<T> scratch(g, memory);
  const Under under(g, part);
  const Lanes* const those = lanes_of(g, under, scratch);
  Divisors<T> divisors(g, part.column_begin, part.column_end, part.column_begin, scratch);
  fill(scratch.rows[0], g.row_elements, T(0));
  for (int64_t first = part.row_begin; first < part.row_end;) {
    const RowTable table(g, first, part.row_end, scratch.numbers);
    first = table.end;
    for (int64_t plane = 0; plane < part.planes; ++plane) {
      const T* const from = x + plane * part.x_plane;
      T* const to = y + plane * part.y_plane;
      for (int64_t row = table.begin; row < table.end; ++row) {
        const RowTable::Entry& entry = table[row];
        const Rows rows(entry);
        divisors.set(entry.counted);
        T* out = to + row * g.out[2] + part.column_begin;
        V<T> zero{};  // until a mean is infinite or NaN
        if (!in_registers(g, [&](auto stride, auto window) {
              mean_row<T, decltype(stride)::value, decltype(window)::value>(those, under, rows, divisors, from, out,
                                                                            &zero);
            }))
          mean_row_by_memory(g, under, rows, scratch.rows[0], divisors, from, out, &zero);
        if (any_not_finite<T>(zero)) mend_means(g, part, entry.pixels, entry.count, entry.counted, row, from, to);
      }
    }
  }
}

}  // namespace

const PoolKernels kPoolPlaneKernels = {
    {best<float, false>, best<float, true>, average<float>},
    {best<double, false>, best<double, true>, average<double>},
};

}  // namespace fastconv::FC_ISA
