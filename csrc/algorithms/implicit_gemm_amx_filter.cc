// SPDX-License-Identifier: Apache-2.0
// Backward-filter of implicit_gemm_amx: the product over pixels, for every tap,
//   sums[channel][row] = sum over pixels of x[channel][place of the pixel for the tap] * dy[row][pixel]
//
//   for each part of the strips of pixels and, if these are few, share of the rows (the items that threads share):
//     for each strip: copy what it reads of x as bfloat16, with padding     [part][channel][place], as they lie
//                     turn dy                                               [part][tile of rows][32 pixels] in pairs
//       for each 32 channels, 32 rows, some pixels, for each tap: 4 tiles of sums, which go on from strip to strip
//   add the parts of the sums up, in a pairwise tree, and turn them to dw
//
// As in the forward pass a tap is a shift of the places, and tiles of 32 pixels may go on over what lies between two
// rows: there dy is 0. Strips, parts and the tree come from the problem.
#include "implicit_gemm_amx_filter.h"

#include "../machine.h"
#include "../parallel.h"
#include "../phases.h"
#include "implicit_gemm_amx_blocking.h"
#include "implicit_gemm_amx_columns.h"

namespace fastconv {
namespace {

constexpr int64_t kBlock = 2 * kTileRows;  // channels and rows of a block of sums
constexpr int64_t kBlockBytes = kBlock * kBlock * 4;
constexpr int64_t kStepsAtOnce = 12;  // tiles of 32 pixels: all taps pass over them while they lie in L1
constexpr int64_t kMostParts = 8;
constexpr int64_t kPartsBytes = 8 << 20;  // of the parts of all sums, about
constexpr int64_t kStripBytes = 1 << 20;  // in L2; no cache's size, for sums are cut by strips
constexpr int64_t kFewPixels = 512;       // of a strip, for the sake of parts

struct FilterBlocking {
  ColumnGrid grid;
  AmxParts number_parts;
  int64_t groups, channels, rows, taps;
  int64_t channel_blocks, row_blocks;
  int64_t strip, strips, parts;
  int64_t plane_bytes, columns;  // of a channel of x; tiles of a strip times 32, at most

  FilterBlocking(const ConvProblem& p, AmxParts of_numbers, double pad_value = 0)
      : grid(forward_grid(p, pad_value)), number_parts(of_numbers) {
    groups = p.groups, channels = p.c / groups, rows = p.k / groups, taps = fastconv::taps(p);
    channel_blocks = ceil_div(channels, kBlock), row_blocks = ceil_div(rows, kBlock);
    const int64_t all = std::max<int64_t>(1, grid.columns() * p.n);
    const int64_t most_parts = std::clamp(kPartsBytes / sums_bytes(), int64_t{1}, kMostParts);
    strip = std::min(amx_most_strip(grid), all);
    if (most_parts > 1 && all >= 2 * kFewPixels) strip = std::min(strip, ceil_div(all, int64_t{2}));
    set_sizes();
    while (strip > kTileDepth && strip_bytes() > kStripBytes) {
      strip = std::max(kTileDepth, ceil_div(strip, int64_t{2}));
      set_sizes();
    }
    const int64_t row = std::max<int64_t>(1, grid.axis[2].columns);
    const int64_t whole = row > kTileDepth && row < strip / 2 ? row : kTileDepth;
    strip = std::min(strip, ceil_div(ceil_div(all, ceil_div(all, strip)), whole) * whole);
    set_sizes();
    strips = AmxStrips(grid, p.n, strip).count;
    parts = std::clamp(strips, int64_t{1}, most_parts);
  }

  int64_t sums_bytes() const { return groups * channel_blocks * row_blocks * taps * kBlockBytes; }
  int64_t x_part() const { return channel_blocks * kBlock * plane_bytes; }
  int64_t y_part() const { return row_blocks * 2 * tiles() * kTileBytes; }
  int64_t tiles() const { return columns / kTileDepth; }
  int64_t strip_bytes() const { return number_parts.count * (x_part() + y_part()); }
  int64_t line_bytes() const { return ((columns * 2) / 64 | 1) * 64; }  // of a row of dy

