// SPDX-License-Identifier: Apache-2.0
// Pooling of a backend library against the CPU's: drawn problems of every kind, pass, layout and dtype, with all of a
// kind's outputs, on integers, on normal numbers and on such with infinities, NaN, zeros of both signs and the largest
// floats among them. Outputs are NaN-filled beforehand. Results must have the CPU's bits (a NaN is a NaN), but for norms
// and for sums whose order is that of the CPU's vectors, which have a bound.
//   check_cuda_pool LIBRARY [PROBLEMS] [SEED]
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "check_pool_device.h"
#include "machine.h"
#include "pool.h"

namespace {

using namespace fastconv;
using namespace fastconv::check;

enum class Values { kIntegers, kNormal, kSpecial };

// Windows of any shape, or of those that have kernels of their own.
PoolProblem draw_problem(Draw& draw) {
  PoolProblem p{};
  const int64_t shape = draw(0, 5);  // 0, 1: squares of 2 and 3; 2: the whole plane; 3: adaptive; else any
  p.spatial_rank = shape < 2 ? 2 : static_cast<int32_t>(draw(1, 3));
  p.adaptive = shape == 3 || (shape == 2 && draw(0, 1));
  p.ceil_mode = static_cast<int32_t>(draw(0, 1)), p.count_include_pad = static_cast<int32_t>(draw(0, 1));
  p.divisor = draw(0, 3) ? 0 : draw(1, 7);
  p.n = draw(1, 2), p.c = draw(0, 1) ? 8 * draw(1, 4) : draw(1, 19);
  p.layout = draw(0, 1) ? Layout::kChannelsFirst : Layout::kChannelsLast;
  p.dtype = static_cast<DType>(draw(0, 3));
  p.kind = static_cast<PoolKind>(draw(0, 4));
  p.pass = draw(0, 1) ? Pass::kForward : Pass::kBackwardData;
  for (int i = 0; i < kMaxSpatial; ++i) {
    p.size[i] = p.window[i] = p.stride[i] = p.dilation[i] = 1;
    p.output[i] = p.adaptive;
    if (i < kMaxSpatial - p.spatial_rank) continue;
    p.size[i] = p.spatial_rank == 1 ? draw(1, 70) : draw(1, 11);
    if (shape == 2 && p.spatial_rank == 1 && draw(0, 2) == 0) p.size[i] = draw(300, 9000), p.c = draw(1, 9);
    if (shape < 2) {
      p.size[i] = i == 2 && draw(0, 3) ? 4 * draw(1, 6) : draw(2, 26);
      p.window[i] = 2 + shape, p.stride[i] = draw(0, 5) ? 2 : draw(1, 3);
      p.pad_begin[i] = draw(0, p.window[i] - 2), p.pad_end[i] = draw(0, p.window[i] - 1);
    } else if (p.adaptive) {
      p.output[i] = shape == 2 ? 1 : draw(1, 13);
    } else if (shape == 2) {
      p.window[i] = p.size[i] + draw(0, 1), p.pad_begin[i] = p.window[i] - p.size[i];
    } else {
      p.window[i] = draw(1, 4), p.stride[i] = draw(1, 4), p.dilation[i] = draw(0, 2) ? 1 : draw(2, 3);
      p.pad_begin[i] = draw(0, (p.window[i] - 1) * p.dilation[i]);
      p.pad_end[i] = draw(0, (p.window[i] - 1) * p.dilation[i]);
    }
  }
  return p;
}

void print(const PoolProblem& p) {
  printf("%s %s %s %s adaptive=%d ceil=%d include=%d divisor=%lld n=%lld c=%lld", name_of(p.kind), name_of(p.pass),
         name_of(p.layout), name_of(p.dtype), p.adaptive, p.ceil_mode, p.count_include_pad,
         static_cast<long long>(p.divisor), static_cast<long long>(p.n), static_cast<long long>(p.c));
  for (int i = 0; i < kMaxSpatial; ++i)
    printf(" | %lld>%lld w%lld s%lld d%lld p%lld,%lld", static_cast<long long>(p.size[i]),
           static_cast<long long>(output_size(p, i)), static_cast<long long>(p.window[i]),
           static_cast<long long>(p.stride[i]), static_cast<long long>(p.dilation[i]),
           static_cast<long long>(p.pad_begin[i]), static_cast<long long>(p.pad_end[i]));
  printf("\n");
}

// C: what is computed with.
template <class C>
class Check {
 public:
  Check(const PoolProblem& problem, const Device& on, Draw& numbers) : p(problem), device(on), draw(numbers) {}

