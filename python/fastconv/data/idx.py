# SPDX-License-Identifier: Apache-2.0
"""The IDX format of the MNIST files, packed by gzip or not.

A file is: two zero bytes, one byte for the dtype, one for the number of axes; the axes as big-endian uint32, outermost
first; the values, big-endian, in C order. Described on the MNIST page by Y. LeCun, C. Cortes and C. Burges.
"""

import gzip
import math
import zlib
from os import PathLike
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_PIECE_BYTES = 1 << 24


def read_idx(path: str | PathLike[str]) -> npt.NDArray[Any]:
    """Read one IDX file; gzip is recognised by its first bytes, whatever the name says.

    Returns an array of the file's shape and dtype (uint8, int8, int16, int32, float32 or float64) in native byte order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no IDX file, is cut short, or goes on after its values; the message names it.
    """
    with open(path, "rb") as raw:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        try:
            return _read(cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if packed else raw)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path}: broken gzip data ({error})") from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _read(file: BinaryIO) -> npt.NDArray[Any]:
    header = file.read(4)
    if len(header) < 4 or header[:2] != b"\0\0":
        raise ValueError(f"not an IDX file: it begins with {header!r}; expected two zero bytes, a dtype, a rank")
    if header[2] not in _DTYPES:
        known = ", ".join(f"0x{code:02x}" for code in _DTYPES)
        raise ValueError(f"not an IDX file: its dtype is 0x{header[2]:02x}; expected one of {known}")
    axes = file.read(4 * header[3])
    if len(axes) < 4 * header[3]:
        raise ValueError(f"cut short: it announces {header[3]} axes and ends within their sizes")
    shape = tuple(int(size) for size in np.frombuffer(axes, ">u4"))
    dtype = np.dtype(_DTYPES[header[2]])
    expected = math.prod(shape) * dtype.itemsize
    # One byte more than announced shows a file that goes on, without unpacking all that a hostile one might hold.
    data = _read_up_to(file, expected + 1)
    if len(data) < expected:
        raise ValueError(f"cut short: shape {shape} of {dtype.name} needs {expected} bytes of values, got {len(data)}")
    if len(data) > expected:
        raise ValueError(f"goes on after the {expected} bytes of values that shape {shape} of {dtype.name} needs")
    return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _read_up_to(file: BinaryIO, count: int) -> bytes:
    """Piece by piece: a broken header may announce far more than there is, and than memory holds."""
    data = bytearray()
    while piece := file.read(min(count - len(data), _PIECE_BYTES)):
        data += piece
    return bytes(data)
