// SPDX-License-Identifier: Apache-2.0
// Normalisation on the device, in three steps that the shape alone lays out:
//   partial sums   blocks take equal parts of the values that belong together and leave their sums in the workspace
//                  (norm_moments.cu, norm_sums.cu)
//   join           a warp adds the parts of one statistic, in float64, lanes in turn and then in a tree (norm_finish.cu)
//   apply          element by element (norm_apply.cu)
// Threads add a few values in Sum<T> and these sums in float64, so that neither many values nor a large mean cost digits.
//
// Values that belong together are either spans (planes of a channel, rows of groups: adjacent in memory) or columns (a
// channel of rows, as after a dense layer or with channels last).
#pragma once

#include <algorithm>

#include "pointwise.cuh"

namespace fastconv::cuda {

constexpr int kNormThreads = 256, kNormWarps = kNormThreads / kWarp;
// Blocks that a launch has at most where its parts may be long enough, so that the parts follow from the shape alone.
constexpr int64_t kNormBlocks = 8 * 132;

// `channels` spans of `images` runs of `length` elements; run i of a span lies i * channels * length further. A part is
// `part` values of a span's images * length, but for the last.
struct Spans {
  int64_t images, channels, length;
  int64_t part, parts, last;  // last: values of the last part
  Divisor by_length, by_channels;

  Spans() = default;
  Spans(int64_t n, int64_t c, int64_t pixels) : images(n), channels(c), length(pixels) {
    constexpr int64_t unit = 1024;
    const int64_t values = n * pixels, wanted = std::max<int64_t>(1, kNormBlocks / std::max<int64_t>(1, c));
    part = round_up(divide_up(values, std::min(wanted, std::max<int64_t>(1, divide_up(values, 4 * unit)))), unit);
    parts = std::max<int64_t>(1, divide_up(values, part));
    last = values - (parts - 1) * part;
    by_length = Divisor(pixels), by_channels = Divisor(c);
  }
};

// `images` arrays of `rows` rows of `channels`; a part is `part` rows of an image, but for the last.
template <class T>
inline constexpr int kColumnPiece = kPiece<T> < 4 ? kPiece<T> : 4;

struct Columns {
  int64_t images, rows, channels;
  int64_t part, parts, last;  // last: rows of the last part
  int32_t wide, high;         // threads of a block beside each other and below each other, powers of two
  int64_t blocks;             // beside each other
  Divisor by_parts, by_blocks;

  Columns() = default;
  Columns(int64_t n, int64_t r, int64_t c, int piece) : images(n), rows(r), channels(c) {
    wide = 1;
    while (wide < kWarp && wide * piece < c) wide *= 2;
    high = kNormThreads / wide;
    blocks = divide_up(c, int64_t{wide} * piece);
    const int64_t unit = high, wanted = std::max<int64_t>(1, kNormBlocks / std::max<int64_t>(1, blocks * n));
    part = round_up(divide_up(r, std::min(wanted, std::max<int64_t>(1, divide_up(r, 8 * unit)))), unit);
    parts = std::max<int64_t>(1, divide_up(r, part));
    last = r - (parts - 1) * part;
    by_parts = Divisor(parts), by_blocks = Divisor(blocks);
  }
};

// Where the partial sums of a statistic lie, and of how many values they are. Statistic r is number `inner` of image
// `outer`, r = outer * statistics + inner; its pieces are those of `per` neighbouring channels in every part.
struct Join {
  Divisor by_statistics, by_per;
  int64_t statistics, per, parts, channels;
  int64_t part, last;  // values of a part, and of the last one
  int64_t pieces;
};
inline Join join_of(const Spans& s) {
  return {Divisor(s.channels), Divisor(1), s.channels, 1, s.parts, s.channels, s.part, s.last, s.parts};
}
inline Join join_of(const Columns& s, int64_t groups) {
  const int64_t per = s.channels / groups;
  return {Divisor(groups), Divisor(per), groups, per, s.parts, s.channels, s.part, s.last, s.parts * per};
}
// The place of piece i of statistic r; *values: how many it is of.
__device__ __forceinline__ int64_t piece_of(const Join& j, int64_t r, int64_t i, double* values) {
  int64_t inner, channel;
  const int64_t outer = j.by_statistics.divide(r, &inner), part = j.by_per.divide(i, &channel);
  *values = static_cast<double>(part + 1 < j.parts ? j.part : j.last);
  return (outer * j.parts + part) * j.channels + inner * j.per + channel;
}

// A mean: what Sum<T> holds of it, and the rest.
template <class S>
struct Centre {
  S mean, rest;
  __device__ __forceinline__ S distance(S x) const { return (x - mean) - rest; }
};
// Means as they came: doubles of groups, else Sum<T> of channels.
template <class S>
struct Centres {
  const double* wide;
  const S* plain;
  __device__ __forceinline__ Centre<S> at(int64_t i) const {
    if (!wide) return {plain[i], S(0)};
    const S mean = static_cast<S>(wide[i]);
    return {mean, static_cast<S>(wide[i] - static_cast<double>(mean))};
  }
};

// Sum over a block (or a warp, threads = kWarp) in a fixed tree, for all its threads.
struct BlockSums {
  double of_warp[kNormWarps];
};
__device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
  for (int half = kWarp / 2; half > 0; half /= 2) value += shuffle_xor(value, half);
  return value;
}
template <int threads>
__device__ __forceinline__ double block_sum(double value, BlockSums& s) {
  value = warp_sum(value);
  if constexpr (threads == kWarp) return value;
  sync();  // what the last sum left has been read
  if (threadIdx.x % kWarp == 0) s.of_warp[threadIdx.x / kWarp] = value;
  sync();
  value = 0;
#pragma unroll
  for (int i = 0; i < kNormWarps; ++i) value += s.of_warp[i];
  return value;
}

