// SPDX-License-Identifier: Apache-2.0
// The phases of grouped's forward and backward-data: one, or of strides in backward-data one for each remainder of the
// places of x, whose outputs see every stride-th tap, side by side.
#pragma once

#include "grouped.cuh"

namespace fastconv::cuda {

// A phase's taps in the filter.
struct PhaseTaps {
  int32_t first[kMaxSpatial], step[kMaxSpatial];
  __device__ __forceinline__ int64_t place(const ConvProblem& p, int t0, int t1, int t2) const {
    return ((first[0] + int64_t{t0} * step[0]) * p.filter[1] + first[1] + t1 * step[1]) * p.filter[2] + first[2] +
           t2 * step[2];
  }
};

// The outputs at remainder `phase` of the stride of an axis; forward and stride 1 have one phase.
inline void set_phase(const ConvProblem& p, int i, int64_t phase, TileAxis* a, PhaseTaps* taps) {
  *a = axis_of(p, i, false);
  taps->first[i] = 0, taps->step[i] = 1;
  if (p.pass != Pass::kBackwardData) return;
  const int64_t s = p.stride[i], d = p.dilation[i], common = greatest_common(s, d), step = s / common;
  int64_t first = 0;
  while (first < step && (phase + p.pad_begin[i] - first * d) % s != 0) ++first;
  const int64_t count = first < step && first < p.filter[i] ? divide_up(p.filter[i] - first, step) : 0;
  a->dest = narrow_int(divide_up(std::max<int64_t>(0, p.size[i] - phase), s));
  a->dest_first = narrow_int(phase), a->dest_step = narrow_int(s), a->stride = 1;
  a->dilation = narrow_int(d / common), a->taps = narrow_int(count);
  a->pad = count ? narrow_int((count - 1) * a->dilation - (phase + p.pad_begin[i] - first * d) / s) : 0;
  taps->first[i] = narrow_int(first + (count - 1) * step), taps->step[i] = narrow_int(-step);
}

// Calls work(phase) for every phase until it says no.
template <class Work>
bool each_phase(const ConvProblem& p, const Work& work) {
  const bool backward = p.pass == Pass::kBackwardData;
  int64_t phase[kMaxSpatial];
  for (phase[0] = 0; phase[0] < (backward ? p.stride[0] : 1); ++phase[0])
    for (phase[1] = 0; phase[1] < (backward ? p.stride[1] : 1); ++phase[1])
      for (phase[2] = 0; phase[2] < (backward ? p.stride[2] : 1); ++phase[2])
        if (!work(phase)) return false;
  return true;
}

}  // namespace fastconv::cuda
