// SPDX-License-Identifier: Apache-2.0
// PoolProblem as a Python class; arrays to buffers, the run with the GIL released, arrays back.
#include <pybind11/stl.h>

#include "../pool.h"
#include "../pool_positions.h"
#include "conv_arguments.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

// What Python calls a pooling problem: everything but dtype and pass, which each call adds.
PoolProblem make_problem(const std::string& kind, const Shape& x_shape, const Shape& window, const Shape& stride,
                         const Shape& pad_begin, const Shape& pad_end, const Shape& dilation, bool ceil_mode,
                         bool count_include_pad, int64_t divisor, const Shape& output, const std::string& layout) {
  const size_t rank = x_shape.size() - 2;
  if (x_shape.size() < 3 || rank > kMaxSpatial)
    throw ProblemError{
        format("x has shape %s; expected batch, channels and 1 to 3 spatial axes", text_of(x_shape).c_str())};
  PoolProblem p{};
  if (!find_by_name(kind.c_str(), &p.kind))
    throw ProblemError{format("kind is '%.60s'; expected max, min, average, lp or signed_lp", kind.c_str())};
  p.layout = layout_named(layout);
  const bool first = p.layout == Layout::kChannelsFirst;
  p.spatial_rank = static_cast<int32_t>(rank);
  p.ceil_mode = ceil_mode;
  p.count_include_pad = count_include_pad;
  p.adaptive = !output.empty();
  p.divisor = divisor;
  p.n = x_shape[0];
  p.c = first ? x_shape[1] : x_shape.back();
  for (int i = 0; i < kMaxSpatial; ++i) {
    p.size[i] = p.window[i] = p.stride[i] = p.dilation[i] = 1;
    p.output[i] = p.adaptive;
  }
  const Shape size(x_shape.begin() + (first ? 2 : 1), x_shape.end() - (first ? 0 : 1));
  const struct {
    const char* name;
    const Shape& values;
    int64_t* into;
  } fields[] = {{"size", size, p.size},          {"window", window, p.window},
                {"stride", stride, p.stride},    {"pad_begin", pad_begin, p.pad_begin},
                {"pad_end", pad_end, p.pad_end}, {"dilation", dilation, p.dilation},
                {"output", output, p.output}};
  for (const auto& field : fields) {
    const bool unused = field.values.empty() && (p.adaptive || field.into == p.output);
    if (unused) continue;
    if (field.values.size() != rank)
      throw ProblemError{
          format("%s has %zu entries; expected %zu, one per spatial axis", field.name, field.values.size(), rank)};
    std::copy(field.values.begin(), field.values.end(), field.into + kMaxSpatial - rank);
  }
  char text[kTextCapacity];
  if (!validate(p, text)) throw ProblemError{text};
  return p;
}

Shape shape_with(const PoolProblem& p, Layout layout, bool of_y) {
  Shape shape = {p.n};
  if (layout == Layout::kChannelsFirst) shape.push_back(p.c);
  for (int i = kMaxSpatial - p.spatial_rank; i < kMaxSpatial; ++i)
    shape.push_back(of_y ? output_size(p, i) : p.size[i]);
  if (layout == Layout::kChannelsLast) shape.push_back(p.c);
  return shape;
}

py::tuple axes_of(const PoolProblem& p, const int64_t* values) {
  return py::tuple(py::cast(Shape(values + kMaxSpatial - p.spatial_rank, values + kMaxSpatial)));
}

// The problem of one call.
PoolProblem with(PoolProblem p, Pass pass, DType dtype) {
  p.pass = pass;
  p.dtype = dtype;
  char text[kTextCapacity];
  if (!validate(p, text)) throw ProblemError{text};
  return p;
}

template <class Run>
void execute(const py::object& options_object, const Run& run) {
  const Options& options = options_of(options_object);
  char text[kTextCapacity];
  Failure failure;
  {
    const py::gil_scoped_release release;
    failure = run(options, text);
  }
  if (failure != Failure::kNone) throw_failure(failure, text);
}

// What was computed in channels-last memory seen in the order of axes that was asked for.
py::object as_layout(const py::array& array, Layout from, Layout to) {
  if (from == to) return array;
  py::list axes;
  axes.append(0);
  axes.append(array.ndim() - 1);
  for (py::ssize_t i = 1; i < array.ndim() - 1; ++i) axes.append(i);
  return array.attr("transpose")(axes);
}

