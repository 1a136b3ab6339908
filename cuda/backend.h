// SPDX-License-Identifier: Apache-2.0
// What a device backend hands to the core: a library of its own (libfastconv_cuda.so), opened at first use, exports one
// C function that returns this table. Everything in it is plain C: ConvProblem, PoolProblem, Algorithm and RunContext
// (csrc/algorithm.h) cross the border as they are. In a RunContext for a device the buffers and the workspace are
// device memory, `stream` is the caller's, and `parallel` is unused; `run` neither allocates nor waits.
#pragma once

#include "../csrc/algorithm.h"
#include "../csrc/pool_buffers.h"
#include "watch.h"

namespace fastconv {

// Raised with every change of this file, watch.h, algorithm.h, phases.h, pool_buffers.h or problem.h. The loader refuses a
// library of another number.
inline constexpr int32_t kBackendAbi = 6;

struct DeviceAttributes {
  char name[64];
  int64_t memory_bytes;
  Machine machine;  // without kernels
};

struct PoolContext {
  const Machine* machine;
  void* stream;
  char* error;  // kTextCapacity characters, written when the status is not 0
  PoolBuffers buffers;
};

// Positions in planes that a max pooling gave, as csrc/pool_positions.h has them: plane[indices[i]] += values[i], over
// zeros and in ascending order of i. `channels_last`: of all three tensors.
struct PositionContext {
  const Machine* machine;
  void* stream;
  char* error;
  DType dtype;
  int32_t channels_last;
  int64_t n, c, pixels, outputs;
  const void* values;
  const int64_t* indices;
  void* plane;
};

// What one operation does to each element of dense arrays: csrc/pointwise_ops.h, by these names.
enum class PointwiseOp : int32_t {
  kActivation,          // y = f(x)
  kActivationBackward,  // dx = dy f'; x is what that file calls `saved`
  kPrelu,               // y = x > 0 ? x : w x
  kPreluBackward,       // dx, and y = x > 0 ? 0 : dy x, whose sum per channel is dw
  kAdd,                 // y = x + dy
  kScaleMask            // y = mask ? alpha x : 0
};

struct PointwiseContext {
  const Machine* machine;
  void* stream;
  char* error;
  PointwiseOp op;
  DType dtype;
  Activation activation;
  int32_t reserved;
  double alpha;
  int64_t n, c, pixels;  // arrays are (n, c, pixels); w of a PReLU has c elements
  const void *x, *dy, *w;
  const uint8_t* mask;
  void *y, *dx;
};

// Normalisation and softmax, as csrc/norm_ops.h, group_norm.h and loss_ops.h have them.
enum class NormOp : int32_t {
  kChannelSum,      // dgamma = the sum of x per channel
  kBatchForward,    // also mean and variance
  kBatchInference,  // with these
  kBatchBackward,
  kGroupForward,  // also mean and variance, which is 1 / sqrt(variance + eps): (n, groups) doubles
  kGroupBackward,
  kSoftmax,         // y of x, n rows of c
  kSoftmaxBackward  // dx of dy and y
};

// Arrays are (n, c, pixels), or (n, pixels, c) with channels last. Halves have parameters and statistics of float.
struct NormContext {
  const Machine* machine;
  void* stream;
  char* error;
  NormOp op;
  DType dtype;
  int32_t channels_last;
  int32_t logarithm;  // of the softmax
  int64_t n, c, pixels, groups;
  double eps;
  void* workspace;
  const void *x, *dy, *gamma, *beta;
  void *y, *dx, *dgamma, *dbeta, *mean, *variance;
};

struct Backend {
  int32_t abi;  // kBackendAbi
  int32_t algorithm_count;
  const char* name;                    // "cuda"
  const Algorithm* const* algorithms;  // the same names as on the CPU where it is the same method, best first
  const char* const* verified;         // names of those that passed on a GPU as they are now (verified.h)
  int32_t verified_count;
  // Of a valid problem; every one is taken.
  int (*pool)(const PoolProblem* problem, const PoolContext* context);
  int (*scatter_positions)(const PositionContext* context);
  int (*pointwise)(const PointwiseContext* context);
  int64_t (*norm_workspace)(const NormContext* context);  // bytes; of the shape alone, buffers are not looked at
  int (*norm)(const NormContext* context);

  // The device itself. Status codes: 0 is success; otherwise last_error says in a sentence what is missing or failed.
  int (*device_count)(int* count);
  int (*attributes)(int device, DeviceAttributes* attributes);
  int (*current_device)(int* device);
  int (*set_device)(int device);  // of the calling thread
  int (*allocate)(int device, int64_t bytes, void* stream, void** data);
  int (*release)(int device, void* data, void* stream);
  int (*copy)(void* to, const void* from, int64_t bytes, void* stream);  // in either direction; waits
  int (*fill)(void* data, int byte, int64_t bytes, void* stream);
  int (*synchronize)(int device, void* stream);
  int (*wait)(void* stream, void* other);  // what `stream` gets from now on starts after all that `other` has
  // An event in the stream, which happens once the device is there; the seconds between two that have happened.
  int (*record)(void* stream, void** event);
  int (*seconds_between)(void* first, void* second, double* seconds);
  void (*forget)(void* event);
  bool (*is_device_pointer)(const void* data, int* device);
  const char* (*last_error)();  // of the calling thread
};

// The one symbol that the library exports; null when it cannot serve this number.
extern "C" {
typedef const Backend* (*BackendEntry)(int32_t abi);
}
inline constexpr char kBackendSymbol[] = "fastconv_backend";

}  // namespace fastconv
