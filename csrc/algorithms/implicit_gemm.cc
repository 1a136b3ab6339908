// SPDX-License-Identifier: Apache-2.0
// Dense convolution as a matrix product whose column matrix is never built, forward and backward-data:
//   written[pixel][row] = sum over (channel, tap) of read[place of pixel for tap][channel] * w[channel][tap][row]
// rows are the channels written (fwd: K/g of y; bwd_data: C/g of x), channels those read; a pixel is one of the
// phase's grid (im2col.h); forward has one phase.
//
//   for each strip of pixels, one group and a share of its rows (the items that threads share):
//     find the places where its pixels are read; channels first with padding: copy them to the halo buffer (halo.h)
//     for each block of rows, at most 4 vectors:
//       for each block of depth (taps and channels): its weights, at most 32 KiB         in L1
//         for every 6 pixels: one register tile                                          sums in L2
//       channels last: the sums are where they belong, finish them; else turn them to rows of pixels, finish, store
//
// Against im2col_gemm: nothing is expanded tap by tap, and a tile takes any 6 pixels, so that 7 x 7 and 14 x 14 planes
// fill it. Halves are widened as they are copied to the halo buffer or packed, and rounded as rows of pixels are moved.
// It refuses backward-data of padding that shows cells; the filter gradient is implicit_gemm_filter.cc. Few rows leave
// lanes empty: im2col_gemm, whose lanes are pixels, is then the better one. Lanes of channels and a register tile of
// pixels are those of Zhang, Franchetti, Low, "High performance zero-memory overhead direct convolutions", ICML 2018;
// the lists of pixels per tap those of Dukhan, "The indirect convolution algorithm", 2019.
#include <algorithm>
#include <cstdio>
#include <type_traits>

#include "../counts.h"
#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "../strip_store.h"
#include "implicit_gemm_blocking.h"
#include "implicit_gemm_data.h"
#include "implicit_gemm_filter.h"
#include "implicit_gemm_pack.h"
#include "implicit_gemm_places.h"

namespace fastconv {
namespace {

constexpr int64_t kLineBytes = 64;

template <class T>
using Blocking = ImplicitBlocking<T>;

template <class T>
class Product {
 public:
  Product(const ConvProblem& problem, const RunContext& context, const T* packed_w, char* scratch)
      : p(problem),
        r(context),
        kernels(gemm_kernels<T>(*r.machine)),
        b(p, *r.machine),
        store(p, r, kernels),
        packed(packed_w),
        scratch_(scratch),
        read_layout{b.forward ? p.x_layout : p.y_layout, b.forward ? r.x_batch_pitch : r.y_batch_pitch,
                    b.forward ? r.x_channel_pitch : r.y_channel_pitch},
        write_layout{b.forward ? p.y_layout : p.x_layout, b.forward ? r.y_batch_pitch : r.x_batch_pitch,
                     b.forward ? r.y_channel_pitch : r.x_channel_pitch},
        read(*r.machine, p.dtype, b.forward ? r.x : r.y),
        weights(*r.machine, r.w_dtype, r.w),
        written(static_cast<T*>(b.forward ? r.y : r.x)) {}

  // Scratch of a worker.
  struct Room {
    int64_t halo;         // or the channels of a pixel of padding
    int64_t tap_offsets;  // [tap]
    int64_t places;       // [tap][pixel]
    int64_t sums_places;  // [pixel]
    int64_t offsets;      // [tap][channel]
    int64_t sums;         // [pixel][row]
    int64_t turned;       // rows of pixels, and those of a residual
    int64_t weights;      // a block of depth
    Room(const Blocking<T>& b, bool residual, bool has_packed) {
      const bool lists = b.reading == Reading::kPixels;
      halo = aligned((lists ? b.channels : b.halo_elements) * sizeof(T));
      tap_offsets = aligned(b.largest_taps * sizeof(int64_t));
      places = aligned((lists ? b.largest_taps : 1) * b.strip * sizeof(T*));
      sums_places = aligned(b.strip * sizeof(T*));
      offsets = aligned(b.channel_block * b.largest_taps * sizeof(int64_t));
      sums = b.writing == Writing::kPixels ? 0 : aligned(b.strip * b.width() * sizeof(T));
      turned = b.writing == Writing::kMoved ? (residual ? 2 : 1) * aligned(b.strip * b.width() * sizeof(T)) : 0;
      weights = has_packed || !b.packs_blocks ? 0 : aligned(b.block_elements() * sizeof(T));
    }
    int64_t bytes() const { return halo + tap_offsets + places + sums_places + offsets + sums + turned + weights; }
  };

