// SPDX-License-Identifier: Apache-2.0
// implicit_gemm on the tile registers of Intel's processors (AMX), which multiply bfloat16 sixteen times as fast as
// AVX-512 multiplies float32. A float32 is exactly the sum of three bfloat16, so that its products are sums of such
// products. Those of parts p and q with p + q < 3 are made: what is left out is below 2^-23 of a product, as a
// float32's own rounding is.
//
//   for each strip of pixels, one group and a share of its rows (the items that threads share):
//     split what the pixels read, padding included, strides taken apart (halo.h)    [part][pair of channels][place]
//     for each 32 rows, for each 32 places:
//       for each block of 32 channels, for each tap: 24 products of tiles (of bfloat16: 4)    sums in registers
//     finish the sums and move them to their pixels
//
// A tile of 16 columns is 16 places of the halo buffer that follow each other: taps are shifts of it. Where rows of
// pixels are short, tiles go on over what lies between them, and its sums are left out.
//
// Error: an instruction adds 16 exact products to a sum of its own before it touches the tile, so that fewer sums are
// rounded than elsewhere. An infinity makes NaN of what meets it (its further parts are inf - inf), and what a number
// has below 2^-126 is lost: hence the error factor. The split is that of Henry, Tang, Heinecke, "Leveraging the
// bfloat16 artificial intelligence datatype for higher-precision computations", ARITH 2019.
#include <cstdio>

#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "../strip_store.h"
#include "implicit_gemm_amx_blocking.h"
#include "implicit_gemm_amx_columns.h"
#include "implicit_gemm_amx_filter.h"

