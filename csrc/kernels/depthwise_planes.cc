// SPDX-License-Identifier: Apache-2.0
// Depthwise rows straight from the image, lanes are neighbouring pixels:
//   for each block of ROWS written rows, for each vector of columns:
//     for each group (taps of depth, ...), for each step (filter column): FILTER weights in registers
//       for each of the ROWS + FILTER - 1 rows that the block reads: one load, up to FILTER multiply-adds
// 3x3 with 8 rows: 10 loads and 3 broadcasts for 24 multiply-adds; 7x7: 14 and 7 for 56. Two of three loads straddle a
// cache line and take both load ports, which still leaves the multiply-adds the narrower place.
// Stride 2 takes two loads and two shuffles for two taps. Beyond the image nothing is read: masks on the columns, a bit
// for each row.
#include "depthwise_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const DepthwisePlaneKernels kDepthwisePlaneKernels;
namespace {

#include "depthwise_rows.h"

// What a block reads lies in the image: all of it but some of the first and the last rows; the same, but columns are
// masked; or anything. A masked load takes a port from the multiply-adds.
enum class Reads { kWhole, kMasked, kSome };
template <class T>
constexpr bool kMasks = kManyRegisters && sizeof(T) == 4;  // kMasked is worth its code

// One filter column: `TAPS` says which of a step's two taps exist.
template <class T, DepthwiseWay WAY, int TAPS, int FILTER, int ROWS, Reads READS>
FC_INLINE void add_step(const DepthwisePlane<T>& p, const DepthwiseStep& step, const T* x, const T* w, uint32_t bits,
                        uint32_t valid, V<T> (*acc)[ROWS]) {
  constexpr int lanes = Vec<T>::lanes, stride = WAY == DepthwiseWay::kEvenOdd ? 2 : 1;
  constexpr int read = (ROWS - 1) * stride + FILTER;
  constexpr bool second = WAY == DepthwiseWay::kInterleaved;  // sums of its own for tap 1
  V<T> w0[FILTER], w1[FILTER];
#pragma GCC unroll 8
  for (int r = 0; r < FILTER; ++r) {
    if (TAPS & 1) w0[r] = splat(w[step.w[0] + r * p.w_row]);
    if (TAPS & 2) w1[r] = splat(w[step.w[1] + r * p.w_row]);
  }
  const T* at = x + step.x;
  asm("" : "+r"(valid));  // else each of its bits is kept in a place of its own
#pragma GCC unroll 32
  for (int i = 0; i < read; ++i, at += p.x_row) {
    const bool surely = READS != Reads::kSome && i >= FILTER - 1 && i <= read - FILTER;
    if (!surely && !(valid >> i & 1)) continue;
    if constexpr (WAY == DepthwiseWay::kEvenOdd) {
      V<T> even, odd;
      unzip<T>(load_some<T, READS == Reads::kWhole>(at, bits),
               load_some<T, READS == Reads::kWhole>(at + lanes, bits >> lanes), &even, &odd);
      if (TAPS & 1) spread<T, stride, FILTER, ROWS>(i, w0, even, acc[0]);
      if (TAPS & 2) spread<T, stride, FILTER, ROWS>(i, w1, odd, acc[0]);
    } else {
      const V<T> v = load_some<T, READS == Reads::kWhole>(at, bits);
      if (TAPS & 1) spread<T, stride, FILTER, ROWS>(i, w0, v, acc[0]);
      if (TAPS & 2) spread<T, stride, FILTER, ROWS>(i, w1, v, acc[second]);
    }
  }
}

template <class T, DepthwiseWay WAY, int FILTER, int ROWS, Reads READS>
FC_INLINE void add_steps(const DepthwisePlane<T>& p, const T* x, const T* w, const uint32_t* bits, uint32_t valid,
                         V<T> (*acc)[ROWS]) {
  for (int64_t s = 0; s < p.steps; ++s) {
    const DepthwiseStep& step = p.step[s];
    if constexpr (WAY == DepthwiseWay::kPlain) {
      add_step<T, WAY, 1, FILTER, ROWS, READS>(p, step, x, w, bits[s], valid, acc);
    } else {
      if (step.taps == 3)
        add_step<T, WAY, 3, FILTER, ROWS, READS>(p, step, x, w, bits[s], valid, acc);
      else if (step.taps == 1)
        add_step<T, WAY, 1, FILTER, ROWS, READS>(p, step, x, w, bits[s], valid, acc);
      else if constexpr (WAY == DepthwiseWay::kInterleaved)
        add_step<T, WAY, 2, FILTER, ROWS, READS>(p, step, x, w, bits[s], valid, acc);
    }
  }
}

// ALL: of the whole block. FULL: all lanes.
template <class T, int SETS, int ROWS, bool ALL, bool FULL = false>
FC_INLINE void store_rows(const DepthwisePlane<T>& p, T* y, uint32_t stored, int64_t left, V<T> (*acc)[ROWS]) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr uint32_t all_lanes = (1u << lanes) - 1;
  if constexpr (!ALL) asm("" : "+r"(stored));
  if (ALL && p.clamps) {
    const auto each = [&](const auto& change) __attribute__((always_inline)) {
#pragma GCC unroll 16
      for (int o = 0; o < ROWS; ++o)
#pragma GCC unroll 2
        for (int t = 0; t < SETS; ++t) acc[t][o] = change(acc[t][o]);
    };
    each([low = splat(p.low)](V<T> v) __attribute__((always_inline)) { return vmax<T>(low, v); });  // NaN passes
    if (p.high < static_cast<T>(__builtin_inf()))
      each([high = splat(p.high)](V<T> v) __attribute__((always_inline)) { return vmin<T>(high, v); });
  }
#pragma GCC unroll 16
  for (int o = 0; o < ROWS; ++o, y += p.y_row) {
    if (!ALL && !(stored >> o & 1)) continue;
    if constexpr (SETS == 2) zip<T>(acc[0][o], acc[1][o], &acc[0][o], &acc[1][o]);
#pragma GCC unroll 2
    for (int t = 0; t < SETS; ++t) {
      if (!ALL && p.accumulate) acc[t][o] += load_lanes(y + t * lanes, 0, left - t * lanes);
      if (!ALL && p.clamps) acc[t][o] = clamp<T>(acc[t][o], p.low, p.high);
      if constexpr (FULL)
        store(y + t * lanes, acc[t][o]);
      else
        store_bits(y + t * lanes, acc[t][o], row_bits(0, left - t * lanes) & all_lanes);
    }
  }
}

