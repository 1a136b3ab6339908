// SPDX-License-Identifier: Apache-2.0
// grouped, backward-filter: a block has a group (of many filters, 32 of them) and every parts-th tile of all images,
// whose cells of x and y it puts into shared memory pixel by pixel, whatever the layout.
//   each thread, of 4 filters, 4 channels and one tap: over the outputs of the tile, adds 4 x 4 products in registers;
//   where there are fewer such than threads, several threads share the rows, and are added in order
// The blocks' sums are added by partial_sums.cu.
#include "grouped.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kArena = 40 << 10, kSide = 4;
constexpr int64_t kFilters = 32;  // of a block
typedef TileMemory<kArena> Memory;

struct GroupedFilter {
  Tile tile;
  int64_t parts, works, filter_parts, chunks;  // of each group; chunks: blocks that share its weights
  int32_t filters, owners, all_owners, slices, channel_sides, filter_sides;
  Divisor by_chunks, by_filter_parts, by_groups;
  Divisor32 by_owners, by_channel_sides, by_filter_sides, by_tap_rows, by_tap_columns;
};

template <class T>
__device__ __forceinline__ void read_side(const T* from, Sum<T> (&to)[kSide]) {
  constexpr int kRead = sizeof(T) == 8 ? 2 : 4;
#pragma unroll
  for (int i = 0; i < kSide; i += kRead) {
    const auto read = load<kRead>(from + i);
#pragma unroll
    for (int k = 0; k < kRead; ++k) to[i + k] = widen(read.at[k]);
  }
}

template <class T>
__global__ void __launch_bounds__(kTileThreads) grouped_filter(Conv<T> c, GroupedFilter f, Sum<T>* parts) {
  auto& s = shared<Memory>();
  const Tile& g = f.tile;
  const int thread = static_cast<int>(threadIdx.x);
  int64_t chunk, filter_part, group;
  const int64_t part =
      f.by_groups.divide(f.by_filter_parts.divide(f.by_chunks.divide(blockIdx.x, &chunk), &filter_part), &group);
  int owner, channel, filter, t0, t1, t2;
  const int slice = f.by_owners.divide(thread, &owner);
  owner += static_cast<int>(chunk) * f.owners;
  const bool busy = slice < f.slices && owner < f.all_owners;
  const int tap = f.by_filter_sides.divide(f.by_channel_sides.divide(busy ? owner : 0, &channel), &filter);
  t0 = f.by_tap_rows.divide(f.by_tap_columns.divide(tap, &t2), &t1);
  channel *= kSide, filter *= kSide;
  const T* first_x = s.template at<T>(0) + channel + t0 * g.axis[0].dilation * g.source.pitch[0] +
                     t1 * g.axis[1].dilation * g.source.pitch[1] + t2 * g.axis[2].dilation * g.source.pitch[2];
  const T* first_y = s.template at<T>(g.stage_at) + filter;
  Sum<T> sums[kSide][kSide] = {};
#pragma unroll 1
  for (int64_t work = part; work < f.works; work += f.parts) {
    TilePlace place;
    const int64_t n = tile_place(g, work, &place);
    sync();
    for (int j = thread; j < kTilePlanes; j += kTileThreads) {
      const int64_t k = filter_part * f.filters + j;
      s.source[j] = j < c.group_c ? n * c.xs.batch + (group * c.group_c + j) * c.xs.channel : -1;
      s.dest[j] = j < f.filters && k < c.group_k ? n * c.ys.batch + (group * c.group_k + k) * c.ys.channel : -1;
    }
    load_boxes(g, c, place, s, s.template at<T>(0), s.template at<T>(g.stage_at));
    if (!busy) continue;
    const int depth = min_of(g.axis[0].dest - place.dest[0], g.axis[0].tile);
    const int height = min_of(g.axis[1].dest - place.dest[1], g.axis[1].tile);
    const int width = min_of(g.axis[2].dest - place.dest[2], g.axis[2].tile);
    int row = 0;
    for (int d = 0; d < depth; ++d)
      for (int h = 0; h < height; ++h, ++row) {
        if (f.slices > 1 && row % f.slices != slice) continue;
        const T* x = first_x + d * g.axis[0].stride * g.source.pitch[0] + h * g.axis[1].stride * g.source.pitch[1];
        const T* y = first_y + d * g.dest.pitch[0] + h * g.dest.pitch[1];
        const int step = g.axis[2].stride * g.source.pitch[2];
        for (int w = 0; w < width; ++w, x += step, y += g.dest.pitch[2]) {
          Sum<T> values[kSide], gradients[kSide];
          read_side(x, values);
          read_side(y, gradients);
#pragma unroll
          for (int k = 0; k < kSide; ++k)
#pragma unroll
            for (int i = 0; i < kSide; ++i) sums[k][i] += values[i] * gradients[k];
        }
      }
  }
  const int64_t cg = c.group_c;
  if (f.slices > 1) {
    sync();
    auto* of_threads = s.template at<Sum<T>>(0);
#pragma unroll
    for (int i = 0; i < kSide * kSide; ++i) of_threads[i * kTileThreads + thread] = sums[i / kSide][i % kSide];
    sync();
    if (slice == 0)
#pragma unroll
      for (int i = 0; i < kSide * kSide; ++i)
        for (int k = 1; k < f.slices; ++k)
          sums[i / kSide][i % kSide] += of_threads[i * kTileThreads + k * f.owners + owner];
  }
  if (slice > 0 || !busy) return;
#pragma unroll
  for (int k = 0; k < kSide; ++k) {
    const int64_t of = filter_part * f.filters + filter + k;
    if (filter + k >= f.filters || of >= c.group_k) continue;
#pragma unroll
    for (int i = 0; i < kSide; ++i)
      if (channel + i < cg)
        parts[((part * c.p.k + group * c.group_k + of) * cg + channel + i) * g.taps + tap] = sums[k][i];
  }
}

