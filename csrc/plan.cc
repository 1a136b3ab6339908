// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

#include "device_timer.h"
#include "half_problem.h"
#include "parallel.h"
#include "registry.h"
#include "workspace.h"

namespace fastconv {
namespace {

// Waking a thread costs a few microseconds: work below this is not shared.
constexpr double kSharedFrom = 20e-6;

bool log_choices() {
  static const bool on = [] {
    const char* level = getenv("FASTCONV_LOG");
    return level && (strcmp(level, "info") == 0 || strcmp(level, "debug") == 0);
  }();
  return on;
}

// The bytes of a ConvProblem and of what else decides the choice.
struct Key {
  ConvProblem problem;
  const Machine* machine;
  const Algorithm* algorithm;
  double precision;
  int64_t max_workspace, tuning;
  int32_t threads, batch_invariant, packed, unused;
};
static_assert(sizeof(Key) == sizeof(ConvProblem) + 56, "no padding bytes: the bytes are hashed and compared");

struct KeyHash {
  size_t operator()(const Key& key) const {
    const unsigned char* bytes = reinterpret_cast<const unsigned char*>(&key);
    uint64_t hash = 0x9E3779B97F4A7C15u;
    for (size_t i = 0; i < sizeof key; i += 8) {
      uint64_t word;
      memcpy(&word, bytes + i, 8);
      hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
      hash ^= hash >> 32;
    }
    return hash;
  }
};
struct KeyEqual {
  bool operator()(const Key& a, const Key& b) const { return memcmp(&a, &b, sizeof a) == 0; }
};

// Least recently used choices are forgotten first.
class ChoiceCache {
 public:
  bool find(const Key& key, Choice* choice) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return ++misses_, false;
    order_.splice(order_.begin(), order_, found->second);
    *choice = found->second->second;
    return ++hits_, true;
  }
  void insert(const Key& key, const Choice& choice) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (index_.count(key)) return;
    std::list<std::pair<Key, Choice>> entry;
    try {
      entry.emplace_front(key, choice);
      index_.emplace(key, entry.begin());
    } catch (const std::bad_alloc&) {
      return;  // what is not remembered is chosen again
    }
    order_.splice(order_.begin(), entry);
    if (order_.size() <= kLimit) return;
    index_.erase(order_.back().first);
    order_.pop_back();
  }
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  PlanCacheState state() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int64_t entries = static_cast<int64_t>(order_.size());
    return {entries, kLimit, hits_, misses_, entries * static_cast<int64_t>(sizeof(Key) + sizeof(Choice))};
  }
  void clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    index_.clear(), order_.clear();
    hits_ = misses_ = 0;
  }

 private:
  static constexpr size_t kLimit = 1024;  // about 1 MB
  std::mutex mutex_;
  std::list<std::pair<Key, Choice>> order_;
  std::unordered_map<Key, std::list<std::pair<Key, Choice>>::iterator, KeyHash, KeyEqual> index_;
  int64_t hits_ = 0, misses_ = 0;
};

std::mutex trace_mutex;

ChoiceCache& choice_cache() {
  static ChoiceCache* cache = [] {
    ChoiceCache* made = new ChoiceCache;
    // As in workspace.cc: what is locked while a process forks stays locked in the child.
    pthread_atfork([] { choice_cache().lock(), trace_mutex.lock(); },
                   [] { trace_mutex.unlock(), choice_cache().unlock(); },
                   [] { trace_mutex.unlock(), choice_cache().unlock(); });
    return made;
  }();
  return *cache;
}

