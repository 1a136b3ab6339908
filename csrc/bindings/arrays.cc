// SPDX-License-Identifier: Apache-2.0
#include "arrays.h"

#include <algorithm>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>

namespace fastconv {

void throw_failure(Failure failure, const char* text) {
  switch (failure) {
    case Failure::kUnsupported:
      throw UnsupportedError{text};
    case Failure::kWorkspace:
      throw WorkspaceError{text};
    case Failure::kDevice:
      throw DeviceError{text};
    default:
      throw ProblemError{text};
  }
}

std::string format(const char* text, ...) {
  char buffer[kTextCapacity];
  va_list arguments;
  va_start(arguments, text);
  vsnprintf(buffer, sizeof buffer, text, arguments);
  va_end(arguments);
  return buffer;
}

std::string text_of(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

namespace {

// NumPy has no bfloat16 of its own, the package that has it is no dependency: its dtype is known by name, and kept from
// the first array that came with it. A result in bfloat16 has such an array among its inputs.
std::atomic<PyObject*> bfloat16_dtype{nullptr};

bool is_bfloat16(const py::dtype& dtype) {
  if (dtype.ptr() == bfloat16_dtype.load()) return true;
  if (dtype.itemsize() != 2 || dtype.kind() != 'V' || std::string(py::str(dtype.attr("name"))) != "bfloat16")
    return false;
  PyObject* none = nullptr;
  if (bfloat16_dtype.compare_exchange_strong(none, dtype.ptr())) Py_INCREF(dtype.ptr());
  return true;
}

bool find_dtype(const py::dtype& dtype, DType* found) {
  const bool native = dtype.byteorder() == '=' || dtype.byteorder() == '|';
  if (native && dtype.kind() == 'f' && dtype.itemsize() == 4) return *found = DType::kFloat32, true;
  if (native && dtype.kind() == 'f' && dtype.itemsize() == 8) return *found = DType::kFloat64, true;
  if (native && dtype.kind() == 'f' && dtype.itemsize() == 2) return *found = DType::kFloat16, true;
  if (is_bfloat16(dtype)) return *found = DType::kBFloat16, true;
  return false;
}

[[noreturn]] void refuse_dtype(const py::array& array, const char* name, const char* expected) {
  throw py::type_error(format("%s has dtype %s; expected %s: use %s.astype(np.float32)", name,
                              std::string(py::str(static_cast<py::object>(array.dtype()))).c_str(), expected, name));
}

}  // namespace

DType dtype_of(const py::array& array, const char* name) {
  DType dtype;
  if (!find_dtype(array.dtype(), &dtype) || is_half(dtype)) refuse_dtype(array, name, "float32 or float64");
  return dtype;
}

DType float_dtype_of(const py::array& array, const char* name) {
  DType dtype;
  if (!find_dtype(array.dtype(), &dtype)) refuse_dtype(array, name, "float32, float64, float16 or bfloat16");
  return dtype;
}

py::dtype numpy_dtype(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
      return py::dtype::of<double>();
    case DType::kFloat16:
      return py::dtype("e");
    case DType::kBFloat16:
      return py::reinterpret_borrow<py::dtype>(bfloat16_dtype.load());
    default:
      return py::dtype::of<float>();
  }
}

const char* numpy_name(DType dtype) {
  constexpr const char* names[] = {"float32", "float64", "float16", "bfloat16"};
  return names[static_cast<int>(dtype)];
}

Shape shape_of(const py::array& array) { return Shape(array.shape(), array.shape() + array.ndim()); }

void require_dtype(const py::array& array, const char* name, DType dtype, const char* other) {
  const DType got = float_dtype_of(array, name);
  if (got == dtype) return;
  const char* wanted = numpy_name(dtype);
  throw py::type_error(format("%s is %s, %s is %s; expected one dtype: use %s.astype(%s.%s)", name, numpy_name(got),
                              other, wanted, name, dtype == DType::kBFloat16 ? "ml_dtypes" : "np", wanted));
}

void require_shape(const py::array& array, const char* name, const Shape& shape) {
  const Shape got = shape_of(array);
  if (got != shape)
    throw ProblemError{format("%s has shape %s; expected %s", name, text_of(got).c_str(), text_of(shape).c_str())};
}

namespace {

bool is_aligned(const py::array& array) {
  return reinterpret_cast<uintptr_t>(array.data()) % static_cast<uintptr_t>(array.itemsize()) == 0;
}

py::array copy_of(const py::array& array) {
  const Shape shape = shape_of(array);
  py::array copy = make_output(float_dtype_of(array, "x"), shape);
  copy[py::ellipsis()] = array;  // NumPy walks any strides and alignment
  return copy;
}

// In elements; 0, which no pitch may be, when it is no multiple of one.
int64_t stride_of(const Extents& array, size_t axis) {
  return array.strides[axis] % array.itemsize == 0 ? array.strides[axis] / array.itemsize : 0;
}

// True when axes [first, last) are dense with `pixel` elements per step.
bool dense_pixels(const Extents& array, size_t first, size_t last, int64_t pixel) {
  int64_t expected = pixel;
  for (size_t i = last; i-- > first;) {
    if (array.shape[i] != 1 && stride_of(array, i) != expected) return false;
    expected *= array.shape[i];
  }
  return true;
}

// The stride of an axis, `otherwise` for an axis of one element; 0 or less when unusable.
int64_t pitch_of(const Extents& array, size_t axis, int64_t otherwise) {
  return array.shape[axis] <= 1 ? otherwise : stride_of(array, axis);
}

// Fills the pitches when the memory is channels first or last as `layout` says.
bool read_pitches(const Extents& array, Layout layout, size_t channel_axis, ImagePitches* image) {
  const size_t rank = array.rank;
  const size_t first = channel_axis == 1 ? 2 : 1, last = channel_axis == 1 ? rank : rank - 1;
  int64_t plane = 1;
  for (size_t i = first; i < last; ++i) plane *= array.shape[i];
  const int64_t channels = array.shape[channel_axis];
  int64_t extent;
  if (layout == Layout::kChannelsFirst) {
    if (!dense_pixels(array, first, last, 1)) return false;
    image->channel_pitch = pitch_of(array, channel_axis, plane);
    if (image->channel_pitch < plane) return false;
    extent = image->channel_pitch * (channels - 1) + plane;
  } else {
    if (channels != 1 && stride_of(array, channel_axis) != 1) return false;
    int64_t pitch = channels;  // of the innermost spatial axis with more than one element
    for (size_t i = last; i-- > first;)
      if (array.shape[i] > 1) {
        pitch = stride_of(array, i);
        break;
      }
    if (pitch < channels || !dense_pixels(array, first, last, pitch)) return false;
    image->channel_pitch = pitch;
    extent = pitch * (plane - 1) + channels;
  }
  image->batch_pitch = pitch_of(array, 0, extent);
  image->layout = layout;
  return image->batch_pitch >= extent;
}

}  // namespace

py::array contiguous(const py::array& array) {
  if ((array.flags() & py::array::c_style) && is_aligned(array)) return array;
  return copy_of(array);
}

bool image_pitches(const Extents& array, Layout layout, bool recognise, ImagePitches* pitches) {
  const size_t channel_axis = layout == Layout::kChannelsFirst ? 1 : array.rank - 1;
  return read_pitches(array, layout, channel_axis, pitches) ||
         (recognise && layout == Layout::kChannelsFirst &&
          read_pitches(array, Layout::kChannelsLast, channel_axis, pitches));
}

ImageArray image_array(const py::array& array, Layout layout, bool recognise) {
  ImageArray image;
  image.array = array;
  const auto read = [&](bool any) {
    const Extents extents{static_cast<size_t>(image.array.ndim()), image.array.shape(), image.array.strides(),
                          image.array.itemsize()};
    return image_pitches(extents, layout, any, &image);
  };
  if (is_aligned(array) && read(recognise)) return image;
  image.array = copy_of(array);
  read(false);
  return image;
}

py::array make_output(DType dtype, const Shape& shape) { return make_output(numpy_dtype(dtype), shape); }

py::array make_output(const py::dtype& dtype, const Shape& shape) {
  int64_t elements = 1;
  for (int64_t extent : shape)
    if (__builtin_mul_overflow(elements, extent, &elements)) throw std::bad_alloc();
  const int64_t size = dtype.itemsize();
  Shape strides(shape.size());
  int64_t step = size;
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    step *= std::max<int64_t>(1, shape[i]);
  }
  struct Block {
    void* data;
    int64_t bytes;
  };
  int64_t bytes;
  if (__builtin_mul_overflow(std::max<int64_t>(elements, 1), size, &bytes)) throw std::bad_alloc();
  bytes = block_size(bytes);
  const auto give_back = [](Block* block) {
    if (block->data) release_block(output_cache(), block->data, block->bytes);
    delete block;
  };
  std::unique_ptr<Block, decltype(give_back)> block(new Block{nullptr, bytes}, give_back);
  void* data = block->data = acquire_block(output_cache(), bytes);
  if (!data) throw std::bad_alloc();
  const py::capsule owner(block.get(), [](void* pointer) {
    const Block* mine = static_cast<Block*>(pointer);
    release_block(output_cache(), mine->data, mine->bytes);
    delete mine;
  });
  block.release();  // the capsule's now
  return py::array(dtype, shape, strides, data, owner);
}

