// SPDX-License-Identifier: Apache-2.0
// check_cuda LIBRARY FILE... [--algorithm NAME] [--every N] [--dtype NAME] [--seed N]: every algorithm of a device backend
// (the emulated device in CI, a GPU where there is one) that does not refuse it, over the problems of the files (text form,
// a line each), all passes, layouts and dtypes, against the CPU's `reference` in float64.
//   exact      small integers: equal, for algorithms that say so
//   bound      normal floats: |error| <= error_factor * eps * sqrt(terms) * conv(|x|, |w|) and the rounding of the result;
//              of transforms that factor's maximum over a plane
//   same bits  a second run; and the first image alone (forward, backward-data)
// Outputs start as NaN; half of the runs have pitches larger than the tensors need, and what lies between must stay.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <fstream>
#include <random>
#include <string>

#include "convert.h"
#include "device_buffer.h"
#include "half_problem.h"
#include "machine.h"
#include "parallel.h"
#include "registry.h"

namespace {

using namespace fastconv;

struct Settings {
  const char* algorithm = nullptr;
  const char* dtype = nullptr;
  int every = 1;
  uint64_t seed = 20261126;
};

// A tensor of images: dense values, and where they lie among `elements` in memory.
struct Place {
  int64_t n, channels, plane, batch, channel, pixel, batch_pitch, channel_pitch;
  Place(Layout layout, int64_t images, int64_t c, int64_t pixels, bool wide) : n(images), channels(c), plane(pixels) {
    const bool last = layout == Layout::kChannelsLast;
    channel_pitch = last ? c + (wide ? 3 : 0) : pixels;
    batch_pitch = channel_pitch * (last ? pixels : c + (wide ? 2 : 0));
    batch = batch_pitch, channel = last ? 1 : pixels, pixel = last ? channel_pitch : 1;
  }
  int64_t elements() const { return n * batch_pitch; }
  int64_t at(int64_t i) const {  // of dense value i, channels first
    return i / plane / channels * batch + i / plane % channels * channel + i % plane * pixel;
  }
};

class Check {
 public:
  Check(const Backend& backend, const DeviceAttributes& attributes, const ConvProblem& problem,
        const Settings& settings)
      : b(backend), m(attributes.machine), p(problem), s(settings), random(settings.seed) {}

  int run() {
    int failures = 0;
    std::vector<const Algorithm*> willing;
    for (int i = 0; i < b.algorithm_count; ++i) {
      const Algorithm& algorithm = *b.algorithms[i];
      if (s.algorithm && strcmp(s.algorithm, algorithm.name) != 0) continue;
      char reason[kTextCapacity] = "";
      if (algorithm.why_not(&p, &m, reason)) {
        if (strncmp(reason, algorithm.name, strlen(algorithm.name)) != 0)
          failures += failed(algorithm, "odd refusal", reason);
        continue;
      }
      willing.push_back(&algorithm);
    }
    if (willing.empty()) return failures;
    for (const bool integers : {true, false}) {
      prepare(integers);
      for (const Algorithm* algorithm : willing) {
        if (integers && !algorithm->exact_on_integers) continue;
        failures += check(*algorithm, integers, !integers, false);
        if (algorithm->packed_bytes(&p, &m) > 0) failures += check(*algorithm, integers, integers, true);
      }
    }
    return failures;
  }
  static int64_t runs;

 private:
  int failed(const Algorithm& algorithm, const char* what, const char* more = "") const {
    char text[kTextCapacity];
    to_text(p, text);
    printf("FAILED %s %s x=%s y=%s: %s %s\n", algorithm.name, text, name_of(p.x_layout), name_of(p.y_layout), what,
           more);
    return 1;
  }

  // Values that the dtype holds.
  std::vector<double> values(int64_t count, bool integers) {
    std::vector<double> result(static_cast<size_t>(count));
    std::normal_distribution<double> normal;
    for (double& v : result) {
      v = integers ? static_cast<double>(random() % 7) - 3 : normal(random);
      if (p.dtype != DType::kFloat64) v = static_cast<float>(v);
      if (is_half(p.dtype)) v = rounded_to(*cpu(), p.dtype, static_cast<float>(v));
    }
    return result;
  }
  static const Machine* cpu() { return &usable_machine(usable_isa_count() - 1); }

