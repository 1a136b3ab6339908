// SPDX-License-Identifier: Apache-2.0
// Convolution as matrix products on gathered columns (csrc/im2col.h), the engine of `im2col_gemm` and `pointwise_1x1`.
#pragma once

#include "../algorithm.h"

namespace fastconv {

int64_t column_gemm_workspace(const ConvProblem& problem, const Machine& machine, int slots, bool packed);
int64_t column_gemm_packed_bytes(const ConvProblem& problem);
void column_gemm_pack(const ConvProblem& problem, const Machine& machine, const Parallel& parallel, const void* w,
                      void* packed);
void column_gemm_run(const ConvProblem& problem, const RunContext& context);
// Only w where gradients of padding are added to the tensors themselves.
TakenHalves column_gemm_takes_halves(const ConvProblem* problem);
int64_t column_gemm_multiplications(const ConvProblem& p);  // of all passes
// Seconds on one core.
void column_gemm_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);

// The filter gradient (column_gemm_filter.cc).
int64_t column_filter_workspace(const ConvProblem& problem, const Machine& machine, int slots);
void column_filter_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);
void column_filter_run(const ConvProblem& problem, const RunContext& context);

}  // namespace fastconv
