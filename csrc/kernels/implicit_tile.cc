// SPDX-License-Identifier: Apache-2.0
// The register tile of the implicit matrix product: lanes are written channels, rows are pixels that may lie anywhere.
//
//              w[run][step][4 vectors]      AVX-512 and NEON: 6 pixels x 4 vectors = 24 accumulators, 4 vectors of w
//              +-----+-----+-----+-----+    and 1 broadcast of x = 29 of 32 registers; a step has 4 loads, 6
//  x[pixel +   |     |     |     |     |    broadcasts and 24 multiply-adds. Narrower ones take 8 pixels. AVX2 and
//    offset]   |     |     |     |     |    the baseline: 6 x 2. Each pixel has a pointer of its own, a step one offset
//   x 6 pixels +-----+-----+-----+-----+    for all of them: 9 of 16 integer registers.
//
//   for each tile (as equal as can be, so that 49 pixels are 5 x 5 + 4 x 6):
//     for each run: for each step: one row of w times the pixels
//
// The weights of the next block are asked for while these are used. Where planes are small these are many lines for few
// tiles, a few per step: 512 channels of 7 x 7 pixels went from 44 to 62 % of the peak against a burst before each
// tile. Loads are what to save: one load of 64 bytes a cycle is what an Ice Lake server sustains, so that 14 x 2 (16
// loads for 28 multiply-adds) reached 85 % of the multiply-add peak where 6 x 4 reached 95 %, operands in L1. Streaming
// the sums and x from L2 costs nothing measurable on top. With another thread on the core both reach about 80 %.
#include "implicit_kernels.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const ImplicitKernels kImplicitKernels;
namespace {

constexpr int kPixels = 6;
constexpr int kVectors = kVectorRegisters == 32 ? 4 : 2;
constexpr int kNarrowPixels = 8;  // where a tile has fewer vectors
template <int VECTORS>
constexpr int kPixelsOf = VECTORS == kVectors ? kPixels : kNarrowPixels;

// kStreams: the weights used next are asked for step by step, from `next` on, `advance` bytes apart. A burst of them
// would wait for the few lines that can be under way at a time. kMoves: that, and the weights are moved from
// `b.source` to `b.moved`, by stores that the multiply-adds hide.
enum class Weights { kReady, kStreams, kMoves };

template <class T, int PIXELS, int VECTORS, Weights WEIGHTS>
void tile_of(const ImplicitBlock<T>& b, const T* const* x, T* const* y, const char* next, int64_t advance) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[PIXELS][VECTORS] = {};
  const T *w = b.w, *source = b.source;
  T* moved = b.moved;
  const int64_t* const end = b.offsets + b.steps;
  for (int64_t run = 0; run < b.runs; ++run, x += b.x_pitch) {
    const T* place[PIXELS];
#pragma GCC unroll 8
    for (int i = 0; i < PIXELS; ++i) place[i] = x[i] + b.x_shift;
#pragma GCC unroll 2
    for (const int64_t* step = b.offsets; step < end; ++step, w += VECTORS * lanes) {
      const int64_t offset = *step;
      if constexpr (WEIGHTS != Weights::kReady) {
        __builtin_prefetch(next, 0, 2);
        next += advance;
      }
      V<T> column[VECTORS];
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        if constexpr (WEIGHTS == Weights::kMoves) {
          column[v] = load_once(source + v * lanes);
          store(moved + v * lanes, column[v]);
        } else {
          column[v] = load(w + v * lanes);
        }
      }
      if constexpr (WEIGHTS == Weights::kMoves) source += b.source_pitch, moved += VECTORS * lanes;
#pragma GCC unroll 8
      for (int i = 0; i < PIXELS; ++i) {
        const V<T> factor = splat(place[i][offset]);
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) sum[i][v] += factor * column[v];
      }
    }
  }
  const int64_t last = b.columns - (VECTORS - 1) * lanes;  // of the last vector
#pragma GCC unroll 8
  for (int i = 0; i < PIXELS; ++i) {
    T* at = y[i] + b.y_shift;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS - 1; ++v) {
      if (b.accumulate) sum[i][v] += load(at + v * lanes);
      store(at + v * lanes, sum[i][v]);
    }
    at += (VECTORS - 1) * lanes;
    if (last == lanes) {
      if (b.accumulate) sum[i][VECTORS - 1] += load(at);
      store(at, sum[i][VECTORS - 1]);
    } else {
      if (b.accumulate) sum[i][VECTORS - 1] += load_lanes(at, 0, last);
      store_first(at, sum[i][VECTORS - 1], last);
    }
  }
}

// The lines of pixels side by side, two lines on.
template <class T>
void touch_ahead(const ImplicitBlock<T>& b, const T* const* x) {
  constexpr int line = 64 / (int)sizeof(T);
  for (int64_t run = 0; run < b.runs; ++run, x += b.x_pitch)
    for (int64_t step = 0; step < b.steps; ++step) __builtin_prefetch(*x + b.x_shift + b.offsets[step] + 2 * line);
}

