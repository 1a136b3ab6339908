// SPDX-License-Identifier: Apache-2.0
// Means of whole planes (global average pooling) and their gradient. Channels first: a warp sums a plane, or a block a
// large one; its threads take pieces of four cells in turn and meet in a tree. Channels last: a block sums 16 groups of
// channels, 16 threads each taking pixels in turn.
#include "pool_average.cuh"

namespace fastconv::cuda {
namespace {

constexpr int kPiece = 4;
constexpr int64_t kPlaneOfWarp = 4096;  // cells; beyond, a block sums a plane
constexpr int kSide = 16;               // of a block of channels last: groups of channels and pixels
static_assert(kSide * kSide == kPoolThreads);

template <class T>
__device__ __forceinline__ Sum<T> whole_divisor(const Pool<T>& p) {
  return static_cast<Sum<T>>(counted_of(p, 0, 0) * counted_of(p, 1, 0) * counted_of(p, 2, 0));
}
template <class T>
__device__ __forceinline__ void store_mean(const Pool<T>& p, const T* x, int64_t to, Sum<T> sum) {
  const Sum<T> mean = sum / whole_divisor(p);
  p.to_y[to] = narrowed<T>(is_finite(mean) ? mean : mended_mean(p, x, 0, 0, 0));
}

template <class T>
struct WarpSums {
  Sum<T> of_warp[kPoolThreads / kWarp];
};

// `threads` of a block sum a plane: kWarp, or kPoolThreads. `vectors`: pieces are aligned.
template <class T, int threads>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    mean_of_dense_planes(Pool<T> p, Divisor channels, int64_t planes, int64_t cells, int32_t vectors) {
  const int64_t per_block = kPoolThreads / threads;
  const int thread = static_cast<int>(threadIdx.x) % threads;
  for (int64_t first = blockIdx.x * per_block; first < planes; first += gridDim.x * per_block) {
    const int64_t plane = first + static_cast<int64_t>(threadIdx.x) / threads;
    int64_t channel;
    const int64_t n = channels.divide(plane, &channel);
    const T* const x = p.x + n * p.xs.batch + channel * p.xs.channel;
    Sum<T> sum = 0;
    for (int64_t i = int64_t{thread} * kPiece; plane < planes && i < cells; i += threads * kPiece) {
      Vector<T, kPiece> piece;
      const int64_t count = cells - i < kPiece ? cells - i : kPiece;
      if (vectors) {
        piece = load<kPiece>(x + i);
      } else {
#pragma unroll
        for (int u = 0; u < kPiece; ++u) piece.at[u] = u < count ? x[i + u] : narrowed<T>(0);
      }
#pragma unroll
      for (int u = 0; u < kPiece; ++u) sum += widen(piece.at[u]);
    }
#pragma unroll
    for (int half = kWarp / 2; half > 0; half /= 2) sum += shuffle_xor(sum, half);
    if constexpr (threads > kWarp) {
      WarpSums<T>& s = shared<WarpSums<T>>();
      if (thread % kWarp == 0) s.of_warp[thread / kWarp] = sum;
      sync();
      if (thread == 0)
        for (int warp = 1; warp < threads / kWarp; ++warp) sum += s.of_warp[warp];
    }
    if (thread == 0 && plane < planes) store_mean(p, x, plane, sum);
    if constexpr (threads > kWarp) sync();
  }
}

template <class T, int lanes>
struct PixelSums {
  Sum<T> at[kSide][kSide * lanes];
};

template <class T, int lanes>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    mean_of_pixel_planes(Pool<T> p, Divisor per_image, int64_t blocks, int64_t channels, int64_t cells) {
  PixelSums<T, lanes>& s = shared<PixelSums<T, lanes>>();
  const int group = static_cast<int>(threadIdx.x) % kSide, row = static_cast<int>(threadIdx.x) / kSide;
  for (int64_t block = blockIdx.x; block < blocks; block += gridDim.x) {
    int64_t number;
    const int64_t n = per_image.divide(block, &number), channel = (number * kSide + group) * lanes;
    const T* const x = p.x + n * p.xs.batch + channel;
    Sum<T> sum[lanes];
#pragma unroll
    for (int u = 0; u < lanes; ++u) sum[u] = 0;
    if (channel < channels)
#pragma unroll 4
      for (int64_t i = row; i < cells; i += kSide) {
        const auto values = load<lanes>(x + i * p.xs.pixel);
#pragma unroll
        for (int u = 0; u < lanes; ++u) sum[u] += widen(values.at[u]);
      }
#pragma unroll
    for (int u = 0; u < lanes; ++u) s.at[row][group * lanes + u] = sum[u];
    for (int half = kSide / 2; half > 0; half /= 2) {
      sync();
      if (row < half) {
#pragma unroll
        for (int u = 0; u < lanes; ++u) s.at[row][group * lanes + u] += s.at[row + half][group * lanes + u];
      }
    }
    if (row == 0 && channel < channels)
#pragma unroll
      for (int u = 0; u < lanes; ++u) store_mean(p, x + u, n * p.ys.batch + channel + u, s.at[0][group * lanes + u]);
    sync();
  }
}

// dx of all cells of a plane is one share of its dy. A thread writes kPiece neighbours.
template <class T>
__global__ void __launch_bounds__(kPoolThreads, kPoolBlocks)
    spread(Pool<T> p, Divisor cells, Divisor channels, int64_t count, int32_t vectors) {
  const Sum<T> divisor = whole_divisor(p);
  for (int64_t i = first_unit() * kPiece; i < count; i += grid_step() * kPiece) {
    Vector<T, kPiece> piece;
#pragma unroll
    for (int u = 0; u < kPiece; ++u) {
      if (i + u >= count) break;
      int64_t channel, pixel, at = 0;
      if (p.channels_last)
        at = cells.divide(channels.divide(i + u, &channel), &pixel) * p.ys.batch + channel;
      else
        at = cells.quotient(i + u);
      const Sum<T> share = widen(p.dy[at]) / divisor;
      piece.at[u] = narrowed<T>(p.channels_last ? 0 + share : share);  // as the CPU: a sum there, with its +0
      if (!vectors) p.dx[i + u] = piece.at[u];
    }
    if (vectors) store(p.dx + i, piece);
  }
}

template <class T>
bool aligned_pieces(const void* data, int64_t elements) {
  return reinterpret_cast<uintptr_t>(data) % (kPiece * sizeof(T)) == 0 && elements % kPiece == 0;
}

template <class T, int threads>
int run_dense(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const int64_t planes = problem.n * problem.c, cells = x_plane(problem);
  const int32_t vectors =
      aligned_pieces<T>(pool.x, cells) && pool.xs.batch % kPiece == 0 && pool.xs.channel % kPiece == 0;
  return launch(context, mean_of_dense_planes<T, threads>, grid_of(planes, kPoolThreads / threads), kPoolThreads,
                threads > kWarp ? sizeof(WarpSums<T>) : 0, pool, Divisor(problem.c), planes, cells, vectors);
}

template <class T, int lanes>
int run_pixels(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const int64_t per_image = divide_up(problem.c, kSide * lanes), blocks = problem.n * per_image;
  return launch(context, mean_of_pixel_planes<T, lanes>, grid_of(blocks, 1), kPoolThreads, sizeof(PixelSums<T, lanes>),
                pool, Divisor(per_image), blocks, problem.c, x_plane(problem));
}

}  // namespace

template <class T>
int mean_of_planes(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  if (problem.layout == Layout::kChannelsLast)
    return has_vectors(problem, pool, kLanes<T>) ? run_pixels<T, kLanes<T>>(problem, pool, context)
                                                 : run_pixels<T, 1>(problem, pool, context);
  return x_plane(problem) <= kPlaneOfWarp ? run_dense<T, kWarp>(problem, pool, context)
                                          : run_dense<T, kPoolThreads>(problem, pool, context);
}

template <class T>
int spread_over_planes(const PoolProblem& problem, const Pool<T>& pool, const RunContext& context) {
  const int64_t cells = x_plane(problem), count = problem.n * problem.c * cells;
  const int32_t vectors = aligned_pieces<T>(pool.dx, count);
  return launch(context, spread<T>, grid_of(count, kPoolThreads * kPiece), kPoolThreads, 0, pool, Divisor(cells),
                Divisor(problem.c), count, vectors);
}

template int mean_of_planes(const PoolProblem&, const Pool<float>&, const RunContext&);
template int mean_of_planes(const PoolProblem&, const Pool<double>&, const RunContext&);
template int mean_of_planes(const PoolProblem&, const Pool<Half>&, const RunContext&);
template int mean_of_planes(const PoolProblem&, const Pool<BFloat16>&, const RunContext&);
template int spread_over_planes(const PoolProblem&, const Pool<float>&, const RunContext&);
template int spread_over_planes(const PoolProblem&, const Pool<double>&, const RunContext&);
template int spread_over_planes(const PoolProblem&, const Pool<Half>&, const RunContext&);
template int spread_over_planes(const PoolProblem&, const Pool<BFloat16>&, const RunContext&);

}  // namespace fastconv::cuda
