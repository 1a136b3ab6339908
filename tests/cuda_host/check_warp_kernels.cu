// SPDX-License-Identifier: Apache-2.0
// Functions of a warp, and the layouts of tensor cores' fragments, against plain products of matrices.
#include "../../cuda/element.cuh"
#include "check_kernels.h"

namespace fastconv::cuda {
namespace {

enum class Bug {
  kNone,
  kNoSync,
  kShuffleInstead,
  kHalfWarp,
  kTwoFunctions,
  kNotRounded,
  kMisaligned,
  kOutside,
};

constexpr int kThreads = 64, kBlocks = 8;

// ---- Shuffles --------------------------------------------------------------------------------------------------------
template <class T, Bug bug>
__global__ void __launch_bounds__(kThreads) shuffles(const float* from, float* to) {
  const int me = static_cast<int>(threadIdx.x), lane = me % kWarp;
  const int64_t at = int64_t{blockIdx.x} * kThreads + me;
  T sum = static_cast<T>(from[at]);
  if (bug != Bug::kHalfWarp || lane < 16)
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  const T next = shuffle_down(static_cast<T>(from[at]), 3);
  T first;
  if constexpr (bug == Bug::kTwoFunctions)
    first = lane % 2 ? shuffle(next, 4) : shuffle(next, 5);
  else
    first = shuffle(next, 5);
  to[at] = static_cast<float>(sum + 1000 * next + 100000 * first);
}

void expect_shuffles(const float* from, float* to) {
  for (int at = 0; at < kBlocks * kThreads; ++at) {
    const int begin = at / kWarp * kWarp, lane = at % kWarp;
    float sum = 0;
    for (int i = 0; i < kWarp; ++i) sum += from[begin + i];
    const float next = lane + 3 < kWarp ? from[at + 3] : from[at];
    to[at] = sum + 1000 * next + 100000 * from[begin + 8];
  }
}

template <class T, Bug bug>
int run_shuffles(const RunContext& context, const float* from, float* to) {
  return launch(context, shuffles<T, bug>, Grid{4, 2}, kThreads, 0, from, to);
}
// The grid's second axis is not in `at`: both halves of it write the same. Kept out of the sound ones.
template <class T>
int run_line(const RunContext& context, const float* from, float* to) {
  return launch(context, shuffles<T, Bug::kNone>, Grid{kBlocks}, kThreads, 0, from, to);
}

// ---- A warp's own shared memory ----------------------------------------------------------------------------------------
struct Lanes {
  float of[kThreads];
};

template <Bug bug>
__global__ void __launch_bounds__(kThreads) turned(const float* from, float* to) {
  auto& s = shared<Lanes>();
  const int me = static_cast<int>(threadIdx.x), lane = me % kWarp;
  for (int i = 0; i < kNumbers; i += kThreads) {
    s.of[me] = from[i + me];
    if (bug == Bug::kShuffleInstead)
      shuffle(me, 0);
    else if (bug != Bug::kNoSync)
      sync_warp();
    to[i + me] = s.of[me - lane + (lane + 1) % kWarp];
    sync_warp();
  }
}

void expect_turned(const float* from, float* to) {
  for (int i = 0; i < kNumbers; ++i) to[i] = from[i / kWarp * kWarp + (i + 1) % kWarp];
}

template <Bug bug>
int run_turned(const RunContext& context, const float* from, float* to) {
  return launch(context, turned<bug>, Grid{1}, kThreads, sizeof(Lanes), from, to);
}

// ---- Tensor cores: d = a b of 16 x depth and depth x 8 numbers, both stored by rows ------------------------------------
template <class T>
__device__ __forceinline__ uint32_t two(T low, T high) {
  return low.bits | static_cast<uint32_t>(high.bits) << 16;
}
__device__ __forceinline__ void multiply(Half, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_f16(d, a, b0, b1);
}
__device__ __forceinline__ void multiply(BFloat16, float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  mma_bf16(d, a, b0, b1);
}

template <class T>
struct alignas(16) Tiles {
  T a[16][16], b[16][8];
};

__device__ __forceinline__ void put(float* to, const float (&d)[4]) {
  const int row = static_cast<int>(threadIdx.x) / 4, column = 2 * (static_cast<int>(threadIdx.x) % 4);
  for (int i = 0; i < 4; ++i) to[(row + 8 * (i / 2)) * 8 + column + i % 2] = d[i];
}

// Twice: with fragments from load_matrices, and with fragments put together by the words of device.cuh.
template <class T, Bug bug>
__global__ void __launch_bounds__(kWarp) halves(const float* from, float* to) {
  auto& s = shared<Tiles<T>>();
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += kWarp) s.a[i / 16][i % 16] = narrowed<T>(from[i]);
  for (int i = lane; i < 128; i += kWarp) s.b[i / 8][i % 8] = narrowed<T>(from[256 + i]);
  if (bug != Bug::kNoSync) sync_warp();
  uint32_t a[4], b[4];
  const T* row = &s.a[lane % 16][lane / 16 * 8];
  if (bug == Bug::kMisaligned && lane == 9) ++row;
  if (bug == Bug::kOutside && lane == 9) row += sizeof(s) / sizeof(T);
  load_matrices(a, row);
  load_matrices_transposed(b, s.b[lane % 16]);  // the upper lanes' matrices are not needed
  float d[4] = {1, 2, 3, 4};
  multiply(T(), d, a, b[0], b[1]);
  put(to, d);

