// SPDX-License-Identifier: Apache-2.0
// The register tile of every matrix product, and what goes before and after it: panel_moves.h, the epilogue.
//
//            b[depth][3 vectors]            AVX-512 and NEON: 9 rows x 3 vectors = 27 accumulators, 3 vectors of b
//              +-----+-----+-----+          and 1 broadcast of a = 31 of 32 registers; per step of depth 3 loads,
//   a[depth]   |     |     |     |  x rows  9 broadcasts, 27 multiply-adds. AVX2 and the baseline: 6 x 2.
//   [rows]     +-----+-----+-----+
//
// Each element of c is one chain of multiply-adds in ascending depth, whatever the tile it falls into: results
// do not depend on how a matrix is cut. Bias, residual and the cheap activations are applied before the sums leave
// their registers: a tile of depth 16 took half as long again when an epilogue came back for them.
//
// What the next tile reads and writes is asked for while this one is computed. Weights that come from the third level
// of cache, as those of a network do, cost a sixth of the time before (512 to 512 channels of 14 x 14 pixels; Emerald
// Rapids, 2026-11); rows of c that lie pages apart, a fifth (32 to 64 channels of 112 x 112).
#include "kernel_table.h"
#include "panel_moves.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const GemmKernels kGemmKernels;
namespace {

// 9 x 3 and 6 x 2: the shapes with the fewest loads per multiply-add that leave a register for the broadcast. What the
// narrower 14 x 2 costs in loads (16 for 28 multiply-adds, where 9 x 3 has 12 for 27) shows when another thread shares
// the core: 73 % of the multiply-add peak against 79 %, Ice Lake server, 2026-11.
constexpr int kRows = kVectorRegisters == 32 ? 9 : 6;
constexpr int kVectors = kVectorRegisters == 32 ? 3 : 2;

#include "activation.h"
#include "ask_ahead.h"

template <class T, int ROWS, int VECTORS, bool WHOLE>
FC_INLINE void store_sums(V<T> (&sum)[ROWS][VECTORS], const TileSums<T>& out) {
  constexpr int lanes = Vec<T>::lanes;
  const int64_t rest = out.columns - (VECTORS - 1) * lanes;  // of the last vector
  const auto add = [&](const T* from) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        const T* at = from + r * out.ldc + v * lanes;
        sum[r][v] += WHOLE || v < VECTORS - 1 ? load(at) : load_lanes(at, 0, rest);
      }
  };
  const auto each = [&](const auto& change) __attribute__((always_inline)) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[r][v] = change(sum[r][v], r);
  };
  if (out.accumulate) add(out.c);
  if (out.bias) each([&](V<T> x, int r) __attribute__((always_inline)) { return x + splat(out.bias[r]); });
  if (out.residual) add(out.residual);
  if (out.activation == kRelu)
    each([](V<T> x, int) __attribute__((always_inline)) { return activate<T>(x, kRelu, 0); });
  if (out.activation == kRelu6)
    each([](V<T> x, int) __attribute__((always_inline)) { return activate<T>(x, kRelu6, 0); });
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    T* row = out.c + r * out.ldc;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) {
      if (WHOLE || v < VECTORS - 1)
        store(row + v * lanes, sum[r][v]);
      else
        store_first(row + v * lanes, sum[r][v], rest);
    }
  }
}

// Columns whose lanes are the rows of the tile.
template <class T, int COLUMNS>
void store_few(const V<T> (&sum)[COLUMNS], const TileSums<T>& out, int64_t column = 0) {
  constexpr int lanes = Vec<T>::lanes;
  T turned[COLUMNS][lanes];
#pragma GCC unroll 4
  for (int i = 0; i < COLUMNS; ++i) store(turned[i], sum[i]);
  for (int64_t r = 0; r < out.rows; ++r)
    for (int i = 0; i < COLUMNS; ++i) {
      const int64_t place = r * out.ldc + column + i;
      T* at = out.c + place;
      T x = turned[i][r];
      if (out.accumulate) x += *at;
      if (out.bias) x += out.bias[r];
      if (out.residual) x += out.residual[place];
      if (out.activation != kNone) x = x < 0 ? T(0) : x;
      if (out.activation == kRelu6) x = x > 6 ? T(6) : x;
      *at = x;
    }
}

