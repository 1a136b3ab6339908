# SPDX-License-Identifier: Apache-2.0
"""Dense layers turned into convolutions, so that a classifier of windows runs over a whole image at once.

A dense layer behind Flatten sees all of a (C, *size) map: it is a convolution whose filter has that size. The dense
layers behind it see one number per channel: they are convolutions with filters of 1. What a loop over overlapping
windows computes again and again is then computed once. Sermanet et al., "OverFeat", 2013 (arXiv 1312.6229).
"""

import copy
import math
from typing import Any

import numpy as np

from .. import nn, random
from .._core import ProblemError, UnsupportedError
from ..autograd import no_grad
from ..tensor import Tensor
from .containers import Sequential
from .module import Module

# Layers that look at every place by itself, and those that also know its channel.
_POINTWISE = ("CELU", "Dropout", "ELU", "GELU", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU",
              "LogSigmoid", "Mish", "ReLU", "ReLU6", "SELU", "Sigmoid", "SiLU", "Softplus", "Softsign",
              "Tanh")  # fmt: skip
_BY_CHANNEL = ("PReLU", "BatchNorm{}d")
_WINDOWED = ("Conv{}d", "MaxPool{}d", "MinPool{}d", "AvgPool{}d", "LPPool{}d")
_WHOLE_MAP = {"GlobalAvgPool{}d": "AvgPool{}d", "GlobalMaxPool{}d": "MaxPool{}d", "GlobalMinPool{}d": "MinPool{}d",
              "AdaptiveAvgPool{}d": "AvgPool{}d", "AdaptiveMaxPool{}d": "MaxPool{}d"}  # fmt: skip


def to_convolutional(model: Sequential, input_shape: tuple[int, ...], exact: bool = True) -> Sequential:
    """A model for windows of one size as one for images of any larger size: a copy that gives a map of answers.

    Args:
        model: a Sequential (of Sequentials) of convolutions, pools, batch norms, activations, dropout, and from Flatten
            on of dense layers; it gives (N, K) for x (N, *input_shape).
        input_shape: (C, *size) of one window, with one to three spatial axes.
        exact: refuse layers with padding or ceil_mode, which see something else at the border of a window than
            inside of an image; False takes them, and the answers then differ from those for windows cut out.

    Returns:
        a Sequential with the same names, whose parameters are copies in other shapes; of x (N, C, *larger) it makes
        (N, K, *places). Place i is the answer to the window that begins at i times the product of all strides. Cells at
        the end of a window that no layer of `model` looks at are not needed, so there may be one place more than whole
        windows fit.

    Raises:
        TypeError: not a Sequential.
        UnsupportedError: a layer that cannot be converted, by its name.
        ProblemError: an input_shape that the model does not take, or padding with exact=True.

    Example:
        >>> reader = fc.nn.to_convolutional(fc.models.lenet5(), (1, 32, 32))
        >>> reader(page).shape  # (1, 1, 64, 128) -> one answer every 4 cells
        (1, 10, 9, 25)
    """
    if not _is_sequential(model):
        raise TypeError(f"to_convolutional: model is a {type(model).__name__}; expected a Sequential")
    rank = len(input_shape) - 1
    if rank not in (1, 2, 3):
        raise ProblemError(f"to_convolutional: input_shape is {input_shape}; expected (C, *size) with 1 to 3 sizes")
    dtype = next((p.dtype for p in model.parameters()), np.float32)
    state = random.get_state()
    with no_grad():
        converter = _Converter(rank, exact)
        window = Tensor(np.zeros((1, *input_shape), dtype))
        converted, _ = converter.sequence(model, copy.deepcopy(model).eval(), window, "")
    random.set_state(state)  # the layers that were made drew initial values
    if converter.flat is not None:
        raise UnsupportedError("to_convolutional: no dense layer follows Flatten; expected one")
    return converted


def _is_sequential(module: Any) -> bool:
    return isinstance(module, Sequential) and type(module).forward is Sequential.forward


