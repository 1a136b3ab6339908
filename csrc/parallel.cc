// SPDX-License-Identifier: Apache-2.0
// One pool for the process. A caller takes part in its own work; workers spin briefly, then sleep on a condition
// variable. A second caller, or a call from inside a worker, finds the pool busy and runs its items itself. Beside a
// library that computes on an OpenMP team the jobs go to that team: two teams that both wait by spinning take each
// other's cores.
#include "parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fastconv {
namespace {

// Rounding to nearest, subnormals read and written as zero, for the length of a scope.
class FloatingPointMode {
 public:
#if defined(__x86_64__)
  FloatingPointMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80u | 0x8040u); }  // all masked; FTZ and DAZ
  ~FloatingPointMode() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FloatingPointMode() : saved_(__builtin_aarch64_get_fpcr()) { __builtin_aarch64_set_fpcr(1u << 24); }  // FZ
  ~FloatingPointMode() { __builtin_aarch64_set_fpcr(saved_); }

 private:
  unsigned saved_;
#endif
};

thread_local bool inside_work = false;
thread_local int default_of_thread = 0;

class InsideWork {
 public:
  InsideWork() : before_(inside_work) { inside_work = true; }
  ~InsideWork() { inside_work = before_; }

 private:
  bool before_;
};

// Each thread begins with a range of its own, of neighbouring items, and then takes from the others'. So layers of a
// network that are cut alike find in a core's cache what it wrote there. A thread that comes late loses its range.
class Job {
 public:
  Job(void (*work)(void*, int64_t, int), void* argument, int64_t items, int slots)
      : items_(items), slots_(slots), work_(work), argument_(argument) {
    share(1);
  }

  int64_t items() const { return items_; }
  int slots() const { return slots_; }
  bool failed() const { return failed_.load(std::memory_order_relaxed); }

  // Before anybody drains it.
  void share(int threads) {
    ranges_ = std::clamp(threads, 1, kMostRanges);
    for (int i = 0; i < ranges_; ++i) {
      range_[i].next.store(i * items_ / ranges_, std::memory_order_relaxed);
      range_[i].end = (i + 1) * items_ / ranges_;
    }
  }

  // An item that finds no memory ends the job; parallel_run says so once every thread has left it.
  void drain(int slot) {
    const FloatingPointMode mode;
    const InsideWork inside;
    try {
      for (int i = 0; i < ranges_; ++i) {
        Range& range = range_[(slot + i) % ranges_];
        for (int64_t item; (item = range.next.fetch_add(1, std::memory_order_relaxed)) < range.end;)
          work_(argument_, item, slot);
      }
    } catch (const std::bad_alloc&) {
      failed_.store(true, std::memory_order_relaxed);
      for (int i = 0; i < ranges_; ++i) range_[i].next.store(range_[i].end, std::memory_order_relaxed);
    }
  }

 private:
  static constexpr int kMostRanges = 32;
  struct alignas(64) Range {
    std::atomic<int64_t> next;
    int64_t end;
  };

  const int64_t items_;
  const int slots_;
  void (*const work_)(void*, int64_t, int);
  void* const argument_;
  int ranges_;
  std::atomic<bool> failed_{false};
  Range range_[kMostRanges];
};

struct OpenMp {
  OpenMpRegion begin;
  OpenMpThread thread;
};
std::atomic<const OpenMp*> openmp{nullptr};  // never freed: somebody may be inside

class Pool {
 public:
  // Runs the job on up to job->slots threads; false when somebody else is using the pool.
  bool run(Job* job) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    const OpenMp* team = openmp.load(std::memory_order_acquire);
    // All its threads, whatever the items: a team of another size is built anew. One of more threads than cores, all
    // spinning, would crawl.
    if (team && job->slots() <= available_threads()) {
      job->share(job->slots());
      std::pair<Job*, OpenMpThread> shared{job, team->thread};
      team->begin(
          [](void* data) {
            const auto& [job, thread] = *static_cast<std::pair<Job*, OpenMpThread>*>(data);
            job->drain(thread());
          },
          &shared, static_cast<unsigned>(job->slots()), 0);
      return true;
    }
    const int helpers = static_cast<int>(std::min<int64_t>(job->slots(), job->items())) - 1;
    spins_ = job->slots() <= available_threads() ? kSpins : 0;  // with more threads than cores, spinning starves others
    grow(helpers);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      job_ = job;
      wanted_ = std::min<int>(helpers, static_cast<int>(workers_.size()));
      running_.store(wanted_, std::memory_order_relaxed);
      job->share(wanted_ + 1);
      generation_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    job->drain(0);
    for (int i = 0; i < spins_ && running_.load(std::memory_order_acquire) > 0; ++i) pause();
    if (running_.load(std::memory_order_acquire) > 0) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, [this] { return running_.load(std::memory_order_acquire) == 0; });
    }
    return true;
  }

 private:
  static constexpr int kSpins = 2000;  // 30 to 60 us: longer than the gap between two layers of a network

  static void pause() {
#if defined(__x86_64__)
    _mm_pause();
#endif
  }

  void grow(int helpers) {
    try {
      while (static_cast<int>(workers_.size()) < helpers) {
        const int slot = static_cast<int>(workers_.size()) + 1;
        const uint64_t seen = generation_.load(std::memory_order_relaxed);
        workers_.emplace_back([this, slot, seen] { loop(slot, seen); });
        workers_.back().detach();
      }
    } catch (const std::exception&) {
      // No more threads to be had, or no memory for one: those that exist do the work.
    }
  }

  void loop(int slot, uint64_t seen) {
    for (;;) {
      for (int i = 0; i < spins_ && generation_.load(std::memory_order_acquire) == seen; ++i) pause();
      Job* job;
      {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
        seen = generation_.load(std::memory_order_relaxed);
        if (slot > wanted_) continue;
        job = job_;
      }
      job->drain(slot);
      const std::lock_guard<std::mutex> lock(mutex_);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) done_.notify_one();
    }
  }

  std::mutex owner_;  // held by the caller whose job runs
  std::mutex mutex_;  // guards what follows
  std::condition_variable wake_, done_;
  std::vector<std::thread> workers_;
  Job* job_ = nullptr;
  int wanted_ = 0;
  std::atomic<int> running_{0}, spins_{kSpins};
  std::atomic<uint64_t> generation_{0};
};

