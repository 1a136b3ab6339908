// SPDX-License-Identifier: Apache-2.0
// implicit_gemm's filter gradient.
#include "implicit_filter.cuh"

namespace fastconv::cuda {

int implicit_filter_half(const ConvProblem& p, const RunContext& r, void* scratch) {
  return p.dtype == DType::kFloat16 ? run_filter<HalfProduct>(p, r, scratch)
                                    : run_filter<BFloat16Product>(p, r, scratch);
}

int implicit_filter_float(const ConvProblem& p, const RunContext& r, void* scratch, bool one_product) {
  return one_product ? run_filter<Tf32Product>(p, r, scratch) : run_filter<StrictProduct>(p, r, scratch);
}

}  // namespace fastconv::cuda
