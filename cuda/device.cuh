// SPDX-License-Identifier: Apache-2.0
// What kernels may use of the device, by names of our own: nvcc compiles them to the instructions, and the host build of
// the tests (tests/cuda_host/device_host.h) runs the same kernel sources on the CPU, one fiber for each thread. So a kernel
// contains no inline assembly, no <<<>>>, no static shared arrays and no word of CUDA's beyond __global__, __device__,
// __launch_bounds__, __restrict__ and threadIdx, blockIdx, blockDim and gridDim.
//
// Rules that both builds need: shared memory is one struct of the kernel's, got by shared<Smem>() and launched with
// sizeof(Smem); threads of a warp communicate through the functions below only, never by being in step; no block waits for
// another; no thread leaves the kernel before a barrier that others of its block (or, for warp functions, its warp) reach;
// floating-point sums never go through atomics.
#pragma once

#include <cstddef>
#include <cstdint>

#include "watch.h"

#if !defined(FASTCONV_CUDA_HOST)
#include <cuda_runtime.h>

#include <cstdio>
#endif

namespace fastconv::cuda {

constexpr int kWarp = 32;

struct Grid {
  int64_t x, y = 1, z = 1;
};
constexpr int64_t kMostBlocksX = 2147483647, kMostBlocksYZ = 65535;

#if !defined(FASTCONV_CUDA_HOST)

// ---- Launching -----------------------------------------------------------------------------------------------------
// Puts a kernel into the caller's stream; neither waits nor allocates. A grid without blocks is no launch. Returns 0, or
// a status and a sentence in `error` (kTextCapacity characters).
template <class... Parameters>
int launch(const RunContext& context, void (*kernel)(Parameters...), Grid grid, int threads, size_t shared_bytes,
           const Parameters&... arguments) {
  if (grid.x < 1 || grid.y < 1 || grid.z < 1 || is_counted_only(context)) return 0;
  constexpr size_t kWithoutAsking = 48 << 10;
  cudaError_t status = cudaSuccess;
  if (shared_bytes > kWithoutAsking)
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  if (status == cudaSuccess) {
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
    const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
    status = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), blocks, dim3(static_cast<unsigned>(threads)),
                              pointers, shared_bytes, static_cast<cudaStream_t>(context.stream));
  }
  if (status == cudaSuccess) return 0;
  snprintf(context.error, kTextCapacity, "a kernel could not be launched: %s", cudaGetErrorString(status));
  return 1;
}

// ---- A block -------------------------------------------------------------------------------------------------------
template <class Smem>
__device__ __forceinline__ Smem& shared() {
  extern __shared__ __align__(128) unsigned char fastconv_shared[];
  return *reinterpret_cast<Smem*>(fastconv_shared);
}
__device__ __forceinline__ void sync() { __syncthreads(); }

// ---- A warp: all 32 threads of it must call these ------------------------------------------------------------------
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
template <class T>
__device__ __forceinline__ T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
template <class T>
__device__ __forceinline__ T shuffle_down(T value, int delta) {
  return __shfl_down_sync(0xffffffffu, value, delta);
}

// ---- Copies to shared memory that run while the thread goes on (sm_80; before it they are done at once) --------------
// `bytes` is 4, 8 or 16, both ends aligned to it. Not `valid`: zeros are written and `from` is not read.
template <int bytes>
__device__ __forceinline__ void copy_async(void* to_shared, const void* from, bool valid) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
#if __CUDA_ARCH__ >= 800
  const unsigned to = static_cast<unsigned>(__cvta_generic_to_shared(to_shared));
  const int present = valid ? bytes : 0;
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(to), "l"(from), "r"(present) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;\n" ::"r"(to), "l"(from), "n"(bytes), "r"(present)
                 : "memory");
#else
  struct alignas(bytes) Piece {
    uint32_t words[bytes / 4];
  };
  *static_cast<Piece*>(to_shared) = valid ? *static_cast<const Piece*>(from) : Piece{};
#endif
}
// Closes a group of copies (an empty one too), and waits until at most `pending` of this thread's groups are unfinished.
// What other threads copied is there only after a barrier too.
__device__ __forceinline__ void copy_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;\n" ::: "memory");
#endif
}
template <int pending>
__device__ __forceinline__ void copy_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;\n" ::"n"(pending) : "memory");
#endif
}

// ---- Tensor cores: fragments as in the PTX manual, "Warp-level matrix instructions" ------------------------------------
// Four 8x8 matrices of 16-bit elements: lanes 8 i .. 8 i + 7 name the rows (16 bytes each, aligned to 16) of matrix i, and
// fragments[i] gets row lane / 4, elements 2 (lane % 4) and the next, of it; transposed: column lane / 4.
__device__ __forceinline__ void load_matrices(uint32_t (&fragments)[4], const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(from)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&fragments)[4], const void* row) {
  const unsigned from = static_cast<unsigned>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];\n"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(from)
               : "memory");
}

// d += a b with a 16 x 16, b 16 x 8 and d 16 x 8. With row = lane / 4 and pair = 2 (lane % 4): d[0], d[1] are d(row, pair)
// and (row, pair + 1), d[2] and d[3] those of row + 8. a[0] holds a(row, pair) and the next in its upper half, a[1] those of
// row + 8, a[2] and a[3] the same from column pair + 8. b[0] holds b(pair, row) and b(pair + 1, row), b[1] from pair + 8.
__device__ __forceinline__ void mma_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}
// d += a b with a 16 x 8, b 8 x 8 and d 16 x 8, of numbers that as_tf32 rounded. With row = lane / 4 and column = lane % 4:
// a[0] is a(row, column), a[1] a(row + 8, column), a[2] a(row, column + 4), a[3] a(row + 8, column + 4); b0 is
// b(column, row), b1 b(column + 4, row); d as above.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  __trap();
#endif
}
// The nearest number of 10 mantissa bits (halves away from zero), as the bits of a float whose lower 13 are 0.
__device__ __forceinline__ uint32_t as_tf32(float value) {
  uint32_t bits = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;\n" : "=r"(bits) : "f"(value));
#else
  __trap();
#endif
  return bits;
}
// The upper half of a product.
__device__ __forceinline__ uint64_t multiply_high(uint64_t a, uint64_t b) { return __umul64hi(a, b); }
__device__ __forceinline__ uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }
__device__ __forceinline__ float float_of_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t bits_of_float(float value) { return __float_as_uint(value); }

#endif

}  // namespace fastconv::cuda

#if defined(FASTCONV_CUDA_HOST)
#include "device_host.h"
#endif
