// SPDX-License-Identifier: Apache-2.0
// Runs a grid: block after block, a fibre for each thread. A thread runs until it must wait for others (or, at random,
// where it might have to); which one is next is drawn from a seed, so that a kernel that relies on an order fails.
#include <sys/mman.h>

#include <bit>
#include <cstdio>
#include <cstdlib>
#include <numeric>

#include "emulation.h"
#include "fibre.h"

namespace fastconv::cuda::host {

Place writable_running;

namespace {

constexpr size_t kStack = 256 << 10;
constexpr size_t kStackGuard = 4096;
constexpr uint32_t kAllLanes = 0xffffffff;

struct Thread {
  Fibre fibre;
  Brought brought;
};

enum class Order { kInTurn, kWarpByWarp, kBursts };

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {  // splitmix64
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
  }
  uint64_t below(uint64_t end) { return next() % end; }

 private:
  uint64_t state_;
};

struct Warp {
  uint32_t ready, waiting;  // lanes; waiting: for each other
  const void* place;        // where the waiting ones do
};

struct Emulator {
  Thread threads[kMostThreads];
  Fibre scheduler;

  // Of the launch.
  void (*body)(const void*) = nullptr;
  const void* closure = nullptr;
  int count = 0, warps = 0;
  size_t shared_bytes = 0;

  // Of the block.
  Random random{0};
  Order order = Order::kInTurn;
  bool abandoned = false;
  int current = -1;  // the thread that runs
  int finished = 0, at_barrier = 0;
  const void* barrier_place = nullptr;
  uint32_t ready_warps = 0;
  Warp of_warp[kMostThreads / kWarp];
  int warp = 0, lane = 0, burst = 0;

