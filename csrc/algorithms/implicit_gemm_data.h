// SPDX-License-Identifier: Apache-2.0
// Backward-data of strides and of few channels, a part of `implicit_gemm`.
#pragma once

#include "../algorithm.h"

namespace fastconv {

// Whether it is this one's: a stride, or so few channels that pixels make the better lanes. Ignores n.
bool implicit_data_takes(const ConvProblem& problem, const Machine& machine);
int64_t implicit_data_workspace(const ConvProblem& problem, const Machine& machine, int slots, bool packed);
int64_t implicit_data_packed_bytes(const ConvProblem& problem, const Machine& machine);
void implicit_data_pack(const ConvProblem& problem, const Machine& machine, const Parallel& parallel, const void* w,
                        void* packed);
void implicit_data_run(const ConvProblem& problem, const RunContext& context);
// implicit_gemm_data_estimate.cc
int64_t implicit_data_multiplications(const ConvProblem& problem, const Machine& machine);
void implicit_data_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);

}  // namespace fastconv
