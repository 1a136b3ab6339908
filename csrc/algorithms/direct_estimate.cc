// SPDX-License-Identifier: Apache-2.0
// What the direct convolution costs: tiles, each with a price of its own besides its multiply-adds. The constants were
// fitted to one core of a Xeon with AVX-512.
#include "../halo.h"
#include "direct.h"

namespace fastconv {
namespace {

double real(int64_t value) { return static_cast<double>(value); }

// The share of the taps that rows meet inside the tensor, of one of the outer axes; the others are left out.
double met(const ConvProblem& p, int axis) {
  const int64_t out = output_size(p, axis);
  int64_t pairs = 0;
  for (int64_t t = 0; t < p.filter[axis]; ++t) {
    const Inside inside(t * p.dilation[axis] - p.pad_begin[axis], p.stride[axis], out, p.size[axis]);
    pairs += inside.last - inside.first;
  }
  const bool forward = p.pass == Pass::kForward;
  const double rows = forward ? real(out) : real(p.size[axis]) / real(p.stride[axis]);
  return p.padding_mode == PaddingMode::kZeros ? std::min(1.0, real(pairs) / (rows * real(p.filter[axis]))) : 1.0;
}

// Forward and backward-data: `points` of the last axis per row and phase.
template <class T>
void add_gather(const ConvProblem& p, const Machine& m, double peak, Estimate* e) {
  const DirectKernelsOf<T>& kernels = direct_kernels<T>(m);
  const bool forward = p.pass == Pass::kForward;
  const int64_t written = (forward ? p.k : p.c) / p.groups, read = (forward ? p.c : p.k) / p.groups;
  int64_t points[kMaxSpatial];
  double phases = 1, reached = real(read * taps(p)) * met(p, 0) * met(p, 1);
  for (int a = 0; a < kMaxSpatial; ++a) {
    points[a] = forward ? output_size(p, a) : ceil_div(p.size[a], p.stride[a]);
    if (!forward) phases *= real(phase_count(p, a)), reached /= real(p.stride[a]);
  }
  const int64_t pieces = ceil_div(written, kernels.rows), vectors = ceil_div(points[2], kernels.lanes);
  const double rows = real(written) / real(pieces), lanes = kernels.lanes;
  const double groups = phases * real(p.n * p.groups * points[0] * points[1] * pieces);
  const Layout from = forward ? p.x_layout : p.y_layout, to = forward ? p.y_layout : p.x_layout;
  const double cells = groups * real(vectors) * reached * lanes;
  // Broadcasts and loads take the time of four more rows.
  e->add("products", cells * (rows + 4) * 2 / (0.9 * peak));
  e->add("tiles", groups * real(ceil_div(vectors, 2)) * 40e-9);
  e->add("rows of taps", groups * real(ceil_div(vectors, 2)) * reached * 2e-9);
  // The padding of a mode is gathered cell by cell, by the tiles at both ends of a row; of gradients, for each copy.
  if (p.padding_mode != PaddingMode::kZeros && p.pad_begin[2] + p.pad_end[2] > 0) {
    const double copies = forward                                     ? 1
                          : p.padding_mode == PaddingMode::kReplicate ? real(p.pad_begin[2] + p.pad_end[2])
                          : shows_cells(p.padding_mode)               ? 2
                                                                      : 0;
    e->add("padding", groups * real(std::min<int64_t>(2, ceil_div(vectors, 2))) * reached * copies * lanes * 0.5e-9);
  }
  // A tile reads rows of every channel: pages that do not stay near.
  if (read * (forward ? x_plane(p) : y_plane(p)) * int64_t{sizeof(T)} > m.l2_bytes)
    e->add("rows far apart", groups * real(ceil_div(vectors, 2)) * reached * 4e-9);
  if (from == Layout::kChannelsLast)
    e->add(read > 1 ? "turned" : "gathered", cells * 0.3e-9);
  else if (forward && p.stride[2] > 2)
    e->add("gathered", cells * 0.45e-9);
  if (to == Layout::kChannelsLast || (!forward && p.stride[2] > 1))
    e->add("scattered", groups * real(vectors) * rows * lanes * 0.3e-9);
}

template <class T>
void add_filter(const ConvProblem& p, const Machine& m, double peak, Estimate* e) {
  const DirectKernelsOf<T>& kernels = direct_kernels<T>(m);
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups, width = output_size(p, 2);
  const double lines = real(p.n * output_size(p, 0) * output_size(p, 1)), lanes = kernels.lanes;
  if (p.x_layout == Layout::kChannelsFirst && p.y_layout == Layout::kChannelsFirst) {
    const int64_t pieces = ceil_div(kg, kernels.filter_rows), parts = ceil_div(p.filter[2], 3);
    const double rows = real(kg) / real(pieces), count = real(p.filter[2]) / real(parts);
    const double tiles = real(p.groups * pieces * cg * p.filter[0] * p.filter[1] * parts);
    const double all = tiles * lines * real(ceil_div(width, kernels.lanes)) * lanes;
    e->add("filter products", all * (rows * count + rows + count) * 2 / (0.55 * peak));
    if (p.padding_mode != PaddingMode::kZeros)  // columns of padding, one by one
      e->add("filter padding",
             tiles * lines * rows * count * real(ceil_div(p.pad_begin[2] + p.pad_end[2], p.stride[2])) * 1e-9);
    if (p.stride[2] > 2) e->add("filter gathered", all * count * 0.45e-9);
    e->add(tensor_bytes(p) > m.l2_bytes ? "filter rows far apart" : "filter rows", tiles * lines * 5e-9);
    return e->add("filter totals", tiles * 0.35e-6);
  }
  const bool lanes_of_x = p.x_layout == Layout::kChannelsLast;
  const int64_t pieces = ceil_div(lanes_of_x ? kg : cg, kernels.filter_rows);
  const int64_t strips = ceil_div(lanes_of_x ? cg : kg, 2 * kernels.lanes);
  const double rows = real(lanes_of_x ? kg : cg) / real(pieces);
  const double tiles = real(p.groups * pieces * strips * taps(p));
  e->add("pixel products", tiles * lines * real(width) * (rows + 2) * 4 * lanes / (0.7 * peak));
  e->add("pixel rows", tiles * lines * 20e-9);
  e->add("filter totals", tiles * 0.35e-6);
}

template <class T>
void add(const ConvProblem& p, const Machine& m, double peak, Estimate* e) {
  e->add("start", 2e-6);
  p.pass == Pass::kBackwardFilter ? add_filter<T>(p, m, peak, e) : add_gather<T>(p, m, peak, e);
}

}  // namespace

void direct_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  p.dtype == DType::kFloat64 ? add<double>(p, m, m.flops_f64, e) : add<float>(p, m, m.flops_f32, e);
}

}  // namespace fastconv
