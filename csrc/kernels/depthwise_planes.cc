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

#if defined(FC_ISA_AVX512)
constexpr bool kMasksAreFree = true;
#else
constexpr bool kMasksAreFree = false;
#endif

// Bits first .. last - 1 of 32.
FC_INLINE uint32_t row_bits(int64_t first, int64_t last) {
  if (first < 0) first = 0;
  if (last > 32) last = 32;
  if (last <= first) return 0;
  return (last - first == 32 ? ~0u : (1u << (last - first)) - 1u) << first;
}

template <class T, bool WHOLE>
FC_INLINE V<T> load_some(const T* p, uint32_t bits) {
  if constexpr (WHOLE) return load(p);
  return load_bits(p, bits);
}

template <class T>
FC_INLINE void deinterleave(V<T> a, V<T> b, V<T>* even, V<T>* odd) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints low{}, high{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) low[i] = 2 * i, high[i] = 2 * i + 1;
  *even = __builtin_shuffle(a, b, low);
  *odd = __builtin_shuffle(a, b, high);
}
template <class T>
FC_INLINE void interleave(V<T> even, V<T> odd, V<T>* a, V<T>* b) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints low{}, high{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    low[i] = i / 2 + (i & 1) * lanes;
    high[i] = low[i] + lanes / 2;
  }
  *a = __builtin_shuffle(even, odd, low);
  *b = __builtin_shuffle(even, odd, high);
}

// acc[o] += w[r] * v for the written rows o that read row `i` by filter row r.
template <class T, int STEP, int FILTER, int ROWS>
FC_INLINE void spread(int i, const V<T>* w, V<T> v, V<T>* acc) {
#pragma GCC unroll 8
  for (int r = 0; r < FILTER; ++r) {
    const int o = i - r;
    if (o >= 0 && o % STEP == 0 && o / STEP < ROWS) acc[o / STEP] += w[r] * v;
  }
}

// One filter column: `TAPS` says which of a step's two taps exist.
template <class T, DepthwiseWay WAY, int TAPS, int FILTER, int ROWS, bool WHOLE>
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
#pragma GCC unroll 32
  for (int i = 0; i < read; ++i, at += p.x_row) {
    if (!(valid >> i & 1)) continue;
    if constexpr (WAY == DepthwiseWay::kEvenOdd) {
      V<T> even, odd;
      deinterleave<T>(load_some<T, WHOLE>(at, bits), load_some<T, WHOLE>(at + lanes, bits >> lanes), &even, &odd);
      if (TAPS & 1) spread<T, stride, FILTER, ROWS>(i, w0, even, acc[0]);
      if (TAPS & 2) spread<T, stride, FILTER, ROWS>(i, w1, odd, acc[0]);
    } else {
      const V<T> v = load_some<T, WHOLE>(at, bits);
      if (TAPS & 1) spread<T, stride, FILTER, ROWS>(i, w0, v, acc[0]);
      if (TAPS & 2) spread<T, stride, FILTER, ROWS>(i, w1, v, acc[second]);
    }
  }
}

template <class T, DepthwiseWay WAY, int FILTER, int ROWS, bool WHOLE>
FC_INLINE void add_groups(const DepthwisePlane<T>& p, int64_t row, int64_t column, const uint32_t* bits,
                          V<T> (*acc)[ROWS]) {
  constexpr int stride = WAY == DepthwiseWay::kEvenOdd ? 2 : 1;
  for (int64_t g = 0; g < p.groups; ++g) {
    const DepthwiseGroup& group = p.group[g];
    const int64_t first = row * stride + group.row;
    const uint32_t valid = row_bits(p.first_row - first, p.last_row - first);
    const T *x = p.x + group.x + first * p.x_row + column * stride, *w = p.w + group.w;
    for (int64_t s = 0; s < p.steps; ++s) {
      const DepthwiseStep& step = p.step[s];
      if constexpr (WAY == DepthwiseWay::kPlain) {
        add_step<T, WAY, 1, FILTER, ROWS, WHOLE>(p, step, x, w, bits[s], valid, acc);
      } else {
        if (step.taps == 3)
          add_step<T, WAY, 3, FILTER, ROWS, WHOLE>(p, step, x, w, bits[s], valid, acc);
        else if (step.taps == 1)
          add_step<T, WAY, 1, FILTER, ROWS, WHOLE>(p, step, x, w, bits[s], valid, acc);
        else if constexpr (WAY == DepthwiseWay::kInterleaved)
          add_step<T, WAY, 2, FILTER, ROWS, WHOLE>(p, step, x, w, bits[s], valid, acc);
      }
    }
  }
}

