// SPDX-License-Identifier: Apache-2.0
// F(4 x 4, 3 x 3): see winograd.cc.
#include "winograd.h"

namespace fastconv {
namespace {

constexpr WinogradForm kForm = {"winograd_f4x4_3x3", 4, 3};

bool why_not(const ConvProblem* p, const Machine*, char* text) { return winograd_why_not(kForm, *p, text); }
double estimate(const ConvProblem* p, const Machine* m) { return winograd_estimate(kForm, *p, *m); }
int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool packed) {
  return winograd_workspace_bytes(kForm, *p, *m, slots, packed);
}
int64_t packed_bytes(const ConvProblem* p, const Machine* m) { return winograd_packed_bytes(kForm, *p, *m); }
int pack(const ConvProblem* p, const Machine* m, const Parallel* parallel, const void* w, void* packed) {
  return winograd_pack(kForm, *p, *m, *parallel, w, packed);
}
int run(const ConvProblem* p, const RunContext* r) { return winograd_run(kForm, *p, *r); }

}  // namespace

extern const Algorithm kWinogradF4x43x3;
const Algorithm kWinogradF4x43x3 = {kForm.name, 7.0, 0, 0, why_not, estimate, workspace_bytes, packed_bytes, pack, run};

}  // namespace fastconv