// Never destroyed: detached workers wait on it until the process ends.
Pool* the_pool = nullptr;
std::once_flag pool_once;

void start_pool() {
  the_pool = new Pool;
  // A forked child has none of the parent's threads and perhaps a locked mutex: it starts anew, the old one leaks.
  // No OpenMP library's team lives on there either, and GNU's waits for it for ever.
  pthread_atfork(nullptr, nullptr, [] {
    the_pool = new Pool;
    use_openmp(nullptr, nullptr);
  });
}

// Cores' worth of time that the control group grants, 0 when unlimited or unknown.
int quota_threads() {
  long long quota = -1, period = 0;
  if (FILE* file = fopen("/sys/fs/cgroup/cpu.max", "r")) {
    if (fscanf(file, "%lld %lld", &quota, &period) != 2) quota = -1;
    fclose(file);
  } else if (FILE* v1 = fopen("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "r")) {
    if (fscanf(v1, "%lld", &quota) != 1) quota = -1;
    fclose(v1);
    if (FILE* v1_period = fopen("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "r")) {
      if (fscanf(v1_period, "%lld", &period) != 1) period = 0;
      fclose(v1_period);
    }
  }
  return quota > 0 && period > 0 ? static_cast<int>(std::max<long long>(1, quota / period)) : 0;
}

std::atomic<int> limit{0};  // 0: none

}  // namespace

int available_threads() {
  static const int count = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 0;
    if (cores < 1) cores = std::max(1u, std::thread::hardware_concurrency());
    const int quota = quota_threads();
    return quota > 0 ? std::min(cores, quota) : cores;
  }();
  return count;
}

ThreadDefault::ThreadDefault(int threads) : before_(default_of_thread) { default_of_thread = threads; }
ThreadDefault::~ThreadDefault() { default_of_thread = before_; }

int default_threads() {
  if (default_of_thread > 0) return default_of_thread;
  const int most = limit.load(std::memory_order_relaxed);
  if (most > 0) return most;
  static const int from_environment = [] {
    const char* text = getenv("FASTCONV_NUM_THREADS");
    return text && *text ? atoi(text) : 0;  // checked by name and range when the module is loaded
  }();
  return from_environment > 0 ? from_environment : available_threads();
}

void set_threads(int threads) { limit.store(threads, std::memory_order_relaxed); }

int granted_threads(int threads) {
  if (threads <= 0) return std::min(default_threads(), kMostSlots);
  const int most = limit.load(std::memory_order_relaxed);
  return std::min({threads, most > 0 ? most : kMostSlots, kMostSlots});
}

void use_openmp(OpenMpRegion begin, OpenMpThread thread) {
  if (begin) std::call_once(pool_once, start_pool);  // a child is to know, even of a parent that has not computed yet
  openmp.store(begin ? new OpenMp{begin, thread} : nullptr, std::memory_order_release);
}

void parallel_run(void*, int slots, int64_t items, void (*work)(void*, int64_t, int), void* argument) {
  if (items <= 0) return;
  Job job(work, argument, items, slots);
  bool done = false;
  if (slots > 1 && items > 1 && !inside_work) {
    std::call_once(pool_once, start_pool);
    done = the_pool->run(&job);
  }
  if (!done) job.drain(0);
  if (job.failed()) throw std::bad_alloc();
}

Parallel make_parallel(int threads) { return {nullptr, granted_threads(threads), parallel_run}; }

}  // namespace fastconv
