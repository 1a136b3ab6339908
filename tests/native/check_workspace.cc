// SPDX-License-Identifier: Apache-2.0
// Whether max_workspace is kept: check_workspace FILE... runs every problem of the files (text form, a line each) in all
// passes, layouts and dtypes, by every algorithm that takes it, with weights packed in the call and before it, without a
// limit, with one of exactly what is needed, and with none at all. Every allocation of the process is counted (operator
// new, malloc and posix_memalign, by the linker's --wrap):
//
//   what a run allocates at its highest  <=  workspace_bytes of the choice  <=  max_workspace
//
// and with max_workspace = 0 there is an algorithm, chosen by itself, that runs and allocates nothing.
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <new>
#include <vector>

#include "half_problem.h"
#include "machine.h"
#include "parallel.h"
#include "plan.h"
#include "problems.h"
#include "registry.h"
#include "workspace.h"

extern "C" {
void* __real_malloc(size_t bytes);
void __real_free(void* block);
int __real_posix_memalign(void** block, size_t alignment, size_t bytes);
}

namespace {

// Live allocations while counting; few at a time.
struct Counter {
  static constexpr int kMost = 4096;
  std::atomic_flag busy = ATOMIC_FLAG_INIT;
  bool on = false;
  int used = 0;
  void* block[kMost];
  int64_t bytes[kMost];
  int64_t live = 0, peak = 0, largest_other = 0;

  void add(void* allocated, size_t size) {
    while (busy.test_and_set()) continue;
    if (on && allocated && used < kMost) {
      block[used] = allocated, bytes[used++] = static_cast<int64_t>(size);
      live += static_cast<int64_t>(size);
      if (live > peak) peak = live;
    }
    busy.clear();
  }
  void remove(void* freed) {
    while (busy.test_and_set()) continue;
    for (int i = used; on && i-- > 0;)
      if (block[i] == freed) {
        live -= bytes[i];
        --used, block[i] = block[used], bytes[i] = bytes[used];
        break;
      }
    busy.clear();
  }
  void start() { used = 0, live = peak = 0, on = true; }
  int64_t stop() { return on = false, peak; }
};
Counter counter;

}  // namespace

extern "C" {
void* __wrap_malloc(size_t bytes) {
  void* block = __real_malloc(bytes);
  counter.add(block, bytes);
  return block;
}
int __wrap_posix_memalign(void** block, size_t alignment, size_t bytes) {
  const int status = __real_posix_memalign(block, alignment, bytes);
  if (status == 0) counter.add(*block, bytes);
  return status;
}
void __wrap_free(void* block) {
  counter.remove(block);
  __real_free(block);
}
}
void* operator new(size_t bytes) {
  if (void* block = __wrap_malloc(bytes)) return block;
  throw std::bad_alloc();
}
void operator delete(void* block) noexcept { __wrap_free(block); }
void operator delete(void* block, size_t) noexcept { __wrap_free(block); }

