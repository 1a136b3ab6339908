// SPDX-License-Identifier: Apache-2.0
// Which outputs of a pooling lie over the rows and columns of its input's gradient. Included inside the anonymous
// namespace of a kernel file, after pool_fold.h.

#pragma once

// The output rows over the rows [begin, end) of dx, found once for all planes of a part: of each its row and the rows'
// part of its divisor.
struct Over {
  int64_t row, counted;
};
struct OverTable {
  struct Entry {
    int64_t count, rows;  // rows: this one and those behind it under the same output rows
    const Over* over;
  };
  Entry* entries;
  int64_t begin, end;

  OverTable(const PoolGeometry& g, int64_t first, int64_t last_row, void* memory)
      : entries(static_cast<Entry*>(memory)), begin(first) {
    end = last_row < first + g.table_rows ? last_row : first + g.table_rows;
    Over* next = reinterpret_cast<Over*>(entries + (end - begin));
    int64_t head = begin;  // the first of the rows under the same output rows
    for (int64_t row = begin; row < end; ++row) {
      Entry& e = entries[row - begin];
      e = {0, 1, next};
      for_rows_over(g, row, [&](int64_t over, int64_t divisor, int64_t) {
        *next++ = {over, divisor};
        ++e.count;
      });
      const Entry& before = entries[head - begin];
      bool same = row > head && e.count == before.count;
      for (int64_t i = 0; same && i < e.count; ++i) same = e.over[i].row == before.over[i].row;
      if (same)
        ++entries[head - begin].rows;
      else
        head = row;
    }
  }
  const Entry& operator[](int64_t row) const { return entries[row - begin]; }
};
static_assert(sizeof(Over) <= kPoolSourceNumbers * 8 && sizeof(OverTable::Entry) == kPoolSourceNumbers * 8, "");

// Which taps the columns first + j + i * stride of dx have, for one j < stride.
struct Phase {
  int64_t start, columns, taps;
  int64_t *tap, *shift;

  Phase(const PoolGeometry& g, const PoolPart& part, int64_t j, int64_t* numbers) {
    const int64_t stride = g.stride[2], column = part.column_begin + j + g.pad_begin[2];
    start = column / stride;
    columns =
        part.column_end > part.column_begin + j ? (part.column_end - part.column_begin - j + stride - 1) / stride : 0;
    taps = 0, tap = numbers, shift = numbers + g.window[2];
    for (int64_t t = 0; t < g.window[2]; ++t)
      if (t * g.dilation[2] % stride == column % stride) tap[taps] = t, shift[taps++] = t * g.dilation[2] / stride;
  }
};

// Interleaves a and b and stores the first `count` to each of so many rows.
template <class T>
FC_INLINE void store_pairs(T* p, V<T> a, V<T> b, int64_t count, int64_t rows, int64_t pitch) {
  constexpr int lanes = Vec<T>::lanes;
  I<T> low{}, high{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    low[i] = i / 2 + (i & 1) * lanes;
    high[i] = low[i] + lanes / 2;
  }
  const V<T> first = __builtin_shuffle(a, b, low), second = __builtin_shuffle(a, b, high);
  if (count >= 2 * lanes) {
    for (int64_t row = 0; row < rows; ++row, p += pitch) store(p, first), store(p + lanes, second);
  } else if (count > lanes) {
    for (int64_t row = 0; row < rows; ++row, p += pitch)
      store(p, first), store_bits(p + lanes, second, bits_of_lanes<T>(0, count - lanes));
  } else {
    for (int64_t row = 0; row < rows; ++row, p += pitch) store_bits(p, first, bits_of_lanes<T>(0, count));
  }
}

// Stores columns [i, i + lanes) of the phases to each of so many rows of dx, which have so many columns in all.
template <class T>
FC_INLINE void store_columns(V<T> even, V<T> odd, int64_t stride, int64_t columns, int64_t i, int64_t rows,
                             int64_t pitch, T* out) {
  if (stride == 2) return store_pairs<T>(out + 2 * i, even, odd, columns - 2 * i, rows, pitch);
  const uint32_t bits = bits_of_lanes<T>(0, columns - i);
  for (int64_t row = 0; row < rows; ++row) store_bits(out + row * pitch + i, even, bits);
}
