// SPDX-License-Identifier: Apache-2.0
// grouped_tensor and grouped_tf32: 2 to 32 input channels per group on the tensor cores of sm_80 and later
// (grouped_tensor.cuh says how, and where single lanes, which is `grouped`, are better: the estimates tell).
#include <cstdio>

#include "grouped_tensor.cuh"

namespace fastconv::cuda {
namespace {

constexpr char kName[] = "grouped_tensor", kTf32Name[] = "grouped_tf32";

bool plan(const ConvProblem& p, TensorWork* work) {
  return p.pass == Pass::kBackwardFilter ? plan_tensor_filter(p, work) : plan_tensor_images(p, work);
}

bool why_not_any(const ConvProblem& p, const Machine& m, const char* name, char* text) {
  grouped_why_not(name, p, text);
  if (text[0]) return true;
  if (m.architecture < 80)
    snprintf(text, kTextCapacity, "%s needs the tensor cores of compute capability 8.0 or later", name);
  else if (!is_empty(p) && !plan(p, nullptr))
    snprintf(text, kTextCapacity, "%s needs a halo and filters that fit shared memory, got filters of %lld taps", name,
             static_cast<long long>(taps(p)));
  return text[0] != 0;
}
bool why_not(const ConvProblem* p, const Machine* m, char* text) {
  if (p->dtype != DType::kFloat64) return why_not_any(*p, *m, kName, text);
  snprintf(text, kTextCapacity, "%s has no float64: tensor cores round it", kName);
  return true;
}
bool why_not_tf32(const ConvProblem* p, const Machine* m, char* text) {
  if (p->dtype == DType::kFloat32) return why_not_any(*p, *m, kTf32Name, text);
  snprintf(text, kTextCapacity, "%s rounds float32, got %s", kTf32Name, name_of(p->dtype));
  return true;
}

void estimate_as(const ConvProblem& p, const Machine& m, bool one_product, Estimate* e) {
  const bool filter = p.pass == Pass::kBackwardFilter;
  const int64_t phases = p.pass == Pass::kBackwardData ? p.stride[0] * p.stride[1] * p.stride[2] : 1;
  add_launches(filter ? 2 : static_cast<int>(phases), e);
  TensorWork work;
  if (is_empty(p) || !plan(p, &work)) return;
  // Guesses. Of the bandwidth: planes pass through registers or by single elements. Of the peak: a step of 64 pixels and
  // 16 filters reads 2560 bytes (floats 5120) of shared memory, 20 (40) cycles, for 16384 products.
  const double bandwidth = (p.x_layout == Layout::kChannelsLast ? 0.8 : 0.5) * m.bytes_per_second;
  const double peak = is_half(p.dtype) ? 0.35 * m.flops_f16
                      : one_product    ? 0.35 * m.flops_tf32
                                       : 0.5 * m.flops_tf32 / 3;
  const double moving = work.bytes / bandwidth, multiplying = 2 * work.products / peak;
  // They overlap in part; what is longer counts.
  e->add("memory", moving);
  if (multiplying > moving) e->add("products", multiplying - moving);
}
void estimate(const ConvProblem* p, const Machine* m, Estimate* e) { estimate_as(*p, *m, false, e); }
void estimate_tf32(const ConvProblem* p, const Machine* m, Estimate* e) { estimate_as(*p, *m, true, e); }

int64_t workspace_bytes(const ConvProblem* p, const Machine*, int, bool) {
  return p->pass == Pass::kBackwardFilter ? tensor_filter_workspace(*p) : 0;
}
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

int run_as(const ConvProblem& p, const RunContext& r, bool one_product) {
  if (p.pass == Pass::kBackwardFilter) return run_tensor_filter(p, r, one_product);
  return is_empty(p) ? 0 : run_tensor_images(p, r, one_product);
}
int run(const ConvProblem* p, const RunContext* r) { return run_as(*p, *r, false); }
int run_tf32(const ConvProblem* p, const RunContext* r) { return run_as(*p, *r, true); }
int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }
int64_t multiplications_tf32(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run_tf32); }

}  // namespace

// float32: see StrictProduct. tf32 keeps 11 bits of 24.
extern const Algorithm kGroupedTensor, kGroupedTf32;
const Algorithm kGroupedTensor = {kName,        2.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                                  packed_bytes, nullptr, run, nullptr,        multiplications};
const Algorithm kGroupedTf32 = {
    kTf32Name,       8192.0,       1,       SameBits::kOne, why_not_tf32, estimate_tf32,
    workspace_bytes, packed_bytes, nullptr, run_tf32,       nullptr,      multiplications_tf32};

}  // namespace fastconv::cuda
