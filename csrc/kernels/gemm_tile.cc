// SPDX-License-Identifier: Apache-2.0
// The register tile of every matrix product, and the small moves around it: transposing into panels, gathering a panel
// row from an image row, the epilogue.
//
//            b[depth][3 vectors]            AVX-512 and NEON: 9 rows x 3 vectors = 27 accumulators, 3 vectors of b
//              +-----+-----+-----+          and 1 broadcast of a = 31 of 32 registers; per step of depth 3 loads,
//   a[depth]   |     |     |     |  x rows  9 broadcasts, 27 multiply-adds. AVX2 and the baseline: 6 x 2.
//   [rows]     +-----+-----+-----+
//
// Each element of c is one chain of multiply-adds in ascending depth, whatever the tile it falls into: results
// do not depend on how a matrix is cut.
#include "kernel_table.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const GemmKernels kGemmKernels;
namespace {

// 9 x 3 and 6 x 2: the shapes with the fewest loads per multiply-add that leave a register for the broadcast. What the
// narrower 14 x 2 costs in loads (16 for 28 multiply-adds, where 9 x 3 has 12 for 27) shows when another thread shares
// the core: 73 % of the multiply-add peak against 79 %, Ice Lake server, 2026-11.
constexpr int kRows = kVectorRegisters == 32 ? 9 : 6;
constexpr int kVectors = kVectorRegisters == 32 ? 3 : 2;

template <class T, int ROWS, int VECTORS>
void tile_block(int64_t depth, const T* __restrict a, const T* __restrict b, T* __restrict c, int64_t ldc, int64_t cols,
                bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  V<T> sum[ROWS][VECTORS] = {};
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) __builtin_prefetch(c + r * ldc + v * lanes, 1, 3);
#pragma GCC unroll 4
  for (int64_t d = 0; d < depth; ++d) {
    V<T> column[VECTORS];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; ++v) column[v] = load(b + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      const V<T> factor = splat(a[r]);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[r][v] += factor * column[v];
    }
    a += ROWS;
    b += kVectors * lanes;
  }
  if (cols == VECTORS * lanes) {
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; ++r) {
      T* row = c + r * ldc;
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) {
        if (accumulate) sum[r][v] += load(row + v * lanes);
        store(row + v * lanes, sum[r][v]);
      }
    }
    return;
  }
  const int64_t rest = cols - (VECTORS - 1) * lanes;  // of the last vector
#pragma GCC unroll 16
  for (int r = 0; r < ROWS; ++r) {
    T* row = c + r * ldc;
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS - 1; ++v) {
      if (accumulate) sum[r][v] += load(row + v * lanes);
      store(row + v * lanes, sum[r][v]);
    }
    T* last = row + (VECTORS - 1) * lanes;
    if (accumulate) sum[r][VECTORS - 1] += load_lanes(last, 0, rest);
    store_first(last, sum[r][VECTORS - 1], rest);
  }
}

template <class T, int VECTORS>
void tile_rows(int rows, int64_t depth, const T* a, const T* b, T* c, int64_t ldc, int64_t cols, bool accumulate) {
#define FC_CASE(n) \
  case n:          \
    return tile_block<T, n, VECTORS>(depth, a, b, c, ldc, cols, accumulate);
  switch (rows) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    FC_CASE(4)
    FC_CASE(5)
    FC_CASE(6)
    default:
      break;
  }
  if constexpr (kRows > 6) {
    switch (rows) {
      FC_CASE(7)
      FC_CASE(8)
      FC_CASE(9)
      default:
        break;
    }
  }
#undef FC_CASE
}

// A narrow last panel takes fewer vectors.
template <class T>
void tile(int rows, int64_t depth, const T* a, const T* b, T* c, int64_t ldc, int64_t cols, bool accumulate) {
  constexpr int lanes = Vec<T>::lanes;
  if (cols <= lanes) return tile_rows<T, 1>(rows, depth, a, b, c, ldc, cols, accumulate);
  if (kVectors == 2 || cols <= 2 * lanes) return tile_rows<T, 2>(rows, depth, a, b, c, ldc, cols, accumulate);
  if constexpr (kVectors > 2) return tile_rows<T, 3>(rows, depth, a, b, c, ldc, cols, accumulate);
}

