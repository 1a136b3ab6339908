// SPDX-License-Identifier: Apache-2.0
// Register tiles of convolution with few channels per group. Lanes are grid points, weights are broadcast.
//
//   forward, backward-data:   for each (channel, tap): VECTORS loads of x, ROWS broadcasts of w,
//   sums[ROWS][VECTORS]       ROWS * VECTORS multiply-adds. AVX-512: 4 x 6 has 10 loads for 24, 8 x 3 has 11; AVX2:
//                             4 x 3 has 7 for 12. Most loads of x lie across two cache lines and count twice.
//   backward-filter:          for each vector of points: ROWS loads of y, COLUMNS of x at the offsets of (channel, tap)
//   sums[ROWS][COLUMNS]       and ROWS * COLUMNS multiply-adds; the lanes are added at the end, in a fixed tree.
//   the same, many channels   for each point: VECTORS loads of y, its lanes channels, COLUMNS broadcasts of x;
//   sums[COLUMNS][VECTORS]    12 x 2 has 14 loads for 24, no lane is added to another.
//
// A sum is one chain over the steps, whatever tile the point falls into.
#include "grouped_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const GroupedKernels kGroupedKernels;
namespace {

#include "ask_ahead.h"

constexpr bool kMany = kVectorRegisters == 32;
constexpr int kRows = kMany ? 8 : 4;
constexpr int kFilterRows = 4;
constexpr int kPixelColumns = kMany ? 12 : 6;
constexpr int kPixelVectors = 2;

// Vectors of a tile of `rows` rows: sums, as many vectors of x and a broadcast are in registers.
constexpr int most_vectors(int rows) {
  if (kMany) return rows <= 3 ? 8 : rows == 4 ? 6 : rows == 5 ? 5 : rows == 6 ? 4 : 3;
  return rows == 1 ? 6 : rows == 2 ? 5 : 3;
}
constexpr int most_columns(int rows) {
  if (kMany) return rows == 4 ? 6 : rows == 3 ? 8 : 9;
  return rows == 4 ? 3 : rows == 3 ? 4 : 6;
}

// ---- Forward and backward-data -----------------------------------------------------------------------------------

template <class T, int ROWS, int VECTORS>
void band_tile(const GroupedBand<T>& b, int64_t first) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][VECTORS] = {};
  const T* base = b.x + first * lanes;
  const int64_t row = b.w_row, three = 3 * row;
  // The next tile's place, about: where a row ends in between, the rest of it is asked for by nobody.
  const int64_t next = first + VECTORS < b.vectors ? first + VECTORS : first;
  AskAhead<T, VECTORS> ask(b.y + b.runs[b.first_run[next]].at, b.y_row);
  const GroupedStep* const asking = b.steps + (b.step_count < ROWS * VECTORS ? b.step_count : ROWS * VECTORS);
  for (const GroupedStep *step = b.steps, *end = step + b.step_count; step < end; ++step) {
    if (step < asking) ask();
    const T* x = base + step->x;
    const T* w = b.w + step->w;  // three rows by one pointer: addresses are base + index
    V<T> v[VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < VECTORS; ++i) v[i] = load(x + i * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      if (r > 0 && r % 3 == 0) w += three;
      const V<T> factor = splat(w[r % 3 * row]);
#pragma GCC unroll 8
      for (int i = 0; i < VECTORS; ++i) sum[r][i] += factor * v[i];
    }
  }
  if (b.bias) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r) {
      const V<T> shift = splat(b.bias[r]);
#pragma GCC unroll 8
      for (int i = 0; i < VECTORS; ++i) sum[r][i] += shift;
    }
  }
  if (b.relu) {
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 8
      for (int i = 0; i < VECTORS; ++i) sum[r][i] = vmax<T>(V<T>{}, sum[r][i]);  // NaN passes
  }
#pragma GCC unroll 8
  for (int i = 0; i < VECTORS; ++i) {
    const GroupedRun *run = b.runs + b.first_run[first + i], *end = b.runs + b.first_run[first + i + 1];
    for (; run < end; ++run) {
      T* y = b.y + run->at;
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; ++r) store_bits(y + r * b.y_row, sum[r][i], run->bits);
    }
  }
}

template <class T, int ROWS, int VECTORS>
FC_INLINE void band_vectors(const GroupedBand<T>& b, int64_t first, int64_t count) {
  if constexpr (VECTORS > 1)
    if (count < VECTORS) return band_vectors<T, ROWS, VECTORS - 1>(b, first, count);
  band_tile<T, ROWS, VECTORS>(b, first);
}

