// SPDX-License-Identifier: Apache-2.0
// implicit_gemm's forward pass and backward-data in float16 and bfloat16.
#include "implicit_images.cuh"

namespace fastconv::cuda {

int implicit_images_half(const ConvProblem& p, const RunContext& r, const void* weights, void* scratch) {
  return p.dtype == DType::kFloat16 ? run_images<HalfProduct>(p, r, weights, scratch)
                                    : run_images<BFloat16Product>(p, r, weights, scratch);
}

}  // namespace fastconv::cuda
