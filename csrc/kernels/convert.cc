// SPDX-License-Identifier: Apache-2.0
// float16 and bfloat16 to float32 and back. Widening is exact; narrowing rounds to nearest, ties to even, and what
// rounds beyond the largest number becomes an infinity. A NaN stays one, quiet, with its sign and the upper bits of its
// payload. The portable form gives the bits of the F16C instructions; none of them depends on subnormals being flushed
// (FTZ, DAZ): a subnormal float16 is a normal float32, and bfloat16 is moved as integers.
#include "kernel_table.h"
#include "simd.h"

namespace fastconv::FC_ISA {
extern const ConvertKernels kConvertKernels;
namespace {

FC_INLINE uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}
FC_INLINE float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

constexpr uint32_t kInfinity = 0x7F800000, kQuiet = 0x00400000;

// float16: sign, 5 bits of exponent (bias 15), 10 of mantissa; float32: 8 (bias 127) and 23.
FC_INLINE float widen_f16(uint16_t half) {
  const uint32_t magnitude = (half & 0x7FFFu) << 13, exponent = magnitude & 0x0F800000u;
  const uint32_t normal = magnitude + (112u << 23);
  // A subnormal is its mantissa times 2^-24: read as 2^-14 (1 + mantissa), less 2^-14.
  const uint32_t subnormal = bits_of(float_of(magnitude + (113u << 23)) - float_of(113u << 23));
  const uint32_t special = magnitude | kInfinity | ((magnitude & 0x007FFFFFu) ? kQuiet : 0);
  const uint32_t value = exponent == 0 ? subnormal : exponent == 0x0F800000u ? special : normal;
  return float_of(value | (half & 0x8000u) << 16);
}

FC_INLINE uint16_t narrow_f16(float x) {
  const uint32_t bits = bits_of(x), magnitude = bits & 0x7FFFFFFFu;
  // Below 2^-14 the last place is worth 2^-24, as that of 0.5 in float32: the addition rounds.
  const uint32_t subnormal = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
  const uint32_t normal = (magnitude - (112u << 23) + 0x0FFFu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t special = magnitude > kInfinity ? 0x7E00u | (magnitude >> 13 & 0x03FFu) : 0x7C00u;
  const uint32_t value = magnitude >= (143u << 23) ? special : magnitude < (113u << 23) ? subnormal : normal;
  return static_cast<uint16_t>(value | (bits >> 16 & 0x8000u));
}

// bfloat16 is the upper half of a float32.
FC_INLINE float widen_bf16(uint16_t half) {
  const uint32_t bits = static_cast<uint32_t>(half) << 16;
  return float_of((bits & 0x7FFFFFFFu) > kInfinity ? bits | kQuiet : bits);
}

FC_INLINE uint16_t narrow_bf16(float x) {
  const uint32_t bits = bits_of(x), rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
  return static_cast<uint16_t>(((bits & 0x7FFFFFFFu) > kInfinity ? bits | kQuiet : rounded) >> 16);
}

// Vectors of 16 numbers in AVX-512, of which the last of a row may be part of one; of 8 in AVX2, for float16 only.
#if defined(FC_ISA_AVX512)
FC_INLINE __mmask16 first_lanes(int64_t count) { return count >= 16 ? 0xFFFF : (__mmask16)((1u << count) - 1); }
FC_INLINE bool has_nan(__m512i x, __mmask16 lanes) {
  const __m512 v = _mm512_castsi512_ps(x);
  return _mm512_mask_cmp_ps_mask(lanes, v, v, _CMP_UNORD_Q) != 0;
}
// The upper half of the sum is the rounded number: half of the last place is added, less one where the place is even.
FC_INLINE __m512i rounded_bf16(__m512i x) {
  const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xFFFF, x, 16), _mm512_set1_epi32(1));
  return _mm512_add_epi32(_mm512_add_epi32(x, _mm512_set1_epi32(0x7FFF)), odd);
}
#endif

struct F16 {
  static float widen(uint16_t half) { return widen_f16(half); }
  static uint16_t narrow(float single) { return narrow_f16(single); }
#if defined(FC_ISA_AVX512)
  static constexpr int64_t lanes = 16;
  static bool widen_vector(int64_t count, const uint16_t* half, float* single) {
    const __mmask16 mask = first_lanes(count);
    _mm512_mask_storeu_ps(single, mask, _mm512_maskz_cvtph_ps(mask, _mm256_maskz_loadu_epi16(mask, half)));
    return true;
  }
  static bool narrow_vector(int64_t count, const float* single, uint16_t* half) {
    const __mmask16 mask = first_lanes(count);
    const __m512 wide = _mm512_maskz_loadu_ps(mask, single);
    _mm256_mask_storeu_epi16(half, mask, _mm512_maskz_cvtps_ph(mask, wide, _MM_FROUND_TO_NEAREST_INT));
    return true;
  }
#elif defined(FC_ISA_AVX2)
  static constexpr int64_t lanes = 8;
  static bool widen_vector(int64_t count, const uint16_t* half, float* single) {
    if (count < lanes) return false;
    _mm256_storeu_ps(single, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)half)));
    return true;
  }
  static bool narrow_vector(int64_t count, const float* single, uint16_t* half) {
    if (count < lanes) return false;
    _mm_storeu_si128((__m128i*)half, _mm256_cvtps_ph(_mm256_loadu_ps(single), _MM_FROUND_TO_NEAREST_INT));
    return true;
  }