namespace fastconv {
namespace {

typedef AmxBlocking Blocking;

// ---- Weights -----------------------------------------------------------------------------------------------------

constexpr int64_t kTapsAtOnce = 16;

// The filter's tap that is number `tap` of the grid's.
int64_t tap_of(const ConvProblem& p, const ColumnGrid& grid, int64_t tap) {
  const ColumnAxis* a = grid.axis;
  const int64_t t2 = tap % a[2].taps, t1 = tap / a[2].taps % a[1].taps, t0 = tap / a[2].taps / a[1].taps;
  return ((a[0].first_tap + t0 * a[0].tap_step) * p.filter[1] + a[1].first_tap + t1 * a[1].tap_step) * p.filter[2] +
         a[2].first_tap + t2 * a[2].tap_step;
}

// Forward: a tile of rows, dst[channel tile][tap][part][row][channel].
void pack_rows(const RunContext& r, const Blocking& b, const Stored<float>& w, int64_t group, int64_t row_tile,
               char* dst) {
  const AmxKernels& amx = *r.machine->kernels->amx;
  const int64_t row = row_tile * kTileRows, rows = std::min(kTileRows, b.rows - row), step = b.step_bytes();
  const int64_t depth = b.channels * b.all_taps, from = (group * b.rows + row) * depth, tile_bytes = b.all_taps * step;
  if (rows < kTileRows) std::memset(dst, 0, static_cast<size_t>(b.channel_tiles * tile_bytes));
  if (b.all_taps == 1) {
    for (int64_t tile = 0; tile < b.channel_tiles; ++tile)
      amx.split_rows(b.parts.count, amx_stored(r.w_dtype), rows, kTileDepth, 0,
                     std::min(kTileDepth, b.channels - tile * kTileDepth), r.w, from + tile * kTileDepth, 1, depth,
                     dst + tile * tile_bytes, 64, kTileBytes);
    return;
  }
  constexpr int64_t kChannels = 4 * kTileDepth;
  alignas(64) float turned[kTapsAtOnce * kChannels];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t channel = 0; channel < b.channels; channel += kChannels)
      for (int64_t tap = 0, some; tap < b.all_taps; tap += some) {
        some = std::min(kTapsAtOnce, b.all_taps - tap);
        const int64_t channels = std::min(kChannels, b.channels - channel);
        w.transpose(r.machine->kernels->gemm->f32, channels, some, channels,
                    from + i * depth + channel * b.all_taps + tap, b.all_taps, turned, kChannels);
        for (int64_t c = 0; c < channels; c += kTileDepth)
          amx.split_rows(b.parts.count, AmxStored::kFloat32, some, kTileDepth, 0, channels - c, turned, c, 1, kChannels,
                         dst + (channel + c) / kTileDepth * tile_bytes + tap * step + i * 64, step, kTileBytes);
      }
}

// Backward-data: two tiles of rows of the grid's taps and a block of channels.
void pack_gradient(const ConvProblem& p, const RunContext& r, const Blocking& b, const ColumnGrid& grid,
                   const Stored<float>& w, int64_t group, int64_t row_tile, int64_t channel_tile, char* dst) {
  const GemmKernelsOf<float>& kernels = r.machine->kernels->gemm->f32;
  const int64_t row = row_tile * kTileRows, rows = std::min(kBlockRows, b.rows - row), taps = grid.taps();
  const int64_t channel = channel_tile * kTileDepth, channels = std::min(kTileDepth, b.channels - channel);
  const int64_t step = b.step_bytes(), pitch = b.rows * b.all_taps, row_bytes = b.row_tile_bytes(taps);
  const int64_t from = (group * b.channels + channel) * pitch + row * b.all_taps;
  // Rows of each channel, then channels of each row. The taps of a phase do not follow each other.
  constexpr int64_t kTaps = 9, kTap = kTileDepth * kBlockRows;
  alignas(64) float room[kTaps * kTap], turned[kTap];
  const int64_t at_once = taps == b.all_taps ? kTaps : 1;
  for (int64_t tap = 0, some; tap < taps; tap += some) {
    some = std::min(at_once, taps - tap);
    const int64_t first = from + (at_once > 1 ? tap : tap_of(p, grid, tap));
    if (b.all_taps == 1)
      w.gather_row(kernels, kBlockRows, 0, rows, first, 1, pitch, room, kBlockRows, channels);
    else
      for (int64_t i = 0; i < channels; ++i)
        w.transpose(kernels, rows, some, kBlockRows, first + i * pitch, b.all_taps, room + i * kBlockRows, kTap);
    for (int64_t i = 0; i < some; ++i) {
      kernels.transpose(channels, kBlockRows, kTileDepth, room + i * kTap, kBlockRows, turned, kTileDepth);
      for (int64_t j = 0; j < rows; j += kTileRows)
        r.machine->kernels->amx->split_rows(b.parts.count, AmxStored::kFloat32, kTileRows, kTileDepth, 0, kTileDepth,
                                            turned + j * kTileDepth, 0, 1, kTileDepth,
                                            dst + j / kTileRows * row_bytes + (tap + i) * step, 64, kTileBytes);
    }
  }
}

void pack_all(const ConvProblem& p, AmxParts parts, const RunContext& r, char* packed) {
  const Blocking b(p, *r.machine, parts);
  const Stored<float> w(*r.machine, r.w_dtype, r.w);
  if (b.forward)
    return parallel_for(r.parallel, b.groups * b.row_tiles, [&](int64_t item, int) {
      pack_rows(r, b, w, item / b.row_tiles, item % b.row_tiles, packed + item * b.row_tile_bytes(b.all_taps));
    });
  const int64_t blocks = ceil_div(b.row_tiles, int64_t{2});
  each_phase(p, [&](const ColumnGrid& grid, int64_t before) {
    const int64_t row_bytes = b.row_tile_bytes(grid.taps());
    char* phase = packed + b.groups * b.row_tiles * b.row_tile_bytes(before);
    parallel_for(r.parallel, b.groups * blocks, [&](int64_t item, int) {
      const int64_t group = item / blocks, row_tile = item % blocks * 2;
      char* dst = phase + (group * b.row_tiles + row_tile) * row_bytes;
      for (int64_t tile = 0; tile < b.channel_tiles; ++tile, dst += grid.taps() * b.step_bytes())
        pack_gradient(p, r, b, grid, w, group, row_tile, tile, dst);
    });
  });
}

// ---- Products ----------------------------------------------------------------------------------------------------

class Product {
 public:
  Product(const ConvProblem& problem, AmxParts parts, const RunContext& context, const char* packed_w, char* scratch)
      : p(problem),
        r(context),
        kernels(r.machine->kernels->gemm->f32),
        amx(*r.machine->kernels->amx),
        b(p, *r.machine, parts),
        store(p, r, kernels),
        packed(packed_w),
        scratch_(scratch),
        read_layout{b.forward ? p.x_layout : p.y_layout, b.forward ? r.x_batch_pitch : r.y_batch_pitch,
                    b.forward ? r.x_channel_pitch : r.y_channel_pitch},
        tensor(b.forward ? r.x : r.y),
        read(*r.machine, p.dtype, tensor),
        stored(amx_stored(p.dtype)) {}

