// SPDX-License-Identifier: Apache-2.0
// Operations other than convolution and pooling on a device.
#include <pybind11/stl.h>

#include <cinttypes>

#include "conv_arguments.h"
#include "device_calls.h"

namespace fastconv {
namespace {

typedef std::vector<uintptr_t> Addresses;

// The number of `name` among those of an operation.
template <class Op, size_t count>
Op op_named(const char* const (&names)[count], const std::string& name) {
  std::string known;
  for (size_t i = 0; i < count; ++i) {
    if (name == names[i]) return static_cast<Op>(i);
    known += (i ? ", " : "") + std::string(names[i]);
  }
  throw ProblemError{format("op is '%.40s'; expected %s", name.c_str(), known.c_str())};
}

DType dtype_named(const std::string& name) {
  DType dtype;
  if (!find_by_name(name.c_str(), &dtype)) throw ProblemError{format("dtype is '%.40s'", name.c_str())};
  return dtype;
}

void require_sizes(const Shape& shape, size_t lengths, const Addresses& buffers, size_t count) {
  if (shape.size() != lengths || buffers.size() != count)
    throw ProblemError{format("shape has %zu lengths, buffers %zu addresses; expected %zu and %zu", shape.size(),
                              buffers.size(), lengths, count)};
  for (int64_t length : shape)
    if (length < 0) throw ProblemError{format("shape has a length of %" PRId64 "; expected 0 or more", length)};
}

// `shape`: (n, c, pixels). `buffers`: addresses of x, dy, w, mask, y and dx, 0 where there is none.
void pointwise(const std::string& op, const std::string& activation, double alpha, const std::string& dtype,
               const Shape& shape, const Addresses& buffers, int ordinal, uintptr_t stream) {
  static constexpr const char* kNames[] = {"activation", "activation_backward", "prelu", "prelu_backward",
                                           "add",        "scale_mask"};
  require_sizes(shape, 3, buffers, 6);
  char text[kTextCapacity] = "";
  PointwiseContext c{};
  c.machine = &device_numbered(ordinal).machine;
  c.stream = address(stream), c.error = text;
  c.op = op_named<PointwiseOp>(kNames, op);
  c.dtype = dtype_named(dtype);
  if (!find_by_name(activation.c_str(), &c.activation))
    throw ProblemError{format("activation is '%.40s'; expected %s", activation.c_str(), kActivations)};
  c.alpha = alpha;
  c.n = shape[0], c.c = shape[1], c.pixels = shape[2];
  c.x = address(buffers[0]), c.dy = address(buffers[1]), c.w = address(buffers[2]);
  c.mask = static_cast<const uint8_t*>(address(buffers[3]));
  c.y = address(buffers[4]), c.dx = address(buffers[5]);
  const OnDevice current(ordinal);
  if (opened_backend()->pointwise(&c) != 0) throw DeviceError{text};
}

// `shape`: (n, c, pixels, groups). `buffers`: addresses of x, dy, gamma, beta, y, dx, dgamma, dbeta, mean and variance.
void norm(const std::string& op, const std::string& dtype, const std::string& layout, bool log, double eps,
          const Shape& shape, const Addresses& buffers, int ordinal, uintptr_t stream, const py::object& allocate) {
  static constexpr const char* kNames[] = {"channel_sum",         "batch_norm_forward", "batch_norm_inference",
                                           "batch_norm_backward", "group_norm_forward", "group_norm_backward",
                                           "softmax_forward",     "softmax_backward"};
  require_sizes(shape, 4, buffers, 10);
  char text[kTextCapacity] = "";
  NormContext c{};
  c.machine = &device_numbered(ordinal).machine;
  c.stream = address(stream), c.error = text;
  c.op = op_named<NormOp>(kNames, op);
  c.dtype = dtype_named(dtype);
  c.channels_last = layout_named(layout) == Layout::kChannelsLast, c.logarithm = log;
  c.n = shape[0], c.c = shape[1], c.pixels = shape[2], c.groups = shape[3];
  if (c.groups < 1 || c.c % c.groups)
    throw ProblemError{format("groups is %" PRId64 ", x has %" PRId64 " channels; expected a divisor", c.groups, c.c)};
  c.eps = eps;
  c.x = address(buffers[0]), c.dy = address(buffers[1]);
  c.gamma = address(buffers[2]), c.beta = address(buffers[3]);
  c.y = address(buffers[4]), c.dx = address(buffers[5]);
  c.dgamma = address(buffers[6]), c.dbeta = address(buffers[7]);
  c.mean = address(buffers[8]), c.variance = address(buffers[9]);
  if (const int64_t bytes = opened_backend()->norm_workspace(&c))
    c.workspace = address(allocate(bytes).cast<uintptr_t>());
  const OnDevice current(ordinal);
  if (opened_backend()->norm(&c) != 0) throw DeviceError{text};
}

}  // namespace

void register_device_ops(py::module_& m) {
  m.def("device_pointwise", &pointwise, py::arg("op"), py::arg("activation"), py::arg("alpha"), py::arg("dtype"),
        py::arg("shape"), py::arg("buffers"), py::arg("device"), py::arg("stream"));
  m.def("device_norm", &norm, py::arg("op"), py::arg("dtype"), py::arg("layout"), py::arg("log"), py::arg("eps"),
        py::arg("shape"), py::arg("buffers"), py::arg("device"), py::arg("stream"), py::arg("allocate"));
}

}  // namespace fastconv
