// SPDX-License-Identifier: Apache-2.0
// grouped_tensor, forward and backward-data: a block has a tile of outputs of several groups.
//   the halo of all their channels into shared memory, pixel by pixel, each group's filled up to a multiple of 4 by zeros
//   the filters of the groups likewise, in the order in which fragments take them
//   each warp, of a group, 8 or 16 filters and 64 outputs:
//     for each 16 of the depth: lane q of 4 reads the q-th quad of 4 channels, of whatever tap, of 8 pixels, and of filters
// The order of the depth in a fragment is free as long as both operands have the same: a quad is what one thread holds of
// a row. Where a quad's place lies from a pixel's first cell is in a table.
#include "grouped_phases.cuh"
#include "grouped_tensor.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kDown = 4, kRows = kDown * 16;  // outputs of a warp

struct GroupedProduct {
  Tile tile;
  PhaseTaps taps;
  int32_t groups, filters, group_pitch;  // of a block; of each of its groups: written, and channels in shared memory
  int32_t group_source, group_dest;      // channels of a group
  int32_t steps, filter_blocks, blocks_at_once, row_blocks, units;
  int32_t quads_at, zeros_at;
  Divisor by_group_blocks, by_filter_parts;
  Divisor32 by_filters, by_group_pitch, by_steps, by_filter_blocks, by_quads, by_tap_rows, by_tap_columns,
      by_row_blocks;
};

struct TapIndex {
  int t0, t1, t2;
};
__device__ __forceinline__ TapIndex tap_index(const GroupedProduct& f, int tap) {
  TapIndex t;
  t.t0 = f.by_tap_rows.divide(f.by_tap_columns.divide(tap, &t.t2), &t.t1);
  return t;
}

// Where each quad lies from the first channel of its group in the pixel's first cell; below 0: beyond the depth.
__device__ __forceinline__ void list_quads(const GroupedProduct& f, int32_t* quads) {
  const Tile& g = f.tile;
  for (int e = static_cast<int>(threadIdx.x); e < f.steps * kQuad; e += kTileThreads) {
    int part;
    const int tap = f.by_quads.divide(e, &part);
    const TapIndex t = tap_index(f, tap);
    quads[e] = tap >= g.taps
                   ? -1
                   : t.t0 * g.axis[0].dilation * g.source.pitch[0] + t.t1 * g.axis[1].dilation * g.source.pitch[1] +
                         t.t2 * g.axis[2].dilation * g.source.pitch[2] + part * kQuad;
  }
}

// As [group][block of filters][step][filter][quad of the step][channel of the quad].
template <class T>
__device__ __forceinline__ void load_fragments_of_filters(const GroupedProduct& f, const Conv<T>& c,
                                                          int64_t group_block, int64_t filter_part, T* to) {
  const int width = f.blocks_at_once * 8, block = width * kTensorStep;
  const int count = f.groups * f.filter_blocks * f.steps * block;
  for (int e = static_cast<int>(threadIdx.x); e < count; e += kTileThreads) {
    const int in_step = e & (block - 1), filter_in_block = in_step >> 4;
    int step, filter_block, part;
    const int group_in_block =
        f.by_filter_blocks.divide(f.by_steps.divide(e >> (f.blocks_at_once == 2 ? 8 : 7), &step), &filter_block);
    const int tap = f.by_quads.divide(step * kQuad + (e >> 2 & 3), &part), channel = part * kQuad + (e & 3);
    const int64_t group = group_block * f.groups + group_in_block;
    const int filter = filter_block * width + filter_in_block;
    const int64_t written = filter_part * f.filters + filter;
    T value{};
    if (group < c.p.groups && filter < f.filters && written < f.group_dest && channel < f.group_source &&
        tap < f.tile.taps) {
      const TapIndex t = tap_index(f, tap);
      const int64_t k = group * c.group_k + (f.tile.backward ? channel : written);
      const int64_t ch = f.tile.backward ? written : channel;
      value = c.w[(k * c.group_c + ch) * (c.p.filter[0] * c.p.filter[1] * c.p.filter[2]) +
                  f.taps.place(c.p, t.t0, t.t1, t.t2)];
    }
    to[e] = value;
  }
}

// sums += the step's products. `base`: the places of this thread's 8 pixels.
template <class A, int across>
__device__ __forceinline__ void multiply_step(const typename A::T* cells, const typename A::T* filters,
                                              const int (&base)[kDown][2], int mask, TensorSums<kDown, across>& sums) {
  typedef typename A::T T;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  Vector<uint32_t, sizeof(T)> pixels[kDown][2], columns[across];
#pragma unroll
  for (int j = 0; j < across; ++j) columns[j] = load_quad(filters + (j * 8 * kQuad + lane) * kQuad);
#pragma unroll
  for (int i = 0; i < kDown; ++i)
#pragma unroll
    for (int k = 0; k < 2; ++k) pixels[i][k] = load_quad(cells + (base[i][k] & mask));
  multiply_quads<A, kDown, across>(pixels, columns, sums);
}

