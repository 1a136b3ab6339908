// SPDX-License-Identifier: Apache-2.0
// Local response normalisation and resampling.
#include <algorithm>
#include <cinttypes>

#include "../resample.h"
#include "../response_norm.h"
#include "conv_arguments.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

ResponseNorm response_norm_of(const py::array& x, int64_t before, int64_t after, double alpha, double beta, double k,
                              bool spatial, const std::string& layout) {
  const Shape shape = shape_of(x);
  const int rank = static_cast<int>(shape.size()) - 2;
  if (rank < 0 || rank > 3)
    throw ProblemError{format("x has shape %s; expected (N, C) and up to 3 axes more", text_of(shape).c_str())};
  if (before < 0 || after < 0)
    throw ProblemError{format("before is %" PRId64 ", after %" PRId64 "; expected 0 or more cells", before, after)};
  constexpr int64_t widest = int64_t{1} << 40;  // beyond any axis, and sums of it do not overflow
  const bool last = layout_named(layout) == Layout::kChannelsLast;
  ResponseNorm norm = {shape[0],
                       last ? shape.back() : shape[1],
                       {1, 1, 1},
                       rank,
                       last,
                       spatial,
                       std::min(before, widest),
                       std::min(after, widest),
                       alpha,
                       beta,
                       k};
  for (int i = 0; i < rank; ++i) norm.size[i] = shape[static_cast<size_t>(i + (last ? 1 : 2))];
  return norm;
}

py::array response_forward(const py::array& x, int64_t before, int64_t after, double alpha, double beta, double k,
                           bool spatial, const std::string& layout) {
  const DType dtype = dtype_of(x, "x");
  const ResponseNorm norm = response_norm_of(x, before, after, alpha, beta, k, spatial, layout);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), y = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return response_norm_forward(machine, norm, data_of<const T>(input), data_of<T>(y));
  });
  return y;
}

py::array response_backward(const py::array& dy, const py::array& x, int64_t before, int64_t after, double alpha,
                            double beta, double k, bool spatial, const std::string& layout) {
  const DType dtype = dtype_of(x, "x");
  const ResponseNorm norm = response_norm_of(x, before, after, alpha, beta, k, spatial, layout);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), gradient = like(dy, "dy", dtype, shape_of(x), "x"),
                  dx = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return response_norm_backward(machine, norm, data_of<const T>(gradient), data_of<const T>(input), data_of<T>(dx));
  });
  return dx;
}

py::array resample_axis(const py::array& x, int axis, const py::object& first, const py::object& start,
                        const py::array& weights) {
  const DType dtype = dtype_of(x, "x");
  Shape shape = shape_of(x);
  if (axis < 0 || axis >= static_cast<int>(shape.size()))
    throw ProblemError{format("axis is %d; expected one of x of shape %s", axis, text_of(shape).c_str())};
  const py::array firsts = contiguous_int64(first, "first"), starts = contiguous_int64(start, "start");
  const int64_t outputs = firsts.size(), inputs = shape[static_cast<size_t>(axis)];
  require_shape(firsts, "first", {outputs});
  require_shape(starts, "start", {outputs + 1});
  if (dtype_of(weights, "weights") != DType::kFloat64)
    throw py::type_error("weights has dtype float32; expected float64");
  const int64_t *f = data_of<const int64_t>(firsts), *s = data_of<const int64_t>(starts);
  const py::array factors = contiguous(weights);
  require_shape(factors, "weights", {s[outputs]});
  for (int64_t j = 0; j < outputs; ++j) {
    const int64_t taps = s[j + 1] - s[j];
    if (s[0] != 0 || taps < 0 || (taps > 0 && (f[j] < 0 || taps > inputs || f[j] > inputs - taps)))
      throw ProblemError{
          format("output %" PRId64 " takes cells that x does not have (%" PRId64 " in axis %d)", j, inputs, axis)};
  }
  int64_t outer = 1, inner = 1;
  for (int i = 0; i < static_cast<int>(shape.size()); ++i)
    if (i != axis) (i < axis ? outer : inner) *= shape[static_cast<size_t>(i)];
  shape[static_cast<size_t>(axis)] = outputs;
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), y = make_output(dtype, shape);
  const Taps taps = {inputs, outputs, f, s, data_of<const double>(factors)};
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return resample(machine, taps, outer, inner, data_of<const T>(input), data_of<T>(y));
  });
  return y;
}

}  // namespace

void register_windows(py::module_& m) {
  m.def("response_norm_forward", &response_forward, py::arg("x"), py::arg("before"), py::arg("after"), py::arg("alpha"),
        py::arg("beta"), py::arg("k"), py::arg("spatial"), py::arg("layout"));
  m.def("response_norm_backward", &response_backward, py::arg("dy"), py::arg("x"), py::arg("before"), py::arg("after"),
        py::arg("alpha"), py::arg("beta"), py::arg("k"), py::arg("spatial"), py::arg("layout"));
  m.def("resample", &resample_axis, py::arg("x"), py::arg("axis"), py::arg("first"), py::arg("start"),
        py::arg("weights"));
}

}  // namespace fastconv