py::array make_indices(const Shape& shape) { return make_output(py::dtype::of<int64_t>(), shape); }

py::array make_bytes(const Shape& shape) { return make_output(py::dtype::of<uint8_t>(), shape); }

// What a forward call returns besides y: the winners' positions, their offsets, or none.
enum class Winners { kNone, kIndices, kOffsets };

// A channels-first view of channels-last memory is pooled where it lies, and gives such a view again.
py::tuple forward(const PoolProblem& problem, const py::array& x, double norm, Winners wanted,
                  const py::object& options) {
  PoolProblem p = with(problem, Pass::kForward, dtype_of(x, "x"));
  require_shape(x, "x", shape_with(p, p.layout, false));
  const Layout layout = p.layout;
  const ImageArray image = image_array(x, layout, true);
  p.layout = image.layout;
  const Shape shape = shape_with(p, p.layout, true);
  const py::array y = make_output(p.dtype, shape);
  PoolBuffers buffers{};
  buffers.x = image.data();
  buffers.x_batch_pitch = image.batch_pitch, buffers.x_channel_pitch = image.channel_pitch;
  buffers.y = data_of<void>(y);
  buffers.norm = norm;
  py::array winners;
  if (wanted == Winners::kIndices && (p.kind == PoolKind::kMax || p.kind == PoolKind::kMin)) {
    winners = make_indices(shape);
    buffers.indices = data_of<int64_t>(winners);
  } else if (wanted == Winners::kOffsets) {
    winners = make_bytes(shape);
    buffers.offsets = data_of<uint8_t>(winners);
  }
  execute(options, [&](const Options& o, char* text) { return run_pool(p, o, buffers, text); });
  return py::make_tuple(as_layout(y, p.layout, layout), buffers.indices || buffers.offsets
                                                            ? as_layout(winners, p.layout, layout)
                                                            : py::object(py::none()));
}

py::tuple forward_with_indices(const PoolProblem& problem, const py::array& x, double norm, bool return_indices,
                               const py::object& options) {
  return forward(problem, x, norm, return_indices ? Winners::kIndices : Winners::kNone, options);
}

py::tuple forward_with_offsets(const PoolProblem& problem, const py::array& x, const py::object& options) {
  if (!has_offsets(problem)) throw ProblemError{"offsets are of max and min pooling by at most 256 taps of one size"};
  return forward(problem, x, 1, Winners::kOffsets, options);
}

py::array as_offsets(const PoolProblem& p, const py::array& offsets) {
  if (!has_offsets(p)) throw ProblemError{"offsets are of max and min pooling by at most 256 taps of one size"};
  if (!py::isinstance<py::array_t<uint8_t>>(offsets)) throw py::type_error("offsets is no array of uint8");
  require_shape(offsets, "offsets", shape_with(p, p.layout, true));
  return py::array_t<uint8_t, py::array::c_style>(offsets);  // of a view of channels-last memory, a view
}

py::array offset_positions(const PoolProblem& problem, const py::array& offsets, const py::object& options) {
  const py::array dense = as_offsets(problem, offsets);
  const py::array indices = make_indices(shape_of(dense));
  execute(options, [&](const Options& o, char*) {
    positions_of_offsets(problem, o, data_of<uint8_t>(dense), data_of<int64_t>(indices));
    return Failure::kNone;
  });
  return indices;
}

py::array backward_by_offsets(const PoolProblem& problem, const py::array& dy, const py::array& offsets,
                              const py::object& options) {
  const PoolProblem p = with(problem, Pass::kBackwardData, dtype_of(dy, "dy"));
  const py::array dense = as_offsets(p, offsets);
  const py::array gradient = like(dy, "dy", p.dtype, shape_with(p, p.layout, true), "dy");
  const py::array dx = make_output(p.dtype, shape_with(p, p.layout, false));
  PoolBuffers buffers{};
  buffers.x_channel_pitch = p.layout == Layout::kChannelsFirst ? x_plane(p) : p.c;
  buffers.x_batch_pitch = x_plane(p) * p.c;
  buffers.dy = data_of<void>(gradient);
  buffers.offsets = data_of<uint8_t>(dense);
  buffers.dx = data_of<void>(dx);
  execute(options, [&](const Options& o, char* text) { return run_pool(p, o, buffers, text); });
  return dx;
}

