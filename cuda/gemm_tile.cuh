// SPDX-License-Identifier: Apache-2.0
// The kernel of gemm.cuh. A block computes a tile of c: it keeps slabs of kSlab positions of the depth in shared memory,
// two of them, so that the next one is on its way while one is multiplied; a thread keeps tm x tn sums in registers.
#pragma once

#include <limits>

#include "gemm.cuh"

namespace fastconv::cuda {

constexpr int kSlab = 8;

// A tile of warps_m x warps_n warps; a warp is 4 x 8 threads, of tm x tn sums each. Sums of a thread come in groups of
// 16 bytes, between which those of its neighbours lie: what a warp reads at once is then without gaps.
template <class T, class Offset, int warps_m, int warps_n, int tm, int tn>
struct Tile {
  typedef T Element;
  typedef Offset Place;  // of elements, from the first one of a slab
  typedef Sum<T> S;
  static constexpr int kGroup = 16 / sizeof(S);
  static constexpr int kThreads = warps_m * warps_n * kWarp;
  static constexpr int kM = warps_m * 4 * tm, kN = warps_n * 8 * tn, kTm = tm, kTn = tn, kWarpsN = warps_n;
  // 16 bytes more for a row: columns of 4 and rows of 8 are then stored without bank conflicts.
  struct Smem {
    alignas(16) S a[2][kSlab][kM + kGroup];
    alignas(16) S b[2][kSlab][kN + kGroup];
  };
};

template <class T>
struct GemmLaunch {
  Gemm<T> g;
  int64_t first_block, slabs, slabs_of_split;
  Divisor slabs_of_run, fast_tiles, slow_tiles, splits;
  bool rows_fast;  // neighbouring blocks differ in their rows
};

// Brings the slab of one operand: each thread kCount elements of it.
template <class T, class Offset, int lines, int threads>
struct Loader {
  static constexpr int kCount = lines * kSlab / threads;
  static constexpr int kWide = 16 / sizeof(T) < 4 ? 16 / sizeof(T) : 4;
  static constexpr int kVector = kCount < kWide ? kCount : kWide, kVectors = kCount / kVector;
  static constexpr int kLineStep = threads / kSlab;
  static_assert(kCount >= 2 && kCount <= kSlab);

  static constexpr Offset kAbsent = std::numeric_limits<Offset>::min();

  Offset at[kCount];  // of vectors or elements, from the first line where the slab begins
  int line, k;        // of the first element
  T staged[kCount];

  // Returns where the first line begins.
  __device__ __forceinline__ const T* start(const Operand<T>& o, const T* data, int64_t first, int64_t extent) {
    const int thread = static_cast<int>(threadIdx.x);
    if (o.wide) {
      constexpr int of_depth = kSlab / kCount, of_lines = lines / kCount;
      k = o.deep ? thread % of_depth * kCount : thread / of_lines;
      line = o.deep ? thread / of_depth : thread % of_lines * kCount;
    } else {
      k = o.deep ? thread % kSlab : thread / kLineStep;
      line = o.deep ? thread / kSlab : thread % kLineStep;
    }
    const int64_t begin = o.lines.at(first);
    const int per_line = o.wide ? (o.deep ? 0 : kVector) : kLineStep, per_k = o.wide && o.deep ? kVector : 0;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int64_t position = first + line + i * per_line;
      at[i] =
          position < extent ? static_cast<Offset>(o.lines.at(position) - begin + (k + i * per_k) * o.step) : kAbsent;
    }
    return data + begin;
  }
  // `left`: positions of the depth from where the slab begins.
  __device__ __forceinline__ void load_slab(const Operand<T>& o, const T* from, int64_t left) {
    if (o.wide) {
      const int per_k = o.deep ? kVector : 0;
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        Vector<T, kVector> v{};
        if (at[i] != kAbsent && k + i * per_k < left) v = load<kVector>(from + at[i]);
#pragma unroll
        for (int e = 0; e < kVector; ++e) staged[i * kVector + e] = v.at[e];
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) staged[i] = at[i] != kAbsent && k < left ? from[at[i]] : T{};
    }
  }
  template <int pitch>
  __device__ __forceinline__ void store_slab(const Operand<T>& o, Sum<T> (*panel)[pitch]) const {
    if (o.wide && o.deep) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) panel[k + i][line] = widen(staged[i]);
    } else if (o.wide) {
      constexpr int at_once = kCount < static_cast<int>(16 / sizeof(Sum<T>)) ? kCount : 16 / sizeof(Sum<T>);
#pragma unroll
      for (int i = 0; i < kCount; i += at_once) {
        Vector<Sum<T>, at_once> v;
#pragma unroll
        for (int e = 0; e < at_once; ++e) v.at[e] = widen(staged[i + e]);
        store(&panel[k][line + i], v);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) panel[k][line + i * kLineStep] = widen(staged[i]);
    }
  }
};