// The bytes that are needed are in `lease_bytes`, without the tables. Those that are leased: a block of the cache, of
// just the limit where that is less.
void limit_workspace(const Options& o, int64_t tables, Choice* c) {
  c->workspace_bytes = c->lease_bytes + tables;
  if (o.max_workspace < 0 || c->workspace_bytes <= o.max_workspace) {
    if (is_device(*o.machine) || c->lease_bytes == 0) return;
    c->lease_bytes = block_size(c->lease_bytes);
    if (o.max_workspace >= 0) c->lease_bytes = std::min(c->lease_bytes, o.max_workspace - tables);
    c->workspace_bytes = c->lease_bytes + tables;
    return;
  }
  c->failure = Failure::kWorkspace;
  snprintf(c->text, sizeof c->text, "%s needs %" PRId64 " bytes of workspace; max_workspace is %" PRId64,
           c->algorithm->name, c->workspace_bytes, o.max_workspace);
}

// What the choice looks at: one image where it is not to depend on how many there are.
ConvProblem as_judged(const ConvProblem& p, const Options& o) {
  ConvProblem judged = p;
  if (o.batch_invariant && p.pass != Pass::kBackwardFilter && p.n > 1) judged.n = 1;
  return judged;
}

// Whether `algorithm` may run; fills estimate, slots and workspace, or failure and text.
Choice consider(const Algorithm& algorithm, const ConvProblem& p, const Options& o, int threads, bool packed) {
  Choice c;
  c.algorithm = &algorithm;
  const bool device = is_device(*o.machine);  // its algorithms take halves as they are
  const ConvProblem computed = device ? p : computed_problem(p);
  if (algorithm.why_not(&computed, o.machine, c.text)) {
    c.failure = Failure::kUnsupported;
    return c;
  }
  if (!(algorithm.error_factor <= o.precision)) {
    c.failure = Failure::kUnsupported;
    snprintf(c.text, sizeof c.text, "%s has error factor %g; precision allows %g", algorithm.name,
             algorithm.error_factor, o.precision);
    return c;
  }
  const ConvProblem judged = as_judged(p, o);
  if (device) {
    algorithm.estimate(&judged, o.machine, &c.estimate);
    c.lease_bytes = algorithm.workspace_bytes(&p, o.machine, 1, packed);
    limit_workspace(o, 0, &c);
    return c;
  }
  c.estimate = estimate(algorithm, judged, *o.machine, packed);
  const double seconds = judged.n == p.n ? c.estimate.total() : estimate(algorithm, p, *o.machine, packed).total();
  c.slots = seconds < kSharedFrom ? 1 : threads;
  int64_t tables;
  const auto count = [&] {
    c.lease_bytes = workspace_bytes(algorithm, p, *o.machine, c.slots, packed);
    tables = algorithm.table_bytes ? algorithm.table_bytes(&computed, o.machine, c.slots) : 0;
  };
  count();
  for (; o.max_workspace >= 0 && c.lease_bytes + tables > o.max_workspace && c.slots > 1; count()) --c.slots;
  limit_workspace(o, tables, &c);
  return c;
}

bool is_verified(const Machine& machine, const Algorithm& algorithm) {
  for (int i = 0; i < machine.verified_count; ++i)
    if (strcmp(machine.verified[i], algorithm.name) == 0) return true;
  return false;
}

// What passed on a GPU goes before what did not, whatever is estimated; on the CPU the estimate alone decides.
bool is_better(const Machine& machine, const Choice& a, const Choice& b) {
  const bool verified = is_verified(machine, *a.algorithm);
  if (verified != is_verified(machine, *b.algorithm)) return verified;
  return a.estimate.total() < b.estimate.total();
}

