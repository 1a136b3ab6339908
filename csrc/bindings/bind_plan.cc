// SPDX-License-Identifier: Apache-2.0
// A forward convolution with its weights copied and packed once.
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <mutex>

#include "../constant_memory.h"
#include "../half_problem.h"
#include "../parallel.h"
#include "conv_arguments.h"

namespace fastconv {
namespace {

// Of a plan's own, shared by calls in flight while `update` replaces it.
struct Weights {
  ConstantMemory memory;
  char* data;  // packed, or as they came
  char* bias;

  Weights(int64_t weight_bytes, int64_t bias_bytes)
      : memory((weight_bytes + 63) / 64 * 64 + bias_bytes),
        data(memory.data()),
        bias(data + (weight_bytes + 63) / 64 * 64) {}
};

class Plan {
 public:
  Plan(const ConvProblem& problem, const py::array& w, const std::optional<py::array>& bias, double alpha,
       double pad_value, const Options& options)
      : problem_(problem), options_(options), alpha_(alpha), pad_value_(pad_value) {
    if (problem_.pass != Pass::kForward) throw ProblemError{"a plan computes fwd; expected a problem of that pass"};
    if (bias) problem_.epilogue |= kEpilogueBias;
    require_valid(problem_);
    choice_ = choose(problem_, options_, true);
    if (choice_.failure != Failure::kNone) throw_failure(choice_.failure, choice_.text);
    packed_bytes_ = fastconv::packed_bytes(*choice_.algorithm, problem_, *options_.machine);
    options_.algorithm = choice_.algorithm;  // one algorithm for any batch: the packed weights are its own
    update(w, bias);
  }

  void update(const py::array& w, const std::optional<py::array>& bias) {
    const bool has_bias = problem_.epilogue & kEpilogueBias;
    require_dtype(w, "w", problem_.dtype, "the plan");
    require_shape(w, "w", shape_of_filter(problem_));
    if (has_bias != bias.has_value())
      throw ProblemError{has_bias ? "bias is None, the plan was made with one; expected an array"
                                  : "bias came, the plan was made without one; expected None"};
    const py::array filters = contiguous(w);
    const int64_t raw_bytes = filters.nbytes();
    const auto fresh = std::make_shared<Weights>(packed_bytes_ ? packed_bytes_ : raw_bytes,
                                                 has_bias ? problem_.k * element_size(problem_.dtype) : 0);
    if (bias) {
      require_dtype(*bias, "bias", problem_.dtype, "the plan");
      require_shape(*bias, "bias", {problem_.k});
      const py::array shift = contiguous(*bias);
      memcpy(fresh->bias, shift.data(), static_cast<size_t>(shift.nbytes()));
    }
    {
      const py::gil_scoped_release release;
      const Parallel parallel = make_parallel(choice_.slots);
      if (!packed_bytes_)
        memcpy(fresh->data, filters.data(), static_cast<size_t>(raw_bytes));
      else if (!pack(*choice_.algorithm, problem_, *options_.machine, parallel, filters.data(), fresh->data))
        throw WorkspaceError{"no memory to widen the weights"};
      const std::lock_guard<std::mutex> lock(mutex_);
      weights_ = fresh;
    }
  }

  py::array call(const py::array& x, const std::optional<py::array>& residual, const py::object& out) {
    require_dtype(x, "x", problem_.dtype, "the plan");
    ConvProblem p = problem_;
    if (x.ndim() != p.spatial_rank + 2) require_shape(x, "x", shape_of_image(p, p.x_layout, p.c, p.size));
    p.n = x.shape(0);
    if (residual) p.epilogue |= kEpilogueResidual;
    if (!matches(x, p)) require_shape(x, "x", shape_of_image(p, p.x_layout, p.c, p.size));
    const ImageArray image = image_array(x, p.x_layout, true);
    p.x_layout = image.layout;
    const py::array result = output_or(out, p.dtype, y_shape(p), {image.array});
    const ImageArray y = image_array(result, p.y_layout, false);
    py::array addend;
    if (residual) {
      require_dtype(*residual, "residual", p.dtype, "the plan");
      require_shape(*residual, "residual", shape_of(result));
      addend = contiguous(*residual);
    }
    RunContext context{};
    context.x = image.data();
    context.x_batch_pitch = image.batch_pitch;
    context.x_channel_pitch = image.channel_pitch;
    context.y = y.data();
    context.y_batch_pitch = y.batch_pitch;
    context.y_channel_pitch = y.channel_pitch;
    if (residual) context.residual = addend.data();
    execute(p, &context);
    return result;
  }