namespace {

using namespace fastconv;

int failures = 0;
int64_t runs = 0;

// Buffers of one problem, for any dtype: their values do not matter here.
struct Buffers {
  std::vector<char> x, w, y, bias, residual;
  explicit Buffers(const ConvProblem& p) {
    const int64_t size = element_size(p.dtype), xs = p.n * p.c * x_plane(p), ys = p.n * p.k * y_plane(p);
    x.resize(static_cast<size_t>(xs * size + 64)), y.resize(static_cast<size_t>(ys * size + 64));
    w.resize(static_cast<size_t>(p.k * (p.c / p.groups) * taps(p) * size + 64));
    bias.resize(static_cast<size_t>(std::max(p.c, p.k) * size));
    residual.resize(static_cast<size_t>(ys * size + 64));
  }
};

void fail(const ConvProblem& p, const Options& o, const Choice& choice, const char* what, int64_t peak) {
  char text[kTextCapacity];
  to_text(p, text);
  printf("FAILED %s %s limit=%" PRId64 ": %s; says %" PRId64 ", allocated %" PRId64 "\n",
         choice.algorithm ? choice.algorithm->name : "auto", text, o.max_workspace, what, choice.workspace_bytes, peak);
  ++failures;
}

void run_counted(const ConvProblem& p, const Options& o, Buffers& b, Choice choice, const void* packed) {
  RunContext r{};
  r.w_dtype = p.dtype;
  r.x = b.x.data(), r.w = b.w.data(), r.y = b.y.data();
  if (p.epilogue & kEpilogueBias) r.bias = b.bias.data();
  if (p.epilogue & kEpilogueResidual) r.residual = b.residual.data();
  r.packed_w = packed;
  pitches(p.x_layout, p.c, x_plane(p), &r.x_batch_pitch, &r.x_channel_pitch);
  pitches(p.y_layout, p.k, y_plane(p), &r.y_batch_pitch, &r.y_channel_pitch);
  clear(workspace_cache());
  counter.start();
  const bool done = run_choice(p, o, &choice, &r);
  const int64_t peak = counter.stop();
  ++runs;
  if (!done) return fail(p, o, choice, choice.text, peak);
  if (peak > choice.workspace_bytes) fail(p, o, choice, "allocated more than it said", peak);
  if (o.max_workspace >= 0 && choice.workspace_bytes > o.max_workspace) fail(p, o, choice, "says too much", peak);
}

// Without a limit, with exactly what is needed, with a byte less.
void check_algorithm(const ConvProblem& p, Options o, Buffers& b, bool packed) {
  Choice choice = choose(p, o, packed);
  if (choice.failure != Failure::kNone) return;
  std::vector<char> weights;
  const void* ready = nullptr;
  if (packed) {
    weights.resize(static_cast<size_t>(packed_bytes(*o.algorithm, p, *o.machine)) + 64);
    char* at = weights.data() + (64 - reinterpret_cast<uintptr_t>(weights.data()) % 64) % 64;
    pack(*o.algorithm, p, *o.machine, make_parallel(1), b.w.data(), at);
    ready = at;
  }
  run_counted(p, o, b, choice, ready);
  const ConvProblem computed = computed_problem(p);
  const int64_t tables = o.algorithm->table_bytes ? o.algorithm->table_bytes(&computed, o.machine, 1) : 0;
  const int64_t needed = workspace_bytes(*o.algorithm, p, *o.machine, 1, packed) + tables;
  o.max_workspace = needed;
  choice = choose(p, o, packed);
  if (choice.failure != Failure::kNone) return fail(p, o, choice, "refuses what it needs", 0);
  run_counted(p, o, b, choice, ready);
  o.max_workspace = needed - 1;
  if (needed > 0 && choose(p, o, packed).failure != Failure::kWorkspace) fail(p, o, choice, "takes too little", 0);
}

void check(const ConvProblem& p) {
  Buffers b(p);
  Options o;
  o.machine = find_machine(nullptr, nullptr);
  o.threads = 4;
  o.precision = 1e9;
  for (int i = 0; i < algorithm_count(); ++i) {
    o.algorithm = &algorithm_at(i);
    check_algorithm(p, o, b, false);
    if (p.pass != Pass::kBackwardFilter && packed_bytes(*o.algorithm, p, *o.machine) > 0)
      check_algorithm(p, o, b, true);
  }
  o.algorithm = nullptr, o.max_workspace = 0;
  const Choice choice = choose(p, o, false);
  if (choice.failure != Failure::kNone) return fail(p, o, choice, choice.text, 0);
  run_counted(p, o, b, choice, nullptr);
}

}  // namespace

int main(int count, char** files) {
  parallel_for(make_parallel(4), 64, [](int64_t, int) {});  // the threads are there
  const int problems = each_problem(count, files, [](const ConvProblem& p) { each_variant(p, check); });
  printf("%d problems, %" PRId64 " runs, %d failures\n", problems, runs, failures);
  return failures || problems == 0 ? 1 : 0;
}
