// SPDX-License-Identifier: Apache-2.0
// The exact tier without Python, for the sanitizers: check_main FILE... runs every problem of the files (text form, a
// line each) in all three passes, by every algorithm that does not refuse it, on every instruction set, with 1, 2 and
// 16 threads, with weights packed in the call and before it; --algorithm PREFIX takes those alone whose names begin so,
// --threads N one number of threads. Inputs are small integers: results must equal `reference`
// bit for bit, or nearly where an algorithm transforms. Outputs start as NaN, the workspace as 0xA5 bytes between
// canaries; tensors end where memory does.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#include "../../cuda/backend.h"
#include "convert.h"
#include "fenced.h"
#include "half_problem.h"
#include "machine.h"
#include "parallel.h"
#include "plan.h"
#include "problems.h"
#include "registry.h"

namespace {

using namespace fastconv;

// What crosses the border to a device backend is plain C.
template <class T>
constexpr bool kPlain = std::is_standard_layout_v<T> && std::is_trivially_copyable_v<T>;
static_assert(kPlain<ConvProblem> && kPlain<PoolProblem> && kPlain<Algorithm> && kPlain<RunContext> && kPlain<Backend>);

constexpr size_t kCanary = 256;

// 64-byte aligned room between canaries.
class Guarded {
 public:
  explicit Guarded(int64_t bytes) : bytes_(static_cast<size_t>(bytes)), storage_(bytes_ + 2 * kCanary + 64, 0xA5) {
    const size_t shift = (64 - reinterpret_cast<uintptr_t>(storage_.data() + kCanary) % 64) % 64;
    data_ = storage_.data() + kCanary + shift;
  }
  void* data() { return data_; }
  bool intact() const {
    for (size_t i = 0; i < kCanary; ++i)
      if (data_[-1 - static_cast<ptrdiff_t>(i)] != 0xA5) return false;
    for (const unsigned char* p = data_ + bytes_; p < storage_.data() + storage_.size(); ++p)
      if (*p != 0xA5) return false;
    return true;
  }

 private:
  size_t bytes_;
  std::vector<unsigned char> storage_;
  unsigned char* data_;
};

// What the command line leaves to do.
std::vector<const char*> prefixes;
std::vector<int> thread_counts = {1, 2, 16};

// The instruction set amx has the kernels of avx512, which is checked as well, and those of two algorithms.
bool is_wanted(const Algorithm& algorithm, const Machine& machine) {
  if (machine.kernels->amx && !strstr(algorithm.name, "_amx")) return false;
  for (const char* prefix : prefixes)
    if (strncmp(algorithm.name, prefix, strlen(prefix)) == 0) return true;
  return prefixes.empty();
}

uint64_t state = 20261123;
int64_t small_integer() {  // -3 .. 3
  state = state * 6364136223846793005u + 1442695040888963407u;
  return static_cast<int64_t>(state >> 33) % 7 - 3;
}

// `value` in the problem's dtype; T is uint16_t, the bits, for a half.
template <class T>
T element_of(const ConvProblem& p, const Machine& m, double value) {
  if constexpr (std::is_same_v<T, uint16_t>) {
    const float single = static_cast<float>(value);
    uint16_t half;
    narrow(m, make_parallel(1), p.dtype, {1, 1, 1, 1, 1}, &single, &half);
    return half;
  } else {
    return static_cast<T>(value);
  }
}

template <class T>
class Check {
 public:
  Check(const ConvProblem& problem, const Machine& machine) : p(problem), m(machine) {
    const int64_t xs = p.n * p.c * x_plane(p), ws = p.k * (p.c / p.groups) * taps(p), ys = p.n * p.k * y_plane(p);
    x.resize(static_cast<size_t>(xs)), w.resize(static_cast<size_t>(ws)), y.resize(static_cast<size_t>(ys));
    bias.resize(static_cast<size_t>(p.pass == Pass::kForward ? p.k : p.c)), residual.resize(static_cast<size_t>(ys));
    for (auto* values : {&x, &w, &y, &bias, &residual})
      for (T& value : *values) value = element_of<T>(p, m, static_cast<double>(small_integer()));
  }

  int run() {
    std::vector<T> expected;
    bool is_known = false;
    int failures = 0;
    for (int i = 0; i < algorithm_count(); ++i) {
      const Algorithm& algorithm = algorithm_at(i);
      char reason[kTextCapacity];
      const ConvProblem computed = computed_problem(p);
      if (!is_wanted(algorithm, m) || algorithm.why_not(&computed, &m, reason)) continue;
      if (!algorithm.exact_on_integers && std::is_same_v<T, uint16_t>) continue;  // covered by its float32 problem
      if (!is_known) expected = compute(*find_algorithm("reference"), 1, false);
      is_known = true;
      for (int threads : thread_counts)
        for (bool packed : {false, true}) {
          if (packed && packed_bytes(algorithm, p, m) == 0) continue;
          const std::vector<T> got = compute(algorithm, threads, packed);
          ++runs;
          if (intact && equal(algorithm, got, expected)) continue;
          char text[kTextCapacity];
          to_text(p, text);
          printf("FAILED %s %s %s threads=%d packed=%d%s\n", algorithm.name, m.kernels->isa, text, threads, packed,
                 intact ? "" : " (wrote outside its workspace)");
          ++failures;
        }
    }
    return failures;
  }

