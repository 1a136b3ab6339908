// SPDX-License-Identifier: Apache-2.0
// Winograd's transforms of filters, a thread for each channel of each of them: G w G^T before the products, and w =
// G^T u G of the gradient. Backward-data reads y through the taps in reverse order.
#include "winograd.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kTaps = kWinogradFilter * kWinogradFilter;

template <class Form, class T>
__global__ void __launch_bounds__(kWinogradThreads)
    winograd_filters(const T* w, WinogradFilters u, bool turned, int64_t items) {
  const int64_t item = int64_t{blockIdx.x} * kWinogradThreads + threadIdx.x;
  if (item >= items) return;
  float* to = u.at + u.place(item);
  const T* taps = w + item * kTaps;
  const int first = turned ? kTaps - 1 : 0, step = turned ? -1 : 1;
  spread_square<FilterMatrix<Form>>(
      [&](auto i, auto& row) {
        each<kWinogradFilter>([&](auto j) { row[j] = widen(taps[first + step * (i * kWinogradFilter + j)]); });
      },
      [&](auto i, auto j, float value) { to[(i * Form::n + j) * u.point] = value; });
}

template <class Form, class T>
__global__ void __launch_bounds__(kWinogradThreads)
    winograd_filters_back(T* w, WinogradFilters u, bool any, int64_t items) {
  const int64_t item = int64_t{blockIdx.x} * kWinogradThreads + threadIdx.x;
  if (item >= items) return;
  const float* from = u.at + u.place(item);
  T* taps = w + item * kTaps;
  gather_square<FilterMatrix<Form>>(
      [&](auto i, auto j) { return any ? from[(i * Form::n + j) * u.point] : 0.0f; },
      [&](auto i, auto j, float value) { taps[i * kWinogradFilter + j] = narrowed<T>(value); });
}

}  // namespace

int winograd_filter(int m, const ConvProblem& p, const RunContext& r, const WinogradFilters& u) {
  return winograd_by_form(m, p.dtype, [&](auto form, auto type) {
    typedef decltype(type) T;
    const int64_t items = u.k * u.c;
    return launch(r, winograd_filters<decltype(form), T>, winograd_grid(items), kWinogradThreads, 0,
                  static_cast<const T*>(r.w), u, p.pass == Pass::kBackwardData, items);
  });
}

int winograd_filter_gradient(int m, const ConvProblem& p, const RunContext& r, const WinogradFilters& u, bool any) {
  return winograd_by_form(m, p.dtype, [&](auto form, auto type) {
    typedef decltype(type) T;
    const int64_t items = u.k * u.c;
    return launch(r, winograd_filters_back<decltype(form), T>, winograd_grid(items), kWinogradThreads, 0,
                  static_cast<T*>(r.w), u, any, items);
  });
}

}  // namespace fastconv::cuda
