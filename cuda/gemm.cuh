// SPDX-License-Identifier: Apache-2.0
// The matrix product of the plain cores: c = finish(a b), a of m lines and `depth` columns, b of depth lines and n columns,
// many at once. An axis of a matrix lies in a tensor as an Axis says, so that pixels of several images are one axis and no
// operand is copied. Sums are Sum<T>'s, in ascending order of the depth whatever the tile, so that the bits depend on
// neither m nor n.
#pragma once

#include "activation.cuh"
#include "divide.cuh"
#include "element.cuh"
#include "roofline.h"

namespace fastconv::cuda {

// Where the positions of one axis of a matrix lie, in elements of a tensor.
class Axis {
 public:
  // Position i at i * step.
  static Axis flat(int64_t step, int64_t start = 0) {
    Axis a;
    a.levels_ = 1, a.step_[2] = step, a.start_ = start;
    return a;
  }
  // Positions in runs of `inner`, `step` from each other; a run is `outer_step` after the last.
  static Axis runs(int64_t inner, int64_t outer_step, int64_t step, int64_t start = 0) {
    Axis a = flat(step, start);
    a.levels_ = 2, a.outer_step_ = outer_step, a.inner_size_ = inner > 1 ? inner : 1;
    a.inner_ = Divisor(a.inner_size_), a.reach_ = (a.inner_size_ - 1) * step;
    return a;
  }
  // Runs that are planes of `size`, with one step for each of their axes.
  static Axis planes(const int64_t* size, int64_t outer_step, const int64_t* step) {
    Axis a = runs(size[0] * size[1] * size[2], outer_step, step[2]);
    a.levels_ = 3, a.step_[0] = step[0], a.step_[1] = step[1];
    a.reach_ = size[0] * step[0] + size[1] * step[1] + size[2] * step[2];
    a.row_ = Divisor(size[1] > 1 ? size[1] : 1), a.column_ = Divisor(size[2] > 1 ? size[2] : 1);
    return a;
  }
  __device__ __forceinline__ int64_t at(int64_t i) const {
    i += start_;
    if (levels_ == 1) return i * step_[2];
    int64_t rest, place;
    const int64_t outer = inner_.divide(i, &rest) * outer_step_;
    if (levels_ == 2) return outer + rest * step_[2];
    const int64_t line = column_.divide(rest, &place);
    int64_t row;
    const int64_t plane = row_.divide(line, &row);
    return outer + plane * step_[0] + row * step_[1] + place * step_[2];
  }
  // Whether `count` positions from a multiple of it follow each other in memory, an aligned start provided.
  bool adjacent(int64_t count) const {
    if (levels_ == 3 || step_[2] != 1 || start_ % count) return false;
    return levels_ == 1 || (inner_size_ % count == 0 && outer_step_ % count == 0);
  }
  // Whether all positions are multiples of `count`.
  bool multiple_of(int64_t count) const {
    if (levels_ > 1 && outer_step_ % count) return false;
    if (levels_ == 3 && (step_[0] % count || step_[1] % count)) return false;
    return step_[2] % count == 0;
  }
  // No two of `count` neighbours are further from each other.
  int64_t span(int64_t count) const {
    return levels_ == 1 ? count * step_[2] : (count / inner_size_ + 1) * outer_step_ + reach_;
  }

 private:
  int64_t start_ = 0, reach_ = 0, outer_step_ = 0, inner_size_ = 1, levels_ = 1;
  int64_t step_[3] = {0, 0, 0};
  Divisor inner_, row_, column_;
};

// The depth is `runs` runs of `depth` positions; `outer` says where a run begins.
template <class T>
struct Operand {
  const T* data;
  Axis lines;     // m of a, n of b
  Axis outer;     // runs of the depth
  int64_t step;   // from one position of the depth to the next
  int64_t batch;  // from one product to the next
  bool deep;      // neighbours in memory are those of the depth; else those of the lines, if any
  bool wide;      // loaded in vectors: set by gemm()
};

// Elements of c: one of n's positions is where memory is written in order.
template <class T>
struct Output {
  T* data;
  Axis rows, columns;
  int64_t batch;
  const T* bias;      // null: none; of position bias_batch * batch + row, or + column
  const T* residual;  // null: none; laid out like data
  int64_t bias_batch;
  bool bias_of_rows;
  bool wide;  // set by gemm()
  Activation activation;
  Sum<T> alpha;
};

template <class T>
struct Gemm {
  int64_t m, n, depth, runs = 1, batches = 1;
  // Into how many pieces the depth is cut. They are summed apart and added in ascending order by a second kernel, so that
  // the bits depend on the number: it follows from the problem alone, forward and backward-data without n.
  int64_t splits = 1;
  Operand<T> a, b;
  Output<T> c;
  // Where pieces go, densely [split][batch][m][gemm_pitch(n)]; of one split: null, c is written at once.
  Sum<T>* partial = nullptr;
  bool added = false;       // pieces are added to what `partial` holds
  bool unfinished = false;  // `partial` is the result, c is not written
};

// Rows of partial sums begin at multiples of 16 bytes.
template <class T>
constexpr int64_t gemm_pitch(int64_t n) {
  constexpr int64_t unit = 16 / sizeof(Sum<T>);
  return (n + unit - 1) / unit * unit;
}

// Puts the product into the stream. Products of nothing (depth 0) are zeros, finished like others.
template <class T>
int gemm(const RunContext& context, Gemm<T> g);
// The second kernel alone: c = finish(sum of g.splits pieces), for pieces that several products were added to.
template <class T>
int gemm_add_partials(const RunContext& context, const Gemm<T>& g);

// Seconds of a product, added as "products".
void gemm_estimate(const ConvProblem& p, const Machine& machine, int64_t m, int64_t n, int64_t depth, int64_t batches,
                   int64_t splits, Estimate* e);
// Pieces of a depth: as many as small products need for `blocks` tiles, none shorter than `shortest`.
int64_t gemm_splits(int64_t m, int64_t n, int64_t depth, int64_t batches, int64_t blocks, int64_t shortest);

}  // namespace fastconv::cuda