// Where the values of a part of a span lie: visit(piece, how many of it there are, index in the span), by threads in turn.
// `group`: the number of the thread among those of its part.
template <class T, int threads, class Visit>
__device__ __forceinline__ void for_span(const Spans& s, int64_t channel, int64_t begin, int64_t end, int thread,
                                         const Visit& visit) {
  constexpr int64_t step = int64_t{threads} * kPiece<T>;
#pragma unroll 2
  for (int64_t e = begin + int64_t{thread} * kPiece<T>; e < end; e += step) {
    int64_t pixel;
    const int64_t image = s.by_length.divide(e, &pixel);
    visit((image * s.channels + channel) * s.length + pixel, pixel, end - e);
  }
}
// The piece there; where it goes beyond its run, the rest is of the next image.
template <class T>
__device__ __forceinline__ Vector<T, kPiece<T>> span_piece(const Spans& s, const T* x, int64_t at, int64_t pixel,
                                                           int64_t count, int32_t vectors) {
  if (vectors && count >= kPiece<T>) return load<kPiece<T>>(x + at);
  Vector<T, kPiece<T>> piece;
#pragma unroll
  for (int u = 0; u < kPiece<T>; ++u) {
    piece.at[u] = u < count ? x[at] : narrowed<T>(0);
    ++at;
    if (++pixel == s.length) pixel = 0, at += (s.channels - 1) * s.length;
  }
  return piece;
}
// Whether a span's pieces are whole and aligned: no run may end within one.
template <class T, class... Data>
int32_t span_vectors(const Spans& s, const Data*... data) {
  return aligned_pieces(data...) && s.length % kPiece<T> == 0;
}

// A span is worked on by a warp where it has no more values than this.
constexpr int64_t kSpanOfWarp = 512;

// What is left in the workspace by one launch: for each part and channel one double of each name.
struct Partials {
  double *first, *second, *third;
};

// ---- What the files offer; each returns as `launch` does. T: of x. ----------------------------------------------------
// first: the mean of a part; second: the squared distances from it.
template <class T>
int span_moments(const RunContext& run, const Spans& spans, const T* x, const Partials& to);
template <class T>
int column_moments(const RunContext& run, const Columns& columns, const T* x, const Partials& to);

// With g = dy times gamma (null: 1) and d the distance of x from its centre (times inverse, if not null): first: sums of g;
// second: of d; third: of g d. x null: of g alone.
template <class T>
struct SpanTerms {
  const T *dy, *x;
  const Sum<T>* gamma;  // of value i of a channel: number channel % gammas * length + i
  Centres<Sum<T>> centres;
  Divisor per_centre, gammas;  // the centre of a channel: number channel / per_centre
};
template <class T>
int span_sums(const RunContext& run, const Spans& spans, const SpanTerms<T>& terms, const Partials& to);