// One vector of columns of a block, with one group. A function of its own: among the loops around it, half of what it
// needs would be kept in memory.
template <class T, DepthwiseWay WAY, int FILTER, int ROWS, Reads READS>
__attribute__((noinline)) void vector_of(const DepthwisePlane<T>& p, const T* x, const T* w, const uint32_t* bits,
                                         uint32_t valid, T bias, T* y, int64_t left, uint32_t stored) {
  constexpr int sets = WAY == DepthwiseWay::kInterleaved ? 2 : 1;
  V<T> acc[sets][ROWS];
#pragma GCC unroll 2
  for (int t = 0; t < sets; ++t)
#pragma GCC unroll 16
    for (int o = 0; o < ROWS; ++o) acc[t][o] = splat(bias);
  add_steps<T, WAY, FILTER, ROWS, READS>(p, x, w, bits, valid, acc);
  if (stored == (1u << ROWS) - 1 && !p.accumulate)
    store_rows<T, sets, ROWS, true, READS == Reads::kWhole>(p, y, stored, left, acc);
  else
    store_rows<T, sets, ROWS, false>(p, y, stored, left, acc);
}

// ---- 3 x 3 ---------------------------------------------------------------------------------------------------------
// The weights stay in registers, the steps are unrolled: two thirds of the time of the loops above for planes of 28 to
// 112 pixels that lie in a cache (Emerald Rapids, 2026-11), and nine tenths where memory holds them up.

template <class T, DepthwiseWay WAY, int FILTER>
constexpr bool kKeepsWeights = kManyRegisters && sizeof(T) == 4 && FILTER == 3 && WAY != DepthwiseWay::kInterleaved;

