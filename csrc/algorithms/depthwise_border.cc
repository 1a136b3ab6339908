// SPDX-License-Identifier: Apache-2.0
// What padding that shows cells of x (reflect, replicate, circular) adds to depthwise results, after those of zero
// padding were written. The terms of csrc/border.h, w[tap] y[source] of x[target], serve all passes: forward adds
// w[tap] x[target] to y[source], backward-filter x[target] y[source] to w[tap].
#include <vector>

#include "../border.h"
#include "../parallel.h"
#include "../phases.h"
#include "depthwise.h"

namespace fastconv {
namespace {

constexpr int64_t kBlock = 16;  // channels of an item: it has all that padding adds to them, because pixels overlap

// to[i] += factor * from[i], the elements `step` apart.
template <class T>
void add_scaled(int64_t count, T factor, const T* __restrict from, int64_t from_step, T* __restrict to,
                int64_t to_step) {
  if (from_step == 1 && to_step == 1)
    for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
  else
    for (int64_t i = 0; i < count; ++i) to[i * to_step] += factor * from[i * from_step];
}

template <class T>
T product(int64_t count, const T* a, int64_t a_step, const T* b, int64_t b_step) {
  T sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += a[i * a_step] * b[i * b_step];
  return sum;
}

template <class T>
class Border {
 public:
  Border(const ConvProblem& problem, const RunContext& context)
      : p(problem),
        r(context),
        x_layout{p.x_layout, r.x_batch_pitch, r.x_channel_pitch},
        y_layout{p.y_layout, r.y_batch_pitch, r.y_channel_pitch},
        multiplier(p.k / p.groups),
        all(taps(p)) {
    each_border_run(p, 0, x_plane(p), [&](const BorderRun& run) { runs.push_back(run); });
  }

  // `turned`: the weights as [tap][pitch] of channels, or null.
  void run(const T* turned, int64_t pitch) const {
    const int64_t blocks = ceil_div(p.c, kBlock);
    const bool planes = x_layout.pixel_step() == 1 && y_layout.pixel_step() == 1;
    parallel_for(r.parallel, p.n * blocks, [&](int64_t item, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      const int64_t n = item / blocks, first = item % blocks * kBlock, last = std::min(p.c, first + kBlock);
      if (planes) {
        for (int64_t c = first; c < last; ++c)
          for (const BorderRun& run : runs) add_channel(run, n, c);
        return;
      }
      for (const BorderRun& run : runs)
        if (turned)
          add_channels(run, n, first, last, turned + run.tap * pitch);
        else
          for (int64_t c = first; c < last; ++c) add_channel(run, n, c);
    });
  }

  void run_filter() const {
    const int64_t blocks = ceil_div(p.k, kBlock);
    parallel_for(r.parallel, blocks, [&](int64_t block, int) {
      const PhaseScope multiplying(r.phases, Phase::kProducts);
      for (int64_t k = block * kBlock; k < std::min(p.k, (block + 1) * kBlock); ++k)
        for (int64_t n = 0; n < p.n; ++n)
          for (const BorderRun& run : runs)
            static_cast<T*>(r.w)[k * all + run.tap] +=
                product(run.count, x_at(n, k / multiplier, run.target), run.target_step * x_layout.pixel_step(),
                        y_at(n, k, run.source), run.source_step * y_layout.pixel_step());
    });
  }

 private:
  T* x_at(int64_t n, int64_t c, int64_t pixel) const {
    return static_cast<T*>(r.x) + n * x_layout.batch_pitch + c * x_layout.channel_step() +
           pixel * x_layout.pixel_step();
  }
  T* y_at(int64_t n, int64_t k, int64_t pixel) const {
    return static_cast<T*>(r.y) + n * y_layout.batch_pitch + k * y_layout.channel_step() +
           pixel * y_layout.pixel_step();
  }

  void add_channel(const BorderRun& run, int64_t n, int64_t c) const {
    const int64_t x_step = run.target_step * x_layout.pixel_step(), y_step = run.source_step * y_layout.pixel_step();
    T* x = x_at(n, c, run.target);
    for (int64_t k = c * multiplier; k < (c + 1) * multiplier; ++k) {
      T* y = y_at(n, k, run.source);
      const T factor = static_cast<const T*>(r.w)[k * all + run.tap];
      if (p.pass == Pass::kForward)
        add_scaled(run.count, factor, x, x_step, y, y_step);
      else
        add_scaled(run.count, factor, y, y_step, x, x_step);
    }
  }

  // Channels side by side, one of y for each of x.
  void add_channels(const BorderRun& run, int64_t n, int64_t first, int64_t last, const T* factor) const {
    for (int64_t i = 0; i < run.count; ++i) {
      T* x = x_at(n, 0, run.target + i * run.target_step);
      T* y = y_at(n, 0, run.source + i * run.source_step);
      const bool forward = p.pass == Pass::kForward;
      const T* __restrict from = forward ? x : y;
      T* __restrict to = forward ? y : x;
      for (int64_t c = first; c < last; ++c) to[c] += factor[c] * from[c];
    }
  }

  const ConvProblem& p;
  const RunContext& r;
  const ImageLayout x_layout, y_layout;
  const int64_t multiplier, all;
  std::vector<BorderRun> runs;
};

}  // namespace

template <class T>
void depthwise_border_run(const ConvProblem& p, const RunContext& r, const T* turned, int64_t turned_pitch) {
  const Border<T> border(p, r);
  if (p.pass == Pass::kBackwardFilter)
    border.run_filter();
  else
    border.run(turned, turned_pitch);
}
template void depthwise_border_run<float>(const ConvProblem&, const RunContext&, const float*, int64_t);
template void depthwise_border_run<double>(const ConvProblem&, const RunContext&, const double*, int64_t);

}  // namespace fastconv