template <class T, int VECTORS, Weights WEIGHTS>
void tile_pixels(int64_t pixels, const ImplicitBlock<T>& b, const T* const* x, T* const* y, const char* next,
                 int64_t advance) {
#define FC_CASE(n)                                                                                  \
  case n:                                                                                           \
    if constexpr (n <= kPixelsOf<VECTORS>) tile_of<T, n, VECTORS, WEIGHTS>(b, x, y, next, advance); \
    break;
  switch (pixels) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    FC_CASE(4)
    FC_CASE(5)
    FC_CASE(6)
    FC_CASE(7)
    FC_CASE(8)
    default:
      break;
  }
#undef FC_CASE
}

// ---- one vector of channels --------------------------------------------------------------------------------------
// Every multiply-add has a broadcast of its own, from memory: two a cycle, if little else is loaded. Pixels that lie
// side by side share a pointer, so that a tile has up to 24 of them for one load of w. The pointer is made first, since
// a multiply-add with base and index in its address is two operations to the core: 107 GFLOP/s instead of 165 where
// another thread shares it, 5 x 5 of 6 to 16 channels 1.16 times as fast (Emerald Rapids, 2026-11).

constexpr int kMostSide = 8, kLeastSide = 4, kSides = 3;  // pixels side by side; pieces of them in a tile
template <class T, int VECTORS>
constexpr bool kHasSides = VECTORS == 1 && kVectorRegisters == 32 && sizeof(T) == 4;

template <class T, int PIECES, int SIDE>
void side_tile(const ImplicitBlock<T>& b, const T* const* x, T* const* y) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[PIECES][SIDE] = {};
  const T* place[PIECES];
#pragma GCC unroll 4
  for (int p = 0; p < PIECES; ++p) place[p] = x[p * SIDE] + b.x_shift;
  const T* w = b.w;
  for (int64_t step = 0; step < b.steps; ++step, w += lanes) {
    const V<T> column = load_once(w);
    const int64_t offset = b.offsets[step];
#pragma GCC unroll 4
    for (int p = 0; p < PIECES; ++p) {
      const T* at = place[p] + offset;
      asm("" : "+r"(at));
#pragma GCC unroll 8
      for (int i = 0; i < SIDE; ++i) sum[p][i] += splat(at[i]) * column;
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < PIECES; ++p)
#pragma GCC unroll 8
    for (int i = 0; i < SIDE; ++i) {
      T* at = y[p * SIDE + i] + b.y_shift;
      if (b.accumulate) sum[p][i] += load_lanes(at, 0, b.columns);
      store_first(at, sum[p][i], b.columns);
    }
}

template <class T, int PIECES>
void side_pieces(int64_t side, const ImplicitBlock<T>& b, const T* const* x, T* const* y) {
  switch (side) {
    case 4:
      return side_tile<T, PIECES, 4>(b, x, y);
    case 5:
      return side_tile<T, PIECES, 5>(b, x, y);
    case 6:
      return side_tile<T, PIECES, 6>(b, x, y);
    case 7:
      return side_tile<T, PIECES, 7>(b, x, y);
    default:
      return side_tile<T, PIECES, 8>(b, x, y);
  }
}

// Pixels that lie side by side from pixel i on, at most `most`.
template <class T>
int64_t side_by_side(const ImplicitBlock<T>& b, int64_t i, int64_t most) {
  int64_t count = 1;
  while (count < most && i + count < b.pixels && b.x[i + count] == b.x[i] + count) ++count;
  return count;
}

// Lines of x are left to the hardware to ask for: `touch` is not looked at.
template <class T>
void product_of_sides(const ImplicitBlock<T>& b) {
  constexpr int64_t line = 64 / (int64_t)sizeof(T), most = kSides * kMostSide;
  const int64_t tiles = (b.pixels + most - 1) / most, lines = b.next_pitch ? 0 : (b.next_elements + line - 1) / line;
  int64_t asked = 0;
  for (int64_t i = 0, tile = 1; i < b.pixels; ++tile) {
    for (; asked < lines * tile / tiles && asked < lines; ++asked) __builtin_prefetch(b.next_w + asked * line, 0, 2);
    const int64_t row = side_by_side(b, i, most), parts = (row + kMostSide - 1) / kMostSide;
    const int64_t side = (row + parts - 1) / parts;  // then what is left is no single pixel
    if (side < kLeastSide) {
      const int64_t some = row < kNarrowPixels ? row : kNarrowPixels;
      tile_pixels<T, 1, Weights::kReady>(some, b, b.x + i, b.y + i, nullptr, 0);
      i += some;
      continue;
    }
    int64_t pieces = 1;
    while (pieces < kSides && side_by_side(b, i + pieces * side, side) == side) ++pieces;
    if (pieces == 3)
      side_pieces<T, 3>(side, b, b.x + i, b.y + i);
    else if (pieces == 2)
      side_pieces<T, 2>(side, b, b.x + i, b.y + i);
    else
      side_pieces<T, 1>(side, b, b.x + i, b.y + i);
    i += pieces * side;
  }
}

