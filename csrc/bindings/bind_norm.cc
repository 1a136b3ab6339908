// SPDX-License-Identifier: Apache-2.0
// Group normalisation, with its special cases.
#include <cinttypes>

#include "../group_norm.h"
#include "conv_arguments.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

GroupShape group_shape(const py::array& x, int64_t groups, const std::string& layout) {
  const Shape shape = shape_of(x);
  if (shape.size() < 2) throw ProblemError{format("x has shape %s; expected at least (N, C)", text_of(shape).c_str())};
  const bool last = layout_named(layout) == Layout::kChannelsLast;
  GroupShape s = {shape.front(), last ? shape.back() : shape[1], 1, groups, last};
  for (size_t i = last ? 1 : 2; i < shape.size() - (last ? 1 : 0); ++i) s.pixels *= shape[i];
  if (groups < 1 || s.c % groups)
    throw ProblemError{format("groups is %" PRId64 ", x has %" PRId64 " channels; expected a divisor", groups, s.c)};
  if (s.c * s.pixels == 0 && s.n > 0)
    throw ProblemError{
        format("x has shape %s; expected at least one value per group to take statistics of", text_of(shape).c_str())};
  return s;
}

py::tuple forward(const py::array& x, const py::array& gamma, const py::array& beta, int64_t groups, double eps,
                  const std::string& layout) {
  const DType dtype = dtype_of(x, "x");
  const GroupShape shape = group_shape(x, groups, layout);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), scale = like(gamma, "gamma", dtype, {shape.c}, "x"),
                  shift = like(beta, "beta", dtype, {shape.c}, "x");
  const py::array y = make_output(dtype, shape_of(x)), mean = make_output(DType::kFloat64, {shape.n, groups}),
                  inverse = make_output(DType::kFloat64, {shape.n, groups});
  if (shape.n > 0)
    compute(dtype, [&](auto zero) {
      typedef decltype(zero) T;
      return group_norm_forward(machine, shape, data_of<const T>(input), data_of<const T>(scale),
                                data_of<const T>(shift), eps, data_of<T>(y), data_of<double>(mean),
                                data_of<double>(inverse));
    });
  return py::make_tuple(y, mean, inverse);
}

py::tuple backward(const py::array& dy, const py::array& x, const py::array& gamma, const py::array& mean,
                   const py::array& inverse, int64_t groups, const std::string& layout) {
  const DType dtype = dtype_of(x, "x");
  const GroupShape shape = group_shape(x, groups, layout);
  const Machine& machine = default_machine();
  const Shape statistics = {shape.n, groups};
  require_shape(mean, "mean", statistics);
  require_shape(inverse, "inverse", statistics);
  if (dtype_of(mean, "mean") != DType::kFloat64 || dtype_of(inverse, "inverse") != DType::kFloat64)
    throw py::type_error("mean or inverse is float32; expected float64, as group_norm_forward gives them");
  const py::array input = contiguous(x), gradient = like(dy, "dy", dtype, shape_of(x), "x"),
                  scale = like(gamma, "gamma", dtype, {shape.c}, "x"), centre = contiguous(mean),
                  spread = contiguous(inverse);
  const py::array dx = make_output(dtype, shape_of(x)), dgamma = make_output(dtype, {shape.c}),
                  dbeta = make_output(dtype, {shape.c});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    if (shape.n == 0) {
      std::fill_n(data_of<T>(dgamma), shape.c, T(0));
      std::fill_n(data_of<T>(dbeta), shape.c, T(0));
      return true;
    }
    return group_norm_backward(machine, shape, data_of<const T>(gradient), data_of<const T>(input),
                               data_of<const T>(scale), data_of<const double>(centre), data_of<const double>(spread),
                               data_of<T>(dx), data_of<T>(dgamma), data_of<T>(dbeta));
  });
  return py::make_tuple(dx, dgamma, dbeta);
}

}  // namespace

void register_norm(py::module_& m) {
  m.def("group_norm_forward", &forward, py::arg("x"), py::arg("gamma"), py::arg("beta"), py::arg("groups"),
        py::arg("eps"), py::arg("layout"));
  m.def("group_norm_backward", &backward, py::arg("dy"), py::arg("x"), py::arg("gamma"), py::arg("mean"),
        py::arg("inverse"), py::arg("groups"), py::arg("layout"));
}

}  // namespace fastconv
