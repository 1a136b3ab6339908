// SPDX-License-Identifier: Apache-2.0
// grouped, forward and backward-data: a block has a tile of outputs and the filters of a group, or of several small
// groups.
//   for some of the group's channels at a time: their halos and weights into shared memory
//     for each channel and tap: a warp of 32 x 4 outputs and 4 or 8 filters multiplies 4 cells by 4 or 8 weights in
//     each thread; neighbouring lanes read neighbouring cells, and all the same weights
// Backward-data reads y by transposed filters; of a stride it falls into phases, a launch each: the cells of x that lie
// at one remainder of the strides see every stride-th tap, side by side.
#include "grouped_phases.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kArena = 32 << 10, kPixels = 4, kWarps = kTileThreads / kWarp;
constexpr int kBlockPixels = kWarp * kPixels;
typedef TileMemory<kArena> Memory;

struct GroupedTile {
  Tile tile;
  int32_t groups, filters, channels;  // of a block; of each of its groups: written, and read at a time
  int32_t group_source, group_dest;   // channels of a group
  int32_t filter_blocks, width;       // of a group in a block; filters of a warp
  PhaseTaps taps;
  Divisor by_group_blocks, by_filter_parts;  // groups / this->groups; group_dest / filters
  Divisor32 by_filters, by_channels, by_filter_blocks, by_padded, by_tap_rows, by_tap_columns, by_warps;
};

template <class T, int kFilters>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 3 : 4) grouped_images(Conv<T> c, GroupedTile f) {
  auto& s = shared<Memory>();
  const Tile& g = f.tile;
  T* cells = s.template at<T>(0);
  auto* stage = s.template at<Sum<T>>(g.stage_at);
  auto* weights = s.template at<Sum<T>>(g.weights_at);
  const T* source = g.backward ? c.y : c.x;
  const Image from = g.backward ? c.ys : c.xs, to = g.backward ? c.xs : c.ys;
  TilePlace place;
  int64_t group_block, filter_part;
  const int64_t n =
      f.by_filter_parts.divide(f.by_group_blocks.divide(tile_place(g, blockIdx.x, &place), &group_block), &filter_part);
  const int thread = static_cast<int>(threadIdx.x);
  for (int j = thread; j < f.groups * f.filters; j += kTileThreads) {
    int member;
    const int64_t group = group_block * f.groups + f.by_filters.divide(j, &member);
    const int64_t filter = filter_part * f.filters + member, channel = group * f.group_dest + filter;
    s.channel[j] = static_cast<int32_t>(channel);
    s.dest[j] = group < c.p.groups && filter < f.group_dest ? n * to.batch + channel * to.channel : -1;
  }

  // What this thread computes: outputs lane, lane + 32, ... of its warp's pixels.
  int block, of_group;
  const int pixels = f.by_warps.divide(thread / kWarp, &block);
  const int own_group = f.by_filter_blocks.divide(block, &of_group);
  const int outputs = g.dest.count[0] * g.dest.count[1] * g.dest.count[2];
  const int first = pixels * kBlockPixels + thread % kWarp;
  const bool busy = pixels * kBlockPixels < outputs;
  int offset[kPixels];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const int at = first + i * kWarp;
    const Parts parts = parts_of(g.items, at < outputs ? at : 0);
    offset[i] = parts.at[2] * g.axis[0].stride * g.source.pitch[0] +
                parts.at[1] * g.axis[1].stride * g.source.pitch[1] + parts.at[0] * g.axis[2].stride * g.source.pitch[2];
  }
  Sum<T> sums[kFilters][kPixels] = {};
  const int padded = f.filter_blocks * kFilters;
