# SPDX-License-Identifier: Apache-2.0
"""Which kinds of array come in, and what is said about those that cannot be used.

The primitives compute on NumPy arrays and, where the CUDA library is installed, on CuPy arrays of float32, float64,
float16 and bfloat16. Any strides will do: what cannot be read in place is copied (Fortran order, negative strides,
unaligned data). Other people's arrays are recognised by the name of the module that defines their type, and bfloat16,
which NumPy does not have, by the name that the ml_dtypes package gives it; so nothing is imported on their behalf.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np

from . import _core
from ._core import UnsupportedError

FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
FLOATS = (FLOAT32, FLOAT64)
_WORDS = {"float32": "f32", "float64": "f64", "float16": "f16", "bfloat16": "bf16"}


def is_half(dtype: Any) -> bool:
    """Whether it is float16 or bfloat16."""
    return dtype.itemsize == 2 and dtype.isnative and (dtype.kind == "f" or dtype.name == "bfloat16")


def is_float(dtype: Any) -> bool:
    """Whether it is a floating dtype: NumPy's, or bfloat16 (whose `kind` is not "f")."""
    return dtype.kind == "f" or is_half(dtype)


def as_dtype(dtype: Any) -> Any:
    """`numpy.dtype(dtype)`, which also takes "bfloat16" and the words of a problem's text form.

    Raises:
        ImportError: bfloat16 by name, without the ml_dtypes package.
        TypeError: not a dtype.
    """
    if isinstance(dtype, str):
        dtype = next((name for name, word in _WORDS.items() if word == dtype), dtype)
        if dtype == "bfloat16":
            return _bfloat16()
    return np.dtype(dtype)


def _bfloat16() -> Any:
    try:
        return np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError as error:
        raise ImportError(
            "bfloat16: NumPy has no such dtype, and the package that does is not installed; use pip install ml_dtypes"
        ) from error


def dtype_word(dtype: Any) -> str:
    """The word of a problem's text form for a dtype that fastconv computes in, as "f32"."""
    return _WORDS[dtype.name]


def kind_of(x: object) -> str:
    """The package that defines the type of `x`: "numpy", "cupy", "torch", ...; "builtins" for lists and numbers."""
    return type(x).__module__.partition(".")[0]


def is_torch(*arrays: object) -> bool:
    """Whether one of them is a torch tensor, of a subclass of its too."""
    return any(
        base.__module__ == "torch" and base.__name__ == "Tensor"
        for x in arrays
        if not isinstance(x, np.ndarray)
        for base in type(x).__mro__
    )


def torch_bridge() -> Any:
    """What computes on torch tensors, loaded when the first one comes."""
    return importlib.import_module(".torch.bridge", __package__)


def namespace(x: object) -> ModuleType:
    """The array namespace `x` lives in: the cupy module for a CuPy array, numpy for everything else."""
    return sys.modules["cupy"] if kind_of(x) == "cupy" else np


def beside(value: Any, x: Any) -> Any:
    """A NumPy array (of indices, of bool) where the array `x` is: on a device as a copy. Anything else as it is."""
    return namespace(x).asarray(value) if isinstance(value, np.ndarray) and kind_of(x) == "cupy" else value


def native(x: Any) -> Any:
    """The module whose kernels take `x`: `_core` for NumPy arrays, `device` for those of a GPU. By the same names."""
    return _core if isinstance(x, np.ndarray) else importlib.import_module(".device", __package__)


def same_kind(caller: str, **arrays: Any) -> None:
    """Raises TypeError unless all of them that are not None are NumPy's, or all CuPy's; names are the arguments'."""
    given = [(name, kind_of(a)) for name, a in arrays.items() if a is not None]
    for name, kind in given[1:]:
        if kind != given[0][1]:
            raise TypeError(
                f"{caller}: {name} is a {kind} array, {given[0][0]} a {given[0][1]} array; expected one kind: use "
                f"{'cupy.asarray' if given[0][1] == 'cupy' else 'cupy.asnumpy'}({name})"
            )


def is_native(*arrays: Any) -> bool:
    """True when all kernels of the CPU take these as they are: NumPy arrays of one dtype, float32 or float64."""
    dtype = arrays[0].dtype
    return dtype in FLOATS and all(isinstance(a, np.ndarray) and a.dtype == dtype for a in arrays)


def are_plain(a: Any, b: Any) -> bool:
    """Whether `as_native` and `same_kind` would leave both as they are and say nothing: the common case, quickly."""
    return type(a) is type(b) is np.ndarray and a.dtype in FLOATS and b.dtype == a.dtype


def kernels(*arrays: Any) -> Any:
    """The module whose kernels take all of these as they are, `_core` or `device` (by the same names): arrays of one
    kind and one dtype, float32 or float64, on a device also a half. None: there is none, and array functions
    compute."""
    if is_native(*arrays):
        return _core
    dtype = arrays[0].dtype
    if not (dtype in FLOATS or is_half(dtype)) or not all(kind_of(a) == "cupy" and a.dtype == dtype for a in arrays):
        return None
    device = native(arrays[0])
    return device if device.has_library() else None


def as_native(x: Any, name: str, caller: str, dtype: Any = None) -> Any:
    """`x` as an array that `native(x)` takes, without a copy: NumPy's, or of a device CuPy's.

    Args:
        x: what the user passed for the argument `name` of `caller`.
        dtype: the dtype that `x` must share, that of the argument before it; None for the first one.

    Raises:
        TypeError: not an array, an integer or complex array, or another dtype than `dtype`.
        UnsupportedError: a float that fastconv does not compute in, as longdouble.
        DeviceError: an array of a device, without the CUDA library, a driver or CuPy.
    """
    if not isinstance(x, np.ndarray):
        x = _of_device(x, name, caller)
    if x.dtype not in FLOATS and not is_half(x.dtype):
        kinds = "float32, float64, float16"
        if x.dtype.kind == "f":
            raise UnsupportedError(
                f"{caller}: {name} has dtype {x.dtype}; {kinds} and bfloat16 work: use {name}.astype(numpy.float32)"
            )
        raise TypeError(
            f"{caller}: {name} has dtype {x.dtype}; expected {kinds} or bfloat16: use {name}.astype(numpy.float32)"
        )
    if dtype is not None and x.dtype != dtype:
        raise TypeError(
            f"{caller}: {name} has dtype {x.dtype}, the argument before it {dtype}; expected the same dtype: "
            f"use {name}.astype({'ml_dtypes' if dtype.name == 'bfloat16' else 'numpy'}.{dtype})"
        )
    return np.asarray(x) if isinstance(x, np.ndarray) else x


def _of_device(x: Any, name: str, caller: str) -> Any:
    device = importlib.import_module(".device", __package__)
    if device.is_on_device(x):
        return device.imported(x, f"{caller}: {name}")
    raise _wrong_kind(x, name, caller)


def _wrong_kind(x: object, name: str, caller: str) -> Exception:
    kind = kind_of(x)
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
