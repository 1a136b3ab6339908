// SPDX-License-Identifier: Apache-2.0
// How pooling of planes walks along the columns: which lanes of which vectors hold the windows of a vector of outputs,
// and their taps. Included inside the anonymous namespace of a kernel file.

#pragma once

#include "pool_fold.h"

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

// Two or three vectors of input columns hold the windows of one vector of outputs: which lanes exist, of them and of
// the outputs. The same for all rows.
struct Lanes {
  uint32_t bits[3], outputs;
};
template <class T, int STRIDE, int WINDOW>
struct Vectors {
  static constexpr int count = STRIDE == 1 ? 2 : WINDOW;
  static constexpr int last_lanes = STRIDE == 2 && WINDOW == 2 ? Vec<T>::lanes : WINDOW - STRIDE;

  static void find(int64_t size, const Under& under, Lanes* those) {
    constexpr int lanes = Vec<T>::lanes;
    for (int64_t o = 0; o < under.outputs; o += lanes, ++those) {
      for (int v = 0; v < count; ++v) {
        const int64_t first = under.start + o * STRIDE + v * lanes, most = v == count - 1 ? last_lanes : lanes;
        those->bits[v] = bits_of_lanes<T>(-first, size - first < most ? size - first : most);
      }
      those->outputs = bits_of_lanes<T>(0, under.outputs - o);
    }
  }
};

// Lane i is column i * STRIDE + TAP of the vectors.
template <class T, int STRIDE, int TAP, class U>
FC_INLINE U tap_of(const U* v) {
  constexpr int lanes = Vec<T>::lanes;
  I<T> from{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) from[i] = STRIDE == 1 ? i + TAP : TAP == 2 ? i + 1 : 2 * i + TAP;
  if constexpr (STRIDE == 1 && TAP == 0)
    return v[0];
  else if constexpr (STRIDE == 2 && TAP == 2)
    return (U)__builtin_shuffle(tap_of<T, 2, 0>(v), v[2], from);
  else
    return (U)__builtin_shuffle(v[0], v[1], from);
}

// The rows under one output row: pixels, and the number of each row's first tap.
struct Rows {
  int64_t count;
  const int64_t *pixels, *numbers;

  explicit Rows(const RowTable::Entry& entry)
      : count(entry.count), pixels(entry.pixels), numbers(entry.pixels + entry.count) {}
};

// Lane i is p[i * stride]. STRIDE 0: any stride, and only lanes below `count` are touched.
template <class T, int STRIDE>
FC_INLINE V<T> load_step(const T* p, int64_t stride, int64_t count) {
  constexpr int lanes = Vec<T>::lanes;
  if constexpr (STRIDE == 1) {
    return load(p);
  } else if constexpr (STRIDE == 2) {
    const V<T> pair[2] = {load(p), load(p + lanes)};
    return tap_of<T, 2, 0>(pair);
  } else {
    T values[lanes] = {};
    for (int64_t i = 0; i < lanes && i < count; ++i) values[i] = p[i * stride];
    return load(values);
  }
}

// Calls visit with a number that is known to the compiler: the stride, 0 for those beyond 2.
template <int N>
struct Number {
  static constexpr int value = N;
};
template <class Visit>
FC_INLINE void with_stride(int64_t stride, const Visit& visit) {
  if (stride == 1)
    visit(Number<1>());
  else if (stride == 2)
    visit(Number<2>());
  else
    visit(Number<0>());
}
template <class Visit>
FC_INLINE bool in_registers(const PoolGeometry& g, const Visit& visit) {
  const int64_t window = g.window[2], stride = g.stride[2];
  if (g.dilation[2] != 1 || stride > 2 || window < 2 || window > 3) return false;
  if (stride == 1)
    window == 2 ? visit(Number<1>(), Number<2>()) : visit(Number<1>(), Number<3>());
  else
    window == 2 ? visit(Number<2>(), Number<2>()) : visit(Number<2>(), Number<3>());
  return true;
}

// Behind the table of rows in the scratch.
template <class T>
FC_INLINE Lanes* lanes_of(const PoolGeometry& g, const Under& under, const Scratch<T>& scratch) {
  Lanes* const lanes = reinterpret_cast<Lanes*>(scratch.rows[0]) - (under.outputs + Vec<T>::lanes - 1) / Vec<T>::lanes;
  in_registers(g, [&](auto stride, auto window) {
    Vectors<T, decltype(stride)::value, decltype(window)::value>::find(g.size[2], under, lanes);
  });
  return lanes;
}
