// SPDX-License-Identifier: Apache-2.0
// Comparisons and what is chosen by them. A mask is a register of bits in AVX-512, where a comparison of whole vectors
// of lanes would cost one instruction more to make and one more to use; elsewhere all or none of each lane's bits.
// Included after simd.h by the kernel files that compare.
#pragma once

#include "simd.h"

namespace fastconv::FC_ISA {

template <class T>
using Ints = typename Vec<T>::ints;

template <class T>
struct LaneIntOf {
  typedef int32_t type;
};
template <>
struct LaneIntOf<double> {
  typedef int64_t type;
};
template <class T>
using LaneInt = typename LaneIntOf<T>::type;

template <class T>
FC_INLINE Ints<T> splat_int(int64_t x) {
  return Ints<T>{} + (LaneInt<T>)x;
}

// beyond: v > m (MIN: v < m), or v is NaN and m is not. ties: v == m, or both are NaN. not_finite: infinite or NaN.
// bytes_equal: lane i of the answer is p[i] == value, where bit i of `bits` is set; only those bytes are read.
// pick: a where the mask is set, else b. store_bytes: the lowest byte of each of the first `count` lanes.
// load_or: lanes whose bit is set come from p, the others from `other`. mask_of_bits: lanes whose bit is set.
#if defined(FC_ISA_AVX512)
template <class T>
struct MaskOf {
  typedef __mmask16 type;
};
template <>
struct MaskOf<double> {
  typedef __mmask8 type;
};
template <class T>
using Mask = typename MaskOf<T>::type;

template <class T, bool MIN>
FC_INLINE Mask<T> beyond(V<T> v, V<T> m) {
  if constexpr (sizeof(T) == 4) {
    const __mmask16 k = _mm512_cmp_ps_mask((__m512)v, (__m512)m, MIN ? _CMP_NGE_UQ : _CMP_NLE_UQ);
    return _mm512_mask_cmp_ps_mask(k, (__m512)m, (__m512)m, _CMP_ORD_Q);
  } else {
    const __mmask8 k = _mm512_cmp_pd_mask((__m512d)v, (__m512d)m, MIN ? _CMP_NGE_UQ : _CMP_NLE_UQ);
    return _mm512_mask_cmp_pd_mask(k, (__m512d)m, (__m512d)m, _CMP_ORD_Q);
  }
}
template <class T>
FC_INLINE Mask<T> ties(V<T> v, V<T> m) {
  if constexpr (sizeof(T) == 4)
    return (Mask<T>)(_mm512_cmp_ps_mask((__m512)v, (__m512)m, _CMP_EQ_OQ) |
                     _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q), (__m512)m,
                                             (__m512)m, _CMP_UNORD_Q));
  else
    return (Mask<T>)(_mm512_cmp_pd_mask((__m512d)v, (__m512d)m, _CMP_EQ_OQ) |
                     _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask((__m512d)v, (__m512d)v, _CMP_UNORD_Q), (__m512d)m,
                                             (__m512d)m, _CMP_UNORD_Q));
}
template <class T>
FC_INLINE Mask<T> less_int(Ints<T> a, Ints<T> b) {
  if constexpr (sizeof(T) == 4)
    return _mm512_cmplt_epi32_mask((__m512i)a, (__m512i)b);
  else
    return _mm512_cmplt_epi64_mask((__m512i)a, (__m512i)b);
}
template <class T>
FC_INLINE V<T> pick(Mask<T> mask, V<T> a, V<T> b) {
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm512_mask_mov_ps((__m512)b, mask, (__m512)a);
  else
    return (V<T>)_mm512_mask_mov_pd((__m512d)b, mask, (__m512d)a);
}
template <class T>
FC_INLINE Ints<T> pick_int(Mask<T> mask, Ints<T> a, Ints<T> b) {
  if constexpr (sizeof(T) == 4)
    return (Ints<T>)_mm512_mask_mov_epi32((__m512i)b, mask, (__m512i)a);
  else
    return (Ints<T>)_mm512_mask_mov_epi64((__m512i)b, mask, (__m512i)a);
}
template <class T>
FC_INLINE bool any_not_finite(V<T> v) {  // of v - v
  if constexpr (sizeof(T) == 4)
    return _mm512_cmp_ps_mask((__m512)v, (__m512)v, _CMP_UNORD_Q);
  else
    return _mm512_cmp_pd_mask((__m512d)v, (__m512d)v, _CMP_UNORD_Q);
}
template <class T>
FC_INLINE Mask<T> bytes_equal(const uint8_t* p, uint32_t bits, int value) {
  const __mmask16 lanes = (__mmask16)(bits & ((1u << Vec<T>::lanes) - 1));
  return (Mask<T>)_mm_mask_cmpeq_epi8_mask(lanes, _mm_maskz_loadu_epi8(lanes, p), _mm_set1_epi8((char)value));
}
template <class T>
FC_INLINE V<T> add_where(Mask<T> mask, V<T> sum, V<T> v) {
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm512_mask_add_ps((__m512)sum, mask, (__m512)sum, (__m512)v);
  else
    return (V<T>)_mm512_mask_add_pd((__m512d)sum, mask, (__m512d)sum, (__m512d)v);
}
template <class T>
FC_INLINE void store_bytes(uint8_t* p, Ints<T> v, int64_t count) {
  const uint32_t bits = lane_bits(0, count, Vec<T>::lanes);
  if constexpr (sizeof(T) == 4)
    _mm512_mask_cvtepi32_storeu_epi8(p, (__mmask16)bits, (__m512i)v);
  else
    _mm512_mask_cvtepi64_storeu_epi8(p, (__mmask8)bits, (__m512i)v);
}
template <class T>
FC_INLINE Mask<T> mask_of_bits(uint32_t bits) {
  return (Mask<T>)bits;
}
template <class T>
FC_INLINE V<T> load_or(const T* p, uint32_t bits, V<T> other) {
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm512_mask_loadu_ps((__m512)other, (__mmask16)bits, p);
  else
    return (V<T>)_mm512_mask_loadu_pd((__m512d)other, (__mmask8)bits, p);
}
#else
template <class T>
using Mask = Ints<T>;