  void run() const {
    const Room room(b, r.residual != nullptr, packed != nullptr);
    const auto phase = [&](const ColumnGrid& grid, int64_t before) {
      const int64_t pixels = grid.columns(), images = b.joins_images() ? 1 : p.n;
      const int64_t all_pixels = b.joins_images() ? pixels * p.n : pixels;
      const int64_t strip_pixels = strip_of(all_pixels, images * b.groups * b.row_shares);
      const int64_t strips = ceil_div(all_pixels, strip_pixels);
      parallel_for(r.parallel, images * strips * b.groups * b.row_shares, [&](int64_t item, int slot) {
        Item i;
        const auto [strip, share] = StripAndShare(item, images * strips, b.groups * b.row_shares, all_pixels, b.rows);
        const int64_t first = strip % strips * strip_pixels;
        i.share = share % b.row_shares, i.group = share / b.row_shares, i.before = before;
        i.pixel = strip / strips * pixels + first;
        i.pixels = std::min(strip_pixels, all_pixels - first);
        compute(grid, i, scratch_ + slot * room.bytes(), room);
      });
    };
    each_phase(p, phase, r.pad_value);
  }

 private:
  struct Item {
    int64_t before, group, share, pixel, pixels;
  };

  // Fewer pixels than the plan's where several threads would have too little to share; weights that are not packed are
  // packed by every strip. `others`: items beside strips.
  int64_t strip_of(int64_t all_pixels, int64_t others) const {
    const int64_t strips = ceil_div(all_pixels, b.strip), wanted = 2 * r.parallel.slots;
    if (!packed || r.parallel.slots == 1 || strips * others >= wanted || all_pixels * others == 0) return b.strip;
    const int64_t shares = std::max(strips, std::min(ceil_div(wanted, others), all_pixels / b.kLeastStrip));
    return std::min(b.strip, ceil_div(ceil_div(all_pixels, shares), int64_t{b.tiles.pixels}) * b.tiles.pixels);
  }

  void compute(const ColumnGrid& grid, const Item& i, char* mine, const Room& room) const {
    T* halo = reinterpret_cast<T*>(mine);
    int64_t* tap_offsets = reinterpret_cast<int64_t*>(mine += room.halo);
    PixelSource<T> source{reinterpret_cast<const T**>(mine += room.tap_offsets), 0, nullptr};
    T** sums_places = reinterpret_cast<T**>(mine += room.places);
    int64_t* offsets = reinterpret_cast<int64_t*>(mine += room.sums_places);
    T* sums = reinterpret_cast<T*>(mine += room.offsets);
    T* turned = reinterpret_cast<T*>(mine += room.sums);
    T* fresh = reinterpret_cast<T*>(mine + room.turned);
    find_source(grid, i, halo, tap_offsets, &source);
    find_sums(grid, i, sums, sums_places);

    const int64_t first_block = i.share * b.row_blocks / b.row_shares;
    const int64_t last_block = (i.share + 1) * b.row_blocks / b.row_shares;
    ImplicitBlock<T> block{};
    block.pixels = i.pixels;
    block.x_pitch = b.strip;
    block.offsets = offsets;
    block.y = sums_places;
    for (int64_t at = first_block; at < last_block; ++at) {
      const int64_t begin = b.block_begin(at), rows = std::min(b.block_begin(at + 1), b.rows) - begin;
      const int64_t channel = i.group * b.rows + begin;
      block.width = b.block_begin(at + 1) - begin;
      const bool in_place = b.writing == Writing::kPixels;
      block.columns = in_place ? rows : block.width;
      block.y_shift = in_place ? channel : 0;
      block.touch = at == first_block && b.reading == Reading::kPlanes && grid.taps() == 1
                        ? std::max<int64_t>(1, kLineBytes / static_cast<int64_t>(sizeof(T)) / grid.axis[2].step)
                        : 0;
      multiply(grid, i, source, at, offsets, fresh, block);
      const PhaseScope storing(r.phases, Phase::kOutput);
      if (in_place)
        finish_pixels(i.pixels, rows, sums_places, channel);
      else if (b.writing == Writing::kRows) {
        T* row = store.row(i.pixel, channel);
        kernels.transpose(i.pixels, rows, i.pixels, sums, b.width(), row, store.row_pitch());
        store.finish_in_place(rows, i.pixels, row, channel);
      } else {
        kernels.transpose(i.pixels, rows, i.pixels, sums, b.width(), turned, b.strip);
        store.move(grid, i.pixel, i.pixels, channel, rows, turned, b.strip, turned + b.strip * b.width());
      }
    }
  }

