// SPDX-License-Identifier: Apache-2.0
#include "tuning.h"

#include <atomic>

#include "machine.h"

namespace fastconv {
namespace {

// The next of 1, 2, 3, 4, 6, 8, 12, 16, ...: members of a class differ by less than a half on each axis.
int64_t rounded_up(int64_t value) {
  constexpr int64_t kMost = int64_t{1} << 60;
  for (int64_t power = 1; power < kMost; power *= 2) {
    if (value <= power) return power;
    if (power > 1 && value <= power / 2 * 3) return power / 2 * 3;
  }
  return value;
}

int64_t next_serial() {
  static std::atomic<int64_t> last{0};
  return ++last;
}

}  // namespace

ConvProblem shape_class(const ConvProblem& problem) {
  ConvProblem p = problem;
  const int64_t c = p.groups ? p.c / p.groups : p.c, k = p.groups ? p.k / p.groups : p.k;
  p.groups = rounded_up(p.groups);
  p.c = rounded_up(c) * p.groups;
  p.k = rounded_up(k) * p.groups;
  p.n = rounded_up(p.n);
  for (int a = kMaxSpatial - p.spatial_rank; a < kMaxSpatial; ++a) p.size[a] = rounded_up(p.size[a]);
  p.activation = Activation::kNone;
  p.epilogue = 0;
  return p;
}

std::string machine_label(const Machine& machine) {
  if (is_device(machine)) return "sm_" + std::to_string(machine.architecture);
  return machine.kernels->isa;
}

Tuning::Tuning(std::string hash) : hash_(std::move(hash)), serial_(next_serial()) {}

void Tuning::add(const std::string& label, const ConvProblem& shape_class, bool packed,
                 std::vector<std::string> algorithms) {
  entries_[{label, shape_class, packed}] = std::move(algorithms);
}

const std::vector<std::string>* Tuning::find(const ConvProblem& problem, const std::string& label, bool packed) const {
  const auto found = entries_.find({label, shape_class(problem), packed});
  return found == entries_.end() ? nullptr : &found->second;
}

}  // namespace fastconv
