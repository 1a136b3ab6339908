// SPDX-License-Identifier: Apache-2.0
// The library's own thread pool: threads sleep when idle, nested calls and second callers run inline, a forked child
// starts its own. Items may be claimed in any order; see Parallel in algorithm.h for the promise that follows.
#pragma once

#include "algorithm.h"

namespace fastconv {

// Cores that this process may use: affinity within the control group's quota.
int available_threads();
// How many threads a call takes that does not say: a ThreadDefault of the calling thread, else set_threads, else
// FASTCONV_NUM_THREADS, else available_threads().
int default_threads();
// The most threads that any call of this process takes, and as many as one takes that does not say; 0: no such limit.
void set_threads(int threads);
// What a call gets that asks for `threads` (<= 0: does not say).
int granted_threads(int threads);

// The calling thread's default for the length of a scope.
class ThreadDefault {
 public:
  explicit ThreadDefault(int threads);
  ~ThreadDefault();
  ThreadDefault(const ThreadDefault&) = delete;
  ThreadDefault& operator=(const ThreadDefault&) = delete;

 private:
  int before_;
};

// An OpenMP library's GOMP_parallel (GNU's; LLVM's and Intel's have it too): body(data) on each thread of a team of at
// most `threads`, the caller one of them, which has ended when it returns. And omp_get_thread_num.
using OpenMpRegion = void (*)(void (*body)(void* data), void* data, unsigned threads, unsigned flags);
using OpenMpThread = int (*)();
// From now on jobs of no more threads than cores run on that library's team; null: on the pool's threads again, as a
// forked child does by itself.
void use_openmp(OpenMpRegion begin, OpenMpThread thread);

// Runs work(argument, item, slot) for item in [0, items) on up to `slots` threads (the caller is one of them).
// Every item runs with rounding to nearest and subnormals flushed to zero, restored afterwards. Throws std::bad_alloc
// where an item did, once no thread works on the others any more.
void parallel_run(void* pool, int slots, int64_t items, void (*work)(void* argument, int64_t item, int slot),
                  void* argument);

// The pool as the C struct that algorithms get, with granted_threads(threads).
Parallel make_parallel(int threads);

// Convenience for lambdas: work(item, slot).
template <class Work>
void parallel_for(const Parallel& parallel, int64_t items, const Work& work) {
  parallel.run(
      parallel.pool, parallel.slots, items,
      [](void* argument, int64_t item, int slot) { (*static_cast<const Work*>(argument))(item, slot); },
      const_cast<Work*>(&work));
}

}  // namespace fastconv