py::array backward(const PoolProblem& problem, const py::array& dy, const py::object& x, const py::object& y,
                   double norm, const py::object& options) {
  const PoolProblem p = with(problem, Pass::kBackwardData, dtype_of(dy, "dy"));
  const Shape x_shape = shape_with(p, p.layout, false), y_shape = shape_with(p, p.layout, true);
  const py::array gradient = like(dy, "dy", p.dtype, y_shape, "dy");
  const py::array dx = make_output(p.dtype, x_shape);
  const int64_t plane = x_plane(p);
  PoolBuffers buffers{};
  buffers.x_batch_pitch = plane * p.c;
  buffers.x_channel_pitch = p.layout == Layout::kChannelsFirst ? plane : p.c;
  buffers.dy = data_of<void>(gradient);
  buffers.dx = data_of<void>(dx);
  buffers.norm = norm;
  if (p.kind == PoolKind::kMax || p.kind == PoolKind::kMin)
    throw ProblemError{format("%s pooling has a gradient by offsets or positions", name_of(p.kind))};
  py::array x_dense, y_dense;
  if (p.kind != PoolKind::kAverage) {
    x_dense = like(x.cast<py::array>(), "x", p.dtype, x_shape, "dy");
    y_dense = like(y.cast<py::array>(), "y", p.dtype, y_shape, "dy");
    buffers.x = data_of<void>(x_dense);
    buffers.y = data_of<void>(y_dense);
  }
  execute(options, [&](const Options& o, char* text) { return run_pool(p, o, buffers, text); });
  return dx;
}

// ---- Positions. A tensor and its indices have one shape; the plane has the same batch and channels. ----------------

int64_t pixels_of(const Shape& shape, Layout layout) {
  int64_t pixels = 1;
  for (size_t i = layout == Layout::kChannelsFirst ? 2 : 1; i < shape.size() - (layout == Layout::kChannelsLast); ++i)
    pixels *= shape[i];
  return pixels;
}

PositionProblem positions_of(DType dtype, const Shape& plane, const Shape& outputs, const std::string& layout_name,
                             int64_t least) {
  const Layout layout = layout_named(layout_name);
  const auto channels = [&](const Shape& s) { return layout == Layout::kChannelsFirst ? s[1] : s.back(); };
  if (plane.size() < 3 || outputs.size() < 3 || plane[0] != outputs[0] || channels(plane) != channels(outputs))
    throw ProblemError{format("indices has shape %s, x %s; expected the same batch and channels, and spatial axes",
                              text_of(outputs).c_str(), text_of(plane).c_str())};
  return {layout, dtype, plane[0], channels(plane), pixels_of(plane, layout), pixels_of(outputs, layout), least};
}

py::array scatter(const py::array& values, const py::object& indices, const Shape& x_shape, const std::string& layout,
                  int64_t least, const py::object& options) {
  const py::array at = contiguous_int64(indices, "indices"), dense = contiguous(values);
  require_shape(at, "indices", shape_of(values));
  const PositionProblem p = positions_of(dtype_of(values, "dy"), x_shape, shape_of(at), layout, least);
  const py::array x = make_output(p.dtype, x_shape);
  execute(options, [&](const Options& o, char* text) {
    return scatter_positions(p, o, data_of<void>(dense), data_of<int64_t>(at), data_of<void>(x), text);
  });
  return x;
}

py::array gather(const py::array& x, const py::object& indices, const std::string& layout, int64_t least,
                 const py::object& options) {
  const py::array at = contiguous_int64(indices, "indices"), dense = contiguous(x);
  const PositionProblem p = positions_of(dtype_of(x, "x"), shape_of(x), shape_of(at), layout, least);
  const py::array y = make_output(p.dtype, shape_of(at));
  execute(options, [&](const Options& o, char* text) {
    return gather_positions(p, o, data_of<void>(dense), data_of<int64_t>(at), data_of<void>(y), text);
  });
  return y;
}

py::array last(const py::object& indices, const Shape& x_shape, const std::string& layout, const py::object& options) {
  const py::array at = contiguous_int64(indices, "indices");
  const PositionProblem p = positions_of(DType::kFloat32, x_shape, shape_of(at), layout, 0);
  const py::array kept = make_indices(shape_of(at));
  execute(options, [&](const Options& o, char* text) {
    return last_positions(p, o, data_of<int64_t>(at), data_of<int64_t>(kept), text);
  });
  return kept;
}