  std::vector<unsigned char> encoded(const std::vector<double>& dense) const {
    const size_t size = static_cast<size_t>(element_size(p.dtype));
    std::vector<unsigned char> bytes(dense.size() * size);
    for (size_t i = 0; i < dense.size(); ++i) {
      const float single = static_cast<float>(dense[i]);
      if (p.dtype == DType::kFloat64)
        memcpy(&bytes[i * size], &dense[i], size);
      else if (p.dtype == DType::kFloat32)
        memcpy(&bytes[i * size], &single, size);
      else
        narrow(*cpu(), make_parallel(1), p.dtype, {1, 1, 1, 1, 1}, &single, &bytes[i * size]);
    }
    return bytes;
  }
  double decoded(const unsigned char* bytes) const {
    double wide;
    float single;
    if (p.dtype == DType::kFloat64) return memcpy(&wide, bytes, 8), wide;
    if (p.dtype == DType::kFloat32) return memcpy(&single, bytes, 4), single;
    widen(*cpu(), make_parallel(1), p.dtype, {1, 1, 1, 1, 1}, bytes, &single);
    return single;
  }
  // Dense values at their places among bytes of NaN.
  std::vector<unsigned char> placed(const std::vector<double>& dense, const Place& place) const {
    const size_t size = static_cast<size_t>(element_size(p.dtype));
    const std::vector<unsigned char> bytes = encoded(dense);
    std::vector<unsigned char> result(static_cast<size_t>(place.elements()) * size, 0xFF);
    for (size_t i = 0; i < dense.size(); ++i)
      memcpy(&result[static_cast<size_t>(place.at(static_cast<int64_t>(i))) * size], &bytes[i * size], size);
    return result;
  }

  struct Operands {
    std::vector<double> x, w, y, bias, residual;
  };

  // `reference` in float64 on dense channels-first tensors; `magnitude`: of absolute values, without the activation.
  std::vector<double> expected(Operands o, bool magnitude) const {
    ConvProblem q = p;
    q.dtype = DType::kFloat64, q.x_layout = q.y_layout = Layout::kChannelsFirst;
    RunContext r{};
    if (magnitude) {
      q.activation = Activation::kNone;
      for (auto* list : {&o.x, &o.w, &o.y, &o.bias, &o.residual})
        for (double& v : *list) v = std::abs(v);
    }
    std::vector<double>& result = q.pass == Pass::kForward ? o.y : q.pass == Pass::kBackwardData ? o.x : o.w;
    const Algorithm& reference = *find_algorithm("reference");
    std::vector<unsigned char> workspace(static_cast<size_t>(reference.workspace_bytes(&q, cpu(), 1, false)));
    r.machine = cpu(), r.parallel = make_parallel(1), r.workspace = workspace.data();
    r.x = o.x.data(), r.w = o.w.data(), r.y = o.y.data(), r.bias = o.bias.data(), r.residual = o.residual.data();
    r.x_channel_pitch = x_plane(q), r.x_batch_pitch = q.c * x_plane(q);
    r.y_channel_pitch = y_plane(q), r.y_batch_pitch = q.k * y_plane(q);
    r.alpha = kAlpha, r.pad_value = kPadValue;
    reference.run(&q, &r);
    return result;
  }

  // The bytes that the pass wrote, for the first `n` images.
  std::vector<unsigned char> compute(const Algorithm& algorithm, const Operands& o, const Place& xs, const Place& ys,
                                     bool packed, int64_t n, const char** error) {
    ConvProblem q = p;
    q.n = n;
    const bool forward = q.pass == Pass::kForward, data = q.pass == Pass::kBackwardData;
    const Place& written = forward ? ys : xs;
    const int64_t size = element_size(p.dtype);
    const int64_t outputs = forward || data ? written.elements() : static_cast<int64_t>(o.w.size());
    const DeviceBuffer out(b, outputs * size);
    const DeviceBuffer x(b, data ? std::vector<unsigned char>() : placed(o.x, xs));
    const DeviceBuffer y(b, forward ? std::vector<unsigned char>() : placed(o.y, ys));
    const DeviceBuffer w(b, !forward && !data ? std::vector<unsigned char>() : encoded(o.w));
    const DeviceBuffer bias(b, encoded(o.bias)), residual(b, forward ? placed(o.residual, ys) : encoded({}));
    static char text[kTextCapacity];
    text[0] = 0;
    RunContext r{};
    r.machine = &m, r.w_dtype = p.dtype, r.error = text;
    r.x = data ? out.data() : x.data(), r.y = forward ? out.data() : y.data();
    r.w = forward || data ? w.data() : out.data();
    r.bias = bias.data(), r.residual = residual.data();
    r.x_batch_pitch = xs.batch_pitch, r.x_channel_pitch = xs.channel_pitch;
    r.y_batch_pitch = ys.batch_pitch, r.y_channel_pitch = ys.channel_pitch;
    r.alpha = kAlpha, r.pad_value = kPadValue;
    const DeviceBuffer weights(b, packed ? algorithm.packed_bytes(&q, &m) : 0);
    const DeviceBuffer workspace(b, algorithm.workspace_bytes(&q, &m, 1, packed));
    r.workspace = workspace.data();
    int status = packed ? algorithm.pack(&q, &r, weights.data()) : 0;
    if (packed) r.packed_w = weights.data(), r.w = nullptr;
    if (!status) status = algorithm.run(&q, &r);
    *error = status ? text : nullptr;
    if (!status && b.synchronize(0, nullptr)) *error = b.last_error();
    ++runs;
    return out.values();
  }

