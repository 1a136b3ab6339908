// SPDX-License-Identifier: Apache-2.0
// Pooling without Python, for the sanitizers: drawn problems of every kind in both layouts and dtypes, on every
// instruction set, with 1, 2 and 16 threads. Inputs are small integers: extremes, their positions, sums and what is
// scattered must equal a plain loop over the definition, means and norms (also of numbers whose sum is too large) nearly,
// and everything must have the same bits for any number of threads. Tensors end where memory does.
#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <vector>

#include "fenced.h"
#include "machine.h"
#include "parallel.h"
#include "pool.h"
#include "pool_positions.h"

namespace {

using namespace fastconv;

uint64_t state = 20261125;
int64_t draw(int64_t low, int64_t high) {  // both included
  state = state * 6364136223846793005u + 1442695040888963407u;
  return low + static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(high - low + 1));
}

template <class T>
std::vector<T> integers(int64_t count, T scale = 1) {
  std::vector<T> values(static_cast<size_t>(count));
  for (T& value : values) value = static_cast<T>(draw(-3, 3)) * scale;
  return values;
}

// What is drawn besides the problem.
struct Variant {
  bool huge;    // of a mean or norm: numbers three of which are too large to be summed
  double norm;  // p
};

constexpr int kProblems = 60, kLarge = 6, kUsual = 6, kPlanes = 4;

// The windows of most networks, over more than one vector of columns; then lines of several segments. There are more
// channels than kernels take at once.
PoolProblem usual_problem(int number) {
  constexpr int64_t window[kUsual] = {2, 3, 3, 3, 3, 4}, stride[kUsual] = {2, 2, 2, 1, 2, 1};
  constexpr int64_t pad[kUsual] = {0, 0, 1, 1, 0, 2};
  PoolProblem p{};
  p.spatial_rank = number < kPlanes ? 2 : 1, p.n = 1, p.c = 9;
  for (int i = 0; i < kMaxSpatial; ++i) {
    p.size[i] = p.window[i] = p.stride[i] = p.dilation[i] = 1;
    if (i < kMaxSpatial - p.spatial_rank) continue;
    p.size[i] = number < kPlanes ? 23 + 14 * i : 4100, p.window[i] = window[number], p.stride[i] = stride[number];
    p.pad_begin[i] = p.pad_end[i] = pad[number];
  }
  return p;
}

// The first ones are large. Two are one window over all: over a plane of whole vectors, and over rows that are cut into
// segments.
PoolProblem draw_problem(int number) {
  const bool vectors = number == 0, large = number < kLarge && !vectors, whole = number < 2;
  PoolProblem p{};
  p.spatial_rank = large || vectors ? 2 : static_cast<int32_t>(draw(1, 3));
  p.adaptive = whole || draw(0, 3) == 0;
  p.ceil_mode = static_cast<int32_t>(draw(0, 1));
  p.n = draw(1, 2), p.c = draw(1, 37);
  for (int i = 0; i < kMaxSpatial; ++i) {
    p.size[i] = p.window[i] = p.stride[i] = p.dilation[i] = 1;
    p.output[i] = p.adaptive;
    if (i < kMaxSpatial - p.spatial_rank) continue;
    p.size[i] = vectors ? 8 * i : large ? draw(90, 120) : draw(1, 9);
    if (large && i == 2 && (whole || draw(0, 2) == 0)) p.size[i] = whole ? 2300 : draw(2040, 2300), p.c = 1;
    if (p.adaptive) {
      p.output[i] = whole ? 1 : draw(1, 11);
      continue;
    }
    p.window[i] = draw(1, 4), p.stride[i] = draw(1, 3), p.dilation[i] = draw(1, 2);
    p.pad_begin[i] = draw(0, (p.window[i] - 1) * p.dilation[i]);
    p.pad_end[i] = draw(0, (p.window[i] - 1) * p.dilation[i]);
  }
  return p;
}

