// SPDX-License-Identifier: Apache-2.0
// Arrays to a PoolProblem, the run with the GIL released, arrays back.
#include <pybind11/stl.h>

#include "../pool.h"
#include "conv_arguments.h"
#include "op_arguments.h"

namespace fastconv {
namespace {

struct Geometry {
  Shape window, stride, pad_begin, pad_end, dilation;
  bool ceil_mode, include_pad;
};

PoolProblem problem_of(PoolKind kind, Pass pass, const Shape& x_shape, Layout layout, DType dtype, const Geometry& g) {
  const size_t rank = g.window.size();
  if (rank < 1 || rank > kMaxSpatial)
    throw ProblemError{format("window has %zu entries; expected 1 to 3, one per spatial axis", rank)};
  if (x_shape.size() != rank + 2)
    throw ProblemError{format("x has shape %s; expected %zu axes: batch, channels and %zu spatial ones",
                              text_of(x_shape).c_str(), rank + 2, rank)};
  const bool first = layout == Layout::kChannelsFirst;
  PoolProblem p{};
  p.kind = kind;
  p.pass = pass;
  p.spatial_rank = static_cast<int32_t>(rank);
  p.layout = layout;
  p.dtype = dtype;
  p.ceil_mode = g.ceil_mode;
  p.count_include_pad = g.include_pad;
  p.n = x_shape[0];
  p.c = first ? x_shape[1] : x_shape.back();
  for (int i = 0; i < kMaxSpatial; ++i) p.size[i] = p.window[i] = p.stride[i] = p.dilation[i] = 1;
  const Shape size(x_shape.begin() + (first ? 2 : 1), x_shape.end() - (first ? 0 : 1));
  const struct {
    const char* name;
    const Shape& values;
    int64_t* into;
  } fields[] = {{"size", size, p.size},
                {"window", g.window, p.window},
                {"stride", g.stride, p.stride},
                {"pad_begin", g.pad_begin, p.pad_begin},
                {"pad_end", g.pad_end, p.pad_end},
                {"dilation", g.dilation, p.dilation}};
  for (const auto& field : fields) {
    if (field.values.size() != rank)
      throw ProblemError{format("%s has %zu entries, window has %zu; expected one per spatial axis", field.name,
                                field.values.size(), rank)};
    std::copy(field.values.begin(), field.values.end(), field.into + kMaxSpatial - rank);
  }
  char text[kTextCapacity];
  if (!validate(p, text)) throw ProblemError{text};
  return p;
}

// Shape of y, in the order of axes that `layout` names.
Shape y_shape(const PoolProblem& p, Layout layout) {
  Shape shape = {p.n};
  if (layout == Layout::kChannelsFirst) shape.push_back(p.c);
  for (int i = kMaxSpatial - p.spatial_rank; i < kMaxSpatial; ++i) shape.push_back(output_size(p, i));
  if (layout == Layout::kChannelsLast) shape.push_back(p.c);
  return shape;
}

void execute(const PoolProblem& p, const py::object& options_object, const PoolBuffers& buffers) {
  const Options& options = options_of(options_object);
  char text[kTextCapacity];
  Failure failure;
  {
    const py::gil_scoped_release release;
    failure = run_pool(p, options, buffers, text);
  }
  if (failure != Failure::kNone) throw_failure(failure, text);
}

// What was computed in channels-last memory seen in the order of axes that was asked for.
py::array as_layout(const py::array& array, Layout from, Layout to) {
  if (from == to) return array;
  py::list axes;
  axes.append(0);
  axes.append(array.ndim() - 1);
  for (py::ssize_t i = 1; i < array.ndim() - 1; ++i) axes.append(i);
  return py::array(array.attr("transpose")(axes));
}

struct Pooled {
  py::array y;
  py::object indices;
};

// A channels-first view of channels-last memory is pooled where it lies, and gives such a view again.
Pooled forward(PoolKind kind, const py::array& x, const Geometry& g, const std::string& layout_name, bool with_indices,
               const py::object& options) {
  const Layout layout = layout_named(layout_name);
  PoolProblem p = problem_of(kind, Pass::kForward, shape_of(x), layout, dtype_of(x, "x"), g);
  const ImageArray image = image_array(x, layout, true);
  p.layout = image.layout;
  const Shape shape = y_shape(p, p.layout);
  const py::array y = make_output(p.dtype, shape);
  py::array indices;
  if (with_indices) indices = make_output(DType::kFloat64, shape).view("int64");
  execute(p, options,
          {image.data(), image.batch_pitch, image.channel_pitch, data_of<void>(y),
           with_indices ? data_of<int64_t>(indices) : nullptr});
  return {as_layout(y, p.layout, layout),
          with_indices ? py::object(as_layout(indices, p.layout, layout)) : py::object(py::none())};
}

py::array backward(PoolKind kind, const py::array& dy, const py::object& indices, const Shape& x_shape,
                   const Geometry& g, const std::string& layout_name, const py::object& options) {
  const Layout layout = layout_named(layout_name);
  const PoolProblem p = problem_of(kind, Pass::kBackwardData, x_shape, layout, dtype_of(dy, "dy"), g);
  require_shape(dy, "dy", y_shape(p, layout));
  const py::array gradient = contiguous(dy), dx = make_output(p.dtype, x_shape);
  const int64_t plane = x_plane(p);
  PoolBuffers buffers = {data_of<void>(dx), plane * p.c, layout == Layout::kChannelsFirst ? plane : p.c,
                         data_of<void>(gradient), nullptr};
  py::array positions;
  if (kind == PoolKind::kMax) {
    positions = contiguous_int64(indices, "indices");
    require_shape(positions, "indices", y_shape(p, layout));
    buffers.indices = data_of<int64_t>(positions);
  }
  execute(p, options, buffers);
  return dx;
}

}  // namespace

void register_pool(py::module_& m) {
  m.def(
      "max_pool_forward",
      [](const py::array& x, const Shape& window, const Shape& stride, const Shape& pad_begin, const Shape& pad_end,
         const Shape& dilation, bool ceil_mode, const std::string& layout, bool return_indices,
         const py::object& options) {
        const Geometry g = {window, stride, pad_begin, pad_end, dilation, ceil_mode, false};
        const Pooled result = forward(PoolKind::kMax, x, g, layout, return_indices, options);
        return py::make_tuple(result.y, result.indices);
      },
      py::arg("x"), py::arg("window"), py::arg("stride"), py::arg("pad_begin"), py::arg("pad_end"), py::arg("dilation"),
      py::arg("ceil_mode"), py::arg("layout"), py::arg("return_indices"), py::arg("options"));
  m.def(
      "max_pool_backward",
      [](const py::array& dy, const py::object& indices, const Shape& x_shape, const Shape& window, const Shape& stride,
         const Shape& pad_begin, const Shape& pad_end, const Shape& dilation, bool ceil_mode, const std::string& layout,
         const py::object& options) {
        const Geometry g = {window, stride, pad_begin, pad_end, dilation, ceil_mode, false};
        return backward(PoolKind::kMax, dy, indices, x_shape, g, layout, options);
      },
      py::arg("dy"), py::arg("indices"), py::arg("x_shape"), py::arg("window"), py::arg("stride"), py::arg("pad_begin"),
      py::arg("pad_end"), py::arg("dilation"), py::arg("ceil_mode"), py::arg("layout"), py::arg("options"));
  m.def(
      "avg_pool_forward",
      [](const py::array& x, const Shape& window, const Shape& stride, const Shape& pad_begin, const Shape& pad_end,
         bool ceil_mode, bool count_include_pad, const std::string& layout, const py::object& options) {
        const Geometry g = {window, stride, pad_begin, pad_end, Shape(window.size(), 1), ceil_mode, count_include_pad};
        return forward(PoolKind::kAverage, x, g, layout, false, options).y;
      },
      py::arg("x"), py::arg("window"), py::arg("stride"), py::arg("pad_begin"), py::arg("pad_end"),
      py::arg("ceil_mode"), py::arg("count_include_pad"), py::arg("layout"), py::arg("options"));
  m.def(
      "avg_pool_backward",
      [](const py::array& dy, const Shape& x_shape, const Shape& window, const Shape& stride, const Shape& pad_begin,
         const Shape& pad_end, bool ceil_mode, bool count_include_pad, const std::string& layout,
         const py::object& options) {
        const Geometry g = {window, stride, pad_begin, pad_end, Shape(window.size(), 1), ceil_mode, count_include_pad};
        return backward(PoolKind::kAverage, dy, py::none(), x_shape, g, layout, options);
      },
      py::arg("dy"), py::arg("x_shape"), py::arg("window"), py::arg("stride"), py::arg("pad_begin"), py::arg("pad_end"),
      py::arg("ceil_mode"), py::arg("count_include_pad"), py::arg("layout"), py::arg("options"));
}

}  // namespace fastconv
