// SPDX-License-Identifier: Apache-2.0
// A line is one channel of one image (channels first), or a slice of an image's channels (channels last). Few and large
// lines are cut into pieces of the plane: each piece gathers, in ascending order, the values that point into it. To
// find them it skips the blocks of indices whose smallest and largest value say that none does, so that the
// neighbouring windows of a pooling are read about once. No two items write to the same place, and the order of a sum
// is that of the indices whatever the pieces are.
#include "pool_positions.h"

#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kSlice = 32;      // channels
constexpr int64_t kManyLines = 16;  // from here on lines alone keep the threads busy
constexpr int64_t kBlock = 512;     // outputs whose range of indices is kept

struct Lines {
  int64_t slices, width, count;  // width: channels of a line, but for the last of an image
  const PositionProblem& p;

  explicit Lines(const PositionProblem& problem) : p(problem) {
    const bool planes = p.layout == Layout::kChannelsFirst;
    width = planes ? 1 : std::min(kSlice, p.c);
    slices = planes ? p.c : ceil_div(p.c, width);
    count = p.n * slices;
  }
  int64_t pitch() const { return p.layout == Layout::kChannelsFirst ? 1 : p.c; }  // between pixels
  int64_t channels(int64_t line) const { return std::min(width, p.c - line % slices * width); }
  // The first element of a line in a buffer of `pixels` per channel.
  int64_t start(int64_t line, int64_t pixels) const {
    return p.layout == Layout::kChannelsFirst ? line * pixels : line / slices * pixels * p.c + line % slices * width;
  }
};

Failure outside(const PositionProblem& p, char* text) {
  snprintf(text, kTextCapacity,
           "indices holds a position outside of the input's plane; expected %" PRId64 " to %" PRId64, p.least,
           p.pixels - 1);
  return Failure::kProblem;
}

struct Range {
  int64_t low, high;
};

// The smallest and largest index of a block of a line's outputs.
Range range_of(const Lines& lines, int64_t line, const int64_t* indices, int64_t first, int64_t last) {
  Range range = {INT64_MAX, INT64_MIN};
  const int64_t *at = indices + lines.start(line, lines.p.outputs), channels = lines.channels(line);
  for (int64_t i = first; i < last; ++i)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t index = at[i * lines.pitch() + c];
      range.low = std::min(range.low, index), range.high = std::max(range.high, index);
    }
  return range;
}

template <class T>
Failure scatter(const PositionProblem& p, const Options& options, const T* values, const int64_t* indices, T* plane,
                char* text) {
  const Lines lines(p);
  const int64_t line_bytes = lines.width * (p.pixels * int64_t{sizeof(T)} + p.outputs * int64_t{sizeof(T) + 8});
  const int64_t pieces = lines.count >= kManyLines ? 1 : std::clamp<int64_t>(line_bytes / kItemBytes, 1, p.pixels);
  const int64_t block = pieces == 1 ? std::max<int64_t>(1, p.outputs) : kBlock, blocks = ceil_div(p.outputs, block);
  const Parallel parallel = worth_sharing(*options.machine, lines.count * line_bytes, options.threads);
  const Workspace workspace(pieces == 1 ? 0 : lines.count * blocks * int64_t{sizeof(Range)});
  if (workspace.failed()) {
    snprintf(text, kTextCapacity, "max pooling backward: no memory for its workspace");
    return Failure::kWorkspace;
  }
  Range* const ranges = static_cast<Range*>(workspace.data());
  std::atomic<bool> inside{true};
  if (ranges)
    parallel_for(parallel, lines.count * blocks, [&](int64_t item, int) {
      const int64_t first = item % blocks * block, last = std::min(p.outputs, first + block);
      const Range range = range_of(lines, item / blocks, indices, first, last);
      ranges[item] = range;
      if (range.low < p.least || range.high >= p.pixels) inside.store(false, std::memory_order_relaxed);
    });
  if (!inside.load()) return outside(p, text);

  parallel_for(parallel, lines.count * pieces, [&](int64_t item, int) {
    const int64_t line = item / pieces, channels = lines.channels(line), pitch = lines.pitch();
    const int64_t begin = p.pixels * (item % pieces) / pieces, end = p.pixels * (item % pieces + 1) / pieces;
    const T* const v = values + lines.start(line, p.outputs);
    const int64_t* const at = indices + lines.start(line, p.outputs);
    T* const x = plane + lines.start(line, p.pixels);
    for (int64_t i = begin; i < end; ++i) memset(x + i * pitch, 0, static_cast<size_t>(channels) * sizeof(T));
    for (int64_t b = 0; b < blocks; ++b) {
      if (ranges && (ranges[line * blocks + b].high < begin || ranges[line * blocks + b].low >= end)) continue;
      for (int64_t i = b * block; i < std::min(p.outputs, (b + 1) * block); ++i)
        for (int64_t c = 0; c < channels; ++c) {
          const int64_t index = at[i * pitch + c];
          if (index >= begin && index < end)
            x[index * pitch + c] += v[i * pitch + c];
          else if (index < p.least || index >= p.pixels)
            return inside.store(false, std::memory_order_relaxed);
        }
    }
  });
  return inside.load() ? Failure::kNone : outside(p, text);
}

