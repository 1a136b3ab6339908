// SPDX-License-Identifier: Apache-2.0
#include "workspace.h"

#include <pthread.h>
#include <sys/mman.h>

#include <cstdlib>
#include <mutex>
#include <new>

namespace fastconv {

class BlockCache {
 public:
  explicit BlockCache(int64_t limit) : limit_(limit) {}

  void* acquire(int64_t size) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      used_ += size;
      for (Free** at = &list_of(size); *at; at = &(*at)->next) {
        if ((*at)->size != size) continue;
        Free* block = *at;
        *at = block->next;
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
      if (held_ + size <= limit_ && size >= static_cast<int64_t>(sizeof(Free))) {
        Free*& list = list_of(size);
        list = new (block) Free{list, size};
        held_ += size;
        return;
      }
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
    for (Free*& list : free_)
      while (Free* block = list) {
        list = block->next;
        std::free(block);
      }
    held_ = 0;
  }

 private:
  // What is kept is its own list, so that keeping allocates nothing: a list for each size that block_size knows, in
  // which smaller sizes may be too.
  struct Free {
    Free* next;
    int64_t size;
  };
  static constexpr int kLists = 256;

  Free*& list_of(int64_t size) {
    int list = 0;
    int64_t step = 64;
    for (; step * 8 <= size; step *= 2) list += 4;
    return free_[list + (size + step - 1) / step % 4];
  }

  static void* allocate(int64_t size) {
    constexpr int64_t kHuge = 2 << 20;
    void* block = nullptr;
    if (posix_memalign(&block, size >= kHuge ? kHuge : 64, static_cast<size_t>(size)) != 0) return nullptr;
    if (size >= kHuge) madvise(block, static_cast<size_t>(size), MADV_HUGEPAGE);  // a hint: failure is no error
    return block;
  }

  const int64_t limit_;
  std::mutex mutex_;
  Free* free_[kLists] = {};
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
