// SPDX-License-Identifier: Apache-2.0
#include "registry.h"

#include <cstdio>
#include <cstring>

namespace fastconv {

extern const Algorithm kDepthwise, kGrouped, kPointwise1x1, kWinogradF4x43x3, kWinogradF2x23x3, kWinogradF3x34x4,
    kWinogradF5x52x2, kWinogradF2x25x5, kWinogradF43, kWinogradStride2, kImplicitGemmAmx, kImplicitGemmAmxBf16x2,
    kImplicitGemm, kIm2colGemm, kDirect, kReference;

namespace {
const Algorithm* const kAlgorithms[] = {
    &kDepthwise,       &kGrouped,         &kPointwise1x1, &kWinogradF4x43x3, &kWinogradF2x23x3, &kWinogradF3x34x4,
    &kWinogradF5x52x2, &kWinogradF2x25x5, &kWinogradF43,  &kWinogradStride2, &kImplicitGemmAmx, &kImplicitGemmAmxBf16x2,
    &kImplicitGemm,    &kIm2colGemm,      &kDirect,       &kReference};
}

namespace {

// The names that only a device has, so that options can ask for them.
template <const char* const& name>
bool refuse(const ConvProblem*, const Machine*, char* text) {
  snprintf(text, kTextCapacity, "%s runs on tensor cores: it needs arrays on a CUDA device", name);
  return true;
}
constexpr const char *kGroupedTensor = "grouped_tensor", *kGroupedTf32 = "grouped_tf32",
                     *kImplicitGemmTf32 = "implicit_gemm_tf32";
template <const char* const& name>
constexpr Algorithm on_tensor_cores(double error_factor) {
  return {name, error_factor, 0, SameBits::kOne, refuse<name>, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
}
constexpr Algorithm kDevice[] = {on_tensor_cores<kGroupedTensor>(2), on_tensor_cores<kGroupedTf32>(8192),
                                 on_tensor_cores<kImplicitGemmTf32>(8192)};

}  // namespace

int algorithm_count() { return sizeof kAlgorithms / sizeof kAlgorithms[0]; }
const Algorithm& algorithm_at(int index) { return *kAlgorithms[index]; }
const Algorithm* const* algorithm_list() { return kAlgorithms; }
const Algorithm* find_algorithm(const char* name) {
  for (const Algorithm* algorithm : kAlgorithms)
    if (strcmp(algorithm->name, name) == 0) return algorithm;
  for (const Algorithm& algorithm : kDevice)
    if (strcmp(algorithm.name, name) == 0) return &algorithm;
  return nullptr;
}
const Algorithm* find_algorithm(const Machine& machine, const char* name) {
  for (int i = 0; i < machine.algorithm_count; ++i)
    if (strcmp(machine.algorithms[i]->name, name) == 0) return machine.algorithms[i];
  return nullptr;
}

}  // namespace fastconv
