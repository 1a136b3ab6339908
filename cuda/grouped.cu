// SPDX-License-Identifier: Apache-2.0
// 2 to 32 input channels per group, zeros padding: a group has too few channels for a matrix product of its own, and
// its halo is small enough to be used for all its filters and taps from shared memory.
#include <cstdio>

#include "grouped.cuh"

namespace fastconv::cuda {
namespace {

bool plan(const ConvProblem& p, double* bytes, double* products) {
  if (p.pass == Pass::kBackwardFilter) return plan_grouped_filter(p, bytes, products);
  return plan_grouped_images(p, bytes, products);
}

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  grouped_why_not("grouped", *p, text);
  if (!text[0] && !is_empty(*p) && !plan(*p, nullptr, nullptr))
    snprintf(text, kTextCapacity, "grouped needs a halo and filters that fit shared memory, got filters of %lld taps",
             static_cast<long long>(taps(*p)));
  return text[0] != 0;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  const bool filter = p->pass == Pass::kBackwardFilter;
  const int64_t phases = p->pass == Pass::kBackwardData ? p->stride[0] * p->stride[1] * p->stride[2] : 1;
  add_launches(filter ? 2 : static_cast<int>(phases), e);
  if (is_empty(*p)) return;
  double bytes = 0, products = 0;
  if (!plan(*p, &bytes, &products)) return;
  // Guesses: of the bandwidth 80 %, of the peak half, of backward-filter's a third. What is longer counts.
  const double moving = bytes / 0.8 / m->bytes_per_second;
  const double multiplying = products * 2 / rate(*p, *m, filter ? 0.33 : 0.5);
  e->add("memory", moving);
  if (multiplying > moving) e->add("products", multiplying - moving);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine*, int, bool) {
  return p->pass == Pass::kBackwardFilter ? grouped_filter_workspace(*p) : 0;
}
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

int run(const ConvProblem* p, const RunContext* r) {
  if (p->pass != Pass::kBackwardFilter && is_empty(*p)) return 0;
  return p->pass == Pass::kBackwardFilter ? run_grouped_filter(*p, *r) : run_grouped_images(*p, *r);
}

int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }

}  // namespace

void grouped_why_not(const char* name, const ConvProblem& p, char* text) {
  text[0] = 0;
  const int64_t channels = p.c / p.groups, phases = p.stride[0] * p.stride[1] * p.stride[2];
  if (p.groups < 2 || channels < 2 || channels > kMostGroupChannels)
    snprintf(text, kTextCapacity, "%s needs several groups of 2 to %lld channels, got %lld of %lld", name,
             static_cast<long long>(kMostGroupChannels), static_cast<long long>(p.groups),
             static_cast<long long>(channels));
  else if (p.pass == Pass::kBackwardData && phases > kMostPhases)
    snprintf(text, kTextCapacity, "%s needs strides whose product is at most %lld, got %lld", name,
             static_cast<long long>(kMostPhases), static_cast<long long>(phases));
  else
    tile_why_not(name, p, text);
}

extern const Algorithm kGrouped;
const Algorithm kGrouped = {"grouped",    1.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                            packed_bytes, nullptr, run, nullptr,        multiplications};

}  // namespace fastconv::cuda
