// SPDX-License-Identifier: Apache-2.0
// Dense and grouped convolution of any geometry as a matrix product on gathered columns (column_gemm.cc), all three
// passes, both layouts, every padding mode. Halves are widened as they are gathered.
#include <cstdio>

#include "col2im.h"
#include "column_gemm.h"

namespace fastconv {
namespace {

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64)
    snprintf(text, kTextCapacity, "im2col_gemm computes f32 and f64, got %s", name_of(p->dtype));
  return text[0] != 0;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  if (p->pass == Pass::kBackwardFilter)
    column_filter_estimate(*p, *m, e);
  else if (takes_col2im(*p))
    col2im_estimate(*p, *m, e);
  else
    column_gemm_estimate(*p, *m, e);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool packed) {
  if (p->pass == Pass::kBackwardFilter) return column_filter_workspace(*p, *m, slots);
  return takes_col2im(*p) ? col2im_workspace(*p, *m, slots, packed) : column_gemm_workspace(*p, *m, slots, packed);
}

int64_t packed_bytes(const ConvProblem* p, const Machine*) {
  if (p->pass == Pass::kBackwardFilter) return 0;
  return takes_col2im(*p) ? col2im_packed_bytes(*p) : column_gemm_packed_bytes(*p);
}

int pack(const ConvProblem* p, const RunContext* r, void* packed) {
  (takes_col2im(*p) ? col2im_pack : column_gemm_pack)(*p, *r->machine, r->parallel, r->w, packed);
  return 0;
}

int run(const ConvProblem* p, const RunContext* r) {
  if (p->pass == Pass::kBackwardFilter)
    column_filter_run(*p, *r);
  else if (takes_col2im(*p))
    col2im_run(*p, *r);
  else
    column_gemm_run(*p, *r);
  return 0;
}

int64_t multiplications(const ConvProblem* p, const Machine*) {
  return takes_col2im(*p) ? col2im_multiplications(*p) : column_gemm_multiplications(*p);
}

}  // namespace

extern const Algorithm kIm2colGemm;
const Algorithm kIm2colGemm = {
    "im2col_gemm", 1.0,  1,   SameBits::kOne,           why_not,        estimate, workspace_bytes,
    packed_bytes,  pack, run, column_gemm_takes_halves, multiplications};

}  // namespace fastconv
