// SPDX-License-Identifier: Apache-2.0
// Pointwise operations, normalisation and softmax of a backend library against the CPU's operations and against sums in
// float64: drawn shapes of every dtype, empty ones too, in slices that begin at any element. Results are NaN-filled
// beforehand, nothing beside them may be written, and a second run must give the same bits.
//   check_cuda_ops LIBRARY [CASES] [SEED]
#include <cstdlib>

#include "check_ops_device.h"
#include "machine.h"
#include "pointwise_ops.h"

namespace {

using namespace fastconv;
using namespace fastconv::check;

constexpr int64_t kOps = 6;
constexpr int64_t kActivations = static_cast<int64_t>(Activation::kLogSigmoid);

bool is_activation(PointwiseOp op) { return op == PointwiseOp::kActivation || op == PointwiseOp::kActivationBackward; }

// C: what is computed with.
template <class C>
class Check {
 public:
  Check(const Device& on, Draw& numbers, DType type) : device(on), draw(numbers), dtype(type) {}

  bool run() {
    c.machine = &device.attributes.machine, c.error = text, c.dtype = dtype;
    c.op = static_cast<PointwiseOp>(draw(0, kOps - 1));
    c.activation = static_cast<Activation>(draw(1, kActivations));
    constexpr double alphas[] = {0.01, 0.5, 1, 2};
    c.alpha = alphas[draw(0, 3)];
    if (c.activation == Activation::kElu && draw(0, 3) == 0) c.alpha = -c.alpha;
    c.n = draw(0, 12) ? draw(1, 3) : 0, c.c = draw(1, 20), c.pixels = draw(0, 1) ? draw(1, 9) : draw(1, 90);
    if (draw(0, 9) == 0) c.pixels = draw(1000, 3000);
    if (draw(0, 3) == 0) c.c = 1, c.pixels *= c.n, c.n = c.n ? 1 : 0;
    const int64_t count = c.n * c.c * c.pixels, element = element_size(dtype);
    const bool special = is_activation(c.op) && draw(0, 1);
    const std::vector<C> x = values(count, special), dy = values(count, false), w = values(c.c, false);
    std::vector<uint8_t> mask(x.size());
    for (uint8_t& kept : mask) kept = draw(0, 2) > 0;

    Slice device_x(device, draw, encode(x), element), device_dy(device, draw, encode(dy), element),
        device_w(device, draw, encode(w), element), device_mask(device, draw, bytes_of(mask), 1);
    const Bytes nothing(static_cast<size_t>(count * element), 0xFF);
    Slice y(device, draw, nothing, element), dx(device, draw, nothing, element);
    c.x = device_x.data(), c.dy = device_dy.data(), c.w = device_w.data(), c.y = y.data(), c.dx = dx.data();
    c.mask = static_cast<const uint8_t*>(device_mask.data());
    Bytes first[2];
    for (int turn = 0; turn < 2; ++turn) {
      y.poison(), dx.poison();
      if (device.backend->pointwise(&c) || device.backend->synchronize(0, nullptr)) return fail("the device", 0);
      if (!y.is_tidy() || !dx.is_tidy()) return fail("beside the result", 0);
      if (turn && (first[0] != y.get() || first[1] != dx.get())) return fail("the second run", 0);
      first[0] = y.get(), first[1] = dx.get();
    }
    got_y = decoded<C>(device.machine, dtype, first[0]), got_dx = decoded<C>(device.machine, dtype, first[1]);
    return is_activation(c.op) ? compare_activation(x, dy, special) : compare_others(x, dy, w, mask);
  }

 private:
  std::vector<C> values(int64_t count, bool special) {
    std::vector<C> result(static_cast<size_t>(count));
    const double largest = dtype == DType::kFloat16 ? 65504 : static_cast<double>(std::numeric_limits<C>::max());
    const double kinds[] = {INFINITY, -INFINITY, NAN, 0.0, -0.0, largest, -largest, 100, -100, 3, -3, 6};
    for (C& value : result) {
      value = static_cast<C>(draw.normal() * (draw(0, 5) ? 1 : 8));
      if (special && draw(0, 2) == 0) value = static_cast<C>(kinds[draw(0, 11)]);
    }
    return rounded(device.machine, dtype, result);
  }
  Bytes encode(const std::vector<C>& numbers) const { return encoded(device.machine, dtype, numbers); }