// By their last elements, since the line of the first one has come with the panel before.
template <class T>
FC_INLINE AskAhead<T, kVectors, false> lines_of_x(const TileSums<T>& out) {
  return {out.next_x + Vec<T>::lanes - 1, out.x_pitch};
}

// Whether a vector holds the rows of a tile.
template <class T>
constexpr bool kTurns = Vec<T>::lanes >= kRows;
// And a tile has a register left for one column more.
template <class T>
constexpr bool kOneMore = kTurns<T> && kVectorRegisters == 32;

// ONE_MORE: than VECTORS of columns; 49 pixels are one such panel, 196 are four.
template <class T, int ROWS, int VECTORS, bool ONE_MORE = false>
void tile_block(int64_t depth, const T* __restrict a, const T* __restrict b, const TileSums<T>& out) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][VECTORS] = {}, more[1] = {};
  const T *next = out.next_a, *column_more = b + depth * kVectors * lanes;
  const auto step = [&]() __attribute__((always_inline)) {
    __builtin_prefetch(next, 0, 3);
    V<T> column[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) column[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const V<T> factor = splat(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[r][v] += factor * column[v];
    }
    if constexpr (ONE_MORE) more[0] += load(a) * splat(*column_more++);
    a += ROWS;
    b += kVectors * lanes;
    next += ROWS;
  };
  AskAhead<T, VECTORS> ask(out.next_c, out.ldc);
  AskAhead<T, kVectors, false> ask_x = lines_of_x(out);
  int64_t d = 0;
  for (const int64_t asking = depth < ROWS * VECTORS ? depth : ROWS * VECTORS; d < asking; ++d) {
    ask();
    ask_x();
    step();
  }
  for (const int64_t asking = depth < out.next_lines ? depth : out.next_lines; d < asking; ++d) {
    ask_x();
    step();
  }
#pragma GCC unroll 4
  for (; d < depth; ++d) step();
  if (ONE_MORE || out.columns == VECTORS * lanes)
    store_sums<T, ROWS, VECTORS, true>(sum, out);
  else
    store_sums<T, ROWS, VECTORS, false>(sum, out);
  if constexpr (ONE_MORE) store_few<T, 1>(more, out, VECTORS * lanes);
}

template <class T, int VECTORS, bool ONE_MORE = false>
void tile_rows(int64_t depth, const T* a, const T* b, const TileSums<T>& out) {
#define FC_CASE(n)                                                                   \
  case n:                                                                            \
    if constexpr (n <= kRows) tile_block<T, n, VECTORS, ONE_MORE>(depth, a, b, out); \
    break;
  switch (out.rows) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    FC_CASE(4)
    FC_CASE(5)
    FC_CASE(6)
    FC_CASE(7)
    FC_CASE(8)
    FC_CASE(9)
    default:
      break;
  }
#undef FC_CASE
}

// A narrow last panel takes fewer vectors.
template <class T>
void tile(int64_t depth, const T* a, const T* b, const TileSums<T>* out) {
  constexpr int lanes = Vec<T>::lanes;
  if (out->columns <= lanes) return tile_rows<T, 1>(depth, a, b, *out);
  if (kVectors == 2 || out->columns <= 2 * lanes) return tile_rows<T, 2>(depth, a, b, *out);
  if constexpr (kOneMore<T>)
    if (out->columns > kVectors * lanes) return tile_rows<T, 3, true>(depth, a, b, *out);
  if constexpr (kVectors > 2) return tile_rows<T, 3>(depth, a, b, *out);
}

