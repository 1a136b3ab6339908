// SPDX-License-Identifier: Apache-2.0
// What a block of the implicit product reads for a step: packed weights, which lie in pieces, and pixels of an image
// through a tap.
#pragma once

#include "conv.cuh"
#include "implicit_gemm.h"
#include "implicit_tile.cuh"

namespace fastconv::cuda {

// A phase as the kernel takes it.
struct PhaseAxis {
  int32_t origin, tap_step, first;
};
struct ImagePhase {
  PhaseAxis axis[kMaxSpatial];
  int32_t depth, steps;  // taps * channels, and its steps
  int64_t pixels;        // of all images
  int64_t weights, partials;
  Divisor image;  // by the pixels of one
  Plane plane;
  Divisor32 tap_plane, tap_row;  // by taps[1] and taps[2]
};

template <class T>
struct ImageTask {
  Conv<T> c;
  Image rs, ws;
  const T *read, *weights;
  T* written;
  float* partials;  // null: the block does all chunks
  int32_t rows, channels;
  int32_t size[kMaxSpatial];     // of what is read
  int32_t step[kMaxSpatial];     // of places read
  int32_t spacing[kMaxSpatial];  // of places written
  int64_t written_size[kMaxSpatial];
  int32_t chunk;
  int32_t pieces;   // planes: the pixels of a tile's row are read 16 bytes at a time
  int32_t vectors;  // 8 neighbours are stored at once
  Divisor32 by_channels, by_row_tiles, by_groups;
  ImagePhase phases[kMostPhases];
};

// Where a pixel is read through its tap 0, and the offset of that place from the group's first element.
struct Pixel {
  int64_t offset;
  int32_t at[kMaxSpatial];
};
constexpr int32_t kNowhere = -(1 << 30);  // outside for every tap

template <class T>
__device__ __forceinline__ Pixel pixel_of(const ImageTask<T>& t, const ImagePhase& phase, int64_t pixel) {
  Pixel result{0, {kNowhere, kNowhere, kNowhere}};
  if (pixel >= phase.pixels) return result;
  int64_t in_image, position[kMaxSpatial];
  const int64_t n = phase.image.divide(pixel, &in_image);
  phase.plane.places(in_image, position);
#pragma unroll
  for (int i = 0; i < kMaxSpatial; ++i)
    result.at[i] = static_cast<int32_t>(position[i]) * t.step[i] + phase.axis[i].origin;
  result.offset =
      n * t.rs.batch + ((int64_t{result.at[0]} * t.size[1] + result.at[1]) * t.size[2] + result.at[2]) * t.rs.pixel;
  return result;
}

// Where a tap lies from tap 0.
struct TapPlace {
  int32_t by[kMaxSpatial];
  int64_t offset;
};
template <class T>
__device__ __forceinline__ TapPlace tap_of(const ImageTask<T>& t, const ImagePhase& phase, int tap) {
  TapPlace result;
  int t1, t2;
  const int t0 = phase.tap_plane.divide(phase.tap_row.divide(tap, &t2), &t1);
  result.by[0] = t0 * phase.axis[0].tap_step;
  result.by[1] = t1 * phase.axis[1].tap_step;
  result.by[2] = t2 * phase.axis[2].tap_step;
  result.offset = ((int64_t{result.by[0]} * t.size[1] + result.by[1]) * t.size[2] + result.by[2]) * t.rs.pixel;
  return result;
}
__device__ __forceinline__ bool is_inside(const int32_t (&at)[kMaxSpatial], const int32_t (&by)[kMaxSpatial],
                                          const int32_t (&size)[kMaxSpatial]) {
  return static_cast<uint32_t>(at[0] + by[0]) < static_cast<uint32_t>(size[0]) &&
         static_cast<uint32_t>(at[1] + by[1]) < static_cast<uint32_t>(size[1]) &&
         static_cast<uint32_t>(at[2] + by[2]) < static_cast<uint32_t>(size[2]);
}

// `last`: what is read has 16 bytes of channels in each piece, and its operand is deep. Otherwise it is wide: pixels
// are copied one by one, wherever they lie, or, of dense rows, 16 bytes of them at a time.
template <class A, class S, bool last>
struct ImageLoader {
  typedef typename A::T T;
  static constexpr bool kPrepares = false;
  static constexpr int kE = kPiece<T>, kDepth = kStepDepth<T>;
  // Deep: every kThreads / 4-th pixel, one piece of each.
  static constexpr int kPixels = S::kColumns * 4 / S::kThreads;
  // Wide, one by one: a word of a run of depths. Floats fill a word, halves share one.
  static constexpr int kInWord = 4 / static_cast<int>(sizeof(T)), kWords = S::kColumns / kInWord;
  static constexpr int kRun = kDepth * kWords / S::kThreads;
  // Wide, by pieces.
  static constexpr int kPiecesAcross = S::kColumns / kE, kDepthsAtOnce = S::kThreads / kPiecesAcross;
  static_assert(S::kThreads % kWords == 0 && kDepth % kDepthsAtOnce == 0);