  Emulator() {
    const size_t each = kStack + kStackGuard;
    void* stacks = mmap(nullptr, each * kMostThreads, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED) perror("stacks of the emulated device"), abort();
    for (int i = 0; i < kMostThreads; ++i) {
      Fibre& fibre = threads[i].fibre;
      fibre.stack = static_cast<char*>(stacks) + each * static_cast<size_t>(i) + kStackGuard;
      fibre.stack_bytes = kStack;
      if (mprotect(fibre.stack, kStack, PROT_READ | PROT_WRITE)) perror("a stack of the emulated device"), abort();
    }
  }
};
Emulator* emulator = nullptr;
bool running_now = false;
alignas(4096) unsigned char shared_memory_and_guards[kSharedRoom + 2 * kSharedGuard];
unsigned char* const shared_room = shared_memory_and_guards + kSharedGuard;
constexpr size_t kSharedCanary = 256;  // bytes on either side that are looked at after each block

Thread& self() { return emulator->threads[emulator->current]; }

void wake(int warp, uint32_t lanes) {
  emulator->of_warp[warp].ready |= lanes;
  emulator->ready_warps |= 1u << warp;
}
void pause(int thread) {
  Warp& warp = emulator->of_warp[thread / kWarp];
  warp.ready &= ~(1u << thread % kWarp);
  if (!warp.ready) emulator->ready_warps &= ~(1u << thread / kWarp);
}
void to_scheduler() { switch_fibre(&self().fibre, &emulator->scheduler); }

void thread_main() {
  entered();
  Emulator& e = *emulator;
  e.body(e.closure);
  ++e.finished;
  pause(e.current);
  to_scheduler();
  abort();  // nobody resumes a finished thread
}

int next_bit(uint32_t bits, int from) { return (std::countr_zero(std::rotr(bits, from)) + from) % kWarp; }

int next_thread() {
  Emulator& e = *emulator;
  const bool goes_on = e.ready_warps >> e.warp & 1;
  switch (e.order) {
    case Order::kInTurn:
      e.warp = next_bit(e.ready_warps, (e.warp + 1) % kWarp);
      break;
    case Order::kWarpByWarp:
      if (!goes_on) e.warp = next_bit(e.ready_warps, e.warp);
      break;
    case Order::kBursts:
      if (goes_on && e.burst-- > 0) break;
      e.warp = next_bit(e.ready_warps, static_cast<int>(e.random.below(kWarp)));
      e.burst = static_cast<int>(e.random.below(96));
      e.lane = static_cast<int>(e.random.below(kWarp));
  }
  e.lane = next_bit(e.of_warp[e.warp].ready, (e.lane + 1) % kWarp);
  return e.warp * kWarp + e.lane;
}

// No thread can go on and some are not finished: says why.
void report_stuck() {
  const Emulator& e = *emulator;
  for (int w = 0; w < e.warps; ++w) {
    const Warp& warp = e.of_warp[w];
    if (!warp.waiting) continue;
    return report(warp.place,
                  "a function of warp %d was called by %d of its threads: the others wait elsewhere or left", w,
                  std::popcount(warp.waiting));
  }
  report(e.barrier_place, "%d of %d threads wait at a barrier, and %d left the kernel before it", e.at_barrier, e.count,
         e.finished);
}

void run_block(uint64_t seed) {
  Emulator& e = *emulator;
  e.random = Random(seed);
  e.order = static_cast<Order>(e.random.below(3));
  e.abandoned = false, e.finished = e.at_barrier = e.burst = 0;
  e.warp = static_cast<int>(e.random.below(kWarp)), e.lane = static_cast<int>(e.random.below(kWarp));
  e.ready_warps = 0;
  for (int i = 0; i < e.count; ++i) {
    forget_copies(i);
    start(&e.threads[i].fibre, thread_main);
  }
  for (int w = 0; w < e.warps; ++w) {
    e.of_warp[w] = {};
    wake(w, e.count - w * kWarp >= kWarp ? kAllLanes : (1u << (e.count - w * kWarp)) - 1);
  }
  memset(shared_room, 0xff, e.shared_bytes);
  shadow::block_begins();
  while (e.ready_warps && !e.abandoned) {
    e.current = next_thread();
    writable_running.thread.x = static_cast<unsigned>(e.current);
    switch_fibre(&e.scheduler, &self().fibre);
  }
  if (!e.abandoned && e.finished < e.count) report_stuck();
  e.current = -1;
  if (kAddressSanitizer) return;
  const auto untouched = [](const unsigned char* from) {
    for (size_t i = 0; i < kSharedCanary; ++i)
      if (from[i] != 0xff) return false;
    return true;
  };
  if (!untouched(shared_room - kSharedCanary) || !untouched(shared_room + e.shared_bytes))
    report(nullptr, "block %u %u %u wrote beside its %zu bytes of shared memory", running.block.x, running.block.y,
           running.block.z, e.shared_bytes);
}

// What the device itself would refuse.
int refuse(const RunContext& context, Grid grid, int threads, size_t shared_bytes) {
  if (threads >= 1 && threads <= kMostThreads && grid.x <= kMostBlocksX && grid.y <= kMostBlocksYZ &&
      grid.z <= kMostBlocksYZ && static_cast<int64_t>(shared_bytes) <= most_shared_bytes())
    return 0;
  snprintf(context.error, kTextCapacity,
           "a kernel could not be launched: a grid of %lld x %lld x %lld blocks of %d threads and %zu bytes of shared "
           "memory is more than the device has",
           static_cast<long long>(grid.x), static_cast<long long>(grid.y), static_cast<long long>(grid.z), threads,
           shared_bytes);
  return 1;
}

uint64_t seed_of_environment() {
  const char* seed = getenv("FASTCONV_EMULATED_SEED");
  return seed ? strtoull(seed, nullptr, 0) : 1;
}

}  // namespace

void perhaps_yield() {
  if (emulator->order == Order::kBursts && emulator->random.below(4) == 0) to_scheduler();
}

bool kernel_runs() { return running_now && emulator->current >= 0; }
int running_thread() { return emulator ? emulator->current : -1; }
unsigned char* shared_begin() { return shared_room; }
size_t shared_size() { return emulator ? emulator->shared_bytes : 0; }

void abandon() {
  if (!kernel_runs()) return;
  emulator->abandoned = true;
  to_scheduler();
}