  // Scratch of a worker.
  struct Room {
    int64_t halo;   // of kHaloChannels
    int64_t split;  // [part][pair][place]
    int64_t steps;  // [channel tile][tap], of weights and of places
    int64_t tiles;  // [tile]: where it is read
    int64_t runs;   // [run]: from, to and count
    int64_t sums;   // [row][column]
    int64_t strip;  // [row][pixel], and those of a residual
    Room(const Blocking& b, bool residual) {
      halo = aligned(b.halo_elements * 4);
      split = b.split_bytes();
      steps = aligned(2 * b.channel_tiles * b.largest_taps * 8);
      tiles = aligned(b.strip * 8);
      runs = aligned(3 * b.strip * 8);
      sums = aligned(kBlockRows * std::min(kTilesAtOnce, b.strip) * kTileColumns * 4);
      strip = (residual ? 2 : 1) * kBlockRows * pitch(b) * 4;
    }
    int64_t bytes() const { return halo + split + steps + tiles + runs + sums + strip; }
  };

  void run() const {
    const Room room(b, r.residual != nullptr);
    each_phase(
        p,
        [&](const ColumnGrid& grid, int64_t before) {
          const AmxStrips strips(grid, p.n, b.strip);
          const int64_t blocks = ceil_div(b.row_tiles, int64_t{2}),
                        items = std::max<int64_t>(1, strips.count * b.groups);
          // Each share of the rows copies and splits its pixels again.
          const int64_t shares = std::min(blocks, ceil_div(int64_t{r.parallel.slots}, items));
          parallel_for(r.parallel, strips.count * b.groups * shares, [&](int64_t item, int slot) {
            const int64_t share = item % shares, group = item / shares % b.groups, strip = item / shares / b.groups;
            const char* w = packed + b.groups * b.row_tiles * b.row_tile_bytes(before) +
                            group * b.row_tiles * b.row_tile_bytes(grid.taps());
            compute(grid, group, share * blocks / shares, (share + 1) * blocks / shares, strips.pixel(strip),
                    strips.pixels(strip), w, scratch_ + slot * room.bytes(), room);
          });
        },
        r.pad_value);
  }

 private:
  static int64_t pitch(const Blocking& b) { return ceil_div(b.strip, kTileColumns) * kTileColumns; }

  void compute(const ColumnGrid& grid, int64_t group, int64_t first_block, int64_t last_block, int64_t pixel,
               int64_t pixels, const char* w, char* mine, const Room& room) const {
    float* halo = reinterpret_cast<float*>(mine);
    char* split = mine += room.halo;
    int64_t* a_steps = reinterpret_cast<int64_t*>(mine += room.split);
    int64_t* b_steps = a_steps + b.channel_tiles * b.largest_taps;
    AmxColumns columns(kTileColumns, 4);
    columns.tiles = reinterpret_cast<int64_t*>(mine += room.steps);
    columns.from = reinterpret_cast<int64_t*>(mine += room.tiles);
    columns.to = columns.from + b.strip, columns.counts = columns.to + b.strip;
    float* sums = reinterpret_cast<float*>(mine += room.runs);
    float* strip = reinterpret_cast<float*>(mine + room.sums);
    const int64_t taps = grid.taps();
    if (taps > 0) read_pixels(grid, group, pixel, pixels, halo, split, a_steps, b_steps, &columns);

    AmxProduct x{};
    x.a_pitch = 64, x.a_tile = b.row_tile_bytes(taps), x.a_part = kTileBytes, x.a_steps = a_steps;
    x.b_pitch = b.pair_bytes(), x.b_part = b.part_bytes(), x.b_steps = b_steps;
    x.b = split, x.steps = b.channel_tiles * taps, x.parts = b.parts.count, x.products = b.parts.products;
    const int64_t strip_pitch = pitch(b);
    for (int64_t block = first_block; block < last_block; ++block) {
      const int64_t row = block * kBlockRows, rows = std::min(kBlockRows, b.rows - row);
      x.a = w + 2 * block * x.a_tile;
      x.row_tiles = rows > kTileRows ? 2 : 1;
      {
        const PhaseScope multiplying(r.phases, Phase::kProducts);
        if (taps == 0) std::fill_n(strip, kBlockRows * strip_pitch, 0.0f);
        int64_t run = 0;
        for (int64_t tile = 0; tile < columns.tile_count; tile += kTilesAtOnce) {
          x.column_tiles = std::min(kTilesAtOnce, columns.tile_count - tile);
          x.b_tiles = columns.tiles + tile;
          x.c = columns.straight ? strip + tile * kTileColumns : sums;
          x.c_pitch = columns.straight ? strip_pitch : std::min(kTilesAtOnce, b.strip) * kTileColumns;
          amx.product(&x);
          if (!columns.straight) run = take_pixels(columns, tile, x.column_tiles, rows, run, sums, x.c_pitch, strip);
        }
      }
      const PhaseScope storing(r.phases, Phase::kOutput);
      store.move(grid, pixel, pixels, group * b.rows + row, rows, strip, strip_pitch, strip + kBlockRows * strip_pitch);
    }
  }

