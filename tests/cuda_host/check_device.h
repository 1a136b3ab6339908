// SPDX-License-Identifier: Apache-2.0
// What the drivers that compare a backend library with the CPU share besides device_buffer.h: numbers that are drawn, and
// tensors of every dtype as vectors of what is computed with.
#pragma once

#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "../native/device_buffer.h"
#include "convert.h"

namespace fastconv::check {

class Draw {
 public:
  explicit Draw(uint64_t seed) : state_(seed * 2862933555777941757u + 3037000493u) {}
  int64_t operator()(int64_t low, int64_t high) {  // both included
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return low + static_cast<int64_t>((state_ >> 33) % static_cast<uint64_t>(high - low + 1));
  }
  double normal() {  // a sum of twelve
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += static_cast<double>((*this)(0, 1 << 20)) * 0x1p-20;
    return sum;
  }

 private:
  uint64_t state_;
};

// The backend's first device. `cpu`: whose kernels convert halves.
struct Device {
  const Backend* backend;
  DeviceAttributes attributes;
  const Machine& machine;

  Device(const char* path, const Machine& cpu) : backend(&open_backend(path)), machine(cpu) {
    if (backend->attributes(0, &attributes)) fail(path, backend->last_error());
  }
};

typedef std::vector<unsigned char> Bytes;

class OnDevice : public DeviceBuffer {
 public:
  template <class Content>
  OnDevice(const Device& device, const Content& content) : DeviceBuffer(*device.backend, content) {}
  Bytes get() const { return values(); }
};

template <class U>
Bytes bytes_of(const std::vector<U>& values) {
  Bytes bytes(values.size() * sizeof(U));
  if (!bytes.empty()) memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}
template <class U>
std::vector<U> typed(const Bytes& bytes) {
  std::vector<U> values(bytes.size() / sizeof(U));
  if (!bytes.empty()) memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// Numbers as the dtype stores them, and back. C: float of halves.
template <class C>
Bytes encoded(const Machine& machine, DType dtype, const std::vector<C>& values) {
  if constexpr (sizeof(C) == 4)
    if (is_half(dtype)) {
      std::vector<uint16_t> halves(values.size());
      const int64_t count = static_cast<int64_t>(values.size());
      half_kernels(machine, dtype).narrow(1, count, values.data(), count, halves.data(), count);
      return bytes_of(halves);
    }
  static_cast<void>(machine);
  return bytes_of(values);
}
template <class C>
std::vector<C> decoded(const Machine& machine, DType dtype, const Bytes& bytes) {
  if constexpr (sizeof(C) == 4)
    if (is_half(dtype)) {
      const std::vector<uint16_t> halves = typed<uint16_t>(bytes);
      std::vector<C> values(halves.size());
      const int64_t count = static_cast<int64_t>(values.size());
      half_kernels(machine, dtype).widen(1, count, halves.data(), count, values.data(), count);
      return values;
    }
  static_cast<void>(machine);
  return typed<C>(bytes);
}
template <class C>
std::vector<C> rounded(const Machine& machine, DType dtype, const std::vector<C>& values) {
  return decoded<C>(machine, dtype, encoded(machine, dtype, values));
}

// The same bits; a NaN is a NaN.
template <class C>
bool same(C a, C b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace fastconv::check
