// SPDX-License-Identifier: Apache-2.0
// Every output row is written by one item, in a fixed order of taps: no atomics, the same bits for any threads.
#include "resample.h"

#include "kernels/window_kernels.h"
#include "machine.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {

template <class T>
bool resample(const Machine& machine, const Taps& taps, int64_t outer, int64_t inner, const T* x, T* y) {
  if (outer * inner * taps.outputs == 0) return true;
  const auto& kernels = kernels_of<T>(*machine.kernels->resample);
  const int64_t count = taps.start[taps.outputs];
  const Workspace memory(count * static_cast<int64_t>(sizeof(T)));
  if (memory.failed()) return false;
  T* weights = static_cast<T*>(memory.data());
  std::transform(taps.weights, taps.weights + count, weights, [](double w) { return static_cast<T>(w); });
  if (inner == 1) {
    for_chunks(machine, outer, (taps.inputs + taps.outputs) * sizeof(T), [&](int64_t first, int64_t rows) {
      for (int64_t row = first; row < first + rows; ++row)
        kernels.gather(taps.outputs, taps.first, taps.start, weights, x + row * taps.inputs, y + row * taps.outputs);
    });
    return true;
  }
  for_chunks(machine, outer * taps.outputs, 3 * inner * sizeof(T), [&](int64_t first, int64_t rows) {
    for (int64_t row = first; row < first + rows; ++row) {
      const int64_t o = row / taps.outputs, j = row % taps.outputs, from = taps.start[j];
      kernels.mix(inner, taps.start[j + 1] - from, weights + from, inner, x + (o * taps.inputs + taps.first[j]) * inner,
                  y + row * inner);
    }
  });
  return true;
}

template bool resample<float>(const Machine&, const Taps&, int64_t, int64_t, const float*, float*);
template bool resample<double>(const Machine&, const Taps&, int64_t, int64_t, const double*, double*);

}  // namespace fastconv
