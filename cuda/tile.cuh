// SPDX-License-Identifier: Apache-2.0
// Boxes of several planes in shared memory: what the kernels that compute whole tiles of outputs from one halo share. A
// plane is one channel of one image. Of channels first a block has `planes` neighbours of the flat list of planes, each
// a box of its own; channels last, `planes` neighbouring channels of one image, pixel by pixel. tile_plan.h chooses
// sizes.
#pragma once

#include "conv.cuh"

namespace fastconv::cuda {

constexpr int kTileThreads = 128;
constexpr int kTilePlanes = 128;  // at most, of a block
constexpr int64_t kLongestAxis = int64_t{1} << 29;

__device__ __forceinline__ int min_of(int a, int b) { return a < b ? a : b; }

// Takes apart a number below `total` into four, fastest first.
struct Order {
  Divisor32 by[3];
  int32_t total;
};
struct Parts {
  int at[4];
};
__device__ __forceinline__ Parts parts_of(const Order& order, int e) {
  Parts result;
#pragma unroll
  for (int i = 0; i < 3; ++i) e = order.by[i].divide(e, &result.at[i]);
  result.at[3] = e;
  return result;
}

// A box of cells of a tensor, as it lies in shared memory. Neighbours move in pieces of up to 16 bytes: along rows, or
// along channels where those are last.
struct Box {
  int32_t size[kMaxSpatial];   // of the tensor's planes
  int32_t count[kMaxSpatial];  // of the box
  int32_t pitch[kMaxSpatial], plane;
  int32_t planes, piece;
  bool channels_last;
  Order order;  // of its pieces
};

struct Cell {
  int plane, at[kMaxSpatial];
};
// `unit`: of the fastest part.
__device__ __forceinline__ Cell cell_of(const Order& order, bool channels_last, int e, int unit) {
  const Parts p = parts_of(order, e);
  if (channels_last) return {p.at[0] * unit, {p.at[3], p.at[2], p.at[1]}};
  return {p.at[3], {p.at[2], p.at[1], p.at[0] * unit}};
}
__device__ __forceinline__ int place_of(const Box& box, const Cell& cell) {
  return cell.plane * box.plane + cell.at[0] * box.pitch[0] + cell.at[1] * box.pitch[1] + cell.at[2] * box.pitch[2];
}

template <int piece, class T>
__device__ __forceinline__ void copy_piece(T* to, const T* from, bool valid) {
  constexpr int bytes = piece * static_cast<int>(sizeof(T));
  if constexpr (bytes >= 4)
    copy_async<bytes>(to, from, valid);
  else
    *to = valid ? *from : T{};
}

template <int piece, class T>
__device__ __forceinline__ void load_pieces(const Box& box, T* to, const T* from, int64_t pixel,
                                            const int32_t (&start)[kMaxSpatial], const int64_t* planes, int64_t shift) {
  for (int e = static_cast<int>(threadIdx.x); e < box.order.total; e += kTileThreads) {
    const Cell cell = cell_of(box.order, box.channels_last, e, piece);
    const int a0 = start[0] + cell.at[0], a1 = start[1] + cell.at[1], a2 = start[2] + cell.at[2];
    const int64_t plane = planes[cell.plane];
    const bool there =
        plane >= 0 && a0 >= 0 && a0 < box.size[0] && a1 >= 0 && a1 < box.size[1] && a2 >= 0 && a2 < box.size[2];
    const int64_t at = there ? plane + shift + ((int64_t{a0} * box.size[1] + a1) * box.size[2] + a2) * pixel : 0;
    copy_piece<piece>(to + place_of(box, cell), from + at, there);
  }
}

// Starts to copy the box whose first cell is `start`; zeros where the tensor has none. planes[j] + shift is where plane
// j begins in the tensor; negative: there is none.
template <class T>
__device__ __forceinline__ void load_box(const Box& box, T* to, const T* from, int64_t pixel,
                                         const int32_t (&start)[kMaxSpatial], const int64_t* planes, int64_t shift) {
  constexpr int kMost = 16 / static_cast<int>(sizeof(T));
  if (box.piece == kMost)
    load_pieces<kMost>(box, to, from, pixel, start, planes, shift);
  else if (kMost > 2 && box.piece == kMost / 2)
    load_pieces<(kMost > 2 ? kMost / 2 : 1)>(box, to, from, pixel, start, planes, shift);
  else if (kMost > 4 && box.piece == kMost / 4)
    load_pieces<(kMost > 4 ? kMost / 4 : 1)>(box, to, from, pixel, start, planes, shift);
  else
    load_pieces<1>(box, to, from, pixel, start, planes, shift);
}

// How outputs read the source along an axis: tap t of output o lies at o * stride + t * dilation - pad; backward-data
// of stride 1 is put into this form by turned filters. Backward-data of other strides is `scattered`: cell o of the
// source (of y) is read by output o * stride + t * dilation - pad.
struct TileAxis {
  int32_t dest, source, taps, stride, dilation, pad;
  int32_t tile, tiles;            // outputs of a tile along the axis; how many there are
  int32_t dest_first, dest_step;  // where output o lies in the tensor: dest_first + o * dest_step
  // Scattered: the taps that meet an output are `tap_step` apart, the cells that they read `source_step`.
  // `common` divides stride and dilation, `inverse` is 1 / (dilation / common) modulo tap_step, and the taps reach back
  // over at most `before` strides.
  int32_t tap_step, source_step, common, inverse, before;
  Divisor32 by_stride, by_common, by_step;
};

struct Tile {
  bool channels_last, backward, scattered;
  int32_t planes, multiplier, terms;  // `terms` source channels are summed
  int32_t unit_w, unit_h, unit_planes;
  int32_t stage_at, weights_at;  // bytes
  int32_t weight_plane, weight_row, weight_tap, taps;
  int32_t lead;  // cells before those that the first output of a row reads
  TileAxis axis[kMaxSpatial];
  Box source, dest;
  Order items;  // of what a thread computes together
  int64_t dest_channels, dest_planes, blocks;
  Divisor by_tiles[kMaxSpatial], by_channels;  // of channels first; last: blocks of channels
  Divisor32 by_multiplier, by_taps, by_row;
};

template <int bytes>
struct TileMemory {
  alignas(16) unsigned char arena[bytes];
  int64_t source[kTilePlanes], dest[kTilePlanes];  // where planes begin; negative: none
  int32_t channel[kTilePlanes];                    // of the tensor written