template <class T>
void transpose(int64_t rows, int64_t cols, int64_t width, const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes;
  // Packed rows narrower than a vector: whole vectors are stored, and what sticks out is overwritten by the rows that
  // follow. The last few, which nothing follows, are stored exactly.
  const int64_t whole = dst_pitch == width && width < lanes ? cols - (lanes - 1) / width : 0;
  for (int64_t c0 = 0; c0 < cols; c0 += lanes) {
    const int64_t count = cols - c0 < lanes ? cols - c0 : lanes;
    for (int64_t r0 = 0; r0 < width; r0 += lanes) {
      V<T> v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i)
        v[i] = r0 + i < rows ? load_lanes(src + (r0 + i) * src_pitch + c0, 0, count) : V<T>{};
      transpose_square<T>(v);
      T* d = dst + c0 * dst_pitch + r0;
      if (count == lanes && (width - r0 >= lanes || c0 + lanes <= whole)) {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i) store(d + i * dst_pitch, v[i]);
      } else {
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i)
          if (i < count) store_first(d + i * dst_pitch, v[i], width - r0);
      }
    }
  }
}

// N elements by the fewest loads and stores; the last ones overlap.
template <class T, int N, class Chunk, int kChunk>
FC_INLINE void copy_chunks(T* dst, const T* src) {
  typedef Chunk Loose __attribute__((aligned(1), may_alias));
#pragma GCC unroll 8
  for (int i = 0; i + kChunk <= N; i += kChunk) *(Loose*)(dst + i) = *(const Loose*)(src + i);
  if constexpr (N % kChunk != 0) *(Loose*)(dst + N - kChunk) = *(const Loose*)(src + N - kChunk);
}
template <class T, int N>
FC_INLINE void copy_exactly(T* dst, const T* src) {
  typedef double Two __attribute__((vector_size(16)));
  typedef double Four __attribute__((vector_size(32)));
  constexpr int bytes = N * (int)sizeof(T);
  if constexpr (bytes >= kVectorBytes)
    copy_chunks<T, N, V<T>, Vec<T>::lanes>(dst, src);
  else if constexpr (bytes >= 32 && kVectorBytes > 32)
    copy_chunks<T, N, Four, 32 / (int)sizeof(T)>(dst, src);
  else if constexpr (bytes >= 16)
    copy_chunks<T, N, Two, 16 / (int)sizeof(T)>(dst, src);
  else if constexpr (bytes >= 8)
    copy_chunks<T, N, double, 8 / (int)sizeof(T)>(dst, src);
  else
    *dst = *src;
}

template <class T>
FC_INLINE void zero_lanes(int64_t count, T* dst, int64_t dst_pitch, int64_t repeats) {
  if (count <= 0) return;
  for (int64_t i = 0; i < repeats; ++i, dst += dst_pitch)
    for (int64_t lane = 0; lane < count; lane += Vec<T>::lanes) store_first(dst + lane, V<T>{}, count - lane);
}

// Rows shorter than a vector, one instance per length: a general memcpy would cost more than the copy.
template <class T, int N>
void copy_rows(const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch, int64_t repeats) {
  for (; repeats > 0; --repeats, src += src_pitch, dst += dst_pitch) copy_exactly<T, N>(dst, src);
}
template <class T>
void copy_short_rows(int64_t count, const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch, int64_t repeats) {
#define FC_CASE(n) \
  case n:          \
    return copy_rows<T, n>(src, src_pitch, dst, dst_pitch, repeats);
  switch (count) {
    FC_CASE(1)
    FC_CASE(2)
    FC_CASE(3)
    default:
      break;
  }
  if constexpr (Vec<T>::lanes > 4) {
    switch (count) {
      FC_CASE(4)
      FC_CASE(5)
      FC_CASE(6)
      FC_CASE(7)
      default:
        break;
    }
  }
  if constexpr (Vec<T>::lanes > 8) {
    switch (count) {
      FC_CASE(8)
      FC_CASE(9)
      FC_CASE(10)
      FC_CASE(11)
      FC_CASE(12)
      FC_CASE(13)
      FC_CASE(14)
      FC_CASE(15)
      default:
        break;
    }
  }
#undef FC_CASE
}

// Lanes first <= i < last of p[i * STEP]; nothing else is touched. STEP is 2 or 4.
template <class T, int STEP>
FC_INLINE V<T> load_strided(const T* p, int64_t first, int64_t last) {
  constexpr int lanes = Vec<T>::lanes;
  typedef typename Vec<T>::ints I;
  I even{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) even[i] = 2 * i;
  const int64_t begin = STEP * first, end = STEP * last - STEP + 1;
  const V<T> low =
      __builtin_shuffle(load_lanes(p, begin, end), load_lanes(p + lanes, begin - lanes, end - lanes), even);
  if constexpr (STEP == 2) return low;
  p += 2 * lanes;
  const V<T> high = __builtin_shuffle(load_lanes(p, begin - 2 * lanes, end - 2 * lanes),
                                      load_lanes(p + lanes, begin - 3 * lanes, end - 3 * lanes), even);
  return __builtin_shuffle(low, high, even);
}

