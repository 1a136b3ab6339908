# SPDX-License-Identifier: Apache-2.0
"""How an image goes on beyond its border, in SciPy's words, and a convolution that sees it so.

Four of the five boundaries are padding modes of `fc.conv2d` under other names and need no padded copy. SciPy's
"reflect" (d c b a | a b c d | d c b a) is none of them beyond one cell: there the convolution runs on the image as it
is, and only the bands along the border are computed again, from gathered copies of those bands.
"""

import functools
import itertools
from typing import Any

import numpy as np

from .. import ops, primitives
from .._core import ProblemError
from ..arrays import namespace
from ..tensor import Tensor

Pads = tuple[tuple[int, int], ...]
# Every word of scipy.ndimage and scipy.signal -> the five boundaries, named as in scipy.ndimage.
BOUNDARIES = {
    "reflect": "reflect",
    "grid-mirror": "reflect",
    "symm": "reflect",
    "mirror": "mirror",
    "nearest": "nearest",
    "wrap": "wrap",
    "grid-wrap": "wrap",
    "constant": "constant",
    "grid-constant": "constant",
    "fill": "constant",
}
_PADDING_MODES = {"mirror": "reflect", "nearest": "replicate", "wrap": "circular", "constant": "constant"}
# Bands are worth their calls once they are a small part of the image.
_LARGEST_PART = 0.25


def boundary_named(word: str, caller: str) -> str:
    """One of the five boundaries."""
    if word not in BOUNDARIES:
        raise ProblemError(f"{caller}: boundary is {word!r}; expected one of {', '.join(BOUNDARIES)}")
    return BOUNDARIES[word]


def source_index(n: int, begin: int, end: int, boundary: str, xp: Any = np) -> Any:
    """Which of n cells is seen at the positions -begin .. n + end - 1, for every boundary but "constant"."""
    at = xp.arange(-begin, n + end)
    if boundary == "nearest":
        return at.clip(0, n - 1)
    if boundary == "wrap":
        return at % n
    if boundary == "mirror":
        at = at % max(2 * n - 2, 1)
        return xp.where(at < n, at, 2 * n - 2 - at)
    at = at % (2 * n)
    return xp.where(at < n, at, 2 * n - 1 - at)


def bounded_conv(x: Any, w: Any, pads: Pads, boundary: str, cval: float, **words: Any) -> Any:
    """The correlation of x, with a batch axis, and w; x goes on by `pads` cells along each spatial axis.

    words: groups, layout, algorithm and precision of `fc.conv2d`.
    """
    rank = len(pads)
    conv_of_rank = (primitives.conv1d, primitives.conv2d, primitives.conv3d)[rank - 1]
    conv: Any = functools.partial(conv_of_rank, **words)
    first = 2 if words["layout"] == "channels_first" else 1
    size = x.shape[first : first + rank]
    if not any(itertools.chain(*pads)):
        return conv(x, w)
    if boundary == "reflect" and max(itertools.chain(*pads)) == 1:
        boundary = "nearest"  # the one cell beyond the border is the same in both
    if boundary == "reflect":
        if not isinstance(x, Tensor) and not isinstance(w, Tensor) and _bands_are_small(size, pads):
            y = conv(x, w, padding=pads)
            for cut, band in _bands(x, size, pads, first):
                y[cut] = conv(band, w)
            return y
    elif _is_within(boundary, size, pads):
        return conv(x, w, padding=pads, padding_mode=_PADDING_MODES[boundary], pad_value=cval)
    return conv(_extended(x, size, pads, first, boundary), w)


def _is_within(boundary: str, size: tuple[int, ...], pads: Pads) -> bool:
    """Whether the padding mode can do it: none goes around the image more than once."""
    spare = {"mirror": 1, "wrap": 0}.get(boundary)
    return spare is None or all(max(pad) + spare <= n for n, pad in zip(size, pads, strict=True))


def _bands_are_small(size: tuple[int, ...], pads: Pads) -> bool:
    return sum((2 * begin + 2 * end) / n for n, (begin, end) in zip(size, pads, strict=True)) <= _LARGEST_PART


def _bands(x: Any, size: tuple[int, ...], pads: Pads, first: int) -> Any:
    """For each edge: where its outputs lie in y, and the part of the extended image that they see."""
    indices = [source_index(n, *pad, "reflect", namespace(x)) for n, pad in zip(size, pads, strict=True)]
    for axis, (begin, end) in enumerate(pads):
        reach = begin + end
        for count, seen, place in (
            (begin, slice(None, begin + reach), slice(None, begin)),
            (end, slice(len(indices[axis]) - end - reach, None), slice(-end, None)),
        ):
            if count:
                band = x.take(indices[axis][seen], first + axis)
                for other, index in enumerate(indices):
                    if other != axis and any(pads[other]):
                        band = band.take(index, first + other)
                yield (slice(None),) * (first + axis) + (place,), band


def _extended(x: Any, size: tuple[int, ...], pads: Pads, first: int, boundary: str) -> Any:
    """A padded copy: for kernels that reach around the image, for small images, and on the tape."""
    for axis, (n, pad) in enumerate(zip(size, pads, strict=True)):
        if any(pad):
            x = _extended_axis(x, first + axis, n, pad, boundary)
    return x


def _extended_axis(x: Any, axis: int, n: int, pad: tuple[int, int], boundary: str) -> Any:
    if not isinstance(x, Tensor):
        return x.take(source_index(n, *pad, boundary, namespace(x)), axis)
    before = (slice(None),) * axis
    if boundary == "reflect" and max(pad) <= n:
        # Slices, whose gradient is a slice again, instead of an index, whose gradient is a scatter.
        begin, end = pad
        parts = [x]
        if begin:
            parts.insert(0, x[(*before, slice(begin - 1, None, -1))])
        if end:
            parts.append(x[(*before, slice(n - 1, n - 1 - end if end < n else None, -1))])
        return ops.concat(parts, axis)
    return x[(*before, source_index(n, *pad, boundary, namespace(x.data)))]
