// SPDX-License-Identifier: Apache-2.0
// implicit_gemm's forward pass and backward-data in float32: by three products of tf32, or by one.
#include "implicit_images.cuh"

namespace fastconv::cuda {

int implicit_images_float(const ConvProblem& p, const RunContext& r, const void* weights, void* scratch,
                          bool one_product) {
  return one_product ? run_images<Tf32Product>(p, r, weights, scratch)
                     : run_images<StrictProduct>(p, r, weights, scratch);
}

}  // namespace fastconv::cuda
