// SPDX-License-Identifier: Apache-2.0
// What the pooling kernels share, included inside the anonymous namespace of a kernel file.

#pragma once

template <class T>
using I = Ints<T>;

template <class T>
FC_INLINE I<T> lane_numbers(int64_t first) {
  I<T> lane{};
#pragma GCC unroll 16
  for (int i = 0; i < Vec<T>::lanes; ++i) lane[i] = i;
  return lane + splat_int<T>(first);
}

template <class T>
FC_INLINE I<T> choose(I<T> mask, I<T> a, I<T> b) {
  return (a & mask) | (b & ~mask);
}

// Loses against every number.
template <class T, bool MIN>
FC_INLINE T worst() {
  return MIN ? (T)__builtin_inf() : -(T)__builtin_inf();
}

// indices[i] = base + lane i, for i < count.
template <class T>
FC_INLINE void store_indices(int64_t* indices, I<T> lanes, int64_t base, int64_t count) {
  LaneInt<T> values[Vec<T>::lanes];
  memcpy(values, &lanes, sizeof values);
  if (count >= Vec<T>::lanes)
    for (int i = 0; i < Vec<T>::lanes; ++i) indices[i] = base + values[i];
  else
    for (int64_t i = 0; i < count; ++i) indices[i] = base + values[i];
}

// The taps of output `o`'s window that lie inside the input: first + i for i < count, at position + i * dilation; and
// how many an average divides by.
struct Taps {
  int64_t first, position, count, counted;
};
FC_INLINE Taps taps_of(const PoolGeometry& g, int axis, int64_t o) {
  const int64_t window = g.window[axis], step = g.dilation[axis], size = g.size[axis];
  Taps t;
  if (g.adaptive) {
    t.first = 0;
    t.position = o * size / g.out[axis];
    t.count = t.counted = ((o + 1) * size + g.out[axis] - 1) / g.out[axis] - t.position;
  } else if (o >= g.inner_begin[axis] && o < g.inner_end[axis]) {
    t = {0, o * g.stride[axis] - g.pad_begin[axis], window, window};
  } else {
    const int64_t start = o * g.stride[axis] - g.pad_begin[axis];
    const int64_t first = start < 0 ? (-start + step - 1) / step : 0;
    const int64_t inside = (size - start + step - 1) / step, last = inside < window ? inside : window;
    const int64_t padded = (size + g.pad_end[axis] - start + step - 1) / step;
    t = {first, start + first * step, last - first, !g.include_pad ? last - first : padded < window ? padded : window};
  }
  if (g.divisor) t.counted = axis == 2 ? g.divisor : 1;
  return t;
}

// The first pixel of each input row under an output row, taps ascending, and behind these pixels the number of each
// row's first tap in the whole window. Returns how many an average divides by.
FC_INLINE int64_t rows_under(const PoolGeometry& g, int64_t row, int64_t* pixels, int64_t* count) {
  const Taps td = taps_of(g, 0, row / g.out[1]), th = taps_of(g, 1, row % g.out[1]);
  *count = td.count * th.count;
  int64_t* tap_numbers = pixels + *count;
  for (int64_t i = 0; i < td.count; ++i)
    for (int64_t j = 0; j < th.count; ++j) {
      *pixels++ = ((td.position + i * g.dilation[0]) * g.size[1] + th.position + j * g.dilation[1]) * g.size[2];
      *tap_numbers++ = ((td.first + i) * g.window[1] + th.first + j) * g.window[2];
    }
  return td.counted * th.counted;
}

// Calls visit(output, taps of its window) for the outputs [begin, end) of a row.
template <class Visit>
FC_INLINE void for_windows(const PoolGeometry& g, int64_t begin, int64_t end, const Visit& visit) {
  for (int64_t o = begin; o < end; ++o) visit(o, taps_of(g, 2, o));
}

// a / stride for a >= 0: most strides need no division, which takes as long as a short row of a gradient.
FC_INLINE int64_t over_stride(int64_t a, int64_t stride) { return stride == 1 ? a : stride == 2 ? a >> 1 : a / stride; }

// Outputs [begin, end) of an axis may have a tap in input positions [first, last).
struct Range {
  int64_t begin, end;
};
FC_INLINE Range outputs_over(const PoolGeometry& g, int axis, int64_t first, int64_t last) {
  const int64_t out = g.out[axis], stride = g.stride[axis];
  if (g.adaptive) return {first * out / g.size[axis], (last * out + g.size[axis] - 1) / g.size[axis]};
  const int64_t low = first + g.pad_begin[axis] - (g.window[axis] - 1) * g.dilation[axis];
  const int64_t begin = low > 0 ? over_stride(low + stride - 1, stride) : 0;
  const int64_t end = over_stride(last - 1 + g.pad_begin[axis], stride) + 1;
  return {begin, end < out ? end : out};
}

