// SPDX-License-Identifier: Apache-2.0
// Who read and wrote what, for the checked library: its kernels are compiled with -fsanitize=thread, without that
// sanitizer's library, so that each of their loads and stores calls a function at the end of this file.
//
// Every two bytes of shared memory and of the arena have two tags, of the last write and of the reads since. A tag says
// which thread it was, in which epoch of the device (each launch, block and barrier begins one) and in which of its
// warp's (each sync_warp begins one, and they start again with every epoch of the device). Epochs never go back, so that
// nothing is cleared: what was written before the block began is not there for it. Of two threads that touch one byte each
// of a cell, only the last one is remembered.
#if defined(FASTCONV_CUDA_CHECKED)

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>

#include "emulation.h"

namespace fastconv::cuda::host {
namespace shadow {
namespace {

typedef uint64_t Tag;              // epoch 32 bits, of the warp 17, flags 5, thread 10
constexpr Tag kPending = 1 << 10;  // a copy_async is under way
constexpr Tag kLanes = 2 << 10, kWarps = 4 << 10, kBlocks = kLanes | kWarps;    // more than one has read
constexpr Tag kFirstByte = 8 << 10, kSecondByte = 16 << 10, kBytes = 24 << 10;  // none: both
constexpr int kWarpEpoch = 15, kEpoch = 32;
constexpr uint64_t kMostWarpEpochs = 1 << 17, kMostEpochs = uint64_t{1} << 31;

struct Cell {
  Tag write, read;
};
constexpr size_t kCellBytes = 2;

Cell shared_cells[kSharedRoom / kCellBytes];
Cell* arena_cells = nullptr;

uint64_t epoch = 1, launch_first = 1, block_first = 1;
uint64_t warp_epochs[kMostThreads / kWarp];

void next_epoch() {
  ++epoch;
  for (uint64_t& of_warp : warp_epochs) of_warp = 0;
}

uint64_t epoch_of(Tag tag) { return tag >> kEpoch; }
int thread_of(Tag tag) { return static_cast<int>(tag & (kMostThreads - 1)); }
Tag tag_of(int thread) {
  return epoch << kEpoch | warp_epochs[thread / kWarp] << kWarpEpoch | static_cast<Tag>(thread);
}

// Whether all that the tag stands for happened before what `thread`, whose tag is `mine`, does now.
bool before(Tag tag, Tag mine) {
  const uint64_t then = epoch_of(tag);
  if (then < launch_first) return true;
  if ((tag & kBlocks) == kBlocks || then < block_first) return false;  // another block
  if (then < epoch) return true;
  if (tag & kWarps) return false;
  if (thread_of(tag) / kWarp != thread_of(mine) / kWarp) return false;
  if ((tag >> kWarpEpoch & (kMostWarpEpochs - 1)) < (mine >> kWarpEpoch & (kMostWarpEpochs - 1))) return true;
  return !(tag & kLanes) && thread_of(tag) == thread_of(mine);
}

bool apart(Tag tag, Tag mine) { return (tag & kBytes) && (mine & kBytes) && !(tag & mine & kBytes); }

// The tag of reads that are not ordered.
Tag both(Tag tag, Tag mine) {
  if ((tag & kBlocks) == kBlocks || epoch_of(tag) < block_first) return mine | kBlocks;
  if (tag & kWarps) return mine | kWarps;
  return mine | (thread_of(tag) / kWarp == thread_of(mine) / kWarp ? kLanes : kWarps);
}

struct Access {
  const void* place;
  const unsigned char* data;
  size_t bytes;
  int thread;
  bool write;
};

[[gnu::noinline, gnu::cold]] void refuse_race(const Access& a, Tag other, const char* what, const char* memory) {
  const char* mine = a.write ? "writes" : "reads";
  if (epoch_of(other) < block_first || (other & kBlocks) == kBlocks)
    report(a.place, "race: a thread %s %s memory that another block of the launch %s", mine, memory, what);
  else
    report(a.place, "race: thread %d %s %s memory that thread %d%s %s, without a barrier between them", a.thread, mine,
           memory, thread_of(other), other & kBlocks ? " and others" : "", what);
  abandon();
}

[[gnu::noinline, gnu::cold]] void refuse(const Access& a, const char* what) {
  report(a.place, "a thread %s %zu bytes %s", a.write ? "writes" : "reads", a.bytes, what);
  abandon();
}

// The cells of an access, `first` of them being that of its first byte.
template <bool in_block>
inline void mark(const Access& a, Cell* first, size_t cells, Tag flags) {
  Tag mine = tag_of(a.thread);
  if (a.bytes == 1) mine |= reinterpret_cast<uintptr_t>(a.data) % kCellBytes ? kSecondByte : kFirstByte;
  const char* const memory = in_block ? "shared" : "global";
  for (Cell* cell = first; cell < first + cells; ++cell) {
    if (in_block) {
      if (!a.write && epoch_of(cell->write) < block_first)
        return refuse(a, "of shared memory that nobody of its block has written");
      if (epoch_of(cell->write) >= block_first && cell->write & kPending)
        return refuse(a, "of shared memory that a copy_async is going to write: no copy_async_wait came before");
    }
    // What shared memory held for another block is gone.
    const auto ordered = [&](Tag tag) {
      return (in_block && epoch_of(tag) < block_first) || before(tag, mine) || apart(tag, mine);
    };
    if (!ordered(cell->write)) return refuse_race(a, cell->write, "wrote", memory);
    if (a.write) {
      if (!ordered(cell->read)) return refuse_race(a, cell->read, "read", memory);
      cell->write = mine | flags;
    } else if (cell->read != mine) {
      cell->read = ordered(cell->read) ? mine : both(cell->read, mine);
    }
  }
}

size_t cells_of(size_t offset, size_t bytes) {
  return (offset + bytes + kCellBytes - 1) / kCellBytes - offset / kCellBytes;
}

void access(const Access& a, Tag flags = 0) {
  const size_t in_shared = static_cast<size_t>(a.data - shared_begin());
  if (in_shared + kSharedGuard < kSharedRoom + 2 * kSharedGuard) {
    if (!kernel_runs()) return;
    if (in_shared >= kSharedRoom || in_shared + a.bytes > shared_size())
      return refuse(a, "that are not in the shared memory of the launch");
    return mark<true>(a, shared_cells + in_shared / kCellBytes, cells_of(in_shared, a.bytes), flags);
  }
  if (!in_arena(a.data)) return;
  if (!kernel_runs()) return refuse(a, "of device memory outside of a kernel");
  // Kernels come back to few buffers.
  static Region known[4];
  static unsigned turn = 0;
  static uint64_t known_launch = 0;
  if (known_launch != launch_first) {
    known_launch = launch_first;
    for (Region& region : known) region = {};
  }
  bool inside = false;
  for (const Region& region : known) {
    const size_t offset = static_cast<size_t>(a.data - region.begin);
    if (offset < region.bytes && offset + a.bytes <= region.bytes) {
      inside = true;
      break;
    }
  }
  if (!inside) {
    const Region region = allocation_of(a.data);
    if (a.data < region.begin || a.data + a.bytes > region.begin + region.bytes)
      return refuse(a, "that are not in an allocation of the device");
    known[turn++ % 4] = region;
  }
  const size_t offset = static_cast<size_t>(a.data - arena().begin);
  mark<false>(a, arena_cells + offset / kCellBytes, cells_of(offset, a.bytes), flags);
}

}  // namespace

void memory_released(const void* data, size_t bytes) {
  constexpr size_t kKept = 1 << 20;
  if (bytes < kKept) return;
  constexpr size_t kPage = 4096;
  const size_t offset = static_cast<size_t>(static_cast<const unsigned char*>(data) - arena().begin);
  unsigned char* cells = reinterpret_cast<unsigned char*>(arena_cells);
  const size_t begin = (offset / kCellBytes * sizeof(Cell) + kPage - 1) / kPage * kPage;
  const size_t end = (offset + bytes) / kCellBytes * sizeof(Cell) / kPage * kPage;
  madvise(cells + begin, end - begin, MADV_DONTNEED);
}

void launch_begins() {
  if (!arena_cells) {
    const size_t bytes = arena().bytes / kCellBytes * sizeof(Cell);
    void* got = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) perror("the shadow of the emulated device's memory"), abort();
    arena_cells = static_cast<Cell*>(got);
  }
  if (epoch > kMostEpochs) {
    madvise(arena_cells, arena().bytes / kCellBytes * sizeof(Cell), MADV_DONTNEED);
    for (Cell& cell : shared_cells) cell = {};
    epoch = 0;
  }
  next_epoch();
  launch_first = block_first = epoch;
}
void block_begins() {
  next_epoch();
  block_first = epoch;
}
void barrier_passed() { next_epoch(); }
void warp_passed(int warp) {
  if (++warp_epochs[warp] == kMostWarpEpochs) next_epoch();
}

void copy_issued(const void* place, void* to, const void* from, int bytes, bool valid) {
  const size_t count = static_cast<size_t>(bytes);
  if (valid) access({place, static_cast<const unsigned char*>(from), count, running_thread(), false});
  access({place, static_cast<unsigned char*>(to), count, running_thread(), true}, kPending);
}
void copy_done(void* to, int bytes) {
  const size_t offset = static_cast<size_t>(static_cast<unsigned char*>(to) - shared_begin());
  for (size_t i = 0; i < cells_of(offset, static_cast<size_t>(bytes)); ++i)
    shared_cells[offset / kCellBytes + i].write = tag_of(running_thread());
}
void matrix_row_read(const void* place, int thread, const void* row) {
  access({place, static_cast<const unsigned char*>(row), 16, thread, false});
}

namespace {

template <size_t bytes, bool write, bool aligned>
inline __attribute__((always_inline)) void hook(const void* data, const void* place) {
  const Access a{place, static_cast<const unsigned char*>(data), bytes, 0, write};
  if (aligned && reinterpret_cast<uintptr_t>(data) % bytes && kernel_runs())
    refuse(a, "at an address that is no multiple of them");
  access({place, a.data, bytes, running_thread(), write});
}

}  // namespace
}  // namespace shadow
}  // namespace fastconv::cuda::host