int run_grid(const RunContext& context, Grid grid, int threads, size_t shared_bytes, void (*body)(const void*),
             const void* closure) {
  if (grid.x < 1 || grid.y < 1 || grid.z < 1) return 0;
  const Lock lock(device_mutex);
  if (refuse(context, grid, threads, shared_bytes)) return 1;
  if (reported()) return 0;  // as on a device: nothing runs after a failure until somebody asks
  if (!emulator) emulator = new Emulator;
  Emulator& e = *emulator;
  e.body = body, e.closure = closure, e.count = threads, e.warps = (threads + kWarp - 1) / kWarp;
  e.shared_bytes = shared_bytes;
  writable_running.threads = {static_cast<unsigned>(threads), 1, 1};
  writable_running.blocks = {static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y),
                             static_cast<unsigned>(grid.z)};
  running_now = true;
  shadow::launch_begins();
  unpoison(shared_memory_and_guards, sizeof shared_memory_and_guards);
  memset(shared_room - kSharedCanary, 0xff, kSharedCanary);
  memset(shared_room + shared_bytes, 0xff, kSharedCanary);
  poison(shared_memory_and_guards, kSharedGuard);
  poison(shared_room + shared_bytes, kSharedRoom - shared_bytes + kSharedGuard);
  // Blocks in the order i -> (step i + first) mod blocks.
  const uint64_t blocks = static_cast<uint64_t>(grid.x) * static_cast<uint64_t>(grid.y) * static_cast<uint64_t>(grid.z);
  Random random(seed_of_environment());
  uint64_t block = random.below(blocks), step = random.below(blocks) | 1;
  while (std::gcd(step, blocks) != 1) step += 2;
  step %= blocks;
  for (uint64_t i = 0; i < blocks && !reported(); ++i) {
    const uint64_t x = static_cast<uint64_t>(grid.x), y = static_cast<uint64_t>(grid.y);
    writable_running.block = {static_cast<unsigned>(block % x), static_cast<unsigned>(block / x % y),
                              static_cast<unsigned>(block / x / y)};
    run_block(random.next());
    block = static_cast<uint64_t>((static_cast<unsigned __int128>(block) + step) % blocks);
  }
  running_now = false;
  // Threads that were left are in the middle of their functions.
  if (kAddressSanitizer && reported())
    for (const Thread& thread : e.threads) unpoison(thread.fibre.stack, thread.fibre.stack_bytes);
  return 0;
}

void* shared_memory(size_t bytes) {
  if (bytes <= emulator->shared_bytes) return shared_room;
  report(__builtin_return_address(0), "a kernel uses %zu bytes of shared memory and was launched with %zu", bytes,
         emulator->shared_bytes);
  abandon();
  return shared_room;
}

void barrier() {
  Emulator& e = *emulator;
  const void* place = __builtin_return_address(0);
  if (e.at_barrier && e.barrier_place != place) {
    report(place, "threads of a block wait at two barriers at once");
    abandon();
  }
  e.barrier_place = place;
  if (++e.at_barrier < e.count) {
    pause(e.current);
    return to_scheduler();
  }
  e.at_barrier = 0;
  for (int w = 0; w < e.warps; ++w)
    wake(w, e.count - w * kWarp >= kWarp ? kAllLanes : (1u << (e.count - w * kWarp)) - 1);
  shadow::barrier_passed();
  perhaps_yield();
}

void together(WarpWork work, const Brought& brought) {
  Emulator& e = *emulator;
  const int number = e.current / kWarp;
  Warp& warp = e.of_warp[number];
  const void* place = __builtin_return_address(0);
  if (warp.waiting && warp.place != place) {
    report(place, "threads of a warp wait in two of its functions at once");
    abandon();
  }
  warp.place = place;
  self().brought = brought;
  warp.waiting |= 1u << e.current % kWarp;
  if (warp.waiting != kAllLanes) {
    pause(e.current);
    return to_scheduler();
  }
  Brought lanes[kWarp];
  for (int i = 0; i < kWarp; ++i) lanes[i] = e.threads[number * kWarp + i].brought;
  warp.waiting = 0;
  if (work == read_matrices || work == read_matrices_transposed) {
    for (int i = 0; i < kWarp; ++i) {
      const unsigned char* row = static_cast<const unsigned char*>(lanes[i].a);
      if (row < shared_room || row + 16 > shared_room + e.shared_bytes || reinterpret_cast<uintptr_t>(row) % 16) {
        report(place, "lane %d gave load_matrices a row that is not 16 aligned bytes of shared memory", i);
        abandon();
      }
      shadow::matrix_row_read(place, number * kWarp + i, row);
    }
  }
  work(lanes);
  if (reported()) abandon();
  wake(number, kAllLanes);
  if (work == meet) shadow::warp_passed(number);  // the others order no memory
  perhaps_yield();
}

}  // namespace fastconv::cuda::host
