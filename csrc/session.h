// SPDX-License-Identifier: Apache-2.0
// A network as a list of steps on planned memory: what an inference session runs, without Python between the steps.
//
// Steps read and write buffers by number: 0 is the arena, which a caller leases for one run; then come the inputs, the
// outputs and the program's own constants. Where in them, the planner said before; `run` changes nothing of a program,
// so that any number of threads may call it at once.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "constant_memory.h"
#include "plan.h"

namespace fastconv {

// Part of a buffer, in elements: `rows` pieces of `length`, `pitch` apart. A slice of a concatenation is such a part.
struct Rows {
  int32_t buffer;
  int64_t offset, rows, length, pitch;

  int64_t count() const { return rows * length; }
  bool is_dense() const { return rows <= 1 || pitch == length; }
};

// Where images lie, with the pitches of RunContext.
struct ImagePart {
  int32_t buffer;
  int64_t offset, batch_pitch, channel_pitch;
};

struct StepCall {
  const Options* options;  // of the program, with the threads of the call
  char* const* buffers;
  char* text;  // kTextCapacity characters

  template <class T>
  T* at(int32_t buffer, int64_t offset) const {
    return reinterpret_cast<T*>(buffers[buffer]) + offset;
  }
  template <class T>
  T* at(const Rows& rows) const {
    return at<T>(rows.buffer, rows.offset);
  }
};

class Step {
 public:
  virtual ~Step() = default;
  virtual Failure run(const StepCall& call) const = 0;
};

class Program {
 public:
  Program(DType dtype, const Options& options, std::vector<int64_t> buffer_bytes)
      : dtype_(dtype), options_(options), buffer_bytes_(std::move(buffer_bytes)) {}

  DType dtype() const { return dtype_; }
  const Options& options() const { return options_; }
  int64_t bytes_of(int32_t buffer) const;  // -1: there is no such buffer
  size_t size() const { return steps_.size(); }

  // The number of a buffer that holds a copy.
  int32_t add_constant(const void* data, int64_t bytes);
  void add(std::unique_ptr<Step> step) { steps_.push_back(std::move(step)); }

  // Runs the steps [first, last). `buffers`: the arena, inputs and outputs. `seconds`, if not null, has room for one
  // number per step. On failure `text` holds one sentence.
  Failure run(const std::vector<char*>& buffers, int threads, size_t first, size_t last, double* seconds,
              char* text) const;
  // Runs all steps once for each of several batches that lie behind each other in the inputs and outputs, each on one
  // thread, as many side by side as there are `arenas`. `buffers` are those of the first batch, the arena's unused.
  Failure run_pieces(const std::vector<char*>& buffers, const std::vector<char*>& arenas, int64_t pieces,
                     char* text) const;

 private:
  DType dtype_;
  Options options_;
  std::vector<int64_t> buffer_bytes_;
  std::vector<std::unique_ptr<ConstantMemory>> constants_;
  std::vector<std::unique_ptr<Step>> steps_;
};

// The weights of one convolution as its algorithm wants them, and a bias; shared by the programs of all batch sizes.
class PackedWeights {
 public:
  // The problem's algorithm is chosen by the options; on failure `choice()` says why, and nothing is packed.
  // w: the filters, bias: of the channels written, or null.
  PackedWeights(const ConvProblem& problem, const Options& options, const void* w, const void* bias);

  const ConvProblem& problem() const { return problem_; }
  const Choice& choice() const { return choice_; }
  bool is_packed() const { return packed_; }
  const char* weights() const { return weights_->data(); }
  const char* bias() const { return bias_ ? bias_->data() : nullptr; }
  int64_t bytes() const { return (weights_ ? weights_->bytes() : 0) + (bias_ ? bias_->bytes() : 0); }

 private:
  ConvProblem problem_;
  Choice choice_;
  bool packed_ = false;
  std::unique_ptr<ConstantMemory> weights_, bias_;
};

// Reads `from` and writes `to`: x and y, or for backward-data y and x.
struct ConvStep final : Step {
  ConvProblem problem;
  std::shared_ptr<const PackedWeights> weights;
  ImagePart from, to;
  int32_t residual = -1;  // a buffer; -1: none. Its part has the pitches of y.
  int64_t residual_offset = 0;
  double alpha = 0, pad_value = 0;

  ~ConvStep() override;
  Failure run(const StepCall& call) const override;

 private:
  // What was chosen for a number of threads: options of a program differ in nothing else. Found without a lock.
  struct Known {
    int threads;
    Choice choice;
    const Known* next;
  };
  const Choice& choice_of(const Options& options) const;

  mutable std::atomic<const Known*> known_{nullptr};
};

struct PoolStep final : Step {
  PoolProblem problem;
  double norm;
  ImagePart x, y;

  Failure run(const StepCall& call) const override;
};

}  // namespace fastconv
