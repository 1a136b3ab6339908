// SPDX-License-Identifier: Apache-2.0
// Somebody who looks at a run on a device: where its time goes, and how much is multiplied. The host code says both where
// it launches a kernel, of the plan that the kernel is given; where nobody looks that is one test of a pointer.
#pragma once

#include "../csrc/algorithm.h"
#include "../csrc/phases.h"

namespace fastconv {

struct DeviceWatch {
  // What the stream gets from now on belongs to `phase`; null: nobody measures.
  void (*begin)(DeviceWatch* watch, Phase phase, void* stream);
  // As csrc/counts.h counts them, but of a device all that its kernels really make: rows, columns and depth that fill a
  // tile count, and each product of the tensor cores, of which float32 takes three.
  double multiplications;
  bool counts_only;  // nothing is launched, and no buffer is there
};

namespace cuda {

// Before a launch.
inline void starts(const RunContext& r, Phase phase, double multiplications = 0) {
  if (!r.watch) return;
  r.watch->multiplications += multiplications;
  if (r.watch->begin) r.watch->begin(r.watch, phase, r.stream);
}

// Whether a launch is to be left out.
inline bool is_counted_only(const RunContext& r) { return r.watch && r.watch->counts_only; }

// Algorithm::multiplications of an algorithm's `run`: what it would launch for dense tensors.
inline int64_t count_multiplications(const ConvProblem& p, const Machine& m,
                                     int (*run)(const ConvProblem* problem, const RunContext* context)) {
  char text[kTextCapacity];
  DeviceWatch watch{nullptr, 0, true};
  RunContext r{};
  r.machine = &m, r.error = text, r.watch = &watch;
  // Places of nothing, as aligned as a device's memory is.
  r.x = r.w = r.y = r.workspace = reinterpret_cast<void*>(uintptr_t{1} << 20);
  const auto pitches = [](Layout layout, int64_t channels, int64_t plane, int64_t* batch, int64_t* channel) {
    *batch = channels * plane, *channel = layout == Layout::kChannelsLast ? channels : plane;
  };
  pitches(p.x_layout, p.c, x_plane(p), &r.x_batch_pitch, &r.x_channel_pitch);
  pitches(p.y_layout, p.k, y_plane(p), &r.y_batch_pitch, &r.y_channel_pitch);
  run(&p, &r);
  constexpr double kMost = 4611686018427387904.0;  // 2^62
  return static_cast<int64_t>(watch.multiplications < kMost ? watch.multiplications : kMost);
}

}  // namespace cuda
}  // namespace fastconv
