// SPDX-License-Identifier: Apache-2.0
// Padding that shows cells of x (csrc/border.h): here, where channels are few, the padded gradient is built, of a
// problem without padding, and its border is added to the cells that it shows.
#pragma once

#include "../algorithm.h"

namespace fastconv {

// The same of the padded x; the problem itself where padding shows no cells.
ConvProblem col2im_padded(const ConvProblem& problem);
// Of the padded gradient, at the front of the workspace.
int64_t col2im_border_bytes(const ConvProblem& problem, int slots);
// The run that writes it.
RunContext col2im_into_padded(const ConvProblem& problem, const ConvProblem& padded, const RunContext& context);
// dx from it, with what ends the problem.
void col2im_fold(const ConvProblem& problem, const ConvProblem& padded, const RunContext& context);

}  // namespace fastconv
