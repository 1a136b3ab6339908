// SPDX-License-Identifier: Apache-2.0
// What the bindings of the operations other than convolution share.
#pragma once

#include "../algorithm.h"
#include "arrays.h"

namespace fastconv {

// The one that FASTCONV_ISA names, else the best; an unknown name is a ProblemError.
const Machine& default_machine();

// `array` dense; TypeError or ProblemError unless it has this dtype (that of the argument `other`) and shape.
py::array like(const py::array& array, const char* name, DType dtype, const Shape& shape, const char* other);

// `object` as a dense array of int64; TypeError for anything else.
py::array contiguous_int64(const py::object& object, const char* name);

// Calls work(T()) without the GIL, T being the type of `dtype`. Work returns false when there is no memory for scratch.
template <class Work>
void compute(DType dtype, const Work& work) {
  bool done;
  {
    const py::gil_scoped_release release;
    done = dtype == DType::kFloat64 ? work(double()) : work(float());
  }
  if (!done) throw WorkspaceError{"no memory for the operation's workspace"};
}

// ProblemError unless `array` has two axes.
void require_matrix(const py::array& array, const char* name, const char* expected);

void register_norm(py::module_& m);      // group normalisation
void register_windows(py::module_& m);   // local response normalisation, resampling
void register_losses(py::module_& m);    // softmax, losses
void register_training(py::module_& m);  // dense layers, optimiser steps

}  // namespace fastconv
