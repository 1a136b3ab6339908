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

#if defined(FC_ISA_AVX512)
constexpr __mmask16 kAll = 0xFFFF;  // gcc 12 warns of its own unmasked forms, https://gcc.gnu.org/PR105593
#endif

// What whole vectors of hardware conversions leave over; everything where there are none.
int64_t widen_f16_vectors(int64_t count, const uint16_t* half, float* single) {
  int64_t i = 0;
#if defined(FC_ISA_AVX512)
  for (; i + 16 <= count; i += 16)
    _mm512_storeu_ps(single + i, _mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256((const __m256i*)(half + i))));
#elif defined(FC_ISA_AVX2)
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(single + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(half + i))));
#else
  (void)count, (void)half, (void)single;
#endif
  return i;
}
int64_t narrow_f16_vectors(int64_t count, const float* single, uint16_t* half) {
  int64_t i = 0;
#if defined(FC_ISA_AVX512)
  for (; i + 16 <= count; i += 16)
    _mm256_storeu_si256((__m256i*)(half + i),
                        _mm512_maskz_cvtps_ph(kAll, _mm512_loadu_ps(single + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(FC_ISA_AVX2)
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128((__m128i*)(half + i), _mm256_cvtps_ph(_mm256_loadu_ps(single + i), _MM_FROUND_TO_NEAREST_INT));
#else
  (void)count, (void)single, (void)half;
#endif
  return i;
}

void widen_f16_all(int64_t count, const uint16_t* half, float* single) {
  for (int64_t i = widen_f16_vectors(count, half, single); i < count; ++i) single[i] = widen_f16(half[i]);
}
void narrow_f16_all(int64_t count, const float* single, uint16_t* half) {
  for (int64_t i = narrow_f16_vectors(count, single, half); i < count; ++i) half[i] = narrow_f16(single[i]);
}
void widen_bf16_all(int64_t count, const uint16_t* half, float* single) {
  for (int64_t i = 0; i < count; ++i) single[i] = widen_bf16(half[i]);
}
void narrow_bf16_all(int64_t count, const float* single, uint16_t* half) {
  for (int64_t i = 0; i < count; ++i) half[i] = narrow_bf16(single[i]);
}

}  // namespace

const ConvertKernels kConvertKernels = {{widen_f16_all, narrow_f16_all}, {widen_bf16_all, narrow_bf16_all}};

}  // namespace fastconv::FC_ISA
