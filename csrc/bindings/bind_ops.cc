// SPDX-License-Identifier: Apache-2.0
// The operations of a network other than convolution and pooling. They run on the default instruction set and number
// of threads; FASTCONV_ISA and set_threads change both, and `threads` where a function has it.
#include "../norm_ops.h"
#include "../parallel.h"
#include "../pointwise_ops.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

// ---- Pointwise -----------------------------------------------------------------------------------------------------

Activation kind_named(const std::string& name) {
  Activation kind;
  if (!find_by_name(name.c_str(), &kind) || kind == Activation::kNone)
    throw ProblemError{format("kind is '%.40s'; expected %s", name.c_str(), kActivations)};
  return kind;
}

py::array activate(const std::string& kind_name, const py::array& x, double alpha) {
  const Activation kind = kind_named(kind_name);
  const DType dtype = dtype_of(x, "x");
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), y = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    activation_forward(machine, kind, alpha, input.size(), data_of<const T>(input), data_of<T>(y));
    return true;
  });
  return y;
}

py::array activate_backward(const std::string& kind_name, const py::array& dy, const py::array& saved, double alpha) {
  const Activation kind = kind_named(kind_name);
  const DType dtype = dtype_of(dy, "dy");
  const Machine& machine = default_machine();
  const py::array kept = like(saved, "saved", dtype, shape_of(dy), "dy"), gradient = contiguous(dy);
  const py::array dx = make_output(dtype, shape_of(dy));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    activation_backward(machine, kind, alpha, dx.size(), data_of<const T>(gradient), data_of<const T>(kept),
                        data_of<T>(dx));
    return true;
  });
  return dx;
}

py::array add_arrays(const py::array& a, const py::array& b) {
  const DType dtype = dtype_of(a, "a");
  const Machine& machine = default_machine();
  const py::array left = contiguous(a), right = like(b, "b", dtype, shape_of(a), "a");
  const py::array sum = make_output(dtype, shape_of(a));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    add(machine, sum.size(), data_of<const T>(left), data_of<const T>(right), data_of<T>(sum));
    return true;
  });
  return sum;
}

py::array scale_by_mask(const py::array& x, const py::array& mask, double scale) {
  const DType dtype = dtype_of(x, "x");
  if (mask.dtype().kind() != 'b') throw py::type_error("mask is not of dtype bool; use mask.astype(bool)");
  require_shape(mask, "mask", shape_of(x));
  const Machine& machine = default_machine();
  const py::array kept = py::array_t<bool, py::array::c_style>::ensure(mask), input = contiguous(x);
  if (!kept) throw std::bad_alloc();
  const py::array y = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    scale_mask(machine, y.size(), data_of<const T>(input), data_of<const uint8_t>(kept), scale, data_of<T>(y));
    return true;
  });
  return y;
}

// ---- Channels ------------------------------------------------------------------------------------------------------

ChannelShape channel_shape(const py::array& x) {
  if (x.ndim() < 2)
    throw ProblemError{format("x has shape %s; expected (N, C) or (N, C, *)", text_of(shape_of(x)).c_str())};
  ChannelShape shape = {x.shape(0), x.shape(1), 1};
  for (py::ssize_t i = 2; i < x.ndim(); ++i) shape.pixels *= x.shape(i);
  return shape;
}

py::array sum_of_channels(const py::array& x) {
  const DType dtype = dtype_of(x, "x");
  const ChannelShape shape = channel_shape(x);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), sum = make_output(dtype, {shape.c});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return channel_sum(machine, shape, data_of<const T>(input), data_of<T>(sum));
  });
  return sum;
}

py::tuple normalise(const py::array& x, const py::array& gamma, const py::array& beta, double eps, int threads) {
  const DType dtype = dtype_of(x, "x");
  const ChannelShape shape = channel_shape(x);
  if (shape.c > 0 && shape.n * shape.pixels == 0)
    throw ProblemError{format("x has shape %s; expected at least one value per channel to take statistics of",
                              text_of(shape_of(x)).c_str())};
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), scale = like(gamma, "gamma", dtype, {shape.c}, "x"),
                  shift = like(beta, "beta", dtype, {shape.c}, "x");
  const py::array y = make_output(dtype, shape_of(x)), mean = make_output(dtype, {shape.c}),
                  variance = make_output(dtype, {shape.c});
  const ThreadDefault threads_of_call(granted_threads(threads));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return batch_norm_forward(machine, shape, data_of<const T>(input), data_of<const T>(scale), data_of<const T>(shift),
                              eps, data_of<T>(y), data_of<T>(mean), data_of<T>(variance));
  });
  return py::make_tuple(y, mean, variance);
}

