// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "../algorithm.h"

namespace fastconv {

int64_t amx_filter_workspace(const ConvProblem& problem, int slots);
void amx_filter_run(const ConvProblem& problem, const RunContext& context);

}  // namespace fastconv
