// SPDX-License-Identifier: Apache-2.0
// grouped_tensor, backward-filter: a block has some groups and every parts-th tile of all images, whose cells of x and y
// it puts into shared memory pixel by pixel. Channels and filters of a group are filled up to 8, or those of two groups
// of at most 4 lie side by side: what they give across is thrown away.
//   each warp, of 10 eights of (tap, channel) and 8 or 16 filters: over the outputs of the tile, 16 at a time, sums of
//   80 x 8 or 80 x 16 products; where there are fewer such than warps, several warps share the outputs by turns, and are
//   added in order
// A halo of x serves all taps: an eight lies at its tap's place from the outputs' cells. The blocks' sums are added by
// partial_sums.cu.
#include "grouped_tensor.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kDown = 5, kEight = 8;
constexpr int64_t kMostFilters = 32;   // of a block and group
constexpr int64_t kMostOutputs = 512;  // of a tile

struct FilterProduct {
  Tile tile;
  int64_t parts, works, filter_parts, chunks;
  int32_t supers, groups;                // of a block: groups, or pairs of groups; and groups in all
  int32_t of_x, of_y, x_pitch, y_pitch;  // channels and filters of a group, and of a super, in shared memory
  int32_t filters;                       // of a group and block
  int32_t eights, row_blocks, column_blocks, blocks_at_once;
  int32_t all_units, units, slices;  // of a block's groups, of a block, warps of each
  int32_t steps, zeros_at, places_at;
  Divisor by_chunks, by_filter_parts, by_group_blocks;
  Divisor32 by_x, by_y, by_units, by_column_blocks, by_row_blocks, by_eights, by_tap_rows, by_tap_columns;
};

// sums += the products of 16 outputs. `from`: where the thread's channels of each eight lie from an output's cell: halves
// by ldmatrix, whose lane names a row of an eight; floats one by one, channel lane / 4 of outputs lane % 4 + 4 i.
template <class A, int across>
__device__ __forceinline__ void multiply_outputs(const typename A::T* x, const typename A::T* y,
                                                 const typename A::T* zeros, const int32_t* places, int y_step,
                                                 const int (&eights)[kDown][2], float (&sums)[kDown][across][4]) {
  typedef typename A::T T;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  uint32_t a[kDown][4], b[(across + 1) / 2][4] = {};
  if constexpr (sizeof(T) == 2) {
    const int place = places[lane % 8 + lane / 16 * 8];
#pragma unroll
    for (int i = 0; i < kDown; ++i)
      load_matrices_transposed(a[i], place < 0 ? zeros : x + place + (lane / 8 % 2 == 0 ? eights[i][0] : eights[i][1]));
    const int output = lane % 16;
    const bool there = places[output] >= 0;
    load_matrices_transposed(b[0], there ? y + output * y_step + (across == 2 ? lane / 16 * kEight : 0) : zeros);
    A::template multiply<kDown, across>(a, b, sums);
  } else {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int output = half * 8 + lane % 4 + k * 4, place = places[output];
#pragma unroll
        for (int i = 0; i < kDown; ++i)
#pragma unroll
          for (int row = 0; row < 2; ++row)
            a[i][k * 2 + row] = place < 0 ? 0u : bits_of_float(x[place + eights[i][row]]);
#pragma unroll
        for (int j = 0; j < across; ++j)
          b[j / 2][j % 2 * 2 + k] = place < 0 ? 0u : bits_of_float(y[output * y_step + j * kEight + lane / 4]);
      }
      A::template multiply<kDown, across>(a, b, sums);
    }
  }
}

