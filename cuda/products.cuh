// SPDX-License-Identifier: Apache-2.0
// Kinds of arithmetic on the tensor cores: the elements in memory, and what is done with fragments (device.cuh has their
// layouts). sums += a b for `down` blocks of 16 rows and `across` blocks of 8 columns; b holds two blocks at a time.
#pragma once

#include "element.cuh"

namespace fastconv::cuda {

template <class Element, void (*mma)(float (&)[4], const uint32_t (&)[4], uint32_t, uint32_t)>
struct OneProduct {
  typedef Element T;
  static constexpr bool kPromotes = false;
  static constexpr int kProducts = 1;  // of the tensor cores for each
  template <int down, int across>
  static __device__ __forceinline__ void multiply(uint32_t (&a)[down][4], uint32_t (&b)[(across + 1) / 2][4],
                                                  float (&sums)[down][across][4]) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int i = 0; i < down * 4; ++i) a[i / 4][i % 4] = as_tf32(float_of_bits(a[i / 4][i % 4]));
#pragma unroll
      for (int i = 0; i < across * 2; ++i) b[i / 4][i % 4] = as_tf32(float_of_bits(b[i / 4][i % 4]));
    }
#pragma unroll
    for (int i = 0; i < down; ++i)
#pragma unroll
      for (int j = 0; j < across; ++j) mma(sums[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
  }
};
using HalfProduct = OneProduct<Half, mma_f16>;
using BFloat16Product = OneProduct<BFloat16, mma_bf16>;
using Tf32Product = OneProduct<float, mma_tf32>;

// float32 from three products of 11 bits each: x = hi + lo to 22 bits or more; lo lo', below 2^-22 of the product, is
// left out. An infinity has no rest: it becomes NaN. Tensor cores round sums towards zero, which would add up: after
// every step sums are moved to others, which are rounded to nearest. Simulated with sums cut off after each mma, 32 to
// 2304 terms: 0.3 to 1.4 times the error of plain sums; 2 steps 0.4 to 2.8, 4 steps 0.7 to 2.9, never 2.8 to 26.
// (Ootomo and Yokota, "Recovering single precision accuracy from tensor cores while surpassing the FP32 theoretical
// peak performance", 2022.)
struct StrictProduct {
  typedef float T;
  static constexpr bool kPromotes = true;
  static constexpr int kProducts = 3;
  static __device__ __forceinline__ void split(uint32_t& value, uint32_t& low) {
    const float whole = float_of_bits(value);
    value = as_tf32(whole);
    low = as_tf32(whole - float_of_bits(value));
  }
  template <int down, int across>
  static __device__ __forceinline__ void multiply(uint32_t (&a)[down][4], uint32_t (&b)[(across + 1) / 2][4],
                                                  float (&sums)[down][across][4]) {
    uint32_t a_low[down][4], b_low[(across + 1) / 2][4];
#pragma unroll
    for (int i = 0; i < down * 4; ++i) split(a[i / 4][i % 4], a_low[i / 4][i % 4]);
#pragma unroll
    for (int i = 0; i < across * 2; ++i) split(b[i / 4][i % 4], b_low[i / 4][i % 4]);
    // The small products first; a sum's next product comes after those of all others.
#pragma unroll
    for (int part = 0; part < 3; ++part)
#pragma unroll
      for (int i = 0; i < down; ++i)
#pragma unroll
        for (int j = 0; j < across; ++j) {
          const uint32_t (&left)[4] = part == 0 ? a_low[i] : a[i];
          const uint32_t (&right)[4] = part == 1 ? b_low[j / 2] : b[j / 2];
          mma_tf32(sums[i][j], left, right[j % 2 * 2], right[j % 2 * 2 + 1]);
        }
  }
};

}  // namespace fastconv::cuda
