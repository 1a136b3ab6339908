// SPDX-License-Identifier: Apache-2.0
// Dense convolution as a matrix product whose column matrix is never built, forward and backward-data:
//   written[pixel][row] = sum over (channel, tap) of read[place of pixel + offset of tap][channel] *
//   w[channel][tap][row] rows are the channels written (fwd: K/g of y; bwd_data: C/g of x), channels those read; a
//   pixel is one of the phase's grid (im2col.h); forward has one phase.
//
//   for each strip of pixels, one group and a share of its rows (the items that threads share):
//     copy what the strip reads, all channels, to the halo buffer (halo.h)          in L2
//     for each block of rows, at most 4 vectors:
//       for each block of steps (channel, tap): its weights, at most 32 KiB         in L1
//         for every 6 pixels: one register tile, sums[pixel][row]                   in L2
//       turn the sums to rows of pixels, finish and store them
//
// Against im2col_gemm: nothing is expanded tap by tap, and a tile takes any 6 pixels, so that 7 x 7 and 14 x 14 planes
// fill it. It refuses backward-filter, backward-data of padding that shows cells, and 16-bit types. Few rows leave
// lanes empty: im2col_gemm, whose lanes are pixels, is then the better one.
// Lanes of channels and a register tile of pixels are those of Zhang, Franchetti, Low, "High performance zero-memory
// overhead direct convolutions", ICML 2018; here the halo is copied, for padding, strides and either layout.
#include <algorithm>
#include <cstdio>
#include <type_traits>

#include "../algorithm.h"
#include "../halo.h"
#include "../machine.h"
#include "../parallel.h"
#include "../rounding.h"
#include "../strip_store.h"
#include "../weight_rows.h"
#include "column_gemm_blocking.h"

namespace fastconv {
namespace {

constexpr int64_t kLeastStrip = 48;  // pixels; otherwise a strip's halo takes half of L2
constexpr int64_t kImageAlone = 96;  // pixels from which an image's strips do not join the next one's

template <class T>
const ImplicitKernelsOf<T>& tiles_of(const Machine& m) {
  if constexpr (std::is_same_v<T, float>)
    return m.kernels->implicit->f32;
  else
    return m.kernels->implicit->f64;
}

// The geometry and blocking of one problem; nothing here depends on the number of threads.
template <class T>
struct Blocking {
  const ImplicitKernelsOf<T>& tiles;
  bool forward;
  int64_t groups, rows, channels;  // per group: written, read
  int64_t all_taps, largest_taps;  // of the filter; of a phase
  int64_t vectors, row_blocks, row_shares;
  int64_t channel_block;  // channels of a block of steps
  int64_t strip;          // pixels
  bool direct;            // rows of pixels lie in the written tensor itself
  int64_t halo_elements;

  Blocking(const ConvProblem& p, const Machine& m) : tiles(tiles_of<T>(m)) {
    forward = p.pass == Pass::kForward;
    groups = p.groups;
    rows = (forward ? p.k : p.c) / groups;
    channels = (forward ? p.c : p.k) / groups;
    all_taps = taps(p);
    vectors = ceil_div(rows, int64_t{tiles.lanes});
    row_blocks = ceil_div(vectors, int64_t{tiles.vectors});
    largest_taps = 1;
    int64_t pixels = 1, phases = 1;
    each_phase(p, [&](const ColumnGrid& grid, int64_t) {
      largest_taps = std::max(largest_taps, grid.taps());
      pixels = std::max(pixels, grid.columns());
    });
    for (int a = 0; a < kMaxSpatial; ++a) phases *= forward ? 1 : phase_count(p, a);
    // A block of weights takes 16 KiB of L1; twice as much was 8 % slower (Ice Lake server, 48 KiB).
    const int64_t row_bytes = tiles.vectors * tiles.lanes * static_cast<int64_t>(sizeof(T));
    const int64_t steps = row_bytes >= 256 ? 64 : 256;
    channel_block = std::clamp(steps / largest_taps, int64_t{1}, channels);
    channel_block = ceil_div(channels, ceil_div(channels, channel_block));  // as equal as can be
    const Layout layout = forward ? p.y_layout : p.x_layout;
    direct = layout == Layout::kChannelsFirst && phases == 1 && (p.n == 1 || pixels >= kImageAlone);
    const int64_t all_pixels = std::max<int64_t>(1, direct ? pixels : p.n * pixels);
    strip = std::min(kMostColumns, all_pixels);
    for (;; strip = std::max(kLeastStrip, ceil_div(strip, int64_t{2}))) {
      halo_elements = 0;
      each_phase(p, [&](const ColumnGrid& grid, int64_t) {
        if (grid.taps() > 0) halo_elements = std::max(halo_elements, HaloGather<T>::scratch(grid, strip, channels, 64));
      });
      if (halo_elements * static_cast<int64_t>(sizeof(T)) <= m.l2_bytes / 2 || strip <= kLeastStrip) break;
    }
    // Equal shares, in whole tiles.
    const int64_t shares = ceil_div(all_pixels, strip);
    strip = std::min(strip, ceil_div(ceil_div(all_pixels, shares), int64_t{tiles.pixels}) * tiles.pixels);
    const int64_t items = phases * groups * shares * (direct ? p.n : 1);
    row_shares = std::clamp(ceil_div(kItems, std::max<int64_t>(1, items)), int64_t{1}, row_blocks);
  }