template <class T, int VECTORS>
void product_of(const ImplicitBlock<T>& b) {
  if constexpr (kHasSides<T, VECTORS>)
    if (b.runs == 1 && !b.source && b.pixels >= kLeastSide && side_by_side(b, 0, kLeastSide) == kLeastSide)
      return product_of_sides(b);
  constexpr int64_t line = 64, burst = 4;
  const int64_t tiles = (b.pixels + kPixelsOf<VECTORS> - 1) / kPixelsOf<VECTORS>;
  const int64_t size = b.pixels / tiles,
                larger = b.pixels % tiles;  // so many tiles have a pixel more
  const int64_t steps = b.runs * b.steps, bytes = b.next_elements * (int64_t)sizeof(T);
  const char* next = (const char*)b.next_w;
  // Rows far apart: a line of every row in a tile. Otherwise equal shares of all lines.
  const int64_t row_lines = b.next_pitch ? bytes / line + ((uintptr_t)next % line != 0) : 0;
  const int64_t share = b.next_pitch ? 0 : (bytes / line + tiles - 1) / tiles;
  const int64_t advance = b.next_pitch ? b.next_pitch * (int64_t)sizeof(T)
                          : steps      ? (share * line + steps - 1) / steps
                                       : 0;
  int64_t touched = 0;
  for (int64_t i = 0, tile = 0; tile < tiles; ++tile) {
    const T* const* x = b.x + i;
    T* const* y = b.y + i;
    if (b.touch && i >= touched) {
      touch_ahead(b, x);
      touched += b.touch;
    }
    const int64_t pixels = size + (tile < larger);
    i += pixels;
    if (b.source && tile == 0) {
      tile_pixels<T, VECTORS, Weights::kMoves>(pixels, b, x, y, next, advance);
      next += b.next_pitch ? line : share * line;
      continue;
    }
    if (VECTORS == kVectors && (share > burst || tile < row_lines)) {
      tile_pixels<T, VECTORS, VECTORS == kVectors ? Weights::kStreams : Weights::kReady>(pixels, b, x, y, next,
                                                                                         advance);
      next += b.next_pitch ? line : share * line;
      continue;
    }
    for (int64_t j = 0; j < share; ++j, next += line) __builtin_prefetch(next, 0, 2);
    tile_pixels<T, VECTORS, Weights::kReady>(pixels, b, x, y, nullptr, 0);
  }
}

template <class T>
void product(const ImplicitBlock<T>* b) {
  switch (b->width / Vec<T>::lanes) {
    case 1:
      return product_of<T, 1>(*b);
    case 2:
      return product_of<T, 2>(*b);
    default:
      break;
  }
  if constexpr (kVectors > 2) {
    if (b->width == 3 * Vec<T>::lanes) return product_of<T, 3>(*b);
    return product_of<T, 4>(*b);
  }
}

#include "activation.h"

template <class T>
void finish(int64_t pixels, int64_t columns, T* const* y, int64_t shift, const T* bias, const T* residual,
            const T* written, int32_t activation, T alpha) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t i = 0; i < pixels; ++i) {
    T* at = y[i] + shift;
    for (int64_t c = 0; c < columns; c += lanes) {
      V<T> v = load_lanes(at + c, 0, columns - c);
      if (bias) v += load_lanes(bias + c, 0, columns - c);
      if (residual) v += load_lanes(residual + (at - written) + c, 0, columns - c);
      store_first(at + c, activate<T>(v, activation, alpha), columns - c);
    }
  }
}

// Rows a vector at a time, so that no more streams are read than a prefetcher
// follows.
template <class T>
void reorder(int64_t rows, int64_t channels, int64_t taps, int64_t width, const T* src, int64_t src_pitch, T* dst,
             int64_t dst_pitch, int64_t tap_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  const int64_t columns = channels * taps;
  for (int64_t r0 = 0; r0 < width; r0 += lanes) {
    int64_t channel = 0, tap = 0;
    for (int64_t c0 = 0; c0 < columns; c0 += lanes) {
      const int64_t count = columns - c0;
      V<T> v[lanes];
      if (r0 + lanes <= rows && count >= lanes) {
        load_transposed<T>(src + r0 * src_pitch + c0, src_pitch, v);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i)
          v[i] = r0 + i < rows ? load_lanes(src + (r0 + i) * src_pitch + c0, 0, count) : V<T>{};
        transpose_square<T>(v);
      }
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) {
        if (i >= count) break;
        store(dst + tap * tap_pitch + channel * dst_pitch + r0, v[i]);
        if (++tap == taps) tap = 0, ++channel;
      }
    }
  }
}

}  // namespace

const ImplicitKernels kImplicitKernels = {{kPixels, Vec<float>::lanes, kVectors, kHasSides<float, 1> ? kLeastSide : 0,
                                           product<float>, finish<float>, reorder<float>},
                                          {kPixels, Vec<double>::lanes, kVectors, kHasSides<double, 1> ? kLeastSide : 0,
                                           product<double>, finish<double>, reorder<double>}};

}  // namespace fastconv::FC_ISA