template <class T, bool MIN>
FC_INLINE Mask<T> beyond(V<T> v, V<T> m) {
  return ~(MIN ? v >= m : v <= m) & (m == m);
}
template <class T>
FC_INLINE Mask<T> ties(V<T> v, V<T> m) {
  return (v == m) | ((v != v) & (m != m));
}
template <class T>
FC_INLINE Mask<T> less_int(Ints<T> a, Ints<T> b) {
  return a < b;
}
template <class T>
FC_INLINE Ints<T> pick_int(Mask<T> mask, Ints<T> a, Ints<T> b) {
  return (a & mask) | (b & ~mask);
}
template <class T>
FC_INLINE V<T> pick(Mask<T> mask, V<T> a, V<T> b) {
#if defined(FC_ISA_AVX2)
  if constexpr (sizeof(T) == 4)
    return (V<T>)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)mask);
  else
    return (V<T>)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)mask);
#else
  return select<T>(mask, a, b);
#endif
}
template <class T>
FC_INLINE bool any_not_finite(V<T> v) {
#if defined(FC_ISA_AVX2)
  if constexpr (sizeof(T) == 4)
    return _mm256_movemask_ps((__m256)(v != v));
  else
    return _mm256_movemask_pd((__m256d)(v != v));
#else
  LaneInt<T> lanes[Vec<T>::lanes], any = 0;
  const Ints<T> mask = v != v;
  memcpy(lanes, &mask, sizeof lanes);
  for (int i = 0; i < Vec<T>::lanes; ++i) any |= lanes[i];
  return any;
#endif
}
template <class T>
FC_INLINE Mask<T> bytes_equal(const uint8_t* p, uint32_t bits, int value) {
  constexpr uint32_t all = (1u << Vec<T>::lanes) - 1;
  uint8_t bytes[Vec<T>::lanes];
  if ((bits & all) == all) {
    memcpy(bytes, p, sizeof bytes);
  } else {
    for (int i = 0; i < Vec<T>::lanes; ++i) bytes[i] = bits >> i & 1 ? p[i] : (uint8_t)~value;
  }
#if defined(FC_ISA_AVX2)
  int64_t packed = 0;
  memcpy(&packed, bytes, sizeof bytes);
  if constexpr (sizeof(T) == 4)
    return (Ints<T>)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(packed)) == splat_int<T>(value);
  else
    return (Ints<T>)_mm256_cvtepu8_epi64(_mm_cvtsi64_si128(packed)) == splat_int<T>(value);
#else
  Ints<T> v{};
  for (int i = 0; i < Vec<T>::lanes; ++i) v[i] = bytes[i];
  return v == splat_int<T>(value);
#endif
}
template <class T>
FC_INLINE V<T> add_where(Mask<T> mask, V<T> sum, V<T> v) {
  return sum + (V<T>)((Ints<T>)v & mask);
}
template <class T>
FC_INLINE void store_bytes(uint8_t* p, Ints<T> v, int64_t count) {
  LaneInt<T> values[Vec<T>::lanes];
  uint8_t bytes[Vec<T>::lanes];
  memcpy(values, &v, sizeof values);
  for (int i = 0; i < Vec<T>::lanes; ++i) bytes[i] = (uint8_t)values[i];
  if (count >= Vec<T>::lanes)
    memcpy(p, bytes, sizeof bytes);
  else
    for (int64_t i = 0; i < count; ++i) p[i] = bytes[i];
}
template <class T>
FC_INLINE Mask<T> mask_of_bits(uint32_t bits) {
  Ints<T> bit{};
#pragma GCC unroll 16
  for (int i = 0; i < Vec<T>::lanes; ++i) bit[i] = 1 << i;
  return (splat_int<T>(bits) & bit) == bit;
}
template <class T>
FC_INLINE V<T> load_or(const T* p, uint32_t bits, V<T> other) {
  constexpr uint32_t all = (1u << Vec<T>::lanes) - 1;
  if ((bits & all) == all) return load(p);
  return pick<T>(mask_of_bits<T>(bits), load_bits(p, bits), other);
}
#endif

// Bits of the lanes first <= i < last.
template <class T>
FC_INLINE uint32_t bits_of_lanes(int64_t first, int64_t last) {
  if (first < 0) first = 0;
  if (last > Vec<T>::lanes) last = Vec<T>::lanes;
  return last <= first ? 0 : ((1u << (last - first)) - 1u) << first;
}

// s / d, rounded to nearest, where r is 1 / d rounded to nearest: a product and its correction, where a
// division of whole vectors takes a cycle per lane. (P. Markstein, IBM J. Res. Dev. 34, 1990.) Where the quotient
// is not finite the answer is not finite either; a remainder that is subnormal may cost the last bit.
template <class T>
FC_INLINE V<T> quotient(V<T> s, V<T> d, [[maybe_unused]] V<T> r) {
#if defined(__FMA__) || defined(__aarch64__)
  const V<T> q = s * r;
  return q + (s - q * d) * r;  // contracted
#else
  return s / d;
#endif
}

}  // namespace fastconv::FC_ISA
