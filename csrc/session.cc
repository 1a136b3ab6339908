// SPDX-License-Identifier: Apache-2.0
#include "session.h"

#include <chrono>
#include <cstring>

#include "half_problem.h"
#include "parallel.h"
#include "pool.h"

namespace fastconv {

int64_t Program::bytes_of(int32_t buffer) const {
  if (buffer < 0 || static_cast<size_t>(buffer) >= buffer_bytes_.size()) return -1;
  return buffer_bytes_[static_cast<size_t>(buffer)];
}

int32_t Program::add_constant(const void* data, int64_t bytes) {
  constants_.push_back(std::make_unique<ConstantMemory>(bytes));
  if (bytes > 0) memcpy(constants_.back()->data(), data, static_cast<size_t>(bytes));
  buffer_bytes_.push_back(bytes);
  return static_cast<int32_t>(buffer_bytes_.size() - 1);
}

Failure Program::run(const std::vector<char*>& buffers, int threads, size_t first, size_t last, double* seconds,
                     char* text) const {
  std::vector<char*> all = buffers;
  for (const auto& constant : constants_) all.push_back(constant->data());
  Options options = options_;
  options.threads = make_parallel(threads).slots;         // at once, not for every step
  const ThreadDefault threads_of_steps(options.threads);  // for the steps that ask for the default
  const StepCall call = {&options, all.data(), text};
  for (size_t i = first; i < last; ++i) {
    const auto start = seconds ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
    const Failure failure = steps_[i]->run(call);
    if (failure != Failure::kNone) return failure;
    if (seconds) seconds[i] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return Failure::kNone;
}

Failure Program::run_pieces(const std::vector<char*>& buffers, const std::vector<char*>& arenas, int64_t pieces,
                            char* text) const {
  struct Outcome {
    Failure failure = Failure::kNone;
    char text[kTextCapacity] = "";
  };
  std::vector<Outcome> outcomes(arenas.size());
  Parallel parallel = make_parallel(1);
  parallel.slots = static_cast<int>(arenas.size());
  parallel_for(parallel, pieces, [&](int64_t piece, int slot) {
    const size_t lane = static_cast<size_t>(slot);
    if (outcomes[lane].failure != Failure::kNone) return;
    std::vector<char*> own = buffers;
    own[0] = arenas[lane];
    for (size_t i = 1; i < own.size(); ++i) own[i] += piece * buffer_bytes_[i];
    outcomes[lane].failure = run(own, 1, 0, steps_.size(), nullptr, outcomes[lane].text);
  });
  for (const Outcome& outcome : outcomes)
    if (outcome.failure != Failure::kNone) {
      memcpy(text, outcome.text, kTextCapacity);
      return outcome.failure;
    }
  return Failure::kNone;
}

PackedWeights::PackedWeights(const ConvProblem& problem, const Options& options, const void* w, const void* bias)
    : problem_(problem), choice_(choose(problem, options, true)) {
  if (choice_.failure != Failure::kNone) return;
  const Machine& machine = *options.machine;
  const int64_t element = element_size(problem.dtype);
  const int64_t packed_size = packed_bytes(*choice_.algorithm, problem, machine);
  const int64_t raw = problem.k * (problem.c / problem.groups) * taps(problem) * element;
  packed_ = packed_size > 0;
  weights_ = std::make_unique<ConstantMemory>(packed_ ? packed_size : raw);
  if (!packed_) {
    memcpy(weights_->data(), w, static_cast<size_t>(raw));
  } else if (!pack(*choice_.algorithm, problem, machine, make_parallel(choice_.slots), w, weights_->data())) {
    throw std::bad_alloc();
  }
  if (!bias) return;
  const int64_t channels = problem.pass == Pass::kBackwardData ? problem.c : problem.k;
  bias_ = std::make_unique<ConstantMemory>(channels * element);
  memcpy(bias_->data(), bias, static_cast<size_t>(channels * element));
}

ConvStep::~ConvStep() {
  for (const Known* known = known_; known;) {
    const Known* next = known->next;
    delete known;
    known = next;
  }
}

const Choice& ConvStep::choice_of(const Options& options) const {
  const Known* first = known_.load(std::memory_order_acquire);
  for (const Known* known = first; known; known = known->next)
    if (known->threads == options.threads) return known->choice;
  Known* const found = new Known{options.threads, choose(problem, options, true), first};
  // Another call may have put its own in front; then both stay.
  while (!known_.compare_exchange_weak(first, found, std::memory_order_release, std::memory_order_acquire))
    found->next = first;
  return found->choice;
}

Failure ConvStep::run(const StepCall& call) const {
  Options options = *call.options;
  options.algorithm = weights->choice().algorithm;  // the packed weights are its own
  Choice choice = choice_of(options);
  if (choice.failure == Failure::kNone) {
    const bool forward = problem.pass == Pass::kForward;
    const int64_t element = element_size(problem.dtype);
    const ImagePart &x = forward ? from : to, &y = forward ? to : from;
    RunContext context{};
    context.x = call.at<char>(x.buffer, x.offset * element);
    context.x_batch_pitch = x.batch_pitch, context.x_channel_pitch = x.channel_pitch;
    context.y = call.at<char>(y.buffer, y.offset * element);
    context.y_batch_pitch = y.batch_pitch, context.y_channel_pitch = y.channel_pitch;
    context.w = const_cast<char*>(weights->weights());
    context.packed_w = weights->is_packed() ? weights->weights() : nullptr;
    context.bias = weights->bias();
    if (residual >= 0) context.residual = call.at<char>(residual, residual_offset * element);
    context.alpha = alpha;
    context.pad_value = pad_value;
    if (run_choice(problem, options, &choice, &context)) return Failure::kNone;
  }
  memcpy(call.text, choice.text, kTextCapacity);
  return choice.failure;
}

Failure PoolStep::run(const StepCall& call) const {
  const int64_t element = element_size(problem.dtype);
  PoolBuffers buffers{};
  buffers.x = call.at<char>(x.buffer, x.offset * element);
  buffers.x_batch_pitch = x.batch_pitch, buffers.x_channel_pitch = x.channel_pitch;
  buffers.y = call.at<char>(y.buffer, y.offset * element);
  buffers.y_batch_pitch = y.batch_pitch, buffers.y_channel_pitch = y.channel_pitch;
  buffers.norm = norm;
  return run_pool(problem, *call.options, buffers, call.text);
}

}  // namespace fastconv
