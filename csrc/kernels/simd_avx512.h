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
}  // namespace fastconv::FC_ISA
