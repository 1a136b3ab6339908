// SPDX-License-Identifier: Apache-2.0
// Dense layers and optimiser steps.
#include <pybind11/stl.h>

#include <cinttypes>
#include <optional>

#include "../gemm.h"
#include "../norm_ops.h"
#include "../parallel.h"
#include "../pointwise_ops.h"
#include "../streaming.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

// ---- Dense layers: three products, (i, j, depth) standing for rows, columns and what is summed over -----------------

template <class T>
bool product(const Machine& machine, const Gemm<T>& gemm) {
  const double operations = 2.0 * static_cast<double>(gemm.rows * gemm.columns) * static_cast<double>(gemm.depth);
  const double speed = sizeof(T) == 8 ? machine.flops_f64 : machine.flops_f32;
  constexpr double kSharedFromSeconds = 20e-6;
  return multiply(machine, make_parallel(operations < kSharedFromSeconds * speed ? 1 : 0), gemm);
}

py::array dense_forward(const py::array& x, const py::array& w, const std::optional<py::array>& bias) {
  const DType dtype = dtype_of(x, "x");
  require_dtype(w, "w", dtype, "x");
  require_matrix(x, "x", "(N, I)");
  require_matrix(w, "w", "(O, I)");
  const int64_t n = x.shape(0), inputs = x.shape(1), outputs = w.shape(0);
  if (w.shape(1) != inputs)
    throw ProblemError{format("w has %" PRId64 " inputs, x has %" PRId64 "; expected w of shape (O, %" PRId64 ")",
                              static_cast<int64_t>(w.shape(1)), inputs, inputs)};
  const Machine& machine = default_machine();
  const py::array left = contiguous(x), right = contiguous(w), y = make_output(dtype, {n, outputs});
  py::array shift;
  if (bias) shift = like(*bias, "bias", dtype, {outputs}, "x");
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return product<T>(machine, {n, outputs, inputs, data_of<const T>(left), inputs, 1, data_of<const T>(right), 1,
                                inputs, data_of<T>(y), outputs, bias ? data_of<const T>(shift) : nullptr});
  });
  return y;
}

py::array dense_backward_data(const py::array& dy, const py::array& w) {
  const DType dtype = dtype_of(dy, "dy");
  require_dtype(w, "w", dtype, "dy");
  require_matrix(dy, "dy", "(N, O)");
  require_matrix(w, "w", "(O, I)");
  const int64_t n = dy.shape(0), outputs = dy.shape(1), inputs = w.shape(1);
  if (w.shape(0) != outputs)
    throw ProblemError{format("w has %" PRId64 " outputs, dy has %" PRId64 "; expected w of shape (%" PRId64 ", I)",
                              static_cast<int64_t>(w.shape(0)), outputs, outputs)};
  const Machine& machine = default_machine();
  const py::array left = contiguous(dy), right = contiguous(w), dx = make_output(dtype, {n, inputs});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return product<T>(machine, {n, inputs, outputs, data_of<const T>(left), outputs, 1, data_of<const T>(right), inputs,
                                1, data_of<T>(dx), inputs, nullptr});
  });
  return dx;
}

py::array dense_backward_filter(const py::array& dy, const py::array& x) {
  const DType dtype = dtype_of(dy, "dy");
  require_dtype(x, "x", dtype, "dy");
  require_matrix(dy, "dy", "(N, O)");
  require_matrix(x, "x", "(N, I)");
  const int64_t n = dy.shape(0), outputs = dy.shape(1), inputs = x.shape(1);
  if (x.shape(0) != n)
    throw ProblemError{format("x has %" PRId64 " rows, dy has %" PRId64 "; expected x of shape (%" PRId64 ", I)",
                              static_cast<int64_t>(x.shape(0)), n, n)};
  const Machine& machine = default_machine();
  const py::array left = contiguous(dy), right = contiguous(x), dw = make_output(dtype, {outputs, inputs});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return product<T>(machine, {outputs, inputs, n, data_of<const T>(left), 1, outputs, data_of<const T>(right), inputs,
                                1, data_of<T>(dw), inputs, nullptr});
  });
  return dw;
}

// ---- Optimiser steps, in place --------------------------------------------------------------------------------------

// Data of an array that is written to.
void* in_place(const py::array& array, const char* name, DType dtype, const Shape& shape) {
  require_dtype(array, name, dtype, "w");
  require_shape(array, name, shape);
  if (!array.writeable()) throw ProblemError{format("%s is read-only; expected a writeable array", name)};
  void* data = const_cast<void*>(array.data());
  if (!(array.flags() & py::array::c_style) ||
      reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(array.itemsize()))
    throw ProblemError{format("%s is not a C-contiguous, aligned array; expected one as np.zeros makes it", name)};
  return data;
}

