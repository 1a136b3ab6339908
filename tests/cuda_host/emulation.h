// SPDX-License-Identifier: Apache-2.0
// What the parts of the emulation know of each other. Nothing of it is for kernels: those see device_host.h.
#pragma once

#include <mutex>

#include "../../cuda/device.cuh"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace fastconv::cuda::host {

// Whoever touches the device or its memory holds it.
inline std::recursive_mutex device_mutex;
typedef std::lock_guard<std::recursive_mutex> Lock;

// What the address sanitizer, where there is one, is to refuse from now on, and what not.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
inline void poison(const void* from, size_t bytes) { ASAN_POISON_MEMORY_REGION(from, bytes); }
inline void unpoison(const void* from, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(from, bytes); }
#else
constexpr bool kAddressSanitizer = false;
inline void poison(const void*, size_t) {}
inline void unpoison(const void*, size_t) {}
#endif

// ---- report.cc: the first thing that was wrong, in a sentence --------------------------------------------------------
// `place`: a return address in the kernel, for addr2line, or null.
__attribute__((format(printf, 2, 3))) void report(const void* place, const char* format, ...);
bool reported();
// Copies the sentence to `text` (kTextCapacity characters) and forgets it; false: there was none.
bool take_report(char* text);

// ---- block.cc --------------------------------------------------------------------------------------------------------
constexpr int kMostThreads = 1024;
bool kernel_runs();
int running_thread();  // of the block
void perhaps_yield();  // lets others run although the thread that runs could go on
// After a report about the thread that runs: its block is left for good. Does not return where a kernel runs.
void abandon();
// What shared memory there is, and what of it the launch asked for.
unsigned char* shared_begin();
size_t shared_size();
constexpr size_t kSharedRoom = 256 << 10, kSharedGuard = 64 << 10;  // guards lie on both sides of the room

// The emulated device's compute capability times 10, and the shared memory that a block of it may have.
int architecture();
int64_t most_shared_bytes();

// ---- copies.cc -------------------------------------------------------------------------------------------------------
void forget_copies(int thread);  // a block begins

// ---- memory.cc: what the device has of memory ------------------------------------------------------------------------
constexpr size_t kGuard = 512;
// Null: no room. Filled with 0xFF bytes, NaN in every format, unless it is so large that only a part can exist.
void* allocate_memory(int64_t bytes);
// False: the pointer was not allocated, or somebody wrote beside the memory; reported.
bool release_memory(void* data);
bool canaries_live();  // of all allocations; reported when not
struct Region {
  const unsigned char* begin;
  size_t bytes;
};
Region arena();  // all of the addresses that device memory ever has
inline bool in_arena(const void* pointer) {
  const Region all = arena();
  return static_cast<size_t>(static_cast<const unsigned char*>(pointer) - all.begin) < all.bytes;
}
Region allocation_of(const void* pointer);        // or the one below it
bool allocated(const void* from, int64_t bytes);  // all of them in one allocation

// ---- shadow.cc: the checked library knows who read and wrote what; the other one does not ------------------------------
namespace shadow {
#if defined(FASTCONV_CUDA_CHECKED)
void memory_released(const void* data, size_t bytes);
void launch_begins();
void block_begins();
void barrier_passed();
void warp_passed(int warp);
void copy_issued(const void* place, void* to, const void* from, int bytes, bool valid);
void copy_done(void* to, int bytes);
void matrix_row_read(const void* place, int thread, const void* row);
#else
inline void memory_released(const void*, size_t) {}
inline void launch_begins() {}
inline void block_begins() {}
inline void barrier_passed() {}
inline void warp_passed(int) {}
inline void copy_issued(const void*, void*, const void*, int, bool) {}
inline void copy_done(void*, int) {}
inline void matrix_row_read(const void*, int, const void*) {}
#endif
}  // namespace shadow

}  // namespace fastconv::cuda::host
