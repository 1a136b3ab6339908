// SPDX-License-Identifier: Apache-2.0
// cuda/device.cuh on the CPU: the same names with the same meaning, included at its end where FASTCONV_CUDA_HOST is
// defined. Each CUDA thread is a fibre (fibre.h); what a block or a warp does together is done once, by its last thread to
// arrive (block.cc). Wrappers are inlined, so that a return address names the place in the kernel.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define threadIdx (::fastconv::cuda::host::running.thread)
#define blockIdx (::fastconv::cuda::host::running.block)
#define blockDim (::fastconv::cuda::host::running.threads)
#define gridDim (::fastconv::cuda::host::running.blocks)

namespace fastconv::cuda {
namespace host {

struct Index {
  unsigned x, y, z;
};
struct Place {
  Index thread, block, threads, blocks;
};
extern Place writable_running;
inline const Place& running = writable_running;  // of the thread that runs

// ---- block.cc ------------------------------------------------------------------------------------------------------
// Runs body(closure) for every thread of the grid.
int run_grid(const RunContext& context, Grid grid, int threads, size_t shared_bytes, void (*body)(const void*),
             const void* closure);
void* shared_memory(size_t bytes);
void barrier();

// What a thread brings to a function of its warp; `work` gets those of all 32 and does it for all.
struct Brought {
  void* to;
  const void *a, *b;
  uint64_t number;
};
typedef void (*WarpWork)(const Brought* lanes);
void together(WarpWork work, const Brought& brought);

void copy_async(void* to, const void* from, int bytes, bool valid);
void copy_async_commit();
void copy_async_wait(int pending);

// ---- warp.cc -------------------------------------------------------------------------------------------------------
void meet(const Brought* lanes);
void exchange(const Brought* lanes);  // `number` is lane + 32 * bytes
void read_matrices(const Brought* lanes);
void read_matrices_transposed(const Brought* lanes);
void multiply_f16(const Brought* lanes);
void multiply_bf16(const Brought* lanes);
void multiply_tf32(const Brought* lanes);

// ---- numbers.cc: conversions, to nearest, ties to even ---------------------------------------------------------------
float float_of_half(uint16_t bits);
uint16_t half_of_float(float value);
uint16_t bfloat16_of_float(float value);
inline float float_of_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
uint32_t tf32_of_float(float value);  // halves away from zero

template <class T>
__forceinline__ T from_lane(T value, int lane) {
  T result = value;
  together(exchange, {&result, &value, nullptr, static_cast<uint64_t>(lane) + 32 * sizeof(T)});
  return result;
}

}  // namespace host

// The device has these for float too; without `using`, C's of double would be called.
using std::ceil, std::cos, std::erf, std::erfc, std::exp, std::exp2, std::expm1, std::fabs, std::floor, std::fma;
using std::fmax, std::fmin, std::isinf, std::isnan, std::log, std::log1p, std::log2, std::pow, std::rint, std::sin;
using std::sqrt, std::tanh, std::trunc;

template <class... Parameters>
int launch(const RunContext& context, void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
           const Parameters&... arguments) {
  if (is_counted_only(context)) return 0;
  const auto call = [&] { kernel(arguments...); };
  typedef decltype(call) Call;
  return host::run_grid(
      context, grid, threads, shared_bytes, [](const void* closure) { (*static_cast<Call*>(closure))(); }, &call);
}

template <class Smem>
__forceinline__ Smem& shared() {
  return *static_cast<Smem*>(host::shared_memory(sizeof(Smem)));
}
__forceinline__ void sync() { host::barrier(); }

__forceinline__ void sync_warp() { host::together(host::meet, {}); }
template <class T>
__forceinline__ T shuffle(T value, int lane) {
  return host::from_lane(value, lane & (kWarp - 1));
}
template <class T>
__forceinline__ T shuffle_xor(T value, int mask) {
  return host::from_lane(value, static_cast<int>((threadIdx.x ^ static_cast<unsigned>(mask)) % kWarp));
}
// Beyond the last lane: the thread's own value.
template <class T>
__forceinline__ T shuffle_down(T value, int delta) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  return host::from_lane(value, lane + delta < kWarp ? lane + delta : lane);
}

template <int bytes>
__forceinline__ void copy_async(void* to_shared, const void* from, bool valid) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  host::copy_async(to_shared, from, bytes, valid);
}
__forceinline__ void copy_async_commit() { host::copy_async_commit(); }
template <int pending>
__forceinline__ void copy_async_wait() {
  host::copy_async_wait(pending);
}

__forceinline__ void load_matrices(uint32_t (&fragments)[4], const void* row) {
  host::together(host::read_matrices, {fragments, row, nullptr, 0});
}
__forceinline__ void load_matrices_transposed(uint32_t (&fragments)[4], const void* row) {
  host::together(host::read_matrices_transposed, {fragments, row, nullptr, 0});
}
__forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  host::together(host::multiply_f16, {d, a, b, 0});
}
__forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  host::together(host::multiply_bf16, {d, a, b, 0});
}
__forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[2] = {b0, b1};
  host::together(host::multiply_tf32, {d, a, b, 0});
}
inline uint32_t as_tf32(float value) { return host::tf32_of_float(value); }

__forceinline__ uint64_t multiply_high(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b >> 64);
}
__forceinline__ uint32_t multiply_high(uint32_t a, uint32_t b) {
  return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32);
}
using host::bits_of_float, host::float_of_bits;

}  // namespace fastconv::cuda
