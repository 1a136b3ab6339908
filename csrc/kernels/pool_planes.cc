// SPDX-License-Identifier: Apache-2.0
// Pooling of planes (channels first). Windows are separable: the input rows under one output row are first folded
// with whole vectors into one row in L1, padded on both sides; then the columns of that row, where a stride of 2 takes
// every other lane of two vectors.
//
//   input rows  ----------------      folded row   ..----------------..      output row  --------
//               ----------------  =>  tap 0        |       |             =>
//               ----------------      tap 1          |       |
//
// Averages go back the other way: the output rows over one input row are folded, then added up tap by tap.
#include "pool_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const PoolKernels kPoolPlaneKernels;
namespace {

#include "pool_fold.h"
#include "pool_mend.h"

template <class T>
struct Scratch {
  int64_t* rows;
  T *first, *second, *third;  // row_elements each

  Scratch(const PoolGeometry& g, void* memory)
      : rows(static_cast<int64_t*>(memory)),
        first(reinterpret_cast<T*>(rows + g.row_count)),
        second(first + g.row_elements),
        third(second + g.row_elements) {}
};

template <class T>
void fill(T* row, int64_t count, T value) {
  for (int64_t i = 0; i < count; ++i) row[i] = value;
}

// The input columns [begin, end) under the part's outputs; the first window starts at column `start`, perhaps in the
// padding.
struct Under {
  int64_t outputs, start, begin, end;

  Under(const PoolGeometry& g, const PoolPart& part) : outputs(part.column_end - part.column_begin) {
    start = part.column_begin * g.stride[2] - g.pad_begin[2];
    begin = start < 0 ? 0 : start;
    end = start + (outputs - 1) * g.stride[2] + (g.window[2] - 1) * g.dilation[2] + 1;
    if (end > g.size[2]) end = g.size[2];
  }
};

// Lane i is p[i * stride]. STRIDE 0: any stride, and only lanes below `count` are touched.
template <class T, int STRIDE>
FC_INLINE V<T> load_step(const T* p, int64_t stride, int64_t count) {
  constexpr int lanes = Vec<T>::lanes;
  if constexpr (STRIDE == 1) {
    return load(p);
  } else if constexpr (STRIDE == 2) {
    I<T> even{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) even[i] = 2 * i;
    return __builtin_shuffle(load(p), load(p + lanes), even);
  } else {
    T values[lanes] = {};
    for (int64_t i = 0; i < lanes && i < count; ++i) values[i] = p[i * stride];
    return load(values);
  }
}

// ---- Maximum and minimum. Positions are kept relative to the first row under the output row, as bits in lanes of T.

template <class T, bool MIN, bool INDEXED, int VECTORS>
FC_INLINE void best_of_rows(const T* x, int64_t row_count, const int64_t* rows, int64_t column, int64_t count, T* value,
                            T* position) {
  constexpr int lanes = Vec<T>::lanes;
  const auto at = [&](int64_t row, int u) __attribute__((always_inline)) {
    const T* p = x + row + column + u * lanes;
    return VECTORS > 1 ? load(p) : load_lanes(p, 0, count);
  };
  V<T> m[VECTORS];
  I<T> where[VECTORS];
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u) {
    m[u] = at(rows[0], u);
    if constexpr (INDEXED) where[u] = lane_numbers<T>(column + u * lanes);
  }
  for (int64_t r = 1; r < row_count; ++r) {
#pragma GCC unroll 4
    for (int u = 0; u < VECTORS; ++u) {
      const V<T> v = at(rows[r], u);
      const I<T> better = beats<T, MIN>(v, m[u]);
      m[u] = select<T>(better, v, m[u]);
      if constexpr (INDEXED)
        where[u] = choose<T>(better, lane_numbers<T>(rows[r] - rows[0] + column + u * lanes), where[u]);
    }
  }
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u) {
    store_first(value + column + u * lanes, m[u], count - u * lanes);
    if constexpr (INDEXED) store_first(position + column + u * lanes, (V<T>)where[u], count - u * lanes);
  }
}

