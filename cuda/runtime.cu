// SPDX-License-Identifier: Apache-2.0
// The device itself, and the table that the library hands out. The CUDA runtime is linked in statically and the driver is
// looked for when the first question comes, so that the library loads anywhere.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "registry.h"

namespace fastconv::cuda {
namespace {

thread_local char error_text[kTextCapacity] = "";

int check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return 0;
  snprintf(error_text, sizeof error_text, "%s failed: %s", what, cudaGetErrorString(status));
  cudaGetLastError();  // so that the next call does not report it again
  return 1;
}

// What is missing, in a true sentence: the runtime alone would blame the driver's version for its absence.
int device_count(int* count) {
  *count = 0;
  if (!dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
    snprintf(error_text, sizeof error_text, "no NVIDIA driver: libcuda.so.1 was not found");
    return 1;
  }
  const cudaError_t status = cudaGetDeviceCount(count);
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0;
    cudaDriverGetVersion(&driver);
    snprintf(error_text, sizeof error_text,
             "the NVIDIA driver serves CUDA %d.%d and this library was built with %d.%d: a newer driver is needed",
             driver / 1000, driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    cudaGetLastError();
    return 1;
  }
  if (status == cudaErrorNoDevice) {
    snprintf(error_text, sizeof error_text, "there is a driver and no NVIDIA GPU that this process may use");
    cudaGetLastError();
    return 1;
  }
  return check(status, "counting the devices");
}

int attributes(int device, DeviceAttributes* a) {
  cudaDeviceProp properties;
  if (check(cudaGetDeviceProperties(&properties, device), "asking for the device's properties")) return 1;
  *a = {};
  snprintf(a->name, sizeof a->name, "%s", properties.name);
  a->memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  a->machine = machine_of(properties.major * 10 + properties.minor, properties.multiProcessorCount,
                          static_cast<int64_t>(properties.sharedMemPerBlockOptin), properties.l2CacheSize);
  return 0;
}

int current_device(int* device) { return check(cudaGetDevice(device), "asking for the current device"); }
int set_device(int device) { return check(cudaSetDevice(device), "choosing the device"); }

cudaStream_t stream_of(void* stream) { return static_cast<cudaStream_t>(stream); }

int allocate(int device, int64_t bytes, void* stream, void** data) {
  if (set_device(device)) return 1;
  return check(cudaMallocAsync(data, static_cast<size_t>(std::max<int64_t>(bytes, 1)), stream_of(stream)),
               "allocating memory");
}
int release(int, void* data, void* stream) { return check(cudaFreeAsync(data, stream_of(stream)), "releasing memory"); }
int copy(void* to, const void* from, int64_t bytes, void* stream) {
  if (check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, stream_of(stream)), "copying"))
    return 1;
  return check(cudaStreamSynchronize(stream_of(stream)), "copying");
}
int fill(void* data, int byte, int64_t bytes, void* stream) {
  return check(cudaMemsetAsync(data, byte, static_cast<size_t>(bytes), stream_of(stream)), "filling memory");
}
int synchronize(int device, void* stream) {
  if (set_device(device)) return 1;
  return check(cudaStreamSynchronize(stream_of(stream)), "a kernel");
}

int wait(void* stream, void* other) {
  cudaEvent_t event;
  if (check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event")) return 1;
  int status = check(cudaEventRecord(event, stream_of(other)), "recording an event");
  if (!status) status = check(cudaStreamWaitEvent(stream_of(stream), event, 0), "waiting for an event");
  cudaEventDestroy(event);  // once it has happened
  return status;
}

int record(void* stream, void** event) {
  cudaEvent_t made;
  if (check(cudaEventCreate(&made), "creating an event")) return 1;
  *event = made;
  return check(cudaEventRecord(made, stream_of(stream)), "recording an event");
}
int seconds_between(void* first, void* second, double* seconds) {
  float milliseconds = 0;
  const int status = check(
      cudaEventElapsedTime(&milliseconds, static_cast<cudaEvent_t>(first), static_cast<cudaEvent_t>(second)), "timing");
  *seconds = 1e-3 * static_cast<double>(milliseconds);
  return status;
}
void forget(void* event) { cudaEventDestroy(static_cast<cudaEvent_t>(event)); }

bool is_device_pointer(const void* data, int* device) {
  cudaPointerAttributes a;
  if (cudaPointerGetAttributes(&a, data) != cudaSuccess) {
    cudaGetLastError();
    return false;
  }
  *device = a.device;
  return a.type == cudaMemoryTypeDevice || a.type == cudaMemoryTypeManaged;
}

const char* last_error() { return error_text; }

}  // namespace
}  // namespace fastconv::cuda

extern "C" __attribute__((visibility("default"))) const fastconv::Backend* fastconv_backend(int32_t abi) {
  using namespace fastconv::cuda;
  static const fastconv::Backend backend = {fastconv::kBackendAbi,
                                            kAlgorithmCount,
                                            "cuda",
                                            kAlgorithms,
                                            kVerified,
                                            kVerifiedCount,
                                            pool,
                                            scatter_positions,
                                            pointwise,
                                            norm_workspace,
                                            norm,
                                            device_count,
                                            attributes,
                                            current_device,
                                            set_device,
                                            allocate,
                                            release,
                                            copy,
                                            fill,
                                            synchronize,
                                            wait,
                                            record,
                                            seconds_between,
                                            forget,
                                            is_device_pointer,
                                            last_error};
  return abi == fastconv::kBackendAbi ? &backend : nullptr;
}