// Calls visit(position in the plane) for the taps of an output, ascending.
template <class Visit>
void for_taps(const PoolProblem& p, int64_t output, const Visit& visit) {
  int64_t o[kMaxSpatial], begin[kMaxSpatial], count[kMaxSpatial];
  for (int i = kMaxSpatial - 1; i >= 0; --i) {
    const int64_t outputs = output_size(p, i);
    o[i] = output % outputs, output /= outputs;
    begin[i] = p.adaptive ? o[i] * p.size[i] / outputs : o[i] * p.stride[i] - p.pad_begin[i];
    count[i] = p.adaptive ? ((o[i] + 1) * p.size[i] + outputs - 1) / outputs - begin[i] : p.window[i];
  }
  const auto at = [&](int i, int64_t tap) { return begin[i] + tap * p.dilation[i]; };
  const auto inside = [&](int i, int64_t tap) { return at(i, tap) >= 0 && at(i, tap) < p.size[i]; };
  for (int64_t d = 0; d < count[0]; ++d)
    for (int64_t h = 0; h < count[1]; ++h)
      for (int64_t w = 0; w < count[2]; ++w)
        if (inside(0, d) && inside(1, h) && inside(2, w))
          visit((at(0, d) * p.size[1] + at(1, h)) * p.size[2] + at(2, w));
}

template <class T>
struct Results {
  std::vector<T> y, dx, scattered, gathered, by_offsets;
  std::vector<int64_t> indices, last, of_offsets;

  bool operator==(const Results& other) const {
    const auto same = [](const auto& a, const auto& b) {
      return a.size() == b.size() && (a.empty() || memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
    };
    return same(y, other.y) && same(dx, other.dx) && same(scattered, other.scattered) &&
           same(gathered, other.gathered) && same(indices, other.indices) && same(last, other.last) &&
           same(by_offsets, other.by_offsets) && same(of_offsets, other.of_offsets);
  }
};

template <class T>
class Check {
 public:
  Check(const PoolProblem& problem, const Variant& variant, const Machine& machine)
      : p(problem), v(variant), m(machine) {
    x = integers<T>(p.n * p.c * x_plane(p), scale);
    dy = integers<T>(p.n * p.c * y_plane(p), scale);
  }

  int run() {
    const Results<T> first = compute(1);
    int failures = failed || !is_right(first);
    for (int threads : {2, 16}) failures += !(compute(threads) == first) || failed;
    if (failures)
      printf("FAILED %s %s %s adaptive=%d size=%" PRId64 "x%" PRId64 "x%" PRId64 "\n", name_of(p.kind), m.kernels->isa,
             name_of(p.layout), p.adaptive, p.size[0], p.size[1], p.size[2]);
    return failures;
  }

 private:
  bool extreme() const { return p.kind == PoolKind::kMax || p.kind == PoolKind::kMin; }

  Results<T> compute(int threads) {
    Results<T> r;
    char text[kTextCapacity];
    Options options;
    options.machine = &m;
    options.threads = threads;
    const int64_t plane = x_plane(p);
    Fenced<T> fenced_x(x), fenced_dy(dy), y(dy.size()), dx(x.size());
    Fenced<int64_t> indices(extreme() ? dy.size() : 0);
    PoolBuffers b{};
    b.x = fenced_x.data(), b.y = y.data(), b.dy = fenced_dy.data(), b.norm = v.norm;
    b.x_batch_pitch = plane * p.c, b.x_channel_pitch = p.layout == Layout::kChannelsFirst ? plane : p.c;
    if (extreme()) b.indices = indices.data();
    PoolProblem call = p;
    failed = run_pool(call, options, b, text) != Failure::kNone;
    r.y = y.values(), r.indices = indices.values();
    call.pass = Pass::kBackwardData;
    b.indices = nullptr;
    if (!extreme()) {
      b.dx = dx.data();
      failed |= run_pool(call, options, b, text) != Failure::kNone;
      r.dx = dx.values();
      return r;
    }
    PositionProblem q = {p.layout, p.dtype, p.n, p.c, plane, y_plane(p), 0};
    r.last.resize(dy.size()), r.gathered.resize(dy.size()), r.scattered.resize(x.size());
    failed |= scatter_positions(q, options, dy.data(), r.indices.data(), r.scattered.data(), text) != Failure::kNone;
    failed |= last_positions(q, options, r.indices.data(), r.last.data(), text) != Failure::kNone;
    if (has_offsets(p)) failed |= !by_offsets(b, options, &r);
    q.least = -1;
    failed |= gather_positions(q, options, x.data(), r.last.data(), r.gathered.data(), text) != Failure::kNone;
    return r;
  }

