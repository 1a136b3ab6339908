// SPDX-License-Identifier: Apache-2.0
// What the library is and does here: machine, threads, caches, traces; and the check of the environment at import.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "../machine.h"
#include "../parallel.h"
#include "../registry.h"
#include "arrays.h"

namespace fastconv {
namespace {

void check_environment() {
  char text[kTextCapacity];
  if (!find_machine(nullptr, text)) throw ProblemError{text};
  if (const char* threads = getenv("FASTCONV_NUM_THREADS"); threads && *threads) {
    char* end;
    const long value = strtol(threads, &end, 10);
    if (*end || value < 1 || value > 256)
      throw ProblemError{format("FASTCONV_NUM_THREADS: '%.40s'; expected a number from 1 to 256", threads)};
  }
  if (const char* level = getenv("FASTCONV_LOG"); level && *level) {
    if (strcmp(level, "off") != 0 && strcmp(level, "info") != 0 && strcmp(level, "debug") != 0)
      throw ProblemError{format("FASTCONV_LOG: '%.40s'; expected one of off, info, debug", level)};
  }
  if (const char* name = getenv("FASTCONV_ALGORITHM"); name && *name && !find_algorithm(name)) {
    std::string known;
    for (int i = 0; i < algorithm_count(); ++i) known += (i ? ", " : "") + std::string(algorithm_at(i).name);
    throw ProblemError{format("FASTCONV_ALGORITHM: '%.40s'; expected one of %s", name, known.c_str())};
  }
}

py::dict info() {
  py::dict d;
  char text[kTextCapacity];
  const Machine* machine = find_machine(nullptr, text);
  if (!machine) throw ProblemError{text};
  py::list isas, names;
  for (int i = 0; i < usable_isa_count(); ++i) isas.append(usable_machine(i).kernels->isa);
  for (int i = 0; i < algorithm_count(); ++i) names.append(algorithm_at(i).name);
  d["version"] = FASTCONV_VERSION;
  d["compiler"] = FASTCONV_COMPILER;
  d["cpu"] = cpu_name();
  d["isa"] = machine->kernels->isa;
  d["isas"] = isas;
  d["vector_bytes"] = machine->kernels->vector_bytes;
  d["l1_bytes"] = machine->l1_bytes;
  d["l2_bytes"] = machine->l2_bytes;
  d["threads"] = default_threads();
  d["available_threads"] = available_threads();
  d["algorithms"] = names;
  return d;
}

py::dict state_of(const CacheState& state) {
  py::dict d;
  d["held_bytes"] = state.held_bytes;
  d["used_bytes"] = state.used_bytes;
  d["limit_bytes"] = state.limit_bytes;
  return d;
}

py::dict cache_info() {
  const PlanCacheState plans = plan_cache_state();
  py::dict choices;
  choices["entries"] = plans.entries;
  choices["limit"] = plans.limit;
  choices["hits"] = plans.hits;
  choices["misses"] = plans.misses;
  choices["bytes"] = plans.bytes;
  py::dict d;
  d["choices"] = choices;
  d["workspace"] = state_of(cache_state(workspace_cache()));
  d["outputs"] = state_of(cache_state(output_cache()));
  return d;
}

// GFLOP/s of float32 multiply-adds on registers, `threads` of them together, for about `seconds`.
double fma_peak(double seconds, int threads) {
  char text[kTextCapacity];
  const Machine* machine = find_machine(nullptr, text);
  if (!machine) throw ProblemError{text};
  const py::gil_scoped_release release;
  typedef std::chrono::steady_clock Clock;
  constexpr int64_t kSteps = 200000;  // about 0.3 ms
  std::atomic<double> operations{0};
  const auto start = Clock::now();
  while (std::chrono::duration<double>(Clock::now() - start).count() < seconds)
    parallel_for(make_parallel(threads), threads * int64_t{8}, [&](int64_t, int) {
      float sink = 0.5f;
      operations.fetch_add(machine->kernels->gemm->f32.fma_burst(kSteps, &sink));
    });
  return operations / std::chrono::duration<double>(Clock::now() - start).count() * 1e-9;
}

py::list stop(int64_t handle) {
  py::list list;
  for (const TraceEntry& entry : trace_stop(handle)) {
    py::dict row;
    row["problem"] = entry.problem;
    row["algorithm"] = entry.algorithm;
    row["seconds"] = entry.seconds;
    row["tuning"] = entry.tuning[0] ? py::object(py::str(entry.tuning)) : py::object(py::none());
    row["threads"] = entry.slots;
    row["workspace_bytes"] = entry.workspace_bytes;
    if (entry.has_phases) {
      py::dict phases;
      for (int i = 0; i < kPhaseCount; ++i)
        if (entry.phases[i] > 0) phases[kPhaseNames[i]] = entry.phases[i];
      row["phases"] = phases;
    }
    list.append(row);
  }
  return list;
}

}  // namespace

void register_info(py::module_& m) {
  check_environment();
  m.def("info", &info);
  m.def("cache_info", &cache_info);
  m.def("clear_cache", [] {
    clear_plan_cache();
    clear(workspace_cache());
    clear(output_cache());
  });
  m.def(
      "set_threads",
      [](int threads) {
        if (threads < 0 || threads > 256)
          throw ProblemError{format("threads is %d; expected 1 to 256, or 0 for no limit", threads)};
        set_threads(threads);
      },
      py::arg("threads"));
  m.def(
      "use_openmp",
      [](uintptr_t begin, uintptr_t thread) {
        if (!begin != !thread) throw ProblemError{"use_openmp: one address is 0; expected both functions or neither"};
        use_openmp(reinterpret_cast<OpenMpRegion>(begin), reinterpret_cast<OpenMpThread>(thread));
      },
      py::arg("gomp_parallel"), py::arg("omp_get_thread_num"));
  m.def("get_threads", &granted_threads, py::arg("wanted") = 0);
  m.def("fma_peak", &fma_peak, py::arg("seconds"), py::arg("threads"));
  m.def("trace_start", &trace_start, py::arg("phases") = false);
  m.def("trace_stop", &stop, py::arg("handle"));
}

}  // namespace fastconv
