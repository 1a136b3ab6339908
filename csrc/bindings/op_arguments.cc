// SPDX-License-Identifier: Apache-2.0
#include "op_arguments.h"

#include "../machine.h"

namespace fastconv {

const Machine& default_machine() {
  char text[kTextCapacity];
  const Machine* machine = find_machine(nullptr, text);
  if (!machine) throw ProblemError{text};
  return *machine;
}

py::array like(const py::array& array, const char* name, DType dtype, const Shape& shape, const char* other) {
  require_dtype(array, name, dtype, other);
  require_shape(array, name, shape);
  return contiguous(array);
}

py::array contiguous_int64(const py::object& object, const char* name) {
  if (!py::isinstance<py::array>(object)) throw py::type_error(format("%s is not a NumPy array", name));
  const py::array array = py::reinterpret_borrow<py::array>(object);
  if (!array.dtype().equal(py::dtype::of<int64_t>()))
    throw py::type_error(format("%s has dtype %s; expected int64: use %s.astype(np.int64)", name,
                                std::string(py::str(static_cast<py::object>(array.dtype()))).c_str(), name));
  constexpr int flags = py::array::c_style | static_cast<int>(py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  const py::array dense = py::array_t<int64_t, flags>::ensure(array);
  if (!dense) throw std::bad_alloc();
  return dense;
}

void require_matrix(const py::array& array, const char* name, const char* expected) {
  if (array.ndim() != 2)
    throw ProblemError{format("%s has shape %s; expected %s", name, text_of(shape_of(array)).c_str(), expected)};
}

}  // namespace fastconv