  bool by_offsets(PoolBuffers b, const Options& options, Results<T>* r) const {
    char text[kTextCapacity];
    Fenced<uint8_t> offsets(dy.size());
    Fenced<T> y(dy.size()), dx(x.size());
    r->of_offsets.resize(dy.size());
    b.offsets = offsets.data(), b.y = y.data(), b.dx = dx.data();
    PoolProblem call = p;
    bool fine = run_pool(call, options, b, text) == Failure::kNone && y.values() == r->y;
    positions_of_offsets(p, options, offsets.data(), r->of_offsets.data());
    call.pass = Pass::kBackwardData;
    fine &= run_pool(call, options, b, text) == Failure::kNone;
    r->by_offsets = dx.values();
    return fine && r->of_offsets == r->indices && r->by_offsets == r->scattered;
  }

  int64_t place(int64_t n, int64_t c, int64_t pixel, int64_t pixels) const {
    return p.layout == Layout::kChannelsFirst ? (n * p.c + c) * pixels + pixel : (n * pixels + pixel) * p.c + c;
  }

  bool is_right(const Results<T>& r) const {
    if (!extreme() && !(p.kind == PoolKind::kAverage && p.divisor)) return is_near(r);
    const int64_t pixels = x_plane(p), outputs = y_plane(p);
    std::vector<T> gradient(x.size(), T(0));
    bool right = true;
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t c = 0; c < p.c; ++c)
        for (int64_t o = 0; o < outputs; ++o) {
          T sum = 0;
          int64_t best = -1;
          const auto value = [&](int64_t pixel) { return x[static_cast<size_t>(place(n, c, pixel, pixels))]; };
          const size_t at = static_cast<size_t>(place(n, c, o, outputs));
          for_taps(p, o, [&](int64_t pixel) {
            sum += value(pixel);
            if (best < 0 || (p.kind == PoolKind::kMin ? value(pixel) < value(best) : value(pixel) > value(best)))
              best = pixel;
            if (!extreme()) gradient[static_cast<size_t>(place(n, c, pixel, pixels))] += dy[at];
          });
          if (extreme()) {
            right &= r.indices[at] == best && r.y[at] == value(best);
            gradient[static_cast<size_t>(place(n, c, best, pixels))] += dy[at];
            right &= r.last[at] == -1 ? r.gathered[at] == 0 : r.last[at] == best && r.gathered[at] == value(best);
          } else {
            right &= r.y[at] == sum;
          }
        }
    return right && gradient == (extreme() ? r.scattered : r.dx);
  }

