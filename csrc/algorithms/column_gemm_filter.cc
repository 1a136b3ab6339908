// SPDX-License-Identifier: Apache-2.0
// Backward-filter:
//   [K x pixels] * [pixels x (channel, tap)] -> [K x (channel, tap)], per group; pixels are (image, pixel of y).
//
//   for each part of the pixels, block of k and block of channels (the items that threads share):
//     for each block of pixels:
//       gather dy and the columns of x into panels of nr pixels, transpose them to [pixel][k] and [pixel][(c, tap)]
//       for each piece of k, for each panel of (c, tap): one register tile, added to the part's sums
//   the parts are added in a pairwise tree.
// The parts and blocks, and so every sum, come from the problem alone.
#include <algorithm>

#include "../halo.h"
#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "../rounding.h"
#include "column_gemm.h"

namespace fastconv {
namespace {

constexpr int64_t kPixelBlock = 128;              // depth of a tile
constexpr int64_t kRowBlock = 256;                // k
constexpr int64_t kFilterBlock = 256;             // (c, tap): 128 KiB of float32 beside as much of dy, in L2
constexpr int64_t kItems = 8;                     // wanted at least
constexpr int64_t kPartBytes = int64_t{8} << 20;  // of all parts together

struct Blocking {
  int64_t rows, channels, filter;  // per group: k, c, taps
  int64_t pixels, blocks;          // of all images; blocks of them
  int64_t row_chunks, channel_block, channel_chunks, parts;

  explicit Blocking(const ConvProblem& p) {
    rows = p.k / p.groups;
    channels = p.c / p.groups;
    filter = taps(p);
    pixels = p.n * y_plane(p);
    blocks = ceil_div(pixels, kPixelBlock);
    row_chunks = ceil_div(rows, kRowBlock);
    channel_block = std::clamp(ceil_div(kFilterBlock, filter), int64_t{1}, channels);
    channel_chunks = ceil_div(channels, channel_block);
    const int64_t shares = p.groups * row_chunks * channel_chunks;
    const int64_t bytes = std::max<int64_t>(1, p.k * channels * filter * computed_size(p.dtype));
    parts = std::clamp(ceil_div(kItems, shares), int64_t{1}, std::max<int64_t>(1, blocks));
    parts = std::clamp(parts, int64_t{1}, std::max<int64_t>(1, kPartBytes / bytes));
  }

  int64_t panels_columns(int nr) const { return ceil_div(channel_block * filter, nr) * nr; }
  int64_t weights(const ConvProblem& p) const { return p.k * channels * filter; }
};

template <class T>
struct Scratch {
  int64_t gathered, halo, left, right;  // elements: panels of pixels; [piece][pixel][k]; [panel][pixel][(c, tap)]

  Scratch(const ConvProblem& p, const Blocking& b, int nr) {
    const int64_t rows = std::min(b.rows, kRowBlock), pixels = ceil_div(kPixelBlock, nr) * nr;
    gathered = std::max(b.channel_block * b.filter, rows) * pixels + nr;
    halo = gather_scratch(forward_grid(p), kPixelBlock, b.channel_block, nr);
    left = rows * kPixelBlock;
    right = b.panels_columns(nr) * kPixelBlock;
  }
  int64_t bytes() const {
    return aligned(gathered * sizeof(T)) + aligned(halo * sizeof(T)) + aligned(left * sizeof(T)) +
           aligned(right * sizeof(T));
  }
};

template <class T>
class FilterGradient {
 public:
  FilterGradient(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p),
        sizes(p, b, kernels.nr),
        x_grid(forward_grid(p, r.pad_value)),
        y_grid(identity_grid(p)),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        x(*r.machine, p.dtype, r.x),
        y(*r.machine, p.dtype, r.y) {}

  static int64_t workspace(const ConvProblem& p, const Machine& m, int slots) {
    const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
    const Blocking b(p);
    const int64_t sums = b.parts > 1 ? b.parts * aligned(b.weights(p) * sizeof(T)) : 0;
    return sums + slots * Scratch<T>(p, b, kernels.nr).bytes();
  }

  void run() const {
    T* w = static_cast<T*>(r.w);
    const int64_t weights = b.weights(p), pitch = aligned(weights * sizeof(T)) / static_cast<int64_t>(sizeof(T));
    if (b.pixels == 0) return std::fill(w, w + weights, T(0));
    char* workspace = static_cast<char*>(r.workspace);
    T* sums = b.parts > 1 ? reinterpret_cast<T*>(workspace) : w;
    char* scratch = workspace + (b.parts > 1 ? b.parts * pitch * static_cast<int64_t>(sizeof(T)) : 0);
    const int64_t shares = p.groups * b.row_chunks * b.channel_chunks;
    parallel_for(r.parallel, b.parts * shares, [&](int64_t item, int slot) {
      compute(item / shares, item % shares, sums + item / shares * pitch, scratch + slot * sizes.bytes());
    });
    if (b.parts == 1) return;
    constexpr int64_t kReduceBlock = 4096;
    parallel_for(r.parallel, ceil_div(weights, kReduceBlock), [&](int64_t item, int) {
      const PhaseScope adding(r.phases, Phase::kSums);
      const int64_t begin = item * kReduceBlock;
      kernels.reduce(std::min(kReduceBlock, weights - begin), b.parts, sums + begin, pitch, w + begin);
    });
  }

