// SPDX-License-Identifier: Apache-2.0
// The register tile of every matrix product, and the small moves around it: transposing into panels, gathering a panel
// row from an image row, the epilogue.
//
//            b[depth][2 vectors]            AVX-512: 14 rows x 2 vectors = 28 accumulators, 2 vectors of b and
//              +-----+-----+                1 broadcast of a = 31 of 32 registers; per step of depth 2 loads,
//   a[depth]   |     |     |  x rows        14 broadcasts, 28 multiply-adds. AVX2 and the baseline: 6 x 2.
//   [rows]     +-----+-----+
//
// Each element of c is one chain of multiply-adds in ascending depth, whatever the tile it falls into: results
// do not depend on how a matrix is cut.
#include "kernel_table.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const GemmKernels kGemmKernels;
namespace {

constexpr int kRows = kVectorRegisters == 32 ? 14 : 6;
constexpr int kVectors = 2;

template <class T, int ROWS>
void tile_rows(int64_t depth, const T* __restrict a, const T* __restrict b, T* __restrict c, int64_t ldc, int64_t cols,
               bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][kVectors] = {};
  for (int64_t d = 0; d < depth; ++d) {
    const V<T> b0 = load(b), b1 = load(b + lanes);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const V<T> factor = splat(a[r]);
      sum[r][0] += factor * b0;
      sum[r][1] += factor * b1;
    }
    a += ROWS;
    b += kVectors * lanes;
  }
  if (cols == kVectors * lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      T* row = c + r * ldc;
      if (accumulate) {
        sum[r][0] += load(row);
        sum[r][1] += load(row + lanes);
      }
      store(row, sum[r][0]);
      store(row + lanes, sum[r][1]);
    }
    return;
  }
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    T* row = c + r * ldc;
    if (accumulate) {
      sum[r][0] += load_lanes(row, 0, cols);
      sum[r][1] += load_lanes(row + lanes, 0, cols - lanes);
    }
    store_lanes(row, sum[r][0], 0, cols);
    store_lanes(row + lanes, sum[r][1], 0, cols - lanes);
  }
}

template <class T>
void tile(int rows, int64_t depth, const T* a, const T* b, T* c, int64_t ldc, int64_t cols, bool accumulate) {
  switch (rows) {
    case 1: return tile_rows<T, 1>(depth, a, b, c, ldc, cols, accumulate);
    case 2: return tile_rows<T, 2>(depth, a, b, c, ldc, cols, accumulate);
    case 3: return tile_rows<T, 3>(depth, a, b, c, ldc, cols, accumulate);
    case 4: return tile_rows<T, 4>(depth, a, b, c, ldc, cols, accumulate);
    case 5: return tile_rows<T, 5>(depth, a, b, c, ldc, cols, accumulate);
    case 6: return tile_rows<T, 6>(depth, a, b, c, ldc, cols, accumulate);
    default: break;
  }
  if constexpr (kRows > 6) {
    switch (rows) {
      case 7: return tile_rows<T, 7>(depth, a, b, c, ldc, cols, accumulate);
      case 8: return tile_rows<T, 8>(depth, a, b, c, ldc, cols, accumulate);
      case 9: return tile_rows<T, 9>(depth, a, b, c, ldc, cols, accumulate);
      case 10: return tile_rows<T, 10>(depth, a, b, c, ldc, cols, accumulate);
      case 11: return tile_rows<T, 11>(depth, a, b, c, ldc, cols, accumulate);
      case 12: return tile_rows<T, 12>(depth, a, b, c, ldc, cols, accumulate);
      case 13: return tile_rows<T, 13>(depth, a, b, c, ldc, cols, accumulate);
      default: return tile_rows<T, 14>(depth, a, b, c, ldc, cols, accumulate);
    }
  }
}