template <class T, DepthwiseWay WAY, int FILTER, int ROWS>
void rows_of(const DepthwisePlane<T>* plane) {
  constexpr int lanes = Vec<T>::lanes, sets = WAY == DepthwiseWay::kInterleaved ? 2 : 1;
  const DepthwisePlane<T>& p = *plane;
  const V<T> bias = splat(p.bias), low = splat(p.low), high = splat(p.high);
  for (int64_t done = 0; done < p.rows; done += ROWS) {
    // The last block begins earlier and stores what is missing.
    const int64_t row = done + ROWS <= p.rows || p.rows < ROWS ? done : p.rows - ROWS;
    const uint32_t stored = row_bits(done - row, p.rows - row);
    const uint32_t* bits = p.bits;
    for (int64_t column = 0; column < p.columns; column += lanes) {
      const int64_t v = column / lanes, left = p.pixels - column * sets;
      T* y = p.y + row * p.y_row + column * sets;
      V<T> acc[sets][ROWS];
#pragma GCC unroll 2
      for (int t = 0; t < sets; ++t)
#pragma GCC unroll 8
        for (int o = 0; o < ROWS; ++o) acc[t][o] = bias;
      const bool whole = v >= p.left && v < p.right;
      if (whole && !kMasksAreFree)
        add_groups<T, WAY, FILTER, ROWS, true>(p, row, column, bits, acc);
      else
        add_groups<T, WAY, FILTER, ROWS, false>(p, row, column, bits, acc);
      if (v + 1 <= p.left || v + 1 >= p.right) bits += p.steps;
#pragma GCC unroll 8
      for (int o = 0; o < ROWS; ++o, y += p.y_row) {
        if (!(stored >> o & 1)) continue;
        V<T> out[sets];
        if constexpr (sets == 2)
          interleave<T>(acc[0][o], acc[1][o], &out[0], &out[1]);
        else
          out[0] = acc[0][o];
#pragma GCC unroll 2
        for (int t = 0; t < sets; ++t) {
          if (p.accumulate) out[t] += load_lanes(y + t * lanes, 0, left - t * lanes);
          out[t] = vmax<T>(low, out[t]);  // NaN passes: the second where either is
          store_first(y + t * lanes, select<T>(high < out[t], high, out[t]), left - t * lanes);
        }
      }
    }
  }
}

template <class T, DepthwiseWay WAY, int FILTER>
auto by_rows(int64_t rows) {
  // As few as possible computed in vain; of two that are equal the larger.
  if (rows <= 1) return rows_of<T, WAY, FILTER, 1>;
  if (rows <= 4) return rows_of<T, WAY, FILTER, 4>;
  if ((rows + 6) / 7 * 7 < (rows + 7) / 8 * 8) return rows_of<T, WAY, FILTER, 7>;
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
      return by_filter<T, DepthwiseWay::kPlain, 7>(filter_rows, rows);
    case DepthwiseWay::kEvenOdd:
      return by_filter<T, DepthwiseWay::kEvenOdd, 7>(filter_rows, rows);
    default:
      return by_filter<T, DepthwiseWay::kInterleaved, 4>(filter_rows, rows);
  }
}

}  // namespace

const DepthwisePlaneKernels kDepthwisePlaneKernels = {
    {Vec<float>::lanes, rows_kernel<float>, {7, 7, 4}},
    {Vec<double>::lanes, rows_kernel<double>, {7, 7, 4}},
};

}  // namespace fastconv::FC_ISA