template <class A, int across>
__global__ void __launch_bounds__(kTileThreads, A::kPromotes ? 2 : 4)
    grouped_filter_product(Conv<typename A::T> c, FilterProduct f, float* parts) {
  typedef typename A::T T;
  auto& s = shared<TensorMemory>();
  const Tile& g = f.tile;
  T* x = s.template at<T>(0);
  T* y = s.template at<T>(g.stage_at);
  T* zeros = s.template at<T>(f.zeros_at);
  auto* places = s.template at<int32_t>(f.places_at);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp;
  int64_t chunk, filter_part, group_block;
  const int64_t part = f.by_group_blocks.divide(
      f.by_filter_parts.divide(f.by_chunks.divide(blockIdx.x, &chunk), &filter_part), &group_block);
  const int64_t first_group = group_block * f.groups, first_filter = filter_part * f.filters;
  int unit, row_block, column_block;
  const int slice = f.by_units.divide(thread / kWarp, &unit);
  unit += static_cast<int>(chunk) * f.units;
  const bool busy = slice < f.slices && unit < f.all_units;
  const int super = f.by_row_blocks.divide(f.by_column_blocks.divide(busy ? unit : 0, &column_block), &row_block);
  const int all_eights = f.eights;
  int eights[kDown][2];
#pragma unroll
  for (int i = 0; i < kDown * 2; ++i) {
    const int eight = min_of(row_block * kDown * 2 + i, all_eights - 1);
    int in_tap, t1, t2;
    const int tap = f.by_eights.divide(eight, &in_tap);
    const int t0 = f.by_tap_rows.divide(f.by_tap_columns.divide(tap, &t2), &t1);
    eights[i / 2][i % 2] = t0 * g.axis[0].dilation * g.source.pitch[0] + t1 * g.axis[1].dilation * g.source.pitch[1] +
                           t2 * g.axis[2].dilation * g.source.pitch[2] + super * f.x_pitch + in_tap * kEight +
                           (sizeof(T) == 4 ? lane / 4 : 0);
  }
  if (thread < kEight) zeros[thread] = T{};
  const T* of_y = y + super * f.y_pitch + column_block * across * kEight;
  float sums[kDown][across][4] = {};
#pragma unroll 1
  for (int64_t work = part; work < f.works; work += f.parts) {
    TilePlace place;
    const int64_t n = tile_place(g, work, &place);
    sync();
    for (int j = thread; j < kTilePlanes; j += kTileThreads) {
      int member;
      int64_t group = first_group + f.by_x.divide(j, &member);
      s.source[j] =
          group < c.p.groups && member < c.group_c ? n * c.xs.batch + (group * c.group_c + member) * c.xs.channel : -1;
      group = first_group + f.by_y.divide(j, &member);
      s.dest[j] = group < c.p.groups && member < f.filters && first_filter + member < c.group_k
                      ? n * c.ys.batch + (group * c.group_k + first_filter + member) * c.ys.channel
                      : -1;
    }
    list_places(g, place, f.steps, places);
    load_boxes(g, c, place, s, x, y);
    if (!busy) continue;
#pragma unroll 1
    for (int step = slice; step < f.steps; step += f.slices) {
      const T* from = of_y + step * kTensorStep * g.dest.pitch[2];
      if constexpr (A::kPromotes) {
        float more[kDown][across][4] = {};
        multiply_outputs<A, across>(x, from, zeros, places + step * kTensorStep, g.dest.pitch[2], eights, more);
        add_sums<kDown, across>(sums, more);
      } else {
        multiply_outputs<A, across>(x, from, zeros, places + step * kTensorStep, g.dest.pitch[2], eights, sums);
      }
    }
  }
  if (f.slices > 1) add_slices<kDown, across>(s.template at<float>(0), f.units, f.slices, slice, sums);
  if (slice > 0 || !busy) return;
#pragma unroll
  for (int i = 0; i < kDown * 2; ++i) {
    const int eight = row_block * kDown * 2 + i;
    if (eight >= all_eights) continue;
    int in_tap, channel;
    const int tap = f.by_eights.divide(eight, &in_tap);
    const int group = f.by_x.divide(super * f.x_pitch + in_tap * kEight + lane / 4, &channel);
#pragma unroll
    for (int j = 0; j < across * 2; ++j) {
      int filter;
      const int column = (column_block * across + j / 2) * kEight + lane % 4 * 2 + j % 2;
      const int its_group = f.by_y.divide(super * f.y_pitch + column, &filter);
      if (column >= f.y_pitch || group != its_group || first_group + group >= c.p.groups || channel >= c.group_c ||
          filter >= f.filters || first_filter + filter >= c.group_k)
        continue;
      const int64_t k = (first_group + group) * c.group_k + first_filter + filter;
      parts[((part * c.p.k + k) * c.group_c + channel) * g.taps + tap] = sums[i / 2][j / 2][i % 2 * 2 + j % 2];
    }
  }
}