  // In elements from the group's first row; the last block may end beyond the last row.
  int64_t block_begin(int64_t block) const { return block * vectors / row_blocks * tiles.lanes; }
  int64_t width() const { return int64_t{tiles.vectors} * tiles.lanes; }
  int64_t group_elements() const { return vectors * tiles.lanes * channels * all_taps; }
};

// dst[group][phase][block of rows][channel][tap][row of the block]
template <class T>
void pack_as(const ConvProblem& p, const Machine& m, const Parallel& parallel, const void* w, void* packed) {
  const Blocking<T> b(p, m);
  const GemmKernelsOf<T>& kernels = gemm_kernels<T>(m);
  each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
    parallel_for(parallel, b.groups * b.row_blocks, [&](int64_t item, int) {
      const int64_t group = item / b.row_blocks, block = item % b.row_blocks;
      const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
      T* dst = static_cast<T*>(packed) + group * b.group_elements() +
               (before * b.vectors * b.tiles.lanes + begin * grid.taps()) * b.channels;
      pack_weight_rows(p, kernels, grid, static_cast<const T*>(w) + group * b.rows * b.channels * b.all_taps, b.rows,
                       b.channels, b.all_taps, begin, std::min(width, b.rows - begin), width, dst);
    });
  });
}

template <class T>
class Product {
 public:
  Product(const ConvProblem& problem, const RunContext& context, const T* packed_w, char* scratch)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p, *r.machine),
        store(p, r, kernels),
        weights(packed_w),
        scratch_(scratch),
        read_layout{b.forward ? p.x_layout : p.y_layout, b.forward ? r.x_batch_pitch : r.y_batch_pitch,
                    b.forward ? r.x_channel_pitch : r.y_channel_pitch},
        read(static_cast<const T*>(b.forward ? r.x : r.y)) {}

  // Scratch of a worker: halo; pixels and offsets; sums[pixel][row]; rows of pixels, and those of a residual.
  struct Room {
    int64_t halo, places, offsets, sums, turned;
    Room(const Blocking<T>& b, bool residual) {
      const int64_t pixels = ceil_div(b.strip, int64_t{b.tiles.pixels}) * b.tiles.pixels;
      halo = aligned(b.halo_elements * sizeof(T));
      places = aligned(pixels * sizeof(int64_t));
      offsets = aligned(b.channel_block * b.largest_taps * sizeof(int64_t));
      sums = aligned(pixels * b.width() * sizeof(T));
      turned = b.direct ? 0 : (residual ? 2 : 1) * aligned(b.strip * b.width() * sizeof(T));
    }
    int64_t bytes() const { return halo + places + offsets + sums + turned; }
  };

  void run() const {
    const Room room(b, r.residual != nullptr);
    const auto phase = [&](const ColumnGrid& grid, int64_t before) {
      const int64_t pixels = grid.columns(), all_pixels = b.direct ? pixels : pixels * p.n;
      const int64_t strips = ceil_div(all_pixels, b.strip), images = b.direct ? p.n : 1;
      parallel_for(r.parallel, images * strips * b.groups * b.row_shares, [&](int64_t item, int slot) {
        const int64_t share = item % b.row_shares, group = item / b.row_shares % b.groups;
        const int64_t strip = item / b.row_shares / b.groups;
        const int64_t first = strip % strips * b.strip;
        compute(grid, before, group, share, strip / strips * pixels + first, std::min(b.strip, all_pixels - first),
                scratch_ + slot * room.bytes(), room);
      });
    };
    each_phase(p, phase, r.pad_value);
  }

 private:
  void compute(const ColumnGrid& grid, int64_t before, int64_t group, int64_t share, int64_t pixel, int64_t pixels,
               char* mine, const Room& room) const {
    T* halo = reinterpret_cast<T*>(mine);
    int64_t* places = reinterpret_cast<int64_t*>(mine += room.halo);
    int64_t* offsets = reinterpret_cast<int64_t*>(mine += room.places);
    T* sums = reinterpret_cast<T*>(mine += room.offsets);
    T* turned = reinterpret_cast<T*>(mine += room.sums);
    const int64_t tap_count = grid.taps(), tile = b.tiles.pixels, padded = ceil_div(pixels, tile) * tile;
    const T* source = halo;
    int64_t channel_pitch = 0;
    if (tap_count > 0) {
      const HaloGather<T> gather(kernels, grid, pixel, pixels);
      gather.fill(read_layout, read, group * b.channels, b.channels, halo);
      source = gather.halo(halo);
      channel_pitch = gather.channel_pitch();
      const int64_t* tap_offsets = gather.tap_offsets(halo);
      for (int64_t channel = 0, step = 0; channel < b.channel_block; ++channel)
        for (int64_t tap = 0; tap < tap_count; ++tap) offsets[step++] = channel * channel_pitch + tap_offsets[tap];
      int64_t slab = 0;
      each_run(grid, pixel, pixels, [&](const Run& run) {
        const int64_t place = gather.offset_of(run, &slab);
        for (int64_t i = 0; i < run.count; ++i) places[run.lane + i] = place + i;
      });
    } else {
      std::fill_n(places, pixels, int64_t{0});
    }
    std::fill(places + pixels, places + padded, places[pixels - 1]);  // computed and dropped

    const T* group_weights = weights + group * b.group_elements() + before * b.vectors * b.tiles.lanes * b.channels;
    const int64_t last_block = (share + 1) * b.row_blocks / b.row_shares;
    for (int64_t block = share * b.row_blocks / b.row_shares; block < last_block; ++block) {
      const int64_t begin = b.block_begin(block), width = b.block_begin(block + 1) - begin;
      const T* w = group_weights + begin * b.channels * tap_count;
      for (int64_t channel = 0; channel < b.channels; channel += b.channel_block) {
        const int64_t steps = std::min(b.channel_block, b.channels - channel) * tap_count;
        const T* next = w + steps * width;  // the next block's weights, asked for while this one's are used
        const int64_t share_of_next = ceil_div(steps * width, padded / tile);
        for (int64_t i = 0; i < pixels; i += tile, next += share_of_next) {
          for (int64_t at = 0; at < share_of_next; at += 64 / static_cast<int64_t>(sizeof(T)))
            __builtin_prefetch(next + at, 0, 2);
          b.tiles.tile(width, steps, offsets, source + channel * channel_pitch, places + i, w, sums + i * width,
                       channel > 0);
        }
        w += steps * width;
      }
      const int64_t rows = std::min(width, b.rows - begin), channel = group * b.rows + begin;
      if (b.direct) {
        T* at = store.row(pixel, channel);
        kernels.transpose(pixels, rows, pixels, sums, width, at, store.row_pitch());
        store.finish_in_place(rows, pixels, at, channel);
      } else {
        kernels.transpose(pixels, rows, pixels, sums, width, turned, b.strip);
        store.move(grid, pixel, pixels, channel, rows, turned, b.strip, turned + b.strip * b.width());
      }
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const Blocking<T> b;
  const StripStore<T> store;
  const T* weights;
  char* scratch_;
  const ImageLayout read_layout;
  const T* read;
};

template <class T>
int64_t packed_as(const ConvProblem& p, const Machine& m) {
  const int64_t rows = (p.pass == Pass::kForward ? p.k : p.c) / p.groups;
  const int64_t channels = (p.pass == Pass::kForward ? p.c : p.k) / p.groups, lanes = tiles_of<T>(m).lanes;
  return p.groups * ceil_div(rows, lanes) * lanes * channels * taps(p) * static_cast<int64_t>(sizeof(T));
}

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots, bool packed) {
  const typename Product<T>::Room room(Blocking<T>(p, m), p.epilogue & kEpilogueResidual);
  return slots * room.bytes() + (packed ? 0 : aligned(packed_as<T>(p, m)));
}

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  char* workspace = static_cast<char*>(r.workspace);
  const T* packed = static_cast<const T*>(r.packed_w);
  if (!packed) {
    pack_as<T>(p, *r.machine, r.parallel, r.w, workspace);
    packed = reinterpret_cast<const T*>(workspace);
    workspace += aligned(packed_as<T>(p, *r.machine));
  }
  Product<T>(p, r, packed, workspace).run();
}

