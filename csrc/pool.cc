// SPDX-License-Identifier: Apache-2.0
// Cuts a pooling into items: groups of planes, or pieces of one plane when it is large. A piece of the input's gradient
// gathers from all the outputs over it, so that no two items write to the same place.
#include "pool.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>

#include "kernels/pool_kernels.h"
#include "machine.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kSegment = 2048;       // columns of one piece of a plane: its folded rows stay in L1
constexpr int64_t kPixelSegment = 256;   // of channels last, backward: the lists of what is over each column do
constexpr int64_t kTableNumbers = 4096;  // int64: the lists of windows stay in L1
constexpr int64_t kVectorRoom = 64;      // elements: kernels read and write whole vectors of their scratch

PoolGeometry geometry_of(const PoolProblem& p, const PoolBuffers& buffers) {
  PoolGeometry g = {};
  for (int i = 0; i < kMaxSpatial; ++i) {
    g.size[i] = p.size[i];
    g.out[i] = output_size(p, i);
    g.window[i] = p.window[i];
    g.stride[i] = p.stride[i];
    g.dilation[i] = p.dilation[i];
    g.pad_begin[i] = p.pad_begin[i];
    g.pad_end[i] = p.pad_end[i];
    const int64_t room = p.size[i] + p.pad_begin[i] - ((p.window[i] - 1) * p.dilation[i] + 1);
    g.inner_begin[i] = ceil_div(p.pad_begin[i], p.stride[i]);
    g.inner_end[i] = room < 0 ? 0 : std::min(g.out[i], room / p.stride[i] + 1);
  }
  g.include_pad = p.count_include_pad;
  g.divisor = p.divisor;
  g.adaptive = p.adaptive;
  const bool planes = p.layout == Layout::kChannelsFirst;
  g.x_pixel = planes ? 1 : buffers.x_channel_pitch;
  g.y_pixel = planes ? 1 : buffers.y_channel_pitch ? buffers.y_channel_pitch : p.c;
  int64_t most_taps[kMaxSpatial], most_over[kMaxSpatial];  // of an output; over an input
  for (int i = 0; i < kMaxSpatial; ++i) {
    most_taps[i] = p.adaptive ? ceil_div(p.size[i], g.out[i]) + 1 : p.window[i];
    most_over[i] = p.adaptive ? g.out[i] / p.size[i] + 2 : (p.window[i] - 1) * p.dilation[i] / p.stride[i] + 1;
  }
  const bool forward = p.pass == Pass::kForward;
  const int64_t row_numbers = kPoolSourceNumbers + (forward ? 2 * most_taps[0] * most_taps[1]
                                                            : kPoolSourceNumbers * most_over[0] * most_over[1]);
  g.table_rows = planes ? std::max<int64_t>(1, kTableNumbers / row_numbers) : 1;
  g.numbers = g.table_rows * row_numbers + 4 * p.window[2] + 2 * std::min(kSegment, g.out[2]);
  if (!planes && !forward)
    g.numbers = kPixelSegment + 1 +
                kPoolSourceNumbers * (kPixelSegment * most_over[2] + most_over[0] * most_over[1] * (1 + most_over[2]));
  if (planes && !p.adaptive) {
    const int64_t outputs = std::min(kSegment, g.out[2]), inputs = std::min(kSegment, g.size[2]);
    g.row_elements =
        std::max((outputs - 1) * p.stride[2] + 1, inputs) + (p.window[2] - 1) * p.dilation[2] + kVectorRoom;
  }
  return g;
}

// The pieces of one pass over y (forward) or x (backward), in a fixed order.
struct Pieces {
  int64_t planes, planes_per_item;
  int64_t rows, rows_per_item, row_items;
  int64_t columns, segment, column_items;

