// SPDX-License-Identifier: Apache-2.0
// Winograd's filter gradient, the exact adjoint of the forward pass in the filter (kernels/winograd_gradient.cc):
//
//   for each group, each slab of tiles:
//     V = B^T x B of all channels, D = A y A^T of all of them                   for each block of lanes channels
//     U[point][k][c] += sum over the slab's tiles of D V                        for each point, block of k, of c
//   w = G^T U G
//
// Depth taps are further channels c. Where one slab holds all tiles, U of a block of k and c stays in cache and is
// turned to filters at once; 36 times C K elements are never written. Where there are more, U is added to in memory,
// and a slab is as small as the traffic of that allows. A small U is there several times: a part of the slabs each,
// which one thread takes from beginning to end without waiting for others. Of the only slab, threads make what they
// need of V and D for themselves: that is sooner done than it moves from another core's cache.
//
// Slabs, their parts, and the chunks of them that a register tile sums in one chain, come from the problem alone:
// chunks are added in ascending order whoever computes them, parts in a fixed tree. Here a slab may join images, so
// that w depends on how they are batched, like any sum over them.
#include "../halo.h"
#include "../parallel.h"
#include "../phases.h"
#include "winograd.h"

namespace fastconv {
namespace {

constexpr int64_t kPad = 80;                         // elements between points, so that they do not share cache sets
constexpr int64_t kOneSlabBytes = 3 << 20;           // of V and D
constexpr int64_t kLeastSlab = 48, kMostSlab = 448;  // tiles, of several slabs
constexpr int64_t kItems = 4;                        // wanted at least
constexpr int64_t kPartBytes = 5 << 19;              // of all U, where it is there several times
constexpr int64_t kLeastParts = 4, kParts = 8;
constexpr int64_t kMostOwn = 64;  // blocks of V and D: bits of a word
constexpr int64_t kChunk = 112;   // tiles of one chain: V of four blocks stays in L1

struct Blocking {
  WinogradGeometry g;
  const WinogradGradientKernels& kernels;
  const WinogradAdjoints& adjoints;
  int64_t v_blocks, d_blocks, v_groups;
  int64_t slabs, slab;           // slab: tiles
  int64_t parts, unit;           // tiles are cut into, in units
  int64_t row_block, row_items;  // rows of a block whose U stays in cache; blocks of them
  bool own;                      // V and D are each thread's

  // Threads decide where V and D lie, nothing else.
  Blocking(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots = 1)
      : g(form, p, m), kernels(*m.kernels->winograd_gradient), adjoints(kernels.*form.adjoints) {
    v_blocks = g.depth_taps * g.read_blocks();
    d_blocks = g.written_vectors();
    v_groups = ceil_div(v_blocks, int64_t{kernels.blocks});
    const int64_t tiles = std::max<int64_t>(1, g.tiles), tile_bytes = g.points * (v_blocks + d_blocks) * g.lanes * 4;
    slab = tiles;
    if (tiles * tile_bytes > kOneSlabBytes) {
      // What is read and written of U for each slab is to be small beside the products.
      const int64_t wanted = v_blocks * d_blocks * g.lanes * 3 / 2 / (v_blocks + d_blocks);
      slab = std::min(tiles, std::clamp(wanted, kLeastSlab, kMostSlab));
    }
    // Equal slabs, in whole planes or whole rows of a strip: the parts of a row would be loaded twice.
    unit = g.plane_tiles > 0 && g.plane_tiles <= slab ? g.plane_tiles : std::max<int64_t>(1, g.strip(0, 0).tiles);
    slabs = ceil_div(tiles, slab);
    slab = std::min(tiles, ceil_div(ceil_div(tiles, slabs), unit) * unit);
    slabs = ceil_div(tiles, slab);
    row_block = slab <= 32 ? 16 : slab <= 128 ? 32 : 64;
    // Of one slab, blocks of rows and of V are all that threads share.
    while (slabs == 1 && row_block > 16 && ceil_div(g.written, row_block) * v_groups < kItems) row_block /= 2;
    row_items = ceil_div(g.written, row_block);
    parts =
        std::clamp(kPartBytes / (g.filters * u_point() * int64_t{sizeof(float)}), int64_t{1}, std::min(kParts, slabs));
    if (parts < kLeastParts) parts = 1;
    own = parts > 1 || (slabs == 1 && slots > 1 && v_blocks + d_blocks <= kMostOwn);
  }

