// SPDX-License-Identifier: Apache-2.0
// Winograd convolution of strided problems. The cells that stand at one phase of the stride become a channel of their
// own (space to depth), and so do the taps:
//
//   x'[c, i, j][y][x] = x[c][y s0 + i - pad][x s1 + j - pad],   w'[k][c, i, j][t][u] = w[k][c][t s0 + i][u s1 + j]
//
// is the same convolution with stride 1, s0 s1 times the channels and ceil(r / s) taps on an axis: 11 x 11 of stride 4
// is 3 x 3, 7 x 7 of stride 2 is 4 x 4. Taps beyond the filter are zeros, padding lies in x'. Backward-data puts dx'
// together to dx, backward-filter dw' to dw. Nothing but moves is added to winograd.cc, so that its promises hold here.
#pragma once

#include "winograd.h"

namespace fastconv {

// Whether this is the way to a form of stride 1.
bool winograd_has_phases(const WinogradForm& form, const ConvProblem& p);
// Taps of an axis at the first phase.
inline int64_t phase_taps(const ConvProblem& p, int axis) { return ceil_div(p.filter[axis], p.stride[axis]); }
// Whether x' holds every cell of x, so that dx' gives all of dx.
bool phases_cover(const ConvProblem& p);

// The entries of Algorithm for such problems.
void winograd_phases_estimate(const WinogradForm& form, const ConvProblem& p, const Machine& m, Estimate* e);
int64_t winograd_phases_workspace(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots,
                                  bool packed);
int64_t winograd_phases_multiplications(const WinogradForm& form, const ConvProblem& p, const Machine& m);
int64_t winograd_phases_packed_bytes(const WinogradForm& form, const ConvProblem& p, const Machine& m);
int winograd_phases_pack(const WinogradForm& form, const ConvProblem& p, const Machine& m, const Parallel& parallel,
                         const void* w, void* packed);
int winograd_phases_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r);

}  // namespace fastconv
