// SPDX-License-Identifier: Apache-2.0
// What the core does where there is no memory: check_alloc FILE... runs every problem of the files (text form) in all
// three passes, by every algorithm that does not refuse it, with 1 and 3 threads, and lets the first allocation fail,
// then the second, and so on until none is left to fail; then every third one. Each time: std::bad_alloc or a status
// with its sentence, the workspace given back, no block lost, and the next call right to the last bit. Allocations are
// those of operator new and posix_memalign, on any thread.
#include <atomic>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <new>
#include <string>
#include <vector>

#include "half_problem.h"
#include "machine.h"
#include "parallel.h"
#include "plan.h"
#include "registry.h"
#include "workspace.h"

namespace {

// Which allocations fail: number `at` of those counted while armed, or every `each`th. `live` counts blocks, always.
std::atomic<bool> armed{false};
std::atomic<int64_t> counted{0}, fail_at{0}, fail_each{0}, live{0};

bool fails() {
  if (!armed.load()) return false;
  const int64_t number = counted.fetch_add(1) + 1, each = fail_each.load();
  return number == fail_at.load() || (each > 0 && number % each == 0);
}

void* allocate(size_t bytes) {
  void* block = fails() ? nullptr : std::malloc(bytes ? bytes : 1);
  if (!block) throw std::bad_alloc();
  live.fetch_add(1);
  return block;
}

void give_back(void* block) {
  if (block) live.fetch_sub(1);
  std::free(block);
}

}  // namespace

void* operator new(size_t bytes) { return allocate(bytes); }
void* operator new[](size_t bytes) { return allocate(bytes); }
void operator delete(void* block) noexcept { give_back(block); }
void operator delete[](void* block) noexcept { give_back(block); }
void operator delete(void* block, size_t) noexcept { give_back(block); }
void operator delete[](void* block, size_t) noexcept { give_back(block); }

extern "C" int __real_posix_memalign(void** block, size_t alignment, size_t bytes);
extern "C" int __wrap_posix_memalign(void** block, size_t alignment, size_t bytes) {
  return fails() ? 12 : __real_posix_memalign(block, alignment, bytes);  // ENOMEM
}

namespace {

using namespace fastconv;

int64_t runs = 0, refused = 0;

class Call {
 public:
  Call(const ConvProblem& problem, const Algorithm& which, int threads) : p(problem), algorithm(which) {
    options.machine = &usable_machine(0);
    options.algorithm = &algorithm;
    options.precision = 1e9;
    options.threads = threads;
    const size_t size = static_cast<size_t>(element_size(p.dtype));
    x.resize(static_cast<size_t>(p.n * p.c * x_plane(p)) * size);
    w.resize(static_cast<size_t>(p.k * (p.c / p.groups) * taps(p)) * size);
    y.resize(static_cast<size_t>(p.n * p.k * y_plane(p)) * size);
    bias.resize(static_cast<size_t>(p.k > p.c ? p.k : p.c) * size);
    residual.resize(y.size());
    for (auto* values : {&x, &w, &y, &bias, &residual}) fill(values);
    result().assign(result().size(), 0);
  }

  // False with the sentence in `text`; std::bad_alloc passes. A limit of workspace that was never asked for makes the
  // choice anew, and a block that is held makes the workspace so.
  bool run(char* text) {
    static int64_t limit = int64_t{1} << 40;
    options.max_workspace = ++limit;
    Choice choice = choose(p, options, false);
    if (choice.failure == Failure::kNone) {
      RunContext r{};
      r.x = x.data(), r.w = w.data(), r.y = y.data();
      if (p.epilogue & kEpilogueBias) r.bias = bias.data();
      if (p.epilogue & kEpilogueResidual) r.residual = residual.data();
      pitches(p.x_layout, p.c, x_plane(p), &r.x_batch_pitch, &r.x_channel_pitch);
      pitches(p.y_layout, p.k, y_plane(p), &r.y_batch_pitch, &r.y_channel_pitch);
      if (run_choice(p, options, &choice, &r)) return true;
    }
    snprintf(text, kTextCapacity, "%s", choice.text);
    return false;
  }

  int64_t workspace() const { return choose(p, options, false).workspace_bytes; }
  std::vector<char>& result() { return p.pass == Pass::kForward ? y : p.pass == Pass::kBackwardData ? x : w; }

 private:
  // Small floats; of halves, whatever has these bits.
  void fill(std::vector<char>* values) const {
    uint32_t state = 7;
    for (size_t i = 0; i + 4 <= values->size(); i += 4) {
      state = state * 1664525u + 1013904223u;
      const float value = static_cast<float>(state >> 20) / 4096 - 0.5f;
      memcpy(values->data() + i, &value, 4);
    }
  }
  static void pitches(Layout layout, int64_t channels, int64_t plane, int64_t* batch, int64_t* channel) {
    *batch = channels * plane;
    *channel = layout == Layout::kChannelsLast ? channels : plane;
  }

