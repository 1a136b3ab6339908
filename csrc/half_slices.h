// SPDX-License-Identifier: Apache-2.0
// How a convolution in float16 or bfloat16 is cut, so that the float32 copies of a slice stay in L2: what is read and
// written of main memory are halves. A slice has some images, all groups or, where weights are used as they are, some
// of them, and all rows or a band of them. It is a problem of its own, with the padding that its rows meet.
//
// Forward and backward-data keep the bits of the whole problem: no sum depends on how many images or groups there are,
// and a band begins where tiles and phases do. Backward-filter adds its slices, those of a part in ascending order and
// the parts in a pairwise tree; both come from the problem alone.
#pragma once

#include "algorithm.h"

namespace fastconv {

// An algorithm that reads and writes halves by itself is not cut for them.
inline TakenHalves taken_halves(const Algorithm& algorithm, const ConvProblem& problem) {
  return algorithm.takes_halves ? algorithm.takes_halves(&problem) : TakenHalves::kNone;
}

inline bool takes_images(TakenHalves taken) { return taken == TakenHalves::kImages || taken >= TakenHalves::kAll; }
inline bool takes_w(TakenHalves taken) { return taken >= TakenHalves::kWeights; }

struct HalfSlice {
  ConvProblem problem;
  int64_t image, group, x_row, y_row;  // the first ones
};

struct HalfSlices {
  ConvProblem p;                                  // as it is computed, in float32
  int axis = 0;                                   // of the rows: the outermost that is used
  int64_t images, groups, rows;                   // of a slice, at most
  int64_t image_blocks, group_blocks, bands = 1;  // slices
  int64_t parts = 1;                              // of the slices that backward-filter adds

  HalfSlices(const Algorithm& algorithm, const ConvProblem& problem, const Machine& machine);
  int64_t count() const { return image_blocks * group_blocks * bands; }  // 1: the whole problem
  HalfSlice whole() const { return {p, 0, 0, 0, 0}; }
  HalfSlice at(int64_t image_block, int64_t group_block, int64_t band) const;
  // visit(slice) for one of each kind: the others are no larger.
  template <class Visit>
  void each_kind(const Visit& visit) const {
    for (int64_t band = 0; band < bands; ++band) visit(at(0, 0, band));
  }

 private:
  void cut(int64_t packed);
  bool cut_rows(int64_t bytes);
  bool set_band(int64_t first, int64_t last, HalfSlice* slice) const;
};

}  // namespace fastconv