template <class T>
double estimate_as(const ConvProblem& p, const Machine& m) {
  const Blocking<T> b(p, m);
  const double peak = std::is_same_v<T, double> ? m.flops_f64 : m.flops_f32;
  // A tile of fewer vectors has more loads for its multiply-adds; see implicit_tile.cc.
  const auto speed = [&](double vectors) {
    const double pixels = b.tiles.pixels;
    return pixels * vectors / (pixels * vectors + 0.6 * (pixels + vectors));
  };
  const double vectors = static_cast<double>(b.vectors) / static_cast<double>(b.row_blocks);
  const double filled = static_cast<double>(b.rows) / static_cast<double>(b.vectors * b.tiles.lanes);
  const double written = static_cast<double>(p.n * (b.forward ? y_plane(p) : x_plane(p)) * b.rows * b.groups);
  const double copied =
      static_cast<double>(p.n * (b.forward ? x_plane(p) : y_plane(p)) * b.channels * b.groups * b.row_shares);
  const double weights = static_cast<double>(packed_as<T>(p, m)) / sizeof(T);
  const bool strided = b.forward && p.stride[2] != 1;  // rows are taken apart
  // 8 % behind im2col_gemm's tile where both are full: 56 x 56 pixels, 256 channels, Ice Lake server.
  return 2e-6 +
         2.16 * static_cast<double>(multiply_adds(p)) / (peak * filled * speed(vectors) / speed(b.tiles.vectors)) +
         copied * (strided ? 1e-9 : 0.3e-9) + written * 0.3e-9 + weights * 0.2e-9;
}

