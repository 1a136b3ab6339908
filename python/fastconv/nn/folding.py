# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation folded into the weights of the layer before it, for inference.

At test time gamma (w x + b - mean) / sqrt(variance + eps) + beta is another product: w' = w s and
b' = (b - mean) s + beta with s = gamma / sqrt(variance + eps) per output channel.
"""

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._core import ProblemError
from ..tensor import plain
from .containers import Sequential
from .conv import Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .layers import Linear
from .module import Module, Parameter
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .simple import Identity

_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
_FOLDABLE = (Conv1d, Conv2d, Conv3d, *_TRANSPOSED, Linear)
_NORMS = (BatchNorm1d, BatchNorm2d, BatchNorm3d)


def fold_weights(weight: Any, bias: Any, running_mean: Any, running_var: Any, gamma: Any = None, beta: Any = None,
                 eps: float = 1e-5, *, transposed: bool = False, groups: int = 1) -> tuple[Any, Any]:  # fmt: skip
    """(weight, bias) that give what the layer and batch normalisation behind it give together.

    Args:
        weight: (K, ...) of a convolution or dense layer, or with transposed=True (C, K / groups, ...).
        bias: (K,) or None.
        running_mean, running_var, gamma, beta: (K,) of the normalisation; gamma and beta None mean 1 and 0.
        groups: of a transposed convolution.

    Returns:
        New arrays of the weight's dtype, computed in float64.

    Raises:
        ProblemError: statistics for another number of channels.
    """
    w = np.asarray(plain(weight), np.float64)
    mean, variance = (np.asarray(plain(a), np.float64) for a in (running_mean, running_var))
    channels = w.shape[1] * groups if transposed else w.shape[0]
    if mean.shape != (channels,) or variance.shape != (channels,):
        raise ProblemError(
            f"fold_weights: the weight gives {channels} channels, running_mean has shape {mean.shape} and running_var "
            f"{variance.shape}; expected ({channels},)"
        )
    scale = (1.0 if gamma is None else np.asarray(plain(gamma), np.float64)) / np.sqrt(variance + eps)
    shift = 0.0 if bias is None else np.asarray(plain(bias), np.float64)
    shift = (shift - mean) * scale + (0.0 if beta is None else np.asarray(plain(beta), np.float64))
    dtype = plain(weight).dtype
    if transposed:
        parts = w.reshape(groups, -1, *w.shape[1:]) * scale.reshape(groups, 1, -1, *(1,) * (w.ndim - 2))
        return parts.reshape(w.shape).astype(dtype), shift.astype(dtype)
    return (w * scale.reshape(-1, *(1,) * (w.ndim - 1))).astype(dtype), shift.astype(dtype)


def fold_batchnorm(model: Module, pairs: Iterable[tuple[str, str]] | None = None) -> Module:
    """A copy of the model for inference, in evaluation mode, with batch normalisations folded away.

    Every batch normalisation with running statistics that stands directly behind a convolution or transposed
    convolution is folded into it, and an Identity takes its place, so that other names stay.

    Args:
        pairs: the paths (layer, normalisation) to fold, for models whose `forward` tells the order, and for dense
            layers of x (N, features): behind one of more axes a BatchNorm1d normalises the second axis, not features.
            None takes convolutions and their neighbours in every Sequential.

    Raises:
        ProblemError: a pair that cannot be folded; with pairs=None these are left as they are.
        AttributeError: a path that is not there.
    """
    folded = copy.deepcopy(model).eval()
    uses: dict[int, int] = {}
    stack = [folded]
    while stack:
        for child in stack.pop()._modules.values():
            uses[id(child)] = uses.get(id(child), 0) + 1
            if uses[id(child)] == 1:
                stack.append(child)
    if pairs is None:
        for name, module in list(folded.named_modules()):
            if isinstance(module, Sequential):
                names = [f"{name}.{n}" if name else n for n in module._modules]
                for layer, norm in itertools.pairwise(names):
                    one, other = folded.get_submodule(layer), folded.get_submodule(norm)
                    if not isinstance(one, Linear) and _refusal(one, other, uses) is None:
                        _fold(folded, layer, norm)
        return folded
    for layer, norm in pairs:
        why = _refusal(folded.get_submodule(layer), folded.get_submodule(norm), uses)
        if why:
            raise ProblemError(f"fold_batchnorm: {norm} cannot be folded into {layer}: {why}")
        _fold(folded, layer, norm)
    return folded


def _refusal(layer: Module, norm: Module, uses: dict[int, int]) -> str | None:
    if not isinstance(layer, _FOLDABLE):
        return f"the first is a {type(layer).__name__}; expected a convolution or Linear"
    if not isinstance(norm, _NORMS) or norm.running_mean is None:
        return f"the second is a {type(norm).__name__}; expected a batch normalisation with running statistics"
    channels = layer.out_features if isinstance(layer, Linear) else layer.out_channels
    if channels != norm.num_features:
        return f"the first gives {channels} channels, the second takes {norm.num_features}"
    if uses.get(id(layer), 0) > 1 or uses.get(id(norm), 0) > 1:
        return "one of them is used in several places"
    if layer._hooks or norm._hooks:
        return "one of them has hooks, which would see other values"
    return None


def _fold(model: Module, layer_path: str, norm_path: str) -> None:
    layer, norm = model.get_submodule(layer_path), model.get_submodule(norm_path)
    weight, bias = fold_weights(
        layer.weight, layer.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps,
        transposed=isinstance(layer, _TRANSPOSED), groups=getattr(layer, "groups", 1),
    )  # fmt: skip
    layer.weight.data = weight
    layer.weight.bump_version()
    layer.register_parameter("bias", Parameter(bias, layer.weight.requires_grad))
    path, _, name = norm_path.rpartition(".")
    model.get_submodule(path)._modules[name] = Identity().eval()
