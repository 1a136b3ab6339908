// SPDX-License-Identifier: Apache-2.0
// The filter gradient without a column matrix, of `implicit_gemm` and `pointwise_1x1`.
#pragma once

#include "../algorithm.h"

namespace fastconv {

int64_t implicit_filter_workspace(const ConvProblem& problem, const Machine& machine, int slots);
void implicit_filter_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);
TakenHalves implicit_filter_takes_halves(const ConvProblem* problem);
void implicit_filter_run(const ConvProblem& problem, const RunContext& context);

}  // namespace fastconv
