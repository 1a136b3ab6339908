// SPDX-License-Identifier: Apache-2.0
// Backward-filter as a matrix product whose column matrix is never built:
//   dw[lane][row] = sum over pixels of dy[pixel][lane] * x[place of pixel + offset of row]
// lanes are output channels, a row is (input channel, tap), per group; pixels are (image, pixel of y). A filter of one
// tap may swap the two: then lanes are input channels and rows output channels.
//
//   for each part of the pixels, group, share of lanes and share of channels (the items that threads share):
//     for each strip of pixels in the part:
//       turn dy to panels[block of lanes][pixel][at most 4 vectors]                         in L2
//       for each block of channels:
//         copy what the strip reads to the halo buffer (halo.h); without padding x itself   in L2
//         for each block of lanes, for every 6 rows: one register tile, added to sums[row][lane]
//   add the parts in a pairwise tree and turn them to dw
// With a single strip the tiles of 96 rows go to dw straight from L1. Parts, strips and blocks, and so every sum, come
// from the problem alone. Copies count: x is read once per share of lanes, dy once per share of channels, and each part
// has sums of its own; the shares are those for which this is least.
#include "implicit_gemm_filter.h"

#include <algorithm>
#include <type_traits>

#include "../parallel.h"
#include "../phases.h"
#include "implicit_gemm_filter_blocking.h"

namespace fastconv {
namespace {

template <class T>
class FilterProduct {
 public:
  FilterProduct(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p, *r.machine),
        room(p, b),
        grid(b.swapped ? identity_grid(p) : forward_grid(p, r.pad_value)),
        lane_grid(b.strided ? forward_grid(p) : identity_grid(p)),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        x(*r.machine, p.dtype, r.x),
        y(*r.machine, p.dtype, r.y),
        w(*r.machine, r.w_dtype, r.w) {}

  static int64_t workspace(const ConvProblem& p, const Machine& m, int slots) {
    const FilterBlocking<T> b(p, m);
    return sum_bytes(b) + slots * Room(p, b).bytes();
  }

  void run() const {
    if (b.pixels == 0) return w.fill_zeros(0, p.k * (p.c / p.groups) * b.filter);
    T* sums = static_cast<T*>(r.workspace);
    char* scratch = static_cast<char*>(r.workspace) + sum_bytes(b);
    const int64_t shares = b.groups * b.lane_shares * b.channel_shares;
    parallel_for(r.parallel, b.parts * shares, [&](int64_t item, int slot) {
      const int64_t part = item / shares, group = item % shares / b.lane_shares / b.channel_shares;
      compute(part, group, item / b.channel_shares % b.lane_shares, item % b.channel_shares,
              sums + part * b.part_elements(), scratch + slot * room.bytes());
    });
    if (b.straight() || b.direct()) return;
    // A share of rows is a whole number of chunks.
    const int64_t chunks = ceil_div(b.rows(), kFilterRowChunk);
    parallel_for(r.parallel, b.groups * b.lane_blocks * chunks, [&](int64_t item, int slot) {
      const PhaseScope adding(r.phases, Phase::kSums);
      const int64_t row = item % chunks * kFilterRowChunk, rows = std::min(kFilterRowChunk, b.rows() - row);
      const int64_t block = item / chunks % b.lane_blocks, group = item / chunks / b.lane_blocks;
      const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
      const T* at = sums + sums_of(group, begin) + row * width;
      if (b.parts > 1) {
        T* total = reinterpret_cast<T*>(scratch + slot * room.bytes());
        kernels.reduce(rows * width, b.parts, at, b.part_elements(), total);
        at = total;
      }
      put(group, block, row, rows, at);
    });
  }

 private:
  // Scratch of a worker: sums of a chunk of rows; lanes that lay apart; panels; halo; places of pixels and offsets of
  // rows.
  struct Room {
    int64_t chunk, dense, panels, halo, places, offsets;
    Room(const ConvProblem& p, const FilterBlocking<T>& b) {
      const int64_t width = int64_t{b.tiles.vectors} * b.tiles.lanes;
      chunk = aligned(kFilterRowChunk * width * sizeof(T));
      dense = b.strided ? aligned(width * b.strip() * sizeof(T)) : 0;
      panels = aligned(ceil_div(b.lane_blocks, b.lane_shares) * width * b.strip() * sizeof(T));
      halo = aligned(b.halo_elements(p, b.channel_block) * sizeof(T));
      places = aligned(b.strip() * sizeof(int64_t));
      offsets = aligned(b.channel_block * b.filter * sizeof(int64_t));
    }
    int64_t bytes() const { return chunk + dense + panels + halo + places + offsets; }
  };