py::array normalise_with(const py::array& x, const py::array& gamma, const py::array& beta, const py::array& mean,
                         const py::array& variance, double eps) {
  const DType dtype = dtype_of(x, "x");
  const ChannelShape shape = channel_shape(x);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), scale = like(gamma, "gamma", dtype, {shape.c}, "x"),
                  shift = like(beta, "beta", dtype, {shape.c}, "x"), centre = like(mean, "mean", dtype, {shape.c}, "x"),
                  spread = like(variance, "variance", dtype, {shape.c}, "x");
  const py::array y = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return batch_norm_inference(machine, shape, data_of<const T>(input), data_of<const T>(scale),
                                data_of<const T>(shift), data_of<const T>(centre), data_of<const T>(spread), eps,
                                data_of<T>(y));
  });
  return y;
}

py::tuple normalise_backward(const py::array& dy, const py::array& x, const py::array& gamma, const py::array& mean,
                             const py::array& variance, double eps, int threads) {
  const DType dtype = dtype_of(x, "x");
  const ChannelShape shape = channel_shape(x);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), gradient = like(dy, "dy", dtype, shape_of(x), "x"),
                  scale = like(gamma, "gamma", dtype, {shape.c}, "x"),
                  centre = like(mean, "mean", dtype, {shape.c}, "x"),
                  spread = like(variance, "variance", dtype, {shape.c}, "x");
  const py::array dx = make_output(dtype, shape_of(x)), dgamma = make_output(dtype, {shape.c}),
                  dbeta = make_output(dtype, {shape.c});
  const ThreadDefault threads_of_call(granted_threads(threads));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    return batch_norm_backward(machine, shape, data_of<const T>(gradient), data_of<const T>(input),
                               data_of<const T>(scale), data_of<const T>(centre), data_of<const T>(spread), eps,
                               data_of<T>(dx), data_of<T>(dgamma), data_of<T>(dbeta));
  });
  return py::make_tuple(dx, dgamma, dbeta);
}

// ---- PReLU: a slope for each channel, or one for all ----------------------------------------------------------------

ChannelShape slope_shape(const py::array& x, const py::array& w, DType dtype) {
  require_dtype(w, "w", dtype, "x");
  if (w.ndim() == 1 && w.shape(0) == 1) return {1, 1, x.size()};
  const ChannelShape shape = channel_shape(x);
  require_shape(w, "w", {shape.c});
  return shape;
}

py::array prelu_forward(const py::array& x, const py::array& w) {
  const DType dtype = dtype_of(x, "x");
  const ChannelShape shape = slope_shape(x, w, dtype);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), slopes = contiguous(w), y = make_output(dtype, shape_of(x));
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    prelu(machine, shape.n, shape.c, shape.pixels, data_of<const T>(input), data_of<const T>(slopes), data_of<T>(y));
    return true;
  });
  return y;
}

py::tuple prelu_gradients(const py::array& dy, const py::array& x, const py::array& w) {
  const DType dtype = dtype_of(x, "x");
  const ChannelShape shape = slope_shape(x, w, dtype);
  const Machine& machine = default_machine();
  const py::array input = contiguous(x), slopes = contiguous(w), gradient = like(dy, "dy", dtype, shape_of(x), "x");
  const py::array dx = make_output(dtype, shape_of(x)), below = make_output(dtype, shape_of(x)),
                  dw = make_output(dtype, {shape.c});
  compute(dtype, [&](auto zero) {
    typedef decltype(zero) T;
    prelu_backward(machine, shape.n, shape.c, shape.pixels, data_of<const T>(gradient), data_of<const T>(input),
                   data_of<const T>(slopes), data_of<T>(dx), data_of<T>(below));
    return channel_sum(machine, shape, data_of<const T>(below), data_of<T>(dw));
  });
  return py::make_tuple(dx, dw);
}

}  // namespace

void register_ops(py::module_& m) {
  m.def("activation_forward", &activate, py::arg("kind"), py::arg("x"), py::arg("alpha") = 0.0);
  m.def("activation_backward", &activate_backward, py::arg("kind"), py::arg("dy"), py::arg("saved"),
        py::arg("alpha") = 0.0);
  m.def("prelu_forward", &prelu_forward, py::arg("x"), py::arg("w"));
  m.def("prelu_backward", &prelu_gradients, py::arg("dy"), py::arg("x"), py::arg("w"));
  m.def("add", &add_arrays, py::arg("a"), py::arg("b"));
  m.def("scale_mask", &scale_by_mask, py::arg("x"), py::arg("mask"), py::arg("scale"));
  m.def("channel_sum", &sum_of_channels, py::arg("x"));
  m.def("batch_norm_forward", &normalise, py::arg("x"), py::arg("gamma"), py::arg("beta"), py::arg("eps"),
        py::arg("threads") = 0);
  m.def("batch_norm_inference", &normalise_with, py::arg("x"), py::arg("gamma"), py::arg("beta"), py::arg("mean"),
        py::arg("variance"), py::arg("eps"));
  m.def("batch_norm_backward", &normalise_backward, py::arg("dy"), py::arg("x"), py::arg("gamma"), py::arg("mean"),
        py::arg("variance"), py::arg("eps"), py::arg("threads") = 0);
  register_norm(m);
  register_windows(m);
  register_losses(m);
  register_training(m);
}

}  // namespace fastconv
