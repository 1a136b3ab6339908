// SPDX-License-Identifier: Apache-2.0
// Tests of the emulation: sound kernels must be silent and right, planted bugs must be seen, at several seeds each; and
// the conversions of the formats. Built for either library: the checked one must report every bug at every seed.
//   check_emulation [-v]    -v prints what is said of each bug
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../../cuda/registry.h"
#include "check_kernels.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sys/wait.h>
#include <unistd.h>
#endif

extern "C" const fastconv::Backend* fastconv_backend(int32_t abi);

namespace fastconv::cuda {

// The kernels of cuda/ are not linked: there is nothing for the table but the device itself.
const Algorithm* const kAlgorithms[] = {nullptr};
const int32_t kAlgorithmCount = 0;
const char* const* const kVerified = nullptr;
const int32_t kVerifiedCount = 0;
int pool(const PoolProblem*, const PoolContext*) { return 1; }
int scatter_positions(const PositionContext*) { return 1; }
int pointwise(const PointwiseContext*) { return 1; }
int64_t norm_workspace(const NormContext*) { return 0; }
int norm(const NormContext*) { return 1; }

namespace {

#if defined(FASTCONV_CUDA_CHECKED)
constexpr bool kChecked = true;
#else
constexpr bool kChecked = false;
#endif
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
constexpr int kSeeds = 3, kFirstCode = 10;  // of what a child has to say; the sanitizer's own is 1
#else
constexpr bool kAddressSanitizer = false;
constexpr int kSeeds = 8;
#endif

int failures = 0;
bool loud = false;

void expect(bool fine, const char* what, const char* why) {
  if (fine) return;
  ++failures;
  printf("FAILED: %s: %s\n", what, why);
}

enum class Outcome { kSilent, kWrong, kReported };

Outcome outcome_of(const Trial& trial, const Backend& device, const Machine& machine, char* said) {
  std::vector<float> from(kNumbers), to(kNumbers), wanted(kNumbers, std::numeric_limits<float>::quiet_NaN());
  for (int i = 0; i < kNumbers; ++i) from[static_cast<size_t>(i)] = static_cast<float>((i * 37 + i / 11) % 15 - 7);
  trial.expect(from.data(), wanted.data());
  const int64_t bytes = kNumbers * static_cast<int64_t>(sizeof(float));
  void *device_from, *device_to;
  said[0] = 0;
  expect(!device.allocate(0, bytes, nullptr, &device_from) && !device.allocate(0, bytes, nullptr, &device_to) &&
             !device.copy(device_from, from.data(), bytes, nullptr),
         trial.name, "no memory");
  RunContext context{};
  context.machine = &machine;
  context.error = said;
  const int status = trial.run(context, static_cast<const float*>(device_from), static_cast<float*>(device_to));
  const bool failed = device.synchronize(0, nullptr) != 0;
  if (failed) snprintf(said, kTextCapacity, "%s", device.last_error());
  device.copy(to.data(), device_to, bytes, nullptr);
  device.release(0, device_from, nullptr), device.release(0, device_to, nullptr);
  if (status || failed) return Outcome::kReported;
  for (size_t i = 0; i < to.size(); ++i)
    if (std::isnan(wanted[i]) ? !std::isnan(to[i]) : to[i] != wanted[i]) {
      snprintf(said, kTextCapacity, "element %zu is %g and should be %g", i, static_cast<double>(to[i]),
               static_cast<double>(wanted[i]));
      return Outcome::kWrong;
    }
  return Outcome::kSilent;
}

// The address sanitizer ends the process that has a bug: each is tried in a child.
Outcome try_it(const Trial& trial, const Backend& device, const Machine& machine, char* said) {
#if defined(__SANITIZE_ADDRESS__)
  if (trial.caught != Caught::kNever) {
    fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      if (!loud && !freopen("/dev/null", "w", stderr)) _exit(3);
      _exit(kFirstCode + static_cast<int>(outcome_of(trial, device, machine, said)));
    }
    int status = 0;
    waitpid(child, &status, 0);
    snprintf(said, kTextCapacity, "(in a child)");
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) - kFirstCode : -1;
    if (code < 0 || code > static_cast<int>(Outcome::kReported)) return Outcome::kReported;  // by the sanitizer
    return static_cast<Outcome>(code);
  }
#endif
  return outcome_of(trial, device, machine, said);
}

void check(const Trial* trials, const Backend& device) {
  DeviceAttributes attributes;
  expect(device.attributes(0, &attributes) == 0, "attributes", device.last_error());
  for (const Trial* trial = trials; trial->name; ++trial) {
    int seen[3] = {};
    char said[kTextCapacity], remembered[kTextCapacity] = "";
    for (int seed = 1; seed <= kSeeds; ++seed) {
      setenv("FASTCONV_EMULATED_SEED", std::to_string(seed).c_str(), 1);
      const Outcome outcome = try_it(*trial, device, attributes.machine, said);
      ++seen[static_cast<int>(outcome)];
      if (outcome != Outcome::kSilent) memcpy(remembered, said, sizeof said);
    }
    const int silent = seen[static_cast<int>(Outcome::kSilent)], told = seen[static_cast<int>(Outcome::kReported)];
    if (loud) printf("%-45s silent %d, wrong %d, reported %d: %s\n", trial->name, silent, seen[1], told, remembered);
    if (trial->caught == Caught::kNever)
      expect(silent == kSeeds, trial->name, remembered);
    else if (kChecked || (trial->caught == Caught::kAlways))
      expect(told == kSeeds, trial->name, "the bug was not reported at every seed");
    else if (trial->caught == Caught::kByValues)
      expect(silent < kSeeds, trial->name, "the bug was seen at no seed");
  }
}