  bool keeps_u() const { return slabs > 1; }
  int64_t part_begin(int64_t part) const {
    const int64_t units = ceil_div(g.tiles, unit);
    return std::min(g.tiles, part * units / parts * unit);
  }
  int64_t u_width() const { return v_blocks * g.lanes; }
  int64_t v_point() const { return v_blocks * slab * g.lanes + kPad; }
  int64_t d_point() const { return d_blocks * slab * g.lanes + kPad; }
  int64_t u_point() const { return g.written * u_width() + kPad; }
  int64_t part_point() const { return row_block * kernels.blocks * g.lanes + kPad; }
  int64_t chunks(int64_t tiles) const { return ceil_div(tiles, kChunk); }
};

// Parts of the workspace, in bytes.
struct Room {
  int64_t v, d;             // of one thread or of all
  int64_t u;                // of a part, or of all threads
  int64_t u_part, scratch;  // of one thread
  int64_t parts;
  bool own;
  explicit Room(const Blocking& b);
  int64_t shared() const { return u * parts + (own ? 0 : v + d); }
  int64_t each() const { return u_part + scratch + (own ? v + d : 0); }
};

// y as D[point][block of lanes channels][tile][lane].
struct WinogradGradient {
  const WinogradGeometry& g;
  const WinogradAdjoints& adjoints;
  const GemmKernelsOf<float>& kernels;
  ImageLayout layout;
  const Stored<float> y;

  static int64_t line_elements(const WinogradGeometry& g) { return g.most_written_cells() * g.lanes; }
  static int64_t scratch(const WinogradGeometry& g) { return line_elements(g) * g.m[0]; }

  void transform(int64_t first, int64_t tiles, int64_t group, int64_t block, float* d, int64_t point_pitch,
                 float* cells) const {
    const int64_t channels = std::min(g.lanes, g.written - block * g.lanes);
    const int64_t image = (group * g.written + block * g.lanes) * layout.channel_step();
    each_segment(g, first, tiles, [&](const WinogradSegment& s) {
      each_tile_row(s, [&](int64_t row, int64_t from, int64_t count, int64_t index) {
        for (int64_t i = 0; i < g.m[0]; ++i)
          load_row(s, image + s.image * layout.batch_pitch, row * g.m[0] + i, from, count, channels,
                   cells + i * line_elements(g));
        each_run(s.strip, from, count, [&](int64_t column, int64_t phase, int64_t done, int64_t some) {
          adjoints.gradient(some, s.strip.phases, cells + (column * g.m[1] * s.strip.phases + phase) * g.lanes,
                            line_elements(g), d + (index + done) * g.lanes, point_pitch);
        });
      });
    });
  }

 private:
  void load_row(const WinogradSegment& s, int64_t image, int64_t row, int64_t from, int64_t tiles, int64_t channels,
                float* cells) const {
    const int64_t lanes = g.lanes, y_row = row * g.dilation[1] + s.rows.first;
    const int64_t line = (s.depth * g.written_size[1] + y_row) * g.written_size[2];
    each_stretch(g, s.strip, from, tiles, [&](int64_t cell, int64_t column, int64_t count, int64_t shown) {
      if (row >= s.rows.points) shown = 0;
      layout.load_pixels(kernels, y, image + (line + column) * layout.pixel_step(), shown, channels, lanes,
                         cells + cell * lanes);
      std::fill_n(cells + (cell + shown) * lanes, (count - shown) * lanes, 0.0f);
    });
  }
};

Room::Room(const Blocking& b) {
  const auto bytes = [](int64_t elements) { return aligned(elements * static_cast<int64_t>(sizeof(float))); };
  v = bytes(b.g.points * b.v_point());
  d = bytes(b.g.points * b.d_point());
  u = b.keeps_u() ? bytes(b.g.filters * b.u_point()) : 0;
  u_part = b.keeps_u() ? 0 : bytes(b.g.filters * b.part_point());
  scratch = bytes(std::max(WinogradInput::scratch(b.g, b.slab), WinogradGradient::scratch(b.g)));
  parts = b.parts;
  own = b.own;
}

class FilterRun {
 public:
  FilterRun(const Blocking& blocking, const ConvProblem& problem, const RunContext& context)
      : b(blocking),
        g(b.g),
        r(context),
        room(b),
        input(problem, r, g),
        gradient{g, b.adjoints, gemm_kernels<float>(*r.machine),
                 ImageLayout{problem.y_layout, r.y_batch_pitch, r.y_channel_pitch},
                 Stored<float>(*r.machine, problem.dtype, r.y)},
        dw(*r.machine, r.w_dtype, r.w),
        each(static_cast<char*>(r.workspace) + room.shared()) {}