Choice choose_anew(const ConvProblem& p, const Options& o, int threads, bool packed) {
  Choice best;
  if (!validate(p, best.text)) {
    best.failure = Failure::kProblem;
    return best;
  }
  if (o.algorithm) return consider(*o.algorithm, p, o, threads, packed);
  if (const auto* names = o.tuning ? o.tuning->find(as_judged(p, o), machine_label(*o.machine), packed) : nullptr)
    for (const std::string& name : *names) {
      const Algorithm* algorithm = find_algorithm(*o.machine, name.c_str());
      if (!algorithm) continue;
      Choice c = consider(*algorithm, p, o, threads, packed);
      if (c.failure != Failure::kNone) continue;
      snprintf(c.tuning, sizeof c.tuning, "%s", o.tuning->hash().c_str());
      return c;
    }
  best.failure = Failure::kUnsupported;
  for (int i = 0; i < o.machine->algorithm_count; ++i) {
    const Choice c = consider(*o.machine->algorithms[i], p, o, threads, packed);
    if (c.failure == Failure::kNone ? best.failure != Failure::kNone || is_better(*o.machine, c, best)
                                    : best.failure != Failure::kNone)
      best = c;  // while nothing fits, the last sentence stands: that of `reference`
  }
  return best;
}

// Traces that are running. The flags keep the untraced path free of the lock.
std::atomic<int> active_traces{0}, active_phase_traces{0};
struct Trace {
  bool phases;
  std::vector<TraceEntry> entries;
};
std::map<int64_t, Trace>& traces() {
  static auto* map = new std::map<int64_t, Trace>;
  return *map;
}

void record(const ConvProblem& p, const Choice& choice, int slots, double seconds, const PhaseTimes* phases) {
  TraceEntry entry = {p, choice.algorithm->name, seconds, slots, choice.workspace_bytes, phases != nullptr, {}, ""};
  memcpy(entry.tuning, choice.tuning, sizeof entry.tuning);
  for (int i = 0; phases && i < kPhaseCount; ++i)
    entry.phases[i] = 1e-9 * static_cast<double>(phases->nanoseconds[i].load());
  const std::lock_guard<std::mutex> lock(trace_mutex);
  for (auto& [handle, trace] : traces()) {
    trace.entries.push_back(entry);
    if (!trace.phases) trace.entries.back().has_phases = false;
  }
}

}  // namespace

Choice choose(const ConvProblem& problem, const Options& options, bool packed) {
  const int threads = is_device(*options.machine) ? 1 : make_parallel(options.threads).slots;
  Key key;
  memset(&key, 0, sizeof key);
  key.problem = problem;
  key.machine = options.machine;
  key.algorithm = options.algorithm;
  key.precision = options.precision;
  key.max_workspace = options.max_workspace;
  key.tuning = options.tuning ? options.tuning->serial() : 0;
  key.threads = threads;
  key.batch_invariant = options.batch_invariant;
  key.packed = packed;
  Choice choice;
  if (choice_cache().find(key, &choice)) return choice;
  choice = choose_anew(problem, options, threads, packed);
  choice_cache().insert(key, choice);
  if (log_choices()) {
    char text[kTextCapacity];
    to_text(problem, text);
    fprintf(stderr, "fastconv: %s: %s\n", text,
            choice.failure == Failure::kNone ? choice.algorithm->name : choice.text);
  }
  return choice;
}

bool run_choice(const ConvProblem& problem, const Options& options, Choice* choice, RunContext* context) {
  const Workspace workspace(choice->lease_bytes);
  if (workspace.failed()) {
    choice->failure = Failure::kWorkspace;
    snprintf(choice->text, sizeof choice->text, "%s: no memory for %" PRId64 " bytes of workspace",
             choice->algorithm->name, choice->lease_bytes);
    return false;
  }
  context->machine = options.machine;
  context->parallel = make_parallel(choice->slots);
  context->workspace = workspace.data();
  context->error = choice->text;
  const bool traced = active_traces.load(std::memory_order_relaxed) > 0;
  PhaseTimes phases;
  if (traced && active_phase_traces.load(std::memory_order_relaxed) > 0) context->phases = &phases;
  const auto start = traced ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
  try {
    if (run(*choice->algorithm, problem, *context) != 0) {
      choice->failure = Failure::kDevice;
      return false;
    }
  } catch (const std::bad_alloc&) {
    choice->failure = Failure::kWorkspace;
    snprintf(choice->text, sizeof choice->text, "%s: no memory for the tables of a call", choice->algorithm->name);
    return false;
  }
  if (traced)
    record(problem, *choice, context->parallel.slots,
           std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), context->phases);
  return true;
}

