// SPDX-License-Identifier: Apache-2.0
// The steps of a session other than convolution and pooling. Those on one element at a time take any rows;
// normalisations and the like take dense ones.
#pragma once

#include <array>

#include "group_norm.h"
#include "resample.h"
#include "response_norm.h"
#include "session.h"

namespace fastconv {

// y = activation(x).
struct ActivationStep final : Step {
  DType dtype;
  Activation kind;
  double alpha;
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

// y = activation(scale x + shift); a row is `channels` runs of `inner` elements that share a scale and a shift.
struct ScaleShiftStep final : Step {
  DType dtype;
  Activation kind;
  double alpha;
  int64_t channels, inner;
  int32_t scale, shift;  // buffers
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

enum class BinaryKind : int32_t { kAdd, kSubtract, kMultiply };

// y = activation(a op b).
struct BinaryStep final : Step {
  DType dtype;
  BinaryKind op;
  Activation kind;
  double alpha;
  Rows a, b, y;

  Failure run(const StepCall& call) const override;
};

// y = x gate: a row of x is `channels` runs of `inner` elements; `repeat` rows share a row of `channels` gates.
struct GateStep final : Step {
  DType dtype;
  int64_t channels, inner, repeat;
  Rows x, gate, y;

  Failure run(const StepCall& call) const override;
};

// y = x > 0 ? x : slope x, dense: n * channels planes of `inner`.
struct PReluStep final : Step {
  DType dtype;
  int64_t n, channels, inner;
  int32_t slopes;
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

inline constexpr int kMaxCopyAxes = 8;

// y[i] = x[i], over up to eight axes with any strides on either side: transposed, cut, repeated, put into a frame.
struct CopyStep final : Step {
  DType dtype;
  int axes;
  std::array<int64_t, kMaxCopyAxes> shape, from_strides, to_strides;  // elements; those of x may be negative or 0
  int32_t from_buffer, to_buffer;
  int64_t from_offset, to_offset;
  bool fills;  // first `frame` with `value`
  double value;
  Rows frame;

  Failure run(const StepCall& call) const override;
};

// Dense, like the following.
struct SoftmaxStep final : Step {
  DType dtype;
  bool log;
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

struct ResponseNormStep final : Step {
  DType dtype;
  ResponseNorm norm;
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

struct GroupNormStep final : Step {
  DType dtype;
  GroupShape shape;
  double eps;
  int32_t gamma, beta;  // buffers
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

struct ResampleStep final : Step {
  DType dtype;
  int64_t inputs, outputs, outer, inner;
  int32_t first, start, weights;  // buffers
  Rows x, y;

  Failure run(const StepCall& call) const override;
};

}  // namespace fastconv
