// SPDX-License-Identifier: Apache-2.0
// The filter gradient on the tensor cores: rows are filters, columns (tap, channel), and the depth is the pixels of all
// images. Their places are worked out once a step by the first threads and passed on through shared memory.
#pragma once

#include "conv.cuh"
#include "implicit_gemm.h"
#include "implicit_tile.cuh"

namespace fastconv::cuda {

// Each block sums one part. Twice the sums of 3xTF32 leave no registers for 128 x 128 and the copies of both operands.
using LargeFilterTile = TileShape<128, 128, 2, 4, false>;
using LargeStrictFilterTile = TileShape<128, 64, 4, 2, false>;
using SmallFilterTile = TileShape<64, 64, 2, 2, false>;

template <class T>
struct FilterTask {
  Conv<T> c;
  float* partials;  // [part][group][row][column]
  int32_t rows, columns, channels, pixels, part;
  int32_t size[kMaxSpatial], step[kMaxSpatial], pad[kMaxSpatial], dilation[kMaxSpatial];
  int32_t pieces;              // planes: 16 bytes of y's pixels at a time
  Divisor32 image, line, row;  // by out's pixels, out[1] and out[2]
  Divisor32 by_channels, tap_plane, tap_row, by_row_tiles;
};

struct FilterPixel {
  int64_t y, x;                     // offsets; x of its tap 0
  int32_t at[kMaxSpatial], unused;  // kFar: beyond the last
};
struct FilterColumn {
  int64_t offset;
  int32_t by[kMaxSpatial], unused;  // kFar: no column
};
constexpr int32_t kFar = -(1 << 30);

template <class T, class S>
struct FilterMemory {
  TileMemory<S> tile;
  FilterPixel pixels[2][kStepDepth<T>];
  FilterColumn columns[S::kColumns];
};

template <class T>
__device__ __forceinline__ FilterPixel filter_pixel_of(const FilterTask<T>& t, int pixel) {
  FilterPixel result{-1, 0, {kFar, kFar, kFar}, 0};
  if (pixel >= t.pixels) return result;
  int in_image, o[kMaxSpatial];
  const int n = t.image.divide(pixel, &in_image);
  o[0] = t.line.divide(t.row.divide(in_image, &o[2]), &o[1]);
#pragma unroll
  for (int i = 0; i < kMaxSpatial; ++i) result.at[i] = o[i] * t.step[i] - t.pad[i];
  result.y = n * t.c.ys.batch + in_image * t.c.ys.pixel;
  result.x =
      n * t.c.xs.batch + ((int64_t{result.at[0]} * t.size[1] + result.at[1]) * t.size[2] + result.at[2]) * t.c.xs.pixel;
  return result;
}
template <class T>
__device__ __forceinline__ FilterColumn filter_column_of(const FilterTask<T>& t, int column) {
  FilterColumn result{0, {kFar, kFar, kFar}, 0};
  if (column >= t.columns) return result;
  int channel, t1, t2;
  const int t0 = t.tap_plane.divide(t.tap_row.divide(t.by_channels.divide(column, &channel), &t2), &t1);
  result.by[0] = t0 * t.dilation[0], result.by[1] = t1 * t.dilation[1], result.by[2] = t2 * t.dilation[2];
  result.offset = ((int64_t{result.by[0]} * t.size[1] + result.by[1]) * t.size[2] + result.by[2]) * t.c.xs.pixel +
                  channel * t.c.xs.channel;
  return result;
}
__device__ __forceinline__ bool meet(const FilterPixel& pixel, const FilterColumn& column,
                                     const int32_t (&size)[kMaxSpatial]) {
  return static_cast<uint32_t>(pixel.at[0] + column.by[0]) < static_cast<uint32_t>(size[0]) &&
         static_cast<uint32_t>(pixel.at[1] + column.by[1]) < static_cast<uint32_t>(size[1]) &&
         static_cast<uint32_t>(pixel.at[2] + column.by[2]) < static_cast<uint32_t>(size[2]);
}

// `last`: both tensors have 16 bytes of channels in each piece, and their operands are wide. Otherwise they are deep:
// pixels are copied one by one, wherever they lie, those of y 16 bytes at a time where they can be.
template <class A, class S, bool last>
struct FilterLoader {
  typedef typename A::T T;
  static constexpr bool kPrepares = true;
  static constexpr int kE = kPiece<T>, kDepth = kStepDepth<T>;
  static constexpr int kLeft = S::kRows / kE, kRight = S::kColumns / kE;  // pieces of a depth
  static constexpr int kInWord = 4 / static_cast<int>(sizeof(T)), kAtOnce = S::kThreads / kStepWords;
  static constexpr int kLeftWords = S::kRows / kAtOnce, kRightWords = S::kColumns / kAtOnce;
  static_assert(S::kThreads % kLeft == 0 && S::kThreads % kRight == 0);

