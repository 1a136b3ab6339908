// SPDX-License-Identifier: Apache-2.0
// Mean and squared distances from it of each part: sums of distances from the mean of the part's first values, so that
// nothing cancels however far the values are from zero.
#include "norm_columns.cuh"

namespace fastconv::cuda {
namespace {

constexpr int64_t kFirstValues = 1024;

template <class T, int threads>
__global__ void __launch_bounds__(kNormThreads) moments_of_spans(Spans s, const T* x, Partials to, int32_t vectors) {
  BlockSums& sums = shared<BlockSums>();
  constexpr int per_block = kNormThreads / threads;
  const int thread = static_cast<int>(threadIdx.x) % threads;
  const int64_t units = s.channels * s.parts, step = int64_t{gridDim.x} * per_block;
  for (int64_t unit = int64_t{blockIdx.x} * per_block + threadIdx.x / threads; unit < units; unit += step) {
    int64_t channel;
    const int64_t part = s.by_channels.divide(unit, &channel), begin = part * s.part;
    const int64_t values = part + 1 < s.parts ? s.part : s.last;
    const int64_t few = values < kFirstValues ? values : kFirstValues;
    double sum = 0, squares = 0;
    for_span<T, threads>(s, channel, begin, begin + few, thread, [&](int64_t at, int64_t pixel, int64_t count) {
      const auto piece = span_piece(s, x, at, pixel, count, vectors);
      Sum<T> a = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) a += widen(piece.at[u]);
      sum += a;
    });
    const Sum<T> near = static_cast<Sum<T>>(block_sum<threads>(sum, sums) / static_cast<double>(few));
    sum = 0;
    for_span<T, threads>(s, channel, begin, begin + values, thread, [&](int64_t at, int64_t pixel, int64_t count) {
      const auto piece = span_piece(s, x, at, pixel, count, vectors);
      Sum<T> a = 0, b = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        const Sum<T> d = u < count ? widen(piece.at[u]) - near : Sum<T>(0);
        a += d, b += d * d;
      }
      sum += a, squares += b;
    });
    sum = block_sum<threads>(sum, sums), squares = block_sum<threads>(squares, sums);
    if (thread > 0) continue;
    const double distance = sum / static_cast<double>(values), rest = squares - sum * distance;
    to.first[unit] = static_cast<double>(near) + distance;
    to.second[unit] = rest < 0 ? 0 : rest;
  }
}

template <class T>
__global__ void __launch_bounds__(kNormThreads)
    moments_of_columns(Columns s, const T* x, Partials to, int32_t vectors) {
  constexpr int lanes = kColumnPiece<T>;
  ColumnSums& sums = shared<ColumnSums>();
  const ColumnPlace place = column_place<lanes>(s);
  const T* const from = x + place.first;
  const auto row = [&](int64_t r) { return column_piece<T>(from + r * s.channels, place.count, vectors); };
  double sum[lanes] = {}, squares[lanes] = {};
  Sum<T> near[lanes];
  if (place.row < place.rows) {
    const auto piece = row(place.row);
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] = widen(piece.at[u]);
  }
  column_totals(sum, sums, s.wide);
  const double few = static_cast<double>(place.rows < s.high ? place.rows : s.high);
#pragma unroll
  for (int u = 0; u < lanes; ++u) near[u] = static_cast<Sum<T>>(sum[u] / few), sum[u] = 0;
  for (int64_t first = place.row; first < place.rows; first += kRowsAtOnce * s.high) {
    Sum<T> a[lanes] = {}, b[lanes] = {};
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const int64_t r = first + i * s.high;
      if (r >= place.rows) break;
      const auto piece = row(r);
#pragma unroll
      for (int u = 0; u < lanes; ++u) {
        const Sum<T> d = widen(piece.at[u]) - near[u];
        a[u] += d, b[u] += d * d;
      }
    }
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] += a[u], squares[u] += b[u];
  }
  column_totals(sum, sums, s.wide);
  column_totals(squares, sums, s.wide);
  if (place.row > 0) return;
#pragma unroll
  for (int u = 0; u < lanes; ++u) {
    if (u >= place.count) break;
    const double distance = sum[u] / static_cast<double>(place.rows), rest = squares[u] - sum[u] * distance;
    to.first[place.to + u] = static_cast<double>(near[u]) + distance;
    to.second[place.to + u] = rest < 0 ? 0 : rest;
  }
}

}  // namespace

template <class T>
int span_moments(const RunContext& run, const Spans& s, const T* x, const Partials& to) {
  const bool narrow = s.images * s.length <= kSpanOfWarp;
  return launch(run, narrow ? moments_of_spans<T, kWarp> : moments_of_spans<T, kNormThreads>, span_grid(s, narrow),
                kNormThreads, sizeof(BlockSums), s, x, to, span_vectors<T>(s, x));
}

template <class T>
int column_moments(const RunContext& run, const Columns& s, const T* x, const Partials& to) {
  return launch(run, moments_of_columns<T>, column_grid(s), kNormThreads, sizeof(ColumnSums), s, x, to,
                column_vectors<T>(s, x));
}

#define FC_INSTANTIATE(T)                                                                \
  template int span_moments(const RunContext&, const Spans&, const T*, const Partials&); \
  template int column_moments(const RunContext&, const Columns&, const T*, const Partials&);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
FC_INSTANTIATE(Half)
FC_INSTANTIATE(BFloat16)
#undef FC_INSTANTIATE

}  // namespace fastconv::cuda