  const int line = lane / 4, pair = 2 * (lane % 4);
  for (int i = 0; i < 4; ++i) {
    const T* at = &s.a[line + 8 * (i % 2)][pair + 8 * (i / 2)];
    a[i] = two(at[0], at[1]);
  }
  for (int i = 0; i < 2; ++i) b[i] = two(s.b[pair + 8 * i][line], s.b[pair + 8 * i + 1][line]);
  float e[4] = {1, 2, 3, 4};
  multiply(T(), e, a, b[0], b[1]);
  put(to + 128, e);
}

// What d[] began with: 1, 2, 3 and 4, by the place of the element in it.
float begun(int row, int column) { return static_cast<float>(1 + column % 2 + 2 * (row / 8)); }

void expect_product(const float* a, const float* b, int depth, float* to) {
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      double sum = static_cast<double>(begun(row, column));
      for (int i = 0; i < depth; ++i)
        sum += static_cast<double>(a[row * depth + i]) * static_cast<double>(b[i * 8 + column]);
      to[row * 8 + column] = static_cast<float>(sum);
    }
}
void expect_halves(const float* from, float* to) {
  expect_product(from, from + 256, 16, to);
  expect_product(from, from + 256, 16, to + 128);
}

template <class T, Bug bug>
int run_halves(const RunContext& context, const float* from, float* to) {
  return launch(context, halves<T, bug>, Grid{1}, kWarp, sizeof(Tiles<T>), from, to);
}

template <Bug bug>
__global__ void __launch_bounds__(kWarp) tf32(const float* from, float* to) {
  const int row = static_cast<int>(threadIdx.x) / 4, column = static_cast<int>(threadIdx.x) % 4;
  uint32_t a[4], b[2];
  // The lower bits go: what is multiplied are the small integers.
  const auto rounded = [](float value) {
    return bug == Bug::kNotRounded ? bits_of_float(value * (1 + 0x1p-20f)) : as_tf32(value * (1 + 0x1p-20f));
  };
  for (int i = 0; i < 4; ++i) a[i] = rounded(from[(row + 8 * (i % 2)) * 8 + column + 4 * (i / 2)]);
  for (int i = 0; i < 2; ++i) b[i] = rounded(from[128 + (column + 4 * i) * 8 + row]);
  float d[4] = {1, 2, 3, 4};
  mma_tf32(d, a, b[0], b[1]);
  put(to, d);
}
void expect_tf32(const float* from, float* to) { expect_product(from, from + 128, 8, to); }

template <Bug bug>
int run_tf32(const RunContext& context, const float* from, float* to) {
  return launch(context, tf32<bug>, Grid{1}, kWarp, 0, from, to);
}

}  // namespace

const Trial kWarpTrials[] = {
    {"shuffles of float", Caught::kNever, run_line<float>, expect_shuffles},
    {"shuffles of double", Caught::kNever, run_line<double>, expect_shuffles},
    {"shuffles of int64", Caught::kNever, run_line<int64_t>, expect_shuffles},
    {"turned", Caught::kNever, run_turned<Bug::kNone>, expect_turned},
    {"mma_f16", Caught::kNever, run_halves<Half, Bug::kNone>, expect_halves},
    {"mma_bf16", Caught::kNever, run_halves<BFloat16, Bug::kNone>, expect_halves},
    {"mma_tf32", Caught::kNever, run_tf32<Bug::kNone>, expect_tf32},
    {"shuffles, by two blocks each", Caught::kByShadow, run_shuffles<float, Bug::kNone>, expect_shuffles},
    {"shuffles by half a warp", Caught::kAlways, run_shuffles<float, Bug::kHalfWarp>, expect_shuffles},
    {"two shuffles at once", Caught::kAlways, run_shuffles<float, Bug::kTwoFunctions>, expect_shuffles},
    {"turned without sync_warp", Caught::kByValues, run_turned<Bug::kNoSync>, expect_turned},
    {"turned, with a shuffle for sync_warp", Caught::kByShadow, run_turned<Bug::kShuffleInstead>, expect_turned},
    {"load_matrices without sync_warp", Caught::kByShadow, run_halves<Half, Bug::kNoSync>, expect_halves},
    {"load_matrices of an odd row", Caught::kAlways, run_halves<Half, Bug::kMisaligned>, expect_halves},
    {"load_matrices of a row outside", Caught::kAlways, run_halves<BFloat16, Bug::kOutside>, expect_halves},
    {"mma_tf32 of numbers that were not rounded", Caught::kAlways, run_tf32<Bug::kNotRounded>, expect_tf32},
    {nullptr, Caught::kNever, nullptr, nullptr},
};

}  // namespace fastconv::cuda
