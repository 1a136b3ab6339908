// SPDX-License-Identifier: Apache-2.0
// Dense matrix products on the register tile of kernels/gemm_tile.cc, for dense layers.
#pragma once

#include "algorithm.h"

namespace fastconv {

// c[i][j] = bias[j] + sum over d of a(i, d) * b(d, j); element (i, d) of a lies at a[i * a_row + d * a_depth], and so
// on. One of each pair of pitches is 1. Sums run over ascending d in blocks that depend on `depth` alone.
template <class T>
struct Gemm {
  int64_t rows, columns, depth;
  const T* a;
  int64_t a_row, a_depth;
  const T* b;
  int64_t b_depth, b_column;
  T* c;
  int64_t c_row;  // c's columns follow each other
  const T* bias;  // per column; null: none
};

// False when there is no memory for the panels.
template <class T>
bool multiply(const Machine& machine, const Parallel& parallel, const Gemm<T>& gemm);

}  // namespace fastconv
