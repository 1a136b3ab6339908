// SPDX-License-Identifier: Apache-2.0
// depthwise, channels last, square filters: a block copies the halo of a tile of some channels into shared memory and
// writes its outputs from there.
//   each thread, of a vector of 4 channels (float64: 2), 4 neighbours along a row and 2 rows:
//     for each row of cells that they read: its vectors once, its products with a row of the filter for each output row
// Neighbouring threads have neighbouring channels, in shared memory and in the tensors.
#include "depthwise.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kColumns = 4, kRows = 2;
constexpr int kArena = 36 << 10;
typedef TileMemory<kArena> Memory;

constexpr int channels_of(int element) { return element == 8 ? 2 : 4; }

template <class T, int kFilter, int kStride>
__global__ void __launch_bounds__(kTileThreads, 4) depthwise_pixels(Conv<T> c, Tile g) {
  constexpr int kChannels = channels_of(sizeof(T));
  auto& s = shared<Memory>();
  T* cells = s.template at<T>(0);
  auto* stage = s.template at<Sum<T>>(g.stage_at);
  auto* weights = s.template at<Sum<T>>(g.weights_at);
  TilePlace place;
  list_planes(g, c, tile_place(g, blockIdx.x, &place), s);
  const int e = static_cast<int>(threadIdx.x);
  const bool busy = e < g.items.total;
  Cell item = cell_of(g.items, true, busy ? e : 0, kChannels);
  item.at[1] *= kRows, item.at[2] *= kColumns;
  Sum<T> sums[kRows][kColumns][kChannels] = {};
#pragma unroll 1
  for (int term = 0; term < g.terms; ++term) {
    sync();
    load_box(g.source, cells, g.backward ? c.y : c.x, g.backward ? c.ys.pixel : c.xs.pixel, place.source, s.source,
             term);
    copy_async_commit();
    load_weights(g, c, term, s, weights);
    copy_async_wait<0>();
    sync();
    if (!busy) continue;
    const T* from =
        cells + item.plane + item.at[1] * kStride * g.source.pitch[1] + item.at[2] * kStride * g.source.pitch[2];
#pragma unroll 1
    for (int i = 0; i < (kRows - 1) * kStride + kFilter; ++i, from += g.source.pitch[1]) {
      constexpr int kCells = (kColumns - 1) * kStride + kFilter;
      Sum<T> row[kCells][kChannels];
#pragma unroll
      for (int j = 0; j < kCells; ++j) {
        const auto read = load<kChannels>(from + j * g.source.pitch[2]);
#pragma unroll
        for (int k = 0; k < kChannels; ++k) row[j][k] = widen(read.at[k]);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int t = i - r * kStride;
        if (t < 0 || t >= kFilter) continue;
        const Sum<T>* taps = weights + t * g.weight_row + item.plane;
#pragma unroll
        for (int u = 0; u < kFilter; ++u) {
          const auto w = load<kChannels>(taps + u * g.weight_tap);
#pragma unroll
          for (int q = 0; q < kColumns; ++q)
#pragma unroll
            for (int k = 0; k < kChannels; ++k) sums[r][q][k] += row[q * kStride + u][k] * w.at[k];
        }
      }
    }
  }
  sync();
  if (busy) {
    Sum<T>* to = stage + place_of(g.dest, item);
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int q = 0; q < kColumns; ++q) {
        Vector<Sum<T>, kChannels> values;
#pragma unroll
        for (int k = 0; k < kChannels; ++k) values.at[k] = sums[r][q][k];
        store(to + r * g.dest.pitch[1] + q * g.dest.pitch[2], values);
      }
  }
  sync();
  store_tile(g, c, place, s, stage);
}

template <class T>
int launch_pixels(const ConvProblem& p, const RunContext& r, const Tile& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  Tile g = plan;
  set_pieces(p, c, &g);
  starts(r, Phase::kProducts, products_of_items(g));
  const auto go = [&](void (*one)(Conv<T>, Tile), void (*two)(Conv<T>, Tile)) {
    return launch(r, p.stride[2] == 1 ? one : two, Grid{g.blocks}, kTileThreads, sizeof(Memory), c, g);
  };
  switch (p.filter[2]) {
    case 3:
      return go(depthwise_pixels<T, 3, 1>, depthwise_pixels<T, 3, 2>);
    case 5:
      return go(depthwise_pixels<T, 5, 1>, depthwise_pixels<T, 5, 2>);
    default:
      return go(depthwise_pixels<T, 7, 1>, depthwise_pixels<T, 7, 2>);
  }
}

}  // namespace

bool plan_depthwise_pixels(const ConvProblem& p, Tile* g, double* bytes) {
  TileWish wish{};
  wish.element = narrow_int(element_size(p.dtype)), wish.sum = narrow_int(computed_size(p.dtype));
  wish.arena = kArena, wish.unit_w = kColumns, wish.unit_h = kRows, wish.unit_planes = channels_of(wish.element);
  wish.most_items = kTileThreads, wish.stage_over_cells = true;
  return plan_tile(p, wish, g, bytes);
}

int run_depthwise_pixels(const ConvProblem& p, const RunContext& r) {
  Tile g;
  plan_depthwise_pixels(p, &g);
  return by_dtype(p.dtype, [&](auto type) { return launch_pixels<decltype(type)>(p, r, g); });
}

}  // namespace fastconv::cuda
