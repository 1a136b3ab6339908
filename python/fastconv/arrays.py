# SPDX-License-Identifier: Apache-2.0
"""Which kinds of array come in, and what is said about those that cannot be used.

The primitives compute on NumPy arrays of float32 and float64. Any strides will do: the native module copies what it
cannot read in place (Fortran order, negative strides, unaligned data). Other people's arrays are recognised by the
name of the module that defines their type, so that nothing is imported on their behalf.
"""

import sys
from types import ModuleType
from typing import Any

import numpy as np

from ._core import DeviceError, UnsupportedError

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
FLOATS = (FLOAT32, FLOAT64)


def kind_of(x: object) -> str:
    """The package that defines the type of `x`: "numpy", "cupy", "torch", ...; "builtins" for lists and numbers."""
    return type(x).__module__.partition(".")[0]


def namespace(x: object) -> ModuleType:
    """The array namespace `x` lives in: the cupy module for a CuPy array, numpy for everything else."""
    return sys.modules["cupy"] if kind_of(x) == "cupy" else np


def is_native(*arrays: Any) -> bool:
    """True when the native kernels take these as they are: NumPy arrays of one dtype, float32 or float64."""
    dtype = arrays[0].dtype
    return dtype in FLOATS and all(isinstance(a, np.ndarray) and a.dtype == dtype for a in arrays)


def as_native(x: Any, name: str, caller: str, dtype: Any = None) -> Any:
    """`x` as a NumPy array that the native module takes, without a copy.

    Args:
        x: what the user passed for the argument `name` of `caller`.
        dtype: the dtype that `x` must share, that of the argument before it; None for the first one.

    Raises:
        TypeError: not an array, an integer or complex array, or another dtype than `dtype`.
        UnsupportedError: a float that fastconv does not compute in yet.
        DeviceError: a CuPy array, without the CUDA library.
    """
    if not isinstance(x, np.ndarray):
        raise _wrong_kind(x, name, caller)
    if x.dtype not in FLOATS:
        if x.dtype.kind == "f" or x.dtype.name == "bfloat16":
            raise UnsupportedError(
                f"{caller}: {name} has dtype {x.dtype}; float32 and float64 work: use {name}.astype(numpy.float32)"
            )
        raise TypeError(
            f"{caller}: {name} has dtype {x.dtype}; expected float32 or float64: use {name}.astype(numpy.float32)"
        )
    if dtype is not None and x.dtype != dtype:
        raise TypeError(
            f"{caller}: {name} has dtype {x.dtype}, the argument before it {dtype}; expected the same dtype: "
            f"use {name}.astype(numpy.{dtype})"
        )
    return np.asarray(x)


def _wrong_kind(x: object, name: str, caller: str) -> Exception:
    kind = kind_of(x)
    if kind == "cupy":
        return DeviceError(
            f"{caller}: {name} is a CuPy array, and fastconv's CUDA library is not installed; "
            f"use cupy.asnumpy({name}) to compute on the CPU"
        )
    if kind == "torch":
        return TypeError(
            f"{caller}: {name} is a torch tensor; expected a NumPy array: use {name}.detach().numpy() "
            "(without gradients: the result would not be part of torch's graph)"
        )
    if kind == "fastconv":
        return TypeError(f"{caller}: {name} is a {type(x).__name__}; expected a NumPy array: use {name}.data")
    return TypeError(
        f"{caller}: {name} is a {type(x).__name__}; expected a NumPy array of float32 or float64: "
        f"use numpy.asarray({name}, dtype=numpy.float32)"
    )
