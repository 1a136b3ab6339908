# SPDX-License-Identifier: Apache-2.0
"""Borders as layers, and PyTorch's `pad`: widths from the last axis on, (left, right, top, bottom, front, back)."""

from collections.abc import Sequence
from typing import Any

from .. import ops
from .._core import ProblemError
from ..tensor import Tensor, as_tensor
from .module import Module


def pad(x: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """x with a border.

    Args:
        pad: (begin, end) of the last axis, then of the one before it, and so on, in one flat sequence: in 2-D (left,
            right, top, bottom). Negative numbers crop. `fc.ops.pad` takes pairs, the first axis first.
        mode: "constant", "reflect", "replicate" or "circular".
        value: of a constant border; None is 0.

    Raises:
        ProblemError: an odd number of widths, more than x has axes, a value without "constant", a border wider than
            what the mode can copy.
    """
    x = as_tensor(x)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ProblemError(f"pad: pad is {tuple(pad)}; expected (begin, end) for up to {x.ndim} axes, the last first")
    if value is not None and mode != "constant":
        raise ProblemError(f"pad: mode is {mode!r} and value is {value}; expected a value for mode 'constant' only")
    pairs = [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)][::-1]
    return ops.pad(x, [(0, 0)] * (x.ndim - len(pairs)) + pairs, value or 0.0, mode)


class _Pad(Module):
    rank: int
    mode: str

    def __init__(self, padding: Any) -> None:
        super().__init__()
        widths = tuple(padding) if isinstance(padding, list | tuple) else (padding,) * (2 * self.rank)
        if len(widths) != 2 * self.rank:
            raise ProblemError(
                f"{type(self).__name__}: padding is {padding}; expected an int or {2 * self.rank}, (begin, end) of "
                "each axis, the last axis first"
            )
        for width in widths:
            if isinstance(width, bool) or not hasattr(width, "__index__"):
                raise TypeError(f"{type(self).__name__}: padding is {padding!r}; expected integers")
        self.padding = widths

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in (self.rank + 1, self.rank + 2):
            raise ProblemError(
                f"{type(self).__name__}: x has shape {x.shape}; expected {self.rank + 1} or {self.rank + 2} dimensions"
            )
        return pad(x, self.padding, self.mode, self._value)

    @property
    def _value(self) -> float | None:
        return None

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    @property
    def _value(self) -> float | None:
        return self.value

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class ConstantPad1d(_ConstantPad):
    """A border of `value`.

    x is (N, C, W) or (C, W); padding an int or (left, right).
    """

    rank = 1


class ConstantPad2d(_ConstantPad):
    """A border of `value`.

    x is (N, C, H, W) or (C, H, W); padding an int or (left, right, top, bottom).
    """

    rank = 2


class ConstantPad3d(_ConstantPad):
    """A border of `value`.

    x is (N, C, D, H, W) or (C, D, H, W); padding an int or (left, right, top, bottom, front, back).
    """

    rank = 3


class ZeroPad1d(_Pad):
    """A border of zeros.

    x is (N, C, W) or (C, W); padding an int or (left, right).
    """

    rank = 1
    mode = "constant"


class ZeroPad2d(_Pad):
    """A border of zeros.

    x is (N, C, H, W) or (C, H, W); padding an int or (left, right, top, bottom).
    """

    rank = 2
    mode = "constant"


class ZeroPad3d(_Pad):
    """A border of zeros.

    x is (N, C, D, H, W) or (C, D, H, W); padding an int or (left, right, top, bottom, front, back).
    """

    rank = 3
    mode = "constant"


class ReflectionPad1d(_Pad):
    """The border mirrors x about its edge cells, which are not repeated.

    x is (N, C, W) or (C, W); padding an int or (left, right).
    """

    rank = 1
    mode = "reflect"


class ReflectionPad2d(_Pad):
    """The border mirrors x about its edge cells, which are not repeated.

    x is (N, C, H, W) or (C, H, W); padding an int or (left, right, top, bottom).
    """

    rank = 2
    mode = "reflect"


class ReflectionPad3d(_Pad):
    """The border mirrors x about its edge cells, which are not repeated.

    x is (N, C, D, H, W) or (C, D, H, W); padding an int or (left, right, top, bottom, front, back).
    """

    rank = 3
    mode = "reflect"


class ReplicationPad1d(_Pad):
    """The border repeats the edge cells.

    x is (N, C, W) or (C, W); padding an int or (left, right).
    """

    rank = 1
    mode = "replicate"


class ReplicationPad2d(_Pad):
    """The border repeats the edge cells.

    x is (N, C, H, W) or (C, H, W); padding an int or (left, right, top, bottom).
    """

    rank = 2
    mode = "replicate"


class ReplicationPad3d(_Pad):
    """The border repeats the edge cells.

    x is (N, C, D, H, W) or (C, D, H, W); padding an int or (left, right, top, bottom, front, back).
    """

    rank = 3
    mode = "replicate"


class CircularPad1d(_Pad):
    """The border continues with the other end.

    x is (N, C, W) or (C, W); padding an int or (left, right).
    """

    rank = 1
    mode = "circular"


class CircularPad2d(_Pad):
    """The border continues with the other end.

    x is (N, C, H, W) or (C, H, W); padding an int or (left, right, top, bottom).
    """

    rank = 2
    mode = "circular"


class CircularPad3d(_Pad):
    """The border continues with the other end.

    x is (N, C, D, H, W) or (C, D, H, W); padding an int or (left, right, top, bottom, front, back).
    """

    rank = 3
    mode = "circular"
