// SPDX-License-Identifier: Apache-2.0
// depthwise, channels last, filters of 11x11 to 31x31: a block copies the halo of a tile of 32 bytes of channels into
// shared memory, and of the filters a row at a time.
//   each thread, of 16 neighbours along a row (twice) and one channel, of halves two:
//     for each row of the filter, 4 taps at a time: a window of 20 cells in registers slides by 4
//
// 31x31 at 56 x 56, halves: tiles of 8 x 32 outputs of 16 channels copy 38 x 63 cells, 9.4 for an output, of which each
// is a whole sector, and read 961 x 16 numbers of filters, 3.8: with the outputs 28 bytes from L2 and back for each, 34
// with the columns beyond 56. The rows of any filter (depthwise_any.cu), whose 32 KB hold the filters too, have smaller
// tiles and parts of sectors: 191 by the same count. floats: 68 and 275. Where 16 divides the rows of outputs, tiles of
// 16 x 32 have 5.7 cells and 1.9 filters: 17 bytes.
// Products are what limits: 961 for an output, 34 for a byte; 4 taps read 4 + 8 words of shared memory for 128, 11 for a
// word, where a multiprocessor does 4 in the time of one.
#include "depthwise.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kArena = 95 << 10;  // two blocks for each multiprocessor of sm_90; one of 99 KB
typedef TileMemory<kArena> Memory;
constexpr int kColumns = 16, kTaps = 4, kItems = 2, kLongest = 31;

// Channels of a block: a sector's. Of a thread: a word's.
constexpr int planes_of(int element) { return 32 / element; }
template <class T>
constexpr int kChannels = sizeof(T) == 2 ? 2 : 1;

template <class T>
using Window = Sum<T>[kColumns + kTaps][kChannels<T>];

template <class T>
__device__ __forceinline__ void read_cell(Sum<T> (&to)[kChannels<T>], const T* from) {
  const auto read = load<kChannels<T>>(from);
#pragma unroll
  for (int k = 0; k < kChannels<T>; ++k) to[k] = widen(read.at[k]);
}

// sums[q] += window[q + u] of tap u, whose filters are at `taps`.
template <class T>
__device__ __forceinline__ void multiply_tap(const Window<T>& window, const Sum<T>* taps, int u,
                                             Sum<T> (&sums)[kColumns][kChannels<T>]) {
  const auto value = load<kChannels<T>>(taps);
#pragma unroll
  for (int q = 0; q < kColumns; ++q)
#pragma unroll
    for (int k = 0; k < kChannels<T>; ++k) sums[q][k] += window[q + u][k] * value.at[k];
}

// sums += a row of cells by a row of the filter.
template <class T>
__device__ __forceinline__ void multiply_row(const T* cells, const Sum<T>* filter, int taps,
                                             Sum<T> (&sums)[kColumns][kChannels<T>]) {
  constexpr int kPlanes = planes_of(sizeof(T));
  Window<T> window;
#pragma unroll
  for (int q = 0; q < kColumns; ++q) read_cell(window[q], cells + q * kPlanes);
  cells += kColumns * kPlanes;
#pragma unroll 1
  for (; taps >= kTaps; taps -= kTaps, cells += kTaps * kPlanes, filter += kTaps * kPlanes) {
#pragma unroll
    for (int u = 0; u < kTaps; ++u) read_cell(window[kColumns + u], cells + u * kPlanes);
#pragma unroll
    for (int u = 0; u < kTaps; ++u) multiply_tap<T>(window, filter + u * kPlanes, u, sums);
#pragma unroll
    for (int q = 0; q < kColumns; ++q)
#pragma unroll
      for (int k = 0; k < kChannels<T>; ++k) window[q][k] = window[q + kTaps][k];
  }
#pragma unroll
  for (int u = 0; u < kTaps - 1; ++u) {
    if (u >= taps) break;
    if (u > 0) read_cell(window[kColumns + u - 1], cells + (u - 1) * kPlanes);
    multiply_tap<T>(window, filter + u * kPlanes, u, sums);
  }
}

