// SPDX-License-Identifier: Apache-2.0
// The list of algorithms on the device, by hand: fast ones first, `direct`, which refuses nothing, last.
#include "registry.h"

#include "verified.h"

namespace fastconv::cuda {

extern const Algorithm kDepthwise, kGroupedTensor, kGroupedTf32, kGrouped, kPointwise1x1, kWinogradF4x43x3,
    kWinogradF2x23x3, kImplicitGemm, kImplicitGemmTf32, kIm2colGemm, kDirect;

const Algorithm* const kAlgorithms[] = {&kDepthwise,        &kGroupedTensor,   &kGroupedTf32,     &kGrouped,
                                        &kPointwise1x1,     &kWinogradF4x43x3, &kWinogradF2x23x3, &kImplicitGemm,
                                        &kImplicitGemmTf32, &kIm2colGemm,      &kDirect};
const int32_t kAlgorithmCount = sizeof kAlgorithms / sizeof kAlgorithms[0];
const char* const* const kVerified = kVerifiedNames;
const int32_t kVerifiedCount = kVerifiedNameCount;

}  // namespace fastconv::cuda