  static int64_t sum_bytes(const FilterBlocking<T>& b) {
    return b.straight() || b.direct() ? 0 : aligned(b.parts * b.part_elements() * static_cast<int64_t>(sizeof(T)));
  }
  // Where the sums of a block of lanes begin: sums[group][block][row][lane of the block].
  int64_t sums_of(int64_t group, int64_t begin) const { return (group * b.vectors * b.tiles.lanes + begin) * b.rows(); }

  void compute(int64_t part, int64_t group, int64_t lane_share, int64_t channel_share, T* sums, char* mine) const {
    T* chunk = reinterpret_cast<T*>(mine);
    T* dense = reinterpret_cast<T*>(mine += room.chunk);
    T* panels = reinterpret_cast<T*>(mine += room.dense);
    T* halo = reinterpret_cast<T*>(mine += room.panels);
    int64_t* places = reinterpret_cast<int64_t*>(mine += room.halo);
    int64_t* offsets = reinterpret_cast<int64_t*>(mine += room.places);
    const int64_t first_block = lane_share * b.lane_blocks / b.lane_shares;
    const int64_t last_block = (lane_share + 1) * b.lane_blocks / b.lane_shares;
    const int64_t first_channel = channel_share * b.channels / b.channel_shares;
    const int64_t last_channel = (channel_share + 1) * b.channels / b.channel_shares;
    const int64_t first_strip = part * b.strips / b.parts, last_strip = (part + 1) * b.strips / b.parts;
    for (int64_t strip = first_strip; strip < last_strip; ++strip) {
      const int64_t pixel = strip * b.pixels / b.strips, pixels = (strip + 1) * b.pixels / b.strips - pixel;
      for (int64_t block = first_block; block < last_block; ++block)
        turn(group, block, pixel, pixels, dense, panels + (b.block_begin(block) - b.block_begin(first_block)) * pixels);
      for (int64_t channel = first_channel; channel < last_channel; channel += b.channel_block) {
        const int64_t channels = std::min(b.channel_block, last_channel - channel);
        const T* source = find_source(group * b.channels + channel, channels, pixel, pixels, halo, places, offsets);
        const PhaseScope multiplying(r.phases, Phase::kProducts);
        for (int64_t block = first_block; block < last_block; ++block) {
          const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
          const T* panel = panels + (begin - b.block_begin(first_block)) * pixels;
          T* block_sums = b.direct() ? w.at((group * b.channels + channel) * b.lanes + begin)
                                     : sums + sums_of(group, begin) + channel * b.filter * width;
          const int64_t pitch = b.direct() ? b.lanes : width;
          for (int64_t row = 0, rows; row < channels * b.filter; row += rows) {
            rows = std::min(kFilterRowChunk, channels * b.filter - row);
            T* at = b.straight() ? chunk : block_sums + row * pitch;
            const int64_t tiles = ceil_div(rows, int64_t{b.tiles.rows});
            for (int64_t tile = 0; tile < tiles; ++tile) {
              const int64_t begin_row = tile * rows / tiles, size = (tile + 1) * rows / tiles - begin_row;
              const bool ends = row + begin_row + 2 * size > channels * b.filter;
              b.tiles.tile(static_cast<int>(size), width, pixels, places, source, offsets + row + begin_row,
                           offsets + (ends ? 0 : row + begin_row + size), panel, at + begin_row * pitch, pitch,
                           strip > first_strip);
            }
            if (b.straight()) put(group, block, channel * b.filter + row, rows, chunk);
          }
        }
      }
    }
  }

