// SPDX-License-Identifier: Apache-2.0
// Arrays of float16 and bfloat16 to float32 and back, for the operations that compute in float32 in between.
#include "../convert.h"
#include "../streaming.h"
#include "arrays.h"

namespace fastconv {
namespace {

// All elements as one run; the threads that so many are worth.
Runs one_run(const py::array& array) { return {1, 1, array.size(), array.size(), array.size()}; }
Parallel parallel_for_bytes(const Options& options, const py::array& array) {
  return worth_sharing(*options.machine, array.size() * 6, options.threads);
}

py::array widened(const py::array& half, const py::object& options_object) {
  const Options& options = options_of(options_object);
  const DType dtype = float_dtype_of(half, "half");
  if (!is_half(dtype)) throw py::type_error(format("half is %s; expected float16 or bfloat16", numpy_name(dtype)));
  const py::array input = contiguous(half), single = make_output(DType::kFloat32, shape_of(half));
  const Runs runs = one_run(input);
  const Parallel parallel = parallel_for_bytes(options, input);
  const py::gil_scoped_release release;
  widen(*options.machine, parallel, dtype, runs, data_of<const void>(input), data_of<float>(single));
  return single;
}

py::array narrowed(const py::array& single, const py::dtype& wanted, const py::object& options_object) {
  const Options& options = options_of(options_object);
  if (const DType got = float_dtype_of(single, "single"); got != DType::kFloat32)
    throw py::type_error(format("single is %s; expected float32", numpy_name(got)));
  const DType dtype = float_dtype_of(py::array(wanted, Shape{0}), "the result");
  if (!is_half(dtype)) throw py::type_error(format("dtype is %s; expected float16 or bfloat16", numpy_name(dtype)));
  const py::array input = contiguous(single), half = make_output(dtype, shape_of(single));
  const Runs runs = one_run(input);
  const Parallel parallel = parallel_for_bytes(options, input);
  const py::gil_scoped_release release;
  narrow(*options.machine, parallel, dtype, runs, data_of<const float>(input), data_of<void>(half));
  return half;
}

}  // namespace

void register_convert(py::module_& m) {
  m.def("widen", &widened, py::arg("half"), py::arg("options"));
  m.def("narrow", &narrowed, py::arg("single"), py::arg("dtype"), py::arg("options"));
}

}  // namespace fastconv
