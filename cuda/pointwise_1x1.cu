// SPDX-License-Identifier: Apache-2.0
// Filters of one tap without padding: the product of weights and pixels where they lie. The pixels of all images are one
// axis; with a stride it has three steps.
#include <cstdio>
#include <utility>

#include "conv_gemm.cuh"
#include "positions.cuh"
#include "roofline.h"

namespace fastconv::cuda {
namespace {

constexpr int kThreads = 256;

// x without the terms of any output: what no output reads stays so.
template <class T>
__global__ void __launch_bounds__(kThreads) pointwise_unread(Conv<T> c, Positions positions, int64_t elements) {
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < elements; i += int64_t{gridDim.x} * kThreads) {
    const Position at = position_of(i, positions);
    finish(c, c.x, at.n * c.xs.batch + at.channel * c.xs.channel + at.pixel * c.xs.pixel, at.channel, Sum<T>(0));
  }
}

bool strided(const ConvProblem& p) { return p.stride[0] != 1 || p.stride[1] != 1 || p.stride[2] != 1; }

struct Steps {
  int64_t of[kMaxSpatial];
};
// Of x, from one output to the next along each axis.
Steps steps_of_x(const ConvProblem& p, const Image& x) {
  return {p.stride[0] * p.size[1] * p.size[2] * x.pixel, p.stride[1] * p.size[2] * x.pixel, p.stride[2] * x.pixel};
}

// The pixels of x that outputs read.
Axis read_pixels(const ConvProblem& p, const int64_t* out, const Image& x, int64_t images) {
  if (!strided(p)) return pixel_axis(x, images, x_plane(p));
  return Axis::planes(out, x.batch, steps_of_x(p, x).of);
}

int64_t splits_of(const ConvProblem& p) {
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups, pixels = y_plane(p);
  switch (p.pass) {
    case Pass::kForward:
      return tensor_splits(kg, pixels, cg, p.groups);
    case Pass::kBackwardData:
      return tensor_splits(cg, pixels, kg, p.groups);
    default:
      return filter_splits(kg, cg, p.n * pixels, p.groups);
  }
}

// Images whose pieces are in the workspace at once.
int64_t images_at_once(const ConvProblem& p) {
  const int64_t splits = splits_of(p);
  if (splits == 1) return p.n;
  const int64_t channels = (p.pass == Pass::kForward ? p.k : p.c) / p.groups;
  const int64_t bytes = piece_bytes(p.dtype, channels, round_up(y_plane(p), 4), p.groups, splits);
  return std::clamp<int64_t>(kPieceBytes / std::max<int64_t>(1, bytes), 1, std::max<int64_t>(1, p.n));
}

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  for (int a = kMaxSpatial - p->spatial_rank; a < kMaxSpatial && !text[0]; ++a) {
    if (p->filter[a] != 1)
      snprintf(text, kTextCapacity, "pointwise_1x1 needs filter size 1, got %lld",
               static_cast<long long>(p->filter[a]));
    else if (p->pad_begin[a] || p->pad_end[a])
      snprintf(text, kTextCapacity, "pointwise_1x1 needs padding 0, got %lld and %lld",
               static_cast<long long>(p->pad_begin[a]), static_cast<long long>(p->pad_end[a]));
  }
  return text[0] != 0;
}

void estimate(const ConvProblem* problem, const Machine* m, Estimate* e) {
  const ConvProblem& p = *problem;
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups, pixels = p.n * y_plane(p), splits = splits_of(p);
  const bool filter = p.pass == Pass::kBackwardFilter, data = p.pass == Pass::kBackwardData;
  const int64_t lines = data ? cg : kg, columns = filter ? cg : pixels, depth = filter ? pixels : data ? kg : cg;
  gemm_estimate(p, *m, lines, columns, depth, p.groups, splits, e);
  double bytes = times(tensor_bytes(p));
  if (data && strided(p)) bytes += times(p.n * p.c * x_plane(p), element_size(p.dtype));
  add_memory(bytes, *m, e);
  add_launches((data && strided(p) ? 2 : 1) + (splits > 1 ? 1 : 0), e);
}

int64_t workspace_bytes(const ConvProblem* problem, const Machine*, int, bool) {
  const ConvProblem& p = *problem;
  const int64_t splits = splits_of(p), cg = p.c / p.groups, kg = p.k / p.groups;
  if (splits == 1) return 0;
  if (p.pass == Pass::kBackwardFilter) return piece_bytes(p.dtype, kg, cg, p.groups, splits);
  const int64_t channels = p.pass == Pass::kForward ? kg : cg, pixels = images_at_once(p) * y_plane(p);
  const Layout written = p.pass == Pass::kForward ? p.y_layout : p.x_layout;
  if (written == Layout::kChannelsLast) return piece_bytes(p.dtype, pixels, channels, p.groups, splits);
  return piece_bytes(p.dtype, channels, pixels, p.groups, splits);
}
int64_t packed_bytes(const ConvProblem*, const Machine*) { return 0; }

