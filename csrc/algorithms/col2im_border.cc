// SPDX-License-Identifier: Apache-2.0
#include "col2im_border.h"

#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "../strip_store.h"

namespace fastconv {
namespace {

// What a line of the padded gradient, of `step` elements from one coordinate of `axis` to the next, adds to itself.
template <class T>
void fold_axis(const ConvProblem& p, int axis, int64_t step, T* line) {
  const int64_t size = p.size[axis], before = p.pad_begin[axis], all = before + size + p.pad_end[axis];
  for (int64_t i = 0; i < all; ++i) {
    if (i == before) i += size;
    if (i == all) break;
    const T* from = line + i * step;
    T* to = line + (before + padded_source(p.padding_mode, i - before, size)) * step;
    for (int64_t j = 0; j < step; ++j) to[j] += from[j];
  }
}

template <class T>
void fold_as(const ConvProblem& p, const ConvProblem& padded, const RunContext& r) {
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(*r.machine);
  const StripStore<T> store(p, r, kernels);
  const ColumnGrid grid = pixels_of_x(p);
  const int64_t *size = padded.size, plane = x_plane(padded), *pad = p.pad_begin;
  T* all = static_cast<T*>(r.workspace);
  T* residuals = all + p.n * p.c * plane;
  parallel_for(r.parallel, p.n * p.c, [&](int64_t item, int slot) {
    const PhaseScope storing(r.phases, Phase::kOutput);
    T* at = all + item * plane;
    for (int64_t line = 0; line < size[0] * size[1]; ++line) fold_axis(p, 2, 1, at + line * size[2]);
    for (int64_t depth = 0; depth < size[0]; ++depth) fold_axis(p, 1, size[2], at + depth * size[1] * size[2]);
    fold_axis(p, 0, size[1] * size[2], at);
    const int64_t first = item / p.c * x_plane(p), channel = item % p.c;
    for (int64_t row = 0; row < p.size[0] * p.size[1]; ++row) {
      const int64_t depth = row / p.size[1] + pad[0], height = row % p.size[1] + pad[1];
      store.move(grid, first + row * p.size[2], p.size[2], channel, 1,
                 at + (depth * size[1] + height) * size[2] + pad[2], size[2], residuals + slot * p.size[2]);
    }
  });
}

}  // namespace

ConvProblem col2im_padded(const ConvProblem& problem) {
  ConvProblem p = problem;
  if (!shows_cells(p.padding_mode)) return p;
  p.padding_mode = PaddingMode::kZeros;
  p.x_layout = Layout::kChannelsFirst;
  p.activation = Activation::kNone;
  p.epilogue = 0;
  for (int a = 0; a < kMaxSpatial; ++a) {
    p.size[a] += p.pad_begin[a] + p.pad_end[a];
    p.pad_begin[a] = p.pad_end[a] = 0;
  }
  return p;
}

int64_t col2im_border_bytes(const ConvProblem& p, int slots) {
  if (!shows_cells(p.padding_mode)) return 0;
  return aligned((p.n * p.c * x_plane(col2im_padded(p)) + slots * p.size[2]) * computed_size(p.dtype));
}

RunContext col2im_into_padded(const ConvProblem& p, const ConvProblem& padded, const RunContext& r) {
  RunContext into = r;
  if (!shows_cells(p.padding_mode)) return into;
  into.x = r.workspace;
  into.x_channel_pitch = x_plane(padded);
  into.x_batch_pitch = p.c * x_plane(padded);
  into.bias = into.residual = nullptr;
  into.workspace = static_cast<char*>(r.workspace) + col2im_border_bytes(p, r.parallel.slots);
  return into;
}

void col2im_fold(const ConvProblem& p, const ConvProblem& padded, const RunContext& r) {
  p.dtype == DType::kFloat64 ? fold_as<double>(p, padded, r) : fold_as<float>(p, padded, r);
}

}  // namespace fastconv
