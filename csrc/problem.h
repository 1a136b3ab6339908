// SPDX-License-Identifier: Apache-2.0
// The nouns of the library: one convolution (ConvProblem) and one pooling (PoolProblem).
//
// Both always describe the *forward* geometry; `pass` says what is computed. They are C PODs without padding
// bytes and zero-initialised, so that their bytes are a cache key and cross the C ABI of a device backend.
// Spatial axes are stored right-aligned as (d, h, w): a 1-D problem uses axis 2 only. An unused axis has
// size, filter, stride and dilation 1 and no padding, which makes every kernel a 3-D kernel.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastconv {

inline constexpr int kMaxSpatial = 3;
inline constexpr size_t kTextCapacity = 512;  // enough for any problem's text form and any refusal

enum class Pass : int32_t { kForward, kBackwardData, kBackwardFilter };
enum class Layout : int32_t { kChannelsFirst, kChannelsLast, kBlocked };  // kBlocked is reserved
enum class DType : int32_t { kFloat32, kFloat64, kFloat16, kBFloat16 };
enum class PaddingMode : int32_t { kZeros, kConstant, kReflect, kReplicate, kCircular };
enum class Activation : int32_t {
  kNone,
  kRelu,
  kLeakyRelu,
  kRelu6,
  kElu,
  kSigmoid,
  kTanh,
  kSilu,
  kGelu,
  kHardSwish,
  kGeluTanh,
  kSelu,
  kCelu,
  kHardSigmoid,
  kSoftplus,
  kSoftsign,
  kMish,
  kLogSigmoid
};
// kLp: (sum of |x|^p)^(1/p); kSignedLp: of x^p with its sign, for odd p. p itself is an argument of the run.
enum class PoolKind : int32_t { kMax, kMin, kAverage, kLp, kSignedLp };

// What is added before the activation: y = activation(conv(x, w) + bias + residual). Backward-data as a layer of its
// own, the transposed convolution, has a bias of c elements and an activation too: x = activation(sum + bias).
inline constexpr int32_t kEpilogueBias = 1;
inline constexpr int32_t kEpilogueResidual = 2;

struct ConvProblem {
  Pass pass;
  int32_t spatial_rank;
  Layout x_layout;
  Layout y_layout;
  DType dtype;
  PaddingMode padding_mode;
  Activation activation;
  int32_t epilogue;
  int64_t n, c, k, groups;
  int64_t size[kMaxSpatial];
  int64_t filter[kMaxSpatial];
  int64_t stride[kMaxSpatial];
  int64_t dilation[kMaxSpatial];
  int64_t pad_begin[kMaxSpatial];
  int64_t pad_end[kMaxSpatial];
};
static_assert(sizeof(ConvProblem) == 8 * 4 + 4 * 8 + 18 * 8, "no padding bytes: the bytes are a cache key");

// Windows are either of one size, a stride apart, or `adaptive`: `output` many along each axis, that of output o being
// [floor(o * size / output), ceil((o + 1) * size / output)). What the other rule has is 1 or 0 then.
struct PoolProblem {
  PoolKind kind;
  Pass pass;  // kForward or kBackwardData
  int32_t spatial_rank;
  Layout layout;
  DType dtype;
  int32_t ceil_mode;
  int32_t count_include_pad;
  int32_t adaptive;
  int64_t n, c;
  int64_t divisor;  // what every average divides by; 0: the number of its window's cells
  int64_t size[kMaxSpatial];
  int64_t window[kMaxSpatial];
  int64_t stride[kMaxSpatial];
  int64_t dilation[kMaxSpatial];
  int64_t pad_begin[kMaxSpatial];
  int64_t pad_end[kMaxSpatial];
  int64_t output[kMaxSpatial];  // adaptive only, else 0
};
static_assert(sizeof(PoolProblem) == 8 * 4 + 3 * 8 + 21 * 8, "no padding bytes: the bytes are a cache key");

// The one output-size formula: how many windows of `filter` taps, `dilation` apart and `stride` from each other, fit.
// Never negative. With `ceil_mode` a last window that sticks out is counted too, unless it would start in the
// right padding (PyTorch's rule).
int64_t output_size(int64_t size, int64_t filter, int64_t stride, int64_t dilation, int64_t pad_begin, int64_t pad_end,
                    bool ceil_mode = false);
int64_t output_size(const ConvProblem& problem, int axis);
int64_t output_size(const PoolProblem& problem, int axis);

// The cell that padding shows at coordinate `at` of an axis; kOutside where it shows zeros or the constant. Coordinates
// inside the axis stand for themselves. (constexpr, so that kernels of a device may call it too.)
inline constexpr int64_t kOutside = -1;
constexpr int64_t padded_source(PaddingMode mode, int64_t at, int64_t size) {
  if (at >= 0 && at < size) return at;
  switch (mode) {
    case PaddingMode::kReflect:
      return at < 0 ? -at : 2 * (size - 1) - at;
    case PaddingMode::kReplicate:
      return at < 0 ? 0 : size - 1;
    case PaddingMode::kCircular:
      return at < 0 ? at + size : at - size;
    default:
      return kOutside;
  }
}

// Whether padding shows cells of x, so that their gradients have further terms.
constexpr bool shows_cells(PaddingMode mode) { return mode > PaddingMode::kConstant; }

// Products of the three axes.
int64_t x_plane(const ConvProblem& problem);
int64_t y_plane(const ConvProblem& problem);
int64_t taps(const ConvProblem& problem);
int64_t x_plane(const PoolProblem& problem);
int64_t y_plane(const PoolProblem& problem);

int64_t multiply_adds(const ConvProblem& problem);  // of the direct method
int64_t tensor_bytes(const ConvProblem& problem);   // x, w and y, each once
int64_t element_size(DType dtype);
inline bool is_half(DType dtype) { return dtype == DType::kFloat16 || dtype == DType::kBFloat16; }
// Of what is computed with: float32 for halves.
inline int64_t computed_size(DType dtype) { return dtype == DType::kFloat64 ? 8 : 4; }

// Whether float32 copies of x and y stay in L2 anyway: an algorithm that would copy pieces of halves several times, or
// write where it can only add, does better with them.
bool copies_stay_near(const ConvProblem& problem);

// Empty text: valid. Otherwise one sentence that names the field, what came and what was expected.
// `text` holds at least kTextCapacity characters. Returns true when valid.
bool validate(const ConvProblem& problem, char* text);
bool validate(const PoolProblem& problem, char* text);

// The text form (docs/problem-text.md): parse(to_text(p)) == p. `parse` returns false and writes a sentence.
void to_text(const ConvProblem& problem, char* text);
bool parse(const char* text, ConvProblem* problem, char* error);

const char* name_of(Pass pass);
const char* name_of(Layout layout);
const char* name_of(DType dtype);
const char* name_of(PaddingMode mode);
const char* name_of(Activation activation);
const char* name_of(PoolKind kind);
bool find_by_name(const char* name, Pass* value);
bool find_by_name(const char* name, Layout* value);
bool find_by_name(const char* name, DType* value);
bool find_by_name(const char* name, PaddingMode* value);
bool find_by_name(const char* name, Activation* value);
bool find_by_name(const char* name, PoolKind* value);

}  // namespace fastconv