  void find_source(const ColumnGrid& grid, const Item& i, T* halo, int64_t* tap_offsets, PixelSource<T>* source) const {
    const PhaseScope gathering(r.phases, Phase::kInput);
    const int64_t first = i.group * b.channels;
    if (grid.taps() == 0) return;
    switch (b.reading) {
      case Reading::kHalo:
        return find_in_halo(kernels, grid, read_layout, read, first, b.channels, i.pixel, i.pixels, halo, source);
      case Reading::kPlanes:
        return find_in_planes(grid, read_layout, read.at(0), first, i.pixel, i.pixels, tap_offsets, source);
      case Reading::kPixels:
        std::fill_n(halo, b.channels, border_value<T>(grid));
        return find_pixels(grid, read_layout, read.at(0), first, i.pixel, i.pixels, b.strip, halo, source);
    }
  }

  void find_sums(const ColumnGrid& grid, const Item& i, T* sums, T** places) const {
    if (b.writing == Writing::kPixels) return find_written(grid, write_layout, written, i.pixel, i.pixels, places);
    for (int64_t j = 0; j < i.pixels; ++j) places[j] = sums + j * b.width();
  }

  // A block of rows over all of its depth.
  void multiply(const ColumnGrid& grid, const Item& i, const PixelSource<T>& source, int64_t at, int64_t* offsets,
                T* fresh, ImplicitBlock<T>& block) const {
    const int64_t tap_count = grid.taps(), width = block.width;
    const T* w = packed ? packed + i.group * b.group_elements() +
                              (i.before * b.vectors * b.tiles.lanes + b.block_begin(at) * tap_count) * b.channels
                        : fresh;
    block.accumulate = false;
    // Backward-data's weights of one tap are whole rows already: the first tile of pixels packs them.
    const bool moves =
        !packed && !b.forward && b.all_taps == 1 && b.block_begin(at) + width <= b.rows && !weights.is_half();
    block.source = nullptr, block.source_pitch = b.rows, block.moved = fresh;
    int64_t listed = 0;
    for (int64_t c = 0; c < b.channels; c += b.channel_block) {
      const int64_t count = std::min(b.channel_block, b.channels - c);
      if (moves)
        block.source = weights.at((i.group * b.channels + c) * b.rows + b.block_begin(at));
      else if (!packed)
        pack_fresh(grid, i.group, at, c, count, fresh);
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      if (!packed) w = fresh;
      if (listed != count) {
        for (int64_t tap = 0; tap < (source.tap_offsets ? tap_count : 1); ++tap)
          for (int64_t channel = 0; channel < count; ++channel)
            offsets[tap * count + channel] =
                channel * source.channel_pitch + (source.tap_offsets ? source.tap_offsets[tap] : 0);
        listed = count;
      }
      block.x_shift = c * source.channel_pitch;
      for (int64_t tap = 0; tap == 0 || tap < tap_count; tap += b.tap_block) {  // no tap at all: sums are 0
        const int64_t some = std::min(b.tap_block, tap_count - tap), steps = some * count;
        block.runs = source.tap_offsets ? std::min<int64_t>(1, some) : some;
        block.steps = source.tap_offsets ? steps : count;
        block.offsets = source.tap_offsets ? offsets + tap * count : offsets;
        block.x = source.places + (source.tap_offsets ? 0 : tap * b.strip);
        block.w = w;
        w += steps * width;
        if (packed) {
          const bool last = c + count == b.channels && tap + some == tap_count;
          block.next_w = w, block.next_elements = last ? 0 : steps * width;
        } else {
          ask_ahead(i.group, at, tap == 0 ? c + count : b.channels, &block);
        }
        b.tiles.product(&block);
        block.accumulate = true;
      }
    }
  }