  const FilterTask<T>& t;
  FilterMemory<T, S>& s;
  const T *y, *x;  // of the group; y of the tile's first row
  int rows;
  FilterColumn column;  // last: of the thread's piece
  Gathered<last || sizeof(T) == 4 ? 1 : kLeftWords * 2> left;
  Gathered<last || sizeof(T) == 4 ? 1 : kRightWords * 2> right;

  __device__ __forceinline__ FilterLoader(const FilterTask<T>& task, FilterMemory<T, S>& memory, int group, int row,
                                          int first_column)
      : t(task), s(memory), rows(task.rows - row) {
    const int thread = static_cast<int>(threadIdx.x);
    y = t.c.y + (int64_t{group} * t.rows + row) * t.c.ys.channel;
    x = t.c.x + int64_t{group} * t.channels * t.c.xs.channel;
    if constexpr (last) {
      column = filter_column_of(t, first_column + thread % kRight * kE);
    } else {
      for (int i = thread; i < S::kColumns; i += S::kThreads) s.columns[i] = filter_column_of(t, first_column + i);
    }
  }

  __device__ __forceinline__ void prepare(int step) {
    const int thread = static_cast<int>(threadIdx.x);
    if (thread < kDepth) s.pixels[step & 1][thread] = filter_pixel_of(t, step * kDepth + thread);
  }

  __device__ __forceinline__ void issue(int step, int stage) {
    if constexpr (last)
      channels_of_pixels(s.pixels[step & 1], stage);
    else
      places_of_planes(s.pixels[step & 1], stage);
  }

  __device__ __forceinline__ void channels_of_pixels(const FilterPixel (&pixels)[kDepth], int stage) {
    const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int i = thread; i < kDepth * kLeft; i += S::kThreads) {
      const int depth = i / kLeft, piece = i % kLeft;
      const int64_t at = pixels[depth].y;
      copy_async<16>(s.tile.stages.a[stage] + wide_piece<T, S::kRows>(depth, piece), y + at + piece * kE,
                     at >= 0 && piece * kE < rows);
    }
#pragma unroll
    for (int i = thread; i < kDepth * kRight; i += S::kThreads) {
      const int depth = i / kRight, piece = i % kRight;
      const FilterPixel pixel = pixels[depth];
      copy_async<16>(s.tile.stages.b[stage] + wide_piece<T, S::kColumns>(depth, piece), x + pixel.x + column.offset,
                     meet(pixel, column, t.size));
    }
  }

