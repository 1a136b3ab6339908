// SPDX-License-Identifier: Apache-2.0
// Advanced SIMD of AArch64: 4 floats, 32 registers, fused multiply-add by contraction.
#pragma once

namespace fastconv::FC_ISA {

inline constexpr int kVectorBytes = 16;
inline constexpr int kVectorRegisters = 32;

}  // namespace fastconv::FC_ISA
