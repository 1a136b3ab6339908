// SPDX-License-Identifier: Apache-2.0
// A 1x1 convolution is a matrix product over pixels. Where pixels follow each other (stride 1) the spatial axes are
// one long axis, so that gathering columns is copying them. Strided ones keep their axes. It refuses everything else
// than one tap without padding.
#include <cstdio>

#include "column_gemm.h"
#include "implicit_gemm_filter.h"

namespace fastconv {
namespace {

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64) {
    snprintf(text, kTextCapacity, "pointwise_1x1 computes f32 and f64, got %s", name_of(p->dtype));
    return true;
  }
  for (int a = kMaxSpatial - p->spatial_rank; a < kMaxSpatial; ++a) {
    if (p->filter[a] != 1)
      snprintf(text, kTextCapacity, "pointwise_1x1 needs filter size 1, got %lld",
               static_cast<long long>(p->filter[a]));
    else if (p->pad_begin[a] || p->pad_end[a])
      snprintf(text, kTextCapacity, "pointwise_1x1 needs padding 0, got %lld and %lld",
               static_cast<long long>(p->pad_begin[a]), static_cast<long long>(p->pad_end[a]));
    if (text[0]) return true;
  }
  return false;
}

// The same product with all pixels on one axis; dilation has no meaning for one tap.
ConvProblem collapsed(const ConvProblem& problem) {
  ConvProblem p = problem;
  for (int a = 0; a < kMaxSpatial; ++a) p.dilation[a] = 1;
  p.padding_mode = PaddingMode::kZeros;
  if (p.stride[0] != 1 || p.stride[1] != 1 || p.stride[2] != 1) return p;
  p.spatial_rank = 1;
  p.size[2] = x_plane(p);
  p.size[0] = p.size[1] = 1;
  return p;
}

void estimate(const ConvProblem* problem, const Machine* m, Estimate* e) {
  const ConvProblem p = collapsed(*problem);
  p.pass == Pass::kBackwardFilter ? implicit_filter_estimate(p, *m, e) : column_gemm_estimate(p, *m, e);
}

int64_t workspace_bytes(const ConvProblem* problem, const Machine* m, int slots, bool packed) {
  const ConvProblem p = collapsed(*problem);
  if (p.pass == Pass::kBackwardFilter) return implicit_filter_workspace(p, *m, slots);
  return column_gemm_workspace(p, *m, slots, packed);
}

int64_t packed_bytes(const ConvProblem* p, const Machine*) {
  return p->pass == Pass::kBackwardFilter ? 0 : column_gemm_packed_bytes(*p);
}

int pack(const ConvProblem* p, const RunContext* r, void* packed) {
  column_gemm_pack(collapsed(*p), *r->machine, r->parallel, r->w, packed);
  return 0;
}

int run(const ConvProblem* problem, const RunContext* r) {
  const ConvProblem p = collapsed(*problem);
  if (p.pass == Pass::kBackwardFilter)
    implicit_filter_run(p, *r);
  else
    column_gemm_run(p, *r);
  return 0;
}

TakenHalves takes_halves(const ConvProblem* p) {
  return p->pass == Pass::kBackwardFilter ? implicit_filter_takes_halves(p) : column_gemm_takes_halves(p);
}

int64_t multiplications(const ConvProblem* p, const Machine*) { return column_gemm_multiplications(*p); }

}  // namespace

extern const Algorithm kPointwise1x1;
const Algorithm kPointwise1x1 = {"pointwise_1x1", 1.0,  1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                                 packed_bytes,    pack, run, takes_halves,   multiplications};

}  // namespace fastconv