bool is_double(const ConvProblem* p) { return p->dtype == DType::kFloat64; }

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64)
    snprintf(text, kTextCapacity, "implicit_gemm computes f32 and f64, got %s", name_of(p->dtype));
  else if (p->pass == Pass::kBackwardFilter)
    snprintf(text, kTextCapacity, "implicit_gemm computes fwd and bwd_data, got bwd_filter");
  else if (p->pass == Pass::kBackwardData && p->padding_mode > PaddingMode::kConstant)
    snprintf(text, kTextCapacity, "implicit_gemm computes bwd_data of zero and constant padding, got padding mode %s",
             name_of(p->padding_mode));
  return text[0] != 0;
}

double estimate(const ConvProblem* p, const Machine* m) {
  return is_double(p) ? estimate_as<double>(*p, *m) : estimate_as<float>(*p, *m);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool packed) {
  return is_double(p) ? workspace_as<double>(*p, *m, slots, packed) : workspace_as<float>(*p, *m, slots, packed);
}

int64_t packed_bytes(const ConvProblem* p, const Machine* m) {
  return is_double(p) ? packed_as<double>(*p, *m) : packed_as<float>(*p, *m);
}

int pack(const ConvProblem* p, const Machine* m, const Parallel* parallel, const void* w, void* packed) {
  is_double(p) ? pack_as<double>(*p, *m, *parallel, w, packed) : pack_as<float>(*p, *m, *parallel, w, packed);
  return 0;
}

int run(const ConvProblem* p, const RunContext* r) {
  is_double(p) ? run_as<double>(*p, *r) : run_as<float>(*p, *r);
  return 0;
}

}  // namespace

extern const Algorithm kImplicitGemm;
const Algorithm kImplicitGemm = {"implicit_gemm", 1.0,          1,    0,  why_not, estimate,
                                 workspace_bytes, packed_bytes, pack, run};

}  // namespace fastconv
