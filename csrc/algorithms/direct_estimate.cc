// SPDX-License-Identifier: Apache-2.0
// What the direct convolution costs: tiles, each with a price of its own besides its multiply-adds. The constants were
// fitted to one core of a Xeon with AVX-512.
#include "direct.h"

namespace fastconv {
namespace {

constexpr double kTile = 40e-9;             // one call of the kernel: its lists, its stores
constexpr double kStagedElement = 0.45e-9;  // gathered by a table
constexpr double kTransposed = 0.27e-9;     // the same from channels side by side
constexpr double kScattered = 0.3e-9;       // an element stored by itself
constexpr double kTotals = 0.35e-6;         // adding up the lanes of a tile of weights

double real(int64_t value) { return static_cast<double>(value); }

// Forward and backward-data: `points` of the last axis per row and phase.
template <class T>
double gather_seconds(const ConvProblem& p, const Machine& m, double peak) {
  const DirectKernelsOf<T>& kernels = direct_kernels<T>(m);
  const bool forward = p.pass == Pass::kForward;
  const int64_t written = (forward ? p.k : p.c) / p.groups, read = (forward ? p.c : p.k) / p.groups;
  int64_t points[kMaxSpatial];
  double phases = 1, reached = real(read * taps(p));
  for (int a = 0; a < kMaxSpatial; ++a) {
    points[a] = forward ? output_size(p, a) : ceil_div(p.size[a], p.stride[a]);
    if (!forward) phases *= real(phase_count(p, a)), reached /= real(p.stride[a]);
  }
  const int64_t pieces = ceil_div(written, kernels.rows), vectors = ceil_div(points[2], kernels.lanes);
  const double rows = real(written) / real(pieces), lanes = kernels.lanes;
  const double groups = phases * real(p.n * p.groups * points[0] * points[1] * pieces);
  const Layout from = forward ? p.x_layout : p.y_layout, to = forward ? p.y_layout : p.x_layout;
  // Broadcasts and loads take the time of four more rows.
  double vector = reached * (rows + 4) * lanes * 2 / (0.9 * peak);
  if (from == Layout::kChannelsLast)
    vector += reached * lanes * (read > 1 ? kTransposed : kStagedElement);
  else if (forward && p.stride[2] > 2)
    vector += reached * lanes * kStagedElement;
  if (to == Layout::kChannelsLast || (!forward && p.stride[2] > 1)) vector += rows * lanes * kScattered;
  return groups * (real(vectors) * vector + real(ceil_div(vectors, 2)) * kTile);
}

template <class T>
double filter_seconds(const ConvProblem& p, const Machine& m, double peak) {
  const DirectKernelsOf<T>& kernels = direct_kernels<T>(m);
  const int64_t cg = p.c / p.groups, kg = p.k / p.groups, width = output_size(p, 2);
  const double lines = real(p.n * output_size(p, 0) * output_size(p, 1)), lanes = kernels.lanes;
  if (p.x_layout == Layout::kChannelsFirst && p.y_layout == Layout::kChannelsFirst) {
    const int64_t pieces = ceil_div(kg, kernels.filter_rows), parts = ceil_div(p.filter[2], 3);
    const double rows = real(kg) / real(pieces), count = real(p.filter[2]) / real(parts);
    const double tiles = real(p.groups * pieces * cg * p.filter[0] * p.filter[1] * parts);
    double vector = (rows * count + rows + count) * lanes * 2 / (0.55 * peak);
    if (p.stride[2] > 2) vector += count * lanes * kStagedElement;
    return tiles * (kTotals + lines * real(ceil_div(width, kernels.lanes)) * vector);
  }
  const bool lanes_of_x = p.x_layout == Layout::kChannelsLast;
  const int64_t pieces = ceil_div(lanes_of_x ? kg : cg, kernels.filter_rows);
  const int64_t strips = ceil_div(lanes_of_x ? cg : kg, 2 * kernels.lanes);
  const double rows = real(lanes_of_x ? kg : cg) / real(pieces);
  const double tiles = real(p.groups * pieces * strips * taps(p));
  return tiles * (kTotals + lines * (20e-9 + real(width) * (rows + 2) * 4 * lanes / (0.7 * peak)));
}

template <class T>
double seconds(const ConvProblem& p, const Machine& m, double peak) {
  return 1e-6 + (p.pass == Pass::kBackwardFilter ? filter_seconds<T>(p, m, peak) : gather_seconds<T>(p, m, peak));
}

}  // namespace

double direct_estimate(const ConvProblem& p, const Machine& m) {
  return p.dtype == DType::kFloat64 ? seconds<double>(p, m, m.flops_f64) : seconds<float>(p, m, m.flops_f32);
}

}  // namespace fastconv