// A square block of vectors transposed in registers: log2(lanes) rounds of interleaving halves.
template <class T>
FC_INLINE void transpose_square(V<T>* v) {
  constexpr int lanes = Vec<T>::lanes;
  typedef typename Vec<T>::ints I;
#pragma GCC unroll 4
  for (int half = 1; half < lanes; half *= 2) {
    I low{}, high{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {  // lanes whose bit `half` is set come from the partner
      low[i] = (i & half) ? lanes + (i - half) : i;
      high[i] = (i & half) ? lanes + i : i + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      if (i & half) continue;
      const V<T> a = v[i], b = v[i + half];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + half] = __builtin_shuffle(a, b, high);
    }
  }
}

template <class T>
void transpose(int64_t rows, int64_t cols, int64_t width, const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  for (int64_t c0 = 0; c0 < cols; c0 += lanes) {
    const int64_t count = cols - c0 < lanes ? cols - c0 : lanes;
    for (int64_t r0 = 0; r0 < width; r0 += lanes) {
      V<T> v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i)
        v[i] = r0 + i < rows ? load_lanes(src + (r0 + i) * src_pitch + c0, 0, count) : V<T>{};
      transpose_square<T>(v);
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i)
        if (i < count) store_lanes(dst + (c0 + i) * dst_pitch + r0, v[i], 0, width - r0);
    }
  }
}

template <class T>
FC_INLINE V<T> load_every_other(const T* p, int64_t first, int64_t last) {
  constexpr int lanes = Vec<T>::lanes;
  typedef typename Vec<T>::ints I;
  I even{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) even[i] = 2 * i;
  const int64_t begin = 2 * first, end = 2 * last - 1;
  return __builtin_shuffle(load_lanes(p, begin, end), load_lanes(p + lanes, begin - lanes, end - lanes), even);
}

template <class T>
void gather_row(int64_t count, int64_t first, int64_t last, const T* src, int64_t step, int64_t src_pitch, T* dst,
                int64_t dst_pitch, int64_t repeats) {
  constexpr int lanes = Vec<T>::lanes;
  if (last <= first) {
    for (int64_t i = 0; i < repeats; ++i, dst += dst_pitch)
      for (int64_t lane = 0; lane < count; lane += lanes) store_lanes(dst + lane, V<T>{}, 0, count - lane);
    return;
  }
  for (int64_t lane = 0; lane < count; lane += lanes) {
    const int64_t begin = first - lane, end = last - lane;
    const T* s = src + lane * step;
    T* d = dst + lane;
    if (step == 1 && begin <= 0 && end >= lanes && count - lane >= lanes) {
      for (int64_t i = 0; i < repeats; ++i) store(d + i * dst_pitch, load(s + i * src_pitch));
    } else if (step == 1) {
      for (int64_t i = 0; i < repeats; ++i)
        store_lanes(d + i * dst_pitch, load_lanes(s + i * src_pitch, begin, end), 0, count - lane);
    } else if (step == 2) {
      for (int64_t i = 0; i < repeats; ++i)
        store_lanes(d + i * dst_pitch, load_every_other(s + i * src_pitch, begin, end), 0, count - lane);
    } else {
      const int64_t stop = count - lane < lanes ? count - lane : lanes;
      for (int64_t i = 0; i < repeats; ++i)
        for (int64_t j = 0; j < stop; ++j)
          d[i * dst_pitch + j] = j >= begin && j < end ? s[i * src_pitch + j * step] : T(0);
    }
  }
}

#include "activation.h"

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
      store_lanes(row + i, activate<T>(v, activation, alpha), 0, cols - i);
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
    store_lanes(sum + i, reduce_parts(parts, src + i, pitch, count - i), 0, count - i);
}

}  // namespace

const GemmKernels kGemmKernels = {
    {kRows, kVectors * Vec<float>::lanes, tile<float>, transpose<float>, gather_row<float>, epilogue<float>,
     reduce<float>},
    {kRows, kVectors * Vec<double>::lanes, tile<double>, transpose<double>, gather_row<double>, epilogue<double>,
     reduce<double>},
};

}  // namespace fastconv::FC_ISA
