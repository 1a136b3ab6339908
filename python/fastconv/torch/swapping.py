# SPDX-License-Identifier: Apache-2.0
"""Torch's layers turned into ours and back, where they stand.

A layer changes its class and keeps its identity, as `torch.nn.utils.parametrize` does it: parameters, buffers, hooks,
the optimiser's references and every other place that holds the same module go on as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils import _pytree as pytree

from . import nn
from .batch_norm import takes

KINDS = ("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
         "MaxPool1d", "MaxPool2d", "MaxPool3d", "AvgPool1d", "AvgPool2d", "AvgPool3d",
         "BatchNorm1d", "BatchNorm2d", "BatchNorm3d")  # fmt: skip


def classes() -> dict[type, Any]:
    """Torch's class -> ours."""
    return {getattr(torch.nn, kind): getattr(nn, kind) for kind in KINDS}


def described(module: Any) -> str:
    """As torch prints the layer, whichever of the two it is: `Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))`."""
    stock = stock_class(module)
    return f"{stock.__name__}({stock.extra_repr(module)})"


def stock_class(module: Any) -> Any:
    """Torch's class of a candidate."""
    return {ours: stock for stock, ours in classes().items()}.get(type(module), type(module))


class Candidate:
    """A layer of a model that can be torch's or ours.

    Args:
        name: the first of its names in the model.
        module: the layer, torch's own or already ours; a subclass of somebody else may compute something else and is
            no candidate.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name, self.module = name, module
        self.stock = stock_class(module)
        self.ours: Any = classes()[self.stock]
        self.text = described(module)
        weight = getattr(module, "weight", None)
        self.dtype = str(weight.dtype).removeprefix("torch.") if weight is not None else None

    def refusal(self, x: Any = None) -> str | None:
        """Why it cannot be ours, on x if one is given or whatever the input; or None."""
        module = self.module
        if getattr(module, "padding_mode", "zeros") != "zeros" and "Transpose" in self.stock.__name__:
            return "transposed convolutions have zeros alone"
        if "BatchNorm" in self.stock.__name__:
            if self.dtype not in (None, "float32", "float64"):
                return f"{self.dtype} is torch's"
            if x is not None and not nn.takes_batch_statistics(module):
                return "by running statistics it is torch's"
            if x is not None and not takes(x, module.running_mean, module.running_var, module.weight, module.bias):
                return "such an input is torch's"
        return None

    def use(self, ours: bool) -> None:
        """Make the layer ours, or torch's again."""
        if not ours and hasattr(self.module, "refresh"):
            self.module.refresh()  # what was packed is not needed
        self.module.__class__ = self.ours if ours else self.stock


def candidates(model: Any) -> list[Candidate]:
    """The layers of a model that can be ours, each once, in the order of `named_modules`."""
    kinds = {kind for pair in classes().items() for kind in pair}
    named = list(model.named_modules())
    return [Candidate(name, m) for name, m in named if type(m) in kinds and "forward" not in m.__dict__]


def twin(module: Any, kind: Any) -> Any:
    """A layer of the class `kind` on the same memory, with parameters of its own, copies of buffers, and without hooks.

    What is computed with it leaves no trace in the user's: no gradient, no running statistics, no hook called.
    """
    made = kind.__new__(kind)
    torch.nn.Module.__init__(made)
    for key, value in module.__dict__.items():
        if key not in made.__dict__:
            made.__dict__[key] = value
    for name in ("weight", "bias"):
        if hasattr(module, name):  # torch.nn.utils.weight_norm keeps the weight as a plain attribute
            made.__dict__.pop(name, None)
            value = getattr(module, name)
            trained = value is not None and value.requires_grad
            made.register_parameter(name, None if value is None else torch.nn.Parameter(value.detach(), trained))
    for name, value in module._buffers.items():
        made.register_buffer(name, None if value is None else value.detach().clone())
    made.training = module.training
    return made


class Undisturbed:
    """What running a model changes beside its answer is put back: buffers and the generators of random numbers."""

    def __init__(self, model: Any) -> None:
        self.buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        devices = {b.device for _, _, b, _ in self.buffers} | {p.device for p in model.parameters()}
        self.fork = torch.random.fork_rng([d for d in devices if d.type == "cuda"])

    def __enter__(self) -> None:
        self.fork.__enter__()

    def __exit__(self, *reason: Any) -> None:
        self.fork.__exit__(*reason)
        with torch.no_grad():
            for module, name, buffer, value in self.buffers:
                module._buffers[name] = buffer
                buffer.copy_(value)


def unwrapped(model: Any) -> Any:
    """The module inside of DataParallel, DistributedDataParallel and torch.compile, in whatever order they lie."""
    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(model, wrappers):
            model = model.module
        elif "_orig_mod" in getattr(model, "_modules", {}):
            model = model._orig_mod
        else:
            return model


def tensors(values: Any) -> Iterator[Any]:
    """The tensors in nested lists, tuples, dicts and what else torch knows to open."""
    return (value for value in pytree.tree_leaves(values) if isinstance(value, torch.Tensor))