template <class T, DepthwiseWay WAY>
bool has_three_taps(const DepthwisePlane<T>& p) {
  if (WAY == DepthwiseWay::kPlain) return p.steps == 3;
  return p.steps == 2 && p.step[0].taps == 3 && p.step[1].taps == 1;
}

// Step S of an output's taps: one filter column, or two of stride 2.
template <class T, DepthwiseWay WAY, int ROWS, int S, bool WHOLE>
FC_INLINE void add_kept(const T* at, int64_t x_row, uint32_t bits, uint32_t valid, const V<T> (*w)[3], V<T>* acc) {
  constexpr int lanes = Vec<T>::lanes, stride = WAY == DepthwiseWay::kEvenOdd ? 2 : 1;
  constexpr int read = (ROWS - 1) * stride + 3;
#pragma GCC unroll 32
  for (int i = 0; i < read; ++i, at += x_row) {
    if ((i < 2 || i > read - 3) && !(valid >> i & 1)) continue;
    if constexpr (WAY == DepthwiseWay::kEvenOdd) {
      V<T> even, odd;
      unzip<T>(load_some<T, WHOLE>(at, bits), load_some<T, WHOLE>(at + lanes, bits >> lanes), &even, &odd);
      spread<T, stride, 3, ROWS>(i, w[2 * S], even, acc);
      if (S == 0) spread<T, stride, 3, ROWS>(i, w[1], odd, acc);
    } else {
      spread<T, stride, 3, ROWS>(i, w[S], load_some<T, WHOLE>(at, bits), acc);
    }
  }
}

// A block lacks no rows but of the first and the last two.
template <class T, DepthwiseWay WAY, int ROWS>
bool keeps_weights(const DepthwisePlane<T>& p) {
  constexpr int stride = WAY == DepthwiseWay::kEvenOdd ? 2 : 1, read = (ROWS - 1) * stride + 3;
  if (p.accumulate || p.groups != 1 || p.rows < ROWS || !has_three_taps<T, WAY>(p)) return false;
  const int64_t first = p.group->row, last = (p.rows - ROWS) * stride + p.group->row + read;
  return p.first_row - first <= 2 && last - p.last_row <= 2 && p.last_row - p.first_row >= read - 2;
}

template <class T, DepthwiseWay WAY, int ROWS>
__attribute__((noinline)) void channel_of(const DepthwisePlane<T>& p, const T* from, const T* filter, T bias, T* to) {
  constexpr int lanes = Vec<T>::lanes, stride = WAY == DepthwiseWay::kEvenOdd ? 2 : 1;
  constexpr int steps = WAY == DepthwiseWay::kEvenOdd ? 2 : 3;
  constexpr uint32_t all_read = WAY == DepthwiseWay::kEvenOdd ? ~0u : (1u << lanes) - 1;
  const T* weights = filter + p.group->w;
  V<T> w[3][3];
#pragma GCC unroll 3
  for (int t = 0; t < 3; ++t)
#pragma GCC unroll 3
    for (int r = 0; r < 3; ++r) w[t][r] = splat(weights[p.step[t / stride].w[t % stride] + r * p.w_row]);
  const int64_t x_row = p.x_row;
  from += p.group->x;
  for (int64_t done = 0; done < p.rows; done += ROWS) {
    // The last block begins earlier: some rows are computed twice.
    const int64_t row = done + ROWS <= p.rows ? done : p.rows - ROWS, first = row * stride + p.group->row;
    const uint32_t valid = row_bits(p.first_row - first, p.last_row - first);
    const T* x = from + first * x_row;
    T* y = to + row * p.y_row;
    const uint32_t* bits = p.bits;
    for (int64_t v = 0, left = p.pixels; left > 0; ++v, left -= lanes, x += lanes * stride, y += lanes) {
      const bool whole = v >= p.left && v < p.right;
      V<T> acc[1][ROWS];
#pragma GCC unroll 16
      for (int o = 0; o < ROWS; ++o) acc[0][o] = splat(bias);
      const auto add = [&]<int S>() __attribute__((always_inline)) {
        if (whole || (bits[S] & all_read) == all_read)
          add_kept<T, WAY, ROWS, S, true>(x + p.step[S].x, x_row, 0, valid, w, acc[0]);
        else
          add_kept<T, WAY, ROWS, S, false>(x + p.step[S].x, x_row, bits[S], valid, w, acc[0]);
      };
      add.template operator()<0>();
      add.template operator()<1>();
      if constexpr (steps == 3) add.template operator()<2>();
      if (left >= lanes)
        store_rows<T, 1, ROWS, true, true>(p, y, 0, left, acc);
      else
        store_rows<T, 1, ROWS, true, false>(p, y, 0, left, acc);
      if (v + 1 <= p.left || v + 1 >= p.right) bits += p.steps;
    }
  }
}

