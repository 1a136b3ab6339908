// SPDX-License-Identifier: Apache-2.0
// The baseline of the compiler's target: 16-byte vectors (SSE2 on x86-64), no fused multiply-add assumed.
#pragma once

namespace fastconv::FC_ISA {

inline constexpr int kVectorBytes = 16;
inline constexpr int kVectorRegisters = 16;

}  // namespace fastconv::FC_ISA
