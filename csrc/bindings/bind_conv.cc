// SPDX-License-Identifier: Apache-2.0
// Arrays to a ConvProblem, the run with the GIL released, arrays back.
#include <pybind11/stl.h>

#include <cstring>

#include "../parallel.h"
#include "conv_arguments.h"

namespace fastconv {
namespace {

// Chooses, runs without the GIL, throws the sentence on failure.
void execute(const ConvProblem& p, const Options& options, RunContext* context) {
  Choice choice = choose(p, options, context->packed_w != nullptr);
  bool done = false;
  if (choice.failure == Failure::kNone) {
    const py::gil_scoped_release release;
    done = run_choice(p, options, &choice, context);
  }
  if (!done) throw_failure(choice.failure, choice.text);
}

void set_x(RunContext* c, const ImageArray& x) {
  c->x = x.data();
  c->x_batch_pitch = x.batch_pitch;
  c->x_channel_pitch = x.channel_pitch;
}
void set_y(RunContext* c, const ImageArray& y) {
  c->y = y.data();
  c->y_batch_pitch = y.batch_pitch;
  c->y_channel_pitch = y.channel_pitch;
}

// `bias` checked and in C order; an empty array without one.
py::array set_bias(RunContext* c, const std::optional<py::array>& bias, DType dtype, int64_t channels,
                   const char* other) {
  if (!bias) return {};
  require_dtype(*bias, "bias", dtype, other);
  require_shape(*bias, "bias", {channels});
  const py::array shift = contiguous(*bias);
  c->bias = shift.data();
  return shift;
}

// The residual must have y's pitches: it is read where y is written.
py::array residual_like(const py::array& residual, const ImageArray& y) {
  require_shape(residual, "residual", shape_of(y.array));
  return contiguous(residual);
}

py::array forward(const py::array& x, const py::array& w, const std::optional<py::array>& bias,
                  const std::optional<py::array>& residual, const Shape& stride, const Shape& pad_begin,
                  const Shape& pad_end, const Shape& dilation, int64_t groups, const std::string& padding_mode,
                  double pad_value, const std::string& activation, double alpha, const std::string& layout,
                  const py::object& options_object, const py::object& out) {
  const Options& options = options_of(options_object);
  const DType dtype = float_dtype_of(x, "x");
  require_dtype(w, "w", dtype, "x");
  ConvProblem p = problem_of(Pass::kForward, shape_of(x), shape_of(w), layout_named(layout), dtype,
                             {stride, pad_begin, pad_end, dilation, groups, padding_mode});
  p.activation = activation_named(activation);
  p.epilogue = (bias ? kEpilogueBias : 0) | (residual ? kEpilogueResidual : 0);
  require_valid(p);
  const ImageArray image = image_array(x, p.x_layout, true);
  const Shape y_shape = shape_of_image(p, p.y_layout, p.k, OutputSize(p).size);
  p.x_layout = image.layout;

  RunContext context{};
  set_x(&context, image);
  const py::array filters = contiguous(w);
  context.w = const_cast<void*>(filters.data());
  const py::array shift = set_bias(&context, bias, dtype, p.k, "x");
  const py::array result = output_or(out, dtype, y_shape, {image.array, filters, shift});
  const ImageArray y = image_array(result, p.y_layout, false);
  set_y(&context, y);
  py::array addend;
  if (residual) {
    require_dtype(*residual, "residual", dtype, "x");
    addend = residual_like(*residual, y);
    context.residual = addend.data();
  }
  context.alpha = alpha;
  context.pad_value = pad_value;
  execute(p, options, &context);
  return result;
}

py::array backward_data(const py::array& dy, const py::array& w, const Shape& x_shape, const Shape& stride,
                        const Shape& pad_begin, const Shape& pad_end, const Shape& dilation, int64_t groups,
                        const std::string& padding_mode, const std::string& layout, const py::object& options_object,
                        const py::object& out, const std::optional<py::array>& bias, const std::string& activation,
                        double alpha) {
  const DType dtype = float_dtype_of(dy, "dy");
  require_dtype(w, "w", dtype, "dy");
  ConvProblem p = problem_of(Pass::kBackwardData, x_shape, shape_of(w), layout_named(layout), dtype,
                             {stride, pad_begin, pad_end, dilation, groups, padding_mode});
  p.activation = activation_named(activation);
  p.epilogue = bias ? kEpilogueBias : 0;
  require_valid(p);
  require_shape(dy, "dy", shape_of_image(p, p.y_layout, p.k, OutputSize(p).size));
  const ImageArray y = image_array(dy, p.y_layout, true);
  p.y_layout = y.layout;
  const py::array filters = contiguous(w);
  RunContext context{};
  const py::array shift = set_bias(&context, bias, dtype, p.c, "dy");
  context.alpha = alpha;
  const py::array result = output_or(out, dtype, x_shape, {y.array, filters, shift});
  set_y(&context, y);
  set_x(&context, image_array(result, p.x_layout, false));
  context.w = const_cast<void*>(filters.data());
  execute(p, options_of(options_object), &context);
  return result;
}

py::array backward_filter(const py::array& dy, const py::array& x, const Shape& w_shape, const Shape& stride,
                          const Shape& pad_begin, const Shape& pad_end, const Shape& dilation, int64_t groups,
                          const std::string& padding_mode, double pad_value, const std::string& layout,
                          const py::object& options_object, const py::object& out) {
  const DType dtype = float_dtype_of(dy, "dy");
  require_dtype(x, "x", dtype, "dy");
  ConvProblem p = problem_of(Pass::kBackwardFilter, shape_of(x), w_shape, layout_named(layout), dtype,
                             {stride, pad_begin, pad_end, dilation, groups, padding_mode});
  require_valid(p);
  require_shape(dy, "dy", shape_of_image(p, p.y_layout, p.k, OutputSize(p).size));
  const ImageArray y = image_array(dy, p.y_layout, true), image = image_array(x, p.x_layout, true);
  p.y_layout = y.layout;
  p.x_layout = image.layout;
  const py::array result = output_or(out, dtype, w_shape, {y.array, image.array});
  RunContext context{};
  set_x(&context, image);
  set_y(&context, y);
  context.w = const_cast<void*>(result.data());
  context.pad_value = pad_value;
  execute(p, options_of(options_object), &context);
  return result;
}

}  // namespace

py::list rows_of(const std::vector<Candidate>& candidates) {
  py::list list;
  for (const Candidate& c : candidates) {
    py::dict row;
    row["name"] = c.algorithm->name;
    row["supported"] = c.supported;
    row["reason"] = c.reason;
    row["workspace_bytes"] = c.supported ? py::object(py::int_(c.workspace_bytes)) : py::none();
    row["packed_bytes"] = c.supported ? py::object(py::int_(c.packed_bytes)) : py::none();
    row["estimate_s"] = c.supported ? py::object(py::float_(c.estimate.total())) : py::none();
    py::dict work;
    for (int i = 0; i < c.estimate.terms; ++i) work[c.estimate.work[i]] = c.estimate.seconds[i];
    row["estimated_work"] = work;
    const auto number = [&](auto value) { return c.supported ? py::object(py::cast(value)) : py::none(); };
    row["threads"] = number(c.slots);
    row["multiplications"] = number(c.multiplications);
    row["bytes_moved"] = number(c.bytes_moved);
    constexpr const char* kTaken[] = {"none", "images", "weights", "all", "everything"};
    row["takes_halves"] = number(kTaken[static_cast<int>(c.takes_halves)]);
    constexpr const char* kSame[] = {"one", "avx", "all"};
    row["same_bits"] = kSame[static_cast<int>(c.algorithm->same_bits)];
    row["error_factor"] = c.algorithm->error_factor;
    row["exact_on_integers"] = c.algorithm->exact_on_integers != 0;
    list.append(row);
  }
  return list;
}

py::dict speeds_of(const Machine& machine) {
  py::dict d;
  d["flops_f32"] = machine.flops_f32;
  d["flops_f64"] = machine.flops_f64;
  d["flops_f16"] = machine.flops_f16 > 0 ? machine.flops_f16 : machine.flops_f32;  // halves are summed in float32
  d["flops_tf32"] = machine.flops_tf32;
  d["bytes_per_second"] = machine.bytes_per_second;
  return d;
}

namespace {

py::list algorithms(const ConvProblem& p, const Options& options) { return rows_of(candidates(p, options)); }

std::string chosen(const ConvProblem& p, const Options& options) {
  const Choice choice = choose(p, options, false);
  if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
  return choice.algorithm->name;
}

}  // namespace

void register_conv(py::module_& m) {
  m.def("machine_speeds", [](const Options& options) { return speeds_of(*options.machine); }, py::arg("options"));
  m.def(
      "output_size",
      [](int64_t size, int64_t filter, int64_t stride, int64_t dilation, int64_t pad_begin, int64_t pad_end,
         bool ceil_mode) {
        if (stride < 1) throw ProblemError{"stride must be at least 1"};
        return output_size(size, filter, stride, dilation, pad_begin, pad_end, ceil_mode);
      },
      py::arg("size"), py::arg("filter"), py::arg("stride"), py::arg("dilation"), py::arg("pad_begin"),
      py::arg("pad_end"), py::arg("ceil_mode") = false);
  m.def("conv_forward", &forward, py::arg("x"), py::arg("w"), py::arg("bias"), py::arg("residual"), py::arg("stride"),
        py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"), py::arg("groups"), py::arg("padding_mode"),
        py::arg("pad_value"), py::arg("activation"), py::arg("alpha"), py::arg("layout"), py::arg("options"),
        py::arg("out"));
  m.def("conv_backward_data", &backward_data, py::arg("dy"), py::arg("w"), py::arg("x_shape"), py::arg("stride"),
        py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"), py::arg("groups"), py::arg("padding_mode"),
        py::arg("layout"), py::arg("options"), py::arg("out"), py::arg("bias") = py::none(),
        py::arg("activation") = "none", py::arg("alpha") = 0.0);
  m.def("conv_backward_filter", &backward_filter, py::arg("dy"), py::arg("x"), py::arg("w_shape"), py::arg("stride"),
        py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"), py::arg("groups"), py::arg("padding_mode"),
        py::arg("pad_value"), py::arg("layout"), py::arg("options"), py::arg("out"));
  m.def("algorithms", &algorithms, py::arg("problem"), py::arg("options"));
  m.def("choose", &chosen, py::arg("problem"), py::arg("options"));
}

}  // namespace fastconv
