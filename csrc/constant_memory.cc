// SPDX-License-Identifier: Apache-2.0
#include "constant_memory.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

namespace fastconv {

namespace {
constexpr int64_t kHugePage = 2 << 20, kLine = 64;
#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kSlabBytes = 0;  // blocks of their own, so that a step beyond one is seen
#else
constexpr int64_t kSlabBytes = 2 * kHugePage;
#endif
}  // namespace

struct Slab {
  char* base;
  int64_t bytes, used;
  int64_t blocks;  // that live; the last one gives the slab back
};

namespace {

// The slab that is being filled. What no longer fits opens a new one.
struct Filling {
  std::mutex mutex;
  Slab* slab = nullptr;
};

Filling& filling() {
  // Never destroyed: weights that Python frees at exit still come back here. A child forked while another thread is
  // inside would wait for that thread, which it does not have.
  static Filling* one = [] {
    Filling* made = new Filling;
    pthread_atfork([] { filling().mutex.lock(); }, [] { filling().mutex.unlock(); }, [] { filling().mutex.unlock(); });
    return made;
  }();
  return *one;
}

Slab* open_slab(int64_t needed) {
  const bool huge = kSlabBytes > 0;
  int64_t bytes = std::max(needed, kSlabBytes);
  if (huge) bytes = (bytes + kHugePage - 1) / kHugePage * kHugePage;
  void* base = nullptr;
  if (posix_memalign(&base, static_cast<size_t>(huge ? kHugePage : kLine), static_cast<size_t>(bytes)) != 0)
    throw std::bad_alloc();
  if (huge) madvise(base, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a hint: failure is no error
  Slab* slab = new (std::nothrow) Slab{static_cast<char*>(base), bytes, 0, 0};
  if (slab) return slab;
  free(base);
  throw std::bad_alloc();
}

void close_slab(Slab* slab) {
  free(slab->base);
  delete slab;
}

}  // namespace

ConstantMemory::ConstantMemory(int64_t bytes) : bytes_(bytes) {
  const int64_t taken = std::max(kLine, (bytes + kLine - 1) / kLine * kLine);
  Filling& f = filling();
  std::unique_lock<std::mutex> lock(f.mutex);
  if (!f.slab || f.slab->used + taken > f.slab->bytes) {
    Slab* fresh = open_slab(taken);
    if (f.slab && f.slab->blocks == 0) close_slab(f.slab);
    f.slab = fresh;
  }
  slab_ = f.slab;
  data_ = slab_->base + slab_->used;
  slab_->used += taken;
  ++slab_->blocks;
  lock.unlock();
  memset(data_, 0, static_cast<size_t>(taken));
}

ConstantMemory::~ConstantMemory() {
  Filling& f = filling();
  const std::lock_guard<std::mutex> lock(f.mutex);
  if (--slab_->blocks > 0) return;
  if (slab_ == f.slab)
    slab_->used = 0;
  else
    close_slab(slab_);
}

}  // namespace fastconv
