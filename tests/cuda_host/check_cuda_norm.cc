// SPDX-License-Identifier: Apache-2.0
// Normalisations and softmax of a backend library against loops over their definitions, in more digits.
#include "check_ops_device.h"

namespace fastconv::check {
namespace {

typedef long double Real;
typedef std::vector<Real> Reals;

// A result: the values wanted, and how far from them the device may be in units of the type that is computed with.
struct Wanted {
  Reals values, sizes;
  explicit Wanted(int64_t count) : values(static_cast<size_t>(count)), sizes(static_cast<size_t>(count)) {}
};

template <class C>
class Check {
 public:
  Check(const Device& on, Draw& numbers, DType type) : device(on), draw(numbers), dtype(type) {}

  bool run() {
    draw_context();
    const int64_t count = c.n * c.c * c.pixels, statistics = grouped() ? c.n * c.groups : c.c;
    const C offset = static_cast<C>(draw(0, 1) ? 0 : draw(-60, 60));
    x = values(count, dtype, offset), dy = values(count, dtype, 0);
    gamma = values(c.c, computed(), 1), beta = values(c.c, computed(), 0);
    if (is_softmax()) y = softmax_of(x);
    measure();
    const bool gives = c.op == NormOp::kBatchForward || c.op == NormOp::kGroupForward;
    const int64_t element = element_size(dtype);
    Slice device_x(device, draw, encoded(device.machine, dtype, x), element),
        device_dy(device, draw, encoded(device.machine, dtype, dy), element),
        device_gamma(device, draw, bytes_of(gamma), sizeof(C)), device_beta(device, draw, bytes_of(beta), sizeof(C)),
        device_y(device, draw, encoded(device.machine, dtype, y), element);
    const auto nothing = [&](int64_t bytes) { return Bytes(static_cast<size_t>(bytes), 0xFF); };
    const int64_t statistic = grouped() ? 8 : static_cast<int64_t>(sizeof(C));
    Slice to(device, draw, nothing(count * element), element),
        device_mean(device, draw, gives ? nothing(statistics * statistic) : given(mean), statistic),
        device_variance(device, draw, gives ? nothing(statistics * statistic) : given(grouped() ? inverse : variance),
                        statistic),
        dgamma(device, draw, nothing(c.c * static_cast<int64_t>(sizeof(C))), sizeof(C)),
        dbeta(device, draw, nothing(c.c * static_cast<int64_t>(sizeof(C))), sizeof(C));
    const int64_t bytes = device.backend->norm_workspace(&c);
    OnDevice workspace(device, bytes);
    c.workspace = workspace.data();
    c.x = device_x.data(), c.dy = device_dy.data(), c.gamma = device_gamma.data(), c.beta = device_beta.data();
    const bool backward = c.op == NormOp::kSoftmaxBackward;
    c.y = backward ? device_y.data() : to.data(), c.dx = to.data();
    c.dgamma = dgamma.data(), c.dbeta = dbeta.data(), c.mean = device_mean.data(), c.variance = device_variance.data();
    Slice* const written[] = {&to, &dgamma, &dbeta, &device_mean, &device_variance};
    Bytes results[5];
    for (int turn = 0; turn < 2; ++turn) {
      for (int i = 0; i < (gives ? 5 : 3); ++i) written[i]->poison();
      if (device.backend->norm(&c) || device.backend->synchronize(0, nullptr)) return fail("the device", 0);
      for (int i = 0; i < 5; ++i) {
        if (!written[i]->is_tidy()) return fail("beside a result", i);
        if (turn && results[i] != written[i]->get()) return fail("the second run", i);
        results[i] = written[i]->get();
      }
    }
    return compare(results);
  }

 private:
  static DType computed() { return sizeof(C) == 8 ? DType::kFloat64 : DType::kFloat32; }
  bool grouped() const { return c.op == NormOp::kGroupForward || c.op == NormOp::kGroupBackward; }
  bool is_softmax() const { return c.op >= NormOp::kSoftmax; }

