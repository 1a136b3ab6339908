// SPDX-License-Identifier: Apache-2.0
// Softmax and losses.
#include <pybind11/stl.h>

#include <cinttypes>
#include <optional>

#include "../loss_ops.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

// ---- Softmax and cross-entropy of rows ------------------------------------------------------------------------------

py::array softmax_forward(const py::array& x, bool log) {
  const DType dtype = dtype_of(x, "x");
  require_matrix(x, "x", "(N, K)");
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), y = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    softmax(machine, x.shape(0), x.shape(1), log, data_of<const T>(input), data_of<T>(y));
    return true;
  });
  return y;
}

py::array softmax_gradient(const py::array& dy, const py::array& y, bool log) {
  const DType dtype = dtype_of(y, "y");
  require_matrix(y, "y", "(N, K)");
  const Machine& machine = default_machine();
  const py::array gradient = like(dy, "dy", dtype, shape_of(y), "y"), kept = contiguous(y),
                  dx = make_output(dtype, shape_of(y));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    softmax_backward(machine, y.shape(0), y.shape(1), log, data_of<const T>(gradient), data_of<const T>(kept),
                     data_of<T>(dx));
    return true;
  });
  return dx;
}

// The arguments that both directions share. No label can be INT64_MIN.
struct Targets {
  py::array labels, weight;
  double smoothing;
  int64_t ignore, classes;

  Targets(const py::object& object, const std::optional<py::array>& class_weight, double label_smoothing,
          std::optional<int64_t> ignore_index, DType dtype, int64_t rows, int64_t columns)
      : labels(contiguous_int64(object, "labels")),
        smoothing(label_smoothing),
        ignore(ignore_index.value_or(INT64_MIN)),
        classes(columns) {
    require_shape(labels, "labels", {rows});
    const int64_t* values = data_of<const int64_t>(labels);
    for (int64_t i = 0; i < rows; ++i)
      if ((values[i] < 0 || values[i] >= columns) && values[i] != ignore)
        throw ProblemError{
            format("labels[%" PRId64 "] is %" PRId64 "; expected 0 to %" PRId64, i, values[i], columns - 1)};
    if (!(smoothing >= 0 && smoothing <= 1))
      throw ProblemError{format("label_smoothing is %g; expected 0 to 1", smoothing)};
    if (class_weight) weight = like(*class_weight, "weight", dtype, {columns}, "logits");
  }

  template <class T>
  EntropyOptions<T> options() const {
    const T* weights = weight.size() ? data_of<const T>(weight) : nullptr;
    double total = static_cast<double>(classes);
    if (weights) {
      total = 0;
      for (int64_t k = 0; k < classes; ++k) total += static_cast<double>(weights[k]);
    }
    const double even = classes ? smoothing / static_cast<double>(classes) : 0;
    return {static_cast<T>(1 - smoothing), static_cast<T>(even), weights, static_cast<T>(total), ignore};
  }
};

py::tuple entropy_forward(const py::array& logits, const py::object& labels, const std::optional<py::array>& weight,
                          double label_smoothing, std::optional<int64_t> ignore_index) {
  const DType dtype = dtype_of(logits, "logits");
  require_matrix(logits, "logits", "(N, K)");
  const int64_t rows = logits.shape(0), classes = logits.shape(1);
  const Machine& machine = default_machine();
  const py::array input = contiguous(logits);
  const Targets targets(labels, weight, label_smoothing, ignore_index, dtype, rows, classes);
  const py::array loss = make_output(dtype, {rows}), p = make_output(dtype, {rows, classes});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    cross_entropy(machine, targets.options<T>(), rows, classes, data_of<const T>(input),
                  data_of<const int64_t>(targets.labels), data_of<T>(p), data_of<T>(loss));
    return true;
  });
  return py::make_tuple(loss, p);
}