template <class T>
struct ColumnTerms {
  const T *dy, *x;
  Centres<Sum<T>> centres;  // of row r in image i and channel c: number i * image_step + r * row_step + c / per_centre
  const double* inverse;    // by the same numbers; with row_step alone
  int64_t image_step, row_step;
  Divisor per_centre;
};
template <class T>
int column_sums(const RunContext& run, const Columns& columns, const ColumnTerms<T>& terms, const Partials& to);

// The statistics of a batch, its channels' factors: y = (x - mean) scale + shift.
template <class S>
struct BatchFactors {
  S *mean, *variance, *scale, *shift;
};
template <class S>
int finish_batch(const RunContext& run, const Join& join, const Partials& parts, const S* gamma, const S* beta,
                 double eps, const BatchFactors<S>& to);
template <class S>
int scale_of_inference(const RunContext& run, int64_t channels, const S* gamma, const S* variance, double eps,
                       S* scale);
// dx = (dy - dy_mean) scale + (x - mean) slope.
template <class S>
struct BatchSlopes {
  S *dgamma, *dbeta, *dy_mean, *scale, *slope;
};
template <class S>
int finish_batch_backward(const RunContext& run, const Join& join, const Partials& parts, const S* gamma,
                          const S* variance, double eps, const BatchSlopes<S>& to);
// Mean and 1 / sqrt(variance + eps) of `count` groups.
int finish_groups(const RunContext& run, const Join& join, int64_t count, const Partials& parts, double eps,
                  double* mean, double* inverse);
// The sums of channels.
template <class S>
int finish_sum(const RunContext& run, const Join& join, const Partials& parts, S* sum);
// Sums (first) and products (third) of `count` statistics, joined.
int join_sums(const RunContext& run, const Join& join, int64_t count, const Partials& parts, const Partials& to);
// What dx needs of a group: dx = g inverse + d slope + shift.
struct GroupSlopes {
  const double *mean, *inverse;
  double *slope, *shift;
};
// From the sums of each of `per` channels of a group, weighted by gamma; gamma null: one sum a group, of `values` values.
template <class S>
int finish_group_slopes(const RunContext& run, int64_t rows, int64_t groups, int64_t per, double values, const S* gamma,
                        const Partials& sums, const GroupSlopes& to);
// dgamma and dbeta from sums of n images; inverse null: the third ones are of d times it already.
template <class S>
int finish_parameters(const RunContext& run, int64_t n, int64_t channels, int64_t groups, const Partials& sums,
                      const double* inverse, S* dgamma, S* dbeta);
template <class S>
int fill_with_zeros(const RunContext& run, int64_t count, S* a, S* b);

// Elements and the channels and images that they belong to.
struct Elements {
  int64_t count, channels, run, pixels;  // run: neighbours of one channel; pixels: of channels last, else 1
  Divisor by_run, by_channels, by_pixels;

  Elements(int64_t n, int64_t c, int64_t plane, bool last)
      : count(n * c * plane), channels(c), run(last ? 1 : plane), pixels(last ? plane : 1) {
    by_run = Divisor(run), by_channels = Divisor(c), by_pixels = Divisor(pixels);
  }
};
template <class T>
int apply_batch(const RunContext& run, const Elements& elements, const T* x, const Sum<T>* mean, const Sum<T>* scale,
                const Sum<T>* shift, T* y);
template <class T>
int apply_batch_backward(const RunContext& run, const Elements& elements, const T* dy, const T* x, const Sum<T>* mean,
                         const BatchSlopes<Sum<T>>& slopes, T* dx);
template <class T>
int apply_groups(const RunContext& run, const Elements& elements, int64_t groups, const T* x, const Sum<T>* gamma,
                 const Sum<T>* beta, const double* mean, const double* inverse, T* y);
template <class T>
int apply_groups_backward(const RunContext& run, const Elements& elements, int64_t groups, const T* dy, const T* x,
                          const Sum<T>* gamma, const GroupSlopes& slopes, T* dx);

// Rows of no more values are worked on in one launch (norm_rows.cu); the gradient's parameters aside.
constexpr int64_t kShortRow = 4096;
template <class T>
int group_rows(const RunContext& run, const NormContext& context);
template <class T>
int group_rows_backward(const RunContext& run, const NormContext& context);

int softmax(const NormContext& context, const RunContext& run);  // softmax.cu

}  // namespace fastconv::cuda
