// SPDX-License-Identifier: Apache-2.0
// Statistics of a channel:
//   cut its n * pixels values into chunks of a few thousand        (from the shape alone)
//   each chunk: sums in float64, squares around the chunk's mean   (parallel)
//   join the chunks of a channel pairwise                          (moments.h)
// What is made of the statistics follows channel by channel where a channel stays in L2 between the two, else when all
// are known: the same sums and the same bits.
// With one pixel per channel, as after a dense layer, a channel is a column and a chunk is a block of rows.
#include "norm_ops.h"

#include <cmath>

#include "kernels/norm_kernels.h"
#include "machine.h"
#include "moments.h"
#include "streaming.h"
#include "workspace.h"

namespace fastconv {
namespace {

constexpr int64_t kChunk = 4096;           // values of a channel: 16 or 32 KB, read twice from L1
constexpr int64_t kColumnRows = 64;        // rows and
constexpr int64_t kColumns = 64;           // columns of a block
constexpr int64_t kJoinBytes = 64;         // joining a chunk's results costs as much as moving these
constexpr int64_t kChannelsPerThread = 4;  // at least, for a channel to be an item

struct Chunks {
  ChannelShape shape;
  bool columns;
  int64_t images, pixels;  // of one chunk, at most
  int64_t parts, count;    // chunks per image (when one image is more than a chunk), per channel
  int64_t channels;        // that one item takes

  Chunks(const ChannelShape& s, int64_t element) : shape(s), columns(s.pixels == 1) {
    pixels = std::min(s.pixels, kChunk);
    images = columns ? kColumnRows : std::max<int64_t>(1, kChunk / s.pixels);
    parts = ceil_div(s.pixels, pixels);
    count = ceil_div(s.n, images) * parts;
    const int64_t bytes = std::min(images, s.n) * pixels * element;
    channels = columns ? kColumns : std::clamp<int64_t>(kItemBytes / bytes, 1, s.c);
  }
  int64_t images_of(int64_t chunk) const { return std::min(images, shape.n - chunk / parts * images); }
  int64_t pixels_of(int64_t chunk) const { return std::min(pixels, shape.pixels - chunk % parts * pixels); }
  double values_of(int64_t chunk) const { return static_cast<double>(images_of(chunk) * pixels_of(chunk)); }
  int64_t offset_of(int64_t chunk) const {
    return chunk / parts * images * shape.c * shape.pixels + chunk % parts * pixels;
  }
  // Of planes.
  Runs runs_of(int64_t chunk) const { return {images_of(chunk), pixels_of(chunk), shape.c * shape.pixels}; }
};

template <class T>
const NormKernelsOf<T>& norm_kernels(const Machine& machine, bool columns) {
  const NormKernels& kernels = *machine.kernels->norm;
  if constexpr (sizeof(T) == 8)
    return columns ? kernels.columns_f64 : kernels.planes_f64;
  else
    return columns ? kernels.columns_f32 : kernels.planes_f32;
}

// Calls work(runs, element offset, channel, index of the first result in [chunk][channel]) for every chunk and channel
// (or block of columns).
template <class Work>
void for_channel_chunks(const Machine& machine, const Chunks& chunks, int64_t bytes, const Work& work) {
  const ChannelShape& s = chunks.shape;
  const int64_t groups = ceil_div(s.c, chunks.channels);
  parallel_for(worth_sharing(machine, bytes), chunks.count * groups, [&](int64_t item, int) {
    const int64_t chunk = item / groups, first = item % groups * chunks.channels;
    const int64_t last = std::min(s.c, first + chunks.channels);
    const int64_t at = chunks.offset_of(chunk);
    Runs runs = chunks.runs_of(chunk);
    if (chunks.columns) runs.length = last - first;
    for (int64_t c = first; c < last; c += chunks.columns ? chunks.channels : 1)
      work(runs, at + c * s.pixels, c, chunk * s.c + c);
  });
}

// A channel's partial sums over all chunks, joined.
double join_chunks(const Chunks& chunks, const double* partial, int64_t channel) {
  return join_sums(0, chunks.count, [&](int64_t i) { return partial[i * chunks.shape.c + channel]; });
}

// Calls work(chunk of runs, element offset, channel) over the whole array, every element once.
template <class T, class Work>
void for_elements(const Machine& machine, const ChannelShape& s, int64_t arrays, const Work& work) {
  if (s.pixels == 1) {  // whole rows
    const int64_t rows = std::clamp<int64_t>(kItemBytes / (s.c * arrays * static_cast<int64_t>(sizeof(T))), 1, s.n);
    parallel_for(worth_sharing(machine, s.n * s.c * arrays * sizeof(T)), ceil_div(s.n, rows), [&](int64_t item, int) {
      work(Runs{std::min(rows, s.n - item * rows), s.c, s.c}, item * rows * s.c, 0);
    });
    return;
  }
  for_chunks(machine, s.n * s.c * s.pixels, arrays * sizeof(T), [&](int64_t first, int64_t count) {
    for (int64_t i = first; i < first + count;) {
      const int64_t plane = i / s.pixels, end = std::min((plane + 1) * s.pixels, first + count);
      work(Runs{1, end - i, 0}, i, plane % s.c);
      i = end;
    }
  });
}

// Calls reduce(runs, element offset, channel, index of the first result) as for_channel_chunks does, with the results
// of a channel finish(channel), and then map(runs, element offset, channel) as for_elements does; `arrays` are read.
template <class T, class Reduce, class Finish, class Map>
void reduce_and_map(const Machine& machine, const Chunks& chunks, int64_t arrays, const Reduce& reduce,
                    const Finish& finish, const Map& map) {
  const ChannelShape& s = chunks.shape;
  const int64_t bytes = s.n * s.pixels * arrays * sizeof(T);  // of a channel
  const Parallel parallel = worth_sharing(machine, s.c * bytes);
  if (chunks.columns || bytes > machine.l2_bytes / 2 || s.c < kChannelsPerThread * parallel.slots) {
    for_channel_chunks(machine, chunks, s.c * bytes, reduce);
    const int64_t channels = std::max<int64_t>(1, kChunk / chunks.count);
    parallel_for(worth_sharing(machine, s.c * chunks.count * kJoinBytes), ceil_div(s.c, channels),
                 [&](int64_t item, int) {
                   const int64_t last = std::min(s.c, (item + 1) * channels);
                   for (int64_t c = item * channels; c < last; ++c) finish(c);
                 });
    for_elements<T>(machine, s, arrays + 1, map);
    return;
  }
  const int64_t channels = std::clamp<int64_t>(kItemBytes / bytes, 1, s.c / (kChannelsPerThread * parallel.slots));
  parallel_for(parallel, ceil_div(s.c, channels), [&](int64_t item, int) {
    const int64_t last = std::min(s.c, (item + 1) * channels);
    for (int64_t c = item * channels; c < last; ++c) {
      for (int64_t chunk = 0; chunk < chunks.count; ++chunk)
        reduce(chunks.runs_of(chunk), chunks.offset_of(chunk) + c * s.pixels, c, chunk * s.c + c);
      finish(c);
      map(Runs{s.n, s.pixels, s.c * s.pixels}, c * s.pixels, c);
    }
  });
}

// One array of T per channel for each name.
template <class T, int ARRAYS>
class PerChannel {
 public:
  explicit PerChannel(int64_t channels) : channels_(channels), memory_(ARRAYS * channels * sizeof(T)) {}
  bool failed() const { return memory_.failed(); }
  T* operator[](int i) const { return static_cast<T*>(memory_.data()) + i * channels_; }

