// SPDX-License-Identifier: Apache-2.0
// Written by docs/make_gpu.py; docs/gpu.md says on which GPU. The automatic choice takes these before others.
#pragma once

#include <cstdint>

namespace fastconv::cuda {

// clang-format off
inline constexpr const char* kVerifiedNames[] = {nullptr};  // the last one is there lest there be none
// clang-format on
inline constexpr int32_t kVerifiedNameCount = 0;

}  // namespace fastconv::cuda
