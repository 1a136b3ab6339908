// SPDX-License-Identifier: Apache-2.0
// From a problem to a run: validate once, keep the algorithms that do not refuse, take the named one or the cheapest by
// estimate, remember the choice. The choice is a pure function of problem, options, instruction set and version; a
// tuning file that somebody loaded is one of the options.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "algorithm.h"
#include "phases.h"
#include "tuning.h"

namespace fastconv {

struct Backend;  // of a device: cuda/backend.h

struct Options {
  const Machine* machine = nullptr;
  const Algorithm* algorithm = nullptr;  // null: choose
  double precision = 8.0;                // largest error_factor that may be chosen
  int64_t max_workspace = -1;            // bytes; negative: no limit
  int threads = 0;                       // 0: default_threads()
  bool batch_invariant = false;          // the choice ignores n
  std::shared_ptr<const Tuning> tuning;  // goes before the estimates where it knows the class of shapes
};

enum class Failure { kNone, kProblem, kUnsupported, kWorkspace, kDevice };

struct Choice {
  Failure failure = Failure::kNone;
  char text[kTextCapacity] = "";
  const Algorithm* algorithm = nullptr;
  Estimate estimate;
  int64_t workspace_bytes = 0;      // what a run takes in all, never more than max_workspace
  int64_t lease_bytes = 0;          // of these, its workspace
  int slots = 1;                    // threads, as many as the work is worth and the workspace limit allows
  char tuning[kHashCapacity] = "";  // the hash of the tuning that chose; empty: the estimates or the caller did
};

// `packed`: weights will be handed over packed.
Choice choose(const ConvProblem& problem, const Options& options, bool packed);

// Leases the workspace and runs the choice. `context` comes with the buffers, pitches and scalars filled in.
// Returns false and writes `choice->text` on failure.
bool run_choice(const ConvProblem& problem, const Options& options, Choice* choice, RunContext* context);

// The same on a device, in the context's stream and with a workspace that it comes with: nothing waits, unless a trace
// runs, which times the work and not its start.
bool run_on_device(const ConvProblem& problem, const Options& options, const Backend& backend, Choice* choice,
                   RunContext* context);

// What explain shows of one algorithm.
struct Candidate {
  const Algorithm* algorithm;
  bool supported;
  char reason[kTextCapacity];
  int64_t workspace_bytes, packed_bytes;
  Estimate estimate;
  int slots;
  int64_t multiplications;  // counts.h
  // To and from memory: the tensors once, and the workspace that all threads share written and read once. What a thread
  // has for itself is taken to stay in its cache. Of a device the whole workspace counts.
  int64_t bytes_moved;
  TakenHalves takes_halves;
};
std::vector<Candidate> candidates(const ConvProblem& problem, const Options& options);

struct PlanCacheState {
  int64_t entries, limit, hits, misses, bytes;
};
PlanCacheState plan_cache_state();
void clear_plan_cache();  // hits and misses begin anew

// Tracing: every run between start and stop, of the whole process.
struct TraceEntry {
  ConvProblem problem;
  const char* algorithm;
  double seconds;
  int slots;
  int64_t workspace_bytes;
  bool has_phases;
  double phases[kPhaseCount];  // seconds, of all threads together
  char tuning[kHashCapacity];  // as in Choice
};
int64_t trace_start(bool phases);  // with phases: of every run, at a few per cent of its time
std::vector<TraceEntry> trace_stop(int64_t handle);

}  // namespace fastconv
