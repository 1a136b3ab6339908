// SPDX-License-Identifier: Apache-2.0
// The vectors and register count of AVX-512, spelled out by the compiler for its baseline. Only the checks build it
// (named in FASTCONV_ISAS): it runs the tiles and the 16-lane code of the AVX-512 kernels on machines without AVX-512.
#pragma once

namespace fastconv::FC_ISA {

inline constexpr int kVectorBytes = 64;
inline constexpr int kVectorRegisters = 32;

}  // namespace fastconv::FC_ISA
