// SPDX-License-Identifier: Apache-2.0
// Softmax of rows and its logarithm: a warp for a short row, a block for a long one. The row is read again for each of its
// passes, by then from a cache.
#include "norm_rows.cuh"

namespace fastconv::cuda {
namespace {

template <class S>
struct Maxima {
  S of_warp[kNormWarps];
};
template <class S>
struct RowSums {
  BlockSums sums;
  Maxima<S> maxima;
};

template <int threads, class S>
__device__ __forceinline__ S block_max(S value, Maxima<S>& s) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) {
    const S other = shuffle_xor(value, half);
    value = other > value ? other : value;
  }
  if constexpr (threads == kWarp) return value;
  sync();  // what the last maximum left has been read
  if (threadIdx.x % kWarp == 0) s.of_warp[threadIdx.x / kWarp] = value;
  sync();
  value = s.of_warp[0];
#pragma unroll
  for (int i = 1; i < kNormWarps; ++i) value = s.of_warp[i] > value ? s.of_warp[i] : value;
  return value;
}

template <class T, int threads>
__global__ void __launch_bounds__(kNormThreads)
    softmax_rows(int64_t rows, int64_t columns, int32_t logarithm, int32_t vectors, const T* x, T* y) {
  RowSums<Sum<T>>& s = shared<RowSums<Sum<T>>>();
  for_rows<threads>(rows, columns, [&](int64_t row, int thread) {
    const T* const from = x + row;
    const auto at = [&](int64_t i, int64_t count) { return load_piece(from + i, count, vectors); };
    Sum<T> most = widen(from[0]);
    for_row_pieces<T, threads>(columns, thread, [&](int64_t i, int64_t count) {
      const auto piece = at(i, count);
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const Sum<T> v = widen(piece.at[u]);
        most = u < count && v > most ? v : most;
      }
    });
    most = block_max<threads>(most, s.maxima);
    double sum = 0;
    for_row_pieces<T, threads>(columns, thread, [&](int64_t i, int64_t count) {
      const auto piece = at(i, count);
      Sum<T> few = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) few += u < count ? exp(widen(piece.at[u]) - most) : Sum<T>(0);
      sum += few;
    });
    const Sum<T> total = static_cast<Sum<T>>(block_sum<threads>(sum, s.sums)), shift = log(total);
    for_row_pieces<T, threads>(columns, thread, [&](int64_t i, int64_t count) {
      auto piece = at(i, count);
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const Sum<T> v = widen(piece.at[u]) - most;
        piece.at[u] = narrowed<T>(logarithm ? v - shift : exp(v) / total);
      }
      store_piece(y + row + i, piece, count, vectors);
    });
  });
}

// y (dy - sum(dy y)), or of the logarithm dy - exp(y) sum(dy).
template <class T, int threads>
__global__ void __launch_bounds__(kNormThreads) softmax_rows_backward(int64_t rows, int64_t columns, int32_t logarithm,
                                                                      int32_t vectors, const T* dy, const T* y, T* dx) {
  BlockSums& s = shared<BlockSums>();
  for_rows<threads>(rows, columns, [&](int64_t row, int thread) {
    double sum = 0;
    for_row_pieces<T, threads>(columns, thread, [&](int64_t i, int64_t count) {
      const auto g = load_piece(dy + row + i, count, vectors), v = load_piece(y + row + i, count, vectors);
      Sum<T> few = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) few += widen(g.at[u]) * (logarithm ? Sum<T>(u < count) : widen(v.at[u]));
      sum += few;
    });
    const Sum<T> total = static_cast<Sum<T>>(block_sum<threads>(sum, s));
    for_row_pieces<T, threads>(columns, thread, [&](int64_t i, int64_t count) {
      auto g = load_piece(dy + row + i, count, vectors);
      const auto piece = load_piece(y + row + i, count, vectors);
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const Sum<T> v = widen(piece.at[u]), d = widen(g.at[u]);
        g.at[u] = narrowed<T>(logarithm ? d - exp(v) * total : v * (d - total));
      }
      store_piece(dx + row + i, g, count, vectors);
    });
  });
}

}  // namespace

int softmax(const NormContext& c, const RunContext& run) {
  const bool narrow = c.c <= kRowOfWarp;
  const Grid grid = grid_of_rows(c.n, narrow);
  return by_dtype(c.dtype, [&](auto type) {
    typedef decltype(type) T;
    const bool rows_fit = c.c % kPiece<T> == 0;
    if (c.op == NormOp::kSoftmax) {
      const T* const x = static_cast<const T*>(c.x);
      T* const y = static_cast<T*>(c.y);
      return launch(run, narrow ? softmax_rows<T, kWarp> : softmax_rows<T, kNormThreads>, grid, kNormThreads,
                    sizeof(RowSums<Sum<T>>), c.n, c.c, c.logarithm, int32_t{rows_fit && aligned_pieces(x, y)}, x, y);
    }
    const T *const dy = static_cast<const T*>(c.dy), *const y = static_cast<const T*>(c.y);
    T* const dx = static_cast<T*>(c.dx);
    return launch(run, narrow ? softmax_rows_backward<T, kWarp> : softmax_rows_backward<T, kNormThreads>, grid,
                  kNormThreads, sizeof(BlockSums), c.n, c.c, c.logarithm,
                  int32_t{rows_fit && aligned_pieces(dy, y, dx)}, dy, y, dx);
  });
}

}  // namespace fastconv::cuda