void sgd(const py::array& w, const py::array& g, const std::optional<py::array>& velocity, double lr, double momentum,
         double weight_decay, bool nesterov, double dampening) {
  const DType dtype = dtype_of(w, "w");
  const Shape shape = shape_of(w);
  const py::array gradient = like(g, "g", dtype, shape, "w");
  void* weights = in_place(w, "w", dtype, shape);
  void* speed = velocity ? in_place(*velocity, "velocity", dtype, shape) : nullptr;
  if (!velocity && momentum != 0)
    throw ProblemError{
        format("velocity is None and momentum is %g; expected an array of w's shape to keep it in", momentum)};
  const Machine& machine = default_machine();
  const SgdOptions options = {lr, momentum, weight_decay, dampening, nesterov};
  const int64_t count = w.size();
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    sgd_step(machine, options, count, static_cast<T*>(weights), data_of<const T>(gradient), static_cast<T*>(speed));
    return true;
  });
}

void adam(const py::array& w, const py::array& g, const py::array& m, const py::array& v, double lr, double beta1,
          double beta2, double eps, double weight_decay, bool decoupled, int64_t step,
          const std::optional<py::array>& highest) {
  const DType dtype = dtype_of(w, "w");
  const Shape shape = shape_of(w);
  const py::array gradient = like(g, "g", dtype, shape, "w");
  void *weights = in_place(w, "w", dtype, shape), *first = in_place(m, "m", dtype, shape),
       *second = in_place(v, "v", dtype, shape),
       *most = highest ? in_place(*highest, "highest", dtype, shape) : nullptr;
  if (step < 1) throw ProblemError{format("step is %" PRId64 "; expected 1 for the first step", step)};
  if (!(beta1 >= 0 && beta1 < 1)) throw ProblemError{format("beta1 is %g; expected 0 <= beta1 < 1", beta1)};
  if (!(beta2 >= 0 && beta2 < 1)) throw ProblemError{format("beta2 is %g; expected 0 <= beta2 < 1", beta2)};
  const Machine& machine = default_machine();
  const AdamOptions options = {lr, beta1, beta2, eps, weight_decay, decoupled, step};
  const int64_t count = w.size();
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    adam_step(machine, options, count, static_cast<T*>(weights), data_of<const T>(gradient), static_cast<T*>(first),
              static_cast<T*>(second), static_cast<T*>(most));
    return true;
  });
}

void rmsprop(const py::array& w, const py::array& g, const py::array& square, const std::optional<py::array>& mean,
             const std::optional<py::array>& velocity, double lr, double alpha, double eps, double weight_decay,
             double momentum) {
  const DType dtype = dtype_of(w, "w");
  const Shape shape = shape_of(w);
  const py::array gradient = like(g, "g", dtype, shape, "w");
  void *weights = in_place(w, "w", dtype, shape), *squares = in_place(square, "square", dtype, shape),
       *means = mean ? in_place(*mean, "mean", dtype, shape) : nullptr,
       *speed = velocity ? in_place(*velocity, "velocity", dtype, shape) : nullptr;
  if (!velocity && momentum != 0)
    throw ProblemError{
        format("velocity is None and momentum is %g; expected an array of w's shape to keep it in", momentum)};
  const Machine& machine = default_machine();
  const RmspropOptions options = {lr, alpha, eps, weight_decay, momentum};
  const int64_t count = w.size();
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    rmsprop_step(machine, options, count, static_cast<T*>(weights), data_of<const T>(gradient),
                 static_cast<T*>(squares), static_cast<T*>(means), static_cast<T*>(speed));
    return true;
  });
}

}  // namespace

void register_training(py::module_& m) {
  m.def("dense_forward", &dense_forward, py::arg("x"), py::arg("w"), py::arg("bias"));
  m.def("dense_backward_data", &dense_backward_data, py::arg("dy"), py::arg("w"));
  m.def("dense_backward_filter", &dense_backward_filter, py::arg("dy"), py::arg("x"));
  m.def("sgd_step", &sgd, py::arg("w"), py::arg("g"), py::arg("velocity"), py::arg("lr"), py::arg("momentum"),
        py::arg("weight_decay"), py::arg("nesterov"), py::arg("dampening") = 0.0);
  m.def("adam_step", &adam, py::arg("w"), py::arg("g"), py::arg("m"), py::arg("v"), py::arg("lr"), py::arg("beta1"),
        py::arg("beta2"), py::arg("eps"), py::arg("weight_decay"), py::arg("decoupled"), py::arg("step"),
        py::arg("highest") = py::none());
  m.def("rmsprop_step", &rmsprop, py::arg("w"), py::arg("g"), py::arg("square"), py::arg("mean"), py::arg("velocity"),
        py::arg("lr"), py::arg("alpha"), py::arg("eps"), py::arg("weight_decay"), py::arg("momentum"));
}

}  // namespace fastconv