  // What all algorithms are given, and what they should answer.
  void prepare(bool integers) {
    const int64_t xn = p.n * p.c * x_plane(p), yn = p.n * p.k * y_plane(p);
    o = {values(xn, integers), values(p.k * (p.c / p.groups) * taps(p), integers), values(yn, integers),
         values(p.pass == Pass::kBackwardData ? p.c : p.k, integers), values(yn, integers)};
    wanted = expected(o, false);
    magnitude = integers && exact_activation() ? wanted : expected(o, true);
  }

  int check(const Algorithm& algorithm, bool integers, bool wide, bool packed) {
    const int64_t cg = p.c / p.groups;
    const bool forward = p.pass == Pass::kForward, data = p.pass == Pass::kBackwardData;
    const Place xs(p.x_layout, p.n, p.c, x_plane(p), wide), ys(p.y_layout, p.n, p.k, y_plane(p), wide);
    const char* error;
    const std::vector<unsigned char> got = compute(algorithm, o, xs, ys, packed, p.n, &error);
    const char* kind = packed ? "packed" : wide ? "wide pitches" : "dense";
    if (error) return failed(algorithm, kind, error);
    if (!integers && compute(algorithm, o, xs, ys, packed, p.n, &error) != got)
      return failed(algorithm, "other bits in a second run", kind);

    const size_t size = static_cast<size_t>(element_size(p.dtype));
    const Place& place = forward ? ys : xs;
    if (!integers && (forward || data) && p.n > 1) {
      const std::vector<unsigned char> alone = compute(algorithm, o, xs, ys, packed, 1, &error);
      if (error) return failed(algorithm, "one image", error);
      for (int64_t i = 0; i < place.channels * place.plane; ++i)
        if (memcmp(&alone[static_cast<size_t>(place.at(i)) * size], &got[static_cast<size_t>(place.at(i)) * size],
                   size) != 0)
          return failed(algorithm, "other bits for an image alone", kind);
    }

    std::vector<unsigned char> rest = got;
    const double eps = p.dtype == DType::kFloat64 ? 0x1p-52 : 0x1p-23;
    const double eps_out = p.dtype == DType::kFloat16 ? 0x1p-11 : p.dtype == DType::kBFloat16 ? 0x1p-8 : eps;
    const double terms = static_cast<double>((forward ? cg
                                              : data  ? p.k / p.groups
                                                      : p.n * y_plane(p)) *
                                             (forward || data ? taps(p) : 1));
    const int64_t plane = forward || data ? place.plane : taps(p);
    const bool exact = integers && exact_activation();
    double largest = 0;
    for (size_t i = 0; i < wanted.size(); ++i) {
      const int64_t at = forward || data ? place.at(static_cast<int64_t>(i)) : static_cast<int64_t>(i);
      const double value = decoded(&got[static_cast<size_t>(at) * size]);
      memset(&rest[static_cast<size_t>(at) * size], 0xFF, size);
      if (exact) {
        const double rounded = decoded(encoded({wanted[i]}).data());
        if (!(value == rounded)) return failed(algorithm, kind, difference("exact", i, value, rounded, 0));
        continue;
      }
      if (algorithm.error_factor <= 1)
        largest = magnitude[i];
      else if (i % static_cast<size_t>(plane) == 0)
        largest = *std::max_element(&magnitude[i], &magnitude[i] + plane);
      const double allowed = algorithm.error_factor * eps * std::sqrt(terms + 2) * largest +
                             eps_out * std::abs(wanted[i]) + (p.activation == Activation::kNone ? 0 : 8 * eps) +
                             (is_half(p.dtype) ? 1e-7 : 1e-30);
      if (!(std::abs(value - wanted[i]) <= allowed))
        return failed(algorithm, kind, difference("bound", i, value, wanted[i], allowed));
    }
    for (const unsigned char byte : rest)
      if (byte != 0xFF) return failed(algorithm, kind, "wrote between the tensor's elements");
    return 0;
  }

