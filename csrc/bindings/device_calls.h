// SPDX-License-Identifier: Apache-2.0
// What the bindings of a device share. Arrays come as addresses, which python/fastconv/device takes from CuPy; memory
// for results and the workspace is the caller's too, and nothing waits for the device.
#pragma once

#include "../device.h"
#include "arrays.h"

namespace fastconv {

inline const Device& device_numbered(int ordinal) {
  char text[kTextCapacity];
  const Device* device = find_device(ordinal, text);
  if (!device) throw DeviceError{text};
  return *device;
}

inline void* address(uintptr_t value) { return reinterpret_cast<void*>(value); }

// The calling thread's current device, put back at the end.
class OnDevice {
 public:
  explicit OnDevice(int ordinal) : backend_(*opened_backend()) {
    if (backend_.current_device(&before_) != 0 || (before_ != ordinal && backend_.set_device(ordinal) != 0))
      throw DeviceError{backend_.last_error()};
    changed_ = before_ != ordinal;
  }
  ~OnDevice() {
    if (changed_) backend_.set_device(before_);
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  const Backend& backend_;
  int before_ = 0;
  bool changed_ = false;
};

void register_device_ops(py::module_& m);  // pointwise operations, normalisation, softmax

}  // namespace fastconv
