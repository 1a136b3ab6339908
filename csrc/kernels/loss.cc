// SPDX-License-Identifier: Apache-2.0
// Softmax and cross-entropy over rows.
#include "norm_kernels.h"
#include "simd_masks.h"

namespace fastconv::FC_ISA {
extern const LossKernels kLossKernels;
namespace {

#include "vector_math.h"

template <class T>
T largest(int64_t columns, const T* x) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> m = splat(-(T)__builtin_inf());
  for (int64_t i = 0; i < columns; i += lanes)
    m = vmax<T>(load_or(x + i, bits_of_lanes<T>(0, columns - i), splat(-(T)__builtin_inf())), m);
#pragma GCC unroll 4
  for (int half = lanes / 2; half > 0; half /= 2) {
    Ints<T> from{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) from[i] = (i + half) % lanes;
    m = vmax<T>(__builtin_shuffle(m, from), m);
  }
  return m[0];
}

// y = exp(x - max); *max and the sum of the row. A NaN anywhere makes the sum NaN; so does an infinity, as inf - inf.
template <class T>
T exponentials(int64_t columns, const T* x, T* y, T* max) {
  *max = largest(columns, x);
  V<T> sum{};
  for (int64_t i = 0; i < columns; i += Vec<T>::lanes) {  // exp(-inf) = 0 beyond the row's end
    const V<T> e = vexp<T>(load_or(x + i, bits_of_lanes<T>(0, columns - i), splat(-(T)__builtin_inf())) - splat(*max));
    sum += e;
    store_first(y + i, e, columns - i);
  }
  return horizontal_sum<T>(sum);
}

template <class T>
void divide_row(int64_t columns, T divisor, T* y) {
  const V<T> d = splat(divisor), reciprocal = splat(T(1) / divisor);
  for (int64_t i = 0; i < columns; i += Vec<T>::lanes)
    store_first(y + i, quotient<T>(load_lanes(y + i, 0, columns - i), d, reciprocal), columns - i);
}

template <class T>
T log_of(T x) {
  return vlog<T>(splat(x))[0];
}

template <class T>
void softmax(int64_t rows, int64_t columns, bool log, const T* x, T* y) {
  for (int64_t r = 0; r < rows; ++r, x += columns, y += columns) {
    T max;
    const T sum = exponentials(columns, x, y, &max);
    if (!log) {
      divide_row(columns, sum, y);
      continue;
    }
    const V<T> log_sum = splat(log_of(sum));
    for (int64_t i = 0; i < columns; i += Vec<T>::lanes)
      store_first(y + i, (load_lanes(x + i, 0, columns - i) - splat(max)) - log_sum, columns - i);
  }
}

// y (dy - sum(dy y)), or of the logarithm dy - exp(y) sum(dy).
template <class T>
void softmax_backward(int64_t rows, int64_t columns, bool log, const T* dy, const T* y, T* dx) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t r = 0; r < rows; ++r, dy += columns, y += columns, dx += columns) {
    V<T> sum{};
    for (int64_t i = 0; i < columns; i += lanes) {
      const V<T> g = load_lanes(dy + i, 0, columns - i);
      sum += log ? g : g * load_lanes(y + i, 0, columns - i);
    }
    const V<T> total = splat(horizontal_sum<T>(sum));
    for (int64_t i = 0; i < columns; i += lanes) {
      const V<T> g = load_lanes(dy + i, 0, columns - i), v = load_lanes(y + i, 0, columns - i);
      store_first(dx + i, log ? g - vexp<T>(v) * total : v * (g - total), columns - i);
    }
  }
}

template <class T>
void cross_entropy(const EntropyOptions<T>& o, int64_t rows, int64_t columns, const T* x, const int64_t* labels, T* p,
                   T* loss) {
  for (int64_t r = 0; r < rows; ++r, x += columns, p += columns) {
    T max;
    const T sum = exponentials(columns, x, p, &max), log_sum = log_of(sum);
    divide_row(columns, sum, p);
    const int64_t label = labels[r];
    loss[r] = 0;
    if (label == o.ignore) continue;
    loss[r] = o.own * (o.weight ? o.weight[label] : T(1)) * (log_sum - (x[label] - max));
    if (o.even == 0) continue;
    T even = 0;
    for (int64_t k = 0; k < columns; ++k) even += (o.weight ? o.weight[k] : T(1)) * (log_sum - (x[k] - max));
    loss[r] += o.even * even;
  }
}

template <class T>
void cross_entropy_backward(const EntropyOptions<T>& o, int64_t rows, int64_t columns, const T* dloss, const T* p,
                            const int64_t* labels, T* dx) {
  for (int64_t r = 0; r < rows; ++r, p += columns, dx += columns) {
    const int64_t label = labels[r];
    if (label == o.ignore) {
      for (int64_t k = 0; k < columns; ++k) dx[k] = 0;
      continue;
    }
    const T own = o.own * (o.weight ? o.weight[label] : T(1)), factor = dloss[r], all = own + o.even * o.total;
    if (o.even == 0)
      for (int64_t k = 0; k < columns; ++k) dx[k] = factor * (all * p[k]);
    else
      for (int64_t k = 0; k < columns; ++k) dx[k] = factor * (all * p[k] - o.even * (o.weight ? o.weight[k] : T(1)));
    const T even = o.even == 0 ? T(0) : o.even * (o.weight ? o.weight[label] : T(1));
    dx[label] = factor * (all * p[label] - own - even);
  }
}

}  // namespace

const LossKernels kLossKernels = {
    {softmax<float>, softmax_backward<float>, cross_entropy<float>, cross_entropy_backward<float>},
    {softmax<double>, softmax_backward<double>, cross_entropy<double>, cross_entropy_backward<double>}};

}  // namespace fastconv::FC_ISA
