// SPDX-License-Identifier: Apache-2.0
// Chooses the tiles of tile.cuh on the host, from the problem alone.
#pragma once

#include <algorithm>
#include <cstdio>

#include "roofline.h"
#include "tile.cuh"

namespace fastconv::cuda {

// What a kernel needs of its tile.
struct TileWish {
  int64_t arena;                        // bytes of shared memory
  int32_t unit_w, unit_h, unit_planes;  // that a thread computes together
  int64_t most_items;                   // of a block; 0: any number
  bool stage_over_cells;                // the sums are put where the cells were
  bool windows;                         // rows of cells and of weights are read 4 at a time
  bool scattered;                       // backward-data of strides
  bool no_weights;                      // backward-filter; its stage is of y
  int32_t most_planes;                  // 0: kTilePlanes
  int32_t lead;
  int32_t element, sum;  // bytes
};

inline int32_t narrow_int(int64_t value) { return static_cast<int32_t>(value); }

inline Order order_of(int64_t a, int64_t b, int64_t c, int64_t d) {
  return {{Divisor32(a), Divisor32(b), Divisor32(c)}, narrow_int(a * b * c * d)};
}
inline Order order_of(const Box& box) {
  if (box.channels_last) return order_of(box.planes / box.piece, box.count[2], box.count[1], box.count[0]);
  return order_of(box.count[2] / box.piece, box.count[1], box.count[0], box.planes);
}

// What tiles refuse whatever the kernel is.
inline void tile_why_not(const char* name, const ConvProblem& p, char* text) {
  if (p.padding_mode != PaddingMode::kZeros)
    snprintf(text, kTextCapacity, "%s needs padding of zeros, got %s", name, name_of(p.padding_mode));
  else if (p.x_layout != p.y_layout)
    snprintf(text, kTextCapacity, "%s needs x and y in one layout, got %s and %s", name, name_of(p.x_layout),
             name_of(p.y_layout));
  else if (p.c >= kLongestAxis || p.k >= kLongestAxis)
    snprintf(text, kTextCapacity, "%s needs fewer than 2^29 channels, got %lld", name,
             static_cast<long long>(std::max(p.c, p.k)));
  else if (taps(p) >= 1 << 20)
    snprintf(text, kTextCapacity, "%s needs filters of fewer than 2^20 taps, got %lld", name,
             static_cast<long long>(taps(p)));
  for (int i = 0; i < kMaxSpatial; ++i) {
    const int64_t padded = p.size[i] + p.pad_begin[i] + p.pad_end[i];
    if (!text[0] && std::max(padded, p.filter[i] * p.dilation[i]) >= kLongestAxis)
      snprintf(text, kTextCapacity, "%s needs axes shorter than 2^29, got %lld", name, static_cast<long long>(padded));
    if (!text[0] && p.stride[i] >= 1 << 15)
      snprintf(text, kTextCapacity, "%s needs strides below 2^15, got %lld", name, static_cast<long long>(p.stride[i]));
  }
}

inline int64_t greatest_common(int64_t a, int64_t b) { return b == 0 ? a : greatest_common(b, a % b); }

inline TileAxis axis_of(const ConvProblem& p, int i, bool scattered) {
  TileAxis a{};
  const bool backward = p.pass == Pass::kBackwardData;
  const int64_t out = output_size(p, i), s = p.stride[i], d = p.dilation[i];
  a.dest = narrow_int(backward ? p.size[i] : out), a.source = narrow_int(backward ? out : p.size[i]);
  a.taps = narrow_int(p.filter[i]), a.stride = narrow_int(s), a.dilation = narrow_int(d);
  a.pad = narrow_int(p.pad_begin[i]), a.dest_step = 1;
  if (backward && !scattered) a.pad = narrow_int((p.filter[i] - 1) * d - p.pad_begin[i]);
  const int64_t common = greatest_common(s, d), step = s / common;
  a.tap_step = 1, a.source_step = a.dilation, a.common = narrow_int(common);
  if (scattered) a.tap_step = narrow_int(step), a.source_step = narrow_int(-(d / common));
  while (a.inverse < step - 1 && a.inverse * (d / common) % step != 1) ++a.inverse;
  a.before = narrow_int(divide_up((p.filter[i] - 1) * d, s));
  a.by_stride = Divisor32(s), a.by_common = Divisor32(common), a.by_step = Divisor32(step);
  return a;
}

inline int64_t cells_read(const TileAxis& a, bool scattered, int64_t outputs) {
  const int64_t reach = int64_t{a.taps - 1} * a.dilation;
  return scattered ? (outputs - 1 + reach) / a.stride + 2 : (outputs - 1) * a.stride + reach + 1;
}

// Bytes of shared memory: cells, stage and weights behind each other.
inline int64_t lay_out(const TileWish& wish, Tile* g) {
  int64_t cells[kMaxSpatial], outputs = 1;
  const int64_t piece = 16 / wish.element;
  for (int i = 0; i < kMaxSpatial; ++i)
    cells[i] = cells_read(g->axis[i], wish.scattered, g->axis[i].tile), outputs *= g->axis[i].tile;
  const int64_t row_taps = g->axis[2].taps;
  if (wish.windows) cells[2] = g->axis[2].tile + round_up(row_taps - 1, 4);
  cells[2] += g->lead;
  for (const int64_t count : cells)
    if (count > wish.arena) return count;  // before the product of all three passes 63 bits
  if (!g->channels_last) cells[2] = round_up(cells[2], piece);
  const int64_t volume = cells[0] * cells[1] * cells[2];
  const int64_t row = wish.windows && !g->channels_last ? round_up(row_taps, 4) : row_taps;
  const int64_t weights = g->taps / row_taps * row;
  const int64_t cell_bytes = round_up(volume * g->planes * wish.element, 16);
  const int64_t stage_bytes = round_up(outputs * g->planes * wish.sum, 16);
  const int64_t stage_at = wish.stage_over_cells ? 0 : cell_bytes;
  const int64_t weights_at = std::max(cell_bytes, stage_at + stage_bytes);
  const int64_t bytes = weights_at + (wish.no_weights ? 0 : weights * g->planes * wish.sum);
  if (bytes > wish.arena) return bytes;
  g->stage_at = narrow_int(stage_at), g->weights_at = narrow_int(weights_at);
  const int32_t inner = g->channels_last ? g->planes : 1;
  for (int i = 0; i < kMaxSpatial; ++i) g->source.count[i] = narrow_int(cells[i]), g->dest.count[i] = g->axis[i].tile;
  for (Box* box : {&g->source, &g->dest}) {
    box->pitch[2] = inner, box->pitch[1] = box->count[2] * inner, box->pitch[0] = box->count[1] * box->pitch[1];
    box->plane = g->channels_last ? 1 : box->count[0] * box->pitch[0];
    box->planes = g->planes, box->channels_last = g->channels_last;
  }
  g->weight_tap = inner, g->weight_row = narrow_int(row) * inner;
  g->weight_plane = g->channels_last ? 1 : narrow_int(weights);
  return bytes;
}

// Lengths worth trying of an axis of `size` outputs: it in up to 12 equal parts, and powers of two.
struct TileLengths {
  int32_t at[24], count = 0;
  TileLengths(int64_t size, int64_t unit, int64_t most) {
    for (const int64_t parts : {1, 2, 3, 4, 6, 8, 12}) add(round_up(divide_up(size, parts), unit), most);
    for (int64_t length = unit; length < size; length *= 2) add(length, most);
  }
  void add(int64_t length, int64_t most) {
    if (length > most || count == 24) return;
    for (int i = 0; i < count; ++i)
      if (at[i] == length) return;
    at[count++] = narrow_int(length);
  }
};

constexpr int64_t kMostTileLength = 1024;
constexpr double kBlockOverhead = 4096;    // bytes that could move while a block starts and ends: a guess
constexpr double kBlocksAtOnce = 4 * 132;  // fewer do not fill a large device

// What a tile has of the problem alone.
inline void describe(const ConvProblem& p, bool scattered, Tile* g) {
  *g = Tile{};
  const bool backward = p.pass == Pass::kBackwardData;
  g->channels_last = p.x_layout == Layout::kChannelsLast, g->backward = backward, g->scattered = scattered;
  g->multiplier = narrow_int(p.k / p.c), g->terms = backward ? g->multiplier : 1;
  const bool images = p.pass == Pass::kBackwardFilter && !g->channels_last;  // a block has one channel of several
  g->dest_channels = backward ? p.c : p.k, g->dest_planes = images ? p.n : p.n * g->dest_channels;
  g->taps = narrow_int(taps(p));
  for (int i = 0; i < kMaxSpatial; ++i) {
    g->axis[i] = axis_of(p, i, scattered);
    g->source.size[i] = g->axis[i].source, g->dest.size[i] = g->axis[i].dest;
  }
}
// The divisors, once all sizes are chosen.
inline void set_divisors(Tile* g) {
  for (int i = 0; i < kMaxSpatial; ++i) g->by_tiles[i] = Divisor(std::max(1, g->axis[i].tiles));
  g->by_channels = Divisor(g->channels_last ? divide_up(g->dest_channels, g->planes) : g->dest_channels);
  g->by_multiplier = Divisor32(g->multiplier), g->by_taps = Divisor32(g->taps), g->by_row = Divisor32(g->axis[2].taps);
}

// Chooses tile and planes for the least traffic; false: not even the smallest tile fits. `bytes`, if given, gets what
// all blocks together move.
inline bool plan_tile(const ConvProblem& p, const TileWish& wish, Tile* g, double* bytes = nullptr) {
  describe(p, wish.scattered, g);
  const bool images = p.pass == Pass::kBackwardFilter && !g->channels_last;
  g->unit_w = wish.unit_w, g->unit_h = wish.unit_h, g->unit_planes = wish.unit_planes, g->lead = wish.lead;
  const bool last = g->channels_last;
  const int64_t wide = last ? wish.unit_w : std::max<int64_t>(wish.unit_w, 16 / wish.element);
  const TileLengths ws(g->axis[2].dest, wide, kMostTileLength), hs(g->axis[1].dest, wish.unit_h, kMostTileLength),
      ds(g->axis[0].dest, 1, g->axis[0].dest > 1 ? 8 : 1);
  const int32_t most_planes = wish.most_planes ? wish.most_planes : kTilePlanes;
  Tile best{};
  double least = 0;
  const auto consider = [&](int32_t d, int32_t h, int32_t w, int32_t planes) {
    g->axis[0].tile = d, g->axis[1].tile = h, g->axis[2].tile = w, g->planes = planes;
    const int64_t outputs = int64_t{d} * h * w;
    if (wish.most_items && outputs * planes > wish.most_items * wish.unit_h * wish.unit_w * wish.unit_planes) return;
    if (lay_out(wish, g) > wish.arena) return;
    const int64_t groups = last ? p.n * divide_up(g->dest_channels, planes) : divide_up(g->dest_planes, planes);
    g->blocks = images ? groups * p.k : groups;
    for (int i = 0; i < kMaxSpatial; ++i)
      g->axis[i].tiles = narrow_int(divide_up(g->axis[i].dest, g->axis[i].tile)), g->blocks *= g->axis[i].tiles;
    const double cells = times(g->source.count[0], g->source.count[1], g->source.count[2]);
    // Less than 64 neighbouring bytes move like 64.
    const double waste = last ? std::max(1.0, 64.0 / (planes * wish.element)) : 1;
    const double block =
        kBlockOverhead + waste * planes * wish.element * (cells * g->terms + static_cast<double>(outputs));
    const double cost = block * std::max(static_cast<double>(g->blocks), kBlocksAtOnce);
    if (least == 0 || cost < least) least = cost, best = *g;
  };
  for (int d = 0; d < ds.count; ++d)
    for (int h = 0; h < hs.count; ++h)
      for (int w = 0; w < ws.count; ++w)
        for (int32_t planes = wish.unit_planes; planes <= most_planes; planes *= 2) {
          if (planes > wish.unit_planes &&
              planes / 2 >= (last ? g->dest_channels : std::max<int64_t>(1, g->dest_planes)))
            break;
          consider(ds.at[d], hs.at[h], ws.at[w], planes);
        }
  if (least == 0) return false;
  *g = best;
  set_divisors(g);
  const int64_t row = g->axis[2].tile / wish.unit_w, column = g->axis[1].tile / wish.unit_h;
  g->items = last ? order_of(g->planes / wish.unit_planes, row, column, g->axis[0].tile)
                  : order_of(row, column, g->axis[0].tile, g->planes);
  if (bytes) *bytes = least;
  return true;
}

// The widest pieces in which a box of a tensor can move: its neighbours in memory must be neighbours in the box, and
// both ends aligned. `first`: where the box of tile 0 begins along a row.
inline int32_t piece_of(const Box& box, int64_t element, const void* data, const Image& at, int64_t channels,
                        int64_t first, int64_t tile_step) {
  for (int64_t piece = 16 / element; piece > 1; piece /= 2) {
    const auto whole = [&](int64_t value) { return value % piece == 0; };
    if (!whole(static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) / static_cast<uintptr_t>(element)))) continue;
    if (!whole(at.batch)) continue;
    if (box.channels_last ? whole(at.pixel) && whole(channels) && whole(box.planes)
                          : whole(at.channel) && whole(box.size[2]) && whole(box.count[2]) && whole(first) &&
                                whole(tile_step) && at.pixel == 1)
      return narrow_int(piece);
  }
  return 1;
}

// Fills in how the boxes move; the last step, once the buffers are known.
template <class T>
void set_pieces(const ConvProblem& p, const Conv<T>& c, Tile* g) {
  const bool backward = g->backward;
  const TileAxis& row = g->axis[2];
  const int64_t step = g->scattered ? 1 : int64_t{row.tile} * row.stride;
  g->source.piece = piece_of(g->source, sizeof(T), backward ? c.y : c.x, backward ? c.ys : c.xs, backward ? p.k : p.c,
                             int64_t{row.pad} + g->lead, step);
  if (g->channels_last && g->multiplier > 1) g->source.piece = 1;
  const int32_t most = 16 / static_cast<int32_t>(sizeof(T));
  g->dest.piece =
      piece_of(g->dest, sizeof(T), backward ? c.x : c.y, backward ? c.xs : c.ys, g->dest_channels, 0, row.tile);
  if (g->dest.piece != most) g->dest.piece = 1;
  g->source.order = order_of(g->source), g->dest.order = order_of(g->dest);
}

}  // namespace fastconv::cuda
