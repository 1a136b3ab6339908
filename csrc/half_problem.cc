// SPDX-License-Identifier: Apache-2.0
// The workspace of a half: x | w | y | residual | bias, dense float32 and each present only where the pass needs it,
// then the algorithm's own.
#include "half_problem.h"

#include <initializer_list>

#include "convert.h"
#include "prices.h"
#include "rounding.h"
#include "workspace.h"

namespace fastconv {
namespace {

// The runs of x or y: planes, or pixels with their channels.
Runs image_runs(Layout layout, int64_t n, int64_t channels, int64_t plane, int64_t batch_pitch, int64_t channel_pitch) {
  const bool planes = layout == Layout::kChannelsFirst;
  return {n, planes ? channels : plane, planes ? plane : channels, batch_pitch, channel_pitch};
}
Runs dense_runs(int64_t count) { return {1, 1, count, count, count}; }

int64_t filter_elements(const ConvProblem& p) { return p.k * (p.c / p.groups) * taps(p); }

// The widened copies and where they lie in the workspace.
struct Copies {
  int64_t x, w, y, residual, bias;  // elements; 0: none
  int64_t bytes;

  Copies(const ConvProblem& p, bool packed) {
    x = p.n * p.c * x_plane(p);
    w = packed ? 0 : filter_elements(p);
    y = p.n * p.k * y_plane(p);
    residual = p.epilogue & kEpilogueResidual ? p.pass == Pass::kBackwardData ? x : y : 0;
    bias = p.epilogue & kEpilogueBias ? p.pass == Pass::kBackwardData ? p.c : p.k : 0;
    bytes = 0;
    for (int64_t elements : {x, w, y, residual, bias}) bytes += aligned(elements * 4);
  }
};

// Hands out the copies one after the other; what is left is the algorithm's.
class Carver {
 public:
  explicit Carver(void* workspace) : next_(static_cast<char*>(workspace)) {}
  float* take(int64_t elements) {
    char* here = next_;
    next_ += aligned(elements * 4);
    return reinterpret_cast<float*>(here);
  }
  void* rest() const { return next_; }

 private:
  char* next_;
};

}  // namespace

ConvProblem computed_problem(const ConvProblem& problem) {
  ConvProblem p = problem;
  if (is_half(p.dtype)) p.dtype = DType::kFloat32;
  return p;
}

Estimate estimate(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine) {
  const ConvProblem p = computed_problem(problem);
  Estimate e;
  algorithm.estimate(&p, &machine, &e);
  const double beyond = static_cast<double>(tensor_bytes(p) - machine.l2_bytes);
  if (beyond > 0) e.add("memory", beyond / machine.bytes_per_second);
  for (int i = 0; i < e.terms; ++i) e.seconds[i] *= price_of(machine, algorithm.name, e.work[i]);
  if (is_half(problem.dtype)) {
    const double bytes = static_cast<double>(Copies(problem, false).bytes);  // written, and half as much read
    e.add("widened copies", 1.5 * bytes / machine.bytes_per_second);
  }
  return e;
}

int64_t workspace_bytes(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, int slots,
                        bool packed) {
  const ConvProblem p = computed_problem(problem);
  const int64_t bytes = algorithm.workspace_bytes(&p, &machine, slots, packed);
  return is_half(problem.dtype) ? bytes + Copies(problem, packed).bytes : bytes;
}

int64_t packed_bytes(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine) {
  const ConvProblem p = computed_problem(problem);
  const int64_t bytes = algorithm.packed_bytes(&p, &machine);
  const bool keeps = is_half(problem.dtype) && problem.pass != Pass::kBackwardFilter;
  return bytes == 0 && keeps ? filter_elements(problem) * 4 : bytes;
}

bool pack(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine, const Parallel& parallel,
          const void* w, void* packed) {
  if (!is_half(problem.dtype)) {
    algorithm.pack(&problem, &machine, &parallel, w, packed);
    return true;
  }
  const ConvProblem p = computed_problem(problem);
  const bool as_they_are = algorithm.packed_bytes(&p, &machine) == 0;
  const int64_t elements = filter_elements(p);
  const Workspace widened(as_they_are ? 0 : elements * 4);
  if (widened.failed()) return false;
  float* single = static_cast<float*>(as_they_are ? packed : widened.data());
  widen(machine, parallel, problem.dtype, dense_runs(elements), w, single);
  if (!as_they_are) algorithm.pack(&p, &machine, &parallel, single, packed);
  return true;
}

int run(const Algorithm& algorithm, const ConvProblem& problem, const RunContext& context) {
  if (!is_half(problem.dtype)) return algorithm.run(&problem, &context);
  const ConvProblem p = computed_problem(problem);
  const Machine& machine = *context.machine;
  const Copies copies(p, context.packed_w != nullptr);
  const int64_t xs = x_plane(p), ys = y_plane(p);
  const Runs x_runs = image_runs(p.x_layout, p.n, p.c, xs, context.x_batch_pitch, context.x_channel_pitch);
  const Runs y_runs = image_runs(p.y_layout, p.n, p.k, ys, context.y_batch_pitch, context.y_channel_pitch);
  const Runs w_runs = dense_runs(copies.w);
  const auto read = [&](const Runs& runs, const void* half, float* single) {
    widen(machine, context.parallel, problem.dtype, runs, half, single);
  };
  const auto write = [&](const Runs& runs, const float* single, void* half) {
    narrow(machine, context.parallel, problem.dtype, runs, single, half);
  };

  RunContext inner = context;
  Carver carver(context.workspace);
  float *x = carver.take(copies.x), *w = carver.take(copies.w), *y = carver.take(copies.y);
  float *residual = carver.take(copies.residual), *bias = carver.take(copies.bias);
  inner.x = x, inner.w = w, inner.y = y;
  inner.x_batch_pitch = p.c * xs, inner.x_channel_pitch = p.x_layout == Layout::kChannelsFirst ? xs : p.c;
  inner.y_batch_pitch = p.k * ys, inner.y_channel_pitch = p.y_layout == Layout::kChannelsFirst ? ys : p.k;
  inner.workspace = carver.rest();
  inner.pad_value = rounded_to(machine, problem.dtype, static_cast<float>(context.pad_value));
  if (context.packed_w && algorithm.packed_bytes(&p, &machine) == 0) {
    inner.w = const_cast<void*>(context.packed_w);
    inner.packed_w = nullptr;
  }

  const bool reads_x = p.pass != Pass::kBackwardData, reads_y = p.pass != Pass::kForward;
  if (reads_x) read(x_runs, context.x, x);
  if (reads_y) read(y_runs, context.y, y);
  if (p.pass != Pass::kBackwardFilter) read(w_runs, context.w, w);
  if (copies.residual) read(reads_x ? y_runs : x_runs, context.residual, residual), inner.residual = residual;
  if (copies.bias) read(dense_runs(copies.bias), context.bias, bias), inner.bias = bias;
  if (const int status = algorithm.run(&p, &inner)) return status;
  if (p.pass == Pass::kForward) write(y_runs, y, context.y);
  if (p.pass == Pass::kBackwardData) write(x_runs, x, context.x);
  if (p.pass == Pass::kBackwardFilter) write(w_runs, w, context.w);
  return 0;
}

}  // namespace fastconv
