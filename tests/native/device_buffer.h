// SPDX-License-Identifier: Apache-2.0
// What the drivers of a backend share: the library opened, and device memory with values in it.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../../cuda/backend.h"

namespace fastconv {

[[noreturn]] inline void fail(const char* what, const char* why) {
  printf("%s: %s\n", what, why);
  exit(2);
}

inline const Backend& open_backend(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(path, dlerror());
  const auto entry = reinterpret_cast<BackendEntry>(dlsym(library, kBackendSymbol));
  if (!entry) fail(path, "does not export fastconv_backend");
  const Backend* backend = entry(kBackendAbi);
  if (!backend) fail(path, "has another ABI number");
  int count = 0;
  if (backend->device_count(&count) || count < 1) fail(path, backend->last_error());
  return *backend;
}

class DeviceBuffer {
 public:
  DeviceBuffer(const Backend& backend, int64_t bytes) : backend_(backend), bytes_(bytes) {
    if (backend_.allocate(0, bytes, nullptr, &data_)) fail("allocate", backend_.last_error());
    if (bytes && backend_.fill(data_, 0xFF, bytes, nullptr)) fail("fill", backend_.last_error());
  }
  DeviceBuffer(const Backend& backend, const std::vector<unsigned char>& values)
      : DeviceBuffer(backend, static_cast<int64_t>(values.size())) {
    put(values);
  }
  ~DeviceBuffer() {
    if (backend_.release(0, data_, nullptr)) fail("release", backend_.last_error());
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  void put(const std::vector<unsigned char>& values) {
    if (bytes_ && backend_.copy(data_, values.data(), bytes_, nullptr)) fail("copy", backend_.last_error());
  }
  void* data() const { return data_; }
  std::vector<unsigned char> values() const {
    std::vector<unsigned char> result(static_cast<size_t>(bytes_));
    if (bytes_ && backend_.copy(result.data(), data_, bytes_, nullptr)) fail("copy", backend_.last_error());
    return result;
  }

 private:
  const Backend& backend_;
  const int64_t bytes_;
  void* data_ = nullptr;
};

}  // namespace fastconv
