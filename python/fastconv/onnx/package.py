# SPDX-License-Identifier: Apache-2.0
"""The package onnx, loaded when it is needed: it parses, checks and writes files, and says what dtypes are called."""

import importlib
from typing import Any

from ..arrays import as_dtype

# TensorProto.DataType by number: what fastconv holds in an array. Strings, complex numbers and the types of fewer than
# eight bits, or of eight with a point, are not among them.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
NUMBERS = {name: number for number, name in DTYPES.items()}


def onnx(module: str = "") -> Any:
    """The package, or one of its modules: `onnx("checker")`.

    Raises:
        ImportError: it is missing.
    """
    try:
        importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError('ONNX models need the package onnx: pip install "fastconv[onnx]"') from error
    return importlib.import_module(f"onnx.{module}" if module else "onnx")


def dtype_of(number: int) -> Any:
    """The dtype of a TensorProto.DataType; None for one that no array of ours holds."""
    return as_dtype(DTYPES[number]) if number in DTYPES else None


def dtype_name(number: int) -> str:
    """What ONNX calls a data type, as "FLOAT8E5M2"."""
    words = onnx().TensorProto.DataType
    return words.Name(number) if number in words.values() else f"data type {number}"