// Writes the sums of a thread. The rows are moved up one by one, so that registers are named by constants and the code of
// the activations is there once.
template <class Tile, class T>
__device__ __forceinline__ void write_tile(const Gemm<T>& g, Sum<T> (&sums)[Tile::kTm][Tile::kTn], int64_t first_m,
                                           int64_t first_n, int64_t split, int64_t batch) {
  typedef Sum<T> S;
  constexpr int group = Tile::kGroup, tm = Tile::kTm, tn = Tile::kTn;
  const Output<T>& c = g.c;
  const int64_t pitch = gemm_pitch<T>(g.n);
  S* partial = g.partial ? g.partial + (split * g.batches + batch) * g.m * pitch : nullptr;
  const T* bias = c.bias ? c.bias + c.bias_batch * batch : nullptr;
  int64_t at[tn];
#pragma unroll
  for (int j = 0; j < tn; ++j) {
    const int64_t column = first_n + j / group * (8 * group) + j % group;
    at[j] = column < g.n ? (partial ? column : c.columns.at(column)) : -1;
  }
#pragma unroll 1
  for (int i = 0; i < tm; ++i) {
    const int64_t row = first_m + i / group * (4 * group) + i % group;
    if (row < g.m && partial) {
      S* to = partial + row * pitch;
#pragma unroll
      for (int j = 0; j < tn; j += group) {
        if (at[j] < 0) continue;
        Vector<S, group> v{};  // a row's pitch has room for the whole of its last vector
        if (g.added) v = load<group>(to + at[j]);
#pragma unroll
        for (int e = 0; e < group; ++e) v.at[e] += sums[0][j + e];
        store(to + at[j], v);
      }
    } else if (row < g.m) {
      const int64_t from = c.batch * batch + c.rows.at(row);
      if (bias) {
        const S of_row = c.bias_of_rows ? widen(bias[row]) : S(0);
#pragma unroll
        for (int j = 0; j < tn; ++j)
          if (at[j] >= 0)
            sums[0][j] += c.bias_of_rows ? of_row : widen(bias[first_n + j / group * (8 * group) + j % group]);
      }
      if (c.residual) {
#pragma unroll
        for (int j = 0; j < tn; ++j)
          if (at[j] >= 0) sums[0][j] += widen(c.residual[from + at[j]]);
      }
      if (c.activation != Activation::kNone) {
#pragma unroll 1
        for (int round = 0; round < tn; ++round) {
          const S value = activate(sums[0][0], c.activation, c.alpha);
#pragma unroll
          for (int j = 0; j + 1 < tn; ++j) sums[0][j] = sums[0][j + 1];
          sums[0][tn - 1] = value;
        }
      }
#pragma unroll
      for (int j = 0; j < tn; j += group) {
        if (c.wide) {
          Vector<T, group> v;
#pragma unroll
          for (int e = 0; e < group; ++e) v.at[e] = narrowed<T>(sums[0][j + e]);
          if (at[j] >= 0) store(c.data + from + at[j], v);
        } else {
#pragma unroll
          for (int e = 0; e < group; ++e)
            if (at[j + e] >= 0) c.data[from + at[j + e]] = narrowed<T>(sums[0][j + e]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r + 1 < tm; ++r)
#pragma unroll
      for (int j = 0; j < tn; ++j) sums[r][j] = sums[r + 1][j];
  }
}

template <class Tile, int blocks_at_once>
__global__ void __launch_bounds__(Tile::kThreads, blocks_at_once) gemm_tile(GemmLaunch<typename Tile::Element> l) {
  typedef typename Tile::Element T;
  typedef Sum<T> S;
  constexpr int group = Tile::kGroup, tm = Tile::kTm, tn = Tile::kTn;
  auto& s = shared<typename Tile::Smem>();
  const Gemm<T>& g = l.g;

  int64_t fast, slow, split;
  int64_t batch = l.fast_tiles.divide(l.first_block + blockIdx.x, &fast);
  batch = l.slow_tiles.divide(batch, &slow);
  batch = l.splits.divide(batch, &split);
  const int64_t tile_m = (l.rows_fast ? fast : slow) * Tile::kM, tile_n = (l.rows_fast ? slow : fast) * Tile::kN;

  typedef typename Tile::Place Place;
  Loader<T, Place, Tile::kM, Tile::kThreads> of_a;
  Loader<T, Place, Tile::kN, Tile::kThreads> of_b;
  const T* a = of_a.start(g.a, g.a.data + g.a.batch * batch, tile_m, g.m);
  const T* b = of_b.start(g.b, g.b.data + g.b.batch * batch, tile_n, g.n);
  const int64_t slab = split * l.slabs_of_split;
  const int64_t present = l.slabs - slab < l.slabs_of_split ? l.slabs - slab : l.slabs_of_split;
  int64_t run, done;
  run = l.slabs_of_run.divide(slab, &done);
  done *= kSlab;
  const T* slab_of_a = a + g.a.outer.at(run) + done * g.a.step;
  const T* slab_of_b = b + g.b.outer.at(run) + done * g.b.step;
  const auto load_both = [&] {
    of_a.load_slab(g.a, slab_of_a, g.depth - done);
    of_b.load_slab(g.b, slab_of_b, g.depth - done);
    done += kSlab;
    slab_of_a += kSlab * g.a.step, slab_of_b += kSlab * g.b.step;
    if (done >= g.depth) {
      done = 0, ++run;
      slab_of_a = a + g.a.outer.at(run), slab_of_b = b + g.b.outer.at(run);
    }
  };

  const int warp = static_cast<int>(threadIdx.x) / kWarp, lane = static_cast<int>(threadIdx.x) % kWarp;
  const int my_m = warp / Tile::kWarpsN * (4 * tm) + lane / 8 * group;
  const int my_n = warp % Tile::kWarpsN * (8 * tn) + lane % 8 * group;
  S sums[tm][tn];
#pragma unroll
  for (int i = 0; i < tm; ++i)
#pragma unroll
    for (int j = 0; j < tn; ++j) sums[i][j] = 0;

  if (present > 0) {
    load_both();
    of_a.store_slab(g.a, s.a[0]);
    of_b.store_slab(g.b, s.b[0]);
    sync();
  }
  int now = 0;
  for (int64_t left = present; left > 0; --left, now ^= 1) {
    if (left > 1) load_both();
#pragma unroll
    for (int k = 0; k < kSlab; ++k) {
      S x[tm], y[tn];
#pragma unroll
      for (int i = 0; i < tm; i += group) {
        const auto v = load<group>(&s.a[now][k][my_m + i / group * (4 * group)]);
#pragma unroll
        for (int e = 0; e < group; ++e) x[i + e] = v.at[e];
      }
#pragma unroll
      for (int j = 0; j < tn; j += group) {
        const auto v = load<group>(&s.b[now][k][my_n + j / group * (8 * group)]);
#pragma unroll
        for (int e = 0; e < group; ++e) y[j + e] = v.at[e];
      }
#pragma unroll
      for (int i = 0; i < tm; ++i)
#pragma unroll
        for (int j = 0; j < tn; ++j) sums[i][j] += x[i] * y[j];
    }
    // The other buffer was read last before the barrier that ended the round before.
    if (left > 1) {
      of_a.store_slab(g.a, s.a[now ^ 1]);
      of_b.store_slab(g.b, s.b[now ^ 1]);
    }
    sync();
  }
  write_tile<Tile>(g, sums, tile_m + my_m, tile_n + my_n, split, batch);
}

}  // namespace fastconv::cuda
