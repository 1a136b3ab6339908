// SPDX-License-Identifier: Apache-2.0
#include "pointwise.cuh"
#include "slopes.cuh"

namespace fastconv::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kPointThreads)
    activate_all(Activation kind, Sum<T> alpha, int64_t count, int32_t vectors, const T* x, T* y) {
  for_pieces<T>(count, vectors, [&](int64_t i, int64_t left, bool whole) {
    auto piece = load_piece(x + i, left, whole);
    by_kind(kind, [&](auto known) {
#pragma unroll
      for (T& v : piece.at) v = narrowed<T>(activated<decltype(known)::value>(widen(v), alpha));
    });
    store_piece(y + i, piece, left, whole);
  });
}

template <class T>
__global__ void __launch_bounds__(kPointThreads)
    slope_all(Activation kind, Sum<T> alpha, int64_t count, int32_t vectors, const T* dy, const T* saved, T* dx) {
  for_pieces<T>(count, vectors, [&](int64_t i, int64_t left, bool whole) {
    auto piece = load_piece(dy + i, left, whole);
    const auto of = load_piece(saved + i, left, whole);
    by_kind(kind, [&](auto known) {
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u)
        piece.at[u] = narrowed<T>(sloped<decltype(known)::value>(widen(piece.at[u]), widen(of.at[u]), alpha));
    });
    store_piece(dx + i, piece, left, whole);
  });
}

}  // namespace

int activation(const PointwiseContext& c, const RunContext& run) {
  const int64_t count = c.n * c.c * c.pixels;
  return by_dtype(c.dtype, [&](auto type) {
    typedef decltype(type) T;
    const T* const x = static_cast<const T*>(c.x);
    const Sum<T> alpha = static_cast<Sum<T>>(c.alpha);
    if (c.op == PointwiseOp::kActivation) {
      T* const y = static_cast<T*>(c.y);
      return launch(run, activate_all<T>, grid_of_pieces<T>(count), kPointThreads, 0, c.activation, alpha, count,
                    aligned_pieces(x, y), x, y);
    }
    const T* const dy = static_cast<const T*>(c.dy);
    T* const dx = static_cast<T*>(c.dx);
    return launch(run, slope_all<T>, grid_of_pieces<T>(count), kPointThreads, 0, c.activation, alpha, count,
                  aligned_pieces(dy, x, dx), dy, x, dx);
  });
}

}  // namespace fastconv::cuda