py::array output_or(const py::object& out, DType dtype, const Shape& shape, std::initializer_list<py::array> inputs) {
  if (out.is_none()) return make_output(dtype, shape);
  if (!py::isinstance<py::array>(out)) throw py::type_error("out is not a NumPy array; expected one, or None");
  const py::array array = py::reinterpret_borrow<py::array>(out);
  require_dtype(array, "out", dtype, "x");
  require_shape(array, "out", shape);
  if (!array.writeable()) throw ProblemError{"out is read-only; expected a writeable array"};
  if (!(array.flags() & py::array::c_style) || !is_aligned(array))
    throw ProblemError{"out is not a C-contiguous, aligned array; expected one as np.empty makes it"};
  const char* begin = static_cast<const char*>(array.data());
  for (const py::array& input : inputs) {
    if (!input) continue;
    const char *low = static_cast<const char*>(input.data()), *high = low + input.itemsize();
    for (py::ssize_t i = 0; i < input.ndim(); ++i) {
      const py::ssize_t reach = input.strides(i) * std::max<py::ssize_t>(0, input.shape(i) - 1);
      (reach < 0 ? low : high) += reach;
    }
    if (begin < high && low < begin + array.nbytes() && input.size() > 0 && array.size() > 0)
      throw ProblemError{"out overlaps an input in memory; expected an array of its own"};
  }
  return array;
}

const Options& options_of(const py::object& object) { return *object.cast<const Options*>(); }

void register_arrays(py::module_& m) {
  static PyObject *problem, *unsupported, *workspace, *device;  // live as long as the module, one per process
  problem = py::exception<ProblemError>(m, "ProblemError", PyExc_ValueError).release().ptr();
  unsupported = py::exception<UnsupportedError>(m, "UnsupportedError", PyExc_NotImplementedError).release().ptr();
  workspace = py::exception<WorkspaceError>(m, "WorkspaceError", PyExc_MemoryError).release().ptr();
  device = py::exception<DeviceError>(m, "DeviceError", PyExc_RuntimeError).release().ptr();
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const ProblemError& e) {
      PyErr_SetString(problem, e.what());
    } catch (const UnsupportedError& e) {
      PyErr_SetString(unsupported, e.what());
    } catch (const WorkspaceError& e) {
      PyErr_SetString(workspace, e.what());
    } catch (const DeviceError& e) {
      PyErr_SetString(device, e.what());
    }
  });
}

}  // namespace fastconv
