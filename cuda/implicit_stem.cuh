// SPDX-License-Identifier: Apache-2.0
// What both passes of implicit_stem.h share: the box of x, and elements gathered from it.
#pragma once

#include "implicit_stem.h"
#include "tensor_tile.cuh"

namespace fastconv::cuda {

constexpr int64_t kStemChannels = 4;

// Cells of x lie plane by plane, whatever the tensor's layout. Bytes that they take.
inline int64_t lay_out_cells(const ConvProblem& p, int64_t element, Tile* g) {
  Box& box = g->source;
  const int64_t piece = 16 / element;
  int64_t cells[kMaxSpatial];
  for (int i = 0; i < kMaxSpatial; ++i) cells[i] = cells_read(g->axis[i], false, g->axis[i].tile);
  box.channels_last = p.x_layout == Layout::kChannelsLast;
  // Rows of planes: the pieces of the tensor begin at pieces of the box.
  g->lead = box.channels_last ? 0 : narrow_int((piece - p.pad_begin[2] % piece) % piece);
  cells[2] = round_up(cells[2] + g->lead, piece);
  for (const int64_t count : cells)
    if (count > kTensorArena) return count;
  for (int i = 0; i < kMaxSpatial; ++i) box.count[i] = narrow_int(cells[i]);
  const int64_t volume = cells[0] * cells[1] * cells[2];
  if (volume > kTensorArena) return volume;
  box.pitch[2] = 1, box.pitch[1] = box.count[2], box.pitch[0] = box.count[1] * box.count[2];
  box.plane = narrow_int(volume), box.planes = narrow_int(p.c);
  return volume * p.c * element;
}

inline void set_axes(const ConvProblem& p, Tile* g) {
  g->taps = narrow_int(taps(p));
  for (int i = 0; i < kMaxSpatial; ++i) {
    g->axis[i] = axis_of(p, i, false);
    g->source.size[i] = g->axis[i].source, g->dest.size[i] = g->axis[i].dest;
  }
  g->dest.channels_last = p.y_layout == Layout::kChannelsLast;
}
inline void set_tiles(const ConvProblem& p, Tile* g) {
  g->blocks = p.n;
  for (int i = 0; i < kMaxSpatial; ++i)
    g->axis[i].tiles = narrow_int(divide_up(g->axis[i].dest, g->axis[i].tile)), g->blocks *= g->axis[i].tiles;
}
inline void set_stem_divisors(Tile* g) {
  for (int i = 0; i < kMaxSpatial; ++i) g->by_tiles[i] = Divisor(g->axis[i].tiles);
  g->items = order_of(g->axis[2].tile, g->axis[1].tile, g->axis[0].tile, 1);
  g->by_taps = Divisor32(g->taps), g->by_row = Divisor32(g->axis[2].taps);
}
template <class T>
void set_cell_pieces(const Conv<T>& c, Tile* g) {
  const TileAxis& row = g->axis[2];
  g->source.piece = g->source.channels_last ? 1
                                            : piece_of(g->source, sizeof(T), c.x, c.xs, 1, int64_t{row.pad} + g->lead,
                                                       int64_t{row.tile} * row.stride);
  g->source.order = order_of(g->source);
}

// Where element `k` of (channel, tap) lies from an output's first cell.
__device__ __forceinline__ int stem_place(const Tile& g, const Divisor32& by_tap_rows, int k) {
  int tap, t1, t2;
  const int channel = g.by_taps.divide(k, &tap), t0 = by_tap_rows.divide(g.by_row.divide(tap, &t2), &t1);
  return channel * g.source.plane + t0 * g.axis[0].dilation * g.source.pitch[0] +
         t1 * g.axis[1].dilation * g.source.pitch[1] + t2 * g.axis[2].dilation + g.lead;
}

__device__ __forceinline__ uint32_t bits_of(float value) { return bits_of_float(value); }
__device__ __forceinline__ uint32_t bits_of(Half value) { return value.bits; }
__device__ __forceinline__ uint32_t bits_of(BFloat16 value) { return value.bits; }

// Four elements as load_quad has them; from[at[e]], or zero where at[e] is below 0.
template <class T>
__device__ __forceinline__ Vector<uint32_t, sizeof(T)> gather_quad(const T* from, const int (&at)[kQuad]) {
  uint32_t bits[kQuad];
#pragma unroll
  for (int e = 0; e < kQuad; ++e) bits[e] = at[e] < 0 ? 0u : bits_of(from[at[e]]);
  Vector<uint32_t, sizeof(T)> quad;
#pragma unroll
  for (int i = 0; i < static_cast<int>(sizeof(T)); ++i)
    quad.at[i] = sizeof(T) == 4 ? bits[i] : bits[i * 2 % kQuad] | bits[(i * 2 + 1) % kQuad] << 16;
  return quad;
}

}  // namespace fastconv::cuda
