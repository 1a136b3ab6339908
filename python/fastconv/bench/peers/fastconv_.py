# SPDX-License-Identifier: Apache-2.0
"""fastconv itself: planned (weights packed before), one-shot (the public functions), and its float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastconv as fc
from fastconv import _core

from ..problems import Layer
from . import Array, Prepared, RefusedError, Task

LAYOUTS = {"nchw": "channels_first", "nhwc": "channels_last"}


def to_layout(a: Array, layout: str) -> Array:
    """An image stored in the layout of the problem."""
    return a if layout == "nchw" else np.ascontiguousarray(np.moveaxis(a, 1, -1))


def from_layout(a: Array, layout: str) -> Array:
    """An image of the problem's layout with its channels first."""
    return a if layout == "nchw" else np.moveaxis(a, -1, 1)


class OneShot:
    """`fc.conv2d` and the explicit backward functions: weights as NumPy arrays, packed anew in every call."""

    def __init__(self, threads: int) -> None:
        if _core.get_threads() != threads:
            raise RuntimeError(f"fastconv computes with {_core.get_threads()} threads, {threads} were asked for")

    def versions(self) -> dict[str, str]:
        return {"fastconv": fc.__version__, "isa": str(fc.info()["isa"]), "numpy": np.__version__}

    def prepare(self, task: Task) -> Prepared:
        if task["kind"] != "conv":
            raise RefusedError(f"{type(self).__name__} computes convolutions, not {task['kind']}")
        layer = Layer.from_dict(task["layer"])
        fc.set_options(**task["options"])
        arrays = {role: layer.array(role, task["seed"]) for role in layer.needs()}
        arrays = {role: a if role == "w" else to_layout(a, layer.layout) for role, a in arrays.items()}
        try:
            call = self.make(layer, arrays)
            with fc.trace() as trace:
                call()
        except fc.UnsupportedError as error:
            raise RefusedError(str(error)) from None
        algorithm = trace.calls[-1]["algorithm"]
        entry = next(row for row in fc.algorithms(layer.text) if row["name"] == algorithm)
        about = {"algorithm": algorithm, **{key: entry[key] for key in ("workspace_bytes", "estimate_s")}}
        image = layer.pass_ != "bwd_filter"

        def result(y: Array) -> Array:
            y = y.astype(np.float32) if layer.dtype == "bf16" and y.itemsize == 2 else y  # pickled without ml_dtypes
            return from_layout(y, layer.layout) if image else y

        return Prepared(call, result, about)

    def make(self, layer: Layer, arrays: dict[str, Array], **keywords: Any) -> Callable[[], Array]:
        padding = tuple(zip(layer.pad_begin, layer.pad_end, strict=True))
        geometry = (layer.stride, padding, layer.dilation, layer.groups)
        keywords.update(layout=LAYOUTS[layer.layout], padding_mode=layer.padding_mode)
        prefix = f"conv{layer.rank}d"
        if layer.pass_ == "fwd":
            forward = getattr(fc, prefix)
            x, w = arrays["x"], arrays["w"]
            return lambda: forward(x, w, None, *geometry, **keywords)
        dy = arrays["dy"]
        if layer.pass_ == "bwd_data":
            backward_data = getattr(fc, f"{prefix}_backward_data")
            w, shape = arrays["w"], layer.x_shape
            if layer.layout == "nhwc":
                shape = (shape[0], *shape[2:], shape[1])
            return lambda: backward_data(dy, w, shape, *geometry, **keywords)
        backward_filter = getattr(fc, f"{prefix}_backward_filter")
        x = arrays["x"]
        return lambda: backward_filter(dy, x, layer.w_shape, *geometry, **keywords)


class Planned(OneShot):
    """`fc.plan`: weights copied and packed once, outside of what is timed. The forward pass only."""

    def make(self, layer: Layer, arrays: dict[str, Array], **keywords: Any) -> Callable[[], Array]:
        if layer.pass_ != "fwd":
            raise RefusedError(f"a plan computes fwd, not {layer.pass_}")
        x, w = arrays["x"], arrays["w"]
        padding = tuple(zip(layer.pad_begin, layer.pad_end, strict=True))
        plan = fc.plan(
            w,
            x_shape=x.shape,
            stride=layer.stride,
            padding=padding,
            dilation=layer.dilation,
            groups=layer.groups,
            layout=LAYOUTS[layer.layout],
            padding_mode=layer.padding_mode,
        )
        return lambda: plan(x)


class Float64(OneShot):
    """The answer that others are compared with: `reference` in float64, which sums in long double."""

    def make(self, layer: Layer, arrays: dict[str, Array], **keywords: Any) -> Callable[[], Array]:
        doubles = {role: a.astype(np.float64) for role, a in arrays.items()}
        return super().make(layer, doubles, algorithm="reference")

    def prepare(self, task: Task) -> Prepared:
        prepared = super().prepare({**task, "options": {}})
        return prepared._replace(about={"algorithm": "reference in long double"})
