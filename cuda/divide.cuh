// SPDX-License-Identifier: Apache-2.0
// Division by numbers that are fixed for a launch (the size of an empty axis counts as 1), as a multiplication and a
// shift (Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994, figure 4.1): the
// device has no instruction for the division of integers, and of 64 bits it is a call.
#pragma once

#include "device.cuh"

namespace fastconv::cuda {

// Of numbers 0 <= value < 2^63 by 1 <= divisor < 2^63.
class Divisor {
 public:
  Divisor() = default;
  explicit Divisor(int64_t divisor) : divisor_(static_cast<uint64_t>(divisor < 1 ? 1 : divisor)) {
    while (shift_ < 63 && uint64_t{1} << shift_ < divisor_) ++shift_;
    const unsigned __int128 above = (static_cast<unsigned __int128>(1) << shift_) - divisor_;
    multiplier_ = static_cast<uint64_t>((above << 64) / divisor_) + 1;
  }
  __device__ __forceinline__ int64_t quotient(int64_t value) const {
    const uint64_t n = static_cast<uint64_t>(value);
    return static_cast<int64_t>((multiply_high(multiplier_, n) + n) >> shift_);
  }
  // The quotient; *rest becomes the remainder.
  __device__ __forceinline__ int64_t divide(int64_t value, int64_t* rest) const {
    const int64_t result = quotient(value);
    *rest = value - result * static_cast<int64_t>(divisor_);
    return result;
  }

 private:
  uint64_t divisor_ = 1, multiplier_ = 1;
  int64_t shift_ = 0;
};

// Of numbers 0 <= value < 2^31 by 1 <= divisor < 2^31.
class Divisor32 {
 public:
  Divisor32() = default;
  explicit Divisor32(int64_t divisor) : divisor_(static_cast<uint32_t>(divisor < 1 ? 1 : divisor)) {
    while (uint64_t{1} << shift_ < divisor_) ++shift_;
    multiplier_ = static_cast<uint32_t>((((uint64_t{1} << shift_) - divisor_) << 32) / divisor_ + 1);
  }
  __device__ __forceinline__ int quotient(int value) const {
    const uint32_t n = static_cast<uint32_t>(value);
    return static_cast<int>((multiply_high(multiplier_, n) + n) >> shift_);
  }
  __device__ __forceinline__ int divide(int value, int* rest) const {
    const int result = quotient(value);
    *rest = value - result * static_cast<int>(divisor_);
    return result;
  }

 private:
  uint32_t divisor_ = 1, multiplier_ = 1, shift_ = 0, unused_ = 0;
};

}  // namespace fastconv::cuda