class _Converter:
    """Goes through the layers together with one window, whose shapes it needs."""

    def __init__(self, rank: int, exact: bool) -> None:
        self.rank, self.exact = rank, exact
        self.flat: tuple[int, ...] | None = None  # the map that Flatten flattened, until a dense layer takes it
        self.dense = False  # behind the first dense layer

    def sequence(self, model: Module, probe: Module, x: Any, prefix: str) -> tuple[Sequential, Any]:
        parts: dict[str, Module] = {}
        for (name, module), twin in zip(model.named_children(), probe.children(), strict=True):
            if _is_sequential(module):
                parts[name], x = self.sequence(module, twin, x, f"{prefix}{name}.")
                continue
            parts[name] = self.layer(f"{prefix}{name}", module, tuple(x.shape[1:]))
            parts[name].training = module.training
            x = twin(x)
        result = Sequential(parts)
        result.training = model.training
        return result, x

    def layer(self, name: str, module: Module, shape: tuple[int, ...]) -> Module:
        """The layer that does to a map what `module` does to (N, *shape)."""
        if self.is_one_of(module, _POINTWISE):
            return copy.deepcopy(module)
        if self.is_one_of(module, ("Softmax", "LogSoftmax")) and module.dim in ((1, -1) if self.dense else (1,)):
            module = copy.deepcopy(module)
            module.dim = 1
            return module
        if self.dense:
            if isinstance(module, nn.Linear):
                return self.convolution(module, (module.in_features, *(1,) * self.rank))
            if isinstance(module, nn.BatchNorm1d):
                return self.batch_norm(module)
            if self.is_one_of(module, ("PReLU",)):
                return copy.deepcopy(module)
            if isinstance(module, nn.Flatten):
                return nn.Identity()
        elif self.flat is not None:
            if isinstance(module, nn.Linear):
                flat, self.flat, self.dense = self.flat, None, True
                return self.convolution(module, flat)
        elif isinstance(module, nn.Flatten) and len(shape) == self.rank + 1 and module.start_dim == 1:
            if module.end_dim in (-1, self.rank + 1):
                self.flat = shape
                return nn.Identity()
        elif self.is_one_of(module, _BY_CHANNEL) or _is_across_channels(module):
            return copy.deepcopy(module)
        elif self.is_one_of(module, _WINDOWED) and getattr(module, "layout", "channels_first") == "channels_first":
            self.check_borders(name, module)
            return copy.deepcopy(module)
        elif self.is_one_of(module, tuple(_WHOLE_MAP)) and self.gives_one_cell(module):
            pool = _WHOLE_MAP[type(module).__name__.replace(f"{self.rank}d", "{}d")]
            return self.named(pool)(shape[1:], stride=1)
        place = "a dense layer" if self.dense else "Flatten" if self.flat is not None else "the input"
        raise UnsupportedError(
            f"to_convolutional: cannot convert {name} = {module!r} behind {place} for {self.rank} spatial axes; "
            "expected convolutions and pools, Flatten, dense layers, with batch norm, activations and dropout between"
        )

    def convolution(self, dense: Any, seen: tuple[int, ...]) -> Module:
        """The convolution that is a dense layer over a map of shape `seen`."""
        if dense.in_features != math.prod(seen):
            raise ProblemError(
                f"to_convolutional: a dense layer takes {dense.in_features} features, the map before has shape {seen}"
            )
        weight, bias = dense.weight, dense.bias
        made = self.named("Conv{}d")(seen[0], dense.out_features, seen[1:], bias=bias is not None, dtype=weight.dtype)
        made.weight.data[...] = weight.data.reshape(made.weight.shape)
        made.weight.requires_grad = weight.requires_grad
        if bias is not None:
            made.bias.data[...] = bias.data
            made.bias.requires_grad = bias.requires_grad
        return made

    def batch_norm(self, norm: Any) -> Module:
        """The same numbers per channel, for a map."""
        dtype = norm.weight.dtype if norm.affine else norm.running_mean.dtype if norm.track_running_stats else None
        made = self.named("BatchNorm{}d")(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, dtype or np.float32
        )
        made.load_state_dict(norm.state_dict())
        for own, theirs in zip(made.parameters(), norm.parameters(), strict=True):
            own.requires_grad = theirs.requires_grad
        return made

    def check_borders(self, name: str, module: Any) -> None:
        if getattr(module, "return_indices", False):
            raise UnsupportedError(f"to_convolutional: {name} returns indices; expected return_indices=False")
        for word in ("padding", "ceil_mode"):
            if self.exact and _is_set(getattr(module, word, 0)):
                raise ProblemError(
                    f"to_convolutional: {name} has {word}={getattr(module, word)}: a window cut out of an image ends "
                    "there, inside of the image it goes on; pass exact=False to accept other answers"
                )

    def gives_one_cell(self, module: Any) -> bool:
        size = getattr(module, "output_size", 1)
        ones = all(n == 1 for n in size) if isinstance(size, list | tuple) else size == 1
        return ones and not getattr(module, "return_indices", False)

    def named(self, name: str) -> Any:
        return getattr(nn, name.format(self.rank))

    def is_one_of(self, module: Module, names: tuple[str, ...]) -> bool:
        return isinstance(module, tuple(self.named(n) for n in names if hasattr(nn, n.format(self.rank))))


def _is_across_channels(module: Module) -> bool:
    """Whether it is response normalisation of every place by itself."""
    return isinstance(module, nn.LocalResponseNorm) and module.region == "across_channels"


def _is_set(value: Any) -> bool:
    """Whether a padding or ceil_mode does anything."""
    if isinstance(value, list | tuple):
        return any(_is_set(v) for v in value)
    return value != "valid" and bool(value)