  const ImageTask<T>& t;
  const ImagePhase& phase;
  TileMemory<S>& s;
  const T *weights, *read;
  int rows;  // of weights that are left
  Pixel pixels[last ? kPixels : kInWord];
  Gathered<last || sizeof(T) == 4 ? 1 : kRun * 2> halves;

  __device__ __forceinline__ ImageLoader(const ImageTask<T>& task, const ImagePhase& its_phase, TileMemory<S>& memory,
                                         int group, int row, int64_t first_pixel)
      : t(task), phase(its_phase), s(memory), rows(task.rows - row) {
    const int thread = static_cast<int>(threadIdx.x);
    weights = t.weights + phase.weights + (int64_t{group} * phase.steps * t.rows + row) * kDepth;
    read = t.read + int64_t{group} * t.channels * t.rs.channel;
    if constexpr (last) {
#pragma unroll
      for (int i = 0; i < kPixels; ++i)
        pixels[i] = pixel_of(t, phase, first_pixel + thread / 4 + i * (S::kThreads / 4));
    } else if (t.pieces) {
      pixels[0] = pixel_of(t, phase, first_pixel + thread % kPiecesAcross * kE);
    } else {
#pragma unroll
      for (int i = 0; i < kInWord; ++i) pixels[i] = pixel_of(t, phase, first_pixel + thread % kWords * kInWord + i);
    }
  }

  __device__ __forceinline__ void prepare(int) {}

  __device__ __forceinline__ void issue(int step, int stage) {
    const int thread = static_cast<int>(threadIdx.x);
    const T* from = weights + int64_t{step} * t.rows * kDepth;
#pragma unroll
    for (int i = thread; i < S::kRows * 4; i += S::kThreads)
      copy_async<16>(s.stages.a[stage] + deep_piece(i / 4, i % 4), from + i * kE, i / 4 < rows);
    if constexpr (last)
      channels_of_pixels(step, s.stages.b[stage]);
    else if (t.pieces)
      pieces_of_planes(step, s.stages.b[stage]);
    else
      places_of_planes(step, s.stages.b[stage]);
  }

  __device__ __forceinline__ void channels_of_pixels(int step, uint32_t* to) {
    const int thread = static_cast<int>(threadIdx.x), k = step * kDepth + thread % 4 * kE;
    int channel;
    const TapPlace tap = tap_of(t, phase, t.by_channels.divide(k, &channel));
#pragma unroll
    for (int i = 0; i < kPixels; ++i) {
      const bool valid = k < phase.depth && is_inside(pixels[i].at, tap.by, t.size);
      copy_async<16>(to + deep_piece(thread / 4 + i * (S::kThreads / 4), thread % 4),
                     read + (pixels[i].offset + tap.offset + channel), valid);
    }
  }

  __device__ __forceinline__ void pieces_of_planes(int step, uint32_t* to) {
    const int thread = static_cast<int>(threadIdx.x), piece = thread % kPiecesAcross;
#pragma unroll
    for (int i = 0; i < kDepth / kDepthsAtOnce; ++i) {
      const int depth = thread / kPiecesAcross + i * kDepthsAtOnce, k = step * kDepth + depth;
      copy_async<16>(to + wide_piece<T, S::kColumns>(depth, piece), read + (pixels[0].offset + k * t.rs.channel),
                     k < phase.depth && pixels[0].at[0] >= 0);
    }
  }

  __device__ __forceinline__ void places_of_planes(int step, uint32_t* to) {
    const int thread = static_cast<int>(threadIdx.x), word = thread % kWords, first = thread / kWords * kRun;
    const int k = step * kDepth + first;
    int channel, tap = t.by_channels.divide(k, &channel);
    bool inside[kInWord];
    const T* from[kInWord];
    const auto meet_tap = [&] {
      const TapPlace place = tap_of(t, phase, tap);
#pragma unroll
      for (int e = 0; e < kInWord; ++e) {
        inside[e] = is_inside(pixels[e].at, place.by, t.size);
        from[e] = read + (pixels[e].offset + place.offset + channel * t.rs.channel);
      }
    };
    meet_tap();
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const bool there = k + i < phase.depth;
      if constexpr (sizeof(T) == 4) {
        copy_async<4>(to + wide_piece<T, S::kColumns>(first + i, word / 4) + word % 4, from[0], there && inside[0]);
      } else {
        halves.ask(i * 2, from[0], there && inside[0], weights);
        halves.ask(i * 2 + 1, from[1], there && inside[1], weights);
      }
      if (++channel == t.channels) {
        channel = 0, ++tap;
        if (there) meet_tap();
      } else {
#pragma unroll
        for (int e = 0; e < kInWord; ++e) from[e] += t.rs.channel;
      }
    }
  }

  // Halves that are read one by one pass through registers.
  __device__ __forceinline__ void land(int stage) {
    if constexpr (!last && sizeof(T) == 2) {
      if (t.pieces) return;
      const int thread = static_cast<int>(threadIdx.x), word = thread % kWords, first = thread / kWords * kRun;
#pragma unroll
      for (int i = 0; i < kRun; ++i)
        s.stages.b[stage][wide_piece<T, S::kColumns>(first + i, word / 4) + word % 4] = halves.word(i);
    }
  }
};

}  // namespace fastconv::cuda