template <class T, int ROWS>
void band_rows(const GroupedBand<T>& b) {
  if constexpr (ROWS > 1)
    if (b.rows < ROWS) return band_rows<T, ROWS - 1>(b);
  constexpr int most = most_vectors(ROWS);
  constexpr int64_t line = 64 / (int64_t)sizeof(T);
  int64_t channel = 0, at = 0;
  const int64_t all_tiles = (b.vectors + most - 1) / most;
  const int64_t lines = b.ahead_channels * ((b.ahead_count + line - 1) / line),
                share = (lines + all_tiles - 1) / all_tiles;
  for (int64_t first = 0, left = b.vectors; left > 0;) {  // tiles as equal as can be
    const int64_t tiles = (left + most - 1) / most, count = (left + tiles - 1) / tiles;
    for (int64_t i = 0; i < share && channel < b.ahead_channels; ++i) {
      __builtin_prefetch(b.ahead + channel * b.ahead_pitch + at, 0, 2);
      if ((at += line) >= b.ahead_count) at = 0, ++channel;
    }
    band_vectors<T, ROWS, most>(b, first, count);
    first += count, left -= count;
  }
}
template <class T>
void band(const GroupedBand<T>* b) {
  band_rows<T, kRows>(*b);
}

// ---- Backward-filter ---------------------------------------------------------------------------------------------

template <class T, int ROWS, int COLUMNS>
void filter_tile(const GroupedFilter<T>& f) {
  constexpr int lanes = Vec<T>::lanes, count = ROWS * COLUMNS;
  V<T> sum[count] = {};
  const T* column[COLUMNS];
#pragma GCC unroll 16
  for (int c = 0; c < COLUMNS; ++c) column[c] = f.x + f.offsets[c];
  const int64_t row = f.y_row, of_line = f.vectors * lanes;
  const int64_t x_gap = f.x_line - of_line, y_gap = f.y_line - of_line, distance = f.ahead - f.y;
  for (int64_t block = 0; block < f.blocks; ++block) {
    const T* y = f.y + block * f.y_block;
    int64_t i = block * f.x_block;
    for (int64_t line = f.lines; line > 0; --line, i += x_gap, y += y_gap)
      for (const int64_t end = i + of_line; i < end; i += lanes, y += lanes) {
        __builtin_prefetch(y + distance, 0, 2);
        V<T> factor[ROWS];
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; ++r) factor[r] = load(y + r * row);
#pragma GCC unroll 16
        for (int c = 0; c < COLUMNS; ++c) {
          const V<T> x = load_once(column[c] + i);
#pragma GCC unroll 4
          for (int r = 0; r < ROWS; ++r) sum[r * COLUMNS + c] += factor[r] * x;
        }
      }
  }
  constexpr int squares = (count + lanes - 1) / lanes;
  T total[squares * lanes];
#pragma GCC unroll 16
  for (int s = 0; s < squares; ++s) {
    V<T> square[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) square[i] = s * lanes + i < count ? sum[s * lanes + i] : V<T>{};
    store(total + s * lanes, sum_square<T>(square));
  }
  for (int r = 0; r < ROWS; ++r)
    for (int c = 0; c < COLUMNS; ++c) f.w[r * f.w_row + c] += total[r * COLUMNS + c];
}

template <class T, int ROWS, int COLUMNS>
void filter_columns_of(const GroupedFilter<T>& f) {
  if constexpr (COLUMNS > 1)
    if (f.columns < COLUMNS) return filter_columns_of<T, ROWS, COLUMNS - 1>(f);
  filter_tile<T, ROWS, COLUMNS>(f);
}
template <class T, int ROWS>
void filter_rows_of(const GroupedFilter<T>& f) {
  if constexpr (ROWS > 1)
    if (f.rows < ROWS) return filter_rows_of<T, ROWS - 1>(f);
  filter_columns_of<T, ROWS, most_columns(ROWS)>(f);
}
template <class T>
void filter(const GroupedFilter<T>* f) {
  filter_rows_of<T, kFilterRows>(*f);
}
int filter_columns(int rows) { return most_columns(rows); }
int vectors(int rows) { return most_vectors(rows); }

template <class T, int COLUMNS, int VECTORS>
void pixel_tile(const GroupedPixels<T>& f) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[COLUMNS][VECTORS];
  const T* column[COLUMNS];
#pragma GCC unroll 12
  for (int c = 0; c < COLUMNS; ++c) {
    column[c] = f.x + f.offsets[c];
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) sum[c][v] = load(f.w + c * f.w_column + v * lanes);
  }
  for (int64_t block = 0; block < f.blocks; ++block) {
    const T* y = f.y + block * f.y_block;
    for (int64_t row = 0; row < f.rows; ++row) {
      const int64_t begin = block * f.x_block + row * f.x_row;
      for (int64_t i = begin; i < begin + f.points; ++i, y += f.y_point) {
        V<T> factor[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; ++v) factor[v] = load(y + v * lanes);
#pragma GCC unroll 12
        for (int c = 0; c < COLUMNS; ++c) {
          const V<T> x = splat(column[c][i]);
#pragma GCC unroll 2
          for (int v = 0; v < VECTORS; ++v) sum[c][v] += x * factor[v];
        }
      }
    }
  }
#pragma GCC unroll 12
  for (int c = 0; c < COLUMNS; ++c)
