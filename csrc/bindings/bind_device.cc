// SPDX-License-Identifier: Apache-2.0
// Convolution and pooling on a device, and the device itself.
#include <pybind11/stl.h>

#include "../plan.h"
#include "../registry.h"
#include "conv_arguments.h"
#include "device_calls.h"

namespace fastconv {
namespace {

std::string open_library(const std::string& path) {
  char text[kTextCapacity];
  const Backend* backend = open_backend(path.c_str(), text);
  if (!backend) throw DeviceError{text};
  return backend->name;
}

py::dict device_info(int ordinal) {
  const Device& device = device_numbered(ordinal);
  py::dict d;
  d["name"] = device.name;
  d["architecture"] = device.machine.architecture;
  d["multiprocessors"] = device.machine.multiprocessors;
  d["memory_bytes"] = device.memory_bytes;
  d["speeds"] = speeds_of(device.machine);
  py::list names;
  for (int i = 0; i < device.machine.algorithm_count; ++i) names.append(device.machine.algorithms[i]->name);
  d["algorithms"] = names;
  py::list verified;
  for (int i = 0; i < device.machine.verified_count; ++i) verified.append(device.machine.verified[i]);
  d["verified"] = verified;
  return d;
}

int device_count() {
  int count = 0;
  const Backend* backend = opened_backend();
  if (!backend) return 0;
  if (backend->device_count(&count) != 0) throw DeviceError{backend->last_error()};
  return count;
}

// The caller's options on this device: the algorithm of the same name.
Options options_on(const Device& device, const Options& options) {
  Options o = options;
  o.machine = &device.machine;
  if (!options.algorithm) return o;
  o.algorithm = find_algorithm(device.machine, options.algorithm->name);
  if (o.algorithm) return o;
  std::string known;
  for (int i = 0; i < device.machine.algorithm_count; ++i)
    known += (i ? ", " : "") + std::string(device.machine.algorithms[i]->name);
  throw UnsupportedError{format("%s is not among the algorithms for CUDA: %s", options.algorithm->name, known.c_str())};
}

// x and y: (address, layout, batch pitch, channel pitch) of an image tensor. `allocate(bytes)` gives the address of a
// workspace.
void conv(const std::string& pass, const py::tuple& x, const Shape& x_shape, uintptr_t w, const Shape& w_shape,
          const py::tuple& y, uintptr_t bias, uintptr_t residual, const Shape& stride, const Shape& pad_begin,
          const Shape& pad_end, const Shape& dilation, int64_t groups, const std::string& padding_mode,
          double pad_value, const std::string& activation, double alpha, const std::string& layout,
          const std::string& dtype, const Options& options, int ordinal, uintptr_t stream, const py::object& allocate,
          uintptr_t packed) {
  const Device& device = device_numbered(ordinal);
  ConvProblem p = empty_problem();
  Pass direction;
  DType type;
  if (!find_by_name(pass.c_str(), &direction) || !find_by_name(dtype.c_str(), &type))
    throw ProblemError{format("pass is '%.40s' and dtype '%.40s'", pass.c_str(), dtype.c_str())};
  p = problem_of(direction, x_shape, w_shape, layout_named(layout), type,
                 {stride, pad_begin, pad_end, dilation, groups, padding_mode});
  p.activation = activation_named(activation);
  p.epilogue = (bias ? kEpilogueBias : 0) | (residual ? kEpilogueResidual : 0);
  p.x_layout = layout_named(x[1].cast<std::string>());
  p.y_layout = layout_named(y[1].cast<std::string>());
  require_valid(p);
  const Options o = options_on(device, options);
  Choice choice = choose(p, o, packed != 0);
  if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
  RunContext context{};
  context.stream = address(stream);
  if (choice.workspace_bytes) context.workspace = address(allocate(choice.workspace_bytes).cast<uintptr_t>());
  context.w_dtype = type;
  context.packed_w = address(packed);
  context.x = address(x[0].cast<uintptr_t>());
  context.x_batch_pitch = x[2].cast<int64_t>(), context.x_channel_pitch = x[3].cast<int64_t>();
  context.y = address(y[0].cast<uintptr_t>());
  context.y_batch_pitch = y[2].cast<int64_t>(), context.y_channel_pitch = y[3].cast<int64_t>();
  context.w = address(w);
  context.bias = address(bias), context.residual = address(residual);
  context.alpha = alpha, context.pad_value = pad_value;
  const OnDevice current(ordinal);
  bool done;
  {
    const py::gil_scoped_release release;
    done = run_on_device(p, o, *opened_backend(), &choice, &context);
  }
  if (!done) throw_failure(choice.failure, choice.text);
}

// (layout, batch pitch, channel pitch) of an array whose memory the kernels take as it is, else None.
py::object pitches(const Shape& shape, const Shape& strides, int64_t itemsize, const std::string& layout) {
  ImagePitches found;
  if (shape.size() < 3 ||
      !image_pitches({shape.size(), shape.data(), strides.data(), itemsize}, layout_named(layout), true, &found))
    return py::none();
  return py::make_tuple(found.layout == Layout::kChannelsLast ? "channels_last" : "channels_first", found.batch_pitch,
                        found.channel_pitch);
}

// The algorithm that a plan of the problem takes, and the bytes of its packed weights (0: as they are).
py::tuple plan_choice(const ConvProblem& p, const Options& options, int ordinal) {
  const Options o = options_on(device_numbered(ordinal), options);
  const Choice choice = choose(p, o, true);
  if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
  return py::make_tuple(choice.algorithm->name, choice.algorithm->packed_bytes(&p, o.machine), choice.workspace_bytes);
}

void pack(const ConvProblem& p, const std::string& algorithm, int ordinal, uintptr_t stream, uintptr_t w,
          uintptr_t packed) {
  const Device& device = device_numbered(ordinal);
  const Algorithm* found = find_algorithm(device.machine, algorithm.c_str());
  if (!found) throw ProblemError{format("algorithm is '%.60s', which CUDA does not have", algorithm.c_str())};
  char text[kTextCapacity] = "";
  RunContext context{};
  context.machine = &device.machine;
  context.stream = address(stream);
  context.w = address(w);
  context.w_dtype = p.dtype;
  context.error = text;
  const OnDevice current(ordinal);
  if (found->pack(&p, &context, address(packed)) != 0) throw DeviceError{text};
}

py::list algorithms(const ConvProblem& p, const Options& options, int ordinal) {
  return rows_of(candidates(p, options_on(device_numbered(ordinal), options)));
}

std::string chosen(const ConvProblem& p, const Options& options, int ordinal) {
  const Choice choice = choose(p, options_on(device_numbered(ordinal), options), false);
  if (choice.failure != Failure::kNone) throw_failure(choice.failure, choice.text);
  return choice.algorithm->name;
}

// `buffers`: addresses of x, y, indices, offsets, dy and dx, 0 where there is none.
void pool(const PoolProblem& problem, const std::string& pass, const std::string& dtype, const std::string& layout,
          int64_t x_batch_pitch, int64_t x_channel_pitch, const std::vector<uintptr_t>& buffers, double norm,
          int ordinal, uintptr_t stream) {
  const Device& device = device_numbered(ordinal);
  PoolProblem p = problem;
  char text[kTextCapacity] = "";
  p.layout = layout_named(layout);
  if (!find_by_name(pass.c_str(), &p.pass) || !find_by_name(dtype.c_str(), &p.dtype) || buffers.size() != 6)
    throw ProblemError{format("pass is '%.40s' and dtype '%.40s'", pass.c_str(), dtype.c_str())};
  if (!validate(p, text)) throw ProblemError{text};
  PoolContext context{};
  context.machine = &device.machine;
  context.stream = address(stream);
  context.error = text;
  PoolBuffers& b = context.buffers;
  b.x = address(buffers[0]), b.y = address(buffers[1]);
  b.x_batch_pitch = x_batch_pitch, b.x_channel_pitch = x_channel_pitch;
  b.indices = static_cast<int64_t*>(address(buffers[2])), b.offsets = static_cast<uint8_t*>(address(buffers[3]));
  b.dy = address(buffers[4]), b.dx = address(buffers[5]);
  b.norm = norm;
  const OnDevice current(ordinal);
  if (opened_backend()->pool(&p, &context) != 0) throw DeviceError{text};
}

// `shape`: images, channels, pixels of a plane and values of a channel; all three dense in `layout`.
void scatter_positions(uintptr_t values, uintptr_t indices, uintptr_t plane, const std::string& dtype,
                       const std::string& layout, const Shape& shape, int ordinal, uintptr_t stream) {
  const Device& device = device_numbered(ordinal);
  char text[kTextCapacity] = "";
  PositionContext context{};
  if (!find_by_name(dtype.c_str(), &context.dtype) || shape.size() != 4)
    throw ProblemError{format("dtype is '%.40s'", dtype.c_str())};
  context.machine = &device.machine;
  context.stream = address(stream);
  context.error = text;
  context.channels_last = layout_named(layout) == Layout::kChannelsLast;
  context.n = shape[0], context.c = shape[1], context.pixels = shape[2], context.outputs = shape[3];
  context.values = address(values), context.indices = static_cast<const int64_t*>(address(indices));
  context.plane = address(plane);
  const OnDevice current(ordinal);
  if (opened_backend()->scatter_positions(&context) != 0) throw DeviceError{text};
}

// Everything that `stream` gets from now on starts after what `other` has.
void wait(int ordinal, uintptr_t stream, uintptr_t other) {
  const OnDevice current(ordinal);
  if (opened_backend()->wait(address(stream), address(other)) != 0) throw DeviceError{opened_backend()->last_error()};
}

}  // namespace

void register_device(py::module_& m) {
  m.def("device_open_library", &open_library, py::arg("path"));
  m.def("device_count", &device_count);
  m.def("device_info", &device_info, py::arg("device"));
  m.def("device_pitches", &pitches, py::arg("shape"), py::arg("strides"), py::arg("itemsize"), py::arg("layout"));
  m.def("device_conv", &conv, py::arg("pass_"), py::arg("x"), py::arg("x_shape"), py::arg("w"), py::arg("w_shape"),
        py::arg("y"), py::arg("bias"), py::arg("residual"), py::arg("stride"), py::arg("pad_begin"), py::arg("pad_end"),
        py::arg("dilation"), py::arg("groups"), py::arg("padding_mode"), py::arg("pad_value"), py::arg("activation"),
        py::arg("alpha"), py::arg("layout"), py::arg("dtype"), py::arg("options"), py::arg("device"), py::arg("stream"),
        py::arg("allocate"), py::arg("packed") = 0);
  m.def("device_plan_choice", &plan_choice, py::arg("problem"), py::arg("options"), py::arg("device"));
  m.def("device_pack", &pack, py::arg("problem"), py::arg("algorithm"), py::arg("device"), py::arg("stream"),
        py::arg("w"), py::arg("packed"));
  m.def("device_algorithms", &algorithms, py::arg("problem"), py::arg("options"), py::arg("device"));
  m.def("device_choose", &chosen, py::arg("problem"), py::arg("options"), py::arg("device"));
  m.def("device_pool", &pool, py::arg("problem"), py::arg("pass_"), py::arg("dtype"), py::arg("layout"),
        py::arg("x_batch_pitch"), py::arg("x_channel_pitch"), py::arg("buffers"), py::arg("norm"), py::arg("device"),
        py::arg("stream"));
  m.def("device_scatter_positions", &scatter_positions, py::arg("values"), py::arg("indices"), py::arg("plane"),
        py::arg("dtype"), py::arg("layout"), py::arg("shape"), py::arg("device"), py::arg("stream"));
  m.def("device_wait", &wait, py::arg("device"), py::arg("stream"), py::arg("other"));
  register_device_ops(m);
}

}  // namespace fastconv