// ---- What the compiler calls -------------------------------------------------------------------------------------------
extern "C" {
#define FASTCONV_HOOK(name, bytes, write, aligned)                                                \
  void name(void* data) {                                                                         \
    fastconv::cuda::host::shadow::hook<bytes, write, aligned>(data, __builtin_return_address(0)); \
  }
FASTCONV_HOOK(__tsan_read1, 1, false, true)
FASTCONV_HOOK(__tsan_read2, 2, false, true)
FASTCONV_HOOK(__tsan_read4, 4, false, true)
FASTCONV_HOOK(__tsan_read8, 8, false, true)
FASTCONV_HOOK(__tsan_read16, 16, false, true)
FASTCONV_HOOK(__tsan_write1, 1, true, true)
FASTCONV_HOOK(__tsan_write2, 2, true, true)
FASTCONV_HOOK(__tsan_write4, 4, true, true)
FASTCONV_HOOK(__tsan_write8, 8, true, true)
FASTCONV_HOOK(__tsan_write16, 16, true, true)
FASTCONV_HOOK(__tsan_unaligned_read2, 2, false, false)
FASTCONV_HOOK(__tsan_unaligned_read4, 4, false, false)
FASTCONV_HOOK(__tsan_unaligned_read8, 8, false, false)
FASTCONV_HOOK(__tsan_unaligned_read16, 16, false, false)
FASTCONV_HOOK(__tsan_unaligned_write2, 2, true, false)
FASTCONV_HOOK(__tsan_unaligned_write4, 4, true, false)
FASTCONV_HOOK(__tsan_unaligned_write8, 8, true, false)
FASTCONV_HOOK(__tsan_unaligned_write16, 16, true, false)
#undef FASTCONV_HOOK
void __tsan_read_range(void* data, size_t bytes) {
  using namespace fastconv::cuda::host;
  shadow::access({__builtin_return_address(0), static_cast<unsigned char*>(data), bytes, running_thread(), false});
}
void __tsan_write_range(void* data, size_t bytes) {
  using namespace fastconv::cuda::host;
  shadow::access({__builtin_return_address(0), static_cast<unsigned char*>(data), bytes, running_thread(), true});
}
void __tsan_init() {}
}

#endif