  const ConvProblem p;
  const Algorithm& algorithm;
  Options options;
  std::vector<char> x, w, y, bias, residual;
};

// One run with failures as they are set; 1 and a line where anything is wrong.
int check_once(Call& call, const std::vector<char>& expected, const std::string& name) {
  char text[kTextCapacity] = "";
  bool done = false, thrown = false;
  const int64_t used = cache_state(workspace_cache()).used_bytes;
  counted = 0, armed = true;
  try {
    done = call.run(text);
  } catch (const std::bad_alloc&) {
    thrown = true;
  }
  armed = false;
  ++runs, refused += !done;
  const char* wrong = nullptr;
  if (cache_state(workspace_cache()).used_bytes != used) wrong = "workspace was not given back";
  if (!done && !thrown && !*text) wrong = "failed without a sentence";
  if (done && call.result() != expected) wrong = "other bits, and no failure";
  if (!call.run(text)) wrong = "the next call failed";
  if (call.result() != expected) wrong = "the next call has other bits";
  if (!wrong) return 0;
  printf("FAILED %s at %" PRId64 ", each %" PRId64 ": %s %s\n", name.c_str(), fail_at.load(), fail_each.load(), wrong,
         text);
  return 1;
}

int check_call(Call& call, const std::string& name) {
  char text[kTextCapacity];
  if (!call.run(text)) return printf("FAILED %s: %s\n", name.c_str(), text), 1;
  const std::vector<char> expected = call.result();
  int failures = 0;
  int64_t before = 0;
  for (int round = 0; round < 2; ++round) {  // the first fills lists and caches, the second must lose nothing
    const Workspace held(call.workspace());
    before = live;
    for (int64_t at = 1, total = 1; at <= total + 1; ++at) {
      fail_at = at, fail_each = 0;
      failures += check_once(call, expected, name);
      if (counted > total) total = counted;
    }
    fail_at = 0, fail_each = 3;
    failures += check_once(call, expected, name);
    fail_each = 0;
  }
  if (live != before) failures += 1, printf("FAILED %s: %" PRId64 " blocks were lost\n", name.c_str(), live - before);
  return failures;
}

int check(ConvProblem p) {
  int failures = 0;
  const ConvProblem forward = p;
  for (Pass pass : {Pass::kForward, Pass::kBackwardData, Pass::kBackwardFilter})
    for (DType dtype : {DType::kFloat32, DType::kFloat16}) {
      p = forward;
      p.pass = pass, p.dtype = dtype;
      if (pass == Pass::kBackwardFilter || (pass == Pass::kBackwardData && p.padding_mode != PaddingMode::kZeros))
        p.activation = Activation::kNone, p.epilogue = 0;
      else if (pass == Pass::kBackwardData)
        p.epilogue &= ~kEpilogueResidual;
      for (int i = 0; i < algorithm_count(); ++i) {
        char text[kTextCapacity];
        const ConvProblem computed = computed_problem(p);
        if (algorithm_at(i).why_not(&computed, &usable_machine(0), text)) continue;
        for (int threads : {1, 3}) {
          Call call(p, algorithm_at(i), threads);
          to_text(p, text);
          failures += check_call(call, std::string(algorithm_at(i).name) + " " + text);
        }
      }
    }
  return failures;
}

}  // namespace

int main(int count, char** files) {
  int failures = 0, problems = 0;
  // A cache that is full forgets a choice for each that it keeps.
  ConvProblem small;
  char error[kTextCapacity];
  parse("fwd n1 c1 w1 k1 s1", &small, error);
  Options options;
  options.machine = &usable_machine(0);
  for (int64_t i = 0; i <= plan_cache_state().limit; ++i) options.max_workspace = i + 1, choose(small, options, false);
  for (int i = 1; i < count; ++i) {
    std::ifstream file(files[i]);
    if (!file) return printf("cannot read %s\n", files[i]), 2;
    for (std::string line; std::getline(file, line);) {
      if (line.find_first_not_of(" \t\r") == std::string::npos || line[line.find_first_not_of(" \t\r")] == '#')
        continue;
      ConvProblem p;
      if (!parse(line.c_str(), &p, error)) return printf("%s: %s\n%s\n", files[i], line.c_str(), error), 2;
      failures += check(p);
      ++problems;
    }
  }
  printf("%d problems, %" PRId64 " runs, %" PRId64 " of them without memory, %d failures\n", problems, runs, refused,
         failures);
  return failures || problems == 0 || refused == 0 ? 1 : 0;
}