  // Means and norms, in long double.
  bool is_near(const Results<T>& r) const {
    typedef long double Wide;
    const int64_t pixels = x_plane(p), outputs = y_plane(p);
    const bool mean = p.kind == PoolKind::kAverage, is_signed = p.kind == PoolKind::kSignedLp;
    const Wide power = mean ? 1 : v.norm, eps = 64 * Wide(std::numeric_limits<T>::epsilon());
    const Wide largest = std::numeric_limits<T>::max();
    std::vector<Wide> gradient(x.size(), 0), size(x.size(), 0);
    bool near = true;
    for (int64_t n = 0; n < p.n; ++n)
      for (int64_t c = 0; c < p.c; ++c)
        for (int64_t o = 0; o < outputs; ++o) {
          const size_t at = static_cast<size_t>(place(n, c, o, outputs));
          const auto cell = [&](int64_t pixel) { return static_cast<size_t>(place(n, c, pixel, pixels)); };
          Wide sum = 0, count = 0;
          for_taps(p, o, [&](int64_t pixel) {
            const Wide value = x[cell(pixel)], term = std::pow(std::abs(value), power);
            sum += value < 0 && (mean || is_signed) ? -term : term;
            count += 1;
          });
          Wide root = mean ? sum / count : std::copysign(std::pow(std::abs(sum), 1 / power), sum);
          // A root of what cancels has no digits: such sums of integers are 0 or at least 1.
          const Wide margin = eps * std::max(std::abs(root), is_signed && power != 1 ? Wide(scale) : 0);
          if (std::isinf(r.y[at]) && std::abs(root) + margin >= largest)
            root = std::copysign(Wide(r.y[at]), root);  // the gradient goes by it
          near &= r.y[at] == root || std::abs(r.y[at] - root) <= margin;
          for_taps(p, o, [&](int64_t pixel) {
            const Wide value = x[cell(pixel)];
            Wide slope = mean ? 1 / count : root == 0 && power > 1 ? 0 : std::pow(std::abs(value / root), power - 1);
            if (power == 1) slope = mean ? slope : 1;
            if (!mean && !is_signed && value <= 0) slope = value < 0 ? -slope : 0;
            gradient[cell(pixel)] += slope * dy[at];
            size[cell(pixel)] += std::abs(slope * dy[at]);
          });
        }
    for (size_t i = 0; i < x.size(); ++i) {
      const bool overflows = std::isinf(r.dx[i]) && std::abs(gradient[i]) + eps * size[i] >= largest;
      near &= overflows || std::abs(r.dx[i] - gradient[i]) <= eps * size[i];
    }
    return near;
  }

  const PoolProblem p;
  const Variant v;
  const Machine& m;
  std::vector<T> x, dy;
  const T scale = v.huge ? std::ldexp(T(1), std::numeric_limits<T>::max_exponent - 2) : T(1);
  bool failed = false;
};

}  // namespace

int main() {
  int failures = 0, problems = 0;
  int64_t runs = 0;
  while (problems < kProblems) {
    const int usual = problems - kLarge;
    PoolProblem p = usual >= 0 && usual < kUsual ? usual_problem(usual) : draw_problem(problems);
    char text[kTextCapacity];
    if (!validate(p, text)) continue;
    ++problems;
    for (PoolKind kind : {PoolKind::kMax, PoolKind::kMin, PoolKind::kAverage, PoolKind::kLp, PoolKind::kSignedLp})
      for (Layout layout : {Layout::kChannelsFirst, Layout::kChannelsLast})
        for (DType dtype : {DType::kFloat32, DType::kFloat64})
          for (int i = 0; i < usable_isa_count(); ++i, ++runs) {
            p.kind = kind, p.layout = layout, p.dtype = dtype;
            p.divisor = kind == PoolKind::kAverage && problems % 3 > 0;  // sums, which are exact
            const double norms[] = {1, 2, 2.5, 4};  // of a large window the squares alone have an exact sum
            const double norm = problems <= kLarge ? 2 : norms[problems % 4];
            const bool huge = kind == PoolKind::kAverage ? !p.divisor && problems % 2 > 0 : problems / 4 % 2 > 0;
            const Variant variant = {huge && kind != PoolKind::kMax && kind != PoolKind::kMin,
                                     kind == PoolKind::kSignedLp ? 1.0 + 2 * (problems % 2) : norm};
            failures += dtype == DType::kFloat32 ? Check<float>(p, variant, usable_machine(i)).run()
                                                 : Check<double>(p, variant, usable_machine(i)).run();
          }
  }
  printf("%d pooling problems, %" PRId64 " runs, %d failures\n", problems, runs, failures);
  return failures ? 1 : 0;
}