// The panel lies in rows x_pitch apart and is moved to `b` by stores that the multiply-adds hide, if the rows have been
// asked for: by the tiles of the panel before, all together, because a tile has too few loads under way for them.
template <class T, int ROWS, bool ONE_MORE>
void moving_block(int64_t depth, const T* __restrict a, const T* __restrict x, int64_t x_pitch, T* __restrict b,
                  const TileSums<T>& out) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][kVectors] = {}, more[1] = {};
  const T* next = out.next_a;
  T* column_more = b + depth * kVectors * lanes;
  AskAhead<T, kVectors> ask(out.next_c, out.ldc);
  AskAhead<T, kVectors, false> ask_x = lines_of_x(out);
  for (int64_t d = 0; d < depth; ++d) {
    __builtin_prefetch(next, 0, 3);
    if (d < ROWS * kVectors) ask();
    if (d < out.next_lines) ask_x();
    V<T> column[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      column[v] = load_once(x + v * lanes);
      store(b + v * lanes, column[v]);
    }
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const V<T> factor = splat(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] += factor * column[v];
    }
    if constexpr (ONE_MORE) {
      const T value = x[kVectors * lanes];
      more[0] += load(a) * splat(value);
      *column_more++ = value;
    }
    a += ROWS;
    b += kVectors * lanes;
    x += x_pitch;
    next += ROWS;
  }
  store_sums<T, ROWS, kVectors, true>(sum, out);
  if constexpr (ONE_MORE) store_few<T, 1>(more, out, kVectors * lanes);
}

template <class T, bool ONE_MORE>
void moving_rows(int64_t depth, const T* a, const T* x, int64_t x_pitch, T* b, const TileSums<T>& out) {
#define FC_CASE(n)                                                                        \
  case n:                                                                                 \
    if constexpr (n <= kRows) moving_block<T, n, ONE_MORE>(depth, a, x, x_pitch, b, out); \
    break;
  switch (out.rows) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    FC_CASE(4)
    FC_CASE(5)
    FC_CASE(6)
    FC_CASE(7)
    FC_CASE(8)
    FC_CASE(9)
    default:
      break;
  }
#undef FC_CASE
}

template <class T>
void moving_tile(int64_t depth, const T* a, const T* x, int64_t x_pitch, T* b, const TileSums<T>* out) {
  if constexpr (kOneMore<T>)
    if (out->columns > kVectors * Vec<T>::lanes) return moving_rows<T, true>(depth, a, x, x_pitch, b, *out);
  moving_rows<T, false>(depth, a, x, x_pitch, b, *out);
}

// ---- few columns ---------------------------------------------------------------------------------------------------
// 14 x 14 pixels leave 4 of 48 columns: one vector of a[depth][rows] by one broadcast of b per column.
// Several pieces together, since a chain of multiply-adds alone waits for its latency.

constexpr int kFewColumns = 4, kFewPieces = kVectorRegisters == 32 ? kMostPieces : 2;

template <class T, int PIECES, int COLUMNS>
void few_block(int64_t depth, const T* const* a, const T* __restrict b, const TileSums<T>* out) {
  constexpr int nr = kVectors * Vec<T>::lanes;
  V<T> sum[PIECES][COLUMNS] = {};
  const T* row[PIECES];
#pragma GCC unroll 4
  for (int p = 0; p < PIECES; ++p) row[p] = a[p];
  for (int64_t d = 0; d < depth; ++d, b += nr) {
    V<T> factor[COLUMNS];
#pragma GCC unroll 4
    for (int i = 0; i < COLUMNS; ++i) factor[i] = splat(b[i]);
#pragma GCC unroll 4
    for (int p = 0; p < PIECES; ++p) {
      const V<T> rows = load(row[p]);
#pragma GCC unroll 4
      for (int i = 0; i < COLUMNS; ++i) sum[p][i] += factor[i] * rows;
      row[p] += out[p].rows;
    }
  }
#pragma GCC unroll 4
  for (int p = 0; p < PIECES; ++p) store_few<T, COLUMNS>(sum[p], out[p]);
}

template <class T, int PIECES>
void few_columns(int64_t depth, const T* const* a, const T* b, const TileSums<T>* out) {
  switch (out->columns) {
    case 1:
      return few_block<T, PIECES, 1>(depth, a, b, out);
    case 2:
      return few_block<T, PIECES, 2>(depth, a, b, out);
    case 3:
      return few_block<T, PIECES, 3>(depth, a, b, out);
    default:
      return few_block<T, PIECES, 4>(depth, a, b, out);
  }
}

