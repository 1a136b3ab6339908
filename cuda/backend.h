// SPDX-License-Identifier: Apache-2.0
// What a device backend hands to the core: a library of its own (libfastconv_cuda.so), opened at first use, exports one
// C function that returns this table. Everything in it is plain C: ConvProblem, PoolProblem, Algorithm and RunContext
// (csrc/algorithm.h) cross the border as they are. In a RunContext for a device the buffers and the workspace are
// device memory, `stream` is the caller's, and `parallel` is unused; `run` neither allocates nor waits.
#pragma once

#include "../csrc/algorithm.h"

namespace fastconv {

// Raised with every change of this file, algorithm.h or problem.h. The loader refuses a library of another number.
inline constexpr int32_t kBackendAbi = 1;

struct DeviceAttributes {
  char name[64];
  int32_t architecture;  // compute capability times 10: 80, 90, ...
  int32_t multiprocessors;
  int64_t memory_bytes;
  double flops_f32, bytes_per_second;  // from a committed table, as in Machine
};

struct Backend {
  int32_t abi;  // kBackendAbi
  int32_t algorithm_count;
  const char* name;                    // "cuda"
  const Algorithm* const* algorithms;  // the same names as on the CPU where it is the same method, best first
  // Status codes: 0 is success; otherwise last_error says in a sentence what is missing or failed.
  int (*device_count)(int* count);
  int (*attributes)(int device, DeviceAttributes* attributes);
  int (*allocate)(int device, int64_t bytes, void* stream, void** data);
  int (*release)(int device, void* data, void* stream);
  int (*copy)(void* to, const void* from, int64_t bytes, void* stream);  // in either direction
  int (*fill)(void* data, int byte, int64_t bytes, void* stream);
  int (*synchronize)(int device, void* stream);
  bool (*is_device_pointer)(const void* data, int* device);
  const char* (*last_error)();
};

// The one symbol that the library exports; null when it cannot serve this number.
extern "C" {
typedef const Backend* (*BackendEntry)(int32_t abi);
}
inline constexpr char kBackendSymbol[] = "fastconv_backend";

}  // namespace fastconv