  // A word of depth of every kAtOnce-th row and column.
  __device__ __forceinline__ void places_of_planes(const FilterPixel (&pixels)[kDepth], int stage) {
    const int thread = static_cast<int>(threadIdx.x), word = thread % kStepWords, first = thread / kStepWords;
    FilterPixel mine[kInWord];
#pragma unroll
    for (int e = 0; e < kInWord; ++e) mine[e] = pixels[word * kInWord + e];
    if (t.pieces) {
      const int64_t at = pixels[thread % 4 * kE].y;
#pragma unroll
      for (int i = thread; i < S::kRows * 4; i += S::kThreads)
        copy_async<16>(s.tile.stages.a[stage] + deep_piece(i / 4, i % 4), y + at + i / 4 * t.c.ys.channel,
                       at >= 0 && i / 4 < rows);
    } else {
#pragma unroll
      for (int i = 0; i < kLeftWords; ++i) {
        const int r = first + i * kAtOnce;
        const T* from = y + r * t.c.ys.channel;
        if constexpr (sizeof(T) == 4) {
          copy_async<4>(s.tile.stages.a[stage] + deep_piece(r, word / 4) + word % 4, from + mine[0].y,
                        mine[0].y >= 0 && r < rows);
        } else {
#pragma unroll
          for (int e = 0; e < 2; ++e) left.ask(i * 2 + e, from + mine[e].y, mine[e].y >= 0 && r < rows, y);
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kRightWords; ++i) {
      const int at = first + i * kAtOnce;
      const FilterColumn place = s.columns[at];
      const T* from = x + place.offset;
      if constexpr (sizeof(T) == 4) {
        copy_async<4>(s.tile.stages.b[stage] + deep_piece(at, word / 4) + word % 4, from + mine[0].x,
                      meet(mine[0], place, t.size));
      } else {
#pragma unroll
        for (int e = 0; e < 2; ++e) right.ask(i * 2 + e, from + mine[e].x, meet(mine[e], place, t.size), y);
      }
    }
  }

  __device__ __forceinline__ void land(int stage) {
    if constexpr (!last && sizeof(T) == 2) {
      const int thread = static_cast<int>(threadIdx.x), word = thread % kStepWords, first = thread / kStepWords;
      if (!t.pieces) {
#pragma unroll
        for (int i = 0; i < kLeftWords; ++i)
          s.tile.stages.a[stage][deep_piece(first + i * kAtOnce, word / 4) + word % 4] = left.word(i);
      }
#pragma unroll
      for (int i = 0; i < kRightWords; ++i)
        s.tile.stages.b[stage][deep_piece(first + i * kAtOnce, word / 4) + word % 4] = right.word(i);
    }
  }
};

// Whether two blocks of the large tile of halves fit: before sm_90 their registers would spill.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr bool kTwoLargeTiles = false;
#else
constexpr bool kTwoLargeTiles = true;
#endif
template <class A, class S, bool last>
constexpr bool kTightFilter = last && sizeof(typename A::T) == 2 && (kTwoLargeTiles || S::kThreads < 256);

// blockIdx.x: tiles of rows, tiles of columns; y: the part; z: the group.
template <class A, class S, bool last>
__global__ void __launch_bounds__(S::kThreads, resident_blocks<S>(kTightFilter<A, S, last>))
    implicit_filter(FilterTask<typename A::T> t) {
  typedef typename A::T T;
  auto& s = shared<FilterMemory<T, S>>();
  int row_tile;
  const int first_column = t.by_row_tiles.divide(static_cast<int>(blockIdx.x), &row_tile) * S::kColumns;
  const int row = row_tile * S::kRows, steps = (t.pixels + kStepDepth<T> - 1) / kStepDepth<T>;
  const int begin = static_cast<int>(blockIdx.y) * t.part, end = begin + t.part < steps ? begin + t.part : steps;
  const int group = static_cast<int>(blockIdx.z);
  FilterLoader<A, S, last> loader(t, s, group, row, first_column);
  WarpSums<S> sums;
  sum_products<A, S, !last, !last>(s.tile, loader, begin, end, t.part, sums);
  put_sums<S>(s.tile, sums);
  float* to = t.partials + ((blockIdx.y * t.c.p.groups + group) * t.rows + row) * t.columns + first_column;
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows * S::kColumns; i += S::kThreads) {
    const int r = i / S::kColumns, column = i % S::kColumns;
    if (r < t.rows - row && column < t.columns - first_column)
      to[int64_t{r} * t.columns + column] = s.tile.sums[sum_place<S>(r, column)];
  }
}

constexpr int kAddThreads = 128;

// One thread for each weight, in the order of w.
template <class T>
__global__ void __launch_bounds__(kAddThreads)
    implicit_add_parts(FilterTask<T> t, Divisor by_taps, Divisor by_channels, int64_t parts, int64_t weights) {
  for (int64_t i = int64_t{blockIdx.x} * kAddThreads + threadIdx.x; i < weights;
       i += int64_t{gridDim.x} * kAddThreads) {
    int64_t tap, channel;
    const int64_t k = by_channels.divide(by_taps.divide(i, &tap), &channel);
    const float* from = t.partials + k * t.columns + tap * t.channels + channel;
    float sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += from[part * weights];
    t.c.w[i] = narrowed<T>(sum);
  }
}

template <class T>
bool pieces_of_channels(const T* base, const Image& image, int64_t group_channels) {
  return image.channel == 1 && reinterpret_cast<uintptr_t>(base) % 16 == 0 && image.batch % kPiece<T> == 0 &&
         image.pixel % kPiece<T> == 0 && group_channels % kPiece<T> == 0;
}

template <class A>
int run_filter(const ConvProblem& p, const RunContext& r, void* scratch) {
  typedef typename A::T T;
  const FilterSharing sharing = filter_sharing_of(p);
  FilterTask<T> t{};
  t.c = conv_of<T>(p, r);
  t.partials = static_cast<float*>(scratch);
  const int64_t plane = y_plane(p), channels = t.c.group_c;
  t.rows = static_cast<int32_t>(sharing.rows), t.columns = static_cast<int32_t>(sharing.columns);
  t.channels = static_cast<int32_t>(channels), t.pixels = static_cast<int32_t>(p.n * plane);
  t.part = static_cast<int32_t>(sharing.part);
  for (int i = 0; i < kMaxSpatial; ++i) {
    t.size[i] = static_cast<int32_t>(p.size[i]), t.step[i] = static_cast<int32_t>(p.stride[i]);
    t.pad[i] = static_cast<int32_t>(p.pad_begin[i]), t.dilation[i] = static_cast<int32_t>(p.dilation[i]);
  }
  const auto divisor = [](int64_t by) { return Divisor32(std::max<int64_t>(1, by)); };
  t.image = divisor(plane), t.line = divisor(t.c.out[1]), t.row = divisor(t.c.out[2]);
  t.by_channels = divisor(channels), t.tap_plane = divisor(p.filter[1]), t.tap_row = divisor(p.filter[2]);
  t.pieces = t.c.ys.pixel == 1 && plane % kPiece<T> == 0 && t.c.ys.batch % kPiece<T> == 0 &&
             t.c.ys.channel % kPiece<T> == 0 && reinterpret_cast<uintptr_t>(t.c.y) % 16 == 0;
  const bool last = pieces_of_channels(t.c.x, t.c.xs, channels) && pieces_of_channels(t.c.y, t.c.ys, t.c.group_k);
  const auto start = [&](auto shape, auto both_last) {
    typedef decltype(shape) S;
    const int64_t row_tiles = divide_up(sharing.rows, S::kRows);
    t.by_row_tiles = Divisor32(row_tiles);
    const int64_t column_tiles = divide_up(sharing.columns, S::kColumns);
    const Grid grid{row_tiles * column_tiles, sharing.parts, p.groups};
    starts(r, Phase::kProducts,
           times(row_tiles * S::kRows, column_tiles * S::kColumns, sharing.steps, kStepDepth<T>) *
               times(p.groups, A::kProducts));
    return launch(r, implicit_filter<A, S, decltype(both_last)::value>, grid, S::kThreads, sizeof(FilterMemory<T, S>),
                  t);
  };
  const auto start_shape = [&](auto shape) {
    return last ? start(shape, std::true_type()) : start(shape, std::false_type());
  };
  typedef std::conditional_t<A::kPromotes, LargeStrictFilterTile, LargeFilterTile> Large;
  const int status = sharing.shape == ImplicitShape::kLarge ? start_shape(Large()) : start_shape(SmallFilterTile());
  if (status) return status;
  const int64_t weights = p.groups * sharing.rows * sharing.columns;
  starts(r, Phase::kSums);
  return launch(r, implicit_add_parts<T>, Grid{std::min(divide_up(weights, kAddThreads), kMostBlocksX)}, kAddThreads, 0,
                t, Divisor(taps(p)), Divisor(channels), sharing.parts, weights);
}

}  // namespace fastconv::cuda
