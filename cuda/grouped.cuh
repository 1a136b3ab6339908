// SPDX-License-Identifier: Apache-2.0
// Few channels per group: what the files of grouped share. grouped_images.cu computes forward and backward-data,
// grouped_filter.cu backward-filter, each output by one thread; grouped_tensor*.cu are the tensor cores' algorithms.
#pragma once

#include "partial_sums.cuh"
#include "tile_plan.h"

namespace fastconv::cuda {

constexpr int64_t kMostGroupChannels = 32;
constexpr int64_t kMostPhases = 64;

// No outputs of the pass: tiles of nothing have no length.
inline bool is_empty(const ConvProblem& p) {
  return p.n == 0 || (p.pass == Pass::kBackwardData ? x_plane(p) : y_plane(p)) == 0;
}
// Writes what all algorithms of groups refuse, or nothing.
void grouped_why_not(const char* name, const ConvProblem& p, char* text);

// `bytes` and `products`, if given, get what moves and what is multiplied, idle lanes included.
bool plan_grouped_images(const ConvProblem& p, double* bytes = nullptr, double* products = nullptr);
int run_grouped_images(const ConvProblem& p, const RunContext& r);
bool plan_grouped_filter(const ConvProblem& p, double* bytes = nullptr, double* products = nullptr);
int64_t grouped_filter_workspace(const ConvProblem& p);
int run_grouped_filter(const ConvProblem& p, const RunContext& r);

}  // namespace fastconv::cuda