#endif
};

struct BF16 {
  static float widen(uint16_t half) { return widen_bf16(half); }
  static uint16_t narrow(float single) { return narrow_bf16(single); }
#if defined(FC_ISA_AVX512)
  static constexpr int64_t lanes = 16;
  static bool widen_vector(int64_t count, const uint16_t* half, float* single) {
    const __mmask16 mask = first_lanes(count);
    const __m512i wide =
        _mm512_maskz_slli_epi32(mask, _mm512_maskz_cvtepu16_epi32(mask, _mm256_maskz_loadu_epi16(mask, half)), 16);
    if (has_nan(wide, mask)) return false;
    _mm512_mask_storeu_epi32(single, mask, wide);
    return true;
  }
  static bool narrow_vector(int64_t count, const float* single, uint16_t* half) {
    const __mmask16 mask = first_lanes(count);
    const __m512i wide = _mm512_maskz_loadu_epi32(mask, single);
    if (has_nan(wide, mask)) return false;
    _mm512_mask_cvtepi32_storeu_epi16(half, mask, _mm512_maskz_srli_epi32(mask, rounded_bf16(wide), 16));
    return true;
  }
  // 32 numbers: one comparison finds a NaN in either vector, one permutation joins the upper halves.
  static bool narrow_pair(const float* single, uint16_t* half) {
    const __m512i a = _mm512_loadu_si512(single), b = _mm512_loadu_si512(single + lanes);
    if (_mm512_cmp_ps_mask(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), _CMP_UNORD_Q) != 0) return false;
    alignas(64) static constexpr uint16_t kUpper[32] = {1,  3,  5,  7,  9,  11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31,
                                                        33, 35, 37, 39, 41, 43, 45, 47, 49, 51, 53, 55, 57, 59, 61, 63};
    const __m512i upper = _mm512_load_si512(kUpper);
    _mm512_storeu_si512(half, _mm512_permutex2var_epi16(rounded_bf16(a), upper, rounded_bf16(b)));
    return true;
  }
#endif
};

// A row by whole vectors, then its rest; what a vector does not take, NaNs and short rests, number by number. Without
// vectors of its own a loop of such numbers is the compiler's to vectorise.
template <class H>
FC_INLINE void widen_row(int64_t count, const uint16_t* half, float* single) {
  const auto some = [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    if (!H::widen_vector(n, half + i, single + i))
      for (int64_t j = i; j < i + n; ++j) single[j] = H::widen(half[j]);
  };
  int64_t i = 0;
  for (; i + H::lanes <= count; i += H::lanes) some(i, H::lanes);
  if (i < count) some(i, count - i);
}
template <class H>
FC_INLINE void narrow_row(int64_t count, const float* single, uint16_t* half) {
  const auto some = [&](int64_t i, int64_t n) __attribute__((always_inline)) {
    if (!H::narrow_vector(n, single + i, half + i))
      for (int64_t j = i; j < i + n; ++j) half[j] = H::narrow(single[j]);
  };
  int64_t i = 0;
  if constexpr (requires { H::narrow_pair(single, half); })
    for (; i + 2 * H::lanes <= count; i += 2 * H::lanes)
      if (!H::narrow_pair(single + i, half + i)) some(i, H::lanes), some(i + H::lanes, H::lanes);
  for (; i + H::lanes <= count; i += H::lanes) some(i, H::lanes);
  if (i < count) some(i, count - i);
}

template <class H>
void widen_rows(int64_t rows, int64_t count, const uint16_t* half, int64_t half_pitch, float* single,
                int64_t single_pitch) {
  if (half_pitch == count && single_pitch == count) count *= rows, rows = 1;
  for (; rows > 0; --rows, half += half_pitch, single += single_pitch) {
    if constexpr (requires { H::lanes; })
      widen_row<H>(count, half, single);
    else
      for (int64_t i = 0; i < count; ++i) single[i] = H::widen(half[i]);
  }
}
template <class H>
void narrow_rows(int64_t rows, int64_t count, const float* single, int64_t single_pitch, uint16_t* half,
                 int64_t half_pitch) {
  if (half_pitch == count && single_pitch == count) count *= rows, rows = 1;
  for (; rows > 0; --rows, half += half_pitch, single += single_pitch) {
    if constexpr (requires { H::lanes; })
      narrow_row<H>(count, single, half);
    else
      for (int64_t i = 0; i < count; ++i) half[i] = H::narrow(single[i]);
  }
}

}  // namespace

const ConvertKernels kConvertKernels = {{widen_rows<F16>, narrow_rows<F16>}, {widen_rows<BF16>, narrow_rows<BF16>}};

}  // namespace fastconv::FC_ISA
