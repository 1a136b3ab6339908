// SPDX-License-Identifier: Apache-2.0
#include "pointwise_ops.h"

#include <cmath>

#include "kernels/pointwise_kernels.h"
#include "machine.h"
#include "streaming.h"

namespace fastconv {

template <class T>
void activation_forward(const Machine& machine, Activation kind, double alpha, int64_t count, const T* x, T* y) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pointwise);
  for_chunks(machine, count, 2 * sizeof(T), [&](int64_t i, int64_t n) {
    kernels.activate(static_cast<int32_t>(kind), static_cast<T>(alpha), n, x + i, y + i);
  });
}

template <class T>
void activation_backward(const Machine& machine, Activation kind, double alpha, int64_t count, const T* dy,
                         const T* saved, T* dx) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pointwise);
  for_chunks(machine, count, 3 * sizeof(T), [&](int64_t i, int64_t n) {
    kernels.activate_backward(static_cast<int32_t>(kind), static_cast<T>(alpha), n, dy + i, saved + i, dx + i);
  });
}

namespace {

// Calls work(first, count, w's index, one slope): runs of elements that share a slope, or that have one each.
template <class T, class Work>
void for_slopes(const Machine& machine, int64_t n, int64_t channels, int64_t pixels, const Work& work) {
  if (channels == 1)
    return for_chunks(machine, n * pixels, 4 * sizeof(T), [&](int64_t i, int64_t count) { work(i, count, 0, true); });
  const bool by_plane = pixels > 1;
  const int64_t rows = by_plane ? n * channels : n, length = by_plane ? pixels : channels;
  for_chunks(machine, rows, 4 * length * static_cast<int64_t>(sizeof(T)), [&](int64_t first, int64_t count) {
    for (int64_t r = first; r < first + count; ++r) work(r * length, length, by_plane ? r % channels : 0, by_plane);
  });
}

}  // namespace

template <class T>
void prelu(const Machine& machine, int64_t n, int64_t channels, int64_t pixels, const T* x, const T* w, T* y) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pointwise);
  for_slopes<T>(machine, n, channels, pixels, [&](int64_t i, int64_t count, int64_t slope, bool one_slope) {
    kernels.prelu(count, x + i, w + slope, one_slope, y + i);
  });
}

template <class T>
void prelu_backward(const Machine& machine, int64_t n, int64_t channels, int64_t pixels, const T* dy, const T* x,
                    const T* w, T* dx, T* below) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pointwise);
  for_slopes<T>(machine, n, channels, pixels, [&](int64_t i, int64_t count, int64_t slope, bool one_slope) {
    kernels.prelu_backward(count, dy + i, x + i, w + slope, one_slope, dx + i, below + i);
  });
}

template <class T>
void add(const Machine& machine, int64_t count, const T* a, const T* b, T* sum) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pointwise);
  for_chunks(machine, count, 3 * sizeof(T), [&](int64_t i, int64_t n) { kernels.add(n, a + i, b + i, sum + i); });
}

template <class T>
void scale_mask(const Machine& machine, int64_t count, const T* x, const uint8_t* mask, double scale, T* y) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pointwise);
  for_chunks(machine, count, 2 * sizeof(T) + 1,
             [&](int64_t i, int64_t n) { kernels.scale_mask(n, x + i, mask + i, static_cast<T>(scale), y + i); });
}

template <class T>
void sgd_step(const Machine& machine, const SgdOptions& options, int64_t count, T* w, const T* g, T* velocity) {
  const auto& kernels = kernels_of<T>(*machine.kernels->optim);
  const SgdStep<T> step = {static_cast<T>(options.lr), static_cast<T>(options.momentum),
                           static_cast<T>(options.weight_decay), static_cast<T>(1 - options.dampening),
                           options.nesterov};
  for_chunks(machine, count, 5 * sizeof(T),
             [&](int64_t i, int64_t n) { kernels.sgd(step, n, g + i, w + i, velocity ? velocity + i : nullptr); });
}

template <class T>
void adam_step(const Machine& machine, const AdamOptions& o, int64_t count, T* w, const T* g, T* m, T* v, T* highest) {
  const auto& kernels = kernels_of<T>(*machine.kernels->optim);
  const double exponent = static_cast<double>(o.step);
  AdamStep<T> step;
  step.lr = static_cast<T>(o.lr / (1 - std::pow(o.beta1, exponent)));
  step.beta2 = static_cast<T>(o.beta2);
  step.rest1 = static_cast<T>(1 - o.beta1);
  step.rest2 = static_cast<T>(1 - o.beta2);
  step.root_scale = static_cast<T>(1 / std::sqrt(1 - std::pow(o.beta2, exponent)));
  step.eps = static_cast<T>(o.eps);
  step.l2 = static_cast<T>(o.decoupled ? 0 : o.weight_decay);
  step.decay = static_cast<T>(o.decoupled ? 1 - o.lr * o.weight_decay : 1);
  for_chunks(machine, count, 7 * sizeof(T), [&](int64_t i, int64_t n) {
    kernels.adam(step, n, g + i, w + i, m + i, v + i, highest ? highest + i : nullptr);
  });
}

template <class T>
void rmsprop_step(const Machine& machine, const RmspropOptions& o, int64_t count, T* w, const T* g, T* square, T* mean,
                  T* velocity) {
  const auto& kernels = kernels_of<T>(*machine.kernels->optim);
  const RmspropStep<T> step = {static_cast<T>(o.lr),  static_cast<T>(o.alpha),        static_cast<T>(1 - o.alpha),
                               static_cast<T>(o.eps), static_cast<T>(o.weight_decay), static_cast<T>(o.momentum)};
  for_chunks(machine, count, 7 * sizeof(T), [&](int64_t i, int64_t n) {
    kernels.rmsprop(step, n, g + i, w + i, square + i, mean ? mean + i : nullptr, velocity ? velocity + i : nullptr);
  });
}

#define FC_INSTANTIATE(T)                                                                                           \
  template void activation_forward<T>(const Machine&, Activation, double, int64_t, const T*, T*);                   \
  template void activation_backward<T>(const Machine&, Activation, double, int64_t, const T*, const T*, T*);        \
  template void prelu<T>(const Machine&, int64_t, int64_t, int64_t, const T*, const T*, T*);                        \
  template void prelu_backward<T>(const Machine&, int64_t, int64_t, int64_t, const T*, const T*, const T*, T*, T*); \
  template void add<T>(const Machine&, int64_t, const T*, const T*, T*);                                            \
  template void scale_mask<T>(const Machine&, int64_t, const T*, const uint8_t*, double, T*);                       \
  template void sgd_step<T>(const Machine&, const SgdOptions&, int64_t, T*, const T*, T*);                          \
  template void adam_step<T>(const Machine&, const AdamOptions&, int64_t, T*, const T*, T*, T*, T*);                \
  template void rmsprop_step<T>(const Machine&, const RmspropOptions&, int64_t, T*, const T*, T*, T*, T*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
#undef FC_INSTANTIATE

}  // namespace fastconv
