// SPDX-License-Identifier: Apache-2.0
// depthwise, backward-filter, channels last, square filters: a thread has a vector of 4 channels (float64: 2) and one
// row of the filter, whose sums it keeps in registers, and takes every slices-th row of outputs of each tile. The
// slices are added in order.
#include "depthwise_filter.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kColumns = 4;

template <class T, int kFilter, int kStride>
__global__ void __launch_bounds__(kTileThreads, 4) depthwise_filter_pixels(Conv<T> c, FilterTiles f, Sum<T>* parts) {
  constexpr int kChannels = sizeof(T) == 8 ? 2 : 4, kCells = (kColumns - 1) * kStride + kFilter;
  auto& s = shared<FilterMemory>();
  const Tile& g = f.tile;
  const FilterBlock b = filter_block(f);
  const int e = static_cast<int>(threadIdx.x);
  int owner, channel;
  const int slice = f.by_owners.divide(e, &owner);
  const bool busy = slice < f.slices;
  const int t = g.items.by[0].divide(owner, &channel);  // row of the filter
  channel *= kChannels;
  Sum<T> sums[kFilter][kChannels] = {};
#pragma unroll 1
  for (int64_t work = b.part; work < f.works; work += f.parts) {
    TilePlace place;
    load_filter_tile(f, c, b, work, s, &place);
    if (!busy) continue;
    const int rows = min_of(g.axis[1].dest - place.dest[1], g.axis[1].tile);
    const int columns = min_of(g.axis[2].dest - place.dest[2], g.axis[2].tile);
#pragma unroll 1
    for (int line = slice; line < rows; line += f.slices) {
      const T* dy = s.template at<T>(g.stage_at) + channel + line * g.dest.pitch[1];
      const T* from = s.template at<T>(0) + channel + (line * kStride + t) * g.source.pitch[1];
#pragma unroll 1
      for (int column = 0; column < columns; column += kColumns) {
        Sum<T> row[kCells][kChannels];
#pragma unroll
        for (int j = 0; j < kCells; ++j) {
          const auto read = load<kChannels>(from + (column * kStride + j) * g.source.pitch[2]);
#pragma unroll
          for (int k = 0; k < kChannels; ++k) row[j][k] = widen(read.at[k]);
        }
#pragma unroll
        for (int q = 0; q < kColumns; ++q)
          if (column + q < columns) {
            const auto gradient = load<kChannels>(dy + (column + q) * g.dest.pitch[2]);
#pragma unroll
            for (int u = 0; u < kFilter; ++u)
#pragma unroll
              for (int k = 0; k < kChannels; ++k) sums[u][k] += row[q * kStride + u][k] * widen(gradient.at[k]);
          }
      }
    }
  }
  sync();
  auto* of_threads = s.template at<Sum<T>>(0);
#pragma unroll
  for (int u = 0; u < kFilter; ++u)
#pragma unroll
    for (int k = 0; k < kChannels; ++k) of_threads[(u * kChannels + k) * kTileThreads + e] = sums[u][k];
  sync();
  // One sum after the other: number i is of owner i % owners.
  for (int i = e; i < f.owners * kFilter * kChannels; i += kTileThreads) {
    int of;
    const int number = f.by_owners.divide(i, &of);
    Sum<T> sum = of_threads[number * kTileThreads + of];
    for (int k = 1; k < f.slices; ++k) sum += of_threads[number * kTileThreads + k * f.owners + of];
    int lane;
    const int row = g.items.by[0].divide(of, &lane);
    const int64_t filter = b.unit * g.planes + lane * kChannels + number % kChannels;
    if (filter < c.p.k) parts[((b.part * c.p.k + filter) * kFilter + row) * kFilter + number / kChannels] = sum;
  }
}

template <class T>
int launch_pixels(const ConvProblem& p, const RunContext& r, const FilterTiles& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  FilterTiles f = plan;
  set_filter_pieces(p, c, &f.tile);
  auto* parts = static_cast<Sum<T>*>(r.workspace);
  // Channels that fill a block count.
  starts(r, Phase::kProducts, times(p.n, f.units * f.tile.planes, y_plane(p), taps(p)));
  typedef void (*KernelOf)(Conv<T>, FilterTiles, Sum<T>*);
  const auto go = [&](KernelOf one, KernelOf two) {
    return launch(r, p.stride[2] == 1 ? one : two, Grid{f.units * f.parts}, kTileThreads, sizeof(FilterMemory), c, f,
                  parts);
  };
  switch (p.filter[2]) {
    case 3:
      return go(depthwise_filter_pixels<T, 3, 1>, depthwise_filter_pixels<T, 3, 2>);
    case 5:
      return go(depthwise_filter_pixels<T, 5, 1>, depthwise_filter_pixels<T, 5, 2>);
    default:
      return go(depthwise_filter_pixels<T, 7, 1>, depthwise_filter_pixels<T, 7, 2>);
  }
}

}  // namespace

int run_depthwise_filter_pixels(const ConvProblem& p, const RunContext& r, const FilterTiles& f) {
  return by_dtype(p.dtype, [&](auto type) { return launch_pixels<decltype(type)>(p, r, f); });
}

}  // namespace fastconv::cuda
