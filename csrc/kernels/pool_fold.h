// SPDX-License-Identifier: Apache-2.0
// What the pooling kernels share, included inside the anonymous namespace of a kernel file.

template <class T>
using I = typename Vec<T>::ints;

template <class T>
struct LaneIntOf {
  typedef int32_t type;
};
template <>
struct LaneIntOf<double> {
  typedef int64_t type;
};
template <class T>
using LaneInt = typename LaneIntOf<T>::type;

template <class T>
FC_INLINE I<T> splat_int(int64_t x) {
  return I<T>{} + (LaneInt<T>)x;
}

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

// Where v replaces the maximum (MIN: minimum) m so far: it is beyond it, or the first NaN. On equality the earlier one
// stays.
template <class T, bool MIN>
FC_INLINE I<T> beats(V<T> v, V<T> m) {
  return (MIN ? v < m : v > m) | ((v != v) & (m == m));
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

// The taps of output `o`'s window that lie inside the input, at position + i * dilation for i < count, and how many an
// average divides by.
struct Taps {
  int64_t position, count, counted;
};
FC_INLINE Taps taps_of(const PoolGeometry& g, int axis, int64_t o) {
  const int64_t window = g.window[axis], step = g.dilation[axis], size = g.size[axis];
  Taps t;
  if (g.adaptive) {
    t.position = o * size / g.out[axis];
    t.count = t.counted = ((o + 1) * size + g.out[axis] - 1) / g.out[axis] - t.position;
  } else if (o >= g.inner_begin[axis] && o < g.inner_end[axis]) {
    t = {o * g.stride[axis] - g.pad_begin[axis], window, window};
  } else {
    const int64_t start = o * g.stride[axis] - g.pad_begin[axis];
    const int64_t first = start < 0 ? (-start + step - 1) / step : 0;
    const int64_t inside = (size - start + step - 1) / step, last = inside < window ? inside : window;
    const int64_t padded = (size + g.pad_end[axis] - start + step - 1) / step;
    t = {start + first * step, last - first, !g.include_pad ? last - first : padded < window ? padded : window};
  }
  if (g.divisor) t.counted = axis == 2 ? g.divisor : 1;
  return t;
}

// The first pixel of each input row under an output row, taps ascending. Returns how many an average divides by.
FC_INLINE int64_t rows_under(const PoolGeometry& g, int64_t row, int64_t* pixels, int64_t* count) {
  const Taps td = taps_of(g, 0, row / g.out[1]), th = taps_of(g, 1, row % g.out[1]);
  *count = 0;
  for (int64_t i = 0; i < td.count; ++i)
    for (int64_t j = 0; j < th.count; ++j)
      pixels[(*count)++] =
          ((td.position + i * g.dilation[0]) * g.size[1] + th.position + j * g.dilation[1]) * g.size[2];
  return td.counted * th.counted;
}

// Calls visit(output, taps of its window) for the outputs [begin, end) of a row.
template <class Visit>
FC_INLINE void for_windows(const PoolGeometry& g, int64_t begin, int64_t end, const Visit& visit) {
  for (int64_t o = begin; o < end; ++o) visit(o, taps_of(g, 2, o));
}

// Outputs [begin, end) of an axis may have a tap in input positions [first, last).
struct Range {
  int64_t begin, end;
};
FC_INLINE Range outputs_over(const PoolGeometry& g, int axis, int64_t first, int64_t last) {
  const int64_t out = g.out[axis], stride = g.stride[axis];
  if (g.adaptive) return {first * out / g.size[axis], (last * out + g.size[axis] - 1) / g.size[axis]};
  const int64_t low = first + g.pad_begin[axis] - (g.window[axis] - 1) * g.dilation[axis];
  const int64_t begin = low > 0 ? (low + stride - 1) / stride : 0, end = (last - 1 + g.pad_begin[axis]) / stride + 1;
  return {begin, end < out ? end : out};
}

// Calls visit(output, how many its average divides by) for every output of the axis with a tap on `position`,
// descending.
template <class Visit>
FC_INLINE void for_outputs_over(const PoolGeometry& g, int axis, int64_t position, const Visit& visit) {
  const Range over = outputs_over(g, axis, position, position + 1);
  for (int64_t o = over.end - 1; o >= over.begin; --o) {
    const Taps t = taps_of(g, axis, o);
    if ((position - t.position) % g.dilation[axis] == 0) visit(o, t.counted);
  }
}

// Calls visit(output row, the rows' part of the divisor) for every output row whose windows reach input row `row`.
template <class Visit>
FC_INLINE void for_rows_over(const PoolGeometry& g, int64_t row, const Visit& visit) {
  for_outputs_over(g, 0, row / g.size[1], [&](int64_t d, int64_t counted_d) {
    for_outputs_over(g, 1, row % g.size[1],
                     [&](int64_t h, int64_t counted_h) { visit(d * g.out[1] + h, counted_d * counted_h); });
  });
}