bool plan(const ConvProblem& p, GroupedFilter* f, double* bytes, double* products) {
  Tile& g = f->tile;
  g = Tile{};
  const int64_t element = element_size(p.dtype), cg = p.c / p.groups, kg = p.k / p.groups;
  g.channels_last = p.x_layout == Layout::kChannelsLast, g.taps = narrow_int(taps(p));
  for (int i = 0; i < kMaxSpatial; ++i) {
    g.axis[i] = axis_of(p, i, false);
    g.source.size[i] = g.axis[i].source, g.dest.size[i] = g.axis[i].dest;
  }
  f->filters = narrow_int(std::min(kg, kFilters)), f->filter_parts = divide_up(kg, f->filters);
  f->channel_sides = narrow_int(divide_up(cg, kSide)), f->filter_sides = narrow_int(divide_up(f->filters, kSide));
  f->all_owners = narrow_int(times(f->channel_sides, f->filter_sides, g.taps));
  f->owners = std::min(f->all_owners, kTileThreads), f->slices = kTileThreads / f->owners;
  f->chunks = divide_up(f->all_owners, f->owners);
  const TileLengths ws(g.axis[2].dest, 1, 512), hs(g.axis[1].dest, 1, 256), ds(g.axis[0].dest, 1, 8);
  // Pixels lie an odd number of pieces apart; channels that are not there are zeros.
  const int64_t piece = 16 / element, unit = std::max<int64_t>(piece, kSide);
  const int64_t x_pitch = round_up(cg, unit) | piece, y_pitch = round_up(f->filters, unit) | piece;
  Tile best{};
  double least = 0;
  for (int d = 0; d < ds.count; ++d)
    for (int h = 0; h < hs.count; ++h)
      for (int w = 0; w < ws.count; ++w) {
        g.axis[0].tile = ds.at[d], g.axis[1].tile = hs.at[h], g.axis[2].tile = ws.at[w];
        double cells = 1, outputs = 1;
        g.blocks = p.n;
        for (int i = 0; i < kMaxSpatial; ++i) {
          TileAxis& a = g.axis[i];
          g.source.count[i] = narrow_int(cells_read(a, false, a.tile)), g.dest.count[i] = a.tile;
          a.tiles = narrow_int(divide_up(a.dest, a.tile)), g.blocks *= a.tiles;
          cells *= g.source.count[i], outputs *= a.tile;
        }
        const double moved = static_cast<double>(element) * (cells * x_pitch + outputs * y_pitch);
        if (moved > kArena) continue;
        const double cost = (kBlockOverhead + moved) * static_cast<double>(g.blocks);
        if (least == 0 || cost < least) {
          least = cost, best = g, best.stage_at = narrow_int(static_cast<int64_t>(cells) * x_pitch * element);
          if (bytes) *bytes = cost * times(p.groups, f->filter_parts, f->chunks);
        }
      }
  if (least == 0) return false;
  g = best;
  for (Box* box : {&g.source, &g.dest}) {
    box->channels_last = g.channels_last, box->plane = 1;
    box->planes = narrow_int(round_up(box == &g.source ? cg : f->filters, kSide));
    box->pitch[2] = narrow_int(box == &g.source ? x_pitch : y_pitch);
    box->pitch[1] = box->count[2] * box->pitch[2], box->pitch[0] = box->count[1] * box->pitch[1];
  }
  // Shared memory reads 8 numbers for 16 products: twice as many products could be done meanwhile.
  if (products) *products = 2 * times(multiply_adds(p));
  f->works = g.blocks;
  const int64_t units = p.groups * f->filter_parts * f->chunks;
  f->parts = std::clamp<int64_t>(divide_up(kFilterBlocks, units), 1, f->works);
  for (int i = 0; i < kMaxSpatial; ++i) g.by_tiles[i] = Divisor(g.axis[i].tiles);
  f->by_chunks = Divisor(f->chunks), f->by_filter_parts = Divisor(f->filter_parts), f->by_groups = Divisor(p.groups);
  f->by_owners = Divisor32(f->owners), f->by_channel_sides = Divisor32(f->channel_sides);
  f->by_filter_sides = Divisor32(f->filter_sides);
  f->by_tap_columns = Divisor32(g.axis[2].taps), f->by_tap_rows = Divisor32(g.axis[1].taps);
  return true;
}