bool plan(const ConvProblem& p, FilterProduct* f, TensorWork* work) {
  Tile& g = f->tile;
  g = Tile{};
  const int64_t element = element_size(p.dtype), cg = p.c / p.groups, kg = p.k / p.groups;
  g.channels_last = p.x_layout == Layout::kChannelsLast, g.taps = narrow_int(taps(p));
  for (int i = 0; i < kMaxSpatial; ++i) {
    g.axis[i] = axis_of(p, i, false);
    g.source.size[i] = g.axis[i].source, g.dest.size[i] = g.axis[i].dest;
  }
  const int64_t pair = cg <= 4 && kg <= 4 ? 2 : 1;
  f->filters = narrow_int(std::min(kg, kMostFilters)), f->filter_parts = divide_up(kg, f->filters);
  f->of_x = narrow_int(pair == 2 ? 4 : round_up(cg, kEight));
  f->of_y = narrow_int(pair == 2 ? 4 : round_up(f->filters, kEight));
  f->x_pitch = narrow_int(pair * f->of_x), f->y_pitch = narrow_int(pair * f->of_y);
  if (g.taps > kTensorArena) return false;
  f->eights = g.taps * (f->x_pitch / kEight);
  f->blocks_at_once = f->y_pitch > kEight ? 2 : 1;
  // A second block of columns must be there, of zeros.
  f->y_pitch = narrow_int(round_up(f->y_pitch, f->blocks_at_once * kEight)), f->of_y = narrow_int(f->y_pitch / pair);
  f->row_blocks = narrow_int(divide_up(f->eights, kDown * 2));
  f->column_blocks = f->y_pitch / kEight / f->blocks_at_once;
  const int64_t of_super = int64_t{f->row_blocks} * f->column_blocks;
  f->supers = 1;
  while (f->supers * 2 * of_super <= kTensorWarps && f->supers * pair < p.groups) f->supers *= 2;
  f->groups = narrow_int(f->supers * pair);
  f->all_units = narrow_int(f->supers * of_super), f->units = std::min(f->all_units, kTensorWarps);
  f->slices = kTensorWarps / f->units, f->chunks = divide_up(f->all_units, f->units);
  const int64_t x_channels = int64_t{f->supers} * f->x_pitch, y_channels = int64_t{f->supers} * f->y_pitch;
  // From one pixel to the next: 8 rows of an eight of halves, or 4 of floats, in different banks.
  const int64_t x_pitch = odd_pitch(x_channels, kEight), y_pitch = odd_pitch(y_channels, kEight);
  const int64_t group_blocks = divide_up(p.groups, f->groups);
  const TileLengths ws(g.axis[2].dest, 1, 512), hs(g.axis[1].dest, 1, 256), ds(g.axis[0].dest, 1, 8);
  Tile best{};
  double least = 0;
  for (int d = 0; d < ds.count; ++d)
    for (int h = 0; h < hs.count; ++h)
      for (int w = 0; w < ws.count; ++w) {
        g.axis[0].tile = ds.at[d], g.axis[1].tile = hs.at[h], g.axis[2].tile = ws.at[w];
        const int64_t outputs = int64_t{ds.at[d]} * hs.at[h] * ws.at[w];
        if (outputs > kMostOutputs) continue;
        double cells = 1;
        g.blocks = p.n;
        for (int i = 0; i < kMaxSpatial; ++i) {
          TileAxis& a = g.axis[i];
          g.source.count[i] = narrow_int(cells_read(a, false, a.tile)), g.dest.count[i] = a.tile;
          a.tiles = narrow_int(divide_up(a.dest, a.tile)), g.blocks *= a.tiles;
          cells *= g.source.count[i];
        }
        const int64_t steps = divide_up(outputs, kTensorStep);
        const double x_bytes = cells * static_cast<double>(x_pitch * element);
        const double y_bytes = static_cast<double>(round_up(outputs * y_pitch * element, 16));
        const double places = static_cast<double>(steps * kTensorStep * 4);
        if (x_bytes + y_bytes + places + 48 > kTensorArena) continue;
        const double neighbours = g.channels_last ? times(f->groups, std::min(cg, kg), element) : 64;
        const double moved = std::max(1.0, 64 / neighbours) * times(f->groups, element) *
                             (cells * static_cast<double>(cg) + times(outputs, f->filters));
        const double multiplied = times(kTensorWarps / f->slices, kDown * 16, 16, steps * kTensorStep);
        const double cost =
            (kBlockOverhead + moved + multiplied / (element == 2 ? 30 : 10)) * static_cast<double>(g.blocks);
        if (least == 0 || cost < least) {
          least = cost, best = g, f->steps = narrow_int(steps);
          best.stage_at = narrow_int(round_up(static_cast<int64_t>(x_bytes), 16));
          f->zeros_at = narrow_int(best.stage_at + static_cast<int64_t>(y_bytes));
          f->places_at = f->zeros_at + 32;
          if (work) {
            const double blocks = static_cast<double>(g.blocks) * times(group_blocks, f->filter_parts, f->chunks);
            work->bytes = moved * blocks, work->products = multiplied * blocks;
          }
        }
      }
  if (least == 0) return false;
  g = best;
  for (Box* box : {&g.source, &g.dest}) {
    box->channels_last = g.channels_last, box->plane = 1;
    box->planes = narrow_int(box == &g.source ? x_channels : y_channels);
    box->pitch[2] = narrow_int(box == &g.source ? x_pitch : y_pitch);
    box->pitch[1] = box->count[2] * box->pitch[2], box->pitch[0] = box->count[1] * box->pitch[1];
  }
  f->works = g.blocks;
  const int64_t blocks = group_blocks * f->filter_parts * f->chunks;
  f->parts = std::clamp<int64_t>(divide_up(kFilterBlocks, blocks), 1, f->works);
  for (int i = 0; i < kMaxSpatial; ++i) g.by_tiles[i] = Divisor(g.axis[i].tiles);
  g.items = order_of(g.axis[2].tile, g.axis[1].tile, g.axis[0].tile, 1);
  f->by_chunks = Divisor(f->chunks), f->by_filter_parts = Divisor(f->filter_parts);
  f->by_group_blocks = Divisor(group_blocks);
  f->by_x = Divisor32(f->of_x), f->by_y = Divisor32(f->of_y), f->by_units = Divisor32(f->units);
  f->by_column_blocks = Divisor32(f->column_blocks), f->by_row_blocks = Divisor32(f->row_blocks);
  f->by_eights = Divisor32(f->x_pitch / kEight);
  f->by_tap_columns = Divisor32(g.axis[2].taps), f->by_tap_rows = Divisor32(g.axis[1].taps);
  return true;
}