  bool run() {
    kind_of_values = static_cast<Values>(draw(0, 2));
    const int64_t x_pixels = x_plane(p), y_pixels = y_plane(p);
    const bool forward = p.pass == Pass::kForward, planes = p.layout == Layout::kChannelsFirst;
    tracked = is_extreme() ? draw(0, 2) : 0;
    if (!forward && is_extreme()) {
      if (!has_offsets(p)) return true;
      tracked = 2;
    }
    if (tracked == 2 && !has_offsets(p)) tracked = 1;
    // x of forward is a slice: of channels that begin somewhere, between others.
    const int64_t slack = forward && draw(0, 1) ? draw(1, 2) * (draw(0, 1) ? 8 : 1) : 0;
    const int64_t channel = planes ? x_pixels + (draw(0, 1) ? slack : 0) : p.c + slack;
    const int64_t batch = planes ? p.c * channel + slack : x_pixels * channel;
    start = planes ? slack : slack / 2;
    const std::vector<C> x = values(start + p.n * batch), dy = values(p.n * p.c * y_pixels, is_norm());
    constexpr double norms[] = {1, 2, 3, 2.5, 40};
    PoolBuffers b{};
    b.norm = p.kind == PoolKind::kSignedLp ? static_cast<double>(2 * draw(0, 2) + 1) : norms[draw(0, 4)];
    b.x_batch_pitch = batch, b.x_channel_pitch = channel;

    wanted.y.resize(dy.size()), wanted.dx.resize(static_cast<size_t>(p.n * p.c * x_pixels));
    wanted.indices.resize(dy.size()), wanted.offsets.resize(dy.size());
    PoolProblem call = p;
    call.dtype = computed();
    if (!forward) {  // from the CPU's y or offsets
      call.pass = Pass::kForward;
      on_cpu(call, b, x, dy);
      if (p.dtype != computed()) wanted.y = rounded(device.machine, p.dtype, wanted.y);
      call.pass = p.pass;
    }
    on_cpu(call, b, x, dy);
    if (!on_device(b, x, dy)) return fail("the device", 0);
    return forward ? compare_forward(x, b) : compare_backward(x, dy, b);
  }

 private:
  struct Results {
    std::vector<C> y, dx;
    std::vector<int64_t> indices;
    std::vector<uint8_t> offsets;
  };

  static DType computed() { return sizeof(C) == 8 ? DType::kFloat64 : DType::kFloat32; }
  bool is_extreme() const { return p.kind == PoolKind::kMax || p.kind == PoolKind::kMin; }
  bool is_norm() const { return p.kind == PoolKind::kLp || p.kind == PoolKind::kSignedLp; }

  // `plain`: without what is special. A slope that the CPU flushes to zero, times a dy that is infinite, is another thing.
  std::vector<C> values(int64_t count, bool plain = false) {
    std::vector<C> result(static_cast<size_t>(count));
    const double largest = p.dtype == DType::kFloat16 ? 65504 : static_cast<double>(std::numeric_limits<C>::max());
    const double special[] = {INFINITY, -INFINITY, NAN, 0.0, -0.0, largest, -largest, largest, largest};
    for (C& value : result) {
      value = static_cast<C>(kind_of_values == Values::kIntegers ? static_cast<double>(draw(-3, 3)) : draw.normal());
      if (kind_of_values == Values::kSpecial && !plain && draw(0, 5) == 0) value = static_cast<C>(special[draw(0, 8)]);
    }
    return rounded(device.machine, p.dtype, result);
  }

