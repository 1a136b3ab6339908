// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace fastconv {
namespace {

std::mutex mutex;
std::atomic<const Backend*> backend{nullptr};

constexpr int kMostDevices = 64;
std::atomic<const Device*> devices[kMostDevices];

}  // namespace

const Backend* opened_backend() { return backend.load(std::memory_order_acquire); }

const Backend* open_backend(const char* path, char* error) {
  const std::lock_guard<std::mutex> lock(mutex);
  if (const Backend* opened = opened_backend()) return opened;
  // Never closed: a device's memory may outlive every question.
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    snprintf(error, kTextCapacity, "%s", dlerror());
    return nullptr;
  }
  const auto entry = reinterpret_cast<BackendEntry>(dlsym(library, kBackendSymbol));
  const Backend* found = entry ? entry(kBackendAbi) : nullptr;
  if (!found || found->abi != kBackendAbi) {
    snprintf(error, kTextCapacity, "%s is of another version of fastconv; expected ABI number %d", path, kBackendAbi);
    return nullptr;
  }
  int count = 0;
  if (found->device_count(&count) != 0 || count < 1) {
    snprintf(error, kTextCapacity, "%s", found->last_error());
    return nullptr;
  }
  backend.store(found, std::memory_order_release);
  return found;
}

const Device* find_device(int ordinal, char* error) {
  const Backend* opened = opened_backend();
  if (!opened || ordinal < 0 || ordinal >= kMostDevices) {
    snprintf(error, kTextCapacity, "device %d: no such device", ordinal);
    return nullptr;
  }
  if (const Device* known = devices[ordinal].load(std::memory_order_acquire)) return known;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const Device* known = devices[ordinal].load(std::memory_order_acquire)) return known;
  DeviceAttributes attributes;
  if (opened->attributes(ordinal, &attributes) != 0) {
    snprintf(error, kTextCapacity, "%s", opened->last_error());
    return nullptr;
  }
  auto* device = new Device{ordinal, "", attributes.memory_bytes, attributes.machine};
  memcpy(device->name, attributes.name, sizeof device->name);
  device->machine.algorithm_count = opened->algorithm_count;
  device->machine.algorithms = opened->algorithms;
  device->machine.verified = opened->verified;
  device->machine.verified_count = opened->verified_count;
  devices[ordinal].store(device, std::memory_order_release);
  return device;
}

}  // namespace fastconv
