// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include <cstdio>
#include <cstring>

namespace fastconv {

extern const Algorithm kDepthwise, kGrouped, kPointwise1x1, kWinogradF4x43x3, kWinogradF2x23x3, kWinogradF2x25x5,
    kWinogradF43, kWinogradStride2, kImplicitGemm, kIm2colGemm, kDirect, kReference;

namespace {
const Algorithm* const kAlgorithms[] = {&kDepthwise,       &kGrouped,         &kPointwise1x1, &kWinogradF4x43x3,
                                        &kWinogradF2x23x3, &kWinogradF2x25x5, &kWinogradF43,  &kWinogradStride2,
                                        &kImplicitGemm,    &kIm2colGemm,      &kDirect,       &kReference};
}

namespace {

// The names that only a device has, so that options can ask for them.
bool refuse(const ConvProblem*, const Machine*, char* text) {
  snprintf(text, kTextCapacity, "implicit_gemm_tf32 runs on tensor cores: it needs arrays on a CUDA device");
  return true;
}
const Algorithm kImplicitGemmTf32 = {
    "implicit_gemm_tf32", 8192, 0, SameBits::kOne, refuse, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};

}  // namespace

int algorithm_count() { return sizeof kAlgorithms / sizeof kAlgorithms[0]; }
const Algorithm& algorithm_at(int index) { return *kAlgorithms[index]; }
const Algorithm* const* algorithm_list() { return kAlgorithms; }
const Algorithm* find_algorithm(const char* name) {
  for (const Algorithm* algorithm : kAlgorithms)
    if (strcmp(algorithm->name, name) == 0) return algorithm;
  return strcmp(name, kImplicitGemmTf32.name) == 0 ? &kImplicitGemmTf32 : nullptr;
}
const Algorithm* find_algorithm(const Machine& machine, const char* name) {
  for (int i = 0; i < machine.algorithm_count; ++i)
    if (strcmp(machine.algorithms[i]->name, name) == 0) return machine.algorithms[i];
  return nullptr;
}

}  // namespace fastconv