template <class T>
int launch_filter(const ConvProblem& p, const RunContext& r, const GroupedFilter& planned) {
  const Conv<T> c = conv_of<T>(p, r);
  GroupedFilter f = planned;
  Tile& g = f.tile;
  g.source.piece = g.dest.piece = 1;  // of channels first, neighbours part
  if (g.channels_last) {
    g.source.piece = piece_of(g.source, sizeof(T), c.x, c.xs, c.group_c, 0, 0);
    g.dest.piece = piece_of(g.dest, sizeof(T), c.y, c.ys, greatest_common(c.group_k, f.filters), 0, 0);
  }
  g.source.order = order_of(g.source), g.dest.order = order_of(g.dest);
  auto* parts = static_cast<Sum<T>*>(r.workspace);
  starts(r, Phase::kProducts, times(p.groups, f.filter_parts, f.all_owners, kSide * kSide) * times(p.n, y_plane(p)));
  return launch(r, grouped_filter<T>, Grid{p.groups * f.filter_parts * f.chunks * f.parts}, kTileThreads,
                sizeof(Memory), c, f, parts);
}

}  // namespace

bool plan_grouped_filter(const ConvProblem& p, double* bytes, double* products) {
  GroupedFilter f{};
  if (bytes) *bytes = *products = 0;
  return is_empty(p) || plan(p, &f, bytes, products);
}

int64_t grouped_filter_workspace(const ConvProblem& p) {
  GroupedFilter f{};
  if (is_empty(p) || !plan(p, &f, nullptr, nullptr)) return 0;
  return f.parts * p.k * (p.c / p.groups) * taps(p) * computed_size(p.dtype);
}

int run_grouped_filter(const ConvProblem& p, const RunContext& r) {
  GroupedFilter f{};
  const int64_t weights = p.k * (p.c / p.groups) * taps(p);
  if (is_empty(p)) return sum_parts(p, r, r.workspace, 0, weights);
  plan(p, &f, nullptr, nullptr);
  const int status = by_dtype(p.dtype, [&](auto type) { return launch_filter<decltype(type)>(p, r, f); });
  return status ? status : sum_parts(p, r, r.workspace, f.parts, weights);
}

}  // namespace fastconv::cuda