 private:
  void set_sizes() {
    const int64_t width = std::max<int64_t>(1, std::min(strip, grid.axis[2].columns));
    const int64_t lines = strip < grid.axis[2].columns ? 1 : (strip + width - 2) / width + 1;
    const int64_t slabs = strip / std::max<int64_t>(1, width * grid.axis[1].columns) + 2;
    const int64_t places = std::max(strip, amx_places(grid, strip));
    // Of AmxColumns: tiles of each row, or of all that lies between those of a slab.
    columns = std::min({lines * ceil_div(width, kTileDepth), places / kTileDepth + slabs, strip}) * kTileDepth;
    plane_bytes = (aligned((places + kTileDepth) * 2) / 64 | 1) * 64;  // a tile may read 31 places behind the last
  }
};

// Scratch of a worker.
struct Room {
  int64_t halo, x, line, y, steps, runs, block;
  explicit Room(const FilterBlocking& b) {
    halo = aligned((kHaloChannels * b.plane_bytes / 2 + kTileRows * b.strip + 2 * b.taps) * 4);
    x = b.number_parts.count * b.x_part();
    line = b.number_parts.count * kTileRows * b.line_bytes();
    y = b.number_parts.count * b.y_part();
    steps = aligned(3 * b.tiles() * 8);
    runs = aligned(3 * b.strip * 8);
    block = 2 * b.taps * kBlockBytes;  // of sums, and turned
  }
  int64_t bytes() const { return halo + x + line + y + steps + runs + block; }
};

class FilterProduct {
 public:
  FilterProduct(const ConvProblem& problem, AmxParts parts, const RunContext& context)
      : p(problem),
        r(context),
        kernels(r.machine->kernels->gemm->f32),
        amx(*r.machine->kernels->amx),
        b(p, parts, r.pad_value),
        room(b),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        x(*r.machine, p.dtype, r.x),
        y(*r.machine, p.dtype, r.y),
        stored(amx_stored(p.dtype)),
        sums(static_cast<char*>(r.workspace)),
        scratch(sums + (b.strips == 1 ? 0 : b.parts * b.sums_bytes())) {}

  void run() const {
    // A share of the rows copies x again.
    const int64_t items = b.parts * b.groups,
                  shares = std::min(b.row_blocks, ceil_div(int64_t{r.parallel.slots}, items));
    parallel_for(r.parallel, items * shares, [&](int64_t item, int slot) {
      const int64_t share = item % shares, group = item / shares % b.groups, part = item / shares / b.groups;
      Item i{scratch + slot * room.bytes(), part, group, share * b.row_blocks / shares,
             (share + 1) * b.row_blocks / shares};
      const int64_t first = part * b.strips / b.parts, last = (part + 1) * b.strips / b.parts;
      for (int64_t strip = first; strip < last; ++strip) add_strip(i, strip, strip > first);
      if (first == last)
        for (int64_t block = i.first_block; block < i.last_block; ++block)
          for (int64_t c = 0; c < b.channel_blocks; ++c) std::memset(block_of(i, c, block), 0, b.taps * kBlockBytes);
    });
    if (b.strips == 1) return;
    parallel_for(r.parallel, b.groups * b.channel_blocks * b.row_blocks, [&](int64_t item, int slot) {
      const PhaseScope adding(r.phases, Phase::kSums);
      float* sum = reinterpret_cast<float*>(sums + item * b.taps * kBlockBytes);
      if (b.parts > 1) kernels.reduce(b.taps * kBlock * kBlock, b.parts, sum, b.sums_bytes() / 4, sum);
      finish(item, sum, reinterpret_cast<float*>(scratch + slot * room.bytes()));
    });
  }

 private:
  struct Item {
    char* mine;
    int64_t part, group, first_block, last_block;
  };

  char* block_of(const Item& i, int64_t channel_block, int64_t row_block) const {
    return sums + i.part * b.sums_bytes() +
           ((i.group * b.channel_blocks + channel_block) * b.row_blocks + row_block) * b.taps * kBlockBytes;
  }

