// SPDX-License-Identifier: Apache-2.0
// depthwise of any filter, stride and dilation, one to three axes, both layouts, from a halo in shared memory.
//   rows    no stride and no dilation along the rows (1-D, 3-D, filters to 31x31): a thread computes 8 neighbours of a
//           row; for each row of the filter, 4 taps at a time: a window of 12 cells in registers slides by 4
//   places  the rest: a thread computes one output after the other; its taps may be `scattered`, those of backward-data
//           with strides: each cell of x has its own first tap, and the others follow a fixed step apart
#include "depthwise.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kArena = 32 << 10;
typedef TileMemory<kArena> Memory;
constexpr int kColumns = 8, kTaps = 4;

// Puts 4 numbers, `pitch` apart or neighbours and aligned, into `window` from `first` on.
template <bool last, class T, int count>
__device__ __forceinline__ void read_window(Sum<T> (&window)[count], int first, const T* from, int pitch) {
  constexpr int kRead = sizeof(T) == 8 ? 2 : 4;
  if constexpr (last) {
#pragma unroll
    for (int k = 0; k < 4; ++k) window[first + k] = widen(from[k * pitch]);
  } else {
#pragma unroll
    for (int j = 0; j < 4; j += kRead) {
      const auto read = load<kRead>(from + j);
#pragma unroll
      for (int k = 0; k < kRead; ++k) window[first + j + k] = widen(read.at[k]);
    }
  }
}

template <bool last, class T>
__global__ void __launch_bounds__(kTileThreads, 4) depthwise_rows(Conv<T> c, Tile g) {
  auto& s = shared<Memory>();
  T* cells = s.template at<T>(0);
  auto* stage = s.template at<Sum<T>>(g.stage_at);
  auto* weights = s.template at<Sum<T>>(g.weights_at);
  TilePlace place;
  list_planes(g, c, tile_place(g, blockIdx.x, &place), s);
  const int pitch = last ? g.planes : 1;
#pragma unroll 1
  for (int term = 0; term < g.terms; ++term) {
    sync();
    load_box(g.source, cells, g.backward ? c.y : c.x, g.backward ? c.ys.pixel : c.xs.pixel, place.source, s.source,
             term * (g.backward ? c.ys.channel : c.xs.channel));
    copy_async_commit();
    load_weights(g, c, term, s, weights);
    copy_async_wait<0>();
    sync();
    for (int e = static_cast<int>(threadIdx.x); e < g.items.total; e += kTileThreads) {
      Cell item = cell_of(g.items, last, e, last ? 1 : kColumns);
      if (last) item.at[2] *= kColumns;
      Sum<T> sums[kColumns] = {};
      const T* from = cells + item.plane * g.source.plane + item.at[0] * g.axis[0].stride * g.source.pitch[0] +
                      item.at[1] * g.axis[1].stride * g.source.pitch[1] + item.at[2] * pitch;
      const Sum<T>* w = weights + item.plane * g.weight_plane;
      for (int t0 = 0; t0 < g.axis[0].taps; ++t0)
        for (int t1 = 0; t1 < g.axis[1].taps; ++t1, w += g.weight_row) {
          const T* row =
              from + t0 * g.axis[0].dilation * g.source.pitch[0] + t1 * g.axis[1].dilation * g.source.pitch[1];
          Sum<T> window[kColumns + kTaps];
          read_window<last>(window, 0, row, pitch);
          read_window<last>(window, 4, row + 4 * pitch, pitch);
          const Sum<T>* tap = w;
          int left = g.axis[2].taps;
          for (row += kColumns * pitch; left >= kTaps; left -= kTaps, row += kTaps * pitch, tap += kTaps * pitch) {
            read_window<last>(window, kColumns, row, pitch);
            Sum<T> values[kTaps];
            read_window<last>(values, 0, tap, pitch);
#pragma unroll
            for (int u = 0; u < kTaps; ++u)
#pragma unroll
              for (int q = 0; q < kColumns; ++q) sums[q] += window[q + u] * values[u];
#pragma unroll
            for (int q = 0; q < kColumns; ++q) window[q] = window[q + kTaps];
          }
          if (left > 1) read_window<last>(window, kColumns, row, pitch);
#pragma unroll
          for (int u = 0; u < kTaps - 1; ++u)
            if (u < left) {
              const Sum<T> value = tap[u * pitch];
#pragma unroll
              for (int q = 0; q < kColumns; ++q) sums[q] += window[q + u] * value;
            }
        }
      Sum<T>* to = stage + place_of(g.dest, item);
#pragma unroll
      for (int q = 0; q < kColumns; ++q) {
        const Sum<T> before = term > 0 ? to[q * pitch] : Sum<T>(0);
        to[q * pitch] = before + sums[q];
      }
    }
  }
  sync();
  store_tile(g, c, place, s, stage);
}

// The first tap that meets output `dest` of an axis, and its cell's place in the box.
struct Walk {
  int tap, cell;
};
__device__ __forceinline__ Walk walk_of(const TileAxis& a, bool scattered, int dest, int start) {
  if (!scattered) return {0, dest * a.stride - a.pad - start};
  int phase, rest, tap;
  const int whole = a.by_stride.divide(dest + a.pad, &phase);
  const int reduced = a.by_common.divide(phase, &rest);
  a.by_step.divide(reduced * a.inverse, &tap);
  if (rest != 0 || tap >= a.taps) return {a.taps, 0};
  return {tap, whole - a.by_stride.quotient(tap * a.dilation - phase) - start};
}

