# SPDX-License-Identifier: Apache-2.0
"""`fc.correlate` and `fc.convolve`: one kernel, or several, slid over an image of one to three filtered axes.

A call goes: kinds and dtypes -> which axes -> how far the image goes on beyond its border -> one convolution of
(N, *filtered axes, C), where N are the axes before the filtered ones and C those behind (boundaries.py) -> the caller's
axes and dtype.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from .._core import ProblemError
from ..arrays import FLOATS, as_native, is_half, kind_of, namespace
from ..dlpack import takes_dlpack
from ..geometry import as_int
from ..half import widen
from ..options import Precision
from ..tensor import Tensor
from .boundaries import Pads, boundary_named, bounded_conv

Shape = tuple[int, ...]
MODES = ("full", "same", "valid")
# The words that scipy.signal has alone: with them a kernel of even length lies as it does there.
_SIGNAL_WORDS = ("fill", "symm")


@takes_dlpack
def correlate(image: Any, kernel: Any, mode: str = "same", boundary: str = "reflect", axes: Any = None, *,
              cval: float = 0.0, origin: Any = 0, output: Any = None, algorithm: str | None = None,
              precision: Precision = None) -> Any:  # fmt: skip
    """e[i] = sum over k of kernel[k] * image[i + k - centre]: the kernel as it is, at every place of the image.

    Equal to scipy.ndimage.correlate and correlate1d, scipy.signal.correlate and correlate2d and numpy.correlate, in
    their words; docs/filters.md says which call is which, and where they differ among themselves.

    Args:
        image: an array (or list) or `fc.Tensor` of any rank. float32 and float64 are computed in their own dtype,
            integers of up to 16 bits, bool, float16 and bfloat16 in float32, wider integers in float64.
        kernel: of rank 1 to 3, converted to the dtype that is computed in. With one axis more than there are filtered
            axes it is several kernels, and the result has a new first axis: result[k] belongs to kernel[k].
        mode: "same": the size of the image; "full": every place where image and kernel overlap; "valid": only the
            places where the kernel lies inside of the image.
        boundary: what lies beyond the border, in SciPy's words:

            | word                          | cells                          |
            |-------------------------------|--------------------------------|
            | reflect, grid-mirror, symm    | d c b a | a b c d | d c b a    |
            | mirror                        | d c b   | a b c d |   c b a    |
            | nearest                       | a a a a | a b c d | d d d d    |
            | wrap, grid-wrap               | a b c d | a b c d | a b c d    |
            | constant, grid-constant, fill | cval    | a b c d | cval       |

            SciPy's "mirror" is what `fc.conv2d` and PyTorch call "reflect".
        axes: the filtered axes, an int or one per axis of the kernel. None: all axes of the image, or all but the last
            one (the channels) for a 2-D kernel on an (H, W, C) and a 3-D kernel on a (D, H, W, C) image.
        cval: the constant of "constant" and "fill".
        origin: mode="same" only; an int or one per axis of the kernel: how far its centre lies beyond size // 2.
            Positive values move the result to the right (in `convolve`, to the left).
        output: a dtype, or an array to write to, which is returned. Integers are rounded to nearest (SciPy cuts off)
            and saturate at the ends of their range (in SciPy they go around). None gives the dtype computed in.
        algorithm, precision: as for `fc.conv2d`.

    Returns:
        the result, the kind of image; a Tensor if the image or the kernel is one, and recorded.

    Raises:
        TypeError: complex numbers; a Tensor with `output`; an origin or axis that is no integer.
        ProblemError: words, axes or shapes that do not fit together.

    Example:
        >>> edges = fc.correlate(photo, fc.filters.sobel("x"), boundary="nearest")
    """
    return _slide("correlate", image, kernel, mode, boundary, axes, cval, origin, output, algorithm, precision)


@takes_dlpack
def convolve(image: Any, kernel: Any, mode: str = "same", boundary: str = "reflect", axes: Any = None, *,
             cval: float = 0.0, origin: Any = 0, output: Any = None, algorithm: str | None = None,
             precision: Precision = None) -> Any:  # fmt: skip
    """e[i] = sum over k of kernel[k] * image[i - k + centre]: `correlate` with the kernel turned around.

    Equal to scipy.ndimage.convolve and convolve1d, scipy.signal.convolve and convolve2d and numpy.convolve. Arguments,
    results and errors as for `correlate`. Where SciPy's modules differ, the word of the boundary decides: in
    mode="same" a kernel of even length has its centre at size // 2, as in scipy.ndimage, but with "fill" and "symm" one
    cell before, as in scipy.signal and NumPy (elsewhere origin=-1 does that).
    """
    return _slide("convolve", image, kernel, mode, boundary, axes, cval, origin, output, algorithm, precision)


def _slide(caller: str, image: Any, kernel: Any, mode: str, boundary: str, axes: Any, cval: float, origin: Any,
           output: Any, algorithm: str | None, precision: Precision) -> Any:  # fmt: skip
    cells = boundary_named(boundary, caller)
    if mode not in MODES:
        raise ProblemError(f"{caller}: mode is {mode!r}; expected one of {MODES}")
    x, w = _operands(caller, image, kernel, output)
    axes, several = _filtered_axes(caller, x.shape, w.shape, axes)
    filter = w.shape[several:]
    if 0 in filter:
        raise ProblemError(f"{caller}: the kernel has shape {w.shape}; expected at least one tap along each axis")
    turned = caller == "convolve"
    if turned:
        w = w[(..., *(slice(None, None, -1),) * len(filter))]
    middle = "left" if turned and boundary not in _SIGNAL_WORDS else "right"
    pads = _pads(caller, mode, filter, origin, middle, mirrored=turned)
    _check_sizes(caller, x.shape, axes, filter, pads)

    # The filtered axes in the image's order: the kernel is what is turned, the small one.
    order = sorted(range(len(axes)), key=axes.__getitem__)
    w = w.transpose(*range(several), *(several + i for i in order))
    choice = {"algorithm": algorithm, "precision": precision}
    y = _convolved(x, w, [axes[i] for i in order], several, tuple(pads[i] for i in order), cells, cval, choice)
    return y if isinstance(y, Tensor) else delivered(y, output, caller)


def _convolved(x: Any, w: Any, axes: list[int], several: bool, pads: Pads, cells: str, cval: float,
               choice: dict[str, Any]) -> Any:  # fmt: skip
    """The result for ascending axes, with the axis of several kernels in front."""
    rank, k, filter = len(axes), w.shape[0] if several else 1, w.shape[several:]
    size = tuple(x.shape[a] for a in axes)
    plane = tuple(n + sum(pad) - f + 1 for n, f, pad in zip(size, filter, pads, strict=True))
    adjacent = axes[-1] - axes[0] == rank - 1 and 0 not in x.shape[axes[-1] + 1 :]
    if adjacent:
        before, behind = x.shape[: axes[0]], x.shape[axes[-1] + 1 :]
    else:
        others = [a for a in range(x.ndim) if a not in axes]
        before, behind = tuple(x.shape[a] for a in others), ()
        x = x.transpose(*others, *axes)
    n, c = math.prod(before), math.prod(behind)
    if c == 1 or rank == 1:
        # Along one axis, those behind it are one more axis with a filter of 1: rows at a time.
        more = (c,) if c > 1 else ()
        w = w.reshape(k, 1, *filter, *(1,) * len(more))
        pads += ((0, 0),) * len(more)
        image = x.reshape(n, 1, *size, *more)
        y = bounded_conv(image, w, pads, cells, cval, groups=1, layout="channels_first", **choice)
        y = y.reshape(*before, *(k,) * several, *plane, *behind)
        kernels_axis = len(before)
    else:
        w = _for_each_channel(w.reshape(1, k, *filter), c)
        y = bounded_conv(x.reshape(n, *size, c), w, pads, cells, cval, groups=c, layout="channels_last", **choice)
        y = y.reshape(*before, *plane, *behind, *(k,) * several)
        kernels_axis = y.ndim - 1
    if several:
        y = y.transpose(kernels_axis, *(a for a in range(y.ndim) if a != kernels_axis))
    if not adjacent:
        back = sorted(range(len(others) + rank), key=[*others, *axes].__getitem__)
        y = y.transpose(*range(several), *(several + a for a in back))
    return y


def _for_each_channel(w: Any, c: int) -> Any:
    """(1, K, *filter) -> (c * K, 1, *filter)."""
    shape = (c, *w.shape[1:])
    repeated = ops.broadcast_to(w, shape) if isinstance(w, Tensor) else namespace(w).broadcast_to(w, shape)
    return repeated.reshape(c * shape[1], 1, *shape[2:])


def _operands(caller: str, image: Any, kernel: Any, output: Any) -> tuple[Any, Any]:
    """Image and kernel in the dtype that is computed in."""
    if output is not None and (isinstance(image, Tensor) or isinstance(kernel, Tensor)):
        raise TypeError(f"{caller}: output is for arrays; a Tensor's result is always new and keeps its dtype")
    x = image if isinstance(image, Tensor) else as_computed(image, caller, output)
    if isinstance(kernel, Tensor):
        return x, kernel
    xp = namespace(x.data if isinstance(x, Tensor) else x)
    if kind_of(kernel) == "cupy" and xp is np:
        raise TypeError(f"{caller}: kernel is a cupy array, image is not; expected one kind: use cupy.asnumpy(kernel)")
    w = xp.asarray(kernel)  # of a GPU's image: moved there
    if w.dtype.kind not in "biuf" and not is_half(w.dtype):
        raise TypeError(f"{caller}: kernel has dtype {w.dtype}; expected real numbers")
    return x, w.astype(x.dtype, copy=False)


def as_computed(image: Any, caller: str, output: Any = None) -> Any:
    """An array or list as the float array that is computed with: of float64 only if it or `output` asks for that."""
    x = np.asarray(image) if isinstance(image, list | tuple | int | float | np.generic) else image
    x = widen(x)
    if kind_of(x) in ("numpy", "cupy") and x.dtype.kind in "biuf" and x.dtype not in FLOATS:
        x = x.astype(np.result_type(x.dtype, np.float32) if x.dtype.itemsize <= 8 else np.float64)
    x = as_native(x, "image", caller)
    wide = output is not None and getattr(output, "dtype", output) == np.float64
    return x.astype(np.float64) if wide and x.dtype != np.float64 else x


def _filtered_axes(caller: str, x_shape: Shape, w_shape: Shape, axes: Any) -> tuple[list[int], bool]:
    """(the axes of the image that the kernel's axes lie along, whether there are several kernels)."""
    dimensions, rank = len(x_shape), len(w_shape)
    if axes is not None:
        given = list(axes) if isinstance(axes, Sequence | np.ndarray) else [axes]
        numbers = [as_int(a, "axes", caller, -dimensions) for a in given]
        several = rank == len(numbers) + 1
        if any(a >= dimensions for a in numbers) or len({a % dimensions for a in numbers}) != len(numbers):
            raise ProblemError(
                f"{caller}: axes is {axes}; expected different numbers from {-dimensions} to {dimensions - 1} for an "
                f"image of shape {x_shape}"
            )
    else:
        several = rank == dimensions + 1
        if not several and rank != dimensions and (rank, dimensions) not in ((2, 3), (3, 4)):
            raise ProblemError(
                f"{caller}: the kernel has {rank} axes, shape {w_shape}, the image {dimensions}, shape {x_shape}; "
                "expected as many, or axes= to say which axes of the image are filtered"
            )
        numbers = list(range(rank - several))
    if len(numbers) not in (1, 2, 3) or rank != len(numbers) + several:
        raise ProblemError(
            f"{caller}: the kernel has shape {w_shape} and {len(numbers)} axes of the image, {x_shape}, are filtered; "
            "expected 1 to 3 of them and a kernel with as many axes, or one more for several kernels"
        )
    return [a % dimensions for a in numbers], several


def _pads(caller: str, mode: str, filter: Shape, origin: Any, middle: str, mirrored: bool) -> Pads:
    """How many cells beyond the border the (turned) kernel sees, (begin, end) per axis."""
    given = list(origin) if isinstance(origin, Sequence | np.ndarray) else [origin] * len(filter)
    if len(given) != len(filter):
        raise ProblemError(f"{caller}: origin has {len(given)} entries; expected an int or {len(filter)}, one per axis")
    shifts = [as_int(o, "origin", caller, -(2**62)) for o in given]
    if mode != "same":
        if any(shifts):
            raise ProblemError(f'{caller}: origin is {origin} with mode={mode!r}; expected mode="same"')
        return tuple((f - 1, f - 1) if mode == "full" else (0, 0) for f in filter)
    pads = []
    for f, shift in zip(filter, shifts, strict=True):
        centred = f // 2 if middle == "right" else (f - 1) // 2
        begin = centred - shift if mirrored else centred + shift
        if not 0 <= begin < f:
            lowest, highest = (centred - f + 1, centred) if mirrored else (-centred, f - 1 - centred)
            raise ProblemError(f"{caller}: origin is {shift} for {f} taps; expected {lowest} to {highest}")
        pads.append((begin, f - 1 - begin))
    return tuple(pads)


def _check_sizes(caller: str, x_shape: Shape, axes: list[int], filter: Shape, pads: Pads) -> None:
    for axis, f, pad in zip(axes, filter, pads, strict=True):
        if x_shape[axis] == 0:
            raise ProblemError(
                f"{caller}: the image has shape {x_shape}, no cells along the filtered axis {axis}; expected some"
            )
        if x_shape[axis] + sum(pad) < f:
            raise ProblemError(
                f'{caller}: the kernel has {f} taps along axis {axis}, the image {x_shape[axis]}; with mode="valid" '
                "expected a kernel that fits into the image"
            )


def delivered(y: Any, output: Any, caller: str) -> Any:
    """y as `output` asks: in another dtype, or in the caller's array."""
    if output is None:
        return y
    if kind_of(output) not in ("numpy", "cupy") or isinstance(output, type | np.dtype):
        return _cast(y, np.dtype(output))
    if output.shape != y.shape:
        raise ProblemError(f"{caller}: output has shape {output.shape}; expected {y.shape}")
    output[...] = _cast(y, output.dtype)
    return output


def _cast(y: Any, dtype: Any) -> Any:
    if dtype.kind not in "iu":
        return y.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    # The largest float at or below the upper limit: 2^63 - 1 itself is none.
    top = np.asarray(limits.max, y.dtype)
    top = top if int(top) <= limits.max else np.nextafter(top, top.dtype.type(0))
    return namespace(y).rint(y).clip(y.dtype.type(limits.min), top).astype(dtype)
