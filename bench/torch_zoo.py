# SPDX-License-Identifier: Apache-2.0
"""Networks of the zoo as PyTorch modules: torch's own layers under the same names, with the same weights.

Layers are made by their class's name and its arguments, which are attributes here as there. The blocks in between keep
the zoo's `forward`, which calls their parts and adds; the few that use more than that have a twin below.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

import fastconv as fc

torch: Any = importlib.import_module("torch")
F: Any = importlib.import_module("torch.nn.functional")

CONTAINERS = ("Sequential", "ModuleList")


def build(name: str, **options: Any) -> Any:
    """The network `fc.models.build(name, **options)` as a PyTorch module, training."""
    return to_torch(fc.models.build(name, **options))


def to_torch(model: fc.nn.Module) -> Any:
    """A module of the zoo as a PyTorch module with copies of its parameters and buffers.

    Raises:
        RuntimeError: a layer whose state differs in PyTorch.
    """
    made = _structure(model)
    state = {key: torch.from_numpy(np.array(value)) for key, value in model.state_dict().items()}
    made.load_state_dict(state)
    return made.train(model.training)


def _structure(module: fc.nn.Module) -> Any:
    kind = type(module)
    parts = {name: _structure(child) for name, child in module._modules.items() if child is not None}
    if kind.__name__ in TWINS:
        return TWINS[kind.__name__](module, parts)
    if kind.__name__ in CONTAINERS:
        made = getattr(torch.nn, kind.__name__)()
        for name, part in parts.items():
            made.add_module(name, part)
        return made
    if kind.__module__.startswith("fastconv.nn."):
        return _layer(module)
    return _block(module, parts, {"forward": kind.forward})


def _layer(module: Any) -> Any:
    kind = getattr(torch.nn, type(module).__name__)
    arguments = {}
    for name in inspect.signature(kind).parameters:
        if name == "bias":
            arguments[name] = module.bias is not None
        elif name not in ("inplace", "device", "dtype") and hasattr(module, name):
            arguments[name] = getattr(module, name)
    return kind(**arguments)


def _block(module: Any, parts: dict[str, Any], body: dict[str, Any]) -> Any:
    """A module that holds `parts`, the parameters and plain attributes of one of the zoo's, with the methods `body`."""
    made = type(type(module).__name__, (torch.nn.Module,), body)()
    for name, part in parts.items():
        made.add_module(name, part)
    for name, value in module._parameters.items():
        made.register_parameter(name, torch.nn.Parameter(torch.empty(value.shape)))
    for name, value in module.__dict__.items():
        if not name.startswith("_") and name != "training":
            setattr(made, name, value)
    for name in set(type(module).__dict__) - {"forward"} - set(dir(made)):
        setattr(made, name, getattr(type(module), name))
    for name, child in module._modules.items():
        if child is None:
            setattr(made, name, None)
    return made


def _permute(module: Any, parts: dict[str, Any]) -> Any:
    return _block(module, parts, {"forward": lambda self, x: x.permute(self.axes)})


class LayerNorm2d(torch.nn.LayerNorm):  # type: ignore[misc]
    """Over the channels of (N, C, H, W), each pixel for itself."""

    def forward(self, x: Any) -> Any:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _layer_norm_2d(module: Any, parts: dict[str, Any]) -> Any:
    return LayerNorm2d(module.normalized_shape, module.eps)


def _stochastic_depth(module: Any, parts: dict[str, Any]) -> Any:
    def forward(self: Any, x: Any) -> Any:
        return x * self.keep(x.new_ones((x.shape[0],) + (1,) * (x.ndim - 1))) if self.training else x

    return _block(module, parts, {"forward": forward})


def _cifar_block(module: Any, parts: dict[str, Any]) -> Any:
    def forward(self: Any, x: Any) -> Any:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.stride > 1 or self.new_channels:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        return self.relu(y + x)

    return _block(module, parts, {"forward": forward})


def _unet(module: Any, parts: dict[str, Any]) -> Any:
    def forward(self: Any, x: Any) -> Any:
        maps = []
        for level, pair in enumerate(self.down):
            x = pair(self.pool(x) if level else x)
            maps.append(x)
        x = self.dropout(maps.pop())
        for expand, pair in zip(self.expand, self.up, strict=True):
            x, across = expand(x), maps.pop()
            top, left = ((n - wanted) // 2 for n, wanted in zip(across.shape[2:], x.shape[2:], strict=True))
            x = pair(torch.cat([across[:, :, top : top + x.shape[2], left : left + x.shape[3]], x], 1))
        return self.last(x)

    return _block(module, parts, {"forward": forward})


TWINS = {
    "Permute": _permute,
    "LayerNorm2d": _layer_norm_2d,
    "StochasticDepth": _stochastic_depth,
    "CifarBlock": _cifar_block,
    "UNet": _unet,
}
