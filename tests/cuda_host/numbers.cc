// SPDX-License-Identifier: Apache-2.0
// Conversions of the device's formats, bit by bit: none depends on what the host's compiler or processor has.
#include "emulation.h"

namespace fastconv::cuda::host {

float float_of_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023;
  if (exponent == 31) return float_of_bits(sign | 0x7f800000 | mantissa << 13);
  if (exponent) return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

namespace {

// value / 2^shift, to nearest, ties to even.
uint32_t shifted(uint32_t value, int shift) {
  const uint32_t half = 1u << (shift - 1), rest = value & (2 * half - 1), whole = value >> shift;
  return whole + (rest > half || (rest == half && (whole & 1)));
}

}  // namespace

uint16_t half_of_float(float value) {
  const uint32_t bits = bits_of_float(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7fff;  // as the device has it: one NaN
  if (magnitude >= 0x47800000) return static_cast<uint16_t>(sign | 0x7c00);
  const int exponent = static_cast<int>(magnitude >> 23);
  if (exponent >= 113) return static_cast<uint16_t>(sign | shifted(magnitude - (112u << 23), 13));
  // Below 2^-14: units of 2^-24. Below 2^-25, and what is less than a float's smallest exponent, is 0.
  if (exponent < 102) return static_cast<uint16_t>(sign);
  return static_cast<uint16_t>(sign | shifted((magnitude & 0x7fffff) | 0x800000, 126 - exponent));
}

uint16_t bfloat16_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
  return static_cast<uint16_t>(shifted(bits, 16));
}

uint32_t tf32_of_float(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fffe000;
  return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;
}

}  // namespace fastconv::cuda::host
