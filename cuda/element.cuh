// SPDX-License-Identifier: Apache-2.0
// The elements of tensors on the device: float, double and two halves kept as their bits. Sums are float's, of double
// double's.
#pragma once

#include "device.cuh"

#if !defined(FASTCONV_CUDA_HOST)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace fastconv::cuda {

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
struct SumOf {
  typedef float type;
};
template <>
struct SumOf<double> {
  typedef double type;
};
template <class T>
using Sum = typename SumOf<T>::type;

#if defined(FASTCONV_CUDA_HOST)
inline float widen(Half value) { return host::float_of_half(value.bits); }
inline float widen(BFloat16 value) { return host::float_of_bits(uint32_t{value.bits} << 16); }
inline void narrow(float value, Half* to) { to->bits = host::half_of_float(value); }
inline void narrow(float value, BFloat16* to) { to->bits = host::bfloat16_of_float(value); }
#else
__device__ __forceinline__ float widen(Half value) { return __half2float(__ushort_as_half(value.bits)); }
__device__ __forceinline__ float widen(BFloat16 value) { return __uint_as_float(uint32_t{value.bits} << 16); }
__device__ __forceinline__ void narrow(float value, Half* to) { to->bits = __half_as_ushort(__float2half_rn(value)); }
__device__ __forceinline__ void narrow(float value, BFloat16* to) {
  to->bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
}
#endif
__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ void narrow(float value, float* to) { *to = value; }
__device__ __forceinline__ void narrow(double value, double* to) { *to = value; }

// Rounded to nearest, ties to even.
template <class T>
__device__ __forceinline__ T narrowed(Sum<T> value) {
  T result;
  narrow(value, &result);
  return result;
}

// `count` neighbours that are loaded and stored by one instruction: their address is a multiple of their size.
template <class T, int count>
struct alignas(sizeof(T) * count) Vector {
  T at[count];
};
template <int count, class T>
__device__ __forceinline__ Vector<T, count> load(const T* from) {
  return *reinterpret_cast<const Vector<T, count>*>(from);
}
template <int count, class T>
__device__ __forceinline__ void store(T* to, const Vector<T, count>& values) {
  *reinterpret_cast<Vector<T, count>*>(to) = values;
}

// Calls work(T()) with the type of `dtype`; the other side of every switch over element types.
template <class Work>
int by_dtype(DType dtype, const Work& work) {
  switch (dtype) {
    case DType::kFloat32:
      return work(float());
    case DType::kFloat64:
      return work(double());
    case DType::kFloat16:
      return work(Half());
    default:
      return work(BFloat16());
  }
}

}  // namespace fastconv::cuda