  void on_cpu(const PoolProblem& call, PoolBuffers b, const std::vector<C>& x, const std::vector<C>& dy) {
    b.x = x.data() + start;
    b.y = wanted.y.data(), b.dy = dy.data(), b.dx = wanted.dx.data();
    b.indices = tracked == 1 ? wanted.indices.data() : nullptr;
    b.offsets = tracked == 2 ? wanted.offsets.data() : nullptr;
    char text[kTextCapacity];
    Options options;
    options.machine = &usable_machine(0);
    if (run_pool(call, options, b, text) != Failure::kNone) printf("the CPU: %s\n", text), exit(2);
  }

  bool on_device(PoolBuffers b, const std::vector<C>& x, const std::vector<C>& dy) {
    const bool forward = p.pass == Pass::kForward;
    OnDevice device_x(device, encoded(device.machine, p.dtype, x)),
        device_dy(device, encoded(device.machine, p.dtype, dy));
    const int64_t element = element_size(p.dtype);
    OnDevice device_y(device, p.n * p.c * y_plane(p) * element), device_dx(device, p.n * p.c * x_plane(p) * element);
    OnDevice indices(device, p.n * p.c * y_plane(p) * 8), offsets(device, p.n * p.c * y_plane(p));
    if (!forward) device_y.put(encoded(device.machine, p.dtype, wanted.y)), offsets.put(bytes_of(wanted.offsets));
    b.x = static_cast<const char*>(device_x.data()) + start * element;
    b.y = device_y.data(), b.dy = device_dy.data(), b.dx = device_dx.data();
    b.indices = forward && tracked == 1 ? static_cast<int64_t*>(indices.data()) : nullptr;
    b.offsets = tracked == 2 ? static_cast<uint8_t*>(offsets.data()) : nullptr;
    char text[kTextCapacity] = "";
    const PoolContext context = {&device.attributes.machine, nullptr, text, b};
    if (device.backend->pool(&p, &context) || device.backend->synchronize(0, nullptr)) {
      printf("%s %s\n", text, device.backend->last_error());
      return false;
    }
    got.y = decoded<C>(device.machine, p.dtype, device_y.get()),
    got.dx = decoded<C>(device.machine, p.dtype, device_dx.get());
    got.indices = typed<int64_t>(indices.get()), got.offsets = typed<uint8_t>(offsets.get());
    return true;
  }

  bool fail(const char* what, size_t at) const {
    printf("FAILED %s at %zu: ", what, at);
    if (at < got.y.size()) printf("y %g, expected %g; ", double(got.y[at]), double(wanted.y[at]));
    if (at < got.dx.size()) printf("dx %g, expected %g; ", double(got.dx[at]), double(wanted.dx[at]));
    print(p);
    return false;
  }

  // Whether the CPU adds up a window in the order of its vectors, or the device in that of a tree.
  bool other_order() const {
    bool whole = true;
    for (int i = 0; i < kMaxSpatial; ++i) whole = whole && output_size(p, i) == 1;
    const bool spans = p.window[2] == p.size[2] && output_size(p, 2) == 1;
    return whole || (p.layout == Layout::kChannelsFirst && (p.adaptive || spans));
  }

  bool compare_forward(const std::vector<C>& x, const PoolBuffers& b) {
    if (is_norm()) return compare_norms(x, b);
    const std::vector<C> y = rounded(device.machine, p.dtype, wanted.y);
    double largest = 0;
    for (C v : x) largest = std::fmax(largest, std::isfinite(v) ? std::fabs(double(v)) : 0);
    const double eps = double(std::numeric_limits<C>::epsilon()), terms = double(x_plane(p));
    const bool loose = p.kind == PoolKind::kAverage && other_order();
    for (size_t i = 0; i < y.size(); ++i) {
      const double bound = eps * std::sqrt(terms) * 4 * largest + unit(y[i]);
      const bool zeros = y[i] == 0 && got.y[i] == 0 && is_extreme() && !tracked;  // which zero: that of another order
      if (!(same(got.y[i], y[i]) || zeros || (loose && close(got.y[i], y[i], bound)))) return fail("y", i);
      if (tracked == 1 && got.indices[i] != wanted.indices[i]) return fail("indices", i);
      if (tracked == 2 && got.offsets[i] != wanted.offsets[i]) return fail("offsets", i);
    }
    return true;
  }

