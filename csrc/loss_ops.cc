// SPDX-License-Identifier: Apache-2.0
#include "loss_ops.h"

#include "machine.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {

template <class T>
void softmax(const Machine& machine, int64_t rows, int64_t columns, bool log, const T* x, T* y) {
  if (columns == 0) return;
  const auto& kernels = kernels_of<T>(*machine.kernels->loss);
  for_chunks(machine, rows, 2 * columns * static_cast<int64_t>(sizeof(T)),
             [&](int64_t i, int64_t n) { kernels.softmax(n, columns, log, x + i * columns, y + i * columns); });
}

template <class T>
void softmax_backward(const Machine& machine, int64_t rows, int64_t columns, bool log, const T* dy, const T* y, T* dx) {
  if (columns == 0) return;
  const auto& kernels = kernels_of<T>(*machine.kernels->loss);
  for_chunks(machine, rows, 3 * columns * static_cast<int64_t>(sizeof(T)), [&](int64_t i, int64_t n) {
    kernels.softmax_backward(n, columns, log, dy + i * columns, y + i * columns, dx + i * columns);
  });
}

template <class T>
void cross_entropy(const Machine& machine, const EntropyOptions<T>& options, int64_t rows, int64_t columns, const T* x,
                   const int64_t* labels, T* p, T* loss) {
  if (columns == 0) return;
  const auto& kernels = kernels_of<T>(*machine.kernels->loss);
  for_chunks(machine, rows, 2 * columns * static_cast<int64_t>(sizeof(T)), [&](int64_t i, int64_t n) {
    kernels.cross_entropy(options, n, columns, x + i * columns, labels + i, p + i * columns, loss + i);
  });
}

template <class T>
void cross_entropy_backward(const Machine& machine, const EntropyOptions<T>& options, int64_t rows, int64_t columns,
                            const T* dloss, const T* p, const int64_t* labels, T* dx) {
  if (columns == 0) return;
  const auto& kernels = kernels_of<T>(*machine.kernels->loss);
  for_chunks(machine, rows, 2 * columns * static_cast<int64_t>(sizeof(T)), [&](int64_t i, int64_t n) {
    kernels.cross_entropy_backward(options, n, columns, dloss + i, p + i * columns, labels + i, dx + i * columns);
  });
}

template <class T>
void pair_loss(const Machine& machine, PairLoss kind, double alpha, int64_t count, const T* x, const T* t, T* loss) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pair_loss);
  for_chunks(machine, count, 3 * sizeof(T), [&](int64_t i, int64_t n) {
    kernels.loss(static_cast<int32_t>(kind), static_cast<T>(alpha), n, x + i, t + i, loss + i);
  });
}

namespace {

double sum_pairwise(const double* values, int64_t count) {
  if (count == 1) return values[0];
  const int64_t half = count / 2;
  return sum_pairwise(values, half) + sum_pairwise(values + half, count - half);
}

}  // namespace

template <class T>
bool pair_loss_sum(const Machine& machine, PairLoss kind, double alpha, int64_t count, const T* x, const T* t,
                   double* sum) {
  *sum = 0;
  if (count == 0) return true;
  const auto& kernels = kernels_of<T>(*machine.kernels->pair_loss);
  const int64_t bytes = 2 * sizeof(T), chunk = kItemBytes / bytes, chunks = ceil_div(count, chunk);
  const Workspace memory(chunks * static_cast<int64_t>(sizeof(double)));
  if (memory.failed()) return false;
  double* partial = static_cast<double*>(memory.data());
  for_chunks(machine, count, bytes, [&](int64_t i, int64_t n) {
    partial[i / chunk] = kernels.sum(static_cast<int32_t>(kind), static_cast<T>(alpha), n, x + i, t + i);
  });
  *sum = sum_pairwise(partial, chunks);
  return true;
}

template <class T>
void pair_loss_backward(const Machine& machine, PairLoss kind, double alpha, int64_t count, const T* dloss, bool one,
                        const T* x, const T* t, T* dx) {
  const auto& kernels = kernels_of<T>(*machine.kernels->pair_loss);
  for_chunks(machine, count, 4 * sizeof(T), [&](int64_t i, int64_t n) {
    kernels.backward(static_cast<int32_t>(kind), static_cast<T>(alpha), n, dloss + (one ? 0 : i), one, x + i, t + i,
                     dx + i);
  });
}

#define FC_INSTANTIATE(T)                                                                                              \
  template void softmax<T>(const Machine&, int64_t, int64_t, bool, const T*, T*);                                      \
  template void softmax_backward<T>(const Machine&, int64_t, int64_t, bool, const T*, const T*, T*);                   \
  template void cross_entropy<T>(const Machine&, const EntropyOptions<T>&, int64_t, int64_t, const T*, const int64_t*, \
                                 T*, T*);                                                                              \
  template void cross_entropy_backward<T>(const Machine&, const EntropyOptions<T>&, int64_t, int64_t, const T*,        \
                                          const T*, const int64_t*, T*);                                               \
  template void pair_loss<T>(const Machine&, PairLoss, double, int64_t, const T*, const T*, T*);                       \
  template bool pair_loss_sum<T>(const Machine&, PairLoss, double, int64_t, const T*, const T*, double*);              \
  template void pair_loss_backward<T>(const Machine&, PairLoss, double, int64_t, const T*, bool, const T*, const T*,   \
                                      T*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
#undef FC_INSTANTIATE

}  // namespace fastconv
