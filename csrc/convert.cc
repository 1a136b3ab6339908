// SPDX-License-Identifier: Apache-2.0
#include "convert.h"

#include <algorithm>

#include "machine.h"
#include "parallel.h"
#include "rounding.h"

namespace fastconv {
namespace {

constexpr int64_t kChunk = 16 << 10;  // elements of one item of work: 96 KB are touched

// Calls work(offset in the pitched array, offset in the dense one, count) over all runs. Runs that touch are one.
template <class Work>
void for_runs(const Parallel& parallel, Runs r, const Work& work) {
  if (r.batches * r.rows * r.columns == 0) return;
  if (r.row_pitch == r.columns || r.rows == 1) r.columns *= r.rows, r.row_pitch = r.columns, r.rows = 1;
  if (r.rows == 1 && (r.batch_pitch == r.columns || r.batches == 1)) r.columns *= r.batches, r.batches = 1;
  // Short runs share an item, long ones are cut.
  const int64_t per_item = std::max<int64_t>(1, kChunk / r.columns), pieces = ceil_div(r.columns, kChunk);
  const int64_t runs = r.batches * r.rows, items = pieces > 1 ? runs * pieces : ceil_div(runs, per_item);
  parallel_for(parallel, items, [&](int64_t item, int) {
    const int64_t first = pieces > 1 ? item / pieces : item * per_item;
    const int64_t last = pieces > 1 ? first + 1 : std::min(runs, first + per_item);
    const int64_t start = pieces > 1 ? item % pieces * kChunk : 0;
    for (int64_t run = first; run < last; ++run)
      work(run / r.rows * r.batch_pitch + run % r.rows * r.row_pitch + start, run * r.columns + start,
           std::min(kChunk, r.columns - start));
  });
}

}  // namespace

void widen(const Machine& machine, const Parallel& parallel, DType dtype, const Runs& runs, const void* half,
           float* single) {
  const HalfKernels& kernels = half_kernels(machine, dtype);
  const uint16_t* from = static_cast<const uint16_t*>(half);
  for_runs(parallel, runs, [&](int64_t pitched, int64_t dense, int64_t n) {
    kernels.widen(1, n, from + pitched, 0, single + dense, 0);
  });
}

void narrow(const Machine& machine, const Parallel& parallel, DType dtype, const Runs& runs, const float* single,
            void* half) {
  const HalfKernels& kernels = half_kernels(machine, dtype);
  uint16_t* into = static_cast<uint16_t*>(half);
  for_runs(parallel, runs, [&](int64_t pitched, int64_t dense, int64_t n) {
    kernels.narrow(1, n, single + dense, 0, into + pitched, 0);
  });
}

float rounded_to(const Machine& machine, DType dtype, float value) {
  const HalfKernels& kernels = half_kernels(machine, dtype);
  uint16_t half;
  kernels.narrow(1, 1, &value, 0, &half, 0);
  kernels.widen(1, 1, &half, 0, &value, 0);
  return value;
}

}  // namespace fastconv