template <class T>
__global__ void __launch_bounds__(kTileThreads, 2) depthwise_long(Conv<T> c, Tile g) {
  constexpr int kPlanes = planes_of(sizeof(T)), kMostWeights = (kPlanes * kLongest + kTileThreads - 1) / kTileThreads;
  auto& s = shared<Memory>();
  T* cells = s.template at<T>(0);
  auto* stage = s.template at<Sum<T>>(g.stage_at);
  auto* weights = s.template at<Sum<T>>(g.weights_at);
  TilePlace place;
  list_planes(g, c, tile_place(g, blockIdx.x, &place), s);
  const int thread = static_cast<int>(threadIdx.x), rows = g.axis[1].taps, columns = g.axis[2].taps;
  // Neighbouring threads have the channels of a cell, then rows, an odd number of cells apart.
  int from[kItems], to[kItems];
#pragma unroll
  for (int i = 0; i < kItems; ++i) {
    const int e = thread + i * kTileThreads;
    const Parts item = parts_of(g.items, e < g.items.total ? e : 0);
    const int plane = item.at[0] * kChannels<T>, column = item.at[2] * kColumns;
    from[i] = e < g.items.total ? item.at[1] * g.source.pitch[1] + column * kPlanes + plane : -1;
    to[i] = item.at[1] * g.dest.pitch[1] + column * kPlanes + plane;
  }
  Sum<T> sums[kItems][kColumns][kChannels<T>] = {};
#pragma unroll 1
  for (int term = 0; term < g.terms; ++term) {
    sync();
    load_box(g.source, cells, g.backward ? c.y : c.x, g.backward ? c.ys.pixel : c.xs.pixel, place.source, s.source,
             term);
    copy_async_commit();
    // A row of the planes' filters, turned for backward-data: this thread's part of it.
    Sum<T> mine[kMostWeights];
    const auto read_weights = [&](int row) {
#pragma unroll
      for (int i = 0; i < kMostWeights; ++i) {
        int column;
        const int j = g.by_row.divide(thread + i * kTileThreads, &column);
        mine[i] = 0;
        if (j >= kPlanes || row >= rows || s.dest[j] < 0) continue;
        const int64_t filter = g.backward ? int64_t{s.channel[j]} * g.multiplier + term : s.channel[j];
        const int tap = row * columns + column;
        mine[i] = widen(c.w[filter * g.taps + (g.backward ? g.taps - 1 - tap : tap)]);
      }
    };
    const auto put_weights = [&](int row) {
#pragma unroll
      for (int i = 0; i < kMostWeights; ++i) {
        int column;
        const int j = g.by_row.divide(thread + i * kTileThreads, &column);
        if (j < kPlanes) weights[((row & 1) * kLongest + column) * kPlanes + j] = mine[i];
      }
    };
    read_weights(0);
    put_weights(0);
    copy_async_wait<0>();
#pragma unroll 1
    for (int row = 0; row < rows; ++row) {
      sync();
      read_weights(row + 1);
      const Sum<T>* filter = weights + (row & 1) * kLongest * kPlanes + thread % (kPlanes / kChannels<T>)*kChannels<T>;
#pragma unroll
      for (int i = 0; i < kItems; ++i)
        if (from[i] >= 0) multiply_row(cells + from[i] + row * g.source.pitch[1], filter, columns, sums[i]);
      if (row + 1 < rows) put_weights(row + 1);
    }
  }
  sync();
#pragma unroll
  for (int i = 0; i < kItems; ++i)
    if (from[i] >= 0)
#pragma unroll
      for (int q = 0; q < kColumns; ++q)
#pragma unroll
        for (int k = 0; k < kChannels<T>; ++k) stage[to[i] + q * kPlanes + k] = sums[i][q][k];
  sync();
  store_tile(g, c, place, s, stage);
}

template <class T>
int launch_long(const ConvProblem& p, const RunContext& r, const Tile& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  Tile g = plan;
  set_pieces(p, c, &g);
  starts(r, Phase::kProducts, products_of_items(g));
  return launch(r, depthwise_long<T>, Grid{g.blocks}, kTileThreads, sizeof(Memory), c, g);
}

}  // namespace

