// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C: 8 floats, 16 registers.
#pragma once

#include <immintrin.h>

namespace fastconv::FC_ISA {

inline constexpr int kVectorBytes = 32;
inline constexpr int kVectorRegisters = 16;

FC_INLINE __m256i lane_mask32(int64_t first, int64_t last) {
  const int begin = first < 0 ? 0 : first > 8 ? 8 : (int)first;
  const int end = last < 0 ? 0 : last > 8 ? 8 : (int)last;
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_and_si256(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32(begin - 1)),
                          _mm256_cmpgt_epi32(_mm256_set1_epi32(end), lane));
}
FC_INLINE __m256i lane_mask64(int64_t first, int64_t last) {
  const int64_t begin = first < 0 ? 0 : first > 4 ? 4 : first;
  const int64_t end = last < 0 ? 0 : last > 4 ? 4 : last;
  const __m256i lane = _mm256_setr_epi64x(0, 1, 2, 3);
  return _mm256_and_si256(_mm256_cmpgt_epi64(lane, _mm256_set1_epi64x(begin - 1)),
                          _mm256_cmpgt_epi64(_mm256_set1_epi64x(end), lane));
}
// Lanes whose bit is set.
FC_INLINE __m256i bit_mask32(uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
}
FC_INLINE __m256i bit_mask64(uint32_t bits) {
  const __m256i bit = _mm256_setr_epi64x(1, 2, 4, 8);
  return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x(bits), bit), bit);
}

#define FC_X86_EXTREMES  // compared and chosen they would be two instructions
FC_INLINE __m256 x86_max(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
FC_INLINE __m256 x86_min(__m256 a, __m256 b) { return _mm256_min_ps(a, b); }
FC_INLINE __m256d x86_max(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
FC_INLINE __m256d x86_min(__m256d a, __m256d b) { return _mm256_min_pd(a, b); }

}  // namespace fastconv::FC_ISA