// What the constructor takes, but for x_shape.
py::dict words_of(const PoolProblem& p) {
  const auto windows = [&](const int64_t* values) { return p.adaptive ? py::tuple() : axes_of(p, values); };
  py::dict words;
  words["kind"] = name_of(p.kind);
  words["window"] = windows(p.window), words["stride"] = windows(p.stride);
  words["pad_begin"] = windows(p.pad_begin), words["pad_end"] = windows(p.pad_end);
  words["dilation"] = windows(p.dilation);
  words["ceil_mode"] = p.ceil_mode != 0, words["count_include_pad"] = p.count_include_pad != 0;
  words["divisor"] = p.divisor;
  words["output"] = p.adaptive ? axes_of(p, p.output) : py::tuple();
  words["layout"] = p.layout == Layout::kChannelsFirst ? "channels_first" : "channels_last";
  return words;
}

}  // namespace

void register_pool(py::module_& m) {
  py::class_<PoolProblem>(m, "PoolProblem")
      .def(py::init(&make_problem), py::arg("kind"), py::arg("x_shape"), py::arg("window"), py::arg("stride"),
           py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"), py::arg("ceil_mode") = false,
           py::arg("count_include_pad") = true, py::arg("divisor") = 0, py::arg("output") = Shape(),
           py::arg("layout") = "channels_first")
      .def_property_readonly("kind", [](const PoolProblem& p) { return name_of(p.kind); })
      .def_property_readonly("x_shape",
                             [](const PoolProblem& p) { return py::tuple(py::cast(shape_with(p, p.layout, false))); })
      .def_property_readonly("y_shape",
                             [](const PoolProblem& p) { return py::tuple(py::cast(shape_with(p, p.layout, true))); })
      .def_property_readonly("has_offsets", [](const PoolProblem& p) { return has_offsets(p); })
      .def_property_readonly("c", [](const PoolProblem& p) { return p.c; })
      .def_property_readonly("size", [](const PoolProblem& p) { return axes_of(p, p.size); })
      .def_property_readonly("window", [](const PoolProblem& p) { return axes_of(p, p.window); })
      .def_property_readonly("stride", [](const PoolProblem& p) { return axes_of(p, p.stride); })
      .def_property_readonly("dilation", [](const PoolProblem& p) { return axes_of(p, p.dilation); })
      .def_property_readonly("pad_begin", [](const PoolProblem& p) { return axes_of(p, p.pad_begin); })
      .def_property_readonly("output_size",
                             [](const PoolProblem& p) {
                               const int64_t size[] = {output_size(p, 0), output_size(p, 1), output_size(p, 2)};
                               return axes_of(p, size);
                             })
      .def_property_readonly(
          "layout",
          [](const PoolProblem& p) { return p.layout == Layout::kChannelsFirst ? "channels_first" : "channels_last"; })
      .def_property_readonly("words", &words_of);
  m.def("pool_forward", forward_with_indices, py::arg("problem"), py::arg("x"), py::arg("norm"),
        py::arg("return_indices"), py::arg("options"));
  m.def("pool_backward", backward, py::arg("problem"), py::arg("dy"), py::arg("x"), py::arg("y"), py::arg("norm"),
        py::arg("options"));
  m.def("pool_forward_offsets", forward_with_offsets, py::arg("problem"), py::arg("x"), py::arg("options"));
  m.def("pool_backward_offsets", backward_by_offsets, py::arg("problem"), py::arg("dy"), py::arg("offsets"),
        py::arg("options"));
  m.def("offset_positions", offset_positions, py::arg("problem"), py::arg("offsets"), py::arg("options"));
  m.def("scatter_positions", scatter, py::arg("values"), py::arg("indices"), py::arg("x_shape"), py::arg("layout"),
        py::arg("least"), py::arg("options"));
  m.def("gather_positions", gather, py::arg("x"), py::arg("indices"), py::arg("layout"), py::arg("least"),
        py::arg("options"));
  m.def("last_positions", last, py::arg("indices"), py::arg("x_shape"), py::arg("layout"), py::arg("options"));
}

}  // namespace fastconv