  // What the channels' pixels and their taps are read from.
  const T* find_source(int64_t channel, int64_t channels, int64_t pixel, int64_t pixels, T* halo, int64_t* places,
                       int64_t* offsets) const {
    const PhaseScope gathering(r.phases, Phase::kInput);
    const ImageLayout& layout = b.swapped ? y_layout : x_layout;
    const Stored<T>& tensor = b.swapped ? y : x;
    if (b.in_place) {
      place_in_tensor(layout, pixel, pixels, channels, places, offsets);
      return tensor.at(channel * layout.channel_step());
    }
    if (grid.reads_as_written() && layout.layout == Layout::kChannelsFirst) {  // 1 x 1: planes as they are
      copy_planes(kernels, grid, layout, tensor, channel, channels, pixel, pixels, halo);
      for (int64_t i = 0; i < pixels; ++i) places[i] = i;
      for (int64_t i = 0; i < channels; ++i) offsets[i] = i * pixels;
      return halo;
    }
    const HaloGather<T> gather(kernels, grid, pixel, pixels, Strides::kKept);
    gather.fill(layout, tensor, channel, channels, halo);
    place_in_halo(gather, pixel, pixels, channels, halo, places, offsets);
    return gather.halo(halo);
  }

  // panel[pixel][lane of the block]; lanes beyond the last channel are 0.
  void turn(int64_t group, int64_t block, int64_t pixel, int64_t pixels, T* dense, T* panel) const {
    const PhaseScope turning(r.phases, Phase::kInput);
    const ImageLayout& layout = b.swapped ? x_layout : y_layout;
    const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
    const int64_t count = std::min(width, b.lanes - begin);
    const Stored<T>& tensor = b.swapped ? x : y;
    const int64_t of_block = (group * b.lanes + begin) * layout.channel_step();
    if (b.strided) {
      const ColumnAxis* a = lane_grid.axis;
      each_run(lane_grid, pixel, pixels, [&](const Run& run) {
        const int64_t row = run.o[0] * a[0].step * a[1].size + run.o[1] * a[1].step;
        const int64_t src =
            of_block + run.n * layout.batch_pitch + (row * a[2].size + run.o[2] * a[2].step) * layout.pixel_step();
        if (layout.layout == Layout::kChannelsFirst)
          tensor.gather_row(kernels, run.count, 0, run.count, src, a[2].step, layout.channel_pitch, dense + run.lane,
                            pixels, count);
        else
          tensor.gather_row(kernels, width, 0, count, src, 1, a[2].step * layout.channel_pitch,
                            panel + run.lane * width, width, run.count);
      });
      if (layout.layout == Layout::kChannelsFirst) kernels.transpose(count, pixels, width, dense, pixels, panel, width);
      return;
    }
    each_pixel_run(lane_grid, pixel, pixels, [&](int64_t lane, int64_t run, int64_t n, int64_t at) {
      const int64_t src = of_block + n * layout.batch_pitch + at * layout.pixel_step();
      if (layout.layout == Layout::kChannelsFirst)
        tensor.transpose(kernels, count, run, width, src, layout.channel_pitch, panel + lane * width, width);
      else
        tensor.gather_row(kernels, width, 0, count, src, 1, layout.channel_pitch, panel + lane * width, width, run);
    });
  }

  // Without padding: the pixels and rows of the tensor itself.
  void place_in_tensor(const ImageLayout& layout, int64_t pixel, int64_t pixels, int64_t channels, int64_t* places,
                       int64_t* offsets) const {
    const ColumnAxis* a = grid.axis;
    const int64_t step = layout.pixel_step();
    each_run(grid, pixel, pixels, [&](const Run& run) {
      const int64_t row = run.o[0] * a[0].step * a[1].size + run.o[1] * a[1].step;
      int64_t place = run.n * layout.batch_pitch + (row * a[2].size + run.o[2] * a[2].step) * step;
      for (int64_t i = 0; i < run.count; ++i, place += a[2].step * step) places[run.lane + i] = place;
    });
    for (int64_t channel = 0; channel < channels; ++channel)
      for (int64_t t0 = 0; t0 < a[0].taps; ++t0)
        for (int64_t t1 = 0; t1 < a[1].taps; ++t1)
          for (int64_t t2 = 0; t2 < a[2].taps; ++t2) {
            const int64_t row = t0 * a[0].offset_step * a[1].size + t1 * a[1].offset_step;
            *offsets++ = channel * layout.channel_step() + (row * a[2].size + t2 * a[2].offset_step) * step;
          }
  }

