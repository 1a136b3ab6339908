// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include <cstring>

namespace fastconv {

extern const Algorithm kDepthwise, kGrouped, kPointwise1x1, kWinogradF4x43x3, kWinogradF2x23x3, kWinogradF2x25x5,
    kWinogradF43, kWinogradStride2, kImplicitGemm, kIm2colGemm, kDirect, kReference;

namespace {
const Algorithm* const kAlgorithms[] = {&kDepthwise,       &kGrouped,         &kPointwise1x1, &kWinogradF4x43x3,
                                        &kWinogradF2x23x3, &kWinogradF2x25x5, &kWinogradF43,  &kWinogradStride2,
                                        &kImplicitGemm,    &kIm2colGemm,      &kDirect,       &kReference};
}

int algorithm_count() { return sizeof kAlgorithms / sizeof kAlgorithms[0]; }
const Algorithm& algorithm_at(int index) { return *kAlgorithms[index]; }
const Algorithm* find_algorithm(const char* name) {
  for (const Algorithm* algorithm : kAlgorithms)
    if (strcmp(algorithm->name, name) == 0) return algorithm;
  return nullptr;
}

}  // namespace fastconv
