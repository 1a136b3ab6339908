// SPDX-License-Identifier: Apache-2.0
// Winograd convolution on the device, in three kernels (winograd.cu): transforms write and read *slabs*, the numbers of
// some tiles at every point, and between them lies a product of matrices for each point and group.
//
// As on the CPU (csrc/algorithms/winograd.h) every problem becomes planes: an image, a depth of it and, of a dilated one, a
// phase on both axes; a plane is an undilated image of tiles, m x m points of the result each. Here all phases have as many
// tiles as the first one; those beyond the last point are computed and not stored.
#pragma once

#include "conv.cuh"
#include "gemm.cuh"
#include "roofline.h"
#include "winograd_transform.cuh"

namespace fastconv::cuda {

constexpr int kWinogradThreads = 128;

struct WinogradTile {
  int64_t image, depth;
  int64_t first[2];  // the coordinates of point (0, 0)
};

struct WinogradTiles {
  Divisor across, down, phase_columns, phase_rows, depths;
  int64_t count;  // of all images
  int64_t m;
  int64_t dilation[2];
  int64_t shift[2];  // from the coordinate of a point to that of its first cell
  int64_t read_size[2], written_size[2];
  bool planes_are_images;

  WinogradTiles(const ConvProblem& p, int tile) : m(tile) {
    const bool forward = p.pass != Pass::kBackwardData;
    int64_t tiles[2];
    for (int i = 0; i < 2; ++i) {
      const int64_t x = p.size[i + 1], y = output_size(p, i + 1);
      dilation[i] = p.dilation[i + 1];
      shift[i] = forward ? -p.pad_begin[i + 1] : p.pad_begin[i + 1] - 2 * dilation[i];
      read_size[i] = forward ? x : y, written_size[i] = forward ? y : x;
      tiles[i] = divide_up(divide_up(written_size[i], dilation[i]), m);
    }
    // Phases beyond the image have no points at all.
    const int64_t phases[2] = {std::min(dilation[0], written_size[0]), std::min(dilation[1], written_size[1])};
    across = Divisor(tiles[1]), down = Divisor(tiles[0]);
    phase_columns = Divisor(phases[1]), phase_rows = Divisor(phases[0]), depths = Divisor(p.size[0]);
    planes_are_images = phases[0] <= 1 && phases[1] <= 1 && p.size[0] == 1;
    count = p.n * p.size[0] * phases[0] * phases[1] * tiles[0] * tiles[1];
  }

  __device__ __forceinline__ WinogradTile tile(int64_t index) const {
    int64_t row, column;
    WinogradTile t;
    t.image = down.divide(across.divide(index, &column), &row);
    t.depth = 0;
    t.first[0] = row * m * dilation[0], t.first[1] = column * m * dilation[1];
    if (!planes_are_images) {
      int64_t phase_row, phase_column;
      const int64_t plane = phase_rows.divide(phase_columns.divide(t.image, &phase_column), &phase_row);
      t.image = depths.divide(plane, &t.depth);
      t.first[0] += phase_row, t.first[1] += phase_column;
    }
    return t;
  }
  // How many points of the tile lie in the plane, along an axis.
  __device__ __forceinline__ int points(const WinogradTile& t, int axis) const {
    int inside = 0;
    for (int64_t at = t.first[axis]; inside < m && at < written_size[axis]; at += dilation[axis]) ++inside;
    return inside;
  }
};

// The numbers of a slab: [group][point][channel][tile], or [tile][channel] where pixels are stored, so that neighbouring
// threads meet neighbours in the tensor and here. A row begins at a multiple of 16 bytes; `tiles` is a multiple of 4.
struct WinogradSlab {
  float* at = nullptr;
  Divisor members, inner;
  int64_t tiles, channels, groups, points;
  int64_t row;                  // elements from a row to the next
  int64_t point;                // from a point to the next
  int64_t first = 0, end = 0;   // the tiles
  int64_t used = 0, items = 0;  // tiles and zeros; times channels
  bool channels_last;