  void place_in_halo(const HaloGather<T>& gather, int64_t pixel, int64_t pixels, int64_t channels, T* halo,
                     int64_t* places, int64_t* offsets) const {
    const int64_t* tap_offsets = gather.tap_offsets(halo);
    for (int64_t channel = 0; channel < channels; ++channel)
      for (int64_t tap = 0; tap < b.filter; ++tap) *offsets++ = channel * gather.channel_pitch() + tap_offsets[tap];
    int64_t slab = 0;
    each_run(grid, pixel, pixels, [&](const Run& run) {
      const int64_t place = gather.offset_of(run, &slab);
      for (int64_t i = 0; i < run.count; ++i) places[run.lane + i] = place + i * gather.point_step();
    });
  }

  // sums[row][lane of the block] to their weights.
  void put(int64_t group, int64_t block, int64_t row, int64_t rows, const T* sums) const {
    const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
    const int64_t count = std::min(width, b.lanes - begin);
    if (b.swapped)
      w.put_rows(kernels, rows, count, sums, width, (group * b.channels + row) * b.lanes + begin, b.lanes);
    else
      w.put_transposed(kernels, rows, count, sums, width, (group * b.lanes + begin) * b.rows() + row, b.rows());
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const FilterBlocking<T> b;
  const Room room;
  const ColumnGrid grid, lane_grid;  // of the tensors that rows and lanes read
  const ImageLayout x_layout, y_layout;
  const Stored<T> x, y, w;
};

template <class T>
void estimate_as(const ConvProblem& p, const Machine& m, Estimate* e) {
  const FilterBlocking<T> b(p, m);
  const double cycle = 4 * b.tiles.lanes / (std::is_same_v<T, double> ? m.flops_f64 : m.flops_f32);
  const bool lanes_last = (b.swapped ? p.x_layout : p.y_layout) == Layout::kChannelsLast;
  const bool rows_last = (b.swapped ? p.y_layout : p.x_layout) == Layout::kChannelsLast;
  const double strips = times(b.strips, b.groups);
  e->add("filter start", 2e-6);
  e->add("filter products", b.tile_cycles * cycle);
  e->add("filter tiles", strips * times(b.lane_blocks, ceil_div(b.rows(), int64_t{b.tiles.rows})) * 15e-9);
  e->add(lanes_last  ? "lanes moved"
         : b.strided ? "lanes apart"
                     : "lanes turned",
         times(b.pixels, b.groups, b.channel_shares, b.vectors, b.tiles.lanes) * 0.12e-9);
  e->add("lanes", strips * times(b.channel_shares, b.lane_blocks) * 50e-9);
  if (!b.in_place && b.pixels > 0) {
    const HaloCounts halo(forward_grid(p), b.strip(), Strides::kKept);
    e->add("filter halo lines", strips * times(b.lane_shares, b.channels) * halo.lines * 3e-9);
    e->add(rows_last ? "filter halo turned" : "filter halo",
           strips * times(b.lane_shares, b.channels) * halo.elements * 0.2e-9);
  }
  e->add("places", strips * times(b.lane_shares, b.channel_shares, b.strip()) * 1e-9);
  e->add(b.straight() ? "weights straight" : "sums", times(b.part_elements(), b.straight() ? 1 : b.parts) * 0.3e-9);
}

bool is_double(const ConvProblem& p) { return p.dtype == DType::kFloat64; }

}  // namespace

int64_t implicit_filter_workspace(const ConvProblem& p, const Machine& m, int slots) {
  return is_double(p) ? FilterProduct<double>::workspace(p, m, slots) : FilterProduct<float>::workspace(p, m, slots);
}

void implicit_filter_estimate(const ConvProblem& p, const Machine& m, Estimate* e) {
  is_double(p) ? estimate_as<double>(p, m, e) : estimate_as<float>(p, m, e);
}

// Channels last, rows are read in place; 1 x 1, tiles may be those of dw itself.
TakenHalves implicit_filter_takes_halves(const ConvProblem* p) {
  const bool planes = p->x_layout == Layout::kChannelsFirst && p->y_layout == Layout::kChannelsFirst;
  const bool swaps = taps(*p) == 1 && unpadded(*p), near = copies_stay_near(*p);
  if (planes && (swaps || !near)) return TakenHalves::kAll;
  return near && !swaps ? TakenHalves::kWeights : TakenHalves::kNone;
}

void implicit_filter_run(const ConvProblem& p, const RunContext& r) {
  is_double(p) ? FilterProduct<double>(p, r).run() : FilterProduct<float>(p, r).run();
}

}  // namespace fastconv