  // Of n dense images at an address, in the layout and the dtype of the plan. None where they are not aligned.
  py::object at(uintptr_t address, int64_t n) {
    if (!address || address % static_cast<uintptr_t>(element_size(problem_.dtype))) return py::none();
    ConvProblem p = problem_;
    p.n = n;
    const py::array result = make_output(p.dtype, y_shape(p));
    RunContext context{};
    set_dense(p, &context);
    context.x = reinterpret_cast<void*>(address);
    context.y = data_of<void>(result);
    execute(p, &context);
    return result;
  }

  const ConvProblem& problem() const { return problem_; }
  const char* algorithm() const { return choice_.algorithm->name; }
  int64_t workspace_bytes() const { return choice_.workspace_bytes; }
  int64_t packed_bytes() const { return packed_bytes_; }

 private:
  static Shape y_shape(const ConvProblem& p) { return shape_of_image(p, p.y_layout, p.k, OutputSize(p).size); }

  // Runs with the weights of now, without the GIL.
  void execute(const ConvProblem& p, RunContext* context) {
    const bool as_planned = p.n == problem_.n && p.x_layout == problem_.x_layout && p.epilogue == problem_.epilogue;
    Choice choice = as_planned ? choice_ : choose(p, options_, true);
    if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
    std::shared_ptr<Weights> weights;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      weights = weights_;
    }
    context->w = weights->data;
    context->packed_w = packed_bytes_ ? weights->data : nullptr;
    if (p.epilogue & kEpilogueBias) context->bias = weights->bias;
    context->alpha = alpha_;
    context->pad_value = pad_value_;
    bool done;
    {
      const py::gil_scoped_release release;
      done = run_choice(p, options_, &choice, context);
    }
    if (!done) throw_failure(choice.failure, choice.text);
  }

  // The shape test of every call, without building a shape.
  static bool matches(const py::array& x, const ConvProblem& p) {
    const bool first = p.x_layout == Layout::kChannelsFirst;
    if (x.shape(first ? 1 : p.spatial_rank + 1) != p.c) return false;
    for (int i = 0; i < p.spatial_rank; ++i)
      if (x.shape(i + (first ? 2 : 1)) != p.size[kMaxSpatial - p.spatial_rank + i]) return false;
    return true;
  }

  ConvProblem problem_;
  Options options_;
  const double alpha_, pad_value_;
  Choice choice_;
  int64_t packed_bytes_ = 0;
  std::mutex mutex_;
  std::shared_ptr<Weights> weights_;
};

}  // namespace

void register_plan(py::module_& m) {
  py::class_<Plan>(m, "Plan", "A forward convolution with its weights copied and packed; `plan(x)` takes any batch.")
      .def(py::init<const ConvProblem&, const py::array&, const std::optional<py::array>&, double, double,
                    const Options&>(),
           py::arg("problem"), py::arg("w"), py::arg("bias"), py::arg("alpha"), py::arg("pad_value"),
           py::arg("options"))
      .def("__call__", &Plan::call, py::arg("x"), py::arg("residual") = py::none(), py::arg("out") = py::none())
      .def("at", &Plan::at, py::arg("address"), py::arg("n"))
      .def("update", &Plan::update, py::arg("w"), py::arg("bias") = py::none())
      .def_property_readonly("problem", &Plan::problem)
      .def_property_readonly("algorithm", &Plan::algorithm)
      .def_property_readonly("workspace_bytes", &Plan::workspace_bytes)
      .def_property_readonly("packed_bytes", &Plan::packed_bytes);
}

}  // namespace fastconv
