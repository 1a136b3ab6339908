# SPDX-License-Identifier: Apache-2.0
"""One pooling of the native module as data, what it should answer, and how far off it may be: verify.py's counterpart.

Maxima and minima, with their winners, are to be exact. An average may be off like a sum of as many terms as its window
has taps; a norm besides by what a power and a root lose; gradients likewise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np

from . import reference
from ._core import PoolProblem
from .arrays import dtype_word
from .verify import Array, shares_of, stored_error

# Units in the last place that a power and a root may lose, for each unit of the exponent.
_POWER_ULPS = 8


@dataclass(frozen=True)
class PoolCall:
    """A pooling with its arrays.

    Attributes:
        problem: the windows.
        arrays: forward "x"; backward "dy", and of a norm "x" and "y", of an extreme "offsets".
        norm: p of a norm.
    """

    problem: PoolProblem
    arrays: Mapping[str, Array]
    norm: float = 1.0

    @property
    def backward(self) -> bool:
        return "dy" in self.arrays

    @property
    def dtype(self) -> str:
        """The word of its floating arrays."""
        return dtype_word(self.arrays["dy" if self.backward else "x"].dtype)

    @property
    def wide(self) -> Any:
        """What the answer is computed in."""
        return np.longdouble if self.dtype == "f64" else np.float64

    @property
    def extreme(self) -> bool:
        return self.problem.kind in ("max", "min")

    @property
    def _adaptive(self) -> tuple[int, ...]:
        """The outputs of each axis of windows that only `reference.adaptive_*` has; () for windows of one size."""
        output = tuple(self.problem.words["output"])
        return () if set(output) <= {1} else output

    @property
    def has_reference(self) -> bool:
        """Whether there is an answer to compare with: not of adaptive norms, nor sums, to more than one output."""
        words = self.problem.words
        return not self._adaptive or self.extreme or (words["kind"] == "average" and not words["divisor"])

    def _geometry(self) -> dict[str, Any]:
        """Windows of one size; one output that sees the whole plane is such a window."""
        words = self.problem.words
        shared = {"ceil_mode": words["ceil_mode"], "layout": words["layout"], "dtype": self.wide}
        if words["output"]:
            return {"kernel_size": self.problem.size, **shared}
        padding = tuple(zip(words["pad_begin"], words["pad_end"], strict=True))
        names = {"kernel_size": "window", "stride": "stride", "dilation": "dilation"}
        return {**{name: words[key] for name, key in names.items()}, "padding": padding, **shared}

    @property
    def _share(self) -> dict[str, Any]:
        words = self.problem.words
        return {"count_include_pad": words["count_include_pad"], "divisor_override": words["divisor"] or None}

    @property
    def _taps(self) -> int:
        """Terms of a sum, at most: cells of a window, or windows of a cell."""
        size, words = self.problem.size, self.problem.words
        if not words["output"]:
            return prod(words["window"])
        axes = zip(size, words["output"], strict=True)
        return prod(-(-m // n) + 1 if self.backward else -(-n // m) + 1 for n, m in axes)

    def exact(self, magnitude: bool = False) -> Array:
        """The answer; or what rounding errors are proportional to, the same of absolute values.

        NaN where nothing can be said: of a gradient by a norm that is subnormal, and counts as 0.
        """
        a = {name: value.astype(self.wide) for name, value in self.arrays.items() if name != "offsets"}
        if magnitude:
            a = {name: np.abs(value) for name, value in a.items()}
        if self.backward:
            return self._gradient(a, magnitude)
        if self.extreme:
            return self.winners()[0]
        if self.problem.kind != "average":
            signed = self.problem.kind == "signed_lp" and not magnitude
            return reference.lp_pool(a["x"], self.norm, signed=signed, **self._geometry())
        if self._adaptive:
            return reference.adaptive_avg_pool(a["x"], self._adaptive, layout=self.problem.layout, dtype=self.wide)
        return reference.avg_pool(a["x"], **self._geometry(), **self._share)

    def winners(self) -> tuple[Array, Array]:
        """(y, positions) of a maximum or minimum."""
        x, sign = self.arrays["x"].astype(self.wide), -1 if self.problem.kind == "min" else 1
        if self._adaptive:
            y, at = reference.adaptive_max_pool(sign * x, self._adaptive, layout=self.problem.layout, dtype=self.wide)
        else:
            y, at = reference.max_pool(sign * x, **self._geometry())
        return sign * y, at

    def _gradient(self, a: dict[str, Array], magnitude: bool) -> Array:
        p, shape = self.problem, (a["dy"].shape[0], *self.problem.x_shape[1:])
        if "offsets" in self.arrays:
            at = self.positions(self.arrays["offsets"])
            return reference.max_pool_backward(a["dy"], at, shape, layout=p.layout, dtype=self.wide)
        if p.kind == "average":
            if self._adaptive:
                return reference.adaptive_avg_pool_backward(a["dy"], shape, layout=p.layout, dtype=self.wide)
            return reference.avg_pool_backward(a["dy"], shape, **self._geometry(), **self._share)
        tiny = np.finfo(np.float64 if self.dtype == "f64" else np.float32).tiny
        y = np.where((a["y"] != 0) & (np.abs(a["y"]) < tiny), np.nan, a["y"])
        # Of absolute values the signs of x are 1 as they are of powers that keep them.
        signed = p.kind == "signed_lp" and not magnitude
        return reference.lp_pool_backward(a["dy"], a["x"], self.norm, signed=signed, y=y, **self._geometry())

    def positions(self, offsets: Array) -> Array:
        """The positions in the plane of x that winners have, given as the numbers of their taps."""
        p, rank = self.problem, len(self.problem.size)
        first = p.layout == "channels_first"
        base, below = np.zeros((1,) * offsets.ndim, np.int64), np.zeros(1, np.int64)
        for axis in range(rank):
            step = prod(p.size[axis + 1 :])
            shape = [1] * offsets.ndim
            shape[axis + (2 if first else 1)] = -1
            base = base + ((np.arange(p.output_size[axis]) * p.stride[axis] - p.pad_begin[axis]) * step).reshape(shape)
            below = (below[:, None] + np.arange(p.window[axis]) * (p.dilation[axis] * step)).reshape(-1)
        return base + below[np.minimum(offsets, below.size - 1).astype(np.int64)]

    def shares(self, result: Array, exact: Array) -> Array:
        """The error of each element as a share of what is allowed, as `verify.shares_of` has it."""
        info = np.finfo(np.float64 if self.dtype == "f64" else np.float32)
        if self.extreme and not self.backward:  # subnormal numbers count as zero
            got = result.astype(exact.dtype)
            same = (got == exact) | (np.isnan(got) & np.isnan(exact))
            with np.errstate(invalid="ignore"):
                return np.where(same | (np.abs(got - exact) <= float(info.tiny)), 0, np.inf)
        allowed = self._allowed(exact, self.exact(magnitude=True), info)
        return shares_of(result, exact, stored_error(allowed, exact, self.dtype), self.dtype)

    def _allowed(self, exact: Array, magnitude: Array, info: Any) -> Array:
        eps, tiny = float(info.eps), float(info.tiny)
        if self.extreme or self.problem.kind == "average":  # a sum, and a division
            return np.asarray(eps * (sqrt(self._taps) + 1) * magnitude + tiny * self._taps)
        relative = eps * _POWER_ULPS * (self.norm + sqrt(self._taps))
        if self.backward:
            return np.asarray(relative * magnitude + tiny * self._taps)
        # Signed powers cancel: the sum is off by a share of that of the absolute powers, and its root by more.
        scale = np.where(magnitude > 0, magnitude, 1)
        power, root = (np.abs(exact) / scale) ** self.norm, 1 / self.norm
        high = (power + relative) ** root - np.abs(exact) / scale
        rest = power - relative
        low = np.abs(exact) / scale - np.sign(rest) * np.abs(rest) ** root
        return np.asarray(scale * np.maximum(high, low) + relative * np.abs(exact) + tiny)

    def shares_of_winners(self, found: Array) -> Array:
        """Infinite where a winner, a position or the number of a tap, is another one than the first that is right."""
        x = self.arrays["x"].astype(self.wide)
        tiny = np.finfo(np.float64 if self.dtype == "f64" else np.float32).tiny
        if ((x != 0) & (np.abs(x) < tiny)).any():  # they may count as equal
            return np.zeros(found.shape)
        at = self.positions(found) if found.dtype == np.uint8 else found
        return np.where(at == self.winners()[1], 0, np.inf)
