// SPDX-License-Identifier: Apache-2.0
// What the kernels of one instruction set offer to the rest of the library. csrc/kernels/*.cc is compiled once per
// instruction set in a namespace of its own; each file exports one constant struct of function pointers and nothing
// else (a post-build step checks it). The table is passed, never global, so that one process can run all of them.
#pragma once

#include <cstdint>

namespace fastconv {

// ---- gemm_tile.cc: one register tile of C (+)= A B ------------------------------------------------------------
// Where a tile's sums go, and what happens on the way: + what is there, + bias[row], + residual, activation.
template <class T>
struct TileSums {
  T* c;  // [rows][columns], rows ldc apart
  int64_t rows, columns, ldc;
  bool accumulate;              // adds to what is there
  const T* next_a;              // of the next tile, asked for while this one is computed; any address
  const T* next_c;              // where its sums go, likewise
  const T* next_x;              // rows of the panel that is moved next, likewise
  int64_t x_pitch = 0;          // between them
  int64_t next_lines = 0;       // vectors of them to ask for
  const T* bias = nullptr;      // of the tile's rows; null: none
  const T* residual = nullptr;  // as c; null: none
  int32_t activation = 0;       // of those that end_in_tile
};
inline constexpr int kMostPieces = 4;  // of few_tile
// none, relu and relu6, in the order of Activation (problem.h); others take `epilogue`.
inline constexpr bool ends_in_tile(int32_t activation) { return activation < 2 || activation == 3; }

// a[depth][rows] and b[depth][nr] are packed; rows <= mr, columns <= widest: nr, or nr + 1, whose last column lies
// behind the others, b[depth * nr + ...]. With such a column what lies behind the last row of `a` is read too, up to a
// vector.
template <class T>
struct GemmKernelsOf {
  int mr, nr, widest, lanes;
  void (*tile)(int64_t depth, const T* a, const T* b, const TileSums<T>* out);
  // The same of at least nr columns, with b taken from rows x_pitch apart and left at `b` for other tiles.
  void (*moving_tile)(int64_t depth, const T* a, const T* x, int64_t x_pitch, T* b, const TileSums<T>* out);
  // A panel of few columns would leave most of a vector empty: there the rows of a piece are the lanes. Piece i has
  // out[i].rows rows; what lies behind the last row of `a` is read too, up to a vector. few_columns is 0 where a vector
  // does not hold mr rows.
  int few_columns, few_pieces;
  void (*few_tile)(int pieces, int64_t depth, const T* const* a, const T* b, const TileSums<T>* out);
  // dst[column * dst_pitch + row] = src[row * src_pitch + column] for row < rows, 0 for rows <= row < width.
  void (*transpose)(int64_t rows, int64_t cols, int64_t width, const T* src, int64_t src_pitch, T* dst,
                    int64_t dst_pitch);
  // dst[(row * taps + tap) * pitch + lane] = src[places[lane] + offsets[row] + tap], lane < count, in whole vectors;
  // taps >= piece.
  int piece;
  void (*turn_pieces)(int64_t count, const int64_t* places, int64_t rows, const int64_t* offsets, int64_t taps,
                      const T* src, T* dst, int64_t pitch);
  // A row of a packed panel gathered from an image row: for lane in [0, count):
  // dst[lane] = first <= lane < last ? src[lane * step] : 0.  src[lane * step] is touched for those lanes only.
  // Repeated `repeats` times: dst += dst_pitch, src += src_pitch (the channels of a convolution).
  void (*gather_row)(int64_t count, int64_t first, int64_t last, const T* src, int64_t step, int64_t src_pitch, T* dst,
                     int64_t dst_pitch, int64_t repeats);
  // panel[channel][tap][nr]: run r puts nr elements of halo + channel * channel_pitch + tap_offsets[tap] +
  // run_offsets[r] to lane run_lanes[r] on; lanes ascend and what sticks out of a row is overwritten by the next.
  void (*expand)(int64_t channels, int64_t channel_pitch, int64_t taps, const int64_t* tap_offsets, int runs,
                 const int64_t* run_lanes, const int64_t* run_offsets, const T* halo, T* panel);
  // c[row][column] = activation(c + bias[row] + residual[row][column]); bias and residual may be null.
  void (*epilogue)(int64_t rows, int64_t cols, T* c, int64_t ldc, const T* bias, const T* residual, int64_t ldr,
                   int32_t activation, T alpha);
  // sum[i] = sum over parts (in ascending order, pairwise tree) of parts[part * pitch + i].
  void (*reduce)(int64_t count, int64_t parts, const T* src, int64_t pitch, T* sum);
  // Multiply-adds on registers alone, for measuring the peak; returns the floating-point operations done.
  double (*fma_burst)(int64_t steps, T* sink);
};
struct GemmKernels {
  GemmKernelsOf<float> f32;
  GemmKernelsOf<double> f64;
};

// ---- convert.cc: float16 and bfloat16, whose bits are uint16_t, to float32 and back -------------------------------
struct HalfKernels {
  // Rows of `count` numbers each, the pitches apart. Narrowing rounds to nearest, ties to even.
  void (*widen)(int64_t rows, int64_t count, const uint16_t* half, int64_t half_pitch, float* single,
                int64_t single_pitch);
  void (*narrow)(int64_t rows, int64_t count, const float* single, int64_t single_pitch, uint16_t* half,
                 int64_t half_pitch);
};
struct ConvertKernels {
  HalfKernels f16, bf16;
};

struct AmxKernels;        // amx_kernels.h
struct Col2imKernels;     // col2im_kernels.h
struct DepthwiseKernels;  // depthwise_kernels.h
struct DepthwisePixelKernels;
struct DepthwisePlaneKernels;
struct DepthwiseTapsKernels;
struct DirectKernels;            // direct_kernels.h
struct GroupedKernels;           // grouped_kernels.h
struct ImplicitGradientKernels;  // implicit_gradient_kernels.h
struct ImplicitKernels;          // implicit_kernels.h
struct PoolKernels;              // pool_kernels.h
struct PoolBackwardKernels;
struct PoolNormKernels;
struct PointwiseKernels;  // pointwise_kernels.h
struct OptimKernels;
struct NormKernels;  // norm_kernels.h
struct RowNormKernels;
struct ResponseNormKernels;  // window_kernels.h
struct ResampleKernels;
struct LossKernels;
struct PairLossKernels;
struct WinogradKernels;  // winograd_kernels.h
struct WinogradTransformTable;
struct WinogradGradientKernels;  // winograd_gradient_kernels.h

struct KernelTable {
  const char* isa;
  int vector_bytes;
  const GemmKernels* gemm;
  const Col2imKernels* col2im;
  const DepthwiseKernels* depthwise;
  const DepthwisePixelKernels* depthwise_pixels;
  const DepthwisePlaneKernels* depthwise_planes;
  const DepthwiseTapsKernels* depthwise_taps;
  const DirectKernels* direct;
  const GroupedKernels* grouped;
  const ImplicitKernels* implicit;
  const ImplicitGradientKernels* implicit_gradient;
  const PoolKernels* pool_planes;   // channels first
  const PoolKernels* pool_windows;  // channels first, windows of different sizes
  const PoolKernels* pool_pixels;   // channels last
  const PoolBackwardKernels* pool_planes_backward;
  const PoolBackwardKernels* pool_pixels_backward;
  const PoolNormKernels* pool_norm;
  const PointwiseKernels* pointwise;
  const OptimKernels* optim;
  const NormKernels* norm;
  const RowNormKernels* row_norm;
  const ResponseNormKernels* response_norm;
  const ResampleKernels* resample;
  const LossKernels* loss;
  const PairLossKernels* pair_loss;
  const ConvertKernels* convert;
  const WinogradKernels* winograd;
  const WinogradTransformTable* winograd_transforms;
  const WinogradGradientKernels* winograd_gradient;
  const AmxKernels* amx = nullptr;  // of `amx` alone
};

}  // namespace fastconv