  void run() const {
    if (g.tiles == 0) return dw.fill_zeros(0, g.groups * g.written * g.read * g.all_taps());
    int64_t w = 0;  // the group's first element
    for (int64_t group = 0; group < g.groups; ++group, w += g.written * g.read * g.all_taps()) {
      if (b.parts > 1) {
        add_parts(group);
      } else {
        for (int64_t slab = 0; slab < b.slabs; ++slab) {
          const Tiles tiles{slab * b.slab, std::min(b.slab, g.tiles - slab * b.slab)};
          if (!b.own) transform(place(0, 0), group, tiles);
          if (b.keeps_u())
            add(place(0, 0), tiles);
          else
            finish_part(group, w);
        }
      }
      if (b.keeps_u()) finish(w);
    }
  }

 private:
  struct Place {
    float *v, *d, *u;
  };
  Place place(int64_t part, int slot) const {
    float* u = static_cast<float*>(r.workspace) + part * room.u / 4;
    float* v = b.own ? scratch(slot) + room.scratch / 4 : u + room.u / 4;
    return {v, v + room.v / 4, u};
  }
  float* scratch(int slot) const { return reinterpret_cast<float*>(each + slot * room.each() + room.u_part); }
  struct Tiles {
    int64_t first, count;
  };

  void transform(const Place& at, int64_t group, const Tiles& tiles) const {
    parallel_for(r.parallel, b.v_blocks + b.d_blocks,
                 [&](int64_t i, int slot) { transform_block(at, group, tiles, i, scratch(slot)); });
  }
  void transform_block(const Place& at, int64_t group, const Tiles& tiles, int64_t i, float* rest) const {
    const PhaseScope transforming(r.phases, Phase::kInput);
    if (i < b.v_blocks)
      return input.transform(tiles.first, tiles.count, group, i / g.read_blocks(), i % g.read_blocks(),
                             at.v + i * b.slab * g.lanes, b.v_point(), rest);
    i -= b.v_blocks;
    gradient.transform(tiles.first, tiles.count, group, i, at.d + i * b.slab * g.lanes, b.d_point(), rest);
  }

  // Two threads add up what they have made while it is near, as the tree of all parts would.
  int64_t part_shares() const { return r.parallel.slots < 4 ? 2 : b.parts; }
  void add_parts(int64_t group) const {
    const int64_t shares = part_shares();
    parallel_for(r.parallel, shares, [&](int64_t share, int slot) {
      const int64_t first = share * b.parts / shares, last = (share + 1) * b.parts / shares;
      for (int64_t part = first; part < last; ++part) add_part(group, part, slot);
      if (last - first == 1) return;
      const PhaseScope adding(r.phases, Phase::kSums);
      float* sum = place(first, slot).u;
      for (int64_t value = 0; value < g.filters; ++value, sum += b.u_point())
        gradient.kernels.reduce(g.written * b.u_width(), last - first, sum, room.u / 4, sum);
    });
  }
  void add_part(int64_t group, int64_t part, int slot) const {
    const Place at = place(part, slot);
    const int64_t begin = b.part_begin(part), units = ceil_div(b.part_begin(part + 1) - begin, b.unit);
    const int64_t slabs = ceil_div(units * b.unit, b.slab);
    for (int64_t slab = 0; slab < slabs; ++slab) {
      const int64_t first = begin + slab * units / slabs * b.unit, last = begin + (slab + 1) * units / slabs * b.unit;
      const Tiles tiles{first, std::min(last, g.tiles) - first};
      for (int64_t i = 0; i < b.v_blocks + b.d_blocks; ++i) transform_block(at, group, tiles, i, scratch(slot));
      for (int64_t item = 0; item < g.filters * b.row_items; ++item) add_block(at, tiles, item, slab > 0);
    }
  }