template <class T, bool MIN, bool INDEXED, int STRIDE>
FC_INLINE void best_of_columns(const PoolGeometry& g, int64_t outputs, const T* value, const T* position, int64_t base,
                               T* y, int64_t* indices) {
  constexpr int lanes = Vec<T>::lanes;
  const int64_t stride = g.stride[2];
  for (int64_t o = 0; o < outputs; o += lanes) {
    const int64_t count = outputs - o;
    V<T> m = load_step<T, STRIDE>(value + o * stride, stride, count);
    I<T> where{};
    if constexpr (INDEXED) where = (I<T>)load_step<T, STRIDE>(position + o * stride, stride, count);
    for (int64_t t = 1; t < g.window[2]; ++t) {
      const int64_t from = o * stride + t * g.dilation[2];
      const V<T> v = load_step<T, STRIDE>(value + from, stride, count);
      I<T> better = beats<T, MIN>(v, m);
      if constexpr (INDEXED) {  // rows come before columns in the plane: equals are decided by position
        const I<T> i = (I<T>)load_step<T, STRIDE>(position + from, stride, count);
        const I<T> equal = (v == m) | ((v != v) & (m != m));
        better |= equal & (I<T>)(i < where);
        where = choose<T>(better, i, where);
      }
      m = select<T>(better, v, m);
    }
    store_first(y + o, m, count);
    if constexpr (INDEXED) store_indices<T>(indices + o, where, base, count);
  }
}

template <class T, bool MIN, bool INDEXED>
void best_rows(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* memory) {
  constexpr int lanes = Vec<T>::lanes, block = 4 * lanes;
  const Scratch<T> scratch(g, memory);
  const Under under(g, part);
  T *value = scratch.first, *position = scratch.second;
  // Padding never wins: no number is worse, and no position later.
  fill(value, g.row_elements, worst<T, MIN>());
  if constexpr (INDEXED)
    for (int64_t i = 0; i < g.row_elements; i += lanes)
      store_first(position + i, (V<T>)splat_int<T>(sizeof(T) == 4 ? INT32_MAX : INT64_MAX), g.row_elements - i);
  T *v = value - under.start, *p = position - under.start;
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t count, column = under.begin;
    rows_under(g, row, scratch.rows, &count);
    for (; column + block <= under.end; column += block)
      best_of_rows<T, MIN, INDEXED, 4>(x, count, scratch.rows, column, block, v, p);
    for (; column < under.end; column += lanes)
      best_of_rows<T, MIN, INDEXED, 1>(x, count, scratch.rows, column, under.end - column, v, p);
    const int64_t at = row * g.out[2] + part.column_begin, base = scratch.rows[0];
    int64_t* out = INDEXED ? indices + at : nullptr;
    switch (g.stride[2]) {
      case 1:
        best_of_columns<T, MIN, INDEXED, 1>(g, under.outputs, value, position, base, y + at, out);
        break;
      case 2:
        best_of_columns<T, MIN, INDEXED, 2>(g, under.outputs, value, position, base, y + at, out);
        break;
      default:
        best_of_columns<T, MIN, INDEXED, 0>(g, under.outputs, value, position, base, y + at, out);
        break;
    }
  }
}

template <class T, bool MIN>
void best(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, int64_t* indices, void* scratch) {
  if (indices)
    best_rows<T, MIN, true>(g, part, x, y, indices, scratch);
  else
    best_rows<T, MIN, false>(g, part, x, y, indices, scratch);
}

// ---- Average ---------------------------------------------------------------------------------------------------

template <class T>
void column_divisors(const PoolGeometry& g, int64_t begin, int64_t end, T* divisor) {
  for (int64_t o = begin; o < end; ++o) divisor[o - begin] = (T)taps_of(g, 2, o).counted;
}

template <class T, int VECTORS>
FC_INLINE void sum_of_rows(const T* x, int64_t row_count, const int64_t* rows, int64_t column, int64_t count, T* sum) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> s[VECTORS] = {};
  for (int64_t r = 0; r < row_count; ++r) {
    const T* p = x + rows[r] + column;
#pragma GCC unroll 4
    for (int u = 0; u < VECTORS; ++u) s[u] += VECTORS > 1 ? load(p + u * lanes) : load_lanes(p, 0, count);
  }
#pragma GCC unroll 4
  for (int u = 0; u < VECTORS; ++u) store_first(sum + column + u * lanes, s[u], count - u * lanes);
}

template <class T, int STRIDE>
FC_INLINE void mean_of_columns(const PoolGeometry& g, int64_t outputs, const T* sum, const T* divisor, T rows, T* y) {
  const int64_t stride = g.stride[2];
  for (int64_t o = 0; o < outputs; o += Vec<T>::lanes) {
    const int64_t count = outputs - o;
    V<T> s{};
    for (int64_t t = 0; t < g.window[2]; ++t)
      s += load_step<T, STRIDE>(sum + o * stride + t * g.dilation[2], stride, count);
    store_first(y + o, s / (splat(rows) * load(divisor + o)), count);
  }
}

