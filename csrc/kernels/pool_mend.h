// SPDX-License-Identifier: Apache-2.0
// What a plain sum cannot hold: where a finished row has a value that is not finite, only those values are computed
// again, one by one, in float64 with scaled terms. Finite sums keep their bits, and cost one look at the row. Included
// inside the anonymous namespace of a kernel file, after pool_fold.h.

constexpr double kTermScale = 0x1p-64;  // fewer than 2^63 terms: their sum stays below the largest float64

template <class T>
FC_INLINE bool is_finite(T v) {
  return v - v == 0;
}

template <class T>
FC_INLINE bool all_finite(const T* p, int64_t count) {
  V<T> zero{};  // until an infinity or a NaN comes
  int64_t i = 0;
  for (; i + Vec<T>::lanes <= count; i += Vec<T>::lanes) {
    const V<T> v = load(p + i);
    zero += v - v;
  }
  if (i < count) {
    const V<T> v = load_lanes(p + i, 0, count - i);
    zero += v - v;
  }
  return !any_not_finite<T>(zero);
}

// A sum and what its roundings lost (A. Neumaier, ZAMM 54, 1974), so that the mean of equal values is their value and
// does not round to an infinity beside the largest float.
struct ScaledSum {
  double sum = 0, lost = 0;

  void add(double scaled) {
    const double next = sum + scaled;
    const double a = sum < 0 ? -sum : sum, b = scaled < 0 ? -scaled : scaled;
    lost += a >= b ? (sum - next) + scaled : (scaled - next) + sum;
    sum = next;
  }
  void add_quotient(double scaled, double divisor) {
    const double quotient = scaled / divisor;
    add(quotient);
    if (is_finite(quotient)) add(__builtin_fma(-quotient, divisor, scaled) / divisor);
  }
  double over(double divisor) const {
    if (!is_finite(lost)) return sum / divisor;  // a term was infinite or NaN, and so is the sum
    const double whole = sum + lost, quotient = whole / divisor;
    const double rest = __builtin_fma(-quotient, divisor, whole) + (lost - (whole - sum));
    return (quotient + rest / divisor) / kTermScale;
  }
};

// Computes the values of y's row `row` again that are not finite; the first three numbers are from rows_under.
template <class T>
__attribute__((noinline)) void mend_means(const PoolGeometry& g, const PoolPart& part, const int64_t* rows,
                                          int64_t row_count, int64_t counted, int64_t row, const T* x, T* y) {
  for_windows(g, part.column_begin, part.column_end, [&](int64_t o, const Taps& taps) {
    for (int64_t c = 0; c < part.channels; ++c) {
      T* const mean = y + (row * g.out[2] + o) * g.y_pixel + c;
      if (is_finite(*mean)) continue;
      ScaledSum sum;
      for (int64_t r = 0; r < row_count; ++r)
        for (int64_t i = 0; i < taps.count; ++i)
          sum.add(x[(rows[r] + taps.position + i * g.dilation[2]) * g.x_pixel + c] * kTermScale);
      *mean = (T)sum.over((double)(counted * taps.counted));
    }
  });
}

// The part's outputs of row `row`; y is dense.
template <class T>
FC_INLINE bool finite_outputs(const PoolGeometry& g, const PoolPart& part, int64_t row, const T* y) {
  return all_finite(y + (row * g.out[2] + part.column_begin) * g.y_pixel,
                    (part.column_end - part.column_begin) * g.y_pixel);
}

// Computes the values of dx's row `row` again that are not finite: add(sum, index of x, index of y, divisor) adds what
// one window gives to one cell. dx is dense.
template <class T, class Add>
FC_INLINE void mend_gradient(const PoolGeometry& g, const PoolPart& part, int64_t row, T* dx, const Add& add) {
  const int64_t line = row * g.size[2];
  if (all_finite(dx + (line + part.column_begin) * g.x_pixel, (part.column_end - part.column_begin) * g.x_pixel))
    return;
  for (int64_t i = part.column_begin; i < part.column_end; ++i)
    for (int64_t c = 0; c < part.channels; ++c) {
      const int64_t cell = (line + i) * g.x_pixel + c;
      if (is_finite(dx[cell])) continue;
      ScaledSum sum;
      for_rows_over(g, row, [&](int64_t over, int64_t counted_rows, int64_t) {
        for_outputs_over(g, 2, i, [&](int64_t o, int64_t counted, int64_t) {
          add(sum, cell, (over * g.out[2] + o) * g.y_pixel + c, (double)(counted_rows * counted));
        });
      });
      dx[cell] = (T)sum.over(1);
    }
}

template <class T>
__attribute__((noinline)) void mend_mean_gradient(const PoolGeometry& g, const PoolPart& part, int64_t row, const T* dy,
                                                  T* dx) {
  mend_gradient(g, part, row, dx, [&](ScaledSum& sum, int64_t, int64_t at, double divisor) {
    sum.add_quotient(dy[at] * kTermScale, divisor);
  });
}