  template <class U>
  __device__ __forceinline__ U* at(int offset) {
    return reinterpret_cast<U*>(arena + offset);
  }
};

struct TilePlace {
  int32_t dest[kMaxSpatial], source[kMaxSpatial];  // first output, first cell of the box
};

// Where tile `index` of the axes lies, and the rest: the group of planes.
__device__ __forceinline__ int64_t tile_place(const Tile& g, int64_t index, TilePlace* place) {
#pragma unroll
  for (int i = kMaxSpatial - 1; i >= 0; --i) {
    int64_t tile;
    index = g.by_tiles[i].divide(index, &tile);
    const TileAxis& a = g.axis[i];
    const int first = static_cast<int>(tile) * a.tile;
    place->dest[i] = first;
    if (g.scattered)  // rounded down
      place->source[i] =
          a.by_stride.quotient(first + a.pad - (a.taps - 1) * a.dilation + a.before * a.stride) - a.before;
    else
      place->source[i] = first * a.stride - a.pad;
  }
  place->source[2] -= g.lead;
  return index;
}

// Of a filter's gradient: the boxes of x and of y whose planes are listed, loaded when this returns.
template <class T, class Memory>
__device__ __forceinline__ void load_boxes(const Tile& g, const Conv<T>& c, const TilePlace& place, Memory& s, T* x,
                                           T* y) {
  sync();
  load_box(g.source, x, c.x, c.xs.pixel, place.source, s.source, 0);
  load_box(g.dest, y, c.y, c.ys.pixel, place.dest, s.dest, 0);
  copy_async_commit();
  copy_async_wait<0>();
  sync();
}

// Writes the tables of the group's planes; a barrier must follow.
template <class T, class Memory>
__device__ __forceinline__ void list_planes(const Tile& g, const Conv<T>& c, int64_t group, Memory& s) {
  const Image& from = g.backward ? c.ys : c.xs;
  const Image& to = g.backward ? c.xs : c.ys;
  for (int j = static_cast<int>(threadIdx.x); j < g.planes; j += kTileThreads) {
    int64_t n, channel, block;
    bool there;
    if (g.channels_last) {
      n = g.by_channels.divide(group, &block);
      channel = block * g.planes + j;
      there = channel < g.dest_channels;
    } else {
      const int64_t flat = group * g.planes + j;
      n = g.by_channels.divide(flat, &channel);
      there = flat < g.dest_planes;
    }
    int64_t read = channel;
    if (g.multiplier > 1)
      read = g.backward ? channel * g.multiplier : g.by_multiplier.quotient(static_cast<int>(channel));
    s.channel[j] = static_cast<int32_t>(channel);
    s.source[j] = there ? n * from.batch + read * from.channel : -1;
    s.dest[j] = there ? n * to.batch + channel * to.channel : -1;
  }
}

// The planes' filters, turned for backward-data that is not scattered.
template <class T, class Memory>
__device__ __forceinline__ void load_weights(const Tile& g, const Conv<T>& c, int term, Memory& s, Sum<T>* to) {
  const int count = g.planes * g.taps;
  for (int e = static_cast<int>(threadIdx.x); e < count; e += kTileThreads) {
    int tap, column;
    const int j = g.by_taps.divide(e, &tap);
    const int row = g.by_row.divide(tap, &column);
    Sum<T> value = 0;
    if (s.dest[j] >= 0) {
      const int64_t filter = g.backward ? int64_t{s.channel[j]} * g.multiplier + term : s.channel[j];
      const int from = g.backward && !g.scattered ? g.taps - 1 - tap : tap;
      value = widen(c.w[filter * g.taps + from]);
    }
    to[j * g.weight_plane + row * g.weight_row + column * g.weight_tap] = value;
  }
}

// Puts a finished stage of sums into the tensor that the pass writes.
template <class T, class Memory>
__device__ __forceinline__ void store_tile(const Tile& g, const Conv<T>& c, const TilePlace& place, Memory& s,
                                           Sum<T>* stage) {
  constexpr int kMost = 16 / static_cast<int>(sizeof(T)), kRead = 16 / static_cast<int>(sizeof(Sum<T>));
  const Box& box = g.dest;
  T* to = g.backward ? c.x : c.y;
  const int64_t pixel = g.backward ? c.xs.pixel : c.ys.pixel;
  const bool plain = !c.bias && !c.residual && c.p.activation == Activation::kNone;
  for (int e = static_cast<int>(threadIdx.x); e < box.order.total; e += kTileThreads) {
    const Cell cell = cell_of(box.order, box.channels_last, e, box.piece);
    const int a0 = g.axis[0].dest_first + (place.dest[0] + cell.at[0]) * g.axis[0].dest_step;
    const int a1 = g.axis[1].dest_first + (place.dest[1] + cell.at[1]) * g.axis[1].dest_step;
    const int a2 = g.axis[2].dest_first + (place.dest[2] + cell.at[2]) * g.axis[2].dest_step;
    const int64_t plane = s.dest[cell.plane];
    if (plane < 0 || a0 >= box.size[0] || a1 >= box.size[1] || a2 >= box.size[2]) continue;
    const int64_t at = plane + ((int64_t{a0} * box.size[1] + a1) * box.size[2] + a2) * pixel;
    Sum<T>* sums = stage + place_of(box, cell);
    if (!plain)
#pragma unroll 1
      for (int i = 0; i < box.piece; ++i)
        sums[i] = finished(c, at + i, s.channel[cell.plane + (box.channels_last ? i : 0)], sums[i]);
    if (box.piece == kMost) {
      Vector<T, kMost> values;
#pragma unroll
      for (int i = 0; i < kMost; i += kRead) {
        const auto read = load<kRead>(sums + i);
#pragma unroll
        for (int k = 0; k < kRead; ++k) values.at[i + k] = narrowed<T>(read.at[k]);
      }
      store(to + at, values);
    } else {
      to[at] = narrowed<T>(sums[0]);
    }
  }
}

}  // namespace fastconv::cuda