template <class T>
void few_tile(int pieces, int64_t depth, const T* const* a, const T* b, const TileSums<T>* out) {
  if constexpr (kTurns<T>) {
    if (pieces == 1) return few_columns<T, 1>(depth, a, b, out);
    if (kFewPieces == 2 || pieces == 2) return few_columns<T, 2>(depth, a, b, out);
    if constexpr (kFewPieces > 2) {
      if (pieces == 3) return few_columns<T, 3>(depth, a, b, out);
      return few_columns<T, 4>(depth, a, b, out);
    }
  }
}

// Independent multiply-adds on registers alone, as many as hide their latency: what the arithmetic units can do at
// most. Returns the floating-point operations done; *sink keeps the compiler honest.
template <class T>
double fma_burst(int64_t steps, T* sink) {
  constexpr int chains = 10;
  V<T> sum[chains];
  V<T> factor = splat(*sink);
#pragma GCC unroll 16
  for (int i = 0; i < chains; ++i) sum[i] = splat(T(i)) * factor;
  for (int64_t step = 0; step < steps; ++step) {
#pragma GCC unroll 16
    for (int i = 0; i < chains; ++i) sum[i] = sum[i] * factor + factor;
  }
  V<T> total{};
#pragma GCC unroll 16
  for (int i = 0; i < chains; ++i) total += sum[i];
  *sink = horizontal_sum<T>(total);
  return 2.0 * chains * Vec<T>::lanes * (double)steps;
}

template <class T>
void epilogue(int64_t rows, int64_t cols, T* c, int64_t ldc, const T* bias, const T* residual, int64_t ldr,
              int32_t activation, T alpha) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t r = 0; r < rows; ++r) {
    T* row = c + r * ldc;
    const V<T> shift = bias ? splat(bias[r]) : V<T>{};
    for (int64_t i = 0; i < cols; i += lanes) {
      V<T> v = load_lanes(row + i, 0, cols - i);
      if (bias) v += shift;
      if (residual) v += load_lanes(residual + r * ldr + i, 0, cols - i);
      store_first(row + i, activate<T>(v, activation, alpha), cols - i);
    }
  }
}

// Pairwise: the tree depends on the number of parts alone.
template <class T>
V<T> reduce_parts(int64_t parts, const T* src, int64_t pitch, int64_t count) {
  if (parts == 1) return load_lanes(src, 0, count);
  const int64_t half = parts / 2;
  return reduce_parts(half, src, pitch, count) + reduce_parts(parts - half, src + half * pitch, pitch, count);
}

template <class T>
void reduce(int64_t count, int64_t parts, const T* src, int64_t pitch, T* sum) {
  for (int64_t i = 0; i < count; i += Vec<T>::lanes)
    store_first(sum + i, reduce_parts(parts, src + i, pitch, count - i), count - i);
}

}  // namespace

const GemmKernels kGemmKernels = {
    {kRows, kVectors * Vec<float>::lanes, kVectors * Vec<float>::lanes + kOneMore<float>, Vec<float>::lanes,
     tile<float>, moving_tile<float>, kTurns<float> ? kFewColumns : 0, kFewPieces, few_tile<float>, transpose<float>,
     kPiece<float>, turn_pieces<float>, gather_row<float>, expand<float, kVectors>, epilogue<float>, reduce<float>,
     fma_burst<float>},
    {kRows, kVectors * Vec<double>::lanes, kVectors * Vec<double>::lanes + kOneMore<double>, Vec<double>::lanes,
     tile<double>, moving_tile<double>, kTurns<double> ? kFewColumns : 0, kFewPieces, few_tile<double>,
     transpose<double>, kPiece<double>, turn_pieces<double>, gather_row<double>, expand<double, kVectors>,
     epilogue<double>, reduce<double>, fma_burst<double>},
};

}  // namespace fastconv::FC_ISA
