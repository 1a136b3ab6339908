// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include "pointwise.cuh"
#include "registry.h"

namespace fastconv::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kPointThreads)
    add_all(int64_t count, int32_t vectors, const T* a, const T* b, T* sum) {
  for_pieces<T>(count, vectors, [&](int64_t i, int64_t left, bool whole) {
    auto piece = load_piece(a + i, left, whole);
    const auto other = load_piece(b + i, left, whole);
#pragma unroll
    for (int u = 0; u < kPiece<T>; ++u) piece.at[u] = narrowed<T>(widen(piece.at[u]) + widen(other.at[u]));
    store_piece(sum + i, piece, left, whole);
  });
}

template <class T>
__global__ void __launch_bounds__(kPointThreads)
    scale_masked(int64_t count, int32_t vectors, const T* x, const uint8_t* mask, Sum<T> scale, T* y) {
  for_pieces<T>(count, vectors, [&](int64_t i, int64_t left, bool whole) {
    auto piece = load_piece(x + i, left, whole);
    Vector<uint8_t, kPiece<T>> kept{};
    if (whole)
      kept = load<kPiece<T>>(mask + i);
    else
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) kept.at[u] = u < left ? mask[i + u] : 0;
#pragma unroll
    for (int u = 0; u < kPiece<T>; ++u) piece.at[u] = narrowed<T>(kept.at[u] ? widen(piece.at[u]) * scale : Sum<T>(0));
    store_piece(y + i, piece, left, whole);
  });
}

// The channel of an element, and where the plane ends: from one element of a piece to the next without a division.
struct Slopes {
  Divisor pixels, channels;
  int64_t plane, count;
};

// Backward writes dx and `below`, forward y.
template <class T, bool backward>
__global__ void __launch_bounds__(kPointThreads)
    prelu_all(Slopes s, int64_t count, int32_t vectors, const T* dy, const T* x, const T* w, T* to, T* below) {
  for_pieces<T>(count, vectors, [&](int64_t i, int64_t left, bool whole) {
    auto piece = load_piece(x + i, left, whole), other = piece;
    if constexpr (backward) other = load_piece(dy + i, left, whole);
    int64_t pixel, channel;
    s.channels.divide(s.pixels.divide(i, &pixel), &channel);
    Sum<T> slope = widen(w[channel]);
#pragma unroll
    for (int u = 0; u < kPiece<T>; ++u) {
      const Sum<T> v = widen(piece.at[u]);
      const bool above = v > 0;
      if constexpr (backward) {
        const Sum<T> g = widen(other.at[u]);
        piece.at[u] = narrowed<T>(above ? g : g * slope);
        other.at[u] = narrowed<T>(above ? Sum<T>(0) : g * v);
      } else {
        piece.at[u] = narrowed<T>(above ? v : v * slope);
      }
      if (++pixel < s.plane) continue;
      pixel = 0, channel = channel + 1 < s.count ? channel + 1 : 0;
      slope = widen(w[channel]);
    }
    store_piece(to + i, piece, left, whole);
    if constexpr (backward) store_piece(below + i, other, left, whole);
  });
}

template <class T>
int run_prelu(const PointwiseContext& c, const RunContext& run, int64_t count) {
  const Slopes slopes = {Divisor(c.pixels), Divisor(c.c), c.pixels, c.c};
  const T *const x = static_cast<const T*>(c.x), *const w = static_cast<const T*>(c.w),
                 *const dy = static_cast<const T*>(c.dy);
  T *const y = static_cast<T*>(c.y), *const dx = static_cast<T*>(c.dx);
  if (c.op == PointwiseOp::kPrelu)
    return launch(run, prelu_all<T, false>, grid_of_pieces<T>(count), kPointThreads, 0, slopes, count,
                  aligned_pieces(x, y), static_cast<const T*>(nullptr), x, w, y, static_cast<T*>(nullptr));
  return launch(run, prelu_all<T, true>, grid_of_pieces<T>(count), kPointThreads, 0, slopes, count,
                aligned_pieces(x, dy, dx, y), dy, x, w, dx, y);
}

}  // namespace

int pointwise(const PointwiseContext* context) {
  const PointwiseContext& c = *context;
  const int64_t count = c.n * c.c * c.pixels;
  if (count == 0) return 0;
  const RunContext run = run_context(c.machine, c.stream, c.error);
  if (c.op == PointwiseOp::kActivation || c.op == PointwiseOp::kActivationBackward) return activation(c, run);
  return by_dtype(c.dtype, [&](auto type) {
    typedef decltype(type) T;
    const T *const x = static_cast<const T*>(c.x), *const other = static_cast<const T*>(c.dy);
    T* const y = static_cast<T*>(c.y);
    switch (c.op) {
      case PointwiseOp::kPrelu:
      case PointwiseOp::kPreluBackward:
        return run_prelu<T>(c, run, count);
      case PointwiseOp::kAdd:
        return launch(run, add_all<T>, grid_of_pieces<T>(count), kPointThreads, 0, count, aligned_pieces(x, other, y),
                      x, other, y);
      case PointwiseOp::kScaleMask:
        return launch(run, scale_masked<T>, grid_of_pieces<T>(count), kPointThreads, 0, count,
                      aligned_pieces(x, c.mask, y), x, c.mask, static_cast<Sum<T>>(c.alpha), y);
      default:
        snprintf(c.error, kTextCapacity, "pointwise operation %d is not one of this library", static_cast<int>(c.op));
        return 1;
    }
  });
}

}  // namespace fastconv::cuda
