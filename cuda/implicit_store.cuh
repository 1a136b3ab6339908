// SPDX-License-Identifier: Apache-2.0
// The end of a forward or backward-data tile: bias, residual and activation, and stores of 8 neighbours where the
// tensor allows it. Also the sum of chunks that had blocks of their own.
#pragma once

#include "implicit_loaders.cuh"

namespace fastconv::cuda {

constexpr int kStored = 8;  // neighbours: 16 bytes of halves

// Offset of a pixel in the tensor written, from channel 0.
template <class T>
__device__ __forceinline__ int64_t written_offset(const ImageTask<T>& t, const ImagePhase& phase, int64_t pixel) {
  int64_t in_image, position[kMaxSpatial];
  const int64_t n = phase.image.divide(pixel, &in_image);
  phase.plane.places(in_image, position);
#pragma unroll
  for (int i = 0; i < kMaxSpatial; ++i) position[i] = position[i] * t.spacing[i] + phase.axis[i].first;
  return n * t.ws.batch +
         ((position[0] * t.written_size[1] + position[1]) * t.written_size[2] + position[2]) * t.ws.pixel;
}

__device__ __forceinline__ bool is_plain(Activation a) { return a == Activation::kNone || a == Activation::kRelu; }

// Stores 8 sums whose activation is plain; `done`: they are finished already. Biases lie bias_step (0 or 1) apart.
template <class T>
__device__ __forceinline__ void store_vector(const ImageTask<T>& t, int64_t at, int64_t channel, int bias_step,
                                             float (&sum)[kStored], bool done) {
  if (!done) {
    if (t.c.bias) {
#pragma unroll
      for (int e = 0; e < kStored; ++e) sum[e] += widen(t.c.bias[channel + e * bias_step]);
    }
    if (t.c.residual) {
      constexpr int kE = kPiece<T>;
#pragma unroll
      for (int first = 0; first < kStored; first += kE) {
        const auto more = load<kE>(t.c.residual + at + first);
#pragma unroll
        for (int e = 0; e < kE; ++e) sum[first + e] += widen(more.at[e]);
      }
    }
    if (t.c.p.activation == Activation::kRelu) {
#pragma unroll
      for (int e = 0; e < kStored; ++e) sum[e] = sum[e] < 0 ? 0 : sum[e];
    }
  }
  constexpr int kE = kPiece<T>;
#pragma unroll
  for (int first = 0; first < kStored; first += kE) {
    Vector<T, kE> values;
#pragma unroll
    for (int e = 0; e < kE; ++e) values.at[e] = narrowed<T>(sum[first + e]);
    store(t.written + at + first, values);
  }
}

template <class S>
struct ImageMemory {
  TileMemory<S> tile;
  int64_t places[S::kColumns];  // of the pixels in the tensor written; below 0: beyond the last
};

// The sums that put_sums left; `row` and `first_pixel` are the tile's first.
template <class T, class S>
__device__ __forceinline__ void store_tile(const ImageTask<T>& t, const ImagePhase& phase, ImageMemory<S>& s, int group,
                                           int row, int64_t first_pixel) {
  const int thread = static_cast<int>(threadIdx.x), rows = t.rows - row;
  const int64_t channel = int64_t{group} * t.rows + row;
  const bool last = t.ws.channel == 1;  // also planes of one pixel
  for (int i = thread; i < S::kColumns; i += S::kThreads)
    s.places[i] = first_pixel + i < phase.pixels ? written_offset(t, phase, first_pixel + i) : -1;
  sync();
  // One by one; before a store of vectors only what they cannot do, in place. Neighbours in memory by neighbours.
  const bool finished = !is_plain(t.c.p.activation);
  if (finished || !t.vectors) {
    for (int i = thread; i < S::kRows * S::kColumns; i += S::kThreads) {
      const int r = last ? i % S::kRows : i / S::kColumns, column = last ? i / S::kRows : i % S::kColumns;
      if (r >= rows || s.places[column] < 0) continue;
      const int64_t at = s.places[column] + (channel + r) * t.ws.channel;
      float& sum = s.tile.sums[sum_place<S>(r, column)];
      if (!t.vectors) {
        finish(t.c, t.written, at, channel + r, sum);
        continue;
      }
      float value = sum;
      if (t.c.bias) value += widen(t.c.bias[channel + r]);
      if (t.c.residual) value += widen(t.c.residual[at]);
      sum = activate(value, t.c.p.activation, t.c.alpha);
    }
    if (!t.vectors) return;
    sync();
  }
  constexpr int kVectors = S::kRows * S::kColumns / kStored;
  if (last) {
    // 4 vectors of rows and 8 pixels to a warp (sum_place).
    constexpr int kFours = S::kRows / kStored / 4;
    for (int i = thread; i < kVectors; i += S::kThreads) {
      const int rest = i / kWarp, r = (rest % kFours * 4 + i % 4) * kStored, column = rest / kFours * 8 + i / 4 % 8;
      if (r >= rows || s.places[column] < 0) continue;
      float sum[kStored];
#pragma unroll
      for (int e = 0; e < kStored; ++e) sum[e] = s.tile.sums[sum_place<S>(r + e, column)];
      store_vector(t, s.places[column] + channel + r, channel + r, 1, sum, finished);
    }
  } else {
    for (int i = thread; i < kVectors; i += S::kThreads) {
      constexpr int kAcross = S::kColumns / kStored;
      const int r = i / kAcross, column = i % kAcross * kStored;
      if (r >= rows || s.places[column] < 0) continue;
      const Vector<float, 4>* from = reinterpret_cast<const Vector<float, 4>*>(s.tile.sums + sum_place<S>(r, column));
      float sum[kStored];
#pragma unroll
      for (int e = 0; e < kStored; ++e) sum[e] = from[e / 4].at[e % 4];
      store_vector(t, s.places[column] + (channel + r) * t.ws.channel, channel + r, 0, sum, finished);
    }
  }
}

// Partial sums of a chunk: [chunk][channel][pixel].
template <class T, class S>
__device__ __forceinline__ void store_partials(const ImageTask<T>& t, const ImagePhase& phase, ImageMemory<S>& s,
                                               int chunk, int group, int row, int64_t first_pixel) {
  const int64_t channel = (int64_t{chunk} * t.c.p.groups + group) * t.rows + row;
  for (int i = static_cast<int>(threadIdx.x); i < S::kRows * S::kColumns; i += S::kThreads) {
    const int r = i / S::kColumns, column = i % S::kColumns;
    if (r < t.rows - row && first_pixel + column < phase.pixels)
      t.partials[phase.partials + (channel + r) * phase.pixels + first_pixel + column] =
          s.tile.sums[sum_place<S>(r, column)];
  }
}

constexpr int kAddThreads = 128;

// One thread for each element of blockIdx.y's channel and blockIdx.z's phase.
template <class T>
__global__ void __launch_bounds__(kAddThreads) implicit_add_chunks(ImageTask<T> t) {
  const ImagePhase& phase = t.phases[blockIdx.z];
  const int chunks = (phase.steps + t.chunk - 1) / t.chunk;
  const int64_t channels = t.c.p.groups * t.rows;
  for (int64_t pixel = int64_t{blockIdx.x} * kAddThreads + threadIdx.x; pixel < phase.pixels;
       pixel += int64_t{gridDim.x} * kAddThreads) {
    const int64_t place = written_offset(t, phase, pixel);
    for (int64_t channel = blockIdx.y; channel < channels; channel += gridDim.y) {
      const float* from = t.partials + phase.partials + channel * phase.pixels + pixel;
      float sum = 0;
      for (int i = 0; i < chunks; ++i) sum += from[i * channels * phase.pixels];
      finish(t.c, t.written, place + channel * t.ws.channel, channel, sum);
    }
  }
}

}  // namespace fastconv::cuda