#pragma unroll 1
  for (int begin = 0; begin < f.group_source; begin += f.channels) {
    const int count = min_of(f.channels, f.group_source - begin);
    sync();
    for (int j = thread; j < f.groups * f.channels; j += kTileThreads) {
      int member;
      const int64_t group = group_block * f.groups + f.by_channels.divide(j, &member);
      const int64_t channel = group * f.group_source + begin + member;
      s.source[j] = group < c.p.groups && member < count ? n * from.batch + channel * from.channel : -1;
    }
    sync();
    load_box(g.source, cells, source, from.pixel, place.source, s.source, 0);
    copy_async_commit();
    // Weights lie as [channel of the block][tap][filter].
    for (int e = thread; e < f.groups * f.channels * g.taps * padded; e += kTileThreads) {
      int filter, tap, t1, t2, member;
      const int rest = f.by_padded.divide(e, &filter);
      const int channel = g.by_taps.divide(rest, &tap);
      const int t0 = f.by_tap_rows.divide(f.by_tap_columns.divide(tap, &t2), &t1);
      const int in_block = f.by_channels.divide(channel, &member);
      const int64_t group = group_block * f.groups + in_block, written = filter_part * f.filters + filter;
      const int64_t read = begin + member;
      Sum<T> value = 0;
      if (group < c.p.groups && filter < f.filters && written < f.group_dest && member < count) {
        const int64_t k = group * c.group_k + (g.backward ? read : written), ch = g.backward ? written : read;
        const int64_t at = f.taps.place(c.p, t0, t1, t2);
        value = widen(c.w[(k * c.group_c + ch) * (c.p.filter[0] * c.p.filter[1] * c.p.filter[2]) + at]);
      }
      weights[e] = value;
    }
    copy_async_wait<0>();
    sync();
    if (!busy) continue;
    const Sum<T>* w = weights + own_group * f.channels * g.taps * padded + of_group * kFilters;
#pragma unroll 1
    for (int ch = 0; ch < count; ++ch) {
      const T* plane = cells + (own_group * f.channels + ch) * g.source.plane;
      for (int t0 = 0; t0 < g.axis[0].taps; ++t0)
        for (int t1 = 0; t1 < g.axis[1].taps; ++t1) {
          const T* x =
              plane + t0 * g.axis[0].dilation * g.source.pitch[0] + t1 * g.axis[1].dilation * g.source.pitch[1];
          for (int t2 = 0; t2 < g.axis[2].taps; ++t2, x += g.axis[2].dilation * g.source.pitch[2], w += padded) {
            Sum<T> values[kPixels];
#pragma unroll
            for (int i = 0; i < kPixels; ++i) values[i] = widen(x[offset[i]]);
            constexpr int kRead = 16 / static_cast<int>(sizeof(Sum<T>));
#pragma unroll
            for (int j = 0; j < kFilters; j += kRead) {
              const auto read = load<kRead>(w + j);
#pragma unroll
              for (int k = 0; k < kRead; ++k)
#pragma unroll
                for (int i = 0; i < kPixels; ++i) sums[j + k][i] += values[i] * read.at[k];
            }
          }
        }
    }
  }
  sync();
  if (busy)
#pragma unroll
    for (int j = 0; j < kFilters; ++j)
#pragma unroll
      for (int i = 0; i < kPixels; ++i) {
        const int at = first + i * kWarp, filter = of_group * kFilters + j;
        if (at < outputs && filter < f.filters)
          stage[(own_group * f.filters + filter) * g.dest.plane + at * g.dest.pitch[2]] = sums[j][i];
      }
  sync();
  store_tile(g, c, place, s, stage);
}

