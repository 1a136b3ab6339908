# SPDX-License-Identifier: Apache-2.0
"""The format safetensors: a length, a header in JSON, and the arrays one after the other.

    8 bytes   little-endian: the length of the header
    header    {"__metadata__": {text: text}, name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    the rest  the arrays, row-major and little-endian, without gaps or overlaps; offsets count from here

The description is https://github.com/huggingface/safetensors#format. Everything it demands is checked before an array
is made: a header that lies inside the file and names nothing twice, known dtypes, shapes that fit their offsets, and
offsets that cover the rest of the file exactly once.
"""

import json
import math
import mmap
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..arrays import as_dtype

Array = npt.NDArray[Any]

_LONGEST_HEADER = 100_000_000  # the format's own limit
_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64",
}  # fmt: skip
_WORDS = {name: word for word, name in _DTYPES.items()}
_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}


def read(path: Path) -> dict[str, Array]:
    """The arrays of a file by name, as read-only views of the mapped file (copies where one is not aligned).

    Raises:
        ValueError: the file is no whole safetensors file.
        ImportError: an array is bfloat16 and ml_dtypes is not installed.
    """
    header, start, size = _open_header(path)
    header.pop(_METADATA, None)
    places = {name: _place(path, name, entry) for name, entry in header.items()}
    _check_cover(path, places, size - start)
    with open(path, "rb") as file:
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return {name: _view(whole, start + begin, word, shape) for name, (word, shape, begin, _) in places.items()}


def metadata(path: Path) -> dict[str, str]:
    """The text by name that a file says about itself.

    Raises:
        ValueError: the file has no whole header.
    """
    about: dict[str, str] = _open_header(path)[0].get(_METADATA, {})
    return about


def write(file: BinaryIO, arrays: dict[str, Array], about: dict[str, str]) -> None:
    """Write arrays by name, those of wide dtypes first, so that each lies at a multiple of its item size.

    Raises:
        TypeError: a dtype that the format does not know.
        ValueError: an array is called `__metadata__`.
    """
    if _METADATA in arrays:
        raise ValueError(f"weights.save: an array is called {_METADATA!r}, which safetensors keeps for itself")
    unknown = [f"{name!r} has dtype {array.dtype}" for name, array in arrays.items() if array.dtype.name not in _WORDS]
    if unknown:
        raise TypeError(f"weights.save: {unknown[0]}; safetensors knows {', '.join(_WORDS)}")
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    header: dict[str, Any] = {_METADATA: about} if about else {}
    at = 0
    for name in order:
        array = arrays[name]
        header[name] = {
            "dtype": _WORDS[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for name in order:
        flat = np.ascontiguousarray(arrays[name]).reshape(-1)
        little = flat.dtype.newbyteorder("<") if flat.dtype.isbuiltin == 1 else flat.dtype
        file.write(flat.astype(little, copy=False).view(np.uint8).data)


def _open_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """(the header, where the arrays start, the size of the file)."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise ValueError(f"{path}: safetensors of {size} bytes; expected at least 8")
        (length,) = struct.unpack("<Q", first)
        most = min(size - 8, _LONGEST_HEADER)
        if not 2 <= length <= most:
            raise ValueError(f"{path}: the safetensors header is said to have {length} bytes; expected 2 to {most}")
        text = file.read(length)
    if len(text) < length:
        raise ValueError(f"{path}: the file ends within the safetensors header")
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_twins)
    except RecursionError:
        raise ValueError(f"{path}: the safetensors header is nested too deeply") from None
    except ValueError as error:  # JSON's, UTF-8's and that of twins
        raise ValueError(f"{path}: the safetensors header cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path}: the safetensors header is a {type(header).__name__}; expected a dictionary")
    about = header.get(_METADATA, {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        raise ValueError(f"{path}: {_METADATA} is not a dictionary of text")
    return header, 8 + length, size


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        seen: set[str] = set()
        twin = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"{twin!r} occurs twice")
    return result


def _place(path: Path, name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """(dtype, shape, begin, end) of one array, where they fit together."""
    where = f"{path}: safetensors array {name!r}"
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise ValueError(f"{where} is not described by {', '.join(sorted(_FIELDS))} and nothing else")
    word, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(word, str) or word not in _DTYPES:
        raise ValueError(f"{where} has dtype {str(word)[:40]!r}; expected one of {', '.join(_DTYPES)}")
    if not _counts(shape) or len(shape) > 32:
        raise ValueError(f"{where} has shape {str(shape)[:60]}; expected at most 32 integers of at least 0")
    if not _counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{where} has offsets {str(offsets)[:60]}; expected two integers 0 <= begin <= end")
    needed = math.prod(shape) * (2 if word == "BF16" else np.dtype(_DTYPES[word]).itemsize)
    if offsets[1] - offsets[0] != needed:
        raise ValueError(f"{where} has {offsets[1] - offsets[0]} bytes; {word} of shape {shape} takes {needed}")
    return word, tuple(shape), offsets[0], offsets[1]


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_cover(path: Path, places: dict[str, tuple[str, tuple[int, ...], int, int]], size: int) -> None:
    at, last = 0, "the header"
    for begin, end, name in sorted((begin, end, name) for name, (_, _, begin, end) in places.items()):
        if begin != at:
            fault = "overlaps" if begin < at else f"leaves {begin - at} bytes after"
            raise ValueError(f"{path}: safetensors array {name!r} {fault} {last}")
        at, last = end, repr(name)
    if at != size:
        raise ValueError(f"{path}: the safetensors arrays take {at} bytes; after the header there are {size}")


def _view(whole: mmap.mmap, begin: int, word: str, shape: tuple[int, ...]) -> Array:
    dtype = as_dtype(_DTYPES[word])
    if dtype.isbuiltin == 1:
        dtype = dtype.newbyteorder("<")
    array = np.frombuffer(whole, dtype, math.prod(shape), begin).reshape(shape)
    return array if array.flags.aligned else array.copy()
