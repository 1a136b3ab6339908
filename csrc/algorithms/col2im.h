// SPDX-License-Identifier: Apache-2.0
// Backward-data of `im2col_gemm` where the channels written are few or strided: the product first, then what Caffe
// calls col2im (Y. Jia et al., "Caffe", 2014), a block of rows at a time.
#pragma once

#include "../algorithm.h"

namespace fastconv {

// From the problem alone, so that every instruction set cuts its sums alike.
bool takes_col2im(const ConvProblem& problem);

int64_t col2im_workspace(const ConvProblem& problem, const Machine& machine, int slots, bool packed);
int64_t col2im_packed_bytes(const ConvProblem& problem);
void col2im_pack(const ConvProblem& problem, const Machine& machine, const Parallel& parallel, const void* w,
                 void* packed);
void col2im_run(const ConvProblem& problem, const RunContext& context);
int64_t col2im_multiplications(const ConvProblem& problem);
void col2im_estimate(const ConvProblem& problem, const Machine& machine, Estimate* estimate);

}  // namespace fastconv