// Calls visit(output, how many its average divides by, the tap) for every output of the axis with a tap on `position`,
// descending.
template <class Visit>
FC_INLINE void for_outputs_over(const PoolGeometry& g, int axis, int64_t position, const Visit& visit) {
  const Range over = outputs_over(g, axis, position, position + 1);
  for (int64_t o = over.end - 1; o >= over.begin; --o) {
    const Taps t = taps_of(g, axis, o);
    const int64_t below = position - t.position;
    if (g.dilation[axis] == 1)
      visit(o, t.counted, t.first + below);
    else if (below % g.dilation[axis] == 0)
      visit(o, t.counted, t.first + below / g.dilation[axis]);
  }
}

// Calls visit(output row, the rows' part of the divisor, number of its row of taps) for every output row whose windows
// reach input row `row`.
template <class Visit>
FC_INLINE void for_rows_over(const PoolGeometry& g, int64_t row, const Visit& visit) {
  for_outputs_over(g, 0, row / g.size[1], [&](int64_t d, int64_t counted_d, int64_t tap_d) {
    for_outputs_over(g, 1, row % g.size[1], [&](int64_t h, int64_t counted_h, int64_t tap_h) {
      visit(d * g.out[1] + h, counted_d * counted_h, tap_d * g.window[1] + tap_h);
    });
  });
}

// The rows of taps under output rows [begin, end), found once for all planes of a part: those of row r are the pixels
// at `pixels`, and behind these the number of each row's first tap.
struct RowTable {
  struct Entry {
    int64_t counted, count;
    const int64_t* pixels;
  };
  Entry* entries;
  int64_t begin, end;

  // As many rows from `first` on as the scratch holds.
  RowTable(const PoolGeometry& g, int64_t first, int64_t last, void* memory)
      : entries(static_cast<Entry*>(memory)), begin(first) {
    end = last < first + g.table_rows ? last : first + g.table_rows;
    int64_t* pixels = reinterpret_cast<int64_t*>(entries + (end - begin));
    for (int64_t row = begin; row < end; ++row) {
      Entry& e = entries[row - begin];
      e.counted = rows_under(g, row, pixels, &e.count);
      e.pixels = pixels;
      pixels += 2 * e.count;
    }
  }
  const Entry& operator[](int64_t row) const { return entries[row - begin]; }
};

// The scratch of a worker on planes: int64's, then rows of row_elements T's each.
template <class T>
struct Scratch {
  int64_t* numbers;
  T* rows[kPoolScratchRows];

  Scratch(const PoolGeometry& g, void* memory) : numbers(static_cast<int64_t*>(memory)) {
    for (int i = 0; i < kPoolScratchRows; ++i) rows[i] = reinterpret_cast<T*>(numbers + g.numbers) + i * g.row_elements;
  }
};

template <class T>
void fill(T* row, int64_t count, T value) {
  for (int64_t i = 0; i < count; ++i) row[i] = value;
}

// What the averages of the outputs [begin, end) of a row divide by, and 1 over it: element o - first is output o's. 1
// for outputs that there are not, from `first` on and up to two vectors behind the last. The rows' part changes at the
// edges of a plane only.
template <class T>
struct Divisors {
  T *value, *reciprocal;
  int64_t first;

  Divisors(const PoolGeometry& g, int64_t begin, int64_t end, int64_t from, const Scratch<T>& scratch)
      : value(scratch.rows[1]),
        reciprocal(scratch.rows[2]),
        first(from),
        columns_(scratch.rows[3]),
        count_(end - from + 2 * Vec<T>::lanes) {
    fill(columns_, count_, T(1));
    for (int64_t o = begin; o < end; ++o) {
      const bool inner = !g.adaptive && o >= g.inner_begin[2] && o < g.inner_end[2];
      const int64_t equal = !inner ? 1 : (g.inner_end[2] < end ? g.inner_end[2] : end) - o;
      fill(columns_ + o - first, equal, (T)taps_of(g, 2, o).counted);
      o += equal - 1;
    }
  }
  __attribute__((always_inline)) void set(int64_t rows) {
    if (rows == rows_) return;
    rows_ = rows;
    for (int64_t i = 0; i < count_; i += Vec<T>::lanes) {
      const V<T> divisor = splat((T)rows) * load(columns_ + i);
      store(value + i, divisor);
      store(reciprocal + i, splat((T)1) / divisor);
    }
  }

 private:
  T* columns_;
  int64_t count_, rows_ = -1;
};
