// SPDX-License-Identifier: Apache-2.0
// NumPy arrays in and out, and the error classes. The only place besides bind_*.cc that knows Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "../plan.h"
#include "../problem.h"
#include "../workspace.h"

namespace fastconv {

namespace py = pybind11;

// Thrown as fc.ProblemError, UnsupportedError, WorkspaceError, DeviceError; at import as ImportError.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct ProblemError : Error {
  using Error::Error;
};
struct UnsupportedError : Error {
  using Error::Error;
};
struct WorkspaceError : Error {
  using Error::Error;
};
struct DeviceError : Error {
  using Error::Error;
};
[[noreturn]] void throw_failure(Failure failure, const char* text);
__attribute__((format(printf, 1, 2))) std::string format(const char* text, ...);

typedef std::vector<int64_t> Shape;
std::string text_of(const Shape& shape);

// The kinds of activation, for messages.
inline constexpr const char* kActivations =
    "relu, leaky_relu, relu6, elu, sigmoid, tanh, silu, gelu, hard_swish, gelu_tanh, selu, celu, hard_sigmoid, "
    "softplus, "
    "softsign, mish or log_sigmoid";

// float32 or float64 of native byte order; anything else is a TypeError that names `.astype`.
DType dtype_of(const py::array& array, const char* name);
// float16 and bfloat16 too, for what computes them.
DType float_dtype_of(const py::array& array, const char* name);
py::dtype numpy_dtype(DType dtype);  // bfloat16: after float_dtype_of has met it
const char* numpy_name(DType dtype);
Shape shape_of(const py::array& array);
// TypeError unless `array` has the dtype.
void require_dtype(const py::array& array, const char* name, DType dtype, const char* other);
// ProblemError unless `array` has the shape.
void require_shape(const py::array& array, const char* name, const Shape& shape);

// The array itself when its elements follow each other in C order and are aligned, else a copy.
py::array contiguous(const py::array& array);

// Of an image tensor (N, C, *spatial) or (N, *spatial, C) whose pixels are dense: only the batch pitch and the channel
// pitch (channels last: the pixel pitch) are free, in elements.
struct ImagePitches {
  Layout layout;
  int64_t batch_pitch, channel_pitch;
};
struct Extents {
  size_t rank;
  const int64_t *shape, *strides;  // the latter in bytes
  int64_t itemsize;
};
// False for other strides. `layout` says what the axes mean. With `recognise`, a channels-first view of
// channels-last memory comes back as Layout::kChannelsLast.
bool image_pitches(const Extents& array, Layout layout, bool recognise, ImagePitches* pitches);

struct ImageArray : ImagePitches {
  py::array array;  // keeps the data alive

  void* data() const { return const_cast<void*>(array.data()); }
};
// The array itself where image_pitches reads it, else a copy.
ImageArray image_array(const py::array& array, Layout layout, bool recognise);

// A new array from the output cache, 64-byte aligned, C order. MemoryError when there is no memory.
py::array make_output(const py::dtype& dtype, const Shape& shape);
py::array make_output(DType dtype, const Shape& shape);
// `out` checked (ndarray, dtype, shape, writeable, C-order contiguous, no overlap with the inputs), or a new array.
py::array output_or(const py::object& out, DType dtype, const Shape& shape, std::initializer_list<py::array> inputs);

// The options that `object` (an Options or None) holds; an unknown FASTCONV_ISA is a ProblemError.
const Options& options_of(const py::object& object);

template <class T>
T* data_of(const py::array& array) {
  return static_cast<T*>(const_cast<void*>(array.data()));
}

void register_addresses(py::module_& m);
void register_arrays(py::module_& m);
void register_conv(py::module_& m);
void register_convert(py::module_& m);
void register_device(py::module_& m);
void register_problem(py::module_& m);
void register_plan(py::module_& m);
void register_pool(py::module_& m);
void register_ops(py::module_& m);
void register_info(py::module_& m);
void register_session(py::module_& m);

}  // namespace fastconv