// Boxes and places in shared memory; false: they do not fit.
bool lay_out_grouped(int64_t element, int64_t sum, GroupedTile* f) {
  Tile& g = f->tile;
  const int64_t planes = f->groups * f->channels, filters = f->groups * f->filters;
  if (planes > kTilePlanes || filters > kTilePlanes) return false;
  int64_t cells[kMaxSpatial], outputs = 1;
  for (int i = 0; i < kMaxSpatial; ++i)
    cells[i] = std::max<int64_t>(1, cells_read(g.axis[i], false, g.axis[i].tile)), outputs *= g.axis[i].tile;
  if (std::max({cells[0], cells[1], cells[2]}) > kArena) return false;  // before their product passes 63 bits
  if (!g.channels_last) cells[2] = round_up(cells[2], 16 / element);
  // Channels last: pixels an odd number of words apart, so that lanes reach all banks.
  const int64_t pixel = g.channels_last ? round_up(planes, 16 / element) + std::max<int64_t>(1, 4 / element) : 1;
  const int64_t volume = cells[0] * cells[1] * cells[2];
  const int64_t cell_bytes = round_up(volume * (g.channels_last ? pixel : planes) * element, 16);
  const int64_t weight_bytes = planes * g.taps * f->filter_blocks * f->width * sum;
  const int64_t stage_bytes = outputs * filters * sum;
  if (std::max(cell_bytes + weight_bytes, stage_bytes) > kArena) return false;
  g.stage_at = 0, g.weights_at = narrow_int(cell_bytes);
  for (int i = 0; i < kMaxSpatial; ++i) g.source.count[i] = narrow_int(cells[i]), g.dest.count[i] = g.axis[i].tile;
  g.source.pitch[2] = narrow_int(pixel), g.dest.pitch[2] = g.channels_last ? narrow_int(filters) : 1;
  g.source.planes = narrow_int(planes), g.dest.planes = narrow_int(filters);
  for (Box* box : {&g.source, &g.dest}) {
    box->pitch[1] = box->count[2] * box->pitch[2], box->pitch[0] = box->count[1] * box->pitch[1];
    box->plane = g.channels_last ? 1 : box->count[0] * box->pitch[0], box->channels_last = g.channels_last;
  }
  return true;
}

bool plan_phase(const ConvProblem& p, const int64_t* phase, GroupedTile* f, double* bytes, double* products) {
  Tile& g = f->tile;
  g = Tile{};
  const bool backward = p.pass == Pass::kBackwardData;
  const int64_t element = element_size(p.dtype), sum = computed_size(p.dtype);
  g.channels_last = p.x_layout == Layout::kChannelsLast, g.backward = backward;
  f->group_source = narrow_int(backward ? p.k / p.groups : p.c / p.groups);
  f->group_dest = narrow_int(backward ? p.c / p.groups : p.k / p.groups);
  f->width = f->group_dest > 4 ? 8 : 4;
  g.taps = 1;
  for (int i = 0; i < kMaxSpatial; ++i) {
    set_phase(p, i, phase[i], &g.axis[i], &f->taps);
    g.taps *= g.axis[i].taps;
    g.source.size[i] = g.axis[i].source;
    g.dest.size[i] = narrow_int(backward ? p.size[i] : g.axis[i].dest);
    if (g.axis[i].dest == 0) return g.blocks = 0, true;
  }
  const int64_t all_blocks = divide_up(f->group_dest, f->width);
  const TileLengths ws(g.axis[2].dest, g.channels_last ? 1 : 16 / element, 512), hs(g.axis[1].dest, 1, 64),
      ds(g.axis[0].dest, 1, 8);
  GroupedTile best{};
  double least = 0;
  for (int64_t warps = 1; warps <= kWarps; warps *= 2) {  // that share pixels
    f->filter_blocks = narrow_int(std::min(all_blocks, warps));
    f->filters = narrow_int(std::min<int64_t>(f->group_dest, f->filter_blocks * f->width));
    f->groups = narrow_int(std::min(warps / f->filter_blocks, p.groups));
    const int64_t most = kBlockPixels * (kWarps / (f->groups * f->filter_blocks));
    for (int d = 0; d < ds.count; ++d)
      for (int h = 0; h < hs.count; ++h)
        for (int w = 0; w < ws.count; ++w) {
          g.axis[0].tile = ds.at[d], g.axis[1].tile = hs.at[h], g.axis[2].tile = ws.at[w];
          const int64_t outputs = int64_t{ds.at[d]} * hs.at[h] * ws.at[w];
          if (outputs > most) continue;
          f->channels = std::min(f->group_source, 16);
          while (f->channels > 0 && !lay_out_grouped(element, sum, f)) f->channels /= 2;
          if (f->channels == 0) continue;
          g.blocks = p.n * divide_up(p.groups, f->groups) * divide_up(f->group_dest, f->filters);
          for (int i = 0; i < kMaxSpatial; ++i)
            g.axis[i].tiles = narrow_int(divide_up(g.axis[i].dest, g.axis[i].tile)), g.blocks *= g.axis[i].tiles;
          const double moved = times(f->groups, element) *
                               (times(g.source.count[0], g.source.count[1], g.source.count[2], f->group_source) +
                                times(outputs, f->filters));
          const double multiplied =
              times(round_up(outputs, kBlockPixels), f->groups, f->filter_blocks, f->width, f->group_source, g.taps);
          // A multiprocessor multiplies about eight times while a byte comes.
          const double cost =
              (kBlockOverhead + moved + multiplied / 8) * std::max(static_cast<double>(g.blocks), kBlocksAtOnce);
          if (least == 0 || cost < least) {
            least = cost, best = *f;
            if (bytes) *bytes = moved * static_cast<double>(g.blocks);
            if (products) *products = multiplied * static_cast<double>(g.blocks);
          }
        }
  }
  if (least == 0) return false;
  *f = best;
  for (int i = 0; i < kMaxSpatial; ++i) g.by_tiles[i] = Divisor(g.axis[i].tiles);
  g.items = order_of(g.axis[2].tile, g.axis[1].tile, g.axis[0].tile, 1);
  g.by_taps = Divisor32(std::max(1, g.taps));
  f->by_tap_columns = Divisor32(std::max(1, g.axis[2].taps)), f->by_tap_rows = Divisor32(std::max(1, g.axis[1].taps));
  f->by_group_blocks = Divisor(divide_up(p.groups, f->groups));
  f->by_filter_parts = Divisor(divide_up(f->group_dest, f->filters));
  f->by_filters = Divisor32(f->filters), f->by_channels = Divisor32(f->channels);
  f->by_filter_blocks = Divisor32(f->filter_blocks), f->by_padded = Divisor32(f->filter_blocks * f->width);
  f->by_warps = Divisor32(f->groups * f->filter_blocks);
  return true;
}