  void pack_fresh(const ColumnGrid& grid, int64_t group, int64_t at, int64_t c, int64_t count, T* fresh) const {
    const PhaseScope packing(r.phases, Phase::kWeights);
    implicit_pack_channels(p, *r.machine, b, grid, weights, group, at, c, count, fresh);
  }

  // For the unpacked weights of the channels from `c` on.
  void ask_ahead(int64_t group, int64_t at, int64_t c, ImplicitBlock<T>* block) const {
    const int64_t depth = b.channels * b.all_taps, left = std::min(b.channel_block, b.channels - c);
    const int64_t first = group * b.rows * depth, packing = weights.is_half() ? 2 : 1;  // halves in an element of T
    block->next_elements = block->next_pitch = 0;
    if (left <= 0) return;
    if (b.forward) {
      block->next_elements = left * b.all_taps / packing, block->next_pitch = depth / packing;
      block->next_w = weights.at((first + b.block_begin(at) * depth + c * b.all_taps) / packing);
    } else if (b.all_taps == 1) {
      block->next_elements = block->width / packing, block->next_pitch = b.rows / packing;
      block->next_w = weights.at((first + c * b.rows + b.block_begin(at)) / packing);
    }
  }

  void finish_pixels(int64_t pixels, int64_t rows, T* const* places, int64_t channel) const {
    if (!r.bias && !r.residual && p.activation == Activation::kNone) return;
    const T* bias = r.bias ? static_cast<const T*>(r.bias) + channel : nullptr;
    b.tiles.finish(pixels, rows, places, channel, bias, static_cast<const T*>(r.residual), written,
                   static_cast<int32_t>(p.activation), T(r.alpha));
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<T>& kernels;
  const Blocking<T> b;
  const StripStore<T> store;
  const T* packed;  // null: blocks are packed where they are used
  char* scratch_;
  const ImageLayout read_layout, write_layout;
  const Stored<T> read, weights;
  T* written;
};

template <class T>
int64_t packed_as(const ConvProblem& p, const Machine& m) {
  const int64_t rows = (p.pass == Pass::kForward ? p.k : p.c) / p.groups;
  const int64_t channels = (p.pass == Pass::kForward ? p.c : p.k) / p.groups, lanes = implicit_kernels<T>(m).lanes;
  return p.groups * ceil_div(rows, lanes) * lanes * channels * taps(p) * static_cast<int64_t>(sizeof(T));
}

template <class T>
int64_t workspace_as(const ConvProblem& p, const Machine& m, int slots, bool packed) {
  const Blocking<T> b(p, m);
  const typename Product<T>::Room room(b, p.epilogue & kEpilogueResidual, packed);
  return slots * room.bytes() + (packed || b.packs_blocks ? 0 : aligned(packed_as<T>(p, m)));
}

template <class T>
void run_as(const ConvProblem& p, const RunContext& r) {
  char* workspace = static_cast<char*>(r.workspace);
  const T* packed = static_cast<const T*>(r.packed_w);
  if (!packed && !Blocking<T>(p, *r.machine).packs_blocks) {
    const PhaseScope packing(r.phases, Phase::kWeights);
    implicit_pack<T>(p, *r.machine, r.parallel, Stored<T>(*r.machine, r.w_dtype, r.w), workspace);
    packed = reinterpret_cast<const T*>(workspace);
    workspace += aligned(packed_as<T>(p, *r.machine));
  }
  Product<T>(p, r, packed, workspace).run();
}

bool is_double(const ConvProblem* p) { return p->dtype == DType::kFloat64; }
bool is_phased(const ConvProblem* p, const Machine* m) {
  return p->pass == Pass::kBackwardData && implicit_data_takes(*p, *m);
}
bool is_filter(const ConvProblem* p) { return p->pass == Pass::kBackwardFilter; }

bool why_not(const ConvProblem* p, const Machine*, char* text) {
  text[0] = 0;
  if (p->dtype != DType::kFloat32 && p->dtype != DType::kFloat64)
    snprintf(text, kTextCapacity, "implicit_gemm computes f32 and f64, got %s", name_of(p->dtype));
  else if (p->pass == Pass::kBackwardData && p->padding_mode > PaddingMode::kConstant)
    snprintf(text, kTextCapacity, "implicit_gemm computes bwd_data of zero and constant padding, got padding mode %s",
             name_of(p->padding_mode));
  return text[0] != 0;
}

void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  if (is_filter(p)) return implicit_filter_estimate(*p, *m, e);
  if (is_phased(p, m)) return implicit_data_estimate(*p, *m, e);
  implicit_gemm_estimate(*p, *m, e);
}

int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool packed) {
  if (is_filter(p)) return implicit_filter_workspace(*p, *m, slots);
  if (is_phased(p, m)) return implicit_data_workspace(*p, *m, slots, packed);
  return is_double(p) ? workspace_as<double>(*p, *m, slots, packed) : workspace_as<float>(*p, *m, slots, packed);
}

int64_t packed_bytes(const ConvProblem* p, const Machine* m) {
  if (is_filter(p)) return 0;
  if (is_phased(p, m)) return implicit_data_packed_bytes(*p, *m);
  return is_double(p) ? packed_as<double>(*p, *m) : packed_as<float>(*p, *m);
}

int pack(const ConvProblem* p, const RunContext* r, void* packed) {
  const Machine& m = *r->machine;
  if (is_phased(p, &m))
    implicit_data_pack(*p, m, r->parallel, r->w, packed);
  else
    is_double(p) ? implicit_pack(*p, m, r->parallel, Stored<double>(m, p->dtype, r->w), packed)
                 : implicit_pack(*p, m, r->parallel, Stored<float>(m, p->dtype, r->w), packed);
  return 0;
}

// Channels last, pixels are read and written in place.
TakenHalves takes_halves(const ConvProblem* p) {
  if (is_filter(p)) return implicit_filter_takes_halves(p);
  if (copies_stay_near(*p)) return TakenHalves::kWeights;
  const bool planes = p->x_layout == Layout::kChannelsFirst && p->y_layout == Layout::kChannelsFirst;
  return planes ? TakenHalves::kAll : TakenHalves::kNone;
}

int run(const ConvProblem* p, const RunContext* r) {
  if (is_filter(p))
    implicit_filter_run(*p, *r);
  else if (is_phased(p, r->machine))
    implicit_data_run(*p, *r);
  else
    is_double(p) ? run_as<double>(*p, *r) : run_as<float>(*p, *r);
  return 0;
}

int64_t multiplications(const ConvProblem* p, const Machine* m) {
  return is_phased(p, m) ? implicit_data_multiplications(*p, *m) : gathered_products(*p, false);
}

}  // namespace

extern const Algorithm kImplicitGemm;
const Algorithm kImplicitGemm = {"implicit_gemm", 1.0,  1,   SameBits::kOne, why_not,        estimate, workspace_bytes,
                                 packed_bytes,    pack, run, takes_halves,   multiplications};

}  // namespace fastconv