  Pieces(int64_t plane_count, int64_t row_count, int64_t column_count, int64_t most_columns, int64_t bytes)
      : planes(plane_count),
        rows(row_count),
        columns(column_count),
        segment(most_columns),
        column_items(ceil_div(column_count, most_columns)) {
    const int64_t plane_bytes = std::max<int64_t>(1, bytes / plane_count);
    const int64_t row_bytes = std::max<int64_t>(1, plane_bytes / rows / column_items);
    rows_per_item = std::clamp<int64_t>(kItemBytes / row_bytes, 1, rows);
    row_items = ceil_div(rows, rows_per_item);
    planes_per_item = row_items > 1 ? 1 : std::clamp<int64_t>(kItemBytes * column_items / plane_bytes, 1, planes);
  }
  int64_t count() const { return ceil_div(planes, planes_per_item) * row_items * column_items; }

  // Calls visit(first plane, part) for runs of an item's planes that do not cross a multiple of `most`.
  template <class Visit>
  void visit(int64_t item, int64_t most, PoolPart part, const Visit& visit) const {
    part.column_begin = item % column_items * segment;
    part.column_end = std::min(columns, part.column_begin + segment);
    part.row_begin = item / column_items % row_items * rows_per_item;
    part.row_end = std::min(rows, part.row_begin + rows_per_item);
    int64_t plane = item / column_items / row_items * planes_per_item;
    const int64_t end = std::min(planes, plane + planes_per_item);
    for (; plane < end; plane += part.planes) {
      part.planes = std::min(end - plane, most - plane % most);
      visit(plane, part);
    }
  }
};

bool is_norm(PoolKind kind) { return kind == PoolKind::kLp || kind == PoolKind::kSignedLp; }
bool is_extreme(PoolKind kind) { return kind == PoolKind::kMax || kind == PoolKind::kMin; }

// One window over all columns: a window at a time has nothing to fold.
bool spans_columns(const PoolProblem& p) {
  return p.window[2] == p.size[2] && p.dilation[2] == 1 && p.pad_begin[2] == 0 && output_size(p, 2) == 1;
}