  void draw_context() {
    c.machine = &device.attributes.machine, c.error = text, c.dtype = dtype;
    c.op = static_cast<NormOp>(draw(0, 7));
    c.channels_last = static_cast<int32_t>(draw(0, 1)), c.logarithm = static_cast<int32_t>(draw(0, 1));
    c.n = draw(1, 4), c.groups = draw(1, 4), c.c = c.groups * draw(1, draw(0, 1) ? 3 : 12);
    c.pixels = draw(0, 2) ? draw(2, 60) : 1;
    const int64_t shape = draw(0, 7);  // some are large along one axis
    if (shape == 0) c.pixels = draw(700, 6000), c.n = draw(1, 2), c.c = c.groups;
    if (shape == 1) c.n = draw(300, 3000), c.pixels = 1;
    if (shape == 2) c.c = c.groups * draw(100, 600), c.pixels = draw(1, 2), c.n = draw(1, 3);
    if (is_softmax()) c.pixels = 1, c.channels_last = 0;
    if (is_softmax() && draw(0, 3) == 0) c.c = draw(1000, 3000), c.n = draw(1, 3);
    const bool may_be_empty = c.op != NormOp::kBatchForward && c.op != NormOp::kGroupForward;
    if (may_be_empty && draw(0, 15) == 0) c.n = 0;
    c.eps = draw(0, 1) ? 1e-5 : 1e-2;
  }

  std::vector<C> values(int64_t count, DType type, C offset) {
    std::vector<C> result(static_cast<size_t>(count));
    for (C& value : result) value = offset + static_cast<C>(draw.normal());
    return rounded(device.machine, type, result);
  }

  // Calls visit(element, channel, the statistic that it belongs to).
  template <class Visit>
  void for_elements(const Visit& visit) const {
    const int64_t count = c.n * c.c * c.pixels;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t n = i / (c.c * c.pixels), channel = c.channels_last ? i % c.c : i / c.pixels % c.c;
      visit(static_cast<size_t>(i), static_cast<size_t>(channel),
            static_cast<size_t>(grouped() ? n * c.groups + channel / (c.c / c.groups) : channel));
    }
  }

  // Mean, biased variance and 1 / sqrt(variance + eps) of what is normalised together.
  void measure() {
    const size_t statistics = static_cast<size_t>(grouped() ? c.n * c.groups : c.c);
    mean.assign(statistics, 0), variance.assign(statistics, 0), inverse.assign(statistics, 0);
    each = static_cast<Real>(grouped() ? c.c / c.groups * c.pixels : c.n * c.pixels);
    if (c.n == 0) return;
    for_elements([&](size_t i, size_t, size_t s) { mean[s] += static_cast<Real>(x[i]) / each; });
    for_elements([&](size_t i, size_t, size_t s) {
      const Real distance = static_cast<Real>(x[i]) - mean[s];
      variance[s] += distance * distance / each;
    });
    if (c.op == NormOp::kBatchInference)  // any others
      for (size_t s = 0; s < statistics; ++s)
        mean[s] = static_cast<C>(draw.normal()), variance[s] = static_cast<C>(std::fabs(draw.normal()));
    for (size_t s = 0; s < statistics; ++s) inverse[s] = 1 / std::sqrt(variance[s] + static_cast<Real>(c.eps));
  }
  Bytes given(const Reals& values) const {
    if (grouped()) return bytes_of(std::vector<double>(values.begin(), values.end()));
    return bytes_of(std::vector<C>(values.begin(), values.end()));
  }