template <class A>
int launch_filter(const ConvProblem& p, const RunContext& r, const FilterProduct& planned) {
  typedef typename A::T T;
  const Conv<T> c = conv_of<T>(p, r);
  FilterProduct f = planned;
  Tile& g = f.tile;
  g.source.piece = g.dest.piece = 1;  // of planes, neighbours part
  if (g.channels_last) {
    g.source.piece = tensor_piece(g.source, sizeof(T), c.x, c.xs, c.group_c, p.c, f.of_x);
    g.dest.piece = f.filter_parts == 1
                       ? tensor_piece(g.dest, sizeof(T), c.y, c.ys, c.group_k, p.k, f.of_y)
                       : piece_of(g.dest, sizeof(T), c.y, c.ys, greatest_common(c.group_k, f.filters), 0, 0);
  }
  g.source.order = order_of(g.source), g.dest.order = order_of(g.dest);
  const int64_t group_blocks = divide_up(p.groups, f.groups);
  starts(r, Phase::kProducts,
         times(group_blocks, f.filter_parts, f.all_units, f.works) *
             times(f.steps, kDown * 16, f.blocks_at_once * 8, kTensorStep, A::kProducts));
  return launch(r, f.blocks_at_once == 2 ? grouped_filter_product<A, 2> : grouped_filter_product<A, 1>,
                Grid{group_blocks * f.filter_parts * f.chunks * f.parts}, kTileThreads, sizeof(TensorMemory), c, f,
                static_cast<float*>(r.workspace));
}

}  // namespace

bool plan_tensor_filter(const ConvProblem& p, TensorWork* work) {
  FilterProduct f{};
  return is_empty(p) || plan(p, &f, work);
}

int64_t tensor_filter_workspace(const ConvProblem& p) {
  FilterProduct f{};
  if (is_empty(p) || !plan(p, &f, nullptr)) return 0;
  return f.parts * p.k * (p.c / p.groups) * taps(p) * 4;
}

int run_tensor_filter(const ConvProblem& p, const RunContext& r, bool one_product) {
  FilterProduct f{};
  const int64_t weights = p.k * (p.c / p.groups) * taps(p);
  if (is_empty(p)) return sum_parts(p, r, r.workspace, 0, weights);
  plan(p, &f, nullptr);
  const int status =
      by_arithmetic(p.dtype, one_product, [&](auto kind) { return launch_filter<decltype(kind)>(p, r, f); });
  return status ? status : sum_parts(p, r, r.workspace, f.parts, weights);
}

}  // namespace fastconv::cuda
