// SPDX-License-Identifier: Apache-2.0
// Products on the tensor cores of operands that lie in the halo of a tile in shared memory: what the kernels of few
// channels share, grouped_tensor* and implicit_gemm_stem*. Their rows and depth are places in the halo, through tables.
#pragma once

#include "products.cuh"
#include "tile_plan.h"

namespace fastconv::cuda {

// Four blocks for each multiprocessor of sm_90, three of sm_80.
constexpr int kTensorArena = 44 << 10;
typedef TileMemory<kTensorArena> TensorMemory;

constexpr int kTensorWarps = kTileThreads / kWarp;
constexpr int kQuad = 4;         // elements of the depth that a thread holds of a row
constexpr int kTensorStep = 16;  // of the depth

// What estimates count: bytes that move, and multiply-adds of mma.
struct TensorWork {
  double bytes = 0, products = 0;
};

// work(arithmetic) by the dtype; float32 by one product or three.
template <class Work>
int by_arithmetic(DType dtype, bool one_product, const Work& work) {
  if (dtype == DType::kFloat16) return work(HalfProduct());
  if (dtype == DType::kBFloat16) return work(BFloat16Product());
  return one_product ? work(Tf32Product()) : work(StrictProduct());
}

// Four neighbours: as many words as `T` has bytes.
template <class T>
__device__ __forceinline__ Vector<uint32_t, sizeof(T)> load_quad(const T* from) {
  return load<sizeof(T)>(reinterpret_cast<const uint32_t*>(from));
}

template <int down, int across>
using TensorSums = float[down][across][4];

// to += from.
template <int down, int across>
__device__ __forceinline__ void add_sums(TensorSums<down, across>& to, const TensorSums<down, across>& from) {
#pragma unroll
  for (int i = 0; i < down; ++i)
#pragma unroll
    for (int j = 0; j < across; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) to[i][j][e] += from[i][j][e];
}

// sums += the products of a step, of which each thread holds a quad of every row and column. The order of the depth in a
// fragment is free as long as both operands have the same.
template <class A, int down, int across>
__device__ __forceinline__ void multiply_quads(const Vector<uint32_t, sizeof(typename A::T)> (&rows)[down][2],
                                               const Vector<uint32_t, sizeof(typename A::T)> (&columns)[across],
                                               TensorSums<down, across>& sums) {
#pragma unroll
  for (int half = 0; half < static_cast<int>(sizeof(typename A::T)) / 2; ++half) {  // mma of the step
    uint32_t a[down][4], b[(across + 1) / 2][4] = {};
#pragma unroll
    for (int i = 0; i < down; ++i)
#pragma unroll
      for (int k = 0; k < 4; ++k) a[i][k] = rows[i][k % 2].at[half * 2 + k / 2];
#pragma unroll
    for (int j = 0; j < across; ++j)
#pragma unroll
      for (int k = 0; k < 2; ++k) b[j / 2][j % 2 * 2 + k] = columns[j].at[half * 2 + k];
    A::template multiply<down, across>(a, b, sums);
  }
}

// Adds the sums of the warps of a unit, `units` apart, to those of slice 0, in their order.
template <int down, int across>
__device__ __forceinline__ void add_slices(float* of_threads, int units, int slices, int slice,
                                           TensorSums<down, across>& sums) {
  constexpr int kOthers = kTileThreads - kWarp;  // at most, beyond slice 0
  static_assert(down * across * 4 * kOthers * 4 <= kTensorArena);
  const int thread = static_cast<int>(threadIdx.x), distance = units * kWarp;
  sync();
  if (slice > 0) {
#pragma unroll
    for (int i = 0; i < down * across * 4; ++i)
      of_threads[i * kOthers + thread - distance] = sums[i / 4 / across][i / 4 % across][i % 4];
  }
  sync();
  if (slice > 0) return;
#pragma unroll
  for (int i = 0; i < down * across * 4; ++i)
#pragma unroll 1
    for (int k = 0; k < slices - 1; ++k)
      sums[i / 4 / across][i / 4 % across][i % 4] += of_threads[i * kOthers + k * distance + thread];
}

// Where the cells of each output of the tile begin in the box that it reads; below 0: no output.
__device__ __forceinline__ void list_places(const Tile& g, const TilePlace& place, int steps, int32_t* to) {
  for (int e = static_cast<int>(threadIdx.x); e < steps * kTensorStep; e += kTileThreads) {
    const Parts at = parts_of(g.items, e < g.items.total ? e : 0);
    const bool there = e < g.items.total && place.dest[0] + at.at[2] < g.axis[0].dest &&
                       place.dest[1] + at.at[1] < g.axis[1].dest && place.dest[2] + at.at[0] < g.axis[2].dest;
    to[e] = there ? at.at[2] * g.axis[0].stride * g.source.pitch[0] + at.at[1] * g.axis[1].stride * g.source.pitch[1] +
                        at.at[0] * g.axis[2].stride * g.source.pitch[2]
                  : -1;
  }
}

// Puts a warp's sums into the stage of store_tile: rows are outputs of the tile from `row` on, columns planes of the box
// from `plane` on, of which `planes` are left.
template <int down, int across>
__device__ __forceinline__ void put_stage(const Box& box, float* stage, int outputs, int row, int plane, int planes,
                                          const TensorSums<down, across>& sums) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
#pragma unroll
  for (int i = 0; i < down; ++i)
#pragma unroll
    for (int j = 0; j < across; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int at = row + i * 16 + lane / 4 + e / 2 * 8, column = j * 8 + lane % 4 * 2 + e % 2;
        if (at < outputs && column < planes) stage[(plane + column) * box.plane + at * box.pitch[2]] = sums[i][j][e];
      }
}

// An odd number of units: neighbours so far apart lie in different banks.
inline int64_t odd_pitch(int64_t length, int64_t unit) { return (divide_up(length, unit) | 1) * unit; }

// Places in the stage, of which the box of outputs says what it holds; the bytes that it takes. Pairs of columns of 8
// rows lie in different banks.
inline int64_t lay_out_stage(Box* box, int64_t outputs) {
  const int64_t row = box->channels_last ? odd_pitch(box->planes, 8) : 1;
  const int64_t plane = box->channels_last ? 1 : round_up(outputs, 16) + 4;
  box->plane = narrow_int(plane), box->pitch[2] = narrow_int(row);
  box->pitch[1] = box->count[2] * box->pitch[2], box->pitch[0] = box->count[1] * box->pitch[1];
  return (box->channels_last ? outputs * row : box->planes * plane) * 4;
}

}  // namespace fastconv::cuda