#pragma GCC unroll 2
    for (int v = 0; v < VECTORS; ++v) store(f.w + c * f.w_column + v * lanes, sum[c][v]);
}
template <class T, int COLUMNS>
void pixel_columns_of(const GroupedPixels<T>& f) {
  if constexpr (COLUMNS > 1)
    if (f.columns < COLUMNS) return pixel_columns_of<T, COLUMNS - 1>(f);
  if (f.vectors == 1) return pixel_tile<T, COLUMNS, 1>(f);
  pixel_tile<T, COLUMNS, kPixelVectors>(f);
}
template <class T>
void pixels(const GroupedPixels<T>* f) {
  pixel_columns_of<T, kPixelColumns>(*f);
}

// ---- Planes ------------------------------------------------------------------------------------------------------

// Bits first .. last - 1 of `lanes`.
FC_INLINE uint32_t bits_between(int64_t first, int64_t last, int lanes) {
  first = first < 0 ? 0 : first;
  last = last > lanes ? lanes : last;
  return first < last ? ((1u << (last - first)) - 1u) << first : 0;
}

template <class T>
void copy_rows(int64_t rows, int64_t count, int64_t first, int64_t last, const T* src, int64_t step, int64_t src_pitch,
               T* dst, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  constexpr int64_t most = 16;  // vectors of a row whose masks are kept
  if (step == 1 && count <= most * lanes) {
    uint32_t bits[most];
    const int64_t vectors = (count + lanes - 1) / lanes;
    for (int64_t v = 0; v < vectors; ++v) bits[v] = bits_between(first - v * lanes, last - v * lanes, lanes);
    for (; rows > 0; --rows, src += src_pitch, dst += dst_pitch)
      for (int64_t v = 0; v < vectors; ++v) store(dst + v * lanes, load_bits(src + v * lanes, bits[v]));
    return;
  }
  for (; rows > 0; --rows, src += src_pitch, dst += dst_pitch) {
    int64_t i = 0;
    if (step == 1) {
      for (; i < count; i += lanes) {
        const bool whole = first <= i && i + lanes <= last;
        store(dst + i, whole ? load(src + i) : load_lanes(src + i, first - i, last - i));
      }
    } else {
      for (; i < count; ++i) dst[i] = first <= i && i < last ? src[i * step] : T(0);
    }
  }
}

template <class T>
FC_INLINE void split_pairs(V<T> low, V<T> high, V<T>* even, V<T>* odd) {
  typename Vec<T>::ints evens{}, odds{};
#pragma GCC unroll 16
  for (int lane = 0; lane < Vec<T>::lanes; ++lane) evens[lane] = 2 * lane, odds[lane] = 2 * lane + 1;
  *even = __builtin_shuffle(low, high, evens);
  *odd = __builtin_shuffle(low, high, odds);
}

template <class T>
void copy_pairs(int64_t rows, int64_t count, int64_t first, int64_t last, const T* src, int64_t src_pitch, T* even,
                T* odd, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t i = 0; i < count; i += lanes) {
    const uint32_t low = bits_between(first - 2 * i, last - 2 * i, lanes);
    const uint32_t high = bits_between(first - 2 * i - lanes, last - 2 * i - lanes, lanes);
    const T* at = src + 2 * i;
    int64_t to = i;
    for (int64_t row = 0; row < rows; ++row, at += src_pitch, to += dst_pitch) {
      V<T> left, right;
      split_pairs<T>(load_bits(at, low), load_bits(at + lanes, high), &left, &right);
      store_first(even + to, left, count - i);
      store_first(odd + to, right, count - i);
    }
  }
}

template <class T>
void spread(int64_t rows, int64_t count, const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints lower{}, upper{};
#pragma GCC unroll 16
  for (int lane = 0; lane < lanes; ++lane) lower[lane] = lane / 2, upper[lane] = (lanes + lane) / 2;
  for (; rows > 0; --rows, src += src_pitch, dst += dst_pitch)
    for (int64_t i = 0; i < count; i += lanes) {
      const V<T> v = load_lanes(src + i, 0, count - i);
      const int64_t end = 2 * (count - i);
      store_bits(dst + 2 * i, __builtin_shuffle(v, lower), 0x55555555u & bits_between(0, end, lanes));
      store_bits(dst + 2 * i + lanes, __builtin_shuffle(v, upper), 0x55555555u & bits_between(0, end - lanes, lanes));
    }
}

}  // namespace

const GroupedKernels kGroupedKernels = {
    {Vec<float>::lanes, kRows, vectors, kFilterRows, kPixelColumns, kPixelVectors, filter_columns, band<float>,
     filter<float>, pixels<float>, copy_rows<float>, copy_pairs<float>, spread<float>},
    {Vec<double>::lanes, kRows, vectors, kFilterRows, kPixelColumns, kPixelVectors, filter_columns, band<double>,
     filter<double>, pixels<double>, copy_rows<double>, copy_pairs<double>, spread<double>},
};

}  // namespace fastconv::FC_ISA
