# SPDX-License-Identifier: Apache-2.0
"""TensorProto to array. What a tensor declares is compared with the bytes that are there before anything is allocated.

Numbers lie in `raw_data` (little endian), in the typed field of their kind, or in a file beside the model's. That file
must lie in the model's own folder, reached by no "..", no symbolic link, and be a plain file.
"""

import math
import os
import stat
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .._core import ProblemError, UnsupportedError
from .package import dtype_name, dtype_of

# The typed field of each kind, and what its entries are read as: halves come as their bits.
_FIELDS = {
    "float32": ("float_data", "float32"),
    "float64": ("double_data", "float64"),
    "int64": ("int64_data", "int64"),
    "uint32": ("uint64_data", "uint64"),
    "uint64": ("uint64_data", "uint64"),
}
_HALVES = ("float16", "bfloat16")
_EXTERNAL = 1  # TensorProto.DataLocation
_MOST_AXES = 32


def array_of(tensor: Any, folder: Path | None, what: str) -> np.ndarray:
    """The array of a TensorProto.

    Args:
        folder: where files beside the model are; None refuses a tensor that lies in one.
        what: the tensor's name in errors.

    Raises:
        ProblemError: sizes that contradict each other; a file outside of the folder.
        UnsupportedError: a dtype that no array of ours holds.
    """
    dtype = dtype_of(tensor.data_type)
    if dtype is None:
        raise UnsupportedError(f"{what} has data type {dtype_name(tensor.data_type)}, which fastconv does not hold")
    shape = tuple(tensor.dims)
    if any(n < 0 for n in shape) or len(shape) > _MOST_AXES:
        raise ProblemError(f"{what} has dims {list(shape[:_MOST_AXES])}; expected at most {_MOST_AXES} of 0 or more")
    if tensor.HasField("segment"):
        raise UnsupportedError(f"{what} is a segment of a tensor; expected a whole one")
    count = math.prod(shape)
    if tensor.data_location == _EXTERNAL:
        raw = _external(tensor, folder, count * dtype.itemsize, what)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
    else:
        return _typed(tensor, dtype, shape, count, what)
    if len(raw) != count * dtype.itemsize:
        raise ProblemError(
            f"{what} has dims {list(shape)} and {len(raw)} bytes; expected {count * dtype.itemsize} for {dtype}"
        )
    return _native(np.frombuffer(raw, dtype)).reshape(_small(shape)).copy()


def _native(array: np.ndarray) -> np.ndarray:
    """Little-endian bytes as this machine's numbers."""
    return array if sys.byteorder == "little" else array.byteswap()


def _small(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape as NumPy takes it: that of an empty array may have no other length beyond memory."""
    return shape if 0 not in shape else tuple(min(n, 2**16) for n in shape)


def _typed(tensor: Any, dtype: Any, shape: tuple[int, ...], count: int, what: str) -> np.ndarray:
    field, kind = _FIELDS.get(dtype.name, ("int32_data", "int32"))
    values = getattr(tensor, field)
    if len(values) != count:
        raise ProblemError(f"{what} has dims {list(shape)} and {len(values)} numbers in {field}; expected {count}")
    numbers = np.array(values, kind)
    if dtype.name in _HALVES:
        return numbers.astype(np.uint16).view(dtype).reshape(_small(shape))
    return numbers.astype(dtype).reshape(_small(shape))


def _external(tensor: Any, folder: Path | None, size: int, what: str) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    if folder is None:
        raise ProblemError(f"{what} lies in the file {location!r}; expected a model that was loaded from a path")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
    except ValueError:
        raise ProblemError(f"{what}: offset or length of its external data is not a number") from None
    if length != size:
        raise ProblemError(f"{what} has {length} bytes of external data; expected {size}, for dims {list(tensor.dims)}")
    path = _inside(folder, location, what)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ProblemError(f"{what}: its external data {location!r} cannot be opened ({error.strerror})") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ProblemError(f"{what}: its external data {location!r} is no plain file")
    with open(descriptor, "rb") as file:
        if offset < 0 or offset + length > status.st_size:
            raise ProblemError(
                f"{what} takes bytes {offset} to {offset + length} of {location!r}, which has {status.st_size}"
            )
        file.seek(offset)
        return file.read(length)


def _inside(folder: Path, location: str, what: str) -> Path:
    """The path of a file in the model's folder, or below it."""
    parts = PurePosixPath(location).parts
    if not parts or "\0" in location or "\\" in location or location.startswith("/") or ".." in parts:
        raise ProblemError(f"{what}: its external data is at {location!r}; expected a file in the model's own folder")
    path = folder
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ProblemError(f"{what}: its external data {location!r} is reached by a symbolic link; expected none")
    return path
