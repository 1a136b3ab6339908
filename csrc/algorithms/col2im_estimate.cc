// SPDX-License-Identifier: Apache-2.0
// When col2im.cc is taken, and what it costs.
#include "../counts.h"
#include "../machine.h"
#include "col2im.h"
#include "col2im_blocking.h"
#include "col2im_border.h"

namespace fastconv {
namespace {

template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
  const Col2imBlocking b(p, kernels);
  const double peak = sizeof(T) == 8 ? m.flops_f64 : m.flops_f32;
  const int64_t rows = b.most_rows(), pieces = ceil_div(rows, b.mr);
  const int64_t columns = b.segments == 1 ? b.lines * b.width : b.line, panels = ceil_div(columns, b.nr);
  const double lanes = times(columns) / times(panels, b.nr);
  // A tile of few rows waits for its own sums.
  const double mine = times(rows) / times(pieces), alone = std::max(1.0, 8.0 / 3 / mine);
  const double products = times(col2im_multiplications(p)) / times(b.depth);  // each is a chain
  e->add("col2im start", 2e-6);
  e->add("col2im products", 2.0 * times(col2im_multiplications(p)) / (peak * lanes) * alone);
  e->add("col2im packing", 0.2e-9 * times(p.k * b.channels * b.depths * b.taps));
  e->add("col2im tiles",
         products / times(rows, columns) * times(panels, pieces, ceil_div(b.depth, b.depth_block())) * 20e-9);
  const double read = products / times(b.taps, b.channels) * times(b.chunks, b.depth);
  e->add(p.y_layout == Layout::kChannelsLast ? "col2im turned" : "col2im columns", read * 0.1e-9);
  // Vectors of columns, each of which takes its taps and is joined with those of other phases.
  const int64_t phases = phase_count(p, 2), widest = ceil_div(b.segment, b.lanes);
  const double rows_of_x = times(p.n, p.size[0], p.size[1], p.c, b.segments);
  const double row_taps = times(p.filter[1]) / times(p.stride[1]);
  e->add("col2im rows", rows_of_x * times(phases) * 5e-9);
  e->add("col2im sums", rows_of_x * times(widest, p.filter[2]) * (1 + row_taps) * 1e-9);
  const double written = times(p.n, x_plane(p), p.c);
  e->add(p.x_layout == Layout::kChannelsLast ? "col2im to pixels"
         : phases > 2                        ? "col2im joined"
                                             : "col2im stored",
         written * 0.1e-9);
}

}  // namespace

constexpr int64_t kMostTaps = 256;          // of a plane, if its rows overlap: their products leave L2
constexpr int64_t kMostPadded = 256 << 10;  // of an image's padded gradient; not of all: packed weights know no n

bool takes_col2im(const ConvProblem& p) {
  if (p.pass != Pass::kBackwardData || y_plane(p) == 0) return false;
  if (shows_cells(p.padding_mode) && p.c * x_plane(col2im_padded(p)) > kMostPadded) return false;
  const bool overlaps = (p.filter[1] - 1) * p.dilation[1] >= p.stride[1];
  if (overlaps && p.filter[1] * p.filter[2] > kMostTaps) return false;
  const bool strided = p.stride[0] > 1 || p.stride[1] > 1 || p.stride[2] > 1;
  return strided || (taps(p) > 1 && p.c <= p.k);
}

// Taps beyond the edges of dx are multiplied too, planes of the filter are not.
int64_t col2im_multiplications(const ConvProblem& problem) {
  const ConvProblem p = col2im_padded(problem);
  return channel_pairs(p) * pairs_inside(p, 0) * p.filter[1] * p.filter[2] * output_size(p, 1) * output_size(p, 2);
}

void col2im_estimate(const ConvProblem& problem, const Machine& m, Estimate* e) {
  const ConvProblem p = col2im_padded(problem);
  p.dtype == DType::kFloat64 ? estimate_as<double>(p, m, e) : estimate_as<float>(p, m, e);
  if (shows_cells(problem.padding_mode)) e->add("col2im folded", times(p.n, p.c, x_plane(p)) * 0.3e-9);
}

}  // namespace fastconv
