// SPDX-License-Identifier: Apache-2.0
#include "conv_arguments.h"

namespace fastconv {

ConvProblem empty_problem() {
  ConvProblem p{};
  p.groups = 1;
  for (int i = 0; i < kMaxSpatial; ++i) p.size[i] = p.filter[i] = p.stride[i] = p.dilation[i] = 1;
  return p;
}

void fill_geometry(ConvProblem* p, const Shape& size, const Shape& filter, const Shape& stride, const Shape& pad_begin,
                   const Shape& pad_end, const Shape& dilation) {
  const size_t rank = size.size();
  if (rank < 1 || rank > kMaxSpatial)
    throw ProblemError{format("size has %zu entries; expected 1 to 3, one per spatial axis", rank)};
  const struct {
    const char* name;
    const Shape& values;
    int64_t* into;
  } fields[] = {{"size", size, p->size},          {"filter", filter, p->filter},
                {"stride", stride, p->stride},    {"pad_begin", pad_begin, p->pad_begin},
                {"pad_end", pad_end, p->pad_end}, {"dilation", dilation, p->dilation}};
  for (const auto& field : fields) {
    if (field.values.size() != rank)
      throw ProblemError{
          format("%s has %zu entries; expected %zu, one per spatial axis", field.name, field.values.size(), rank)};
    for (size_t i = 0; i < rank; ++i) field.into[kMaxSpatial - rank + i] = field.values[i];
  }
  p->spatial_rank = static_cast<int32_t>(rank);
}

void require_valid(const ConvProblem& p) {
  char text[kTextCapacity];
  if (!validate(p, text)) throw ProblemError{text};
}

Shape shape_of_image(const ConvProblem& p, Layout layout, int64_t channels, const int64_t* size) {
  Shape shape = {p.n};
  if (layout == Layout::kChannelsFirst) shape.push_back(channels);
  for (int i = kMaxSpatial - p.spatial_rank; i < kMaxSpatial; ++i) shape.push_back(size[i]);
  if (layout == Layout::kChannelsLast) shape.push_back(channels);
  return shape;
}

Layout layout_named(const std::string& name) {
  if (name == "channels_first") return Layout::kChannelsFirst;
  if (name == "channels_last") return Layout::kChannelsLast;
  throw ProblemError{format("layout is '%.40s'; expected channels_first or channels_last", name.c_str())};
}

Shape shape_of_filter(const ConvProblem& p) {
  Shape shape = {p.k, p.c / p.groups};
  for (int i = kMaxSpatial - p.spatial_rank; i < kMaxSpatial; ++i) shape.push_back(p.filter[i]);
  return shape;
}

void set_dense(const ConvProblem& p, RunContext* context) {
  const auto set = [&](Layout layout, int64_t channels, const int64_t* size, int64_t* batch, int64_t* channel) {
    int64_t plane = 1;
    for (int i = 0; i < kMaxSpatial; ++i) plane *= size[i];
    *batch = channels * plane;
    *channel = layout == Layout::kChannelsFirst ? plane : channels;
  };
  set(p.x_layout, p.c, p.size, &context->x_batch_pitch, &context->x_channel_pitch);
  set(p.y_layout, p.k, OutputSize(p).size, &context->y_batch_pitch, &context->y_channel_pitch);
}

ConvProblem problem_of(Pass pass, const Shape& x_shape, const Shape& w_shape, Layout layout, DType dtype,
                       const Geometry& g) {
  const size_t rank = g.stride.size();
  if (x_shape.size() != rank + 2)
    throw ProblemError{format("x has shape %s; expected %zu axes: batch, channels and %zu spatial ones",
                              text_of(x_shape).c_str(), rank + 2, rank)};
  if (w_shape.size() != rank + 2)
    throw ProblemError{format("w has shape %s; expected %zu axes: (K, C/groups, and the filter's %zu)",
                              text_of(w_shape).c_str(), rank + 2, rank)};
  ConvProblem p = empty_problem();
  p.pass = pass;
  p.dtype = dtype;
  p.x_layout = p.y_layout = layout;
  const bool first = layout == Layout::kChannelsFirst;
  p.n = x_shape[0];
  p.c = first ? x_shape[1] : x_shape.back();
  p.k = w_shape[0];
  p.groups = g.groups;
  const Shape size(x_shape.begin() + (first ? 2 : 1), x_shape.end() - (first ? 0 : 1));
  fill_geometry(&p, size, Shape(w_shape.begin() + 2, w_shape.end()), g.stride, g.pad_begin, g.pad_end, g.dilation);
  if (!find_by_name(g.padding_mode.c_str(), &p.padding_mode))
    throw ProblemError{format("padding_mode is '%.40s'; expected zeros, constant, reflect, replicate or circular",
                              g.padding_mode.c_str())};
  if (p.groups < 1 || w_shape[1] * p.groups != p.c)
    throw ProblemError{
        format("w has %lld channels per group, x has %lld and groups=%lld; expected w of shape (K, %lld, ...)",
               static_cast<long long>(w_shape[1]), static_cast<long long>(p.c), static_cast<long long>(p.groups),
               static_cast<long long>(p.groups > 0 ? p.c / p.groups : p.c))};
  return p;
}

Activation activation_named(const std::string& name) {
  Activation activation;
  if (find_by_name(name.c_str(), &activation)) return activation;
  throw ProblemError{format("activation is '%.40s'; expected none, %s", name.c_str(), kActivations)};
}

}  // namespace fastconv