template <class T>
Failure run(const PoolProblem& p, const Options& options, const PoolBuffers& buffers, char* text) {
  const bool planes = p.layout == Layout::kChannelsFirst, forward = p.pass == Pass::kForward;
  const PoolGeometry g = geometry_of(p, buffers);
  const KernelTable& table = *options.machine->kernels;
  const bool windows = p.adaptive || (spans_columns(p) && !buffers.offsets);
  const PoolKernelsOf<T>& kernels = kernels_of<T>(!planes   ? *table.pool_pixels
                                                  : windows ? *table.pool_windows
                                                            : *table.pool_planes);
  const PoolBackwardKernelsOf<T>& backward =
      kernels_of<T>(planes ? *table.pool_planes_backward : *table.pool_pixels_backward);
  const PoolNormKernelsOf<T>& norms =
      planes ? kernels_of<T>(table.pool_norm->planes) : kernels_of<T>(table.pool_norm->pixels);
  const PoolPower power = {buffers.norm, p.kind == PoolKind::kSignedLp, 0};
  const int64_t x_size = x_plane(p), y_size = y_plane(p), images = planes ? p.n * p.c : p.n;
  const int64_t channels = planes ? 1 : p.c;
  const int64_t element = sizeof(T), winner = buffers.indices ? 8 : buffers.offsets ? 1 : 0;
  const int64_t bytes = p.n * p.c * (x_size * element + y_size * (element + winner));
  const Parallel parallel = worth_sharing(*options.machine, bytes, options.threads);

  const int64_t scratch_bytes = (g.numbers * 8 + kPoolScratchRows * g.row_elements * element + 63) / 64 * 64;
  const Workspace workspace(scratch_bytes * parallel.slots);
  if (workspace.failed()) {
    snprintf(text, kTextCapacity, "pooling: no memory for %" PRId64 " bytes of workspace",
             scratch_bytes * parallel.slots);
    return Failure::kWorkspace;
  }
  const int64_t segment = forward || planes ? kSegment : kPixelSegment;
  const Pieces pieces = forward ? Pieces(images, g.out[0] * g.out[1], g.out[2], segment, bytes)
                                : Pieces(images, g.size[0] * g.size[1], g.size[2], segment, bytes);
  PoolPart whole = {};
  const int64_t y_channel = planes && buffers.y_channel_pitch ? buffers.y_channel_pitch : y_size;
  const int64_t y_image = buffers.y_batch_pitch ? buffers.y_batch_pitch : y_size * p.c;
  whole.channels = channels, whole.y_plane = y_channel;
  whole.x_plane = planes ? buffers.x_channel_pitch : 0;
  // Planes of one image are a pitch apart; norms take one at a time.
  const int64_t most_planes = planes && !is_norm(p.kind) ? p.c : 1;
  parallel_for(parallel, pieces.count(), [&](int64_t item, int slot) {
    void* scratch = static_cast<char*>(workspace.data()) + slot * scratch_bytes;
    pieces.visit(item, most_planes, whole, [&](int64_t image, const PoolPart& part) {
      const int64_t y_at = planes ? image / p.c * y_image + image % p.c * y_channel : image * y_image;
      const int64_t x_at = planes ? image / p.c * buffers.x_batch_pitch + image % p.c * buffers.x_channel_pitch
                                  : image * buffers.x_batch_pitch;
      const T* const x = static_cast<const T*>(buffers.x) + x_at;
      T* const y = static_cast<T*>(buffers.y) + y_at;
      const T* const dy = static_cast<const T*>(buffers.dy) + y_at;
      T* const dx = static_cast<T*>(buffers.dx) + x_at;
      const PoolWinners winners = {buffers.indices ? buffers.indices + y_at : nullptr,
                                   buffers.offsets ? buffers.offsets + y_at : nullptr};
      if (is_norm(p.kind))
        forward ? norms.norm(g, part, power, x, y, scratch) : norms.norm_backward(g, part, power, dy, x, y, dx);
      else if (!forward && p.kind == PoolKind::kAverage)
        backward.average(g, part, dy, dx, scratch);
      else if (!forward)
        backward.extreme(g, part, dy, winners.offsets, dx, scratch);
      else if (p.kind == PoolKind::kAverage)
        kernels.average(g, part, x, y, scratch);
      else
        (p.kind == PoolKind::kMax ? kernels.max : kernels.min)(g, part, x, y, winners, scratch);
    });
  });
  return Failure::kNone;
}

}  // namespace

Failure run_pool(const PoolProblem& p, const Options& options, const PoolBuffers& buffers, char* text) {
  text[0] = 0;
  if (p.n == 0 || p.c == 0) return Failure::kNone;
  if (is_norm(p.kind) && !(buffers.norm >= 1 && std::isfinite(buffers.norm))) {
    snprintf(text, kTextCapacity, "the norm of lp pooling is %g; expected a finite number of at least 1", buffers.norm);
    return Failure::kProblem;
  }
  if (is_extreme(p.kind) && (buffers.offsets ? !has_offsets(p) : p.pass != Pass::kForward)) {
    snprintf(text, kTextCapacity,
             "the gradient of %s pooling by offsets needs windows of one size and at most 256 taps", name_of(p.kind));
    return Failure::kUnsupported;
  }
  if (p.dtype == DType::kFloat64) return run<double>(p, options, buffers, text);
  if (p.dtype != DType::kFloat32) {
    snprintf(text, kTextCapacity, "pooling computes f32 and f64, got %s", name_of(p.dtype));
    return Failure::kUnsupported;
  }
  const int64_t rows = (p.window[0] - 1) * p.dilation[0] * p.size[1] + (p.window[1] - 1) * p.dilation[1] + 1;
  const int64_t reach = p.adaptive ? x_plane(p) : std::min(x_plane(p), rows * p.size[2]);
  if (is_extreme(p.kind) && buffers.indices && reach > INT32_MAX) {
    snprintf(text, kTextCapacity,
             "%s pooling of float32 returns indices of windows that span less than 2^31 elements"
             " of the input; use float64, or return no indices",
             name_of(p.kind));
    return Failure::kUnsupported;
  }
  return run<float>(p, options, buffers, text);
}

}  // namespace fastconv
