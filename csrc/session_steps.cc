// SPDX-License-Identifier: Apache-2.0
#include "session_steps.h"

#include <cstdio>
#include <cstring>

#include "kernels/pointwise_kernels.h"
#include "loss_ops.h"
#include "machine.h"
#include "pointwise_ops.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

// Calls work(T()) with the type of the dtype.
template <class Work>
Failure of_type(DType dtype, const StepCall& call, const Work& work) {
  if (dtype == DType::kFloat64 ? work(double()) : work(float())) return Failure::kNone;
  snprintf(call.text, kTextCapacity, "no memory for the step's workspace");
  return Failure::kWorkspace;
}

// Calls work(row, first, count) for pieces of `rows` rows of `length` elements, each of which touches `bytes`. Pieces
// depend on these numbers alone.
template <class Work>
void for_rows(const StepCall& call, int64_t rows, int64_t length, int64_t bytes, const Work& work) {
  if (rows <= 0 || length <= 0) return;
  const Parallel parallel = worth_sharing(*call.options->machine, rows * length * bytes, call.options->threads);
  const int64_t elements = std::max<int64_t>(1, kItemBytes / bytes);
  if (length >= elements) {
    const int64_t pieces = ceil_div(length, elements);
    parallel_for(parallel, rows * pieces, [&](int64_t item, int) {
      const int64_t first = item % pieces * elements;
      work(item / pieces, first, std::min(elements, length - first));
    });
    return;
  }
  const int64_t together = elements / length;
  parallel_for(parallel, ceil_div(rows, together), [&](int64_t item, int) {
    const int64_t last = std::min(rows, (item + 1) * together);
    for (int64_t row = item * together; row < last; ++row) work(row, 0, length);
  });
}

// Operands that are all dense are one row.
struct Extent {
  int64_t rows, length;
};
template <class... More>
Extent merged(const Rows& first, const More&... more) {
  if (first.is_dense() && (... && more.is_dense())) return {1, first.count()};
  return {first.rows, first.length};
}

template <class T>
void activate(const StepCall& call, Activation kind, double alpha, int64_t count, const T* x, T* y) {
  if (kind == Activation::kNone) {
    if (x != y) memcpy(y, x, static_cast<size_t>(count) * sizeof(T));
    return;
  }
  kernels_of<T>(*call.options->machine->kernels->pointwise)
      .activate(static_cast<int32_t>(kind), static_cast<T>(alpha), count, x, y);
}

}  // namespace

Failure ActivationStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    const T* const from = call.at<T>(x);
    T* const to = call.at<T>(y);
    const Extent extent = merged(x, y);
    for_rows(call, extent.rows, extent.length, 2 * sizeof(T), [&](int64_t row, int64_t first, int64_t count) {
      activate(call, kind, alpha, count, from + row * x.pitch + first, to + row * y.pitch + first);
    });
    return true;
  });
}

Failure ScaleShiftStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    const T *const factors = call.at<T>(scale, 0), *const terms = call.at<T>(shift, 0), *const from = call.at<T>(x);
    T* const to = call.at<T>(y);
    // A run of one channel is a row of its own where it is long enough to pay for that.
    const int64_t runs = inner > 1 ? channels : 1, length = inner > 1 ? inner : channels;
    for_rows(call, x.rows * runs, length, 2 * sizeof(T), [&](int64_t run, int64_t first, int64_t count) {
      const int64_t row = run / runs, c = run % runs;
      const T* const source = from + row * x.pitch + c * length + first;
      T* const target = to + row * y.pitch + c * length + first;
      if (inner > 1) {
        const T factor = factors[c], term = terms[c];
        for (int64_t i = 0; i < count; ++i) target[i] = source[i] * factor + term;
      } else {
        for (int64_t i = 0; i < count; ++i) target[i] = source[i] * factors[first + i] + terms[first + i];
      }
      if (kind != Activation::kNone) activate(call, kind, alpha, count, target, target);
    });
    return true;
  });
}

