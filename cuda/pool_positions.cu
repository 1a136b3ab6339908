// SPDX-License-Identifier: Apache-2.0
// Values put to the positions that a max pooling gave, added in ascending order over zeros; positions outside the plane
// are skipped.
//
// A warp owns a piece of a plane that fits into shared memory, of channels last of 32 neighbouring channels, a lane each.
// It walks along all outputs of the plane and skips what lies in other pieces, so that each piece reads the positions
// once. Channels first the lanes take 32 outputs at a time; of those that name the same cell the first lane adds them
// all, in the order of lanes.
#include "pool.cuh"
#include "registry.h"

namespace fastconv::cuda {
namespace {

constexpr int kPieceBytes = 32 << 10;
template <class T>
inline constexpr int kPieceSums = kPieceBytes / static_cast<int>(sizeof(Sum<T>));

template <class T>
struct Piece {
  Sum<T> sums[kPieceSums<T>];
};

struct Positions {
  int64_t items, pixels, outputs, channels;
  int64_t piece;                   // pixels of one piece, but for the last
  Divisor by_pieces, by_channels;  // channels last: by groups of kWarp channels
};

// One warp a block. The next 32 outputs are on their way while these are added.
template <class T>
__global__ void __launch_bounds__(kWarp)
    scatter_planes(Positions p, const T* values, const int64_t* indices, T* to_plane) {
  Piece<T>& s = shared<Piece<T>>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    int64_t piece;
    const int64_t plane = p.by_pieces.divide(item, &piece), begin = piece * p.piece;
    const int cells = static_cast<int>(p.pixels - begin < p.piece ? p.pixels - begin : p.piece);
    for (int i = lane; i < cells; i += kWarp) s.sums[i] = 0;
    sync_warp();
    const int64_t first = plane * p.outputs;
    int64_t index = lane < p.outputs ? indices[first + lane] : -1;
    T value = lane < p.outputs ? values[first + lane] : narrowed<T>(0);
    for (int64_t i = 0; i < p.outputs; i += kWarp) {
      const int64_t below = index - begin;
      const int cell = below >= 0 && below < cells ? static_cast<int>(below) : -1;
      const Sum<T> mine = widen(value);
      const int64_t next = i + kWarp + lane;
      index = next < p.outputs ? indices[first + next] : -1;
      value = next < p.outputs ? values[first + next] : narrowed<T>(0);
      Sum<T> sum = cell >= 0 ? s.sums[cell] : 0;
      bool leads = cell >= 0;
#pragma unroll 8
      for (int other = 0; other < kWarp; ++other) {
        const int named = shuffle(cell, other);
        const Sum<T> added = shuffle(mine, other);
        if (named != cell) continue;
        leads = leads && other >= lane;
        sum += added;
      }
      sync_warp();
      if (leads) s.sums[cell] = sum;
      sync_warp();
    }
    T* const to = to_plane + plane * p.pixels + begin;
    for (int i = lane; i < cells; i += kWarp) to[i] = narrowed<T>(s.sums[i]);
    sync_warp();
  }
}

template <class T>
__global__ void __launch_bounds__(kWarp)
    scatter_pixels(Positions p, const T* values, const int64_t* indices, T* to_plane) {
  constexpr int ahead = 8;  // outputs whose positions are read before they are looked at
  Piece<T>& s = shared<Piece<T>>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int64_t item = blockIdx.x; item < p.items; item += gridDim.x) {
    int64_t piece, group;
    const int64_t n = p.by_channels.divide(p.by_pieces.divide(item, &piece), &group), begin = piece * p.piece;
    const int cells = static_cast<int>(p.pixels - begin < p.piece ? p.pixels - begin : p.piece);
    const int64_t channel = group * kWarp + lane;
    if (channel >= p.channels) continue;  // lanes work alone
    for (int i = 0; i < cells; ++i) s.sums[i * kWarp + lane] = 0;
    const int64_t y = n * p.outputs * p.channels + channel;
    for (int64_t first = 0; first < p.outputs; first += ahead) {
      int cell[ahead];
      T value[ahead];
#pragma unroll
      for (int u = 0; u < ahead; ++u) {
        const int64_t below = first + u < p.outputs ? indices[y + (first + u) * p.channels] - begin : -1;
        cell[u] = below >= 0 && below < cells ? static_cast<int>(below) : -1;
      }
#pragma unroll
      for (int u = 0; u < ahead; ++u) value[u] = cell[u] >= 0 ? values[y + (first + u) * p.channels] : narrowed<T>(0);
#pragma unroll
      for (int u = 0; u < ahead; ++u)
        if (cell[u] >= 0) s.sums[cell[u] * kWarp + lane] += widen(value[u]);
    }
    T* const to = to_plane + (n * p.pixels + begin) * p.channels + channel;
    for (int i = 0; i < cells; ++i) to[i * p.channels] = narrowed<T>(s.sums[i * kWarp + lane]);
  }
}

}  // namespace

int scatter_positions(const PositionContext* context) {
  const PositionContext& c = *context;
  if (c.n == 0 || c.c == 0 || c.pixels == 0) return 0;
  RunContext run{};
  run.machine = c.machine, run.stream = c.stream, run.error = c.error;
  return by_dtype(c.dtype, [&](auto type) {
    typedef decltype(type) T;
    const int64_t most = kPieceSums<T> / (c.channels_last ? kWarp : 1), pieces = divide_up(c.pixels, most);
    const int64_t groups = c.channels_last ? divide_up(c.c, kWarp) : c.c;
    const Positions p = {c.n * groups * pieces,       c.pixels,        c.outputs,      c.c,
                         divide_up(c.pixels, pieces), Divisor(pieces), Divisor(groups)};
    return launch(run, c.channels_last ? scatter_pixels<T> : scatter_planes<T>, grid_of(p.items, 1), kWarp,
                  sizeof(Piece<T>), p, static_cast<const T*>(c.values), c.indices, static_cast<T*>(c.plane));
  });
}

}  // namespace fastconv::cuda
