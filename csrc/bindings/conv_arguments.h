// SPDX-License-Identifier: Apache-2.0
// From Python's tuples to a ConvProblem, and from a ConvProblem to shapes.
#pragma once

#include "arrays.h"

namespace fastconv {

Layout layout_named(const std::string& name);  // channels_first or channels_last
ConvProblem empty_problem();                   // zeroed, unused axes 1
// The tuples have one entry per spatial axis, 1 to 3 of them.
void fill_geometry(ConvProblem* p, const Shape& size, const Shape& filter, const Shape& stride, const Shape& pad_begin,
                   const Shape& pad_end, const Shape& dilation);
void require_valid(const ConvProblem& p);

struct OutputSize {
  explicit OutputSize(const ConvProblem& p) {
    for (int i = 0; i < kMaxSpatial; ++i) size[i] = output_size(p, i);
  }
  int64_t size[kMaxSpatial];
};
Shape shape_of_image(const ConvProblem& p, Layout layout, int64_t channels, const int64_t* size);
Shape shape_of_filter(const ConvProblem& p);
// The pitches of dense x and y.
void set_dense(const ConvProblem& p, RunContext* context);

// Geometry that every pass gets by the same names.
struct Geometry {
  Shape stride, pad_begin, pad_end, dilation;
  int64_t groups;
  std::string padding_mode;
};

// x_shape and w_shape are those of the forward convolution.
ConvProblem problem_of(Pass pass, const Shape& x_shape, const Shape& w_shape, Layout layout, DType dtype,
                       const Geometry& g);
Activation activation_named(const std::string& name);
py::list rows_of(const std::vector<Candidate>& candidates);  // what `algorithms` answers
py::dict speeds_of(const Machine& machine);                  // of the committed table, in FLOP/s and bytes/s

}  // namespace fastconv
