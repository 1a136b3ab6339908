// SPDX-License-Identifier: Apache-2.0
#include "../parallel.h"
#include "arrays.h"

namespace py = pybind11;

// By this name threadpoolctl tells our module from others that are called _core.
extern "C" __attribute__((visibility("default"))) int fastconv_get_num_threads() { return fastconv::default_threads(); }

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The native part of fastconv; see _core.pyi.";
  fastconv::register_arrays(m);
  fastconv::register_problem(m);
  fastconv::register_conv(m);
  fastconv::register_convert(m);
  fastconv::register_device(m);
  fastconv::register_plan(m);
  fastconv::register_addresses(m);
  fastconv::register_pool(m);
  fastconv::register_ops(m);
  fastconv::register_info(m);
  fastconv::register_session(m);
}