  // In the type that is computed with where numbers are special, else with more digits.
  bool compare_activation(const std::vector<C>& x, const std::vector<C>& dy, bool special) {
    return special ? compare_with<C>(x, dy) : compare_with<double>(x, dy);
  }
  template <class R>
  bool compare_with(const std::vector<C>& given_x, const std::vector<C>& given_dy) {
    const std::vector<R> x(given_x.begin(), given_x.end()), dy(given_dy.begin(), given_dy.end());
    std::vector<R> wanted(x.size());
    const int64_t count = static_cast<int64_t>(x.size());
    const bool backward = c.op == PointwiseOp::kActivationBackward;
    const double alpha = static_cast<double>(static_cast<C>(c.alpha)), eps = 64 * epsilon_of(dtype);
    if (backward)
      activation_backward(device.machine, c.activation, alpha, count, dy.data(), x.data(), wanted.data());
    else
      activation_forward(device.machine, c.activation, alpha, count, x.data(), wanted.data());
    for (size_t i = 0; i < x.size(); ++i) {
      const double got = static_cast<double>(backward ? got_dx[i] : got_y[i]);
      const double expected = static_cast<double>(rounded_once(wanted[i]));
      const double size = backward ? std::fabs(static_cast<double>(dy[i])) * (1 + std::fabs(alpha)) : 0;
      // In a tail the exponent's rounding counts.
      const double squared = static_cast<double>(x[i]) * static_cast<double>(x[i]);
      const double digits = std::fabs(expected) < 1e-3 && std::isfinite(squared) ? 1 + squared : 1;
      const double bound = eps * (digits * std::fabs(expected) + size) + half_unit(dtype, expected) +
                           64 * static_cast<double>(std::numeric_limits<C>::min());
      if (is_near(got, expected, bound)) continue;
      printf("x %g, dy %g, got %.9g, expected %.9g: ", static_cast<double>(x[i]), static_cast<double>(dy[i]), got,
             expected);
      return fail(name_of(c.activation), i);
    }
    return true;
  }

  bool compare_others(const std::vector<C>& x, const std::vector<C>& dy, const std::vector<C>& w,
                      const std::vector<uint8_t>& mask) {
    for (size_t i = 0; i < x.size(); ++i) {
      const C slope = w[i / static_cast<size_t>(c.pixels) % static_cast<size_t>(c.c)], zero = 0;
      C y = 0, dx = 0;
      switch (c.op) {
        case PointwiseOp::kPrelu:
          y = x[i] > 0 ? x[i] : x[i] * slope;
          break;
        case PointwiseOp::kPreluBackward:
          dx = x[i] > 0 ? dy[i] : dy[i] * slope, y = x[i] > 0 ? zero : dy[i] * x[i];
          if (got_dx[i] != rounded_once(dx)) return fail("dx", i);
          break;
        case PointwiseOp::kAdd:
          y = x[i] + dy[i];
          break;
        default:
          y = mask[i] ? x[i] * static_cast<C>(c.alpha) : zero;
      }
      if (got_y[i] != rounded_once(y)) return fail("y", i);
    }
    return true;
  }
  template <class R>
  C rounded_once(R value) const {
    return rounded(device.machine, dtype, std::vector<C>{static_cast<C>(value)})[0];
  }

  bool fail(const char* what, size_t at) const {
    printf("FAILED %s at %zu: operation %d of %s, alpha %g, n%lld c%lld pixels%lld %s %s\n", what, at,
           static_cast<int>(c.op), name_of(dtype), c.alpha, static_cast<long long>(c.n), static_cast<long long>(c.c),
           static_cast<long long>(c.pixels), text, device.backend->last_error());
    return false;
  }

  const Device& device;
  Draw& draw;
  const DType dtype;
  PointwiseContext c{};
  char text[kTextCapacity] = "";
  std::vector<C> got_y, got_dx;
};

bool check_pointwise(const Device& device, Draw& draw) {
  const DType dtype = static_cast<DType>(draw(0, 3));
  return dtype == DType::kFloat64 ? Check<double>(device, draw, dtype).run() : Check<float>(device, draw, dtype).run();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    printf("usage: check_cuda_ops LIBRARY [CASES] [SEED]\n");
    return 2;
  }
  const int64_t cases = argc > 2 ? atoll(argv[2]) : 1000;
  Draw draw(argc > 3 ? strtoull(argv[3], nullptr, 0) : 1);
  const Device device(argv[1], usable_machine(0));
  int64_t failures = 0;
  for (int64_t i = 0; i < cases && failures < 20; ++i) failures += !check_pointwise(device, draw);
  for (int64_t i = 0; i < cases && failures < 20; ++i) failures += !check_norm(device, draw);
  printf("%lld pointwise operations, %lld normalisations, %lld failures\n", static_cast<long long>(cases),
         static_cast<long long>(cases), static_cast<long long>(failures));
  return failures ? 1 : 0;
}