template <class A, int across>
__global__ void __launch_bounds__(kTileThreads, A::kPromotes ? 3 : 4)
    grouped_product(Conv<typename A::T> c, GroupedProduct f) {
  typedef typename A::T T;
  auto& s = shared<TensorMemory>();
  const Tile& g = f.tile;
  T* cells = s.template at<T>(0);
  T* filters = s.template at<T>(g.weights_at);
  T* zeros = s.template at<T>(f.zeros_at);
  auto* quads = s.template at<int32_t>(f.quads_at);
  auto* stage = s.template at<float>(g.stage_at);
  const Image from = g.backward ? c.ys : c.xs, to = g.backward ? c.xs : c.ys;
  TilePlace place;
  int64_t group_block, filter_part;
  const int64_t n =
      f.by_filter_parts.divide(f.by_group_blocks.divide(tile_place(g, blockIdx.x, &place), &group_block), &filter_part);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  for (int j = thread; j < kTilePlanes; j += kTileThreads) {
    int member;
    int64_t group = group_block * f.groups + f.by_filters.divide(j, &member);
    const int64_t filter = filter_part * f.filters + member, channel = group * f.group_dest + filter;
    s.channel[j] = static_cast<int32_t>(channel);
    s.dest[j] = group < c.p.groups && filter < f.group_dest ? n * to.batch + channel * to.channel : -1;
    group = group_block * f.groups + f.by_group_pitch.divide(j, &member);
    s.source[j] = group < c.p.groups && member < f.group_source
                      ? n * from.batch + (group * f.group_source + member) * from.channel
                      : -1;
  }
  sync();
  load_box(g.source, cells, g.backward ? c.y : c.x, from.pixel, place.source, s.source, 0);
  copy_async_commit();
  if (thread < kQuad) zeros[thread] = T{};
  list_quads(f, quads);
  load_fragments_of_filters(f, c, group_block, filter_part, filters);
  copy_async_wait<0>();
  sync();

  const int outputs = g.dest.count[0] * g.dest.count[1] * g.dest.count[2];
  const int of_block = f.steps * across * 8 * kTensorStep;
#pragma unroll 1
  for (int unit = thread / kWarp; unit < f.units; unit += kTensorWarps) {
    int row_block, filter_block;
    const int group = f.by_filter_blocks.divide(f.by_row_blocks.divide(unit, &row_block), &filter_block);
    const int first = row_block * kRows + lane / 4;
    int base[kDown][2];
#pragma unroll
    for (int i = 0; i < kDown * 2; ++i) {
      const int at = first + i * 8;
      const Parts parts = parts_of(g.items, at < outputs ? at : 0);
      base[i / 2][i % 2] = parts.at[2] * g.axis[0].stride * g.source.pitch[0] +
                           parts.at[1] * g.axis[1].stride * g.source.pitch[1] +
                           parts.at[0] * g.axis[2].stride * g.source.pitch[2];
    }
    const T* of_group = cells + group * f.group_pitch;
    const T* of_filters = filters + (group * f.filter_blocks + filter_block) * of_block;
    float sums[kDown][across][4] = {};
#pragma unroll 1
    for (int step = 0; step < f.steps; ++step, of_filters += across * 8 * kTensorStep) {
      const int quad = quads[step * kQuad + lane % 4];
      const T* at = quad < 0 ? zeros : of_group + quad;
      if constexpr (A::kPromotes) {
        float more[kDown][across][4] = {};
        multiply_step<A, across>(at, of_filters, base, quad < 0 ? 0 : -1, more);
        add_sums<kDown, across>(sums, more);
      } else {
        multiply_step<A, across>(at, of_filters, base, quad < 0 ? 0 : -1, sums);
      }
    }
    const int filter = filter_block * across * 8;
    put_stage<kDown, across>(g.dest, stage, outputs, row_block * kRows, group * f.filters + filter, f.filters - filter,
                             sums);
  }
  sync();
  store_tile(g, c, place, s, stage);
}

