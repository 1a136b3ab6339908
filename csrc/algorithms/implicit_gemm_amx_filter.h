// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "implicit_gemm_amx_blocking.h"

namespace fastconv {

int64_t amx_filter_workspace(const ConvProblem& problem, AmxParts parts, int slots);
void amx_filter_run(const ConvProblem& problem, AmxParts parts, const RunContext& context);

}  // namespace fastconv