  bool exact_activation() const {
    return p.activation == Activation::kNone || p.activation == Activation::kRelu || p.activation == Activation::kRelu6;
  }
  const char* difference(const char* tier, size_t i, double value, double wanted, double allowed) const {
    static char text[kTextCapacity];
    snprintf(text, sizeof text, "(%s): element %zu is %.9g, expected %.9g within %.3g", tier, i, value, wanted,
             allowed);
    return text;
  }

  static constexpr double kAlpha = 0.5, kPadValue = 2;
  const Backend& b;
  const Machine m;
  const ConvProblem p;
  const Settings& s;
  std::mt19937_64 random;
  Operands o;
  std::vector<double> wanted, magnitude;
};
int64_t Check::runs = 0;

int check(const Backend& backend, const DeviceAttributes& attributes, ConvProblem p, const Settings& settings) {
  int failures = 0;
  const ConvProblem forward = p;
  for (Pass pass : {Pass::kForward, Pass::kBackwardData, Pass::kBackwardFilter})
    for (Layout x_layout : {Layout::kChannelsFirst, Layout::kChannelsLast})
      for (Layout y_layout : {Layout::kChannelsFirst, Layout::kChannelsLast})
        for (DType dtype : {DType::kFloat32, DType::kFloat64, DType::kFloat16, DType::kBFloat16}) {
          if (settings.dtype && strcmp(settings.dtype, name_of(dtype)) != 0) continue;
          if (x_layout != y_layout && dtype != DType::kFloat32) continue;
          p = forward;
          p.pass = pass, p.x_layout = x_layout, p.y_layout = y_layout, p.dtype = dtype;
          if (pass == Pass::kBackwardFilter || (pass == Pass::kBackwardData && p.padding_mode != PaddingMode::kZeros))
            p.activation = Activation::kNone, p.epilogue = 0;
          else if (pass == Pass::kBackwardData)
            p.epilogue &= ~kEpilogueResidual;
          failures += Check(backend, attributes, p, settings).run();
        }
  return failures;
}

}  // namespace

int main(int count, char** words) {
  Settings settings;
  std::vector<const char*> files;
  for (int i = 1; i < count; ++i) {
    const auto option = [&](const char* name) { return strcmp(words[i], name) == 0 && i + 1 < count; };
    if (option("--algorithm"))
      settings.algorithm = words[++i];
    else if (option("--dtype"))
      settings.dtype = words[++i];
    else if (option("--every"))
      settings.every = std::max(1, atoi(words[++i]));
    else if (option("--seed"))
      settings.seed = strtoull(words[++i], nullptr, 10);
    else
      files.push_back(words[i]);
  }
  if (files.size() < 2)
    return printf("check_cuda LIBRARY FILE... [--algorithm NAME] [--every N] [--dtype NAME] [--seed N]\n"), 2;
  const Backend& backend = open_backend(files[0]);
  DeviceAttributes attributes;
  if (backend.attributes(0, &attributes)) fail("attributes", backend.last_error());
  int failures = 0, problems = 0, lines = 0;
  for (size_t i = 1; i < files.size(); ++i) {
    std::ifstream file(files[i]);
    if (!file) fail(files[i], "cannot be read");
    for (std::string line; std::getline(file, line);) {
      const size_t first = line.find_first_not_of(" \t\r");
      if (first == std::string::npos || line[first] == '#') continue;
      if (lines++ % settings.every != 0) continue;
      ConvProblem p;
      char error[kTextCapacity];
      if (!parse(line.c_str(), &p, error)) fail(line.c_str(), error);
      failures += check(backend, attributes, p, settings);
      ++problems;
    }
  }
  printf("%s (%s, architecture %d), seed %" PRIu64 ": %d problems, %" PRId64 " runs, %d failures\n", backend.name,
         attributes.name, attributes.machine.architecture, settings.seed, problems, Check::runs, failures);
  return failures || Check::runs == 0 ? 1 : 0;
}