// A row with its zeros in one go, so that its lines are touched once.
template <class T, int STEP>
void copy_strided_rows(int64_t count, int64_t first, int64_t last, const T* src, int64_t src_pitch, T* dst,
                       int64_t dst_pitch, int64_t repeats) {
  constexpr int lanes = Vec<T>::lanes;
  for (; repeats > 0; --repeats, src += src_pitch, dst += dst_pitch)
    for (int64_t i = 0; i < count; i += lanes)
      store_first(dst + i, load_strided<T, STEP>(src + i * STEP, first - i, last - i), count - i);
}

// A padded row in one go, so that its lines are touched once: whole vectors, zeros around first .. last.
template <class T>
void copy_padded_rows(int64_t count, int64_t first, int64_t last, const T* src, int64_t src_pitch, T* dst,
                      int64_t dst_pitch, int64_t repeats) {
  constexpr int lanes = Vec<T>::lanes;
  const int64_t whole = (last - lanes) / lanes * lanes;  // vectors from lanes to whole are inside
  for (; repeats > 0; --repeats, src += src_pitch, dst += dst_pitch) {
    store(dst, load_lanes(src, first, last));
    int64_t i = lanes;
    for (; i <= whole; i += lanes) store(dst + i, load(src + i));
    for (; i < count; i += lanes) store_first(dst + i, load_lanes(src + i, 0, last - i), count - i);
  }
}

template <class T>
void gather_row(int64_t count, int64_t first, int64_t last, const T* src, int64_t step, int64_t src_pitch, T* dst,
                int64_t dst_pitch, int64_t repeats) {
  constexpr int lanes = Vec<T>::lanes;
  if (last < first) last = first;
  if (step == 1 && first < lanes && last >= 2 * lanes)
    return copy_padded_rows(count, first, last, src, src_pitch, dst, dst_pitch, repeats);
  if (step == 2) return copy_strided_rows<T, 2>(count, first, last, src, src_pitch, dst, dst_pitch, repeats);
  if (step == 4) return copy_strided_rows<T, 4>(count, first, last, src, src_pitch, dst, dst_pitch, repeats);
  zero_lanes(first, dst, dst_pitch, repeats);
  zero_lanes(count - last, dst + last, dst_pitch, repeats);
  const int64_t length = last - first;
  src += first * step;
  dst += first;
  if (step == 1 && length < lanes) return copy_short_rows(length, src, src_pitch, dst, dst_pitch, repeats);
  // A whole row before the next channel's: they lie pages apart.
  for (; repeats > 0; --repeats, src += src_pitch, dst += dst_pitch) {
    if (step == 1) {
      for (int64_t i = 0; i + lanes <= length; i += lanes) store(dst + i, load(src + i));
      store(dst + length - lanes, load(src + length - lanes));
    } else {
      for (int64_t i = 0; i < length; ++i) dst[i] = src[i * step];
    }
  }
}

template <class T>
void expand(int64_t channels, int64_t channel_pitch, int64_t taps, const int64_t* tap_offsets, int runs,
            const int64_t* run_lanes, const int64_t* run_offsets, const T* halo, T* panel) {
  constexpr int lanes = Vec<T>::lanes, nr = kVectors * lanes;
  for (; channels > 0; --channels, halo += channel_pitch)
    for (int64_t tap = 0; tap < taps; ++tap, panel += nr) {
      const T* src = halo + tap_offsets[tap];
      for (int run = 0; run < runs; ++run) {
        const T* from = src + run_offsets[run];
        T* to = panel + run_lanes[run];
        const int64_t count = (run + 1 < runs ? run_lanes[run + 1] : nr) - run_lanes[run];
        store(to, load(from));
        if (count > lanes) store(to + lanes, load(from + lanes));
        if (kVectors > 2 && count > 2 * lanes) store(to + 2 * lanes, load(from + 2 * lanes));
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
    {kRows, kVectors * Vec<float>::lanes, Vec<float>::lanes, tile<float>, transpose<float>, gather_row<float>,
     expand<float>, epilogue<float>, reduce<float>, fma_burst<float>},
    {kRows, kVectors * Vec<double>::lanes, Vec<double>::lanes, tile<double>, transpose<double>, gather_row<double>,
     expand<double>, epilogue<double>, reduce<double>, fma_burst<double>},
};

}  // namespace fastconv::FC_ISA