  // The products of `points` points, rows from `row` on and one group of blocks of V; u is their place.
  void multiply(const Place& at, int64_t tiles, int64_t point, int64_t points, int64_t row, int64_t rows, int64_t block,
                int64_t blocks, float* to, int64_t u_point, int64_t u_row, bool accumulate) const {
    const PhaseScope multiplying(r.phases, Phase::kProducts);
    const int64_t chunks = b.chunks(tiles);
    // Of one point, the other blocks come next.
    const bool ends = points > 1 || block + blocks == b.v_blocks;
    const int64_t next_point = ends ? 1 : 0, next_block = points > 1 ? 0 : ends ? -block : blocks;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = chunk * tiles / chunks;
      WinogradProducts p;
      p.points = points;
      p.tiles = (chunk + 1) * tiles / chunks - first;
      p.rows = rows;
      p.blocks = static_cast<int>(blocks);
      p.accumulate = accumulate || chunk > 0;
      p.v = at.v + point * b.v_point() + (block * b.slab + first) * g.lanes, p.v_point = b.v_point();
      p.v_block = b.slab * g.lanes;
      p.d = at.d + point * b.d_point() + (row / g.lanes * b.slab + first) * g.lanes, p.d_point = b.d_point();
      p.d_block = p.v_block;
      p.v_ahead = next_block * p.v_block + next_point * b.v_point();
      p.d_ahead = next_point * b.d_point();
      p.u = to, p.u_point = u_point, p.u_row = u_row;
      b.kernels.multiply(&p);
    }
  }

  // One slab of several.
  void add(const Place& at, const Tiles& tiles) const {
    parallel_for(r.parallel, g.filters * b.row_items,
                 [&](int64_t item, int) { add_block(at, tiles, item, tiles.first > 0); });
  }
  void add_block(const Place& at, const Tiles& tiles, int64_t item, bool accumulate) const {
    const int64_t value = item / b.row_items, row = item % b.row_items * b.row_block;
    const int64_t rows = std::min(b.row_block, g.written - row);
    for (int64_t i = 0; i < b.v_groups; ++i) {
      const int64_t block = i * b.v_blocks / b.v_groups, blocks = (i + 1) * b.v_blocks / b.v_groups - block;
      multiply_value(at, tiles.count, value, row, rows, block, blocks,
                     at.u + value * b.u_point() + row * b.u_width() + block * g.lanes, b.u_width(), accumulate);
    }
  }
  // The products of all points of one value of a filter.
  void multiply_value(const Place& at, int64_t tiles, int64_t value, int64_t row, int64_t rows, int64_t block,
                      int64_t blocks, float* to, int64_t u_row, bool accumulate) const {
    g.each_point(value, [&](int64_t point) {
      multiply(at, tiles, point, 1, row, rows, block, blocks, to, 0, u_row, accumulate);
      accumulate = true;
    });
  }
  void finish(int64_t w) const {
    constexpr int64_t kRows = 16;
    float* u = place(0, 0).u;
    parallel_for(r.parallel, ceil_div(g.written, kRows), [&](int64_t item, int) {
      const int64_t row = item * kRows, rows = std::min(kRows, g.written - row);
      for (int64_t value = 0; value < g.filters && b.parts > 1; ++value) {
        const PhaseScope adding(r.phases, Phase::kSums);
        float* sum = u + value * b.u_point() + row * b.u_width();
        const int64_t shares = part_shares();
        gradient.kernels.reduce(rows * b.u_width(), shares, sum, b.parts / shares * (room.u / 4), sum);
      }
      for (int64_t block = 0; block < b.v_blocks; ++block)
        filter(row, rows, block, u + row * b.u_width() + block * g.lanes, b.u_point(), b.u_width(), w);
    });
  }

