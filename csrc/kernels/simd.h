// SPDX-License-Identifier: Apache-2.0
// Vectors for the kernels: GCC/Clang vector extensions carry the arithmetic, the few operations that need the
// instruction set (masked loads and stores) come from simd_<isa>.h. Included only by files compiled per ISA:
// everything is in the ISA's own namespace and has internal linkage.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef FC_ISA
#error "csrc/kernels is compiled once per instruction set with -DFC_ISA=<name>"
#endif

#define FC_INLINE static inline __attribute__((always_inline))

#if defined(FC_ISA_AVX512)
#include "simd_avx512.h"
#elif defined(FC_ISA_AVX2)
#include "simd_avx2.h"
#elif defined(FC_ISA_NEON)
#include "simd_neon.h"
#elif defined(FC_ISA_WIDE)
#include "simd_wide.h"
#else
#include "simd_scalar.h"
#endif

namespace fastconv::FC_ISA {

// Vec<T>::type, lanes, and signed integers of the same width for masks and bit tricks.
template <class T>
struct Vec;
template <>
struct Vec<float> {
  typedef float type __attribute__((vector_size(kVectorBytes)));
  typedef float unaligned __attribute__((vector_size(kVectorBytes), aligned(4), may_alias));
  typedef int32_t ints __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 4;
};
template <>
struct Vec<double> {
  typedef double type __attribute__((vector_size(kVectorBytes)));
  typedef double unaligned __attribute__((vector_size(kVectorBytes), aligned(8), may_alias));
  typedef int64_t ints __attribute__((vector_size(kVectorBytes)));
  static constexpr int lanes = kVectorBytes / 8;
};
template <class T>
using V = typename Vec<T>::type;

template <class T>
FC_INLINE V<T> load(const T* p) {
  return *reinterpret_cast<const typename Vec<T>::unaligned*>(p);
}
template <class T>
FC_INLINE void store(T* p, V<T> v) {
  *reinterpret_cast<typename Vec<T>::unaligned*>(p) = v;
}
// x - 0 folds away where 0 + x would not (it turns -0 into +0).
template <class T>
FC_INLINE V<T> splat(T x) {
  return x - V<T>{};
}

// One load, whatever follows: GCC would fold it into every multiply-add that takes it, and loads are what is scarce.
template <class T>
FC_INLINE V<T> load_once(const T* p) {
  V<T> v = load(p);
#if defined(FC_ISA_AVX512)
  asm("" : "+v"(v));
#elif defined(__x86_64__) && !defined(FC_ISA_WIDE)
  asm("" : "+x"(v));
#elif defined(FC_ISA_NEON)
  asm("" : "+w"(v));
#endif
  return v;
}

// Whether there is add_product_bits.
#if defined(FC_ISA_AVX512)
inline constexpr bool kMasksProducts = true;
#else
inline constexpr bool kMasksProducts = false;
#endif

// load_lanes: lanes first <= i < last of p, zero elsewhere. load_bits: lanes whose bit is set. store_first: the first
// `count` lanes, all of them when count is larger, none when it is not positive. store_bits: lanes whose bit is set. No
// other memory is touched.
#if defined(FC_ISA_AVX512)
FC_INLINE V<float> load_lanes(const float* p, int64_t first, int64_t last) {
  return (V<float>)_mm512_maskz_loadu_ps((__mmask16)lane_bits(first, last, 16), p);
}
FC_INLINE V<double> load_lanes(const double* p, int64_t first, int64_t last) {
  return (V<double>)_mm512_maskz_loadu_pd((__mmask8)lane_bits(first, last, 8), p);
}
FC_INLINE V<float> load_bits(const float* p, uint32_t bits) {
  return (V<float>)_mm512_maskz_loadu_ps((__mmask16)bits, p);
}
FC_INLINE V<double> load_bits(const double* p, uint32_t bits) {
  return (V<double>)_mm512_maskz_loadu_pd((__mmask8)bits, p);
}
// sum + a b in lanes whose bit is set; the others keep what they have, whatever a and b hold.
FC_INLINE V<float> add_product_bits(V<float> sum, V<float> a, V<float> b, uint32_t bits) {
  return (V<float>)_mm512_mask3_fmadd_ps((__m512)a, (__m512)b, (__m512)sum, (__mmask16)bits);
}
FC_INLINE void store_first(float* p, V<float> v, int64_t count) {
  _mm512_mask_storeu_ps(p, (__mmask16)lane_bits(0, count, 16), (__m512)v);
}
FC_INLINE void store_first(double* p, V<double> v, int64_t count) {
  _mm512_mask_storeu_pd(p, (__mmask8)lane_bits(0, count, 8), (__m512d)v);
}
FC_INLINE void store_bits(float* p, V<float> v, uint32_t bits) { _mm512_mask_storeu_ps(p, (__mmask16)bits, (__m512)v); }
FC_INLINE void store_bits(double* p, V<double> v, uint32_t bits) {
  _mm512_mask_storeu_pd(p, (__mmask8)bits, (__m512d)v);
}
#elif defined(FC_ISA_AVX2)
FC_INLINE V<float> load_lanes(const float* p, int64_t first, int64_t last) {
  return (V<float>)_mm256_maskload_ps(p, lane_mask32(first, last));
}
FC_INLINE V<double> load_lanes(const double* p, int64_t first, int64_t last) {
  return (V<double>)_mm256_maskload_pd(p, lane_mask64(first, last));
}
FC_INLINE V<float> load_bits(const float* p, uint32_t bits) {
  return (V<float>)_mm256_maskload_ps(p, bit_mask32(bits));
}
FC_INLINE V<double> load_bits(const double* p, uint32_t bits) {
  return (V<double>)_mm256_maskload_pd(p, bit_mask64(bits));
}
// Not vmaskmov: as a store it is said to be microcoded on Zen; not timed here by itself.
FC_INLINE void store_first(float* p, V<float> v, int64_t count) {
  if (count >= 8) return store(p, v);
  __m128 part = _mm256_castps256_ps128((__m256)v);
  if (count >= 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps((__m256)v, 1);
    p += 4, count -= 4;
  }
  if (count >= 2) {
    _mm_storel_pi((__m64*)p, part);
    part = _mm_movehl_ps(part, part);
    p += 2, count -= 2;
  }
  if (count >= 1) _mm_store_ss(p, part);
}
FC_INLINE void store_first(double* p, V<double> v, int64_t count) {
  if (count >= 4) return store(p, v);
  __m128d part = _mm256_castpd256_pd128((__m256d)v);
  if (count >= 2) {
    _mm_storeu_pd(p, part);
    part = _mm256_extractf128_pd((__m256d)v, 1);
    p += 2, count -= 2;
  }
  if (count >= 1) _mm_store_sd(p, part);
}
FC_INLINE void store_bits(float* p, V<float> v, uint32_t bits) {
  if (bits == 0xff) return store(p, v);
  _mm256_maskstore_ps(p, bit_mask32(bits), (__m256)v);
}
FC_INLINE void store_bits(double* p, V<double> v, uint32_t bits) {
  if (bits == 0xf) return store(p, v);
  _mm256_maskstore_pd(p, bit_mask64(bits), (__m256d)v);
}
#else
template <class T>
FC_INLINE V<T> load_lanes(const T* p, int64_t first, int64_t last) {
  if (first <= 0 && last >= Vec<T>::lanes) return load(p);
  V<T> v{};
  for (int64_t i = first < 0 ? 0 : first; i < Vec<T>::lanes && i < last; ++i) v[i] = p[i];
  return v;
}
template <class T>
FC_INLINE V<T> load_bits(const T* p, uint32_t bits) {
  constexpr uint32_t all = (1u << Vec<T>::lanes) - 1;
  if ((bits & all) == all) return load(p);
  V<T> v{};
  for (int i = 0; i < Vec<T>::lanes; ++i)
    if (bits >> i & 1) v[i] = p[i];
  return v;
}
template <class T>
FC_INLINE void store_first(T* p, V<T> v, int64_t count) {
  if (count >= Vec<T>::lanes) return store(p, v);
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
}
template <class T>
FC_INLINE void store_bits(T* p, V<T> v, uint32_t bits) {
  constexpr uint32_t all = (1u << Vec<T>::lanes) - 1;
  if (bits == all) return store(p, v);
  for (int i = 0; i < Vec<T>::lanes; ++i)
    if (bits >> i & 1) p[i] = v[i];
}
#endif

// Lanes where the mask (all bits or none) is set come from a, else from b. Written so that a comparison stays in a mask
// register where the instruction set has one.
template <class T>
FC_INLINE V<T> select(typename Vec<T>::ints mask, V<T> a, V<T> b) {
  typedef typename Vec<T>::ints I;
  return (V<T>)(mask ? (I)a : (I)b);
}
// b where either is NaN, as in maxps; of 0 and -0 too.
template <class T>
FC_INLINE V<T> vmax(V<T> a, V<T> b) {
#ifdef FC_X86_EXTREMES
  return (V<T>)x86_max(a, b);
#else
  return select<T>(a > b, a, b);
#endif
}
template <class T>
FC_INLINE V<T> vmin(V<T> a, V<T> b) {
#ifdef FC_X86_EXTREMES
  return (V<T>)x86_min(a, b);
#else
  return select<T>(a < b, a, b);
#endif
}
// Lanes<N>::turned: v with its N lanes turned by COUNT, which is one instruction to GCC if it sees constants from the
// beginning.
template <int N, int... LANE>
struct Lanes : Lanes<N - 1, N - 1, LANE...> {};
template <int... LANE>
struct Lanes<0, LANE...> {
  template <class T, int COUNT>
  FC_INLINE V<T> turned(V<T> v) {
    return __builtin_shuffle(v, typename Vec<T>::ints{(LANE + COUNT) % (int)sizeof...(LANE)...});
  }
};
// Lanes in a fixed tree: the halves are added, again and again.
template <class T, int HALF = Vec<T>::lanes / 2>
FC_INLINE T horizontal_sum(V<T> v) {
  if constexpr (HALF == 0)
    return v[0];
  else
    return horizontal_sum<T, HALF / 2>(v + Lanes<Vec<T>::lanes>::template turned<T, HALF>(v));
}

// COUNT vectors, in each of them blocks of COUNT lanes: the blocks that lie under each other are transposed, by
// log2(COUNT) rounds of interleaving halves.
template <class T, int COUNT>
FC_INLINE void transpose_blocks(V<T>* v) {
  constexpr int lanes = Vec<T>::lanes;
  typedef typename Vec<T>::ints I;
#pragma GCC unroll 4
  for (int half = 1; half < COUNT; half *= 2) {
    I low{}, high{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {  // lanes whose bit `half` is set come from the partner
      low[i] = (i & half) ? lanes + (i - half) : i;
      high[i] = (i & half) ? lanes + i : i + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < COUNT; ++i) {
      if (i & half) continue;
      const V<T> a = v[i], b = v[i + half];
      v[i] = __builtin_shuffle(a, b, low);
      v[i + half] = __builtin_shuffle(a, b, high);
    }
  }
}
template <class T>
FC_INLINE void transpose_square(V<T>* v) {
  transpose_blocks<T, Vec<T>::lanes>(v);
}

// Columns of rows that lie anywhere, as many as 16 bytes hold: lane r of v[i] is row(r)[i]. Every vector is put
// together from 16 bytes of each of four rows (AVX-512; two with AVX2), which takes any arithmetic port, so that only
// two shuffles a vector are left for the one port that has them; a square transposed in registers takes four.
template <class T>
inline constexpr int kPiece = 16 / (int)sizeof(T);
template <class T, class Row>
FC_INLINE V<T> load_pieces(const Row& row, int first) {
  constexpr int piece = kPiece<T>;
#if defined(FC_ISA_AVX512)
  if constexpr (sizeof(T) == 4) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(row(first)));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(row(first + piece)), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(row(first + 2 * piece)), 2);
    return (V<T>)_mm512_insertf32x4(v, _mm_loadu_ps(row(first + 3 * piece)), 3);
  } else {
    __m512d v = _mm512_castpd128_pd512(_mm_loadu_pd(row(first)));
    v = _mm512_insertf64x2(v, _mm_loadu_pd(row(first + piece)), 1);
    v = _mm512_insertf64x2(v, _mm_loadu_pd(row(first + 2 * piece)), 2);
    return (V<T>)_mm512_insertf64x2(v, _mm_loadu_pd(row(first + 3 * piece)), 3);
  }
