// SPDX-License-Identifier: Apache-2.0
// depthwise, backward-filter, channels first, square filters: a thread keeps the sums of all taps in registers and adds
// those of 4 neighbours along a row and some rows of each tile; then warps add theirs in a tree, and the warps in
// order.
#include "depthwise_filter.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kColumns = 4, kWarps = kTileThreads / kWarp;

template <class T, int kFilter, int kStride>
__global__ void __launch_bounds__(kTileThreads) depthwise_filter_planes(Conv<T> c, FilterTiles f, Sum<T>* parts) {
  constexpr int kRows = square_rows(kStride), kTaps = kFilter * kFilter;
  constexpr int kPiece = 16 / static_cast<int>(sizeof(T)), kRead = kPiece < 4 ? kPiece : 4;
  constexpr int kOff = square_lead(sizeof(T), kFilter) % kRead;
  constexpr int kReads = (kOff + (kColumns - 1) * kStride + kFilter + kRead - 1) / kRead;
  auto& s = shared<FilterMemory>();
  const Tile& g = f.tile;
  const FilterBlock b = filter_block(f);
  const int e = static_cast<int>(threadIdx.x);
  const bool busy = e < g.items.total;
  const Cell item = cell_of(g.items, false, busy ? e : 0, kColumns);
  const int line = item.at[1] * kRows;
  Sum<T> sums[kTaps] = {};
#pragma unroll 1
  for (int64_t work = b.part; work < f.works; work += f.parts) {
    TilePlace place;
    load_filter_tile(f, c, b, work, s, &place);
    // Outputs that are not there have no products: a cell may be infinite.
    const int rows = g.axis[1].dest - place.dest[1] - line, columns = g.axis[2].dest - place.dest[2] - item.at[2];
    if (!busy || s.dest[item.plane] < 0) continue;
    const T* dy = s.template at<T>(g.stage_at) + item.plane * g.dest.plane + line * g.dest.pitch[1] + item.at[2];
    const T* from = s.template at<T>(0) + item.plane * g.source.plane + line * kStride * g.source.pitch[1] +
                    item.at[2] * kStride + g.lead - kOff;
    Sum<T> gradients[kRows][kColumns];
#pragma unroll
    for (int r = 0; r < kRows; ++r)
#pragma unroll
      for (int j = 0; j < kColumns; j += kRead) {
        const auto read = load<kRead>(dy + r * g.dest.pitch[1] + j);
#pragma unroll
        for (int k = 0; k < kRead; ++k) gradients[r][j + k] = widen(read.at[k]);
      }
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
        if (t < 0 || t >= kFilter || r >= rows) continue;
#pragma unroll
        for (int q = 0; q < kColumns; ++q)
          if (q < columns) {
#pragma unroll
            for (int u = 0; u < kFilter; ++u) sums[t * kFilter + u] += row[kOff + q * kStride + u] * gradients[r][q];
          }
      }
    }
  }
  sync();
  auto* of_warps = s.template at<Sum<T>>(0);
#pragma unroll
  for (int i = 0; i < kTaps; ++i) {
    Sum<T> sum = sums[i];
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) sum += shuffle_xor(sum, distance);
    if (e % kWarp == 0) of_warps[e / kWarp * kTaps + i] = sum;
  }
  sync();
  for (int i = e; i < kTaps; i += kTileThreads) {
    Sum<T> sum = of_warps[i];
    for (int warp = 1; warp < kWarps; ++warp) sum += of_warps[warp * kTaps + i];
    parts[(b.part * c.p.k + b.unit) * kTaps + i] = sum;
  }
}

template <class T>
int launch_planes(const ConvProblem& p, const RunContext& r, const FilterTiles& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  FilterTiles f = plan;
  set_filter_pieces(p, c, &f.tile);
  auto* parts = static_cast<Sum<T>*>(r.workspace);
  starts(r, Phase::kProducts, times(p.n, p.k, y_plane(p), taps(p)));
  typedef void (*KernelOf)(Conv<T>, FilterTiles, Sum<T>*);
  const auto go = [&](KernelOf one, KernelOf two) {
    return launch(r, p.stride[2] == 1 ? one : two, Grid{f.units * f.parts}, kTileThreads, sizeof(FilterMemory), c, f,
                  parts);
  };
  switch (p.filter[2]) {
    case 3:
      return go(depthwise_filter_planes<T, 3, 1>, depthwise_filter_planes<T, 3, 2>);
    case 5:
      return go(depthwise_filter_planes<T, 5, 1>, depthwise_filter_planes<T, 5, 2>);
    default:
      return go(depthwise_filter_planes<T, 7, 1>, depthwise_filter_planes<T, 7, 2>);
  }
}

}  // namespace

int run_depthwise_filter_planes(const ConvProblem& p, const RunContext& r, const FilterTiles& f) {
  return by_dtype(p.dtype, [&](auto type) { return launch_planes<decltype(type)>(p, r, f); });
}

}  // namespace fastconv::cuda
