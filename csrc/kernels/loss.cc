// SPDX-License-Identifier: Apache-2.0
// Softmax and cross-entropy over rows.
#include "kernel_table.h"
#include "norm_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const LossKernels kLossKernels;
namespace {

#include "vector_math.h"

// Lanes from `count` on become `other`.
template <class T>
FC_INLINE V<T> load_or(const T* p, int64_t count, T other) {
  if (count >= Vec<T>::lanes) return load(p);
  T lanes[Vec<T>::lanes];
  store(lanes, load_lanes(p, 0, count));
  for (int64_t i = count; i < Vec<T>::lanes; ++i) lanes[i] = other;
  return load(lanes);
}

template <class T>
T largest(int64_t columns, const T* x) {
  const T lowest = -(T)__builtin_inf();
  V<T> m = splat(lowest);
  for (int64_t i = 0; i < columns; i += Vec<T>::lanes) m = vmax<T>(load_or(x + i, columns - i, lowest), m);
  T lanes[Vec<T>::lanes];
  store(lanes, m);
  T max = lanes[0];
  for (int i = 1; i < Vec<T>::lanes; ++i) max = lanes[i] > max ? lanes[i] : max;
  return max;
}

// A NaN anywhere makes the whole row NaN, by way of the sum; so does an infinity, as inf - inf.
template <class T>
void softmax(int64_t rows, int64_t columns, const T* x, const int64_t* labels, T* y, T* loss) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t r = 0; r < rows; ++r, x += columns, y += columns) {
    const T max = largest(columns, x);
    V<T> sum{};
    for (int64_t i = 0; i < columns; i += lanes) {  // exp(-inf) = 0 beyond the row's end
      const V<T> e = vexp<T>(load_or(x + i, columns - i, -(T)__builtin_inf()) - splat(max));
      sum += e;
      store_first(y + i, e, columns - i);
    }
    const T total = horizontal_sum<T>(sum);
    for (int64_t i = 0; i < columns; i += lanes)
      store_first(y + i, load_lanes(y + i, 0, columns - i) / splat(total), columns - i);
    if (labels) loss[r] = (T)__builtin_log((double)total) - (x[labels[r]] - max);
  }
}

template <class T>
void cross_entropy_backward(int64_t rows, int64_t columns, const T* dloss, const T* p, const int64_t* labels, T* dx) {
  for (int64_t r = 0; r < rows; ++r, p += columns, dx += columns) {
    const T factor = dloss[r];
    for (int64_t i = 0; i < columns; ++i) dx[i] = factor * p[i];
    dx[labels[r]] = factor * (p[labels[r]] - 1);
  }
}

}  // namespace

const LossKernels kLossKernels = {{softmax<float>, cross_entropy_backward<float>},
                                  {softmax<double>, cross_entropy_backward<double>}};

}  // namespace fastconv::FC_ISA
