# SPDX-License-Identifier: Apache-2.0
"""A network run on a batch of no images, and what each of its layers saw."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import nn
from ..arrays import namespace
from ..autograd import no_grad
from ..nn.conv import _ConvBase
from ..nn.simple import _Dropout
from ..tensor import Tensor

# Their output is their input under another shape, or itself.
_VIEWS = (nn.Flatten, nn.Unflatten, nn.Identity, _Dropout)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Row:
    """One call of one layer, for one input: shapes have no batch axis.

    name: its path in the network. parameters: those that no earlier row has. macs: multiply-adds of a convolution or
    dense layer, 0 for others. activation_bytes: what its output takes, 0 where that is its input. operator: of a node
    of an ONNX model, whose name is the node's; "" of a layer. batched: False for a value of a graph that has no batch
    axis, as a shape: its shape is all of it.
    """

    name: str
    layer: nn.Module
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    macs: int
    activation_bytes: int
    operator: str = ""
    batched: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        plain = {name: value for name, value in vars(self).items() if name != "layer"}
        return plain | {"layer": repr(self.layer), "kind": type(self.layer).__name__}


def measured(model: nn.Module, input_shape: tuple[int, ...]) -> list[Row]:
    """The calls of all modules that have no modules inside, or parameters of their own."""
    rows: list[Row] = []
    counted: set[int] = set()
    modes = [(module, module.training) for module in model.modules()]
    handles = []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()) or any(True for _ in module.parameters(recurse=False)):
            handles.append(module.register_forward_hook(_Recorder(rows, name, counted)))
    try:
        model.eval()
        with no_grad():
            model(_nothing(model, input_shape))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return rows


def _nothing(model: nn.Module, input_shape: tuple[int, ...]) -> Tensor:
    first = next((p.data for p in model.parameters()), np.empty(0, np.float32))
    return Tensor(namespace(first).zeros((0, *input_shape), first.dtype))


class _Recorder:
    """A hook that appends a row."""

    def __init__(self, rows: list[Row], name: str, counted: set[int]) -> None:
        self.rows, self.name, self.counted = rows, name, counted

    def __call__(self, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        y = output[0] if isinstance(output, tuple) else output
        new = [p for p in layer.parameters(recurse=False) if id(p) not in self.counted]
        self.counted.update(id(p) for p in new)
        before, after = tuple(inputs[0].shape[1:]), tuple(y.shape[1:])
        held = 0 if isinstance(layer, _VIEWS) else math.prod(after) * y.dtype.itemsize
        self.rows.append(
            Row(self.name, layer, before, after, sum(p.data.size for p in new), macs(layer, before, after), held)
        )


def macs(layer: Any, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    """Multiply-adds of one call: for a convolution every weight meets every cell, padding included."""
    if isinstance(layer, _ConvBase):
        cells = input_shape if isinstance(layer, _TRANSPOSED) else output_shape
        return math.prod(cells) * math.prod(layer.weight.shape[1:])
    if isinstance(layer, nn.Linear):
        return math.prod(output_shape) * layer.in_features
    return 0


def idle_parts(model: nn.Module, called: set[int]) -> dict[str, int]:
    """{name: parameters} of the largest parts of which nothing ran."""
    idle: dict[str, int] = {}
    for name, module in model.named_modules():
        inside_idle = any(name.startswith(f"{other}.") for other in idle)
        count = sum(p.data.size for p in module.parameters())
        if name and count and not inside_idle and not any(id(m) in called for m in module.modules()):
            idle[name] = count
    return idle


def channels_last(layer: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A layer's shape with the channels at the end."""
    usual = "channels_last" if isinstance(layer, nn.Linear | nn.LayerNorm) else "channels_first"
    if len(shape) < 2 or getattr(layer, "layout", usual) == "channels_last":
        return shape
    return (*shape[1:], shape[0])


def is_global(pool: Any) -> bool:
    """Whether an adaptive pool gives one cell."""
    size = pool.output_size
    return all(n == 1 for n in size) if isinstance(size, list | tuple) else size == 1


def footer(counted: int, held: int, idle: dict[str, int]) -> list[str]:
    """What is not in the originals' tables."""
    lines = [f"Multiply-adds: {counted:,}", f"Activation memory: {held:,} bytes per input"]
    if idle:
        parts = ", ".join(f"{name} ({count:,} parameters)" for name, count in idle.items())
        lines.append(f"Runs in training only: {parts}")
    return lines
