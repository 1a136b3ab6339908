// SPDX-License-Identifier: Apache-2.0
// What both pooling layouts share, included inside the anonymous namespace of a kernel file.

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
FC_INLINE I<T> choose(I<T> mask, I<T> a, I<T> b) {
  return (a & mask) | (b & ~mask);
}

// Where v replaces the maximum m so far: it is larger, or the first NaN. On equality the earlier one stays.
template <class T>
FC_INLINE I<T> beats(V<T> v, V<T> m) {
  return (v > m) | ((v != v) & (m == m));
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

// The taps [first, last) of output `o`'s window that lie inside the input, and how many an average divides by.
struct Taps {
  int64_t first, last, counted;
};
FC_INLINE Taps taps_of(const PoolGeometry& g, int axis, int64_t o) {
  const int64_t window = g.window[axis], step = g.dilation[axis];
  if (o >= g.inner_begin[axis] && o < g.inner_end[axis]) return {0, window, window};
  const int64_t start = o * g.stride[axis] - g.pad_begin[axis];
  const int64_t first = start < 0 ? (-start + step - 1) / step : 0;
  const int64_t inside = (g.size[axis] - start + step - 1) / step, last = inside < window ? inside : window;
  const int64_t padded = (g.size[axis] + g.pad_end[axis] - start + step - 1) / step;
  return {first, last, !g.include_pad ? last - first : padded < window ? padded : window};
}

// The output position whose window has tap `tap` on input position `position`, or -1.
FC_INLINE int64_t window_of(const PoolGeometry& g, int axis, int64_t position, int64_t tap) {
  const int64_t start = position + g.pad_begin[axis] - tap * g.dilation[axis];
  if (start < 0 || start % g.stride[axis] != 0) return -1;
  const int64_t output = start / g.stride[axis];
  return output < g.out[axis] ? output : -1;
}

// The first pixel of each input row under an output row, taps ascending. Returns how many an average divides by.
FC_INLINE int64_t rows_under(const PoolGeometry& g, int64_t row, int64_t* pixels, int64_t* count) {
  const int64_t out_d = row / g.out[1], out_h = row % g.out[1];
  const Taps td = taps_of(g, 0, out_d), th = taps_of(g, 1, out_h);
  *count = 0;
  for (int64_t i = td.first; i < td.last; ++i) {
    const int64_t d = out_d * g.stride[0] + i * g.dilation[0] - g.pad_begin[0];
    for (int64_t j = th.first; j < th.last; ++j) {
      const int64_t h = out_h * g.stride[1] + j * g.dilation[1] - g.pad_begin[1];
      pixels[(*count)++] = (d * g.size[1] + h) * g.size[2];
    }
  }
  return td.counted * th.counted;
}

// Calls visit(output row, the rows' part of the divisor) for every output row whose windows reach input row `row`, taps
// ascending.
template <class Visit>
FC_INLINE void for_rows_over(const PoolGeometry& g, int64_t row, const Visit& visit) {
  const int64_t d = row / g.size[1], h = row % g.size[1];
  for (int64_t i = 0; i < g.window[0]; ++i) {
    const int64_t out_d = window_of(g, 0, d, i);
    if (out_d < 0) continue;
    for (int64_t j = 0; j < g.window[1]; ++j) {
      const int64_t out_h = window_of(g, 1, h, j);
      if (out_h >= 0) visit(out_d * g.out[1] + out_h, taps_of(g, 0, out_d).counted * taps_of(g, 1, out_h).counted);
    }
  }
}

// Outputs [begin, end) may have a tap in input columns [first, last).
struct Range {
  int64_t begin, end;
};
FC_INLINE Range columns_over(const PoolGeometry& g, int64_t first, int64_t last) {
  const int64_t stride = g.stride[2], low = first + g.pad_begin[2] - (g.window[2] - 1) * g.dilation[2];
  const int64_t begin = low > 0 ? (low + stride - 1) / stride : 0, end = (last - 1 + g.pad_begin[2]) / stride + 1;
  return {begin, end < g.out[2] ? end : g.out[2]};
}