template <bool last, class T>
__global__ void __launch_bounds__(kTileThreads) depthwise_places(Conv<T> c, Tile g) {
  auto& s = shared<Memory>();
  T* cells = s.template at<T>(0);
  auto* stage = s.template at<Sum<T>>(g.stage_at);
  auto* weights = s.template at<Sum<T>>(g.weights_at);
  TilePlace place;
  list_planes(g, c, tile_place(g, blockIdx.x, &place), s);
#pragma unroll 1
  for (int term = 0; term < g.terms; ++term) {
    sync();
    load_box(g.source, cells, g.backward ? c.y : c.x, g.backward ? c.ys.pixel : c.xs.pixel, place.source, s.source,
             term * (g.backward ? c.ys.channel : c.xs.channel));
    copy_async_commit();
    load_weights(g, c, term, s, weights);
    copy_async_wait<0>();
    sync();
    for (int e = static_cast<int>(threadIdx.x); e < g.items.total; e += kTileThreads) {
      const Cell item = cell_of(g.items, last, e, 1);
      bool there = true;
      Walk walks[kMaxSpatial];
#pragma unroll
      for (int i = 0; i < kMaxSpatial; ++i) {
        const int dest = place.dest[i] + item.at[i];
        there = there && dest < g.axis[i].dest;
        walks[i] = walk_of(g.axis[i], g.scattered, dest, place.source[i]);
      }
      if (!there) continue;
      const T* from = cells + item.plane * g.source.plane;
      const Sum<T>* w = weights + item.plane * g.weight_plane;
      Sum<T> sum = 0;
      for (int t0 = walks[0].tap, a0 = walks[0].cell; t0 < g.axis[0].taps;
           t0 += g.axis[0].tap_step, a0 += g.axis[0].source_step)
        for (int t1 = walks[1].tap, a1 = walks[1].cell; t1 < g.axis[1].taps;
             t1 += g.axis[1].tap_step, a1 += g.axis[1].source_step) {
          const T* row = from + a0 * g.source.pitch[0] + a1 * g.source.pitch[1];
          const Sum<T>* taps = w + (t0 * g.axis[1].taps + t1) * g.weight_row;
          for (int t2 = walks[2].tap, a2 = walks[2].cell; t2 < g.axis[2].taps;
               t2 += g.axis[2].tap_step, a2 += g.axis[2].source_step)
            sum += widen(row[a2 * g.source.pitch[2]]) * taps[t2 * g.weight_tap];
        }
      Sum<T>* to = stage + place_of(g.dest, item);
      *to = term > 0 ? *to + sum : sum;
    }
  }
  sync();
  store_tile(g, c, place, s, stage);
}

bool by_rows(const ConvProblem& p) {
  const bool strided = p.stride[0] > 1 || p.stride[1] > 1 || p.stride[2] > 1;
  return p.stride[2] == 1 && p.dilation[2] == 1 && p.filter[2] > 1 && !(p.pass == Pass::kBackwardData && strided);
}

// Of single outputs: those that are there, with each tap that meets them. Planes that fill a block count.
double products_of_places(const Tile& g) {
  double pairs = 1, tiles = 1;
  for (const TileAxis& a : g.axis) {
    int64_t of_axis = int64_t{a.dest} * a.taps;
    if (g.scattered) {
      of_axis = 0;
      for (int64_t t = 0; t < a.taps; ++t) {  // outputs at t * dilation - pad, modulo the stride
        const int64_t first = ((t * a.dilation - a.pad) % a.stride + a.stride) % a.stride;
        if (first < a.dest) of_axis += (a.dest - 1 - first) / a.stride + 1;
      }
    }
    pairs *= static_cast<double>(of_axis), tiles *= a.tiles;
  }
  return static_cast<double>(g.blocks) / tiles * times(g.planes, g.terms) * pairs;
}

template <class T>
int launch_any(const ConvProblem& p, const RunContext& r, const Tile& plan) {
  const Conv<T> c = conv_of<T>(p, r);
  Tile g = plan;
  set_pieces(p, c, &g);
  starts(r, Phase::kProducts, by_rows(p) ? products_of_items(g) : products_of_places(g));
  void (*kernel)(Conv<T>, Tile);
  if (by_rows(p))
    kernel = g.channels_last ? depthwise_rows<true, T> : depthwise_rows<false, T>;
  else
    kernel = g.channels_last ? depthwise_places<true, T> : depthwise_places<false, T>;
  return launch(r, kernel, Grid{g.blocks}, kTileThreads, sizeof(Memory), c, g);
}

}  // namespace

bool plan_depthwise_any(const ConvProblem& p, Tile* g, double* bytes) {
  TileWish wish{};
  wish.element = narrow_int(element_size(p.dtype)), wish.sum = narrow_int(computed_size(p.dtype));
  wish.arena = kArena, wish.unit_h = 1, wish.unit_planes = 1, wish.unit_w = by_rows(p) ? kColumns : 1;
  wish.scattered = p.pass == Pass::kBackwardData && (p.stride[0] > 1 || p.stride[1] > 1 || p.stride[2] > 1);
  wish.windows = by_rows(p);
  return plan_tile(p, wish, g, bytes);
}

int run_depthwise_any(const ConvProblem& p, const RunContext& r) {
  Tile g;
  plan_depthwise_any(p, &g);
  return by_dtype(p.dtype, [&](auto type) { return launch_any<decltype(type)>(p, r, g); });
}

}  // namespace fastconv::cuda
