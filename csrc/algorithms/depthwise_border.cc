// SPDX-License-Identifier: Apache-2.0
// Depthwise backward-data of padding that shows cells of x: what the padding adds to the gradient (csrc/border.h),
// after the gradient of zero padding was written. Channels first, plane by plane; else pixel by pixel.
#include <vector>

#include "../border.h"
#include "../parallel.h"
#include "depthwise.h"

namespace fastconv {
namespace {

constexpr int64_t kBlock = 16;  // channels of an item: it has all that padding adds to them, because pixels overlap

template <class T>
void add_row(int64_t count, T factor, const T* __restrict y, T* __restrict x) {
  for (int64_t i = 0; i < count; ++i) x[i] += factor * y[i];
}

}  // namespace

template <class T>
void depthwise_border_run(const ConvProblem& p, const RunContext& r, const T* turned, int64_t turned_pitch) {
  std::vector<BorderRun> runs;
  each_border_run(p, 0, x_plane(p), [&](const BorderRun& run) { runs.push_back(run); });
  const ImageLayout from{p.y_layout, r.y_batch_pitch, r.y_channel_pitch};
  const ImageLayout to{p.x_layout, r.x_batch_pitch, r.x_channel_pitch};
  const int64_t multiplier = p.k / p.groups, all = taps(p), blocks = ceil_div(p.c, kBlock);
  const bool planes = from.pixel_step() == 1 && to.pixel_step() == 1;
  parallel_for(r.parallel, p.n * blocks, [&](int64_t item, int) {
    const int64_t n = item / blocks, first = item % blocks * kBlock, last = std::min(p.c, first + kBlock);
    const T* y = static_cast<const T*>(r.y) + n * from.batch_pitch;
    T* x = static_cast<T*>(r.x) + n * to.batch_pitch;
    // One channel of x and one of y.
    const auto add = [&](const BorderRun& run, int64_t c, int64_t k) {
      const T factor = static_cast<const T*>(r.w)[k * all + run.tap];
      const T* source = y + k * from.channel_step() + run.source * from.pixel_step();
      T* target = x + c * to.channel_step() + run.target * to.pixel_step();
      const int64_t y_step = run.source_step * from.pixel_step(), x_step = run.target_step * to.pixel_step();
      if (x_step == 1 && y_step == 1) return add_row(run.count, factor, source, target);
      for (int64_t i = 0; i < run.count; ++i) target[i * x_step] += factor * source[i * y_step];
    };
    if (turned) {
      for (const BorderRun& run : runs)
        for (int64_t i = 0; i < run.count; ++i) {
          const T* source = y + (run.source + i * run.source_step) * from.channel_pitch;
          T* target = x + (run.target + i * run.target_step) * to.channel_pitch;
          const T* factor = turned + run.tap * turned_pitch;
          for (int64_t c = first; c < last; ++c) target[c] += factor[c] * source[c];
        }
    } else if (planes) {
      for (int64_t c = first; c < last; ++c)
        for (const BorderRun& run : runs)
          for (int64_t m = 0; m < multiplier; ++m) add(run, c, c * multiplier + m);
    } else {
      for (const BorderRun& run : runs)
        for (int64_t c = first; c < last; ++c)
          for (int64_t m = 0; m < multiplier; ++m) add(run, c, c * multiplier + m);
    }
  });
}
template void depthwise_border_run<float>(const ConvProblem&, const RunContext&, const float*, int64_t);
template void depthwise_border_run<double>(const ConvProblem&, const RunContext&, const double*, int64_t);

}  // namespace fastconv