template <class T, DepthwiseWay WAY, int FILTER, int ROWS>
void rows_of_channel(const DepthwisePlane<T>& p, const T* from, const T* weights, T bias, T* to) {
  constexpr int lanes = Vec<T>::lanes, sets = WAY == DepthwiseWay::kInterleaved ? 2 : 1;
  constexpr int stride = WAY == DepthwiseWay::kEvenOdd ? 2 : 1;
  // Rows that the image lacks are mostly among the first and the last that a block reads.
  constexpr int read = (ROWS - 1) * stride + FILTER;
  static_assert(read <= 32, "bits of a mask");
  constexpr uint32_t all = static_cast<uint32_t>((uint64_t{1} << read) - 1);
  constexpr uint32_t middle = read < 2 * FILTER - 1 ? 0 : (all >> (FILTER - 1)) & ~((1u << (FILTER - 1)) - 1);
  for (int64_t done = 0; done < p.rows; done += ROWS) {
    // The last block begins earlier and stores what is missing.
    const int64_t row = done + ROWS <= p.rows || p.rows < ROWS ? done : p.rows - ROWS;
    const uint32_t stored = row_bits(done - row, p.rows - row);
    const uint32_t* bits = p.bits;
    if (p.groups == 1) {
      const int64_t first = row * stride + p.group->row;
      const uint32_t valid = row_bits(p.first_row - first, p.last_row - first) & all;
      const T *x = from + p.group->x + first * p.x_row, *w = weights + p.group->w;
      const bool most = (valid & middle) == middle;
      const auto some = kMasks<T> && most                    ? vector_of < T, WAY, FILTER, ROWS,
                 kMasks<T> ? Reads::kMasked : Reads::kSome > : vector_of<T, WAY, FILTER, ROWS, Reads::kSome>;
      const auto inner = most ? vector_of<T, WAY, FILTER, ROWS, Reads::kWhole> : some;
      T* y = to + row * p.y_row;
      for (int64_t v = 0, left = p.pixels; v * lanes < p.columns; ++v, left -= lanes * sets) {
        (v >= p.left && v < p.right ? inner : some)(p, x + v * lanes * stride, w, bits, valid, bias,
                                                    y + v * lanes * sets, left, stored);
        if (v + 1 <= p.left || v + 1 >= p.right) bits += p.steps;
      }
      continue;
    }
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const int64_t v = column / lanes, left = p.pixels - column * sets;
      V<T> acc[sets][ROWS];
#pragma GCC unroll 2
      for (int t = 0; t < sets; ++t)
#pragma GCC unroll 16
        for (int o = 0; o < ROWS; ++o) acc[t][o] = splat(bias);
      const bool whole = v >= p.left && v < p.right;
      for (const DepthwiseGroup* group = p.group; group < p.group + p.groups; ++group) {
        const int64_t first = row * stride + group->row;
        const uint32_t valid = row_bits(p.first_row - first, p.last_row - first) & all;
        const T *x = from + group->x + first * p.x_row + column * stride, *w = weights + group->w;
        const bool most = (valid & middle) == middle;
        if (whole && most)
          add_steps<T, WAY, FILTER, ROWS, Reads::kWhole>(p, x, w, bits, valid, acc);
        else if (kMasks<T> && most)
          add_steps<T, WAY, FILTER, ROWS, kMasks<T> ? Reads::kMasked : Reads::kSome>(p, x, w, bits, valid, acc);
        else
          add_steps<T, WAY, FILTER, ROWS, Reads::kSome>(p, x, w, bits, valid, acc);
      }
      if (v + 1 <= p.left || v + 1 >= p.right) bits += p.steps;
      T* y = to + row * p.y_row + column * sets;
      if (stored == (1u << ROWS) - 1 && !p.accumulate)
        store_rows<T, sets, ROWS, true>(p, y, stored, left, acc);
      else
        store_rows<T, sets, ROWS, false>(p, y, stored, left, acc);
    }
  }
}