bool run_on_device(const ConvProblem& problem, const Options& options, const Backend& backend, Choice* choice,
                   RunContext* context) {
  context->machine = options.machine;
  context->error = choice->text;
  const bool traced = active_traces.load(std::memory_order_relaxed) > 0;
  choice->failure = Failure::kDevice;
  const bool phases = traced && active_phase_traces.load(std::memory_order_relaxed) > 0;
  DeviceTimer timer(backend);
  if (traced && !timer.start(phases, context->stream, choice->text)) return false;
  if (phases) context->watch = &timer;
  if (choice->algorithm->run(&problem, context) != 0) return false;
  if (traced) {
    if (!timer.stop(choice->text)) return false;
    record(problem, *choice, choice->slots, timer.seconds(), timer.phases());
  }
  choice->failure = Failure::kNone;
  return true;
}

namespace {
void describe(const ConvProblem& p, const Options& o, const Choice& choice, Candidate* c) {
  const Machine& m = *o.machine;
  const Algorithm& algorithm = *choice.algorithm;
  const ConvProblem computed = is_device(m) ? p : computed_problem(p);
  c->workspace_bytes = choice.workspace_bytes;
  c->estimate = choice.estimate;
  c->slots = choice.slots;
  c->packed_bytes = is_device(m) ? algorithm.packed_bytes(&p, &m) : packed_bytes(algorithm, p, m);
  c->multiplications = algorithm.multiplications ? algorithm.multiplications(&computed, &m) : multiply_adds(p);
  c->takes_halves = algorithm.takes_halves ? algorithm.takes_halves(&computed) : TakenHalves::kNone;
  int64_t shared = choice.workspace_bytes;
  if (!is_device(m)) {  // a thread more takes a thread's share more
    const int64_t one = workspace_bytes(algorithm, p, m, 1, false);
    shared = 2 * one - workspace_bytes(algorithm, p, m, 2, false);
  }
  const int64_t residual = p.epilogue & kEpilogueResidual ? p.n * p.k * y_plane(p) * element_size(p.dtype) : 0;
  c->bytes_moved = tensor_bytes(p) + residual + 2 * std::max<int64_t>(0, shared);
}
}  // namespace

std::vector<Candidate> candidates(const ConvProblem& problem, const Options& options) {
  std::vector<Candidate> list;
  const int threads = make_parallel(options.threads).slots;
  for (int i = 0; i < options.machine->algorithm_count; ++i) {
    const Algorithm& algorithm = *options.machine->algorithms[i];
    const Choice c = consider(algorithm, problem, options, threads, false);
    Candidate candidate{};
    candidate.algorithm = &algorithm;
    candidate.supported = c.failure == Failure::kNone;
    snprintf(candidate.reason, sizeof candidate.reason, "%s", c.text);
    if (candidate.supported) describe(problem, options, c, &candidate);
    list.push_back(candidate);
  }
  return list;
}

PlanCacheState plan_cache_state() { return choice_cache().state(); }
void clear_plan_cache() { choice_cache().clear(); }

int64_t trace_start(bool phases) {
  static int64_t last = 0;
  const std::lock_guard<std::mutex> lock(trace_mutex);
  traces()[++last].phases = phases;
  active_traces.fetch_add(1);
  if (phases) active_phase_traces.fetch_add(1);
  return last;
}

std::vector<TraceEntry> trace_stop(int64_t handle) {
  const std::lock_guard<std::mutex> lock(trace_mutex);
  const auto found = traces().find(handle);
  if (found == traces().end()) return {};
  std::vector<TraceEntry> entries = std::move(found->second.entries);
  if (found->second.phases) active_phase_traces.fetch_sub(1);
  traces().erase(found);
  active_traces.fetch_sub(1);
  return entries;
}

}  // namespace fastconv
