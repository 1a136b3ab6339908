// SPDX-License-Identifier: Apache-2.0
// AVX-512 F, BW, DQ, VL with FMA: 16 floats, 32 registers, masks.
#pragma once

#include <immintrin.h>

namespace fastconv::FC_ISA {

inline constexpr int kVectorBytes = 64;
inline constexpr int kVectorRegisters = 32;

// Bits first..last-1, for any first and last.
FC_INLINE uint32_t lane_bits(int64_t first, int64_t last, int lanes) {
  if (last > lanes) last = lanes;
  if (first < 0) first = 0;
  if (last <= first) return 0;
  return ((1u << (last - first)) - 1u) << first;
}

// Compared and chosen they would be two instructions. (The unmasked intrinsics make gcc 12 warn of its own header.)
#define FC_X86_EXTREMES
FC_INLINE __m512 x86_max(__m512 a, __m512 b) { return _mm512_mask_max_ps(a, __mmask16(-1), a, b); }
FC_INLINE __m512 x86_min(__m512 a, __m512 b) { return _mm512_mask_min_ps(a, __mmask16(-1), a, b); }
FC_INLINE __m512d x86_max(__m512d a, __m512d b) { return _mm512_mask_max_pd(a, __mmask8(-1), a, b); }
FC_INLINE __m512d x86_min(__m512d a, __m512d b) { return _mm512_mask_min_pd(a, __mmask8(-1), a, b); }

}  // namespace fastconv::FC_ISA