 private:
  int64_t channels_;
  Workspace memory_;
};

template <class T>
void normalise(const Machine& machine, const ChannelShape& s, const T* x, const T* mean, const T* scale, const T* shift,
               T* y) {
  const auto& kernels = norm_kernels<T>(machine, s.pixels == 1);
  for_elements<T>(machine, s, 2, [&](const Runs& runs, int64_t i, int64_t c) {
    kernels.apply(runs, x + i, mean + c, scale + c, shift + c, y + i);
  });
}

bool is_empty(const ChannelShape& s) { return s.n == 0 || s.c == 0 || s.pixels == 0; }

}  // namespace

template <class T>
bool channel_sum(const Machine& machine, const ChannelShape& s, const T* x, T* sum) {
  if (is_empty(s)) {
    std::fill_n(sum, s.c, T(0));
    return true;
  }
  const Chunks chunks(s, sizeof(T));
  const Workspace memory(chunks.count * s.c * static_cast<int64_t>(sizeof(double)));
  if (memory.failed()) return false;
  double* partial = static_cast<double*>(memory.data());
  const auto& kernels = norm_kernels<T>(machine, chunks.columns);
  for_channel_chunks(
      machine, chunks, s.n * s.c * s.pixels * sizeof(T),
      [&](const Runs& runs, int64_t i, int64_t, int64_t result) { kernels.sum(runs, x + i, partial + result); });
  for (int64_t c = 0; c < s.c; ++c) sum[c] = static_cast<T>(join_chunks(chunks, partial, c));
  return true;
}

template <class T>
bool batch_norm_forward(const Machine& machine, const ChannelShape& s, const T* x, const T* gamma, const T* beta,
                        double eps, T* y, T* mean, T* variance) {
  if (is_empty(s)) return true;
  const Chunks chunks(s, sizeof(T));
  const Workspace memory(2 * chunks.count * s.c * static_cast<int64_t>(sizeof(double)));
  const PerChannel<T, 2> factors(s.c);
  if (memory.failed() || factors.failed()) return false;
  double *means = static_cast<double*>(memory.data()), *squares = means + chunks.count * s.c;
  const auto& kernels = norm_kernels<T>(machine, chunks.columns);
  T *scale = factors[0], *shift = factors[1];
  reduce_and_map<T>(
      machine, chunks, 1,
      [&](const Runs& runs, int64_t i, int64_t, int64_t result) {
        kernels.moments(runs, x + i, means + result, squares + result);
      },
      [&](int64_t c) {
        const Moments all = join_moments(0, chunks.count, [&](int64_t i) {
          return Moments{chunks.values_of(i), means[i * s.c + c], squares[i * s.c + c]};
        });
        const double factor = static_cast<double>(gamma[c]) / std::sqrt(all.squares / all.count + eps);
        mean[c] = static_cast<T>(all.mean);
        variance[c] = static_cast<T>(all.squares / all.count);
        scale[c] = static_cast<T>(factor);
        // The part of the mean that T cannot hold goes into the shift.
        shift[c] = static_cast<T>(static_cast<double>(beta[c]) - (all.mean - static_cast<double>(mean[c])) * factor);
      },
      [&](const Runs& runs, int64_t i, int64_t c) {
        kernels.apply(runs, x + i, mean + c, scale + c, shift + c, y + i);
      });
  return true;
}

template <class T>
bool batch_norm_inference(const Machine& machine, const ChannelShape& s, const T* x, const T* gamma, const T* beta,
                          const T* mean, const T* variance, double eps, T* y) {
  if (is_empty(s)) return true;
  const PerChannel<T, 1> scale(s.c);
  if (scale.failed()) return false;
  for (int64_t c = 0; c < s.c; ++c)
    scale[0][c] = static_cast<T>(static_cast<double>(gamma[c]) / std::sqrt(static_cast<double>(variance[c]) + eps));
  normalise(machine, s, x, mean, scale[0], beta, y);
  return true;
}

// With h = (x - mean) / sigma and M values per channel: dgamma = sum(dy h), dbeta = sum(dy),
// dx = gamma / sigma (dy - dbeta / M - h dgamma / M).
template <class T>
bool batch_norm_backward(const Machine& machine, const ChannelShape& s, const T* dy, const T* x, const T* gamma,
                         const T* mean, const T* variance, double eps, T* dx, T* dgamma, T* dbeta) {
  if (is_empty(s)) {
    std::fill_n(dgamma, s.c, T(0));
    std::fill_n(dbeta, s.c, T(0));
    return true;
  }
  const Chunks chunks(s, sizeof(T));
  const int64_t partials = chunks.count * s.c;
  const Workspace memory(3 * partials * static_cast<int64_t>(sizeof(double)));
  const PerChannel<T, 3> factors(s.c);
  if (memory.failed() || factors.failed()) return false;
  double *sums = static_cast<double*>(memory.data()), *distances = sums + partials, *products = distances + partials;
  const auto& kernels = norm_kernels<T>(machine, chunks.columns);
  T *dy_mean = factors[0], *scale = factors[1], *slope = factors[2];
  const double values = static_cast<double>(s.n * s.pixels);
  reduce_and_map<T>(
      machine, chunks, 2,
      [&](const Runs& runs, int64_t i, int64_t c, int64_t result) {
        kernels.backward_sums(runs, dy + i, x + i, mean + c, sums + result, distances + result, products + result);
      },
      [&](int64_t c) {
        const double sum = join_chunks(chunks, sums, c);
        // `mean` is the mean rounded to T: x - mean does not quite sum to zero, which a large sum of dy would enlarge.
        const double rounding = join_chunks(chunks, distances, c) / values;
        const double product = join_chunks(chunks, products, c) - sum * rounding;
        const double inverse = 1 / std::sqrt(static_cast<double>(variance[c]) + eps);
        const double factor = static_cast<double>(gamma[c]) * inverse;
        dbeta[c] = static_cast<T>(sum);
        dgamma[c] = static_cast<T>(product * inverse);
        scale[c] = static_cast<T>(factor);
        slope[c] = static_cast<T>(-factor * inverse * inverse * product / values);
        dy_mean[c] = static_cast<T>(sum / values);
      },
      [&](const Runs& runs, int64_t i, int64_t c) {
        kernels.backward(runs, dy + i, x + i, dy_mean + c, mean + c, scale + c, slope + c, dx + i);
      });
  return true;
}

#define FC_INSTANTIATE(T)                                                                                            \
  template bool channel_sum<T>(const Machine&, const ChannelShape&, const T*, T*);                                   \
  template bool batch_norm_forward<T>(const Machine&, const ChannelShape&, const T*, const T*, const T*, double, T*, \
                                      T*, T*);                                                                       \
  template bool batch_norm_inference<T>(const Machine&, const ChannelShape&, const T*, const T*, const T*, const T*, \
                                        const T*, double, T*);                                                       \
  template bool batch_norm_backward<T>(const Machine&, const ChannelShape&, const T*, const T*, const T*, const T*,  \
                                       const T*, double, T*, T*, T*);
FC_INSTANTIATE(float)
FC_INSTANTIATE(double)
#undef FC_INSTANTIATE

}  // namespace fastconv