bool is_depthwise_long(const ConvProblem& p, const Machine& m) {
  const auto is_long = [&](int i) {
    return p.filter[i] >= 11 && p.filter[i] <= kLongest && p.stride[i] == 1 && p.dilation[i] == 1;
  };
  const int64_t width = p.pass == Pass::kForward ? output_size(p, 2) : p.size[2];
  return p.x_layout == Layout::kChannelsLast && p.size[0] == 1 && p.filter[0] == 1 && p.pad_begin[0] == 0 &&
         p.pad_end[0] == 0 && p.stride[0] == 1 && is_long(1) && is_long(2) && width > kColumns / 2 &&
         m.l1_bytes >= static_cast<int64_t>(sizeof(Memory));
}

bool plan_depthwise_long(const ConvProblem& p, Tile* g, double* bytes) {
  describe(p, false, g);
  const int64_t element = element_size(p.dtype), sum = computed_size(p.dtype);
  const int32_t planes = planes_of(narrow_int(element)), units = planes / (element == 2 ? 2 : 1);
  g->planes = planes, g->unit_w = kColumns, g->unit_h = 1, g->unit_planes = planes / units;
  const TileLengths ws(g->axis[2].dest, kColumns, kMostTileLength), hs(g->axis[1].dest, 1, kMostTileLength);
  Tile best{};
  double least = 0;
  for (int h = 0; h < hs.count; ++h)
    for (int w = 0; w < ws.count; ++w) {
      g->axis[0].tile = 1, g->axis[1].tile = hs.at[h], g->axis[2].tile = ws.at[w];
      const int64_t outputs = int64_t{hs.at[h]} * ws.at[w], items = outputs / kColumns * units;
      // Windows end at a multiple of 4 taps; rows lie an odd number of cells apart.
      const int64_t cells[] = {1, cells_read(g->axis[1], false, hs.at[h]),
                               (ws.at[w] + round_up(g->axis[2].taps - 1, kTaps)) | 1};
      const int64_t cell_bytes = round_up(cells[1] * cells[2] * planes * element, 16);
      if (items > kItems * kTileThreads || cell_bytes + 2 * kLongest * planes * sum > kArena) continue;
      if (outputs * planes * sum > kArena) continue;
      for (int i = 0; i < kMaxSpatial; ++i) {
        g->source.count[i] = narrow_int(cells[i]), g->dest.count[i] = g->axis[i].tile;
        g->axis[i].tiles = narrow_int(divide_up(g->axis[i].dest, g->axis[i].tile));
      }
      g->weights_at = narrow_int(cell_bytes);
      g->blocks = int64_t{g->axis[1].tiles} * g->axis[2].tiles * p.n * divide_up(g->dest_channels, planes);
      const double moved =
          static_cast<double>(planes * element) * static_cast<double>(cells[1] * cells[2] + g->taps + outputs);
      const double multiplied = times(round_up(items, kTileThreads), kColumns, planes / units, g->taps);
      // A multiprocessor multiplies about four times while a byte comes.
      const double cost =
          (kBlockOverhead + moved + multiplied / 4) * std::max(static_cast<double>(g->blocks), kBlocksAtOnce);
      if (least == 0 || cost < least) {
        least = cost, best = *g;
        if (bytes) *bytes = (kBlockOverhead + moved) * g->terms * static_cast<double>(g->blocks);
      }
    }
  if (least == 0) return false;
  *g = best;
  for (Box* box : {&g->source, &g->dest}) {
    box->pitch[2] = planes, box->pitch[1] = box->count[2] * planes, box->pitch[0] = box->count[1] * box->pitch[1];
    box->plane = 1, box->planes = planes, box->channels_last = true;
  }
  set_divisors(g);
  g->items = order_of(units, g->axis[1].tile, g->axis[2].tile / kColumns, 1);
  return true;
}

int run_depthwise_long(const ConvProblem& p, const RunContext& r) {
  Tile g;
  plan_depthwise_long(p, &g, nullptr);
  return by_dtype(p.dtype, [&](auto type) { return launch_long<decltype(type)>(p, r, g); });
}

}  // namespace fastconv::cuda