#elif defined(FC_ISA_AVX2)
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row(first))),
                                      _mm_loadu_ps(row(first + piece)), 1);
  else
    return (V<T>)_mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd(row(first))),
                                      _mm_loadu_pd(row(first + piece)), 1);
#else
  V<T> v{};
  for (int i = 0; i < Vec<T>::lanes; ++i) v[i] = row(first + i / piece * piece)[i % piece];
  return v;
#endif
}
template <class T, class Row>
FC_INLINE void load_columns(const Row& row, V<T>* v) {
#pragma GCC unroll 4
  for (int i = 0; i < kPiece<T>; ++i) v[i] = load_pieces<T>(row, i);
  transpose_blocks<T, kPiece<T>>(v);
}
// All columns of a square block of rows `pitch` apart.
template <class T>
FC_INLINE void load_transposed(const T* src, int64_t pitch, V<T>* v) {
#pragma GCC unroll 8
  for (int c = 0; c < Vec<T>::lanes; c += kPiece<T>) load_columns<T>([&](int i) { return src + i * pitch + c; }, v + c);
}

// Lane i becomes what `combine` makes of the lanes of v[i], in a fixed tree: the transposition with its halves
// combined, 30 shuffles for 16 vectors.
template <class T, class Combine>
FC_INLINE V<T> fold_square(V<T>* v, const Combine& combine) {
  constexpr int lanes = Vec<T>::lanes;
  typedef typename Vec<T>::ints I;
#pragma GCC unroll 4
  for (int half = 1; half < lanes; half *= 2) {
    I low{}, high{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      low[i] = (i & half) ? lanes + (i - half) : i;
      high[i] = (i & half) ? lanes + i : i + half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < lanes; i += 2 * half)
      v[i] = combine(__builtin_shuffle(v[i], v[i + half], low), __builtin_shuffle(v[i], v[i + half], high));
  }
  return v[0];
}
template <class T>
FC_INLINE V<T> sum_square(V<T>* v) {
  return fold_square<T>(v, [](V<T> a, V<T> b) __attribute__((always_inline)) { return a + b; });
}

