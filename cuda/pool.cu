// SPDX-License-Identifier: Apache-2.0
// Pooling on the device: which file computes a problem. Every result of an average or an extreme has the bits of the
// CPU's kernels, but for averages of adaptive windows and of whole planes in channels first, whose partial sums there are
// those of a CPU's vectors; norms differ by the roundings of powers.
#include <cmath>
#include <cstdio>

#include "pool.cuh"
#include "registry.h"

namespace fastconv::cuda {

int pool(const PoolProblem* problem, const PoolContext* context) {
  const PoolProblem& p = *problem;
  const PoolBuffers& b = context->buffers;
  if (p.n == 0 || p.c == 0) return 0;
  RunContext run{};
  run.machine = context->machine, run.stream = context->stream, run.error = context->error;
  const bool forward = p.pass == Pass::kForward;
  switch (p.kind) {
    case PoolKind::kMax:
    case PoolKind::kMin:
      if (forward) return pool_extreme(p, b, run);
      if (b.offsets && !p.adaptive) return pool_extreme_backward(p, b, run);
      snprintf(context->error, kTextCapacity, "the gradient of %s pooling by offsets needs windows of one size",
               name_of(p.kind));
      return 1;
    case PoolKind::kAverage:
      return forward ? pool_average(p, b, run) : pool_average_backward(p, b, run);
    default:
      if (b.norm >= 1 && std::isfinite(b.norm)) return pool_norm(p, b, run);
      snprintf(context->error, kTextCapacity, "the norm of lp pooling is %g; expected a finite number of at least 1",
               b.norm);
      return 1;
  }
}

}  // namespace fastconv::cuda
