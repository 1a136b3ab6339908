# SPDX-License-Identifier: Apache-2.0
"""One team of threads for torch's operators and ours.

torch computes on the team of its OpenMP library, whose threads spin for some milliseconds after each operator. A pool
of our own beside it would find its cores taken, operator after operator. So once `fastconv.torch` is imported our
calls run on torch's team, where there is one; the bits are the same.
"""

import ctypes
from pathlib import Path

import torch

from .. import _core


def share_team() -> bool:
    """Compute on torch's team from now on; whether that is possible here."""
    if "parallel backend: OpenMP" not in torch.__config__.parallel_info():
        return False
    try:
        # Symbols are looked up in it and in what it was linked with: torch's own OpenMP, of several in the process.
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        functions = (library.GOMP_parallel, library.omp_get_thread_num)
    except (OSError, AttributeError):  # a torch built otherwise, as on Windows
        return False
    _core.use_openmp(*(ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions))
    return True