template <class T, DepthwiseWay WAY, int FILTER, int ROWS>
void rows_of(const DepthwisePlane<T>* plane) {
  const DepthwisePlane<T>& p = *plane;
  auto run = rows_of_channel<T, WAY, FILTER, ROWS>;
  if constexpr (kKeepsWeights<T, WAY, FILTER>)
    if (keeps_weights<T, WAY, ROWS>(p)) run = channel_of<T, WAY, ROWS>;
  for (int64_t c = 0; c < p.channels; ++c)
    run(p, p.x + c * p.x_channel, p.w + c * p.w_channel, p.bias ? p.bias[c] : T(0), p.y + c * p.y_channel);
}

// Eight chains of multiply-adds just hide their latency: more where there are registers.
template <class T, DepthwiseWay WAY, int FILTER>
auto by_rows(int64_t rows) {
  if (rows <= 1) return rows_of<T, WAY, FILTER, 1>;
  // Rows read are bits of a mask: 33 for 14 rows of stride 2 and a filter of 7.
  constexpr int read = 13 * (WAY == DepthwiseWay::kEvenOdd ? 2 : 1) + FILTER;
  if constexpr (kManyRegisters && WAY != DepthwiseWay::kInterleaved && read <= 32)
    if (4 * ((rows + 13) / 14 * 14) <= 5 * ((rows + 7) / 8 * 8)) return rows_of<T, WAY, FILTER, 14>;
  // The last maps of most networks have 7 x 7 pixels.
  if constexpr (kManyRegisters && sizeof(T) == 4 && WAY != DepthwiseWay::kInterleaved && (FILTER == 3 || FILTER == 5))
    if (rows == 7) return rows_of<T, WAY, FILTER, 7>;
  return rows_of<T, WAY, FILTER, 8>;
}

template <class T, DepthwiseWay WAY, int MOST>
auto by_filter(int filter_rows, int64_t rows) -> void (*)(const DepthwisePlane<T>*) {
  switch (filter_rows) {
    case 1:
      return by_rows<T, WAY, 1>(rows);
    case 2:
      return by_rows<T, WAY, 2>(rows);
    case 3:
      return by_rows<T, WAY, 3>(rows);
    case 4:
      return by_rows<T, WAY, 4>(rows);
  }
  if constexpr (MOST > 4) {
    if (filter_rows == 5) return by_rows<T, WAY, 5>(rows);
    if (filter_rows == 7) return by_rows<T, WAY, 7>(rows);
  }
  return nullptr;
}

template <class T>
auto rows_kernel(DepthwiseWay way, int filter_rows, int64_t rows) -> void (*)(const DepthwisePlane<T>*) {
  switch (way) {
    case DepthwiseWay::kPlain:
      return by_filter<T, DepthwiseWay::kPlain, kMostFilterRows<T>>(filter_rows, rows);
    case DepthwiseWay::kEvenOdd:
      return by_filter<T, DepthwiseWay::kEvenOdd, kMostFilterRows<T>>(filter_rows, rows);
    default:
      return by_filter<T, DepthwiseWay::kInterleaved, 4>(filter_rows, rows);
  }
}

}  // namespace

const DepthwisePlaneKernels kDepthwisePlaneKernels = {
    {Vec<float>::lanes, rows_kernel<float>, {kMostFilterRows<float>, kMostFilterRows<float>, 4}},
    {Vec<double>::lanes, rows_kernel<double>, {kMostFilterRows<double>, kMostFilterRows<double>, 4}},
};

}  // namespace fastconv::FC_ISA
