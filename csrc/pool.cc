// SPDX-License-Identifier: Apache-2.0
// Cuts a pooling into items: groups of planes, or pieces of one plane when it is large. A piece of the input's gradient
// gathers from all the outputs over it, so that no two items write to the same place; only max pooling's backward,
// which must scatter, takes whole planes.
#include "pool.h"

#include <atomic>
#include <cinttypes>
#include <cstdio>

#include "kernels/pool_kernels.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kSegment = 2048;     // columns of one piece of a plane: its folded rows stay in L1
constexpr int64_t kChannelSlice = 32;  // of max pooling's backward with channels last
constexpr int64_t kVectorRoom = 64;    // elements: kernels read and write whole vectors of their scratch

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
  const bool planes = p.layout == Layout::kChannelsFirst;
  g.x_pixel = planes ? 1 : buffers.x_channel_pitch;
  g.y_pixel = planes ? 1 : p.c;
  g.row_count = std::max(p.window[0] * p.window[1], 2 * p.window[2]);
  if (planes) {
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
  int64_t columns, column_items;

  Pieces(int64_t plane_count, int64_t row_count, int64_t column_count, int64_t bytes)
      : planes(plane_count), rows(row_count), columns(column_count), column_items(ceil_div(column_count, kSegment)) {
    const int64_t plane_bytes = std::max<int64_t>(1, bytes / plane_count);
    const int64_t row_bytes = std::max<int64_t>(1, plane_bytes / rows / column_items);
    rows_per_item = std::clamp<int64_t>(kItemBytes / row_bytes, 1, rows);
    row_items = ceil_div(rows, rows_per_item);
    planes_per_item = row_items * column_items > 1 ? 1 : std::clamp<int64_t>(kItemBytes / plane_bytes, 1, planes);
  }
  int64_t count() const { return ceil_div(planes, planes_per_item) * row_items * column_items; }

  // Calls visit(plane, part) for the planes of an item.
  template <class Visit>
  void visit(int64_t item, int64_t channels, const Visit& visit) const {
    const int64_t column = item % column_items * kSegment, row = item / column_items % row_items * rows_per_item;
    const PoolPart part = {row, std::min(rows, row + rows_per_item), column, std::min(columns, column + kSegment),
                           channels};
    const int64_t first = item / column_items / row_items * planes_per_item;
    for (int64_t plane = first; plane < std::min(planes, first + planes_per_item); ++plane) visit(plane, part);
  }
};

template <class T>
Failure run(const PoolProblem& p, const Options& options, const PoolBuffers& buffers, char* text) {
  const bool planes = p.layout == Layout::kChannelsFirst;
  const PoolGeometry g = geometry_of(p, buffers);
  const KernelTable& table = *options.machine->kernels;
  const PoolKernelsOf<T>& kernels = kernels_of<T>(planes ? *table.pool_planes : *table.pool_pixels);
  const int64_t x_size = x_plane(p), y_size = y_plane(p), images = planes ? p.n * p.c : p.n;
  const int64_t channels = planes ? 1 : p.c;
  const int64_t element = sizeof(T), with_indices = p.kind == PoolKind::kMax && buffers.indices ? 8 : 0;
  const int64_t bytes = p.n * p.c * (x_size * element + y_size * (element + with_indices));
  const Parallel parallel = worth_sharing(*options.machine, bytes, options.threads);
  T* const x = static_cast<T*>(buffers.x);
  T* const y = static_cast<T*>(buffers.y);
  const auto x_image = [&](int64_t image) {
    return planes ? x + image / p.c * buffers.x_batch_pitch + image % p.c * buffers.x_channel_pitch
                  : x + image * buffers.x_batch_pitch;
  };

  if (p.kind == PoolKind::kMax && p.pass != Pass::kForward) {
    const int64_t slice = planes ? 1 : std::min(kChannelSlice, p.c), slices = ceil_div(channels, slice);
    const int64_t image_bytes = std::max<int64_t>(1, bytes / (images * slices));
    const int64_t group = std::clamp<int64_t>(kItemBytes / image_bytes, 1, images * slices);
    std::atomic<bool> inside{true};
    parallel_for(parallel, ceil_div(images * slices, group), [&](int64_t item, int) {
      for (int64_t i = item * group; i < std::min(images * slices, (item + 1) * group); ++i) {
        const int64_t image = i / slices, channel = i % slices * slice, y_at = image * y_size * channels + channel;
        if (!kernels.max_backward(g, std::min(slice, channels - channel), y + y_at, buffers.indices + y_at,
                                  x_image(image) + channel))
          inside.store(false, std::memory_order_relaxed);
      }
    });
    if (inside.load()) return Failure::kNone;
    snprintf(text, kTextCapacity, "indices holds a position outside of the input's plane; expected 0 to %" PRId64,
             x_size - 1);
    return Failure::kProblem;
  }

  const int64_t scratch_bytes = (g.row_count * 8 + 3 * g.row_elements * element + 63) / 64 * 64;
  const Workspace workspace(scratch_bytes * parallel.slots);
  if (workspace.failed()) {
    snprintf(text, kTextCapacity, "pooling: no memory for %" PRId64 " bytes of workspace",
             scratch_bytes * parallel.slots);
    return Failure::kWorkspace;
  }
  const bool forward = p.pass == Pass::kForward;
  const Pieces pieces = forward ? Pieces(images, g.out[0] * g.out[1], g.out[2], bytes)
                                : Pieces(images, g.size[0] * g.size[1], g.size[2], bytes);
  parallel_for(parallel, pieces.count(), [&](int64_t item, int slot) {
    void* scratch = static_cast<char*>(workspace.data()) + slot * scratch_bytes;
    pieces.visit(item, channels, [&](int64_t image, const PoolPart& part) {
      T* const y_image = y + image * y_size * channels;
      if (!forward)
        kernels.average_backward(g, part, y_image, x_image(image), scratch);
      else if (p.kind == PoolKind::kAverage)
        kernels.average(g, part, x_image(image), y_image, scratch);
      else
        kernels.max(g, part, x_image(image), y_image,
                    buffers.indices ? buffers.indices + image * y_size * channels : nullptr, scratch);
    });
  });
  return Failure::kNone;
}

}  // namespace

Failure run_pool(const PoolProblem& p, const Options& options, const PoolBuffers& buffers, char* text) {
  text[0] = 0;
  if (p.n == 0 || p.c == 0) return Failure::kNone;
  if (p.dtype == DType::kFloat64) return run<double>(p, options, buffers, text);
  if (p.dtype != DType::kFloat32) {
    snprintf(text, kTextCapacity, "pooling computes f32 and f64, got %s", name_of(p.dtype));
    return Failure::kUnsupported;
  }
  const int64_t rows = (p.window[0] - 1) * p.dilation[0] * p.size[1] + (p.window[1] - 1) * p.dilation[1] + 1;
  if (p.kind == PoolKind::kMax && buffers.indices && std::min(x_plane(p), rows * p.size[2]) > INT32_MAX) {
    snprintf(text, kTextCapacity,
             "max pooling of float32 returns indices of windows that span less than 2^31 elements"
             " of the input; use float64, or return no indices");
    return Failure::kUnsupported;
  }
  return run<float>(p, options, buffers, text);
}

}  // namespace fastconv
