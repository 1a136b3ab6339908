// SPDX-License-Identifier: Apache-2.0
// The kernel of the forward pass and of backward-data, and its launches. One kind of arithmetic to a source file: they
// are what takes the compiler's time.
#pragma once

#include "implicit_store.cuh"

namespace fastconv::cuda {

// blockIdx.x: tiles of rows of a group, groups, tiles of pixels; y: the chunk, where each has its block; z: the phase.
template <class A, class S, bool last>
__global__ void __launch_bounds__(S::kThreads, resident_blocks<S>(last && !A::kPromotes))
    implicit_images(ImageTask<typename A::T> t) {
  auto& s = shared<ImageMemory<S>>();
  const ImagePhase& phase = t.phases[blockIdx.z];
  int row_tile, group;
  const int64_t first_pixel =
      int64_t{t.by_groups.divide(t.by_row_tiles.divide(static_cast<int>(blockIdx.x), &row_tile), &group)} * S::kColumns;
  const int row = row_tile * S::kRows;
  const int begin = t.partials ? static_cast<int>(blockIdx.y) * t.chunk : 0;
  // The grid is that of the largest phase; one without taps is zeros.
  if (first_pixel >= phase.pixels || (begin > 0 && begin >= phase.steps)) return;
  const int end = t.partials && begin + t.chunk < phase.steps ? begin + t.chunk : phase.steps;
  ImageLoader<A, S, last> loader(t, phase, s.tile, group, row, first_pixel);
  WarpSums<S> sums;
  sum_products<A, S, true, last>(s.tile, loader, begin, end, t.chunk, sums);
  put_sums<S>(s.tile, sums);
  if (t.partials)
    store_partials(t, phase, s, static_cast<int>(blockIdx.y), group, row, first_pixel);
  else
    store_tile(t, phase, s, group, row, first_pixel);
}

template <class T>
bool are_aligned(const T* base, const Image& image, int64_t group_channels, int64_t neighbours) {
  const auto fits = [&](int64_t distance) { return distance == 1 || distance % neighbours == 0; };
  return reinterpret_cast<uintptr_t>(base) % std::min<uint64_t>(16, sizeof(T) * static_cast<uint64_t>(neighbours)) ==
             0 &&
         image.batch % neighbours == 0 && fits(image.pixel) && fits(image.channel) &&
         (image.channel != 1 || group_channels % neighbours == 0);
}

template <class T>
ImageTask<T> image_task_of(const ConvProblem& p, const RunContext& r, const void* weights) {
  ImageTask<T> t{};
  t.c = conv_of<T>(p, r);
  const ImplicitSizes sizes(p);
  const bool forward = is_forward(p);
  t.rs = forward ? t.c.xs : t.c.ys, t.ws = forward ? t.c.ys : t.c.xs;
  t.read = forward ? t.c.x : t.c.y, t.written = forward ? t.c.y : t.c.x;
  t.weights = static_cast<const T*>(weights);
  t.rows = static_cast<int32_t>(sizes.rows), t.channels = static_cast<int32_t>(sizes.channels);
  bool in_order = true;
  for (int i = 0; i < kMaxSpatial; ++i) {
    t.size[i] = static_cast<int32_t>(forward ? p.size[i] : t.c.out[i]);
    t.step[i] = static_cast<int32_t>(forward ? p.stride[i] : 1);
    t.spacing[i] = static_cast<int32_t>(forward ? 1 : p.stride[i]);
    t.written_size[i] = forward ? t.c.out[i] : p.size[i];
    in_order = in_order && t.size[i] == t.written_size[i] && t.step[i] == 1 && t.spacing[i] == 1 && p.filter[i] == 1 &&
               p.pad_begin[i] == 0;
  }
  const int64_t plane = t.written_size[0] * t.written_size[1] * t.written_size[2];
  t.pieces =
      in_order && t.rs.pixel == 1 && plane % kPiece<T> == 0 && are_aligned(t.read, t.rs, sizes.channels, kPiece<T>);
  const bool whole = forward || phase_count(p) == 1;
  t.vectors = are_aligned(t.written, t.ws, sizes.rows, kStored) &&
              (!t.c.residual || are_aligned(t.c.residual, t.ws, sizes.rows, kStored)) &&
              (t.ws.channel == 1 || (whole && t.ws.pixel == 1 && plane % kStored == 0));
  t.by_channels = Divisor32(sizes.channels), t.by_groups = Divisor32(sizes.groups);
  return t;
}

template <class T>
ImagePhase image_phase_of(const ConvProblem& p, const ImplicitSizes& sizes, const ImplicitPhase& from) {
  ImagePhase phase{};
  int64_t positions[kMaxSpatial];
  for (int i = 0; i < kMaxSpatial; ++i) {
    const ImplicitAxis& a = from.axis[i];
    phase.axis[i] = {static_cast<int32_t>(a.origin), static_cast<int32_t>(a.tap_step), static_cast<int32_t>(a.first)};
    positions[i] = std::max<int64_t>(1, a.positions);
  }
  phase.depth = static_cast<int32_t>(from.taps * sizes.channels);
  phase.steps = static_cast<int32_t>(sizes.steps(from));
  phase.pixels = p.n * from.pixels;
  phase.image = Divisor(std::max<int64_t>(1, from.pixels));
  phase.plane = Plane(positions);
  phase.tap_plane = Divisor32(std::max<int64_t>(1, from.axis[1].taps));
  phase.tap_row = Divisor32(std::max<int64_t>(1, from.axis[2].taps));
  return phase;
}

template <class A, class S, bool last>
int launch_images(const RunContext& r, ImageTask<typename A::T>& t, int64_t pixels, int64_t chunks, int64_t phases) {
  const int64_t row_tiles = divide_up(t.rows, S::kRows);
  double products = 0;
  for (int64_t i = 0; i < phases; ++i)
    products += times(round_up(t.phases[i].pixels, S::kColumns), t.phases[i].steps, kStepDepth<typename A::T>);
  starts(r, Phase::kProducts, products * times(row_tiles * S::kRows, t.c.p.groups, A::kProducts));
  t.by_row_tiles = Divisor32(row_tiles);
  const Grid grid{row_tiles * t.c.p.groups * divide_up(pixels, S::kColumns), chunks, phases};
  return launch(r, implicit_images<A, S, last>, grid, S::kThreads, sizeof(ImageMemory<S>), t);
}

template <class A>
int run_images(const ConvProblem& p, const RunContext& r, const void* weights, void* scratch) {
  typedef typename A::T T;
  const ImplicitSizes sizes(p);
  const ImplicitSharing sharing = sharing_of(p, *r.machine);
  ImageTask<T> t = image_task_of<T>(p, r, weights);
  const bool last = t.rs.channel == 1 && are_aligned(t.read, t.rs, sizes.channels, kPiece<T>);
  t.chunk = static_cast<int32_t>(sharing.chunk);
  t.partials = sharing.chunks > 1 ? static_cast<float*>(scratch) : nullptr;
  const int64_t phases = phase_count(p);
  int64_t weights_at = 0, partials_at = 0;
  for (int64_t first = 0; first < phases; first += kMostPhases) {
    const int64_t count = std::min<int64_t>(kMostPhases, phases - first);
    int64_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      const ImplicitPhase phase = phase_of(p, first + i);
      t.phases[i] = image_phase_of<T>(p, sizes, phase);
      t.phases[i].weights = weights_at, t.phases[i].partials = partials_at;
      weights_at += sizes.weights(phase);
      partials_at += divide_up(t.phases[i].steps, sharing.chunk) * sizes.groups * sizes.rows * t.phases[i].pixels;
      most = std::max(most, t.phases[i].pixels);
    }
    const auto start = [&](auto shape) {
      typedef decltype(shape) S;
      return last ? launch_images<A, S, true>(r, t, most, sharing.chunks, count)
                  : launch_images<A, S, false>(r, t, most, sharing.chunks, count);
    };
    int status = sharing.shape == ImplicitShape::kLarge   ? start(LargeTile())
                 : sharing.shape == ImplicitShape::kSmall ? start(SmallTile())
                                                          : start(FlatTile());
    if (!status && t.partials) {
      starts(r, Phase::kSums);
      const Grid grid{std::min(divide_up(most, kAddThreads), kMostBlocksX),
                      std::min(sizes.groups * sizes.rows, kMostBlocksYZ), count};
      status = launch(r, implicit_add_chunks<T>, grid, kAddThreads, 0, t);
    }
    if (status) return status;
  }
  return 0;
}

}  // namespace fastconv::cuda
