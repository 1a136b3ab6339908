// SPDX-License-Identifier: Apache-2.0
// The moves around a matrix product: transposing into panels, gathering a panel's row from an image's row or from a
// halo buffer (csrc/halo.h). Included once, by gemm_tile.cc.
#pragma once

#include "simd.h"

namespace fastconv::FC_ISA {
namespace {

template <class T>
void transpose(int64_t rows, int64_t cols, int64_t width, const T* src, int64_t src_pitch, T* dst, int64_t dst_pitch) {
  constexpr int lanes = Vec<T>::lanes, piece = kPiece<T>;
  // Packed rows narrower than a vector: whole vectors are stored, and what sticks out is overwritten by the rows that
  // follow. The last few, which nothing follows, are stored exactly.
  const int64_t whole = dst_pitch == width && width < lanes ? cols - (lanes - 1) / width : 0;
  for (int64_t c0 = 0; c0 < cols; c0 += lanes) {
    const int64_t count = cols - c0 < lanes ? cols - c0 : lanes;
    for (int64_t next = 0; next < width; next += lanes) {
      // Without padding the last rows overlap those before them.
      const int64_t r0 = rows == width && rows >= lanes && next + lanes > rows ? rows - lanes : next;
      const T* s = src + r0 * src_pitch + c0;
      T* d = dst + c0 * dst_pitch + r0;
      if (r0 + lanes <= rows && cols >= piece) {
        for (int64_t i = 0; i < count; i += piece) {
          const int64_t c = i + piece <= count ? i : count - piece;  // the last ones overlap
          V<T> v[piece];
          load_columns<T>([&](int r) { return s + r * src_pitch + c; }, v);
#pragma GCC unroll 4
          for (int j = 0; j < piece; ++j) store(d + (c + j) * dst_pitch, v[j]);
        }
        continue;
      }
      V<T> v[lanes];
#pragma GCC unroll 16
      for (int i = 0; i < lanes; ++i) v[i] = r0 + i < rows ? load_lanes(s + i * src_pitch, 0, count) : V<T>{};
      transpose_square<T>(v);
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

// Pieces that lie anywhere become the lanes of `taps` vectors, as many at a time as 16 bytes hold; the last ones
// overlap.
template <class T>
void turn_pieces(int64_t count, const int64_t* places, int64_t rows, const int64_t* offsets, int64_t taps, const T* src,
                 T* dst, int64_t pitch) {
  constexpr int lanes = Vec<T>::lanes, piece = kPiece<T>;
  for (int64_t first = 0; first < count; first += lanes) {
    const T* lane[lanes];
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) lane[i] = src + places[first + i < count ? first + i : count - 1];
    T* to = dst + first;
    for (int64_t row = 0; row < rows; ++row, to += taps * pitch)
      for (int64_t next = 0; next < taps; next += piece) {
        const int64_t tap = next + piece <= taps ? next : taps - piece, at = offsets[row] + tap;
        V<T> v[piece];
        load_columns<T>([&](int i) { return lane[i] + at; }, v);
#pragma GCC unroll 4
        for (int j = 0; j < piece; ++j) store(to + (tap + j) * pitch, v[j]);
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

// Rows of a panel that are one run of FIRST vectors, or, where SECOND is not 0, two.
template <class T, int VECTORS, int FIRST, int SECOND>
void expand_runs(int64_t channels, int64_t channel_pitch, int64_t taps, const int64_t* tap_offsets,
                 const int64_t* run_lanes, const int64_t* run_offsets, const T* halo, T* panel) {
  constexpr int lanes = Vec<T>::lanes;
  const int64_t second = SECOND ? run_lanes[1] : 0, from = SECOND ? run_offsets[1] : 0;
  for (; channels > 0; --channels, halo += channel_pitch)
    for (int64_t tap = 0; tap < taps; ++tap, panel += VECTORS * lanes) {
      const T* src = halo + tap_offsets[tap];
#pragma GCC unroll 4
      for (int i = 0; i < FIRST; ++i) store(panel + i * lanes, load(src + run_offsets[0] + i * lanes));
#pragma GCC unroll 4
      for (int i = 0; i < SECOND; ++i) store(panel + second + i * lanes, load(src + from + i * lanes));
    }
}

template <class T, int VECTORS>  // of a row of a panel
void expand(int64_t channels, int64_t channel_pitch, int64_t taps, const int64_t* tap_offsets, int runs,
            const int64_t* run_lanes, const int64_t* run_offsets, const T* halo, T* panel) {
  constexpr int lanes = Vec<T>::lanes, nr = VECTORS * lanes;
#define FC_RUNS(first, second)                                                                                      \
  return expand_runs<T, VECTORS, first, second>(channels, channel_pitch, taps, tap_offsets, run_lanes, run_offsets, \
                                                halo, panel)
  if (runs == 1) FC_RUNS(VECTORS, 0);
  if (runs == 2) {
    const int64_t first = (run_lanes[1] + lanes - 1) / lanes, second = (nr - run_lanes[1] + lanes - 1) / lanes;
    if (first == 1 && second == VECTORS) FC_RUNS(1, VECTORS);
    if (first == VECTORS) FC_RUNS(VECTORS, 1);
    if constexpr (VECTORS > 2) {
      if (second == 1) FC_RUNS(2, 1);
      if (first == 1) FC_RUNS(1, 2);
      FC_RUNS(2, 2);
    } else {
      FC_RUNS(1, 1);
    }
  }
#undef FC_RUNS
  for (; channels > 0; --channels, halo += channel_pitch)
    for (int64_t tap = 0; tap < taps; ++tap, panel += nr) {
      const T* src = halo + tap_offsets[tap];
      for (int run = 0; run < runs; ++run) {
        const T* from = src + run_offsets[run];
        T* to = panel + run_lanes[run];
        const int64_t count = (run + 1 < runs ? run_lanes[run + 1] : nr) - run_lanes[run];
        store(to, load(from));
        if (count > lanes) store(to + lanes, load(from + lanes));
        if (VECTORS > 2 && count > 2 * lanes) store(to + 2 * lanes, load(from + 2 * lanes));
      }
    }
}

}  // namespace
}  // namespace fastconv::FC_ISA