  // Room for so many tiles; `channels` are those of all groups.
  WinogradSlab(Layout layout, int64_t channel_count, int64_t group_count, int64_t point_count, int64_t tile_count)
      : members(channel_count / group_count),
        tiles(tile_count),
        channels(channel_count),
        groups(group_count),
        points(point_count),
        channels_last(layout == Layout::kChannelsLast) {
    row = round_up(channels_last ? group_channels() : tiles, 4);
    point = row * (channels_last ? tiles : group_channels());
  }
  int64_t group_channels() const { return channels / groups; }
  int64_t elements() const { return groups * points * point; }
  // The same room for tiles [from, to) and zeros, so that products take them in vectors of 4.
  WinogradSlab slice(int64_t from, int64_t to) const {
    WinogradSlab s = *this;
    s.first = from, s.end = to, s.used = round_up(to - from, 4);
    s.items = s.used * channels;
    s.inner = Divisor(channels_last ? channels : s.used);
    return s;
  }
  int64_t channel_step() const { return channels_last ? 1 : row; }
  int64_t tile_step() const { return channels_last ? row : 1; }

  struct Place {
    int64_t tile, channel;
    float* at;  // of point 0
  };
  __device__ __forceinline__ Place place(int64_t item) const {
    Place p;
    int64_t tile, group = 0, member;
    if (channels_last)
      tile = inner.divide(item, &p.channel);
    else
      p.channel = inner.divide(item, &tile);
    p.tile = first + tile;
    member = p.channel;
    if (groups > 1) group = members.divide(p.channel, &member);
    p.at = at + group * points * point + (channels_last ? tile * row + member : member * row + tile);
    return p;
  }
};

// Transformed filters, or the sums of their gradients: [group][point][k][c] with gemm's pitch.
struct WinogradFilters {
  float* at = nullptr;
  int64_t points, k, c;  // k: of all groups, c: of one
  Divisor group_k, columns;
  int64_t row;    // elements from a row of c to the next
  int64_t point;  // from a point to the next

  WinogradFilters(const ConvProblem& p, int64_t point_count)
      : points(point_count), k(p.k), c(p.c / p.groups), group_k(p.k / p.groups), columns(c) {
    row = gemm_pitch<float>(c);
    point = p.k / p.groups * row;
  }
  int64_t elements() const { return points * k * row; }
  // Point 0 of item k * c + column.
  __device__ __forceinline__ int64_t place(int64_t item) const {
    int64_t column, member;
    const int64_t group = group_k.divide(columns.divide(item, &column), &member);
    return group * points * point + member * row + column;
  }
};

inline Grid winograd_grid(int64_t items) { return Grid{divide_up(items, kWinogradThreads)}; }

// Each puts one kernel into the stream, `m` being 2 or 4; all numbers of a slab's items are written.
// winograd_input.cu: B^T d B of what the pass reads into `v`; A y A^T into `d`.
int winograd_input(int m, const ConvProblem& p, const RunContext& r, const WinogradTiles& tiles, const WinogradSlab& v);
int winograd_gradient(int m, const ConvProblem& p, const RunContext& r, const WinogradTiles& tiles,
                      const WinogradSlab& d);
// winograd_output.cu: A^T m A, bias, residual and activation to what the pass writes.
int winograd_output(int m, const ConvProblem& p, const RunContext& r, const WinogradTiles& tiles,
                    const WinogradSlab& products);
// winograd_filter.cu: G w G^T, of turned filters for backward-data; and w = G^T u G, or zeros where there is no u.
int winograd_filter(int m, const ConvProblem& p, const RunContext& r, const WinogradFilters& u);
int winograd_filter_gradient(int m, const ConvProblem& p, const RunContext& r, const WinogradFilters& u, bool any);

// Calls work(Form(), T()) with the tile and the type of the elements, which is not double.
template <class Work>
int winograd_by_form(int m, DType dtype, const Work& work) {
  const auto of_type = [&](auto type) { return m == 2 ? work(Winograd2(), type) : work(Winograd4(), type); };
  switch (dtype) {
    case DType::kFloat16:
      return of_type(Half());
    case DType::kBFloat16:
      return of_type(BFloat16());
    default:
      return of_type(float());
  }
}

}  // namespace fastconv::cuda