template <class T>
int run_forward(const Conv<T>& c, const RunContext& r) {
  const ConvProblem& p = c.p;
  const int64_t pixels = y_plane(p), step = images_at_once(p);
  const Operand<T> weights = {c.w, Axis::flat(c.group_c), Axis::flat(0), 1, c.group_k * c.group_c, true, false};
  for (int64_t first = 0, status = 0; first < p.n; first += step) {
    const int64_t images = std::min(step, p.n - first), offset = first * c.ys.batch;
    const auto x =
        pixels_by_channels<T>(c.x + first * c.xs.batch, c.xs, read_pixels(p, c.out, c.xs, images), c.group_c);
    Gemm<T> g = tensor_product(weights, x, c.group_k, images * pixels, c.group_c, p.groups, c.ys,
                               pixel_axis(c.ys, images, pixels), finished(c, c.y, offset));
    g.splits = splits_of(p);
    if (g.splits > 1) g.partial = static_cast<Sum<T>*>(r.workspace);
    if ((status = gemm(r, g)) != 0) return static_cast<int>(status);
  }
  return 0;
}

template <class T>
int run_backward_data(const Conv<T>& c, const RunContext& r) {
  const ConvProblem& p = c.p;
  const int64_t pixels = y_plane(p), step = images_at_once(p), elements = p.n * p.c * x_plane(p);
  int status = 0;
  if (strided(p)) {
    starts(r, Phase::kOutput);
    status = launch(r, pointwise_unread<T>, Grid{std::min(divide_up(elements, kThreads), kMostBlocksX)}, kThreads, 0, c,
                    Positions(p.x_layout, p.c, c.group_c, p.size), elements);
  }
  const Operand<T> weights = {c.w, Axis::flat(1), Axis::flat(0), c.group_c, c.group_k * c.group_c, false, false};
  for (int64_t first = 0; first < p.n && status == 0; first += step) {
    const int64_t images = std::min(step, p.n - first), offset = first * c.xs.batch;
    const auto y = pixels_by_channels<T>(c.y + first * c.ys.batch, c.ys, pixel_axis(c.ys, images, pixels), c.group_k);
    Gemm<T> g = tensor_product(weights, y, c.group_c, images * pixels, c.group_k, p.groups, c.xs,
                               read_pixels(p, c.out, c.xs, images), finished(c, c.x, offset));
    g.splits = splits_of(p);
    if (g.splits > 1) g.partial = static_cast<Sum<T>*>(r.workspace);
    status = gemm(r, g);
  }
  return status;
}

template <class T>
int run_backward_filter(const Conv<T>& c, const RunContext& r) {
  const ConvProblem& p = c.p;
  Gemm<T> g{};
  g.m = c.group_k, g.n = c.group_c, g.batches = p.groups;
  g.a = {c.y, Axis::flat(c.ys.channel), Axis::flat(0), 0, c.group_k * c.ys.channel, c.ys.channel != 1, false};
  g.b = {c.x, Axis::flat(c.xs.channel), Axis::flat(0), 0, c.group_c * c.xs.channel, c.xs.channel != 1, false};
  if (strided(p)) {  // a run is a row of outputs
    const Steps x = steps_of_x(p, c.xs);
    const int64_t rows[] = {1, c.out[0], c.out[1]}, of_rows[] = {0, x.of[0], x.of[1]};
    g.runs = p.n * c.out[0] * c.out[1], g.depth = c.out[2];
    g.a.step = c.ys.pixel, g.a.outer = Axis::runs(c.out[0] * c.out[1], c.ys.batch, c.out[2] * c.ys.pixel);
    g.b.step = x.of[2], g.b.outer = Axis::planes(rows, c.xs.batch, of_rows);
  } else {
    sum_over_pixels(&g, p.n, x_plane(p), {c.ys.batch, c.ys.pixel}, {c.xs.batch, c.xs.pixel});
  }
  g.c.data = c.w, g.c.rows = Axis::flat(c.group_c), g.c.columns = Axis::flat(1), g.c.batch = c.group_k * c.group_c;
  g.splits = splits_of(p);
  if (g.splits > 1) g.partial = static_cast<Sum<T>*>(r.workspace);
  return gemm(r, g);
}

int run(const ConvProblem* p, const RunContext* r) {
  return by_dtype(p->dtype, [&](auto type) {
    const auto c = conv_of<decltype(type)>(*p, *r);
    if (p->pass == Pass::kForward) return run_forward(c, *r);
    return p->pass == Pass::kBackwardData ? run_backward_data(c, *r) : run_backward_filter(c, *r);
  });
}

int64_t multiplications(const ConvProblem* p, const Machine* m) { return count_multiplications(*p, *m, run); }

}  // namespace

extern const Algorithm kPointwise1x1;
const Algorithm kPointwise1x1 = {
    "pointwise_1x1", 1.0,     1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
    packed_bytes,    nullptr, run, nullptr,        multiplications};

}  // namespace fastconv::cuda