  void add_strip(const Item& i, int64_t strip, bool accumulate) const {
    const AmxStrips strips(b.grid, p.n, b.strip);
    const int64_t pixel = strips.pixel(strip), pixels = strips.pixels(strip);
    char* at = i.mine;
    float* halo = reinterpret_cast<float*>(at);
    char* planes = at += room.halo;
    char* lines = at += room.x;
    char* turned = at += room.line;
    int64_t* a_steps = reinterpret_cast<int64_t*>(at += room.y);
    int64_t *b_steps = a_steps + b.tiles(), *tiles = b_steps + b.tiles();
    AmxColumns columns(kTileDepth, 2);
    columns.tiles = tiles;
    columns.from = reinterpret_cast<int64_t*>(at + room.steps);
    columns.to = columns.from + b.strip, columns.counts = columns.to + b.strip;
    char* one_block = at + room.steps + room.runs;
    int64_t* offsets = reinterpret_cast<int64_t*>(halo);
    {
      const PhaseScope reading(r.phases, Phase::kInput);
      read_x(i.group, pixel, pixels, halo, planes, &columns);
      read_y(i, pixel, pixels, columns, halo + 2 * b.taps, lines, turned);
    }
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    AmxProduct q{};
    q.a_pitch = b.plane_bytes, q.a_tile = kTileRows * b.plane_bytes, q.a_part = b.x_part(), q.a_steps = a_steps;
    q.b_pitch = 64, q.b_part = b.y_part(), q.b_steps = b_steps;
    q.parts = b.number_parts.count, q.products = b.number_parts.products, q.c_pitch = kBlock;
    const int64_t tile_bytes[] = {0, b.tiles() * kTileBytes};
    q.b_tiles = tile_bytes;
    for (int64_t step = 0; step < columns.tile_count; ++step)
      a_steps[step] = columns.tiles[step], b_steps[step] = step * kTileBytes;
    for (int64_t block = i.first_block; block < i.last_block; ++block)
      for (int64_t c = 0; c < b.channel_blocks; ++c) {
        q.row_tiles = b.channels - c * kBlock > kTileRows ? 2 : 1;
        q.column_tiles = b.rows - block * kBlock > kTileColumns ? 2 : 1;
        float* to = reinterpret_cast<float*>(b.strips == 1 ? one_block : block_of(i, c, block));
        for (int64_t step = 0; step < columns.tile_count; step += kStepsAtOnce) {
          q.steps = std::min(kStepsAtOnce, columns.tile_count - step);
          q.a_steps = a_steps + step, q.b_steps = b_steps + step;
          q.accumulate = accumulate || step > 0;
          q.b = turned + 2 * block * b.tiles() * kTileBytes;
          for (int64_t tap = 0; tap < b.taps; ++tap) {
            q.a = planes + c * kBlock * b.plane_bytes + offsets[tap] * 2;
            q.c = to + tap * kBlock * kBlock;
            amx.product(&q);
          }
        }
        if (b.strips == 1)
          finish((i.group * b.channel_blocks + c) * b.row_blocks + block, to,
                 reinterpret_cast<float*>(one_block + b.taps * kBlockBytes));
      }
  }

  // Channels of a group as they lie, with padding; taps' offsets go to the front of `halo`.
  void read_x(int64_t group, int64_t pixel, int64_t pixels, float* halo, char* planes, AmxColumns* columns) const {
    const int64_t pitch = x_layout.channel_pitch;
    const AmxSource source{kernels, b.grid, x_layout, x, stored, group * b.channels, b.channels, pixel, pixels};
    const auto copy = [&](const AmxLine& l) {
      char* dst = planes + l.channel * b.plane_bytes + l.place * 2;
      const int64_t left = b.channels - l.channel;
      if (source.turns())
        amx.turn_pixels(false, l.count, l.first, l.last, left, static_cast<const char*>(r.x) + l.cell * 2,
                        l.step * pitch * 2, dst, b.plane_bytes);
      else
        amx.split_rows(b.number_parts.count, stored, std::min(source.together(), left), l.count, l.first, l.last, r.x,
                       l.cell, l.step, pitch, dst, b.plane_bytes, b.x_part());
    };
    const auto add = [&](int64_t channel, int64_t count, int64_t places, const float* from) {
      amx.split_rows(b.number_parts.count, AmxStored::kFloat32, count, places, 0, places, from, 0, 1, places,
                     planes + channel * b.plane_bytes, b.plane_bytes, b.x_part());
    };
    const int64_t places = source.read(halo, columns, copy, add);
    // What tiles read behind the last place meets zeros of dy, and must not be NaN.
    for (int part = 0; part < b.number_parts.count; ++part)
      for (int64_t channel = 0; channel < b.channels; ++channel) {
        char* plane = planes + part * b.x_part() + channel * b.plane_bytes;
        std::memset(plane + places * 2, 0, static_cast<size_t>(b.plane_bytes - places * 2));
      }
  }

  // Rows of the item's blocks, 16 at a time: to their columns, 0 in between, then turned.
  void read_y(const Item& i, int64_t pixel, int64_t pixels, const AmxColumns& columns, float* scratch_rows, char* lines,
              char* turned) const {
    const ColumnGrid pixels_of_y = identity_grid(p);
    const int64_t pitch = y_layout.channel_pitch, line_bytes = b.line_bytes(), part = kTileRows * line_bytes;
    const int64_t last = std::min(b.rows, i.last_block * kBlock);
    for (int64_t row = i.first_block * kBlock; row < last; row += kTileRows) {
      const int64_t count = std::min(kTileRows, b.rows - row),
                    first = (i.group * b.rows + row) * y_layout.channel_step();
      std::memset(lines, 0, static_cast<size_t>(b.number_parts.count * part));
      const auto put = [&](int64_t column, int64_t some, AmxStored from, const void* src, int64_t cell,
                           int64_t src_pitch) {
        amx.split_rows(b.number_parts.count, from, count, some, 0, some, src, cell, 1, src_pitch, lines + column * 2,
                       line_bytes, part);
      };
      int64_t run = 0;
      each_run(pixels_of_y, pixel, pixels, [&](const Run& o) {
        const int64_t at = (o.o[0] * pixels_of_y.axis[1].columns + o.o[1]) * pixels_of_y.axis[2].columns + o.o[2];
        const int64_t cell = o.n * y_layout.batch_pitch + first + at * y_layout.pixel_step();
        int64_t column = o.lane;
        if (!columns.straight) column = columns.from[run++];
        if (p.y_layout == Layout::kChannelsFirst) return put(column, o.count, stored, r.y, cell, pitch);
        y.transpose(kernels, o.count, count, o.count, cell, pitch, scratch_rows, o.count);
        put(column, o.count, AmxStored::kFloat32, scratch_rows, 0, o.count);
      });
      for (int one = 0; one < b.number_parts.count; ++one)
        for (int64_t tile = 0; tile < columns.tile_count; ++tile)
          amx.turn(lines + one * part + tile * 64, line_bytes,
                   turned + one * b.y_part() + (row / kTileRows * b.tiles() + tile) * kTileBytes, 64);
    }
  }