  // Columns of `count` tiles that are pixels, to the strip. Returns the first run that goes on behind them.
  int64_t take_pixels(const AmxColumns& columns, int64_t tile, int64_t count, int64_t rows, int64_t run,
                      const float* sums, int64_t sums_pitch, float* strip) const {
    const int64_t begin = tile * kTileColumns, end = begin + count * kTileColumns;
    for (; run < columns.run_count && columns.from[run] < end; ++run) {
      const int64_t first = std::max(begin, columns.from[run]),
                    last = std::min(end, columns.from[run] + columns.counts[run]);
      const int64_t from = first - begin, to = columns.to[run] + first - columns.from[run], some = last - first;
      kernels.gather_row(some, 0, some, sums + from, 1, sums_pitch, strip + to, pitch(b), rows);
      if (columns.from[run] + columns.counts[run] > end) return run;
    }
    return run;
  }

  void read_pixels(const ColumnGrid& grid, int64_t group, int64_t pixel, int64_t pixels, float* halo, char* split,
                   int64_t* a_steps, int64_t* b_steps, AmxColumns* columns) const {
    const PhaseScope reading(r.phases, Phase::kInput);
    const int64_t pair = b.pair_bytes(), taps = grid.taps(), pitch = read_layout.channel_pitch;
    const AmxSource source{kernels, grid, read_layout, read, stored, group * b.channels, b.channels, pixel, pixels};
    const auto copy = [&](const AmxLine& x) {
      char* dst = split + x.channel / 2 * pair + x.place * 4;
      const int64_t left = b.channels - x.channel;
      // All channels of the last tile, those that are not there too.
      const int64_t pairs =
          (left > source.together() ? source.together() : b.channel_tiles * kTileDepth - x.channel) / 2;
      if (source.turns())
        amx.turn_pixels(true, x.count, x.first, x.last, left, static_cast<const char*>(tensor) + x.cell * 2,
                        x.step * pitch * 2, dst, pair);
      else
        amx.split_pairs(b.parts.count, stored, left, pairs, x.count, x.first, x.last, tensor, x.cell, x.step, pitch,
                        dst, pair, b.part_bytes());
    };
    const auto add = [&](int64_t channel, int64_t count, int64_t places, const float* from) {
      amx.split_pairs(b.parts.count, AmxStored::kFloat32, count, kHaloChannels / 2, places, 0, places, from, 0, 1,
                      places, split + channel / 2 * pair, pair, b.part_bytes());
    };
    source.read(halo, columns, copy, add);
    const int64_t* offsets = reinterpret_cast<const int64_t*>(halo);
    for (int64_t tile = 0, step = 0; tile < b.channel_tiles; ++tile)
      for (int64_t tap = 0; tap < taps; ++tap, ++step) {
        a_steps[step] = step * b.step_bytes();
        b_steps[step] = tile * kTileDepth / 2 * pair + offsets[tap] * 4;
      }
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<float>& kernels;
  const AmxKernels& amx;
  const Blocking b;
  const StripStore<float> store;
  const char* packed;
  char* scratch_;
  const ImageLayout read_layout;
  const void* tensor;
  const Stored<float> read;
  const AmxStored stored;
};

// TWO: a float32 is cut to the first two of its parts.
template <bool TWO>
constexpr const char* kName = TWO ? "implicit_gemm_amx_bf16x2" : "implicit_gemm_amx";
template <bool TWO>
AmxParts parts_of(const ConvProblem& p) {
  return TWO ? kTwoParts : amx_parts(p.dtype);
}

template <bool TWO>
bool why_not(const ConvProblem* p, const Machine* m, char* text) {
  text[0] = 0;
  if (is_device(*m) || !m->kernels->amx)
    snprintf(text, kTextCapacity, "%s needs a processor with AMX and instruction set amx, got %s", kName<TWO>,
             is_device(*m) ? "a device" : m->kernels->isa);
  else if (p->dtype == DType::kFloat64)
    snprintf(text, kTextCapacity, "%s computes f32, f16 and bf16, got %s", kName<TWO>, name_of(p->dtype));
  else if (p->pass == Pass::kBackwardData && shows_cells(p->padding_mode))
    snprintf(text, kTextCapacity, "%s computes bwd_data of zero and constant padding, got padding mode %s", kName<TWO>,
             name_of(p->padding_mode));
  return text[0] != 0;
}

bool is_filter(const ConvProblem* p) { return p->pass == Pass::kBackwardFilter; }

template <bool TWO>
void estimate(const ConvProblem* p, const Machine* m, Estimate* e) {
  amx_estimate(*p, *m, parts_of<TWO>(*p), e);
}

template <bool TWO>
int64_t workspace_bytes(const ConvProblem* p, const Machine* m, int slots, bool packed) {
  if (is_filter(p)) return amx_filter_workspace(*p, parts_of<TWO>(*p), slots);
  const Blocking b(*p, *m, parts_of<TWO>(*p));
  const int64_t packing = packed ? 0 : aligned(b.packed_bytes());
  return slots * Product::Room(b, p->epilogue & kEpilogueResidual).bytes() + packing;
}

template <bool TWO>
int64_t packed_bytes(const ConvProblem* p, const Machine* m) {
  return is_filter(p) ? 0 : Blocking(*p, *m, parts_of<TWO>(*p)).packed_bytes();
}

template <bool TWO>
int pack(const ConvProblem* p, const RunContext* r, void* packed) {
  RunContext context = *r;
  context.w_dtype = p->dtype;
  pack_all(*p, parts_of<TWO>(*p), context, static_cast<char*>(packed));
  return 0;
}

template <bool TWO>
int run(const ConvProblem* p, const RunContext* r) {
  const AmxParts parts = parts_of<TWO>(*p);
  if (is_filter(p)) {
    amx_filter_run(*p, parts, *r);
    return 0;
  }
  char* workspace = static_cast<char*>(r->workspace);
  const char* packed = static_cast<const char*>(r->packed_w);
  if (!packed) {
    const PhaseScope packing(r->phases, Phase::kWeights);
    pack_all(*p, parts, *r, workspace);
    packed = workspace;
    workspace += aligned(Blocking(*p, *r->machine, parts).packed_bytes());
  }
  Product(*p, parts, *r, packed, workspace).run();
  return 0;
}

TakenHalves takes_halves(const ConvProblem*) { return TakenHalves::kAll; }

// To the one that cuts, halves come as float32.
template <bool TWO>
constexpr Algorithm kOf = {.name = kName<TWO>,
                           .error_factor = TWO ? 128.0 : 2.0,
                           .exact_on_integers = !TWO,
                           .same_bits = SameBits::kOne,
                           .why_not = why_not<TWO>,
                           .estimate = estimate<TWO>,
                           .workspace_bytes = workspace_bytes<TWO>,
                           .packed_bytes = packed_bytes<TWO>,
                           .pack = pack<TWO>,
                           .run = run<TWO>,
                           .takes_halves = TWO ? nullptr : takes_halves,
                           .knows_halves = !TWO};

}  // namespace

extern const Algorithm kImplicitGemmAmx, kImplicitGemmAmxBf16x2;
const Algorithm kImplicitGemmAmx = kOf<false>;
const Algorithm kImplicitGemmAmxBf16x2 = kOf<true>;

}  // namespace fastconv