// Lane i becomes the sum of the lanes of v[i], i < COUNT, halves of them added to each other: pairs of vectors share
// their shuffles, 20 for the 9 sums of a 3 x 3 filter. The tree of sum_square is another, of neighbours, and so are its
// bits.
template <class T, int COUNT>
FC_INLINE V<T> sum_lanes(V<T>* v) {
  constexpr int lanes = Vec<T>::lanes;
  typedef typename Vec<T>::ints I;
  static_assert(COUNT <= lanes);
  I reversed{};
#pragma GCC unroll 4
  for (int half = lanes / 2, bit = 1, count = COUNT; half > 0; half /= 2, bit *= 2, count = (count + 1) / 2) {
    I low{}, high{}, swapped{};
#pragma GCC unroll 16
    for (int i = 0; i < lanes; ++i) {
      low[i] = (i & half) ? lanes + (i - half) : i;
      high[i] = (i & half) ? lanes + i : i + half;
      swapped[i] = i ^ half;
      if (i & bit) reversed[i] += half;
    }
#pragma GCC unroll 16
    for (int i = 0; i < count; i += 2) {
      const V<T> a = v[i], b = v[i + (i + 1 < count)];
      v[i / 2] = i + 1 < count ? __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high)
                               : a + __builtin_shuffle(a, swapped);
    }
  }
  return __builtin_shuffle(v[0], reversed);
}

// a0 b0 a1 b1 ... of two vectors, and back.
template <class T>
FC_INLINE void zip(V<T> a, V<T> b, V<T>* low, V<T>* high) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints first{}, second{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) {
    first[i] = i / 2 + i % 2 * lanes;
    second[i] = first[i] + lanes / 2;
  }
  *low = __builtin_shuffle(a, b, first);
  *high = __builtin_shuffle(a, b, second);
}
template <class T>
FC_INLINE void unzip(V<T> a, V<T> b, V<T>* even, V<T>* odd) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints first{}, second{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) first[i] = 2 * i, second[i] = 2 * i + 1;
  *even = __builtin_shuffle(a, b, first);
  *odd = __builtin_shuffle(a, b, second);
}

// Every other element of p, where bit 2 i is set; zero elsewhere.
template <class T>
FC_INLINE V<T> load_pairs(const T* p, uint32_t bits) {
  constexpr int lanes = Vec<T>::lanes;
  typename Vec<T>::ints even{};
#pragma GCC unroll 16
  for (int i = 0; i < lanes; ++i) even[i] = 2 * i;
  return __builtin_shuffle(load_bits(p, bits), load_bits(p + lanes, bits >> lanes), even);
}

}  // namespace fastconv::FC_ISA
