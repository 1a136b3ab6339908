// SPDX-License-Identifier: Apache-2.0
// Devices: their library (cuda/backend.h) is opened when somebody first asks for it.
#pragma once

#include "../cuda/backend.h"

namespace fastconv {

struct Device {
  int ordinal;
  char name[64];
  int64_t memory_bytes;
  Machine machine;
};

// Opens the library at `path`, once; a process has one backend. Null, and a sentence of what is missing in `error`
// (kTextCapacity characters): the library, the driver, a GPU.
const Backend* open_backend(const char* path, char* error);
const Backend* opened_backend();  // or null

// Of the opened backend; null, and a sentence, without such a device. The result lives as long as the process.
const Device* find_device(int ordinal, char* error);

}  // namespace fastconv