  static int64_t runs;

 private:
  std::vector<T> compute(const Algorithm& algorithm, int threads, bool packed) {
    RunContext r{};
    char error[kTextCapacity] = "";
    r.machine = &m;
    r.parallel = make_parallel(threads);
    r.error = error;
    Fenced<T> x_copy(x), w_copy(w), y_copy(y), bias_copy(bias), residual_copy(residual);
    Fenced<T>& result = p.pass == Pass::kForward ? y_copy : p.pass == Pass::kBackwardData ? x_copy : w_copy;
    std::fill_n(result.data(), result.size(), element_of<T>(p, m, std::numeric_limits<double>::quiet_NaN()));
    r.x = x_copy.data(), r.w = w_copy.data(), r.y = y_copy.data();
    if (p.epilogue & kEpilogueBias) r.bias = bias_copy.data();
    if (p.epilogue & kEpilogueResidual) r.residual = residual_copy.data();
    pitches(p.x_layout, p.c, x_plane(p), &r.x_batch_pitch, &r.x_channel_pitch);
    pitches(p.y_layout, p.k, y_plane(p), &r.y_batch_pitch, &r.y_channel_pitch);
    r.alpha = 0.5;
    r.pad_value = 2;
    Guarded weights(packed ? packed_bytes(algorithm, p, m) : 0);
    if (packed) {
      pack(algorithm, p, m, r.parallel, w_copy.data(), weights.data());
      r.packed_w = weights.data();
    }
    Guarded workspace(workspace_bytes(algorithm, p, m, r.parallel.slots, packed));
    r.workspace = workspace.data();
    fastconv::run(algorithm, p, r);
    intact = workspace.intact() && weights.intact();
    return result.values();
  }

  // Bit for bit, or within the bound of docs/numerics.md where the algorithm's transforms round.
  bool equal(const Algorithm& algorithm, const std::vector<T>& got, const std::vector<T>& expected) const {
    if (got.size() != expected.size()) return false;
    if (algorithm.exact_on_integers)
      return got.empty() || memcmp(got.data(), expected.data(), got.size() * sizeof(T)) == 0;
    if constexpr (!std::is_same_v<T, uint16_t>) {
      const int64_t images = p.pass == Pass::kBackwardFilter ? p.n * y_plane(p) : 1;
      const int64_t channels = p.pass == Pass::kForward ? p.c : p.pass == Pass::kBackwardData ? p.k : p.groups;
      const double terms = static_cast<double>(images * (channels / p.groups) * taps(p));
      const double largest = 9 * terms;  // |x| and |w| are at most 3
      const double bound = algorithm.error_factor * std::numeric_limits<T>::epsilon() * std::sqrt(terms + 1) * largest;
      for (size_t i = 0; i < got.size(); ++i)
        if (!(std::abs(static_cast<double>(got[i]) - static_cast<double>(expected[i])) <= bound)) return false;
    }
    return true;
  }

  const ConvProblem p;
  const Machine& m;
  std::vector<T> x, w, y, bias, residual;
  bool intact = true;
};
template <class T>
int64_t Check<T>::runs = 0;

int check(const ConvProblem& forward) {
  int failures = 0;
  each_variant(forward, [&](const ConvProblem& p) {
    for (int i = 0; i < usable_isa_count(); ++i) {
      const Machine& machine = usable_machine(i);
      failures += is_half(p.dtype)             ? Check<uint16_t>(p, machine).run()
                  : p.dtype == DType::kFloat32 ? Check<float>(p, machine).run()
                                               : Check<double>(p, machine).run();
    }
  });
  return failures;
}

}  // namespace

int main(int count, char** arguments) {
  std::vector<char*> files = {arguments[0]};
  for (int i = 1; i < count; ++i) {
    const bool has_value = i + 1 < count;
    if (has_value && strcmp(arguments[i], "--algorithm") == 0)
      prefixes.push_back(arguments[++i]);
    else if (has_value && strcmp(arguments[i], "--threads") == 0)
      thread_counts = {atoi(arguments[++i])};
    else
      files.push_back(arguments[i]);
  }
  int failures = 0;
  const int problems =
      each_problem(static_cast<int>(files.size()), files.data(), [&](const ConvProblem& p) { failures += check(p); });
  const int64_t runs = Check<float>::runs + Check<double>::runs + Check<uint16_t>::runs;
  printf("%d problems, %" PRId64 " runs, %d failures\n", problems, runs, failures);
  return failures || problems == 0 ? 1 : 0;
}