Failure BinaryStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    const T *const left = call.at<T>(a), *const right = call.at<T>(b);
    T* const to = call.at<T>(y);
    const Extent extent = merged(a, b, y);
    for_rows(call, extent.rows, extent.length, 3 * sizeof(T), [&](int64_t row, int64_t first, int64_t count) {
      const T *const one = left + row * a.pitch + first, *const other = right + row * b.pitch + first;
      T* const target = to + row * y.pitch + first;
      switch (op) {
        case BinaryKind::kAdd:
          for (int64_t i = 0; i < count; ++i) target[i] = one[i] + other[i];
          break;
        case BinaryKind::kSubtract:
          for (int64_t i = 0; i < count; ++i) target[i] = one[i] - other[i];
          break;
        case BinaryKind::kMultiply:
          for (int64_t i = 0; i < count; ++i) target[i] = one[i] * other[i];
          break;
      }
      if (kind != Activation::kNone) activate(call, kind, alpha, count, target, target);
    });
    return true;
  });
}

Failure GateStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    const T *const from = call.at<T>(x), *const gates = call.at<T>(gate);
    T* const to = call.at<T>(y);
    const int64_t runs = inner > 1 ? channels : 1, length = inner > 1 ? inner : channels;
    for_rows(call, x.rows * runs, length, 2 * sizeof(T), [&](int64_t run, int64_t first, int64_t count) {
      const int64_t row = run / runs, c = run % runs;
      const T* const source = from + row * x.pitch + c * length + first;
      const T* const factors = gates + row / repeat * gate.pitch;
      T* const target = to + row * y.pitch + c * length + first;
      if (inner > 1) {
        const T factor = factors[c];
        for (int64_t i = 0; i < count; ++i) target[i] = source[i] * factor;
      } else {
        for (int64_t i = 0; i < count; ++i) target[i] = source[i] * factors[first + i];
      }
    });
    return true;
  });
}

Failure PReluStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    prelu(*call.options->machine, n, channels, inner, call.at<const T>(x), call.at<const T>(slopes, 0), call.at<T>(y));
    return true;
  });
}

Failure CopyStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    if (fills) {
      T* const to = call.at<T>(frame);
      const T filler = static_cast<T>(value);
      for_rows(call, frame.rows, frame.length, sizeof(T), [&](int64_t row, int64_t first, int64_t count) {
        T* const target = to + row * frame.pitch + first;
        for (int64_t i = 0; i < count; ++i) target[i] = filler;
      });
    }
    const T* const from = call.at<T>(from_buffer, from_offset);
    T* const to = call.at<T>(to_buffer, to_offset);
    // The last axis is the row; the others number the rows.
    int64_t rows = 1;
    for (int a = 0; a + 1 < axes; ++a) rows *= shape[static_cast<size_t>(a)];
    const size_t last = static_cast<size_t>(axes - 1);
    const int64_t from_step = from_strides[last], to_step = to_strides[last];
    for_rows(call, rows, shape[last], 2 * sizeof(T), [&](int64_t row, int64_t first, int64_t count) {
      const T* source = from + first * from_step;
      T* target = to + first * to_step;
      for (size_t a = last; a-- > 0; row /= shape[a]) {
        source += row % shape[a] * from_strides[a];
        target += row % shape[a] * to_strides[a];
      }
      if (from_step == 1 && to_step == 1)
        memcpy(target, source, static_cast<size_t>(count) * sizeof(T));
      else
        for (int64_t i = 0; i < count; ++i) target[i * to_step] = source[i * from_step];
    });
    return true;
  });
}

Failure SoftmaxStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    softmax(*call.options->machine, x.rows, x.length, log, call.at<const T>(x), call.at<T>(y));
    return true;
  });
}

Failure ResponseNormStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    return response_norm_forward(*call.options->machine, norm, call.at<const T>(x), call.at<T>(y));
  });
}

Failure GroupNormStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    const int64_t count = shape.n * shape.groups;
    const Workspace statistics(2 * count * static_cast<int64_t>(sizeof(double)));
    if (statistics.failed()) return false;
    double* const mean = static_cast<double*>(statistics.data());
    return group_norm_forward(*call.options->machine, shape, call.at<const T>(x), call.at<const T>(gamma, 0),
                              call.at<const T>(beta, 0), eps, call.at<T>(y), mean, mean + count);
  });
}

Failure ResampleStep::run(const StepCall& call) const {
  return of_type(dtype, call, [&](auto zero) {
    typedef decltype(zero) T;
    const Taps taps = {inputs, outputs, call.at<int64_t>(first, 0), call.at<int64_t>(start, 0),
                       call.at<double>(weights, 0)};
    return resample(*call.options->machine, taps, outer, inner, call.at<const T>(x), call.at<T>(y));
  });
}

}  // namespace fastconv
