// SPDX-License-Identifier: Apache-2.0
// float16 and bfloat16 arrays to float32 and back (kernels/convert.cc), in parallel.
#pragma once

#include "algorithm.h"
#include "kernels/kernel_table.h"
#include "problem.h"

namespace fastconv {

inline const HalfKernels& half_kernels(const Machine& machine, DType dtype) {
  return dtype == DType::kFloat16 ? machine.kernels->convert->f16 : machine.kernels->convert->bf16;
}

// An image tensor as batches of `rows` runs (channels, or pixels where channels are last) of `columns` elements each;
// pitches in elements.
struct Runs {
  int64_t batches, rows, columns;
  int64_t batch_pitch, row_pitch;
};

// `dtype` is that of `half`. The float32 side is dense.
void widen(const Machine& machine, const Parallel& parallel, DType dtype, const Runs& runs, const void* half,
           float* single);
void narrow(const Machine& machine, const Parallel& parallel, DType dtype, const Runs& runs, const float* single,
            void* half);

// `value` as the dtype holds it.
float rounded_to(const Machine& machine, DType dtype, float value);

}  // namespace fastconv