  std::vector<C> softmax_of(const std::vector<C>& from) const {
    const Wanted wanted = softmax_wanted(from);
    return rounded(device.machine, dtype, std::vector<C>(wanted.values.begin(), wanted.values.end()));
  }
  Wanted softmax_wanted(const std::vector<C>& from) const {
    Wanted wanted(c.n * c.c);
    for (size_t row = 0; row < from.size(); row += static_cast<size_t>(c.c)) {
      const size_t end = row + static_cast<size_t>(c.c);
      const Real most =
          *std::max_element(from.begin() + static_cast<int64_t>(row), from.begin() + static_cast<int64_t>(end));
      Real sum = 0;
      for (size_t i = row; i < end; ++i) sum += std::exp(static_cast<Real>(from[i]) - most);
      for (size_t i = row; i < end; ++i) {
        const Real shifted = static_cast<Real>(from[i]) - most;
        wanted.values[i] = c.logarithm ? shifted - std::log(sum) : std::exp(shifted) / sum;
        wanted.sizes[i] = c.logarithm ? 1 + std::fabs(shifted) : wanted.values[i] * (1 + std::fabs(shifted));
      }
    }
    return wanted;
  }

  bool compare(const Bytes* results) {
    const std::vector<C> to = decoded<C>(device.machine, dtype, results[0]);
    const std::vector<C> dgamma = typed<C>(results[1]), dbeta = typed<C>(results[2]);
    switch (c.op) {
      case NormOp::kSoftmax:
        return close("y", to, softmax_wanted(x), dtype);
      case NormOp::kSoftmaxBackward:
        return close("dx", to, softmax_gradient(), dtype);
      case NormOp::kChannelSum: {
        Wanted sum(c.c);
        for_elements([&](size_t i, size_t channel, size_t) { add(&sum, channel, x[i]); });
        return close("sums", dgamma, sum, computed());
      }
      case NormOp::kBatchBackward:
      case NormOp::kGroupBackward:
        return compare_gradients(to, dgamma, dbeta);
      default:
        return close("y", to, normalised(), dtype) && compare_statistics(results[3], results[4]);
    }
  }

  // What a mean costs that is rounded to the type that is computed with: groups of float have one of double.
  Real blur(size_t s) const {
    const Real digits = dtype == DType::kFloat64 ? 1 : grouped() ? 0 : Real(1) / 16;
    return 1 + std::fabs(mean[s] * inverse[s]) * digits;
  }

  static void add(Wanted* to, size_t at, Real value) { to->values[at] += value, to->sizes[at] += std::fabs(value); }

  Wanted normalised() const {
    Wanted wanted(c.n * c.c * c.pixels);
    for_elements([&](size_t i, size_t channel, size_t s) {
      const Real h = (static_cast<Real>(x[i]) - mean[s]) * inverse[s], scale = static_cast<Real>(gamma[channel]);
      wanted.values[i] = scale * h + static_cast<Real>(beta[channel]);
      wanted.sizes[i] = std::fabs(scale) * (std::fabs(h) + blur(s)) + std::fabs(static_cast<Real>(beta[channel]));
    });
    return wanted;
  }

  bool compare_statistics(const Bytes& means, const Bytes& others) {
    if (c.op == NormOp::kBatchInference) return true;
    Wanted centre(static_cast<int64_t>(mean.size())), spread = centre;
    centre.values = mean, spread.values = grouped() ? inverse : variance;
    for (size_t s = 0; s < mean.size(); ++s) {
      const Real deviation = 1 / inverse[s];
      centre.sizes[s] = deviation * blur(s), spread.sizes[s] = spread.values[s];
    }
    if (!grouped())
      return close("mean", typed<C>(means), centre, computed()) &&
             close("variance", typed<C>(others), spread, computed());
    return close("mean", typed<double>(means), centre, computed()) &&
           close("inverse", typed<double>(others), spread, computed());
  }