template <class T>
void average(const PoolGeometry& g, const PoolPart& part, const T* x, T* y, void* memory) {
  constexpr int lanes = Vec<T>::lanes, block = 4 * lanes;
  const Scratch<T> scratch(g, memory);
  const Under under(g, part);
  T *sum = scratch.first, *divisor = scratch.second, *s = sum - under.start;
  fill(sum, g.row_elements, T(0));
  fill(divisor, g.row_elements, T(1));
  column_divisors(g, part.column_begin, part.column_end, divisor);
  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    int64_t count, column = under.begin;
    const int64_t counted = rows_under(g, row, scratch.rows, &count);
    const T rows = (T)counted;
    for (; column + block <= under.end; column += block) sum_of_rows<T, 4>(x, count, scratch.rows, column, block, s);
    for (; column < under.end; column += lanes)
      sum_of_rows<T, 1>(x, count, scratch.rows, column, under.end - column, s);
    T* out = y + row * g.out[2] + part.column_begin;
    switch (g.stride[2]) {
      case 1:
        mean_of_columns<T, 1>(g, under.outputs, sum, divisor, rows, out);
        break;
      case 2:
        mean_of_columns<T, 2>(g, under.outputs, sum, divisor, rows, out);
        break;
      default:
        mean_of_columns<T, 0>(g, under.outputs, sum, divisor, rows, out);
        break;
    }
    if (!finite_outputs(g, part, row, y)) mend_means(g, part, scratch.rows, count, counted, row, x, y);
  }
}

// Column w of dx is a tap t of output o where o * stride + t * dilation = w + pad. Columns a stride apart take the
// same taps, so that each such phase is a sum of shifted rows: sum[i] = dx[first + i * stride] = sum over the phase's t
// of folded[(first + pad) / stride + i - shift[t]].
template <class T>
FC_INLINE void sum_of_taps(const PoolGeometry& g, const int64_t* phase, const int64_t* shift, const T* folded,
                           int64_t first, int64_t count, T* sum) {
  const int64_t own_phase = (first + g.pad_begin[2]) % g.stride[2], start = (first + g.pad_begin[2]) / g.stride[2];
  for (int64_t i = 0; i < count; i += Vec<T>::lanes) {
    V<T> s{};
    for (int64_t t = 0; t < g.window[2]; ++t)
      if (phase[t] == own_phase) s += load(folded + start + i - shift[t]);
    store_first(sum + i, s, count - i);
  }
}

template <class T>
void average_backward(const PoolGeometry& g, const PoolPart& part, const T* dy, T* dx, void* memory) {
  constexpr int lanes = Vec<T>::lanes;
  const Scratch<T> scratch(g, memory);
  int64_t *phase = scratch.rows, *shift = phase + g.window[2];
  const int64_t first = part.column_begin, columns = part.column_end - first, stride = g.stride[2];
  for (int64_t t = 0; t < g.window[2]; ++t) {
    phase[t] = t * g.dilation[2] % stride;
    shift[t] = t * g.dilation[2] / stride;
  }
  const Range over = outputs_over(g, 2, first, part.column_end);
  // folded[o] lies in `first`; zeros on both sides stand for outputs that do not exist or do not reach this part.
  fill(scratch.first, g.row_elements, T(0));
  T* folded = scratch.first + shift[g.window[2] - 1] - (first + g.pad_begin[2]) / stride;
  T *divisor = scratch.second - over.begin, *sum = scratch.third;
  fill(scratch.second, g.row_elements, T(1));
  column_divisors(g, over.begin, over.end, scratch.second);

  for (int64_t row = part.row_begin; row < part.row_end; ++row) {
    fill(folded + over.begin, over.end - over.begin, T(0));
    for_rows_over(g, row, [&](int64_t out_row, int64_t rows) {
      for (int64_t o = over.begin; o < over.end; o += lanes) {
        const V<T> g_y = load_lanes(dy + out_row * g.out[2] + o, 0, over.end - o);
        const V<T> share = g_y / (splat((T)rows) * load(divisor + o));
        store_first(folded + o, load(folded + o) + share, over.end - o);
      }
    });
    T* out = dx + row * g.size[2] + first;
    if (stride == 1) sum_of_taps(g, phase, shift, folded, first, columns, out);
    for (int64_t j = 0; stride > 1 && j < stride && j < columns; ++j) {
      const int64_t count = (columns - j + stride - 1) / stride;
      sum_of_taps(g, phase, shift, folded, first + j, count, sum);
      for (int64_t i = 0; i < count; ++i) out[j + i * stride] = sum[i];
    }
    mend_mean_gradient(g, part, row, dy, dx);
  }
}

}  // namespace

const PoolKernels kPoolPlaneKernels = {
    {best<float, false>, best<float, true>, average<float>, average_backward<float>},
    {best<double, false>, best<double, true>, average<double>, average_backward<double>},
};

}  // namespace fastconv::FC_ISA