// Boxes and places in shared memory; false: they do not fit.
bool lay_out_product(int64_t element, GroupedProduct* f) {
  Tile& g = f->tile;
  const int64_t planes = int64_t{f->groups} * f->group_pitch, filters = int64_t{f->groups} * f->filters;
  if (planes > kTilePlanes || filters > kTilePlanes) return false;
  int64_t cells[kMaxSpatial], outputs = 1;
  for (int i = 0; i < kMaxSpatial; ++i)
    cells[i] = std::max<int64_t>(1, cells_read(g.axis[i], false, g.axis[i].tile)), outputs *= g.axis[i].tile;
  if (std::max({cells[0], cells[1], cells[2]}) > kTensorArena) return false;  // before their product passes 63 bits
  // Channels last comes in pieces of 16 bytes; planes by elements, whose banks differ the more the smaller the unit.
  const int64_t together = f->group_pitch % 16 == 0 ? 16 : f->group_pitch % 8 == 0 ? 8 : 4;
  const int64_t unit = g.channels_last ? std::max<int64_t>(16, together * element) : kQuad * element;
  const int64_t pixel = odd_pitch(planes * element, unit) / element;
  const int64_t cell_bytes = round_up(cells[0] * cells[1] * cells[2] * pixel * element, 16);
  const int64_t quad_bytes = int64_t{f->steps} * kQuad * 4;
  const int64_t filter_bytes =
      int64_t{f->groups} * f->filter_blocks * f->blocks_at_once * 8 * f->steps * kTensorStep * element;
  for (int i = 0; i < kMaxSpatial; ++i) g.source.count[i] = narrow_int(cells[i]), g.dest.count[i] = g.axis[i].tile;
  g.source.planes = narrow_int(planes), g.dest.planes = narrow_int(filters);
  g.source.channels_last = g.dest.channels_last = g.channels_last;
  const int64_t stage_bytes = lay_out_stage(&g.dest, outputs);
  f->zeros_at = narrow_int(cell_bytes), f->quads_at = f->zeros_at + 16;
  g.weights_at = narrow_int(f->quads_at + quad_bytes), g.stage_at = narrow_int(g.weights_at + filter_bytes);
  if (cell_bytes + quad_bytes + filter_bytes + stage_bytes + 16 > kTensorArena) return false;
  g.source.plane = 1, g.source.pitch[2] = narrow_int(pixel);
  g.source.pitch[1] = g.source.count[2] * g.source.pitch[2], g.source.pitch[0] = g.source.count[1] * g.source.pitch[1];
  return true;
}

bool plan_phase(const ConvProblem& p, const int64_t* phase, GroupedProduct* f, TensorWork* work) {
  Tile& g = f->tile;
  g = Tile{};
  const bool backward = p.pass == Pass::kBackwardData;
  const int64_t element = element_size(p.dtype);
  g.channels_last = p.x_layout == Layout::kChannelsLast, g.backward = backward;
  f->group_source = narrow_int(backward ? p.k / p.groups : p.c / p.groups);
  f->group_dest = narrow_int(backward ? p.c / p.groups : p.k / p.groups);
  if (f->group_source > kTilePlanes) return false;
  f->group_pitch = narrow_int(round_up(f->group_source, kQuad));
  g.taps = 1;
  for (int i = 0; i < kMaxSpatial; ++i) {
    set_phase(p, i, phase[i], &g.axis[i], &f->taps);
    g.taps *= g.axis[i].taps;
    g.source.size[i] = g.axis[i].source;
    g.dest.size[i] = narrow_int(backward ? p.size[i] : g.axis[i].dest);
    if (g.axis[i].dest == 0) return g.blocks = 0, true;
  }
  const int64_t depth = int64_t{g.taps} * f->group_pitch;
  if (depth > kTensorArena) return false;
  f->steps = narrow_int(divide_up(depth, kTensorStep));
  f->blocks_at_once = f->group_dest > 8 ? 2 : 1;
  const int64_t width = f->blocks_at_once * 8;
  const TileLengths ws(g.axis[2].dest, g.channels_last ? 1 : 16 / element, 512), hs(g.axis[1].dest, 1, 64),
      ds(g.axis[0].dest, 1, 8);
  GroupedProduct best{};
  double least = 0;
  for (int64_t filters = width; filters <= 64 && filters < f->group_dest + width; filters += width)
    for (int64_t groups = 1; groups <= 32 && groups < 2 * p.groups; groups *= 2) {
      f->filters = narrow_int(std::min<int64_t>(filters, f->group_dest));
      if (groups > 1 && f->filters < f->group_dest) break;
      f->filter_blocks = narrow_int(divide_up(f->filters, width)), f->groups = narrow_int(groups);
      for (int d = 0; d < ds.count; ++d)
        for (int h = 0; h < hs.count; ++h)
          for (int w = 0; w < ws.count; ++w) {
            g.axis[0].tile = ds.at[d], g.axis[1].tile = hs.at[h], g.axis[2].tile = ws.at[w];
            if (!lay_out_product(element, f)) continue;
            const int64_t outputs = int64_t{ds.at[d]} * hs.at[h] * ws.at[w];
            f->row_blocks = narrow_int(divide_up(outputs, kRows));
            f->units = f->row_blocks * f->groups * f->filter_blocks;
            g.blocks = p.n * divide_up(p.groups, groups) * divide_up(f->group_dest, f->filters);
            for (int i = 0; i < kMaxSpatial; ++i)
              g.axis[i].tiles = narrow_int(divide_up(g.axis[i].dest, g.axis[i].tile)), g.blocks *= g.axis[i].tiles;
            const double neighbours = g.channels_last ? times(groups, f->group_source, element) : 64;
            const double moved = std::max(1.0, 64 / neighbours) * times(groups, element) *
                                 (times(g.source.count[0], g.source.count[1], g.source.count[2], f->group_source) +
                                  times(outputs, f->filters));
            const double filling = times(groups, f->filter_blocks, width, f->steps) * kTensorStep;
            // Warps take units by turns; the products of the last turn's idle warps are lost.
            const double multiplied = times(round_up(f->units, kTensorWarps), kRows, 16, f->steps) * kTensorStep;
            // A multiprocessor multiplies about 30 times while a byte comes; three products about 10 times.
            const double cost = (kBlockOverhead + moved + filling * 4 + multiplied / (element == 2 ? 30 : 10)) *
                                std::max(static_cast<double>(g.blocks), kBlocksAtOnce);
            if (least == 0 || cost < least) {
              least = cost, best = *f;
              if (work) {
                work->bytes = (moved + filling * static_cast<double>(element)) * static_cast<double>(g.blocks);
                work->products = multiplied * static_cast<double>(g.blocks);
              }
            }
          }
    }
  if (least == 0) return false;
  *f = best;
  for (int i = 0; i < kMaxSpatial; ++i) g.by_tiles[i] = Divisor(g.axis[i].tiles);
  g.items = order_of(g.axis[2].tile, g.axis[1].tile, g.axis[0].tile, 1);
  f->by_tap_columns = Divisor32(g.axis[2].taps), f->by_tap_rows = Divisor32(g.axis[1].taps);
  f->by_group_blocks = Divisor(divide_up(p.groups, f->groups));
  f->by_filter_parts = Divisor(divide_up(f->group_dest, f->filters));
  f->by_filters = Divisor32(f->filters), f->by_group_pitch = Divisor32(f->group_pitch);
  f->by_steps = Divisor32(f->steps), f->by_filter_blocks = Divisor32(f->filter_blocks);
  f->by_quads = Divisor32(f->group_pitch / kQuad), f->by_row_blocks = Divisor32(f->row_blocks);
  return true;
}

