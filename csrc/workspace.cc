// SPDX-License-Identifier: Apache-2.0
#include "workspace.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace fastconv {

class BlockCache {
 public:
  explicit BlockCache(int64_t limit) : limit_(limit) {}

  void* acquire(int64_t size) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ += size;
      auto found = free_.find(size);
      if (found != free_.end() && !found->second.empty()) {
        void* block = found->second.back();
        found->second.pop_back();
        held_ -= size;
        return block;
      }
    }
    void* block = allocate(size);
    if (!block) {
      trim();  // what lies unused here may be what is missing
      block = allocate(size);
    }
    if (!block) {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ -= size;
    }
    return block;
  }

  void release(void* block, int64_t size) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ -= size;
      if (held_ + size <= limit_ && keep(block, size)) return;
    }
    std::free(block);
  }

  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }

  CacheState state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return {held_, used_, limit_};
  }

  void trim() {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto& [size, blocks] : free_)
      for (void* block : blocks) std::free(block);
    free_.clear();
    held_ = 0;
  }

 private:
  static void* allocate(int64_t size) {
    constexpr int64_t kHuge = 2 << 20;
    void* block = nullptr;
    if (posix_memalign(&block, size >= kHuge ? kHuge : 64, static_cast<size_t>(size)) != 0) return nullptr;
    if (size >= kHuge) madvise(block, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint: failure is no error
    return block;
  }

  bool keep(void* block, int64_t size) {
    try {
      free_[size].push_back(block);
    } catch (const std::bad_alloc&) {
      return false;
    }
    held_ += size;
    return true;
  }

  const int64_t limit_;
  std::mutex mutex_;
  std::map<int64_t, std::vector<void*>> free_;
  int64_t held_ = 0, used_ = 0;
};

// Four sizes per power of two.
int64_t block_size(int64_t bytes) {
  int64_t step = 64;
  while (step * 8 <= bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

namespace {

struct Caches {
  BlockCache workspace{int64_t{256} << 20}, output{int64_t{512} << 20};
};

Caches& caches() {
  // Never destroyed: arrays that Python frees at exit still come back here.
  static Caches* both = [] {
    Caches* made = new Caches;
    // A child forked while another thread is inside would wait for that thread, which it does not have.
    pthread_atfork([] { caches().workspace.lock(), caches().output.lock(); },
                   [] { caches().output.unlock(), caches().workspace.unlock(); },
                   [] { caches().output.unlock(), caches().workspace.unlock(); });
    return made;
  }();
  return *both;
}

}  // namespace

BlockCache& workspace_cache() { return caches().workspace; }
BlockCache& output_cache() { return caches().output; }
void* acquire_block(BlockCache& cache, int64_t bytes) { return cache.acquire(bytes); }
void release_block(BlockCache& cache, void* block, int64_t bytes) { cache.release(block, bytes); }
CacheState cache_state(BlockCache& cache) { return cache.state(); }
void clear(BlockCache& cache) { cache.trim(); }

}  // namespace fastconv
