// SPDX-License-Identifier: Apache-2.0
// A convolution at addresses: for tensors that are no NumPy arrays, of which views would cost a small call more than
// its arithmetic. The geometry is checked once for many calls.
#include <pybind11/stl.h>

#include "conv_arguments.h"

namespace fastconv {
namespace {

void require_shape(const char* name, const Shape& got, const Shape& expected) {
  if (got != expected)
    throw ProblemError{format("%s has shape %s; expected %s", name, text_of(got).c_str(), text_of(expected).c_str())};
}

class ConvAt {
 public:
  ConvAt(const std::string& pass, const Shape& x_shape, const Shape& w_shape, const std::optional<Shape>& dy_shape,
         const std::optional<Shape>& bias_shape, const Shape& stride, const Shape& pad_begin, const Shape& pad_end,
         const Shape& dilation, int64_t groups, const std::string& padding_mode, double pad_value,
         const std::string& layout, const std::string& dtype, const Options& options)
      : options_(options) {
    Pass which;
    DType element;
    if (!find_by_name(pass.c_str(), &which))
      throw ProblemError{format("pass_ is '%.60s'; expected fwd, bwd_data or bwd_filter", pass.c_str())};
    if (!find_by_name(dtype.c_str(), &element) || element == DType::kBFloat16)
      throw ProblemError{format("dtype is '%.60s'; expected f32, f64 or f16", dtype.c_str())};
    problem_ = problem_of(which, x_shape, w_shape, layout_named(layout), element,
                          {stride, pad_begin, pad_end, dilation, groups, padding_mode});
    problem_.epilogue = bias_shape ? kEpilogueBias : 0;
    require_valid(problem_);
    const OutputSize y(problem_);
    const Shape y_shape = shape_of_image(problem_, problem_.y_layout, problem_.k, y.size);
    if (dy_shape) require_shape("dy", *dy_shape, y_shape);
    if (bias_shape) require_shape("bias", *bias_shape, {which == Pass::kForward ? problem_.k : problem_.c});
    result_shape_ = which == Pass::kForward ? y_shape : which == Pass::kBackwardData ? x_shape : w_shape;
    context_.pad_value = pad_value;
    set_dense(problem_, &context_);
  }

  // Forward (x, w, bias), backward-data (dy, w, bias), backward-filter (dy, x). None where an address is 0, which says
  // that there is none, or not aligned: the caller has the call with arrays for these.
  py::object call(uintptr_t first, uintptr_t second, uintptr_t bias) const {
    const bool has_bias = problem_.epilogue & kEpilogueBias;
    const uintptr_t unit = static_cast<uintptr_t>(element_size(problem_.dtype));
    if (!first || !second || (has_bias && !bias) || (first | second | bias) % unit) return py::none();
    Choice choice = choose(problem_, options_, false);
    if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
    const py::array result = make_output(problem_.dtype, result_shape_);
    RunContext context = context_;
    const auto at = [](uintptr_t address) { return reinterpret_cast<void*>(address); };
    void* const made = data_of<void>(result);
    const bool of_filter = problem_.pass == Pass::kBackwardFilter;
    context.x = problem_.pass == Pass::kBackwardData ? made : at(of_filter ? second : first);
    context.y = problem_.pass == Pass::kForward ? made : at(first);
    context.w = of_filter ? made : at(second);
    context.bias = has_bias ? at(bias) : nullptr;
    bool done;
    {
      const py::gil_scoped_release release;
      done = run_choice(problem_, options_, &choice, &context);
    }
    if (!done) throw_failure(choice.failure, choice.text);
    return result;
  }

 private:
  ConvProblem problem_;
  Options options_;
  Shape result_shape_;
  RunContext context_{};  // without addresses
};

}  // namespace

void register_addresses(py::module_& m) {
  py::class_<ConvAt>(m, "ConvAt", "A convolution of dense arrays, in C order, at addresses that its calls name.")
      .def(py::init<const std::string&, const Shape&, const Shape&, const std::optional<Shape>&,
                    const std::optional<Shape>&, const Shape&, const Shape&, const Shape&, const Shape&, int64_t,
                    const std::string&, double, const std::string&, const std::string&, const Options&>(),
           py::arg("pass_"), py::arg("x_shape"), py::arg("w_shape"), py::arg("dy_shape"), py::arg("bias_shape"),
           py::arg("stride"), py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"), py::arg("groups"),
           py::arg("padding_mode"), py::arg("pad_value"), py::arg("layout"), py::arg("dtype"), py::arg("options"))
      .def("__call__", &ConvAt::call, py::arg("first"), py::arg("second"), py::arg("bias") = 0);
}

}  // namespace fastconv