template <class T>
Failure gather(const PositionProblem& p, const Options& options, const T* plane, const int64_t* indices, T* values,
               char* text) {
  const Lines lines(p);
  const int64_t block = std::min(p.outputs, kItemBytes / (lines.width * int64_t{sizeof(T) + 8})), pitch = lines.pitch();
  const int64_t blocks = ceil_div(p.outputs, block);
  const int64_t bytes = lines.count * lines.width * p.outputs * int64_t{2 * sizeof(T) + 8};
  std::atomic<bool> inside{true};
  parallel_for(worth_sharing(*options.machine, bytes, options.threads), lines.count * blocks, [&](int64_t item, int) {
    const int64_t line = item / blocks, first = item % blocks * block, channels = lines.channels(line);
    const int64_t y_at = lines.start(line, p.outputs);
    const T* const x = plane + lines.start(line, p.pixels);
    for (int64_t i = first; i < std::min(p.outputs, first + block); ++i)
      for (int64_t c = 0; c < channels; ++c) {
        const int64_t at = y_at + i * pitch + c, index = indices[at];
        if (index < p.least || index >= p.pixels) return inside.store(false, std::memory_order_relaxed);
        values[at] = index < 0 ? T(0) : x[index * pitch + c];
      }
  });
  return inside.load() ? Failure::kNone : outside(p, text);
}

bool is_empty(const PositionProblem& p) { return p.n == 0 || p.c == 0; }

Failure unsupported(const PositionProblem& p, char* text) {
  snprintf(text, kTextCapacity, "pooling computes f32 and f64, got %s", name_of(p.dtype));
  return Failure::kUnsupported;
}

}  // namespace

Failure scatter_positions(const PositionProblem& p, const Options& options, const void* values, const int64_t* indices,
                          void* plane, char* text) {
  text[0] = 0;
  if (is_empty(p)) return Failure::kNone;
  if (p.dtype == DType::kFloat32)
    return scatter(p, options, static_cast<const float*>(values), indices, static_cast<float*>(plane), text);
  if (p.dtype == DType::kFloat64)
    return scatter(p, options, static_cast<const double*>(values), indices, static_cast<double*>(plane), text);
  return unsupported(p, text);
}

Failure gather_positions(const PositionProblem& p, const Options& options, const void* plane, const int64_t* indices,
                         void* values, char* text) {
  text[0] = 0;
  if (is_empty(p) || p.outputs == 0) return Failure::kNone;
  if (p.dtype == DType::kFloat32)
    return gather(p, options, static_cast<const float*>(plane), indices, static_cast<float*>(values), text);
  if (p.dtype == DType::kFloat64)
    return gather(p, options, static_cast<const double*>(plane), indices, static_cast<double*>(values), text);
  return unsupported(p, text);
}

Failure last_positions(const PositionProblem& p, const Options& options, const int64_t* indices, int64_t* last,
                       char* text) {
  text[0] = 0;
  if (is_empty(p) || p.outputs == 0) return Failure::kNone;
  const Lines lines(p);
  const int64_t bytes = lines.count * lines.width * (p.pixels + 16 * p.outputs), pitch = lines.pitch();
  const Parallel parallel = worth_sharing(*options.machine, bytes, options.threads);
  const Workspace workspace(parallel.slots * p.pixels);
  if (workspace.failed()) {
    snprintf(text, kTextCapacity, "unpooling: no memory for its workspace");
    return Failure::kWorkspace;
  }
  std::atomic<bool> inside{true};
  parallel_for(parallel, lines.count, [&](int64_t line, int slot) {
    char* const taken = static_cast<char*>(workspace.data()) + slot * p.pixels;
    for (int64_t c = 0; c < lines.channels(line); ++c) {
      memset(taken, 0, static_cast<size_t>(p.pixels));
      const int64_t start = lines.start(line, p.outputs) + c;
      for (int64_t i = p.outputs - 1; i >= 0; --i) {
        const int64_t index = indices[start + i * pitch];
        if (index < p.least || index >= p.pixels) return inside.store(false, std::memory_order_relaxed);
        const bool first_seen = index >= 0 && !taken[index];
        last[start + i * pitch] = first_seen ? index : -1;
        if (first_seen) taken[index] = 1;
      }
    }
  });
  return inside.load() ? Failure::kNone : outside(p, text);
}

}  // namespace fastconv
