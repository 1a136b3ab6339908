// SPDX-License-Identifier: Apache-2.0
// Groups that lie together and are short: statistics and result, or both sums of a gradient and dx, in one launch.
#include "norm_rows.cuh"

namespace fastconv::cuda {
namespace {

// Value i of row r belongs to channel r % groups * per + i / pixels.
struct Groups {
  int64_t rows, length, per;
  Divisor by_groups, by_pixels;
};

template <class T>
__device__ __forceinline__ int64_t first_channel(const Groups& g, int64_t at) {
  int64_t group;
  g.by_groups.divide(at, &group);
  return group * g.per;
}

template <class T, int threads>
__global__ void __launch_bounds__(kNormThreads)
    normalise_rows(Groups g, Divisor length, double eps, int32_t vectors, const T* x, const Sum<T>* gamma,
                   const Sum<T>* beta, T* y, double* to_mean, double* to_inverse) {
  BlockSums& s = shared<BlockSums>();
  for_rows<threads>(g.rows, g.length, [&](int64_t row, int thread) {
    const T* const from = x + row;
    const int64_t r = length.quotient(row), channel = first_channel<T>(g, r);
    double sum = 0, squares = 0;
    for_row_pieces<T, threads>(g.length, thread, [&](int64_t i, int64_t count) {
      const auto piece = load_piece(from + i, count, vectors);
      Sum<T> few = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) few += widen(piece.at[u]);
      sum += few;
    });
    const double values = static_cast<double>(g.length), near = block_sum<threads>(sum, s) / values;
    const Sum<T> around = static_cast<Sum<T>>(near);
    sum = 0;
    for_row_pieces<T, threads>(g.length, thread, [&](int64_t i, int64_t count) {
      const auto piece = load_piece(from + i, count, vectors);
      Sum<T> a = 0, b = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const Sum<T> d = u < count ? widen(piece.at[u]) - around : Sum<T>(0);
        a += d, b += d * d;
      }
      sum += a, squares += b;
    });
    const double distance = block_sum<threads>(sum, s) / values, mean = static_cast<double>(around) + distance;
    const double spread = block_sum<threads>(squares, s) / values - distance * distance;
    const double inverse = 1 / sqrt((spread < 0 ? 0 : spread) + eps);
    if (thread == 0) to_mean[r] = mean, to_inverse[r] = inverse;
    const Centre<Sum<T>> centre = {around, static_cast<Sum<T>>(distance)};
    const Sum<T> factor = static_cast<Sum<T>>(inverse);
    for_row_pieces<T, threads>(g.length, thread, [&](int64_t i, int64_t count) {
      auto piece = load_piece(from + i, count, vectors);
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const int64_t c = channel + (u < count ? g.by_pixels.quotient(i + u) : 0);
        piece.at[u] = narrowed<T>(centre.distance(widen(piece.at[u])) * (gamma[c] * factor) + beta[c]);
      }
      store_piece(y + row + i, piece, count, vectors);
    });
  });
}

// Of one pixel a channel: dx = inverse (g - sum(g) / M - h sum(g h) / M) with g = gamma dy and h = (x - mean) inverse.
template <class T, int threads>
__global__ void __launch_bounds__(kNormThreads)
    slope_rows(Groups g, Divisor length, int32_t vectors, const T* dy, const T* x, const Sum<T>* gamma,
               const double* mean, const double* inverse, T* dx) {
  BlockSums& s = shared<BlockSums>();
  for_rows<threads>(g.rows, g.length, [&](int64_t row, int thread) {
    const int64_t r = length.quotient(row);
    const Sum<T>* const weights = gamma + first_channel<T>(g, r);
    const Centre<Sum<T>> centre = Centres<Sum<T>>{mean, nullptr}.at(r);
    double sum = 0, product = 0;
    for_row_pieces<T, threads>(g.length, thread, [&](int64_t i, int64_t count) {
      const auto gradient = load_piece(dy + row + i, count, vectors), piece = load_piece(x + row + i, count, vectors);
      Sum<T> a = 0, b = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        if (u >= count) break;
        const Sum<T> v = widen(gradient.at[u]) * weights[i + u];
        a += v, b += v * centre.distance(widen(piece.at[u]));
      }
      sum += a, product += b;
    });
    const double values = static_cast<double>(g.length), factor = inverse[r];
    const Sum<T> shift = static_cast<Sum<T>>(-factor * block_sum<threads>(sum, s) / values);
    const double of_product = block_sum<threads>(product, s) / values;
    const Sum<T> slope = static_cast<Sum<T>>(-factor * factor * factor * of_product);
    const Sum<T> scale = static_cast<Sum<T>>(factor);
    for_row_pieces<T, threads>(g.length, thread, [&](int64_t i, int64_t count) {
      const auto gradient = load_piece(dy + row + i, count, vectors);
      auto piece = load_piece(x + row + i, count, vectors);
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const Sum<T> v = widen(gradient.at[u]) * weights[u < count ? i + u : 0];
        piece.at[u] = narrowed<T>(v * scale + (centre.distance(widen(piece.at[u])) * slope + shift));
      }
      store_piece(dx + row + i, piece, count, vectors);
    });
  });
}

Groups groups_of(const NormContext& c) {
  return {c.n * c.groups, c.c / c.groups * c.pixels, c.c / c.groups, Divisor(c.groups), Divisor(c.pixels)};
}

}  // namespace

template <class T>
int group_rows(const RunContext& run, const NormContext& c) {
  typedef Sum<T> S;
  const Groups g = groups_of(c);
  const T* const x = static_cast<const T*>(c.x);
  T* const y = static_cast<T*>(c.y);
  const bool narrow = g.length <= kRowOfWarp;
  return launch(run, narrow ? normalise_rows<T, kWarp> : normalise_rows<T, kNormThreads>, grid_of_rows(g.rows, narrow),
                kNormThreads, sizeof(BlockSums), g, Divisor(g.length), c.eps,
                int32_t{g.length % kPiece<T> == 0 && aligned_pieces(x, y)}, x, static_cast<const S*>(c.gamma),
                static_cast<const S*>(c.beta), y, static_cast<double*>(c.mean), static_cast<double*>(c.variance));
}

template <class T>
int group_rows_backward(const RunContext& run, const NormContext& c) {
  const Groups g = groups_of(c);
  const T *const dy = static_cast<const T*>(c.dy), *const x = static_cast<const T*>(c.x);
  T* const dx = static_cast<T*>(c.dx);
  const bool narrow = g.length <= kRowOfWarp;
  return launch(run, narrow ? slope_rows<T, kWarp> : slope_rows<T, kNormThreads>, grid_of_rows(g.rows, narrow),
                kNormThreads, sizeof(BlockSums), g, Divisor(g.length),
                int32_t{g.length % kPiece<T> == 0 && aligned_pieces(dy, x, dx)}, dy, x,
                static_cast<const Sum<T>*>(c.gamma), static_cast<const double*>(c.mean),
                static_cast<const double*>(c.variance), dx);
}

#define FC_INSTANTIATE(T)                                            \
  template int group_rows<T>(const RunContext&, const NormContext&); \
  template int group_rows_backward<T>(const RunContext&, const NormContext&);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
FC_INSTANTIATE(Half)
FC_INSTANTIATE(BFloat16)
#undef FC_INSTANTIATE

}  // namespace fastconv::cuda
