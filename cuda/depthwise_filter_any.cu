// SPDX-License-Identifier: Apache-2.0
// depthwise, backward-filter of any filter, stride and dilation: a thread owns up to 8 weights of the block's channels
// and goes over all outputs of each tile; where there are fewer weights than threads, several threads have the same
// weights and take every slices-th row, and the slices are added in order.
#include "depthwise_filter.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kOwned = kFilterOwned;

template <class T>
__global__ void __launch_bounds__(kTileThreads, 4) depthwise_filter_any(Conv<T> c, FilterTiles f, Sum<T>* parts) {
  auto& s = shared<FilterMemory>();
  const Tile& g = f.tile;
  const FilterBlock b = filter_block(f);
  const int e = static_cast<int>(threadIdx.x);
  // Weights first, first + kTileThreads, ...; channels last: the channel is fastest, and the same of all.
  int first = e, slice = 0;
  if (f.slices > 1) slice = f.by_owners.divide(e, &first);
  const int channels = g.channels_last ? g.planes : 1;
  const int weights = g.taps * channels, base = static_cast<int>(b.chunk) * kOwned * kTileThreads;
  const bool busy = slice < f.slices && base + first < weights;
  const int used = f.slices > 1 ? 1 : kOwned, channel = g.channels_last ? first % channels : 0;
  int offset[kOwned];
  Sum<T> sums[kOwned] = {};
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int weight = base + first + i * kTileThreads;
    int t1, t2;
    const int tap = weight < weights ? weight / channels : 0;
    const int line = g.by_row.divide(tap, &t2);
    const int t0 = f.by_lines.divide(line, &t1);
    offset[i] = t0 * g.axis[0].dilation * g.source.pitch[0] + t1 * g.axis[1].dilation * g.source.pitch[1] +
                t2 * g.axis[2].dilation * g.source.pitch[2];
  }
#pragma unroll 1
  for (int64_t work = b.part; work < f.works; work += f.parts) {
    TilePlace place;
    load_filter_tile(f, c, b, work, s, &place);
    if (!busy) continue;
    const int images = g.channels_last ? 1 : g.planes;
    const int depth = min_of(g.axis[0].dest - place.dest[0], g.axis[0].tile);
    const int height = min_of(g.axis[1].dest - place.dest[1], g.axis[1].tile);
    const int width = min_of(g.axis[2].dest - place.dest[2], g.axis[2].tile);
    const int step = g.axis[2].stride * g.source.pitch[2];
    int row = 0;
    for (int image = 0; image < images; ++image) {
      const int plane = g.channels_last ? channel : image;
      if (s.dest[plane] < 0) continue;
      for (int d = 0; d < depth; ++d)
        for (int h = 0; h < height; ++h, ++row) {
          if (f.slices > 1 && row % f.slices != slice) continue;
          const T* dy = s.template at<T>(g.stage_at) + plane * g.dest.plane + d * g.dest.pitch[0] + h * g.dest.pitch[1];
          const T* from = s.template at<T>(0) + plane * g.source.plane + d * g.axis[0].stride * g.source.pitch[0] +
                          h * g.axis[1].stride * g.source.pitch[1];
          for (int w = 0; w < width; ++w, from += step, dy += g.dest.pitch[2]) {
            const Sum<T> gradient = widen(*dy);
#pragma unroll
            for (int i = 0; i < kOwned; ++i)
              if (i < used) sums[i] += widen(from[offset[i]]) * gradient;
          }
        }
    }
  }
  sync();
  if (f.slices > 1) {
    auto* of_threads = s.template at<Sum<T>>(0);
    of_threads[e] = sums[0];
    sync();
    if (e < f.owners)
      for (int k = 1; k < f.slices; ++k) sums[0] += of_threads[k * f.owners + e];
  }
  if (slice > 0 || !busy) return;
#pragma unroll
  for (int i = 0; i < kOwned; ++i) {
    const int weight = base + first + i * kTileThreads;
    const int64_t filter = g.channels_last ? b.unit * channels + channel : b.unit;
    if (i < used && weight < weights && filter < c.p.k)
      parts[(b.part * c.p.k + filter) * g.taps + weight / channels] = sums[i];
  }
}

// Of an output in all channels: a thread that has weights multiplies by as many as it may own.
double products_of_output(const FilterTiles& f, int64_t filters) {
  const Tile& g = f.tile;
  const int64_t channels = g.channels_last ? g.planes : 1, weights = int64_t{g.taps} * channels;
  if (f.slices > 1) return times(filters, g.taps);
  // Of a block's threads those whose channel is there; the last block of channels may have fewer.
  const auto of_unit = [&](int64_t there) {
    double products = 0;
    for (int64_t chunk = 0; chunk < f.chunks; ++chunk) {
      const int64_t threads = std::min<int64_t>(kTileThreads, weights - chunk * kOwned * kTileThreads);
      products += times(threads / channels * there + std::min(threads % channels, there), kOwned);
    }
    return products;
  };
  return static_cast<double>(f.units - 1) * of_unit(channels) + of_unit(filters - (f.units - 1) * channels);
}

template <class T>
int launch_any(const ConvProblem& p, const RunContext& r, const FilterTiles& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  FilterTiles f = plan;
  set_filter_pieces(p, c, &f.tile);
  auto* parts = static_cast<Sum<T>*>(r.workspace);
  starts(r, Phase::kProducts, times(p.n, y_plane(p)) * products_of_output(f, p.k));
  return launch(r, depthwise_filter_any<T>, Grid{f.units * f.parts * f.chunks}, kTileThreads, sizeof(FilterMemory), c,
                f, parts);
}

}  // namespace

int run_depthwise_filter_any(const ConvProblem& p, const RunContext& r, const FilterTiles& f) {
  return by_dtype(p.dtype, [&](auto type) { return launch_any<decltype(type)>(p, r, f); });
}

}  // namespace fastconv::cuda
