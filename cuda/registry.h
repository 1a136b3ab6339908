// SPDX-License-Identifier: Apache-2.0
// What runtime.cu puts into the backend's table.
#pragma once

#include "backend.h"

namespace fastconv::cuda {

extern const Algorithm* const kAlgorithms[];
extern const int32_t kAlgorithmCount;
extern const char* const* const kVerified;  // verified.h
extern const int32_t kVerifiedCount;

int pool(const PoolProblem* problem, const PoolContext* context);  // pool.cu
int scatter_positions(const PositionContext* context);             // pool_positions.cu
int pointwise(const PointwiseContext* context);                    // pointwise.cu
int64_t norm_workspace(const NormContext* context);                // norm.cu
int norm(const NormContext* context);

// The committed speeds of an architecture (machines.cc). `shared_bytes`: what a block may have.
Machine machine_of(int32_t architecture, int32_t multiprocessors, int64_t shared_bytes, int64_t l2_bytes);

}  // namespace fastconv::cuda
