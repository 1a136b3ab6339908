// SPDX-License-Identifier: Apache-2.0
// What kernels of one element at a time share: pieces of 16 bytes, loaded and stored at once where they are aligned, and
// element by element at the end and where they are not.
#pragma once

#include "backend.h"
#include "divide.cuh"
#include "element.cuh"
#include "roofline.h"

namespace fastconv::cuda {

constexpr int kPointThreads = 256;
// Elements of a piece.
template <class T>
inline constexpr int kPiece = 16 / static_cast<int>(sizeof(T));

// Whether pieces may be loaded at once from all of these. Null: not used.
template <class... Data>
int32_t aligned_pieces(const Data*... data) {
  return ((reinterpret_cast<uintptr_t>(data) % 16 == 0) && ...);
}

template <class T>
__device__ __forceinline__ Vector<T, kPiece<T>> load_piece(const T* from, int64_t count, bool whole) {
  if (whole) return load<kPiece<T>>(from);
  Vector<T, kPiece<T>> piece;
#pragma unroll
  for (int u = 0; u < kPiece<T>; ++u) piece.at[u] = u < count ? from[u] : narrowed<T>(0);
  return piece;
}
template <class T>
__device__ __forceinline__ void store_piece(T* to, const Vector<T, kPiece<T>>& piece, int64_t count, bool whole) {
  if (whole) return store(to, piece);
#pragma unroll
  for (int u = 0; u < kPiece<T>; ++u)
    if (u < count) to[u] = piece.at[u];
}

// Calls work(first element, how many of the piece there are, whether it is loaded at once).
template <class T, class Work>
__device__ __forceinline__ void for_pieces(int64_t count, int32_t vectors, const Work& work) {
  const int64_t step = int64_t{gridDim.x} * kPointThreads * kPiece<T>;
  for (int64_t i = (int64_t{blockIdx.x} * kPointThreads + threadIdx.x) * kPiece<T>; i < count; i += step)
    work(i, count - i, vectors && count - i >= kPiece<T>);
}
template <class T>
Grid grid_of_pieces(int64_t count) {
  return Grid{std::min(divide_up(count, kPointThreads * kPiece<T>), kMostBlocksX)};
}

inline RunContext run_context(const Machine* machine, void* stream, char* error) {
  RunContext run{};
  run.machine = machine, run.stream = stream, run.error = error;
  return run;
}

// pointwise_activation.cu
int activation(const PointwiseContext& context, const RunContext& run);

}  // namespace fastconv::cuda