  bool compare_gradients(const std::vector<C>& dx, const std::vector<C>& dgamma, const std::vector<C>& dbeta) {
    Wanted of_gamma(c.c), of_beta(c.c), of_x(c.n * c.c * c.pixels);
    Wanted sum(static_cast<int64_t>(mean.size())), product = sum;
    const auto normal = [&](size_t i, size_t s) { return (static_cast<Real>(x[i]) - mean[s]) * inverse[s]; };
    for_elements([&](size_t i, size_t channel, size_t s) {
      const Real g = static_cast<Real>(dy[i]), weighted = g * static_cast<Real>(gamma[channel]), h = normal(i, s);
      add(&of_beta, channel, g), add(&of_gamma, channel, g * h), add(&sum, s, weighted), add(&product, s, weighted * h);
      of_gamma.sizes[channel] += std::fabs(g) * blur(s), product.sizes[s] += std::fabs(weighted) * blur(s);
    });
    for_elements([&](size_t i, size_t channel, size_t s) {
      const Real g = static_cast<Real>(dy[i]) * static_cast<Real>(gamma[channel]), h = normal(i, s);
      of_x.values[i] = inverse[s] * (g - sum.values[s] / each - h * product.values[s] / each);
      of_x.sizes[i] =
          inverse[s] * (std::fabs(g) + sum.sizes[s] / each + (std::fabs(h) + blur(s)) * product.sizes[s] / each);
    });
    return close("dx", dx, of_x, dtype) && close("dgamma", dgamma, of_gamma, computed()) &&
           close("dbeta", dbeta, of_beta, computed());
  }

  Wanted softmax_gradient() const {
    Wanted wanted(c.n * c.c);
    for (size_t row = 0; row < y.size(); row += static_cast<size_t>(c.c)) {
      Real sum = 0, size = 0;
      for (size_t i = row; i < row + static_cast<size_t>(c.c); ++i) {
        const Real term = static_cast<Real>(dy[i]) * (c.logarithm ? 1 : static_cast<Real>(y[i]));
        sum += term, size += std::fabs(term);
      }
      for (size_t i = row; i < row + static_cast<size_t>(c.c); ++i) {
        const Real g = static_cast<Real>(dy[i]), v = static_cast<Real>(y[i]);
        wanted.values[i] = c.logarithm ? g - std::exp(v) * sum : v * (g - sum);
        wanted.sizes[i] =
            c.logarithm ? std::fabs(g) + std::exp(v) * size * (1 + std::fabs(v)) : v * (std::fabs(g) + size);
      }
    }
    return wanted;
  }

  template <class R>
  bool close(const char* what, const std::vector<R>& got, const Wanted& wanted, DType type) {
    if (got.size() != wanted.values.size()) return fail("the size", 0);
    for (size_t i = 0; i < got.size(); ++i) {
      const double value = static_cast<double>(wanted.values[i]);
      const double bound = 16 * epsilon_of(dtype) * static_cast<double>(wanted.sizes[i]) + half_unit(type, value) +
                           static_cast<double>(std::numeric_limits<C>::min());
      if (is_near(static_cast<double>(got[i]), value, bound)) continue;
      printf("got %.9g, expected %.9g, bound %.3g: ", static_cast<double>(got[i]), value, bound);
      return fail(what, i);
    }
    return true;
  }

  bool fail(const char* what, size_t at) const {
    printf("FAILED %s at %zu: normalisation %d of %s, n%lld c%lld pixels%lld groups%lld last%d log%d %s %s\n", what, at,
           static_cast<int>(c.op), name_of(dtype), static_cast<long long>(c.n), static_cast<long long>(c.c),
           static_cast<long long>(c.pixels), static_cast<long long>(c.groups), c.channels_last, c.logarithm, text,
           device.backend->last_error());
    return false;
  }

  const Device& device;
  Draw& draw;
  const DType dtype;
  NormContext c{};
  char text[kTextCapacity] = "";
  std::vector<C> x, dy, gamma, beta, y;
  Reals mean, variance, inverse;
  Real each = 1;
};

}  // namespace

bool check_norm(const Device& device, Draw& draw) {
  const DType dtype = static_cast<DType>(draw(0, 3));
  return dtype == DType::kFloat64 ? Check<double>(device, draw, dtype).run() : Check<float>(device, draw, dtype).run();
}

}  // namespace fastconv::check