  // A block of sums, turned from [tap][channel][row] to [row][channel][tap].
  void finish(int64_t item, const float* sum, float* room_of_block) const {
    const int64_t block = item % b.row_blocks, c = item / b.row_blocks % b.channel_blocks;
    const int64_t group = item / b.row_blocks / b.channel_blocks;
    const int64_t row = block * kBlock, rows = std::min(kBlock, b.rows - row);
    const int64_t channel = c * kBlock, channels = std::min(kBlock, b.channels - channel), depth = channels * b.taps;
    if (b.taps == 1) kernels.transpose(channels, rows, channels, sum, kBlock, room_of_block, channels);
    for (int64_t i = 0; b.taps > 1 && i < channels; ++i)
      kernels.transpose(b.taps, rows, b.taps, sum + i * kBlock, kBlock * kBlock, room_of_block + i * b.taps, depth);
    const Stored<float> w(*r.machine, r.w_dtype, r.w);
    w.put_rows(kernels, rows, depth, room_of_block, depth, ((group * b.rows + row) * b.channels + channel) * b.taps,
               b.channels * b.taps);
  }

  const ConvProblem& p;
  const RunContext& r;
  const GemmKernelsOf<float>& kernels;
  const AmxKernels& amx;
  const FilterBlocking b;
  const Room room;
  const ImageLayout x_layout, y_layout;
  const Stored<float> x, y;
  const AmxStored stored;
  char *sums, *scratch;
};

}  // namespace

int64_t amx_filter_workspace(const ConvProblem& p, AmxParts parts, int slots) {
  const FilterBlocking b(p, parts);
  return (b.strips == 1 ? 0 : b.parts * b.sums_bytes()) + slots * Room(b).bytes();
}

void amx_filter_run(const ConvProblem& p, AmxParts parts, const RunContext& r) { FilterProduct(p, parts, r).run(); }

void amx_filter_estimate(const ConvProblem& p, AmxParts parts, double split, Estimate* e) {
  const FilterBlocking b(p, parts);
  if (b.strips == 0) return;
  const int64_t pixels = AmxStrips(b.grid, p.n, b.strip).pixels(0), width = std::min(pixels, b.grid.axis[2].columns);
  const bool dense = b.grid.reads_as_written() && p.x_layout == Layout::kChannelsFirst;
  const int64_t places = dense ? pixels : amx_places(b.grid, pixels);
  const int64_t tiles = dense
                            ? ceil_div(pixels, kTileDepth)
                            : std::min(ceil_div(pixels, width) * ceil_div(width, kTileDepth), places / kTileDepth + 2);
  const double strips = times(b.strips, b.groups),
               blocks = times(ceil_div(b.channels, kTileRows), ceil_div(b.rows, kTileRows));
  const bool by_halo =
      (p.x_layout == Layout::kChannelsLast && p.dtype != DType::kBFloat16) || p.padding_mode != PaddingMode::kZeros;
  e->add("filter products", strips * blocks * times(b.taps, tiles) * parts.products * kTileProduct);
  e->add("filter tiles", strips * blocks * times(b.taps, ceil_div(tiles, kStepsAtOnce)) * 25e-9);
  e->add(by_halo ? "filter x by halo" : "filter x",
         strips * times(b.channels, ceil_div(places, int64_t{16})) * (split + (by_halo ? 12e-9 : 0)));
  e->add(p.y_layout == Layout::kChannelsLast ? "filter y turned" : "filter y",
         strips * times(ceil_div(b.rows, kTileRows) * kTileRows, tiles) * 2 * (split + 1e-9));
  e->add("filter sums", times(b.sums_bytes()) * (b.strips == 1 ? 0.08e-9 : 0.06e-9 * static_cast<double>(b.parts + 1)));
}

}  // namespace fastconv
