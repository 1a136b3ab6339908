// SPDX-License-Identifier: Apache-2.0
// One input channel per group, any multiplier, zeros padding: bound by memory, so each tensor moves once (depthwise.cuh
// says which kernel takes what).
#include <cstdio>

#include "depthwise.cuh"

namespace fastconv::cuda {
namespace {

enum class Kernel { kPlanes, kPixels, kLong, kAny, kFilter };

Kernel kernel_of(const ConvProblem& p, const Machine& m) {
  if (p.pass == Pass::kBackwardFilter) return Kernel::kFilter;
  if (is_depthwise_long(p, m)) return Kernel::kLong;
  if (!is_depthwise_square(p)) return Kernel::kAny;
  return p.x_layout == Layout::kChannelsLast ? Kernel::kPixels : Kernel::kPlanes;
}

bool plan(const ConvProblem& p, const Machine& m, Tile* g, double* bytes) {
  switch (kernel_of(p, m)) {
    case Kernel::kLong:
      return plan_depthwise_long(p, g, bytes);
    case Kernel::kPlanes:
      return plan_depthwise_planes(p, g, bytes);
    case Kernel::kPixels:
      return plan_depthwise_pixels(p, g, bytes);
    case Kernel::kAny:
      return plan_depthwise_any(p, g, bytes);
    default:
      return plan_depthwise_filter(p, bytes);
  }
}

// Nothing to compute with: no outputs of the pass. (Tiles of nothing have no length.)
bool is_empty(const ConvProblem& p) {
  return p.pass != Pass::kBackwardFilter && (p.n == 0 || (p.pass == Pass::kForward ? y_plane(p) : x_plane(p)) == 0);
}

bool why_not(const ConvProblem* p, const Machine* m, char* text) {
  text[0] = 0;
  Tile g;
  if (p->groups != p->c)
    snprintf(text, kTextCapacity, "depthwise needs one input channel per group, got %lld",
             static_cast<long long>(p->c / p->groups));
  else
    tile_why_not("depthwise", *p, text);
  if (!text[0] && !is_empty(*p) && !plan(*p, *m, &g, nullptr))
    snprintf(text, kTextCapacity, "depthwise needs a halo and filters that fit shared memory, got filters of %lld taps",
             static_cast<long long>(taps(*p)));
  return text[0] != 0;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  const bool filter = p->pass == Pass::kBackwardFilter;
  add_launches(filter ? 2 : 1, e);
  if (is_empty(*p)) return;
  Tile g;
  double bytes = 0;
  if (!plan(*p, *m, &g, &bytes)) return;
  // Guesses: of the bandwidth 85 %; of the products' peak half from wide windows, a third from registers, an eighth one output at a time.
  add_traffic("memory", bytes / 0.85, *m, e);
  const bool simple = kernel_of(*p, *m) != Kernel::kAny || (p->stride[2] == 1 && p->dilation[2] == 1);
  const double share = kernel_of(*p, *m) == Kernel::kLong ? 0.5 : simple ? 0.33 : 0.125;
  const double products = times(multiply_adds(*p)) * 2 / rate(*p, *m, share);
  // They overlap; what is longer counts.
  if (products > bytes / 0.85 / m->bytes_per_second) e->add("products", products - bytes / 0.85 / m->bytes_per_second);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine*, int, bool) {
  return p->pass == Pass::kBackwardFilter ? depthwise_filter_workspace(*p) : 0;
}
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

int run(const ConvProblem* p, const RunContext* r) {
  if (is_empty(*p)) return 0;
  switch (kernel_of(*p, *r->machine)) {
    case Kernel::kLong:
      return run_depthwise_long(*p, *r);
    case Kernel::kPlanes:
      return run_depthwise_planes(*p, *r);
    case Kernel::kPixels:
      return run_depthwise_pixels(*p, *r);
    case Kernel::kAny:
      return run_depthwise_any(*p, *r);
    default:
      return run_depthwise_filter(*p, *r);
  }
}

int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }

}  // namespace

extern const Algorithm kDepthwise;
const Algorithm kDepthwise = {"depthwise",  1.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                              packed_bytes, nullptr, run, nullptr,        multiplications};

}  // namespace fastconv::cuda