py::array entropy_backward(const py::array& dloss, const py::array& probabilities, const py::object& labels,
                           const std::optional<py::array>& weight, double label_smoothing,
                           std::optional<int64_t> ignore_index) {
  const DType dtype = dtype_of(probabilities, "probabilities");
  require_matrix(probabilities, "probabilities", "(N, K)");
  const int64_t rows = probabilities.shape(0), classes = probabilities.shape(1);
  const Machine& machine = default_machine();
  const Targets targets(labels, weight, label_smoothing, ignore_index, dtype, rows, classes);
  const py::array factors = like(dloss, "dloss", dtype, {rows}, "probabilities"), p = contiguous(probabilities),
                  dx = make_output(dtype, {rows, classes});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    cross_entropy_backward(machine, targets.options<T>(), rows, classes, data_of<const T>(factors), data_of<const T>(p),
                           data_of<const int64_t>(targets.labels), data_of<T>(dx));
    return true;
  });
  return dx;
}

// ---- Losses of one x and one target at a time -----------------------------------------------------------------------

constexpr const char* kPairLosses[] = {"mse", "l1", "huber", "smooth_l1", "bce", "bce_with_logits", "kl", "kl_log"};

PairLoss loss_named(const std::string& name) {
  for (size_t i = 0; i < std::size(kPairLosses); ++i)
    if (name == kPairLosses[i]) return static_cast<PairLoss>(i);
  throw ProblemError{
      format("kind is '%.40s'; expected mse, l1, huber, smooth_l1, bce, bce_with_logits, kl or kl_log", name.c_str())};
}

py::array pair_forward(const std::string& kind_name, const py::array& x, const py::array& target, double alpha) {
  const PairLoss kind = loss_named(kind_name);
  const DType dtype = dtype_of(x, "x");
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), t = like(target, "target", dtype, shape_of(x), "x"),
                  loss = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    pair_loss(machine, kind, alpha, input.size(), data_of<const T>(input), data_of<const T>(t), data_of<T>(loss));
    return true;
  });
  return loss;
}

double pair_sum(const std::string& kind_name, const py::array& x, const py::array& target, double alpha) {
  const PairLoss kind = loss_named(kind_name);
  const DType dtype = dtype_of(x, "x");
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), t = like(target, "target", dtype, shape_of(x), "x");
  double sum = 0;
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return pair_loss_sum(machine, kind, alpha, input.size(), data_of<const T>(input), data_of<const T>(t), &sum);
  });
  return sum;
}

py::array pair_backward(const std::string& kind_name, const py::array& dloss, const py::array& x,
                        const py::array& target, double alpha) {
  const PairLoss kind = loss_named(kind_name);
  const DType dtype = dtype_of(x, "x");
  const bool one = dloss.ndim() == 0;
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), t = like(target, "target", dtype, shape_of(x), "x"),
                  gradient = like(dloss, "dloss", dtype, one ? Shape{} : shape_of(x), "x"),
                  dx = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    pair_loss_backward(machine, kind, alpha, input.size(), data_of<const T>(gradient), one, data_of<const T>(input),
                       data_of<const T>(t), data_of<T>(dx));
    return true;
  });
  return dx;
}

}  // namespace

void register_losses(py::module_& m) {
  m.def("softmax_forward", &softmax_forward, py::arg("x"), py::arg("log") = false);
  m.def("softmax_backward", &softmax_gradient, py::arg("dy"), py::arg("y"), py::arg("log") = false);
  m.def("cross_entropy_forward", &entropy_forward, py::arg("logits"), py::arg("labels"), py::arg("weight") = py::none(),
        py::arg("label_smoothing") = 0.0, py::arg("ignore_index") = py::none());
  m.def("cross_entropy_backward", &entropy_backward, py::arg("dloss"), py::arg("probabilities"), py::arg("labels"),
        py::arg("weight") = py::none(), py::arg("label_smoothing") = 0.0, py::arg("ignore_index") = py::none());
  m.def("pair_loss_forward", &pair_forward, py::arg("kind"), py::arg("x"), py::arg("target"), py::arg("alpha") = 0.0);
  m.def("pair_loss_sum", &pair_sum, py::arg("kind"), py::arg("x"), py::arg("target"), py::arg("alpha") = 0.0);
  m.def("pair_loss_backward", &pair_backward, py::arg("kind"), py::arg("dloss"), py::arg("x"), py::arg("target"),
        py::arg("alpha") = 0.0);
}

}  // namespace fastconv