  // The only slab: a block of U from products to filters.
  void finish_part(int64_t group, int64_t w) const {
    uint64_t made[kMostSlots] = {};  // which blocks of a thread's own V and D
    parallel_for(r.parallel, b.row_items * b.v_groups, [&](int64_t item, int slot) {
      float* part = reinterpret_cast<float*>(each + slot * room.each());
      const int64_t i = item % b.v_groups, row = item / b.v_groups * b.row_block;
      const int64_t rows = std::min(b.row_block, g.written - row);
      const int64_t block = i * b.v_blocks / b.v_groups, blocks = (i + 1) * b.v_blocks / b.v_groups - block;
      const Place at = place(0, slot);
      const auto make = [&](int64_t from, int64_t to) {
        for (; b.own && from < to; ++from)
          if (!(made[slot] >> from & 1))
            transform_block(at, group, {0, g.tiles}, from, scratch(slot)), made[slot] |= 1ull << from;
      };
      make(block, block + blocks);
      make(b.v_blocks + row / g.lanes, b.v_blocks + ceil_div(row + rows, g.lanes));
      if (g.points == g.filters)
        multiply(at, g.tiles, 0, g.points, row, rows, block, blocks, part, b.part_point(), blocks * g.lanes, false);
      for (int64_t value = 0; value < g.filters && g.points > g.filters; ++value)
        multiply_value(at, g.tiles, value, row, rows, block, blocks, part + value * b.part_point(), blocks * g.lanes,
                       false);
      for (int64_t j = 0; j < blocks; ++j)
        filter(row, rows, block + j, part + j * g.lanes, b.part_point(), blocks * g.lanes, w);
    });
  }

  void filter(int64_t row, int64_t rows, int64_t block, const float* from, int64_t u_point, int64_t u_row,
              int64_t w) const {
    const PhaseScope transforming(r.phases, Phase::kOutput);
    const int64_t channel = block % g.read_blocks() * g.lanes, channels = std::min(g.lanes, g.read - channel);
    const int64_t taps = g.all_taps(), plane = g.r[0] * g.r[1];
    w += (row * g.read + channel) * taps + block / g.read_blocks() * plane;
    if (!dw.is_half()) return b.adjoints.filter(rows, channels, from, u_point, u_row, dw.at(w), g.read * taps, taps);
    constexpr int64_t kRoom = 4096, kMostPlane = 25;
    static_assert(kRoom >= kMostPlane * 64);
    alignas(64) float few[kRoom];
    const GemmKernelsOf<float>& kernels = gemm_kernels<float>(*r.machine);
    const int64_t most = kRoom / (channels * plane);
    for (int64_t done = 0, some; done < rows; done += some, w += some * g.read * taps) {
      some = std::min(most, rows - done);
      b.adjoints.filter(some, channels, from + done * u_row, u_point, u_row, few, channels * plane, plane);
      if (plane == taps)
        dw.put_rows(kernels, some, channels * plane, few, channels * plane, w, g.read * taps);
      else
        for (int64_t i = 0; i < some; ++i)
          dw.put_rows(kernels, channels, plane, few + i * channels * plane, plane, w + i * g.read * taps, taps);
    }
  }

  const Blocking& b;
  const WinogradGeometry& g;
  const RunContext& r;
  const Room room;
  const WinogradInput input;
  const WinogradGradient gradient;
  const Stored<float> dw;
  char* each;
};

}  // namespace

// Of the register tile: see kernels/winograd_gradient.cc. Memory holds U of several slabs, where L2 does not.
void winograd_filter_estimate(const WinogradForm& form, const ConvProblem& p, const Machine& m, Estimate* e) {
  const Blocking b(form, p, m);
  const WinogradGeometry& g = b.g;
  const double filters = times(g.written, b.v_blocks, g.groups);
  const double products = 2 * times(g.points, g.tiles, g.groups, b.v_blocks, b.d_blocks, g.lanes, g.lanes);
  e->add("filter start", 5e-6);
  e->add("filter products", products * 1.15 / m.flops_f32);
  e->add("filter tiles",
         8 * times(g.points, b.slabs, g.groups, b.v_blocks, b.d_blocks, g.lanes, g.lanes) / m.flops_f32);
  e->add("filters turned", times(g.filters) * filters * 2e-9);
  if (b.keeps_u() && b.parts == 1 && times(g.filters, b.u_point(), sizeof(float)) > times(m.l2_bytes))
    e->add("sums", times(b.slabs, g.filters, g.lanes, 8) * filters / (3 * m.bytes_per_second));
  g.add_transforms(p, times(b.v_blocks, g.groups), times(b.d_blocks, g.groups), e);
}

int64_t winograd_filter_workspace(const WinogradForm& form, const ConvProblem& p, const Machine& m, int slots) {
  const Room room(Blocking(form, p, m, slots));
  return room.shared() + slots * room.each();
}

void winograd_filter_run(const WinogradForm& form, const ConvProblem& p, const RunContext& r) {
  const Blocking b(form, p, *r.machine, r.parallel.slots);
  FilterRun(b, p, r).run();
}

}  // namespace fastconv
