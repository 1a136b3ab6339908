// SPDX-License-Identifier: Apache-2.0
// Device memory: a range of addresses of the host's that nothing else lies in, reserved once. Beside each allocation lie
// guards, whose bytes are checked when it is released and whenever the device is synchronized.
#include <sys/mman.h>

#include <cstring>
#include <map>

#include "emulation.h"

namespace fastconv::cuda::host {
namespace {

constexpr size_t kPage = 4096, kAlignment = 256, kKept = 1 << 20;
constexpr size_t kSparse = 256 << 20;  // from here on memory is not filled: only what is touched exists
constexpr unsigned char kCanary = 0xa5;

struct Memory {
  unsigned char* base = nullptr;
  size_t bytes = 0;
  std::map<size_t, size_t> live;  // offset of the data -> bytes

  Memory() {
    for (bytes = size_t{1} << 38; bytes >= size_t{1} << 30; bytes /= 2) {
      void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (got != MAP_FAILED) {
        base = static_cast<unsigned char*>(got);
        return;
      }
    }
    bytes = 0;
  }
};
Memory& memory() {
  static Memory* const one = new Memory;  // as long as the process
  return *one;
}

size_t up(size_t value, size_t unit) { return (value + unit - 1) / unit * unit; }
size_t end_of(size_t offset, size_t bytes) { return up(offset + bytes + kGuard, kAlignment); }

bool canaries_live(size_t offset, size_t bytes) {
  const unsigned char* data = memory().base + offset;
  unpoison(data - kGuard, kGuard);
  unpoison(data + bytes, end_of(offset, bytes) - offset - bytes);
  bool live = true;
  const auto expect = [&](const unsigned char* from, size_t count) {
    for (size_t i = 0; i < count && live; ++i) {
      if (from[i] == kCanary) continue;
      live = false;
      const ptrdiff_t at = from + i - data;
      report(nullptr, "a kernel wrote byte %td of an allocation of %zu bytes", at, bytes);
    }
  };
  expect(data - kGuard, kGuard);
  expect(data + bytes, end_of(offset, bytes) - offset - bytes);
  poison(data - kGuard, kGuard);
  poison(data + bytes, end_of(offset, bytes) - offset - bytes);
  return live;
}

}  // namespace

Region arena() { return {memory().base, memory().bytes}; }

void* allocate_memory(int64_t bytes_wanted) {
  Memory& m = memory();
  const size_t bytes = static_cast<size_t>(bytes_wanted);
  if (bytes >= m.bytes) return nullptr;
  size_t offset = kPage;  // the first gap that is large enough
  for (const auto& [other, size] : m.live) {
    if (end_of(offset, bytes) + kGuard <= other) break;
    offset = end_of(other, size) + kGuard;
  }
  if (end_of(offset, bytes) + kGuard > m.bytes) return nullptr;
  m.live[offset] = bytes;
  unsigned char* data = m.base + offset;
  const size_t after = end_of(offset, bytes) - offset - bytes;
  unpoison(data - kGuard, kGuard + bytes + after);
  memset(data - kGuard, kCanary, kGuard);
  if (bytes < kSparse) memset(data, 0xff, bytes);
  memset(data + bytes, kCanary, after);
  poison(data - kGuard, kGuard);
  poison(data + bytes, after);
  return data;
}

bool release_memory(void* pointer) {
  Memory& m = memory();
  unsigned char* data = static_cast<unsigned char*>(pointer);
  const auto found = m.live.find(static_cast<size_t>(data - m.base));
  if (found == m.live.end()) {
    report(nullptr, "a pointer was released that is no allocation of the device");
    return false;
  }
  const auto [offset, bytes] = *found;
  const bool fine = canaries_live(offset, bytes);
  shadow::memory_released(data, bytes);
  m.live.erase(found);
  if (bytes > kKept) {
    const size_t begin = up(offset, kPage), end = (offset + bytes) / kPage * kPage;
    madvise(m.base + begin, end - begin, MADV_DONTNEED);
  }
  poison(data, bytes);
  return fine;
}

bool canaries_live() {
  for (const auto& [offset, bytes] : memory().live)
    if (!canaries_live(offset, bytes)) return false;
  return true;
}

Region allocation_of(const void* pointer) {
  Memory& m = memory();
  auto after = m.live.upper_bound(static_cast<size_t>(static_cast<const unsigned char*>(pointer) - m.base));
  if (!in_arena(pointer) || after == m.live.begin()) return {};
  --after;
  return {m.base + after->first, after->second};
}

bool allocated(const void* from, int64_t bytes) {
  const unsigned char* data = static_cast<const unsigned char*>(from);
  const Region region = allocation_of(from);
  return bytes >= 0 && data >= region.begin && data + bytes <= region.begin + region.bytes && region.bytes > 0;
}

}  // namespace fastconv::cuda::host
