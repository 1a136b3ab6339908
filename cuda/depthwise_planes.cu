// SPDX-License-Identifier: Apache-2.0
// depthwise, channels first, square filters: a block copies the halos of a tile of some planes into shared memory and
// writes its outputs from there, each cell moving once (the halos' borders twice).
//   each thread, of 4 neighbours along a row and kRows rows: the filter in registers;
//     for each row of cells that they read: load it once, add its products to every output row that it meets
//   sums go through shared memory, so that neighbouring threads store neighbours
#include "depthwise.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kColumns = 4;
constexpr int kArena = 22 << 10;
typedef TileMemory<kArena> Memory;

template <class T, int kFilter, int kStride>
__global__ void __launch_bounds__(kTileThreads, sizeof(T) == 8 ? 3 : 5) depthwise_planes(Conv<T> c, Tile g) {
  constexpr int kRows = square_rows(kStride), kPiece = 16 / static_cast<int>(sizeof(T)),
                kRead = kPiece < 4 ? kPiece : 4;
  constexpr int kOff = square_lead(sizeof(T), kFilter) % kRead;
  constexpr int kReads = (kOff + (kColumns - 1) * kStride + kFilter + kRead - 1) / kRead;
  auto& s = shared<Memory>();
  T* cells = s.template at<T>(0);
  auto* stage = s.template at<Sum<T>>(g.stage_at);
  auto* weights = s.template at<Sum<T>>(g.weights_at);
  TilePlace place;
  list_planes(g, c, tile_place(g, blockIdx.x, &place), s);
  const int e = static_cast<int>(threadIdx.x);
  const bool busy = e < g.items.total;
  const Cell item = cell_of(g.items, false, busy ? e : 0, kColumns);
  const int line = item.at[1] * kRows;
  Sum<T> sums[kRows][kColumns] = {};
#pragma unroll 1
  for (int term = 0; term < g.terms; ++term) {
    sync();
    load_box(g.source, cells, g.backward ? c.y : c.x, 1, place.source, s.source,
             term * (g.backward ? c.ys.channel : c.xs.channel));
    copy_async_commit();
    load_weights(g, c, term, s, weights);
    copy_async_wait<0>();
    sync();
    if (!busy) continue;
    Sum<T> w[kFilter * kFilter];
#pragma unroll
    for (int i = 0; i < kFilter * kFilter; ++i) w[i] = weights[item.plane * kFilter * kFilter + i];
    const T* from =
        cells + item.plane * g.source.plane + line * kStride * g.source.pitch[1] + item.at[2] * kStride + g.lead - kOff;
#pragma unroll
    for (int i = 0; i < (kRows - 1) * kStride + kFilter; ++i, from += g.source.pitch[1]) {
      Sum<T> row[kReads * kRead];
#pragma unroll
      for (int j = 0; j < kReads; ++j) {
        const auto read = load<kRead>(from + j * kRead);
#pragma unroll
        for (int k = 0; k < kRead; ++k) row[j * kRead + k] = widen(read.at[k]);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int t = i - r * kStride;
        if (t < 0 || t >= kFilter) continue;
#pragma unroll
        for (int q = 0; q < kColumns; ++q)
#pragma unroll
          for (int u = 0; u < kFilter; ++u) sums[r][q] += row[kOff + q * kStride + u] * w[t * kFilter + u];
      }
    }
  }
  sync();
  if (busy) {
    Sum<T>* to = stage + item.plane * g.dest.plane + line * g.dest.pitch[1] + item.at[2];
    constexpr int kWrite = 16 / static_cast<int>(sizeof(Sum<T>));
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int q = 0; q < kColumns; q += kWrite) {
        Vector<Sum<T>, kWrite> values;
#pragma unroll
        for (int k = 0; k < kWrite; ++k) values.at[k] = sums[r][q + k];
        store(to + r * g.dest.pitch[1] + q, values);
      }
  }
  sync();
  store_tile(g, c, place, s, stage);
}

template <class T>
int launch_planes(const ConvProblem& p, const RunContext& r, const Tile& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  Tile g = plan;
  set_pieces(p, c, &g);
  starts(r, Phase::kProducts, products_of_items(g));
  const auto go = [&](void (*one)(Conv<T>, Tile), void (*two)(Conv<T>, Tile)) {
    return launch(r, p.stride[2] == 1 ? one : two, Grid{g.blocks}, kTileThreads, sizeof(Memory), c, g);
  };
  switch (p.filter[2]) {
    case 3:
      return go(depthwise_planes<T, 3, 1>, depthwise_planes<T, 3, 2>);
    case 5:
      return go(depthwise_planes<T, 5, 1>, depthwise_planes<T, 5, 2>);
    default:
      return go(depthwise_planes<T, 7, 1>, depthwise_planes<T, 7, 2>);
  }
}

}  // namespace

bool plan_depthwise_planes(const ConvProblem& p, Tile* g, double* bytes) {
  TileWish wish{};
  const int32_t element = narrow_int(element_size(p.dtype));
  wish.arena = kArena, wish.unit_w = kColumns, wish.unit_h = square_rows(narrow_int(p.stride[2])), wish.unit_planes = 1;
  wish.most_items = kTileThreads, wish.stage_over_cells = true,
  wish.lead = square_lead(element, narrow_int(p.filter[2]));
  wish.element = element, wish.sum = narrow_int(computed_size(p.dtype));
  return plan_tile(p, wish, g, bytes);
}

int run_depthwise_planes(const ConvProblem& p, const RunContext& r) {
  Tile g;
  plan_depthwise_planes(p, &g);
  return by_dtype(p.dtype, [&](auto type) { return launch_planes<decltype(type)>(p, r, g); });
}

}  // namespace fastconv::cuda
