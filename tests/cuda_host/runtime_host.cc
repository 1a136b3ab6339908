// SPDX-License-Identifier: Apache-2.0
// The table of a backend whose device is emulated: cuda/runtime.cu's counterpart. All of a device's work is done when a
// call returns, so that streams mean nothing; what the emulation found wrong is told by synchronize, as a device tells
// of a kernel that failed.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "../../cuda/registry.h"
#include "emulation.h"

namespace fastconv::cuda {
namespace host {

int architecture() {
  const char* text = getenv("FASTCONV_EMULATED_ARCHITECTURE");
  return text ? atoi(text) : 90;
}

int64_t most_shared_bytes() {
  const int number = architecture();
  if (number < 80) return 64 << 10;
  if (number == 80 || number == 87) return 163 << 10;
  if (number < 90 || number >= 120) return 99 << 10;
  return 227 << 10;
}

namespace {

thread_local char error_text[kTextCapacity] = "";

int fail(const char* sentence) {
  snprintf(error_text, sizeof error_text, "%s", sentence);
  return 1;
}

int device_count(int* count) {
  *count = 1;
  return 0;
}

int attributes(int device, DeviceAttributes* a) {
  if (device != 0) return fail("the emulated device is number 0");
  *a = {};
  snprintf(a->name, sizeof a->name, "emulated device");
  a->memory_bytes = static_cast<int64_t>(arena().bytes);
  constexpr int32_t kMultiprocessors = 4;
  a->machine = machine_of(architecture(), kMultiprocessors, most_shared_bytes(), 4 << 20);
  return 0;
}

int current_device(int* device) {
  *device = 0;
  return 0;
}
int set_device(int device) { return device == 0 ? 0 : fail("the emulated device is number 0"); }

int allocate(int device, int64_t bytes, void*, void** data) {
  const Lock lock(device_mutex);
  *data = nullptr;
  if (set_device(device)) return 1;
  if (kernel_runs()) report(nullptr, "memory was allocated while a kernel ran");
  *data = allocate_memory(std::max<int64_t>(bytes, 1));
  return *data ? 0 : fail("allocating memory failed: the emulated device has no room");
}

int release(int, void* data, void*) {
  const Lock lock(device_mutex);
  if (!data || release_memory(data)) return 0;
  take_report(error_text);
  return 1;
}

int copy(void* to, const void* from, int64_t bytes, void*) {
  const Lock lock(device_mutex);
  for (const void* end : {static_cast<const void*>(to), from})
    if (in_arena(end) && !allocated(end, bytes)) return fail("copying failed: bytes beside an allocation");
  memmove(to, from, static_cast<size_t>(bytes));
  return 0;
}

int fill(void* data, int byte, int64_t bytes, void*) {
  const Lock lock(device_mutex);
  if (!allocated(data, bytes)) return fail("filling memory failed: bytes beside an allocation");
  memset(data, byte, static_cast<size_t>(bytes));
  return 0;
}

int synchronize(int device, void*) {
  const Lock lock(device_mutex);
  if (set_device(device)) return 1;
  if (!reported()) canaries_live();
  return take_report(error_text) ? 1 : 0;
}

int wait(void*, void*) { return 0; }

// The stream's work is done by now: an event is a reading of the clock.
typedef std::chrono::steady_clock Clock;
int record(void*, void** event) {
  *event = new Clock::time_point(Clock::now());
  return 0;
}
int seconds_between(void* first, void* second, double* seconds) {
  const auto at = [](void* event) { return *static_cast<const Clock::time_point*>(event); };
  *seconds = std::chrono::duration<double>(at(second) - at(first)).count();
  return 0;
}
void forget(void* event) { delete static_cast<Clock::time_point*>(event); }

bool is_device_pointer(const void* data, int* device) {
  const Lock lock(device_mutex);
  if (!allocated(data, 0)) return false;
  *device = 0;
  return true;
}

const char* last_error() { return error_text; }

}  // namespace
}  // namespace host
}  // namespace fastconv::cuda

extern "C" __attribute__((visibility("default"))) const fastconv::Backend* fastconv_backend(int32_t abi) {
  using namespace fastconv::cuda;
  using namespace fastconv::cuda::host;
  static const fastconv::Backend backend = {fastconv::kBackendAbi,
                                            kAlgorithmCount,
                                            "cuda_host",
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