 private:
  void compute(int64_t part, int64_t share, T* sums, char* scratch) const {
    T* gathered = reinterpret_cast<T*>(scratch);
    T* halo = reinterpret_cast<T*>(scratch += aligned(sizes.gathered * sizeof(T)));
    T* left = reinterpret_cast<T*>(scratch + aligned(sizes.halo * sizeof(T)));
    T* right = reinterpret_cast<T*>(reinterpret_cast<char*>(left) + aligned(sizes.left * sizeof(T)));
    const int64_t channel = share % b.channel_chunks * b.channel_block;
    const int64_t channels = std::min(b.channel_block, b.channels - channel);
    const int64_t chunk = share / b.channel_chunks % b.row_chunks, group = share / b.channel_chunks / b.row_chunks;
    const int64_t row = chunk * b.rows / b.row_chunks, rows = (chunk + 1) * b.rows / b.row_chunks - row;
    const int64_t pieces = ceil_div(rows, kernels.mr), columns = channels * b.filter,
                  depth_total = b.channels * b.filter;
    T* c = sums + (group * b.rows + row) * depth_total + channel * b.filter;

    const int64_t first = part * b.blocks / b.parts, last = (part + 1) * b.blocks / b.parts;
    for (int64_t block = first; block < last; ++block) {
      const int64_t pixel = block * kPixelBlock, depth = std::min(kPixelBlock, b.pixels - pixel);
      gather(pixel, depth, group * b.rows + row, rows, pieces, group * b.channels + channel, channels, gathered, halo,
             left, right);
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      for (int64_t i = 0; i < pieces; ++i) {
        const int64_t begin = i * rows / pieces, size = (i + 1) * rows / pieces - begin;
        for (int64_t j = 0; j < columns; j += kernels.nr) {
          const TileSums<T> out{c + begin * depth_total + j,
                                size,
                                std::min<int64_t>(kernels.nr, columns - j),
                                depth_total,
                                block > first,
                                left + (begin + size) * depth,
                                c + begin * depth_total + j + kernels.nr,
                                right + j * depth};
          kernels.tile(depth, left + begin * depth, right + j * depth, &out);
        }
      }
    }
  }

  // Both factors of a block of pixels.
  void gather(int64_t pixel, int64_t depth, int64_t row, int64_t rows, int64_t pieces, int64_t channel,
              int64_t channels, T* gathered, T* halo, T* left, T* right) const {
    const PhaseScope gathering(r.phases, Phase::kInput);
    const int64_t columns = channels * b.filter;
    pack_columns(kernels, y_grid, y_layout, y, pixel, depth, row, rows, gathered, halo);
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t begin = i * rows / pieces, size = (i + 1) * rows / pieces - begin;
      turn(depth, rows, begin, size, size, gathered, left + begin * depth);
    }
    pack_columns(kernels, x_grid, x_layout, x, pixel, depth, channel, channels, gathered, halo);
    for (int64_t j = 0; j < columns; j += kernels.nr)
      turn(depth, columns, j, std::min<int64_t>(kernels.nr, columns - j), kernels.nr, gathered, right + j * depth);
  }

  // dst[pixel][width] from lines begin .. begin + size of panels[pixel / nr][lines][nr].
  void turn(int64_t pixels, int64_t lines, int64_t begin, int64_t size, int64_t width, const T* panels, T* dst) const {
    const int64_t nr = kernels.nr;
    for (int64_t at = 0; at < pixels; at += nr)
      kernels.transpose(size, std::min(nr, pixels - at), width, panels + at * lines + begin * nr, nr, dst + at * width,
                        width);
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const Blocking b;
  const Scratch<T> sizes;
  const ColumnGrid x_grid, y_grid;
  const ImageLayout x_layout, y_layout;
  const Stored<T> x, y;
};

}  // namespace

int64_t column_filter_workspace(const ConvProblem& p, const Machine& m, int slots) {
  return p.dtype == DType::kFloat64 ? FilterGradient<double>::workspace(p, m, slots)
                                    : FilterGradient<float>::workspace(p, m, slots);
}

void column_filter_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  const Blocking b(p);
  const double peak = p.dtype == DType::kFloat64 ? m.flops_f64 : m.flops_f32;
  const int nr = p.dtype == DType::kFloat64 ? m.kernels->gemm->f64.nr : m.kernels->gemm->f32.nr;
  const int mr = p.dtype == DType::kFloat64 ? m.kernels->gemm->f64.mr : m.kernels->gemm->f32.mr;
  const double lanes = times(b.channels, b.filter) / times(b.panels_columns(nr), b.channel_chunks);
  const double macs = times(multiply_adds(p)), shares = times(b.blocks, p.groups);
  const HaloCounts halo(forward_grid(p), std::min(kPixelBlock, std::max<int64_t>(1, b.pixels)), Strides::kTakenApart);
  e->add("filter start", 2e-6);
  e->add("filter products", 2.0 * macs / (peak * lanes));
  e->add("filter items", shares * times(b.row_chunks, b.channel_chunks) * 0.5e-6);
  e->add("filter tiles",
         shares * times(ceil_div(b.rows, int64_t{mr}), b.panels_columns(nr) / nr, b.channel_chunks) * 20e-9);
  e->add("filter halo lines", shares * times(b.row_chunks, b.channels) * halo.lines * 3e-9);
  e->add(p.x_layout == Layout::kChannelsLast ? "filter halo turned" : "filter halo",
         shares * times(b.row_chunks, b.channels) * halo.elements * 0.2e-9);
  e->add("filter columns", macs / times(b.rows) * times(b.row_chunks) * 0.3e-9);
  e->add("gradients", times(b.pixels, p.k, b.channel_chunks) * 0.3e-9);
  e->add("sums", times(b.parts, b.weights(p)) * 0.3e-9);
}

void column_filter_run(const ConvProblem& p, const RunContext& r) {
  if (p.dtype == DType::kFloat64)
    FilterGradient<double>(p, r).run();
  else
    FilterGradient<float>(p, r).run();
}

}  // namespace fastconv