template <class T>
void set_grouped_pieces(const Conv<T>& c, GroupedTile* f) {
  Tile& g = f->tile;
  const Image from = g.backward ? c.ys : c.xs, to = g.backward ? c.xs : c.ys;
  const TileAxis& row = g.axis[2];
  const int32_t most = 16 / static_cast<int32_t>(sizeof(T)), word = std::max(1, most / 4);
  g.source.piece = piece_of(g.source, sizeof(T), g.backward ? c.y : c.x, from, f->group_source, row.pad,
                            int64_t{row.tile} * row.stride);
  if (g.channels_last) {
    while (f->channels % g.source.piece != 0) g.source.piece /= 2;
    g.source.piece = std::min(g.source.piece, word);
  }
  g.dest.piece = piece_of(g.dest, sizeof(T), g.backward ? c.x : c.y, to, f->group_dest, 0, row.tile);
  if (g.dest.piece != most || f->filters % most * g.channels_last != 0 || row.dest_step != 1) g.dest.piece = 1;
  g.source.order = order_of(g.source), g.dest.order = order_of(g.dest);
}

template <class T>
int launch_images(const ConvProblem& p, const RunContext& r) {
  const Conv<T> c = conv_of<T>(p, r);
  int status = 0;
  each_phase(p, [&](const int64_t* phase) {
    GroupedTile f{};
    double products = 0;
    plan_phase(p, phase, &f, nullptr, &products);
    if (f.tile.blocks == 0) return true;
    set_grouped_pieces(c, &f);
    starts(r, Phase::kProducts, products);
    status = launch(r, f.width == 8 ? grouped_images<T, 8> : grouped_images<T, 4>, Grid{f.tile.blocks}, kTileThreads,
                    sizeof(Memory), c, f);
    return status == 0;
  });
  return status;
}

}  // namespace

bool plan_grouped_images(const ConvProblem& p, double* bytes, double* products) {
  if (bytes) *bytes = *products = 0;
  return each_phase(p, [&](const int64_t* phase) {
    GroupedTile f{};
    double moved = 0, multiplied = 0;
    const bool fits = plan_phase(p, phase, &f, &moved, &multiplied);
    if (bytes) *bytes += moved, *products += multiplied;
    return fits;
  });
}

int run_grouped_images(const ConvProblem& p, const RunContext& r) {
  return by_dtype(p.dtype, [&](auto type) { return launch_images<decltype(type)>(p, r); });
}

}  // namespace fastconv::cuda