template <class T>
void set_product_pieces(const ConvProblem& p, const Conv<T>& c, GroupedProduct* f) {
  Tile& g = f->tile;
  const bool whole = f->filters == f->group_dest;
  const int32_t most = 16 / static_cast<int32_t>(sizeof(T));
  g.source.piece = 1;  // of planes, neighbours part
  if (g.channels_last)
    g.source.piece = tensor_piece(g.source, sizeof(T), g.backward ? c.y : c.x, g.backward ? c.ys : c.xs,
                                  f->group_source, g.backward ? p.k : p.c, f->group_pitch);
  g.dest.piece = piece_of(g.dest, sizeof(T), g.backward ? c.x : c.y, g.backward ? c.xs : c.ys,
                          whole ? (g.backward ? p.c : p.k) : f->group_dest, 0, g.axis[2].tile);
  if (g.dest.piece != most || g.axis[2].dest_step != 1) g.dest.piece = 1;
  g.source.order = order_of(g.source), g.dest.order = order_of(g.dest);
}

template <class A>
int launch_product(const ConvProblem& p, const RunContext& r) {
  const Conv<typename A::T> c = conv_of<typename A::T>(p, r);
  int status = 0;
  each_phase(p, [&](const int64_t* phase) {
    GroupedProduct f{};
    plan_phase(p, phase, &f, nullptr);
    if (f.tile.blocks == 0) return true;
    set_product_pieces(p, c, &f);
    starts(r, Phase::kProducts,
           times(f.tile.blocks, f.units, kRows, f.blocks_at_once * 8) * times(f.steps, kTensorStep, A::kProducts));
    status = launch(r, f.blocks_at_once == 2 ? grouped_product<A, 2> : grouped_product<A, 1>, Grid{f.tile.blocks},
                    kTileThreads, sizeof(TensorMemory), c, f);
    return status == 0;
  });
  return status;
}

}  // namespace

bool plan_tensor_images(const ConvProblem& p, TensorWork* work) {
  return each_phase(p, [&](const int64_t* phase) {
    GroupedProduct f{};
    TensorWork more;
    const bool fits = plan_phase(p, phase, &f, &more);
    if (work) work->bytes += more.bytes, work->products += more.products;
    return fits;
  });
}

int run_tensor_images(const ConvProblem& p, const RunContext& r, bool one_product) {
  return by_arithmetic(p.dtype, one_product, [&](auto kind) { return launch_product<decltype(kind)>(p, r); });
}

}  // namespace fastconv::cuda