// ---- Formats -----------------------------------------------------------------------------------------------------------
// All finite numbers of a 16-bit format are in order of their bits, and the next one after the largest stands for infinity.
template <class Widen, class Narrow>
void check_format(const char* name, int mantissa_bits, const Widen& widen, const Narrow& narrow) {
  const uint32_t infinity = 0x7fff >> mantissa_bits << mantissa_bits;
  for (uint32_t bits = 0; bits < infinity; ++bits) {
    const double low = widen(static_cast<uint16_t>(bits));
    const double step = bits + 1 < infinity ? widen(static_cast<uint16_t>(bits + 1)) - low
                                            : low - widen(static_cast<uint16_t>(bits - 1));
    const float middle = static_cast<float>(low + step / 2);
    const uint32_t even = bits % 2 ? bits + 1 : bits;
    const bool exact = static_cast<double>(middle) == low + step / 2;
    const bool right = narrow(static_cast<float>(low)) == bits && narrow(-static_cast<float>(low)) == (bits | 0x8000) &&
                       (!exact || (narrow(middle) == even && narrow(std::nextafter(middle, 0.0f)) == bits &&
                                   narrow(std::nextafter(middle, INFINITY)) == bits + 1));
    if (!right) return expect(false, name, "a number is rounded wrongly");
  }
  expect(narrow(INFINITY) == infinity && narrow(-INFINITY) == (infinity | 0x8000), name, "infinity");
  expect(std::isnan(widen(narrow(NAN))), name, "NaN");
  expect(std::isinf(widen(static_cast<uint16_t>(infinity))), name, "infinity widened");
}

void check_tf32() {
  uint64_t state = 1;
  for (int i = 0; i < 1000000; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const float value = host::float_of_bits(static_cast<uint32_t>(state >> 32));
    if (!std::isfinite(value) || std::fabs(value) > 1e38f) continue;
    const float got = host::float_of_bits(as_tf32(value));
    int exponent;
    std::frexp(value, &exponent);
    const double unit = std::ldexp(1.0, std::max(exponent, -125) - 11);
    // round() takes halves away from zero.
    if (static_cast<double>(got) != std::round(static_cast<double>(value) / unit) * unit)
      return expect(false, "as_tf32", "a number is rounded wrongly");
  }
}

void check_memory(const Backend& device) {
  void* data = nullptr;
  int number = -1;
  expect(!device.allocate(0, 100, nullptr, &data), "memory", "allocate");
  expect(reinterpret_cast<uintptr_t>(data) % 256 == 0, "memory", "alignment");
  unsigned char bytes[100];
  device.copy(bytes, data, 100, nullptr);
  expect(bytes[0] == 0xff && bytes[99] == 0xff, "memory", "fresh memory is NaN");
  expect(device.is_device_pointer(data, &number) && number == 0, "memory", "is_device_pointer");
  expect(device.is_device_pointer(static_cast<char*>(data) + 99, &number), "memory", "is_device_pointer within");
  expect(!device.is_device_pointer(bytes, &number), "memory", "is_device_pointer of the host's");
  expect(device.copy(bytes, data, 101, nullptr) != 0, "memory", "a copy past the end is refused");
  expect(device.fill(data, 0, 101, nullptr) != 0, "memory", "a fill past the end is refused");
  expect(!device.release(0, data, nullptr), "memory", "release");
  expect(!device.is_device_pointer(data, &number), "memory", "released memory is none");
  expect(device.release(0, data, nullptr) != 0, "memory", "releasing twice is refused");
}

}  // namespace
}  // namespace fastconv::cuda

int main(int count, char** arguments) {
  using namespace fastconv::cuda;
  loud = count > 1 && strcmp(arguments[1], "-v") == 0;
  const fastconv::Backend& device = *fastconv_backend(fastconv::kBackendAbi);
  check_format("float16", 10, host::float_of_half, host::half_of_float);
  check_format(
      "bfloat16", 7, [](uint16_t bits) { return host::float_of_bits(static_cast<uint32_t>(bits) << 16); },
      host::bfloat16_of_float);
  check_tf32();
  check_memory(device);
  check(kBlockTrials, device);
  check(kWarpTrials, device);
  printf("check_emulation (%s): %s\n",
         kChecked            ? "checked"
         : kAddressSanitizer ? "address sanitizer"
                             : "values",
         failures ? "FAILED" : "passed");
  return failures != 0;
}
