// SPDX-License-Identifier: Apache-2.0
// Sums of gradients, of distances from the mean and of their products, of each part.
#include "norm_columns.cuh"

namespace fastconv::cuda {
namespace {

template <class T, int threads>
__global__ void __launch_bounds__(kNormThreads) sums_of_spans(Spans s, SpanTerms<T> t, Partials to, int32_t vectors) {
  BlockSums& sums = shared<BlockSums>();
  constexpr int per_block = kNormThreads / threads;
  const int thread = static_cast<int>(threadIdx.x) % threads;
  const int64_t units = s.channels * s.parts, step = int64_t{gridDim.x} * per_block;
  for (int64_t unit = int64_t{blockIdx.x} * per_block + threadIdx.x / threads; unit < units; unit += step) {
    int64_t channel, weights;
    const int64_t part = s.by_channels.divide(unit, &channel), begin = part * s.part;
    const int64_t end = begin + (part + 1 < s.parts ? s.part : s.last);
    t.gammas.divide(channel, &weights);
    const Sum<T>* const gamma = t.gamma ? t.gamma + weights * s.length : nullptr;
    Centre<Sum<T>> centre{};
    if (t.x) centre = t.centres.at(t.per_centre.quotient(channel));
    double first = 0, second = 0, third = 0;
    for_span<T, threads>(s, channel, begin, end, thread, [&](int64_t at, int64_t pixel, int64_t count) {
      const auto dy = span_piece(s, t.dy, at, pixel, count, vectors);
      auto x = dy;
      if (t.x) x = span_piece(s, t.x, at, pixel, count, vectors);
      Sum<T> a = 0, b = 0, c = 0;
#pragma unroll
      for (int u = 0; u < kPiece<T>; ++u) {
        if (u >= count) break;
        Sum<T> g = widen(dy.at[u]);
        if (gamma) g *= gamma[pixel + u];  // spans of one run
        const Sum<T> d = t.x ? centre.distance(widen(x.at[u])) : Sum<T>(0);
        a += g, b += d, c += g * d;
      }
      first += a, second += b, third += c;
    });
    first = block_sum<threads>(first, sums);
    if (t.x) second = block_sum<threads>(second, sums), third = block_sum<threads>(third, sums);
    if (thread > 0) continue;
    to.first[unit] = first;
    if (t.x) to.second[unit] = second, to.third[unit] = third;
  }
}

// by_row: every row has centres of its own.
template <class T, bool by_row>
__global__ void __launch_bounds__(kNormThreads, 2)
    sums_of_columns(Columns s, ColumnTerms<T> t, Partials to, int32_t vectors) {
  constexpr int lanes = kColumnPiece<T>;
  ColumnSums& sums = shared<ColumnSums>();
  const ColumnPlace place = column_place<lanes>(s);
  const T *const dy = t.dy + place.first, *const x = t.x + place.first;
  double first[lanes] = {}, second[lanes] = {}, third[lanes] = {};
  Centre<Sum<T>> centre[lanes] = {};
  int64_t number[lanes];
#pragma unroll
  for (int u = 0; u < lanes; ++u) {
    number[u] = place.image * t.image_step + t.per_centre.quotient(u < place.count ? place.channel + u : 0);
    if (t.x && !by_row) centre[u] = t.centres.at(number[u]);
  }
  for (int64_t start = place.row; start < place.rows; start += kRowsAtOnce * s.high) {
    Sum<T> a[lanes] = {}, b[lanes] = {}, c[lanes] = {};
#pragma unroll
    for (int i = 0; i < kRowsAtOnce; ++i) {
      const int64_t r = start + i * s.high;
      if (r >= place.rows) break;
      const auto g = column_piece<T>(dy + r * s.channels, place.count, vectors);
      auto v = g;
      if (t.x) v = column_piece<T>(x + r * s.channels, place.count, vectors);
#pragma unroll
      for (int u = 0; u < lanes; ++u) {
        Sum<T> d = 0;
        if constexpr (by_row) {
          const int64_t i_of_row = number[u] + (place.begin + r) * t.row_step;
          d = t.centres.at(i_of_row).distance(widen(v.at[u])) * static_cast<Sum<T>>(t.inverse[i_of_row]);
        } else if (t.x) {
          d = centre[u].distance(widen(v.at[u]));
        }
        a[u] += widen(g.at[u]), b[u] += d, c[u] += widen(g.at[u]) * d;
      }
    }
#pragma unroll
    for (int u = 0; u < lanes; ++u) first[u] += a[u], second[u] += b[u], third[u] += c[u];
  }
  column_totals(first, sums, s.wide);
  if (t.x) column_totals(second, sums, s.wide), column_totals(third, sums, s.wide);
  if (place.row > 0) return;
#pragma unroll
  for (int u = 0; u < lanes; ++u) {
    if (u >= place.count) break;
    to.first[place.to + u] = first[u];
    if (t.x) to.second[place.to + u] = second[u], to.third[place.to + u] = third[u];
  }
}

}  // namespace

template <class T>
int span_sums(const RunContext& run, const Spans& s, const SpanTerms<T>& terms, const Partials& to) {
  const bool narrow = s.images * s.length <= kSpanOfWarp;
  return launch(run, narrow ? sums_of_spans<T, kWarp> : sums_of_spans<T, kNormThreads>, span_grid(s, narrow),
                kNormThreads, sizeof(BlockSums), s, terms, to, span_vectors<T>(s, terms.dy, terms.x));
}

template <class T>
int column_sums(const RunContext& run, const Columns& s, const ColumnTerms<T>& terms, const Partials& to) {
  return launch(run, terms.row_step ? sums_of_columns<T, true> : sums_of_columns<T, false>, column_grid(s),
                kNormThreads, sizeof(ColumnSums), s, terms, to, column_vectors<T>(s, terms.dy, terms.x));
}

#define FC_INSTANTIATE(T)                                                                        \
  template int span_sums(const RunContext&, const Spans&, const SpanTerms<T>&, const Partials&); \
  template int column_sums(const RunContext&, const Columns&, const ColumnTerms<T>&, const Partials&);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
FC_INSTANTIATE(Half)
FC_INSTANTIATE(BFloat16)
#undef FC_INSTANTIATE

}  // namespace fastconv::cuda
