// SPDX-License-Identifier: Apache-2.0
// Where the time of a run goes. Nobody measures unless a trace asks for it: then each phase costs two readings of the
// clock per item of work, otherwise one test of a pointer.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace fastconv {

// In the order in which they are shown.
enum class Phase : int32_t {
  kConversions,  // of halves, to and from float32
  kWeights,      // packed, turned or transformed
  kInput,        // what is read: gathered, turned or transformed
  kProducts,
  kOutput,  // what is written: transformed back, finished, moved to its pixels
  kSums,    // parts of a filter gradient, added up
  kCount
};
inline constexpr int kPhaseCount = static_cast<int>(Phase::kCount);
inline constexpr const char* kPhaseNames[kPhaseCount] = {"conversions", "weights", "input",
                                                         "products",    "output",  "sums"};

// Nanoseconds of all threads together.
struct PhaseTimes {
  std::atomic<int64_t> nanoseconds[kPhaseCount] = {};
};

// The time of a scope. Scopes of one thread lie side by side, not in each other.
class PhaseScope {
  typedef std::chrono::steady_clock Clock;

 public:
  PhaseScope(PhaseTimes* times, Phase phase) : times_(times), phase_(phase) {
    if (times_) start_ = Clock::now();
  }
  ~PhaseScope() {
    if (!times_) return;
    const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start_).count();
    times_->nanoseconds[static_cast<int>(phase_)].fetch_add(passed, std::memory_order_relaxed);
  }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  PhaseTimes* times_;
  Phase phase_;
  Clock::time_point start_;
};

}  // namespace fastconv
