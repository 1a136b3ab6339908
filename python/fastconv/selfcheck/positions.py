# SPDX-License-Identifier: Apache-2.0
"""The checks of values that go to positions, or come from them: gradients of max pooling, unpooling, its gradient."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._core import Options
from ..arrays import dtype_word
from ..verify import Array, shares_of, stored_error
from .calls import Results, Verdict, host, native_at, place_of, present, there, verdict_of, words_of

if TYPE_CHECKING:
    from .sampling import Sampler


@dataclass(frozen=True)
class PositionsCheck:
    """Values and the positions they go to in planes of shape `x_shape`; or planes, and positions whose values come.

    arrays: "values" or "plane", and "indices". least: 0, or -1 where that is nowhere.
    """

    kind: ClassVar[str] = "positions"
    arrays: Mapping[str, Array]
    x_shape: tuple[int, ...]
    layout: str
    least: int
    options: Options
    where: str = "cpu"

    @classmethod
    def of(cls, about: Mapping[str, Any], arrays: Mapping[str, Array]) -> "PositionsCheck":
        options = Options(**about["options"])
        return cls(arrays, tuple(about["x_shape"]), about["layout"], about["least"], options, about["where"])

    @property
    def title(self) -> str:
        shapes = ["x".join(map(str, shape)) for shape in (self.arrays["indices"].shape, self.x_shape)]
        what = "{} values scattered to {}" if "values" in self.arrays else "{} values gathered from {}"
        return f"{what.format(*shapes)} {self.layout}"

    def _flat(self, a: Array) -> Array:
        """(N, C, positions)"""
        a = np.moveaxis(a, -1, 1) if self.layout == "channels_last" else a
        return a.reshape(*a.shape[:2], prod(a.shape[2:]))

    def _shaped(self, flat: Array, shape: tuple[int, ...]) -> Array:
        if self.layout == "channels_first":
            return flat.reshape(shape)
        return np.moveaxis(flat.reshape(shape[0], shape[-1], *shape[1:-1]), 1, -1)

    def _sums(self, values: Array) -> Array:
        """Positions that are nowhere, or outside of the plane, get nothing."""
        at, flat = self._flat(self.arrays["indices"]), self._flat(values)
        pixels = prod(self.x_shape[1:-1] if self.layout == "channels_last" else self.x_shape[2:])
        plane = np.zeros((*flat.shape[:2], pixels), flat.dtype)
        inside = (at >= 0) & (at < pixels)
        n, c = np.ogrid[: at.shape[0], : at.shape[1]]
        n, c = (np.broadcast_to(i[..., None], at.shape)[inside] for i in (n, c))
        np.add.at(plane, (n, c, at[inside]), flat[inside])
        return self._shaped(plane, self.x_shape)

    def judge(self, results: Results) -> Verdict:
        (got,) = results
        if "plane" in self.arrays:
            plane, at = self._flat(self.arrays["plane"]), self._flat(self.arrays["indices"])
            taken = np.take_along_axis(plane, np.maximum(at, 0), 2)
            exact = self._shaped(np.where(at < 0, plane.dtype.type(0), taken), got.shape)
            same = (got == exact) | ((got != got) & (exact != exact))
            return verdict_of(np.where(same, 0, np.inf), got, exact)
        values = self.arrays["values"]
        word = dtype_word(values.dtype)
        wide: Any = np.longdouble if word == "f64" else np.float64
        info = np.finfo(np.float64 if word == "f64" else np.float32)
        values = values.astype(wide)
        exact, terms = self._sums(values), self._sums(np.ones_like(values))
        allowed = float(info.eps) * np.sqrt(terms) * self._sums(np.abs(values)) + float(info.tiny) * (terms + 1)
        return verdict_of(shares_of(got, exact, stored_error(allowed, exact, word), word), got, exact)

    def again(self) -> Results:
        a, native = there(self.arrays, self.where), native_at(self.where)
        last = (self.layout, self.least, self.options)
        if "plane" in a:
            return (host(native.gather_positions(a["plane"], a["indices"], *last)),)
        return (host(native.scatter_positions(a["values"], a["indices"], self.x_shape, *last)),)

    def about(self) -> dict[str, Any]:
        return {"x_shape": self.x_shape, "layout": self.layout, "least": self.least,
                "options": {**words_of(self.options), "algorithm": None}}  # fmt: skip

    def lines(self) -> list[str]:
        return []


def sampled(native: Any, sampler: "Sampler") -> dict[str, Callable[..., Any]]:
    """What takes the place of these functions of `native`, by their names and with their arguments."""
    scatter, gather = native.scatter_positions, native.gather_positions

    def scatter_positions(values: Any, indices: Any, x_shape: Any, layout: Any, least: Any, options: Any) -> Any:
        plane = scatter(values, indices, x_shape, layout, least, options)
        sampler.look_at(lambda: PositionsCheck(present(values=values, indices=indices), tuple(x_shape), layout, least,
                                               options, place_of(values)), lambda: (host(plane),))  # fmt: skip
        return plane

    def gather_positions(plane: Any, indices: Any, layout: Any, least: Any, options: Any) -> Any:
        values = gather(plane, indices, layout, least, options)
        sampler.look_at(lambda: PositionsCheck(present(plane=plane, indices=indices), tuple(plane.shape), layout, least,
                                               options, place_of(plane)), lambda: (host(values),))  # fmt: skip
        return values

    return {"scatter_positions": scatter_positions, "gather_positions": gather_positions}