  // With p-th powers: those of both sides differ by the roundings of a sum of |x|^p.
  bool compare_norms(const std::vector<C>& x, const PoolBuffers& b) {
    Results signed_norms = wanted;
    PoolProblem call = p;
    call.dtype = computed(), call.kind = PoolKind::kLp;
    on_cpu(call, b, x, x);
    const std::vector<C> sizes = wanted.y;
    wanted = signed_norms;
    const std::vector<C> y = rounded(device.machine, p.dtype, wanted.y);
    for (size_t i = 0; i < y.size(); ++i) {
      if (same(got.y[i], y[i])) continue;
      const double eps = double(std::numeric_limits<C>::epsilon()) * 64 * b.norm;
      if (close(got.y[i], y[i], unit(y[i]) * 2 + eps * std::fabs(double(y[i])))) continue;
      const auto power = [&](double v) { return std::copysign(std::pow(std::fabs(v) / double(sizes[i]), b.norm), v); };
      if (!(std::fabs(power(double(got.y[i])) - power(double(y[i]))) <= eps + 2 * b.norm * unit(C(1))))
        return fail("norm", i);
    }
    return true;
  }

  bool compare_backward(const std::vector<C>& x, const std::vector<C>& dy, const PoolBuffers& b) {
    const std::vector<C> dx = rounded(device.machine, p.dtype, wanted.dx);
    std::vector<C> sizes(dx.size(), C(0));  // the sum of the absolute values of what a cell is the sum of
    if (is_norm()) {
      std::vector<C> a = x, d = dy;
      for (C& v : a) v = std::fabs(v);
      for (C& v : d) v = std::fabs(v);
      const Results kept = wanted;
      for (C& v : wanted.y) v = std::fabs(v);
      PoolProblem call = p;
      call.dtype = computed(), call.kind = PoolKind::kLp;
      on_cpu(call, b, a, d);
      sizes = wanted.dx;
      wanted = kept;
    }
    for (size_t i = 0; i < dx.size(); ++i) {
      const double bound = double(std::numeric_limits<C>::epsilon()) * 64 * b.norm * double(sizes[i]) + unit(dx[i]);
      if (!(same(got.dx[i], dx[i]) || (is_norm() && close(got.dx[i], dx[i], bound)))) return fail("dx", i);
    }
    return true;
  }

  // The distance of neighbouring halves beside v, and what the CPU flushes to zero.
  double unit(C v) const {
    const double digits = p.dtype == DType::kFloat16 ? 0x1p-10 : p.dtype == DType::kBFloat16 ? 0x1p-7 : 0;
    return digits * std::fmax(std::fabs(double(v)), 0x1p-14) + 64 * double(std::numeric_limits<C>::min());
  }
  static bool close(C a, C b, double bound) {
    return (std::isnan(a) && std::isnan(b)) || a == b || std::fabs(double(a) - double(b)) <= bound;
  }

  const PoolProblem p;
  const Device& device;
  Draw& draw;
  Values kind_of_values = Values::kNormal;
  int64_t tracked = 0;  // 1: indices, 2: offsets
  int64_t start = 0;    // of x in its buffer
  Results wanted, got;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    printf("usage: check_cuda_pool LIBRARY [PROBLEMS] [SEED]\n");
    return 2;
  }
  const int64_t problems = argc > 2 ? atoll(argv[2]) : 2000;
  Draw draw(argc > 3 ? strtoull(argv[3], nullptr, 0) : 1);
  const Device device(argv[1], usable_machine(0));
  int64_t failures = 0;
  for (int64_t done = 0; done < problems;) {
    const PoolProblem p = draw_problem(draw);
    char text[kTextCapacity];
    if (!validate(p, text)) continue;
    ++done;
    failures +=
        p.dtype == DType::kFloat64 ? !Check<double>(p, device, draw).run() : !Check<float>(p, device, draw).run();
    if (failures >= 20) break;
  }
  const int64_t scattered = failures ? 0 : problems / 4;
  for (int64_t i = 0; i < scattered; ++i) failures += !check_positions(device, draw);
  printf("%lld pooling problems, %lld of positions, %lld failures\n", static_cast<long long>(problems),
         static_cast<long long>(scattered), static_cast<long long>(failures));
  return failures ? 1 : 0;
}
