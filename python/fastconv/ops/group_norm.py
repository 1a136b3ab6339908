# SPDX-License-Identifier: Apache-2.0
"""Normalisation of each example by itself: groups of channels, single channels, or whole rows.

    y = gamma (x - mean) / sqrt(variance + eps) + beta, mean and biased variance over a group of channels and all pixels

Wu and He, "Group Normalization", 2018. As many groups as channels is instance normalisation (Ulyanov, Vedaldi and
Lempitsky, 2016), one group of one pixel layer normalisation (Ba, Kiros and Hinton, 2016): one native operation serves
all three.
"""

import math
from typing import Any

from .._core import ProblemError
from ..arrays import kernels, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..geometry import LAYOUTS, as_int
from ..tensor import Tensor, as_tensor
from .norm import batch_norm, norm_parameters
from .shape import reshape, sum


class GroupNorm(Function):
    """Also gives the groups' mean and 1 / sqrt(variance + eps), (N, groups) in float64, which have no gradient."""

    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, gamma: Any, beta: Any, *, groups: int, eps: float, layout: str) -> Any:
        ctx.save(0, 1)
        ctx.groups, ctx.eps, ctx.layout = groups, eps, layout
        if (native := kernels(x, gamma, beta)) is not None:
            y, mean, inverse = native.group_norm_forward(x, gamma, beta, groups, eps, layout)
        else:
            cut, axes, column = _cut(x.shape, groups, layout)
            parts = x.reshape(cut)
            mean, variance = parts.mean(axes, keepdims=True), parts.var(axes, keepdims=True)
            inverse = 1 / namespace(x).sqrt(variance + eps)
            normal = (parts - mean) * inverse
            y = (normal * gamma.reshape(column) + beta.reshape(column)).reshape(x.shape)
            mean, inverse = (a.astype("float64").reshape(len(x), groups) for a in (mean, inverse))
        ctx.statistics = mean, inverse
        return y, mean, inverse

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma = ctx.saved
        if not is_grad_enabled() and (native := kernels(dy.data, x.data, gamma.data)) is not None:
            mean, inverse = ctx.statistics
            gradients = native.group_norm_backward(dy.data, x.data, gamma.data, mean, inverse, ctx.groups, ctx.layout)
            return tuple(Tensor(g) for g in gradients)
        return _backward_in_tensors(x, gamma, dy, ctx.groups, ctx.eps, ctx.layout)


def _cut(shape: tuple[int, ...], groups: int, layout: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """The shape with groups and pixels apart; the axes of a group; the shape of gamma beside it."""
    channels = shape[1] if layout == "channels_first" else shape[-1]
    per, pixels = channels // groups, math.prod(shape[1:]) // channels
    if layout == "channels_first":
        return (shape[0], groups, per, pixels), (2, 3), (1, groups, per, 1)
    return (shape[0], pixels, groups, per), (1, 3), (1, 1, groups, per)


def _backward_in_tensors(x: Tensor, gamma: Tensor, dy: Tensor, groups: int, eps: float, layout: str) -> tuple[Any, ...]:
    """The same gradient from x itself, so that it can be differentiated again."""
    if x.size == 0:
        return dy, gamma * 0.0, gamma * 0.0
    cut, axes, column = _cut(x.shape, groups, layout)
    parts, g = reshape(x, cut), reshape(dy, cut)
    count = math.prod(cut[a] for a in axes)

    def mean(t: Tensor) -> Tensor:
        return sum(t, axes, True) / count

    centred = parts - mean(parts)
    inverse = (mean(centred * centred) + eps) ** -0.5
    normal = centred * inverse
    dnormal = g * reshape(gamma, column)
    dx = inverse * (dnormal - mean(dnormal) - normal * mean(dnormal * normal))
    others = tuple(i for i, n in enumerate(column) if n == 1)
    return reshape(dx, x.shape), reshape(sum(g * normal, others), gamma.shape), reshape(sum(g, others), gamma.shape)


def _channels(x: Tensor, layout: str, caller: str, least: int = 2) -> int:
    if layout not in LAYOUTS:
        raise ProblemError(f"{caller}: layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if x.ndim < least:
        words = "(N, C, *)" if layout == "channels_first" else "(N, *, C)"
        raise ProblemError(f"{caller}: x has shape {x.shape}; expected {words} with at least {least} dimensions")
    return x.shape[1] if layout == "channels_first" else x.shape[-1]


def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5,
               *, layout: str = "channels_first") -> Tensor:  # fmt: skip
    """Normalise x (N, C, *) by the mean and variance of each of `num_groups` groups of channels.

    Args:
        weight, bias: gamma and beta, (C,); None means 1 and 0.
        layout: "channels_first", or "channels_last" for x (N, *, C).

    Raises:
        ProblemError: shapes that do not fit, or groups that do not divide the channels.
        TypeError: weight or bias of another dtype than x.
    """
    x = as_tensor(x)
    channels = _channels(x, layout, "group_norm")
    if as_int(num_groups, "num_groups", "group_norm", 1) and channels % num_groups:
        raise ProblemError(
            f"group_norm: num_groups is {num_groups}, x has {channels} channels; expected a divisor of {channels}"
        )
    gamma, beta = norm_parameters(x, channels, weight, bias, "group_norm")
    y, _, _ = GroupNorm.apply(x, gamma, beta, groups=num_groups, eps=eps, layout=layout)
    return y


def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Tensor:
    """Normalise x (*, *normalized_shape) by the mean and variance over its last axes.

    Args:
        normalized_shape: an int or a tuple: the lengths of the last axes.
        weight, bias: gamma and beta, of that shape; None means 1 and 0.

    Raises:
        ProblemError: shapes that do not fit.
        TypeError: weight or bias of another dtype than x.
    """
    x = as_tensor(x)
    shape = row_shape(normalized_shape, "layer_norm")
    if x.shape[-len(shape) :] != shape:
        raise ProblemError(
            f"layer_norm: x has shape {x.shape}, normalized_shape is {shape}; expected the last axes to be the same"
        )
    size = math.prod(shape)
    parts = []
    for name, value in (("weight", weight), ("bias", bias)):
        tensor = None if value is None else as_tensor(value)
        if tensor is not None and tensor.shape != shape:
            raise ProblemError(f"layer_norm: {name} has shape {tensor.shape}; expected {shape}")
        parts.append(None if tensor is None else reshape(tensor, (size,)))
    gamma, beta = norm_parameters(x, size, parts[0], parts[1], "layer_norm")
    rows = reshape(x, (x.size // size, size))
    y, _, _ = GroupNorm.apply(rows, gamma, beta, groups=1, eps=eps, layout="channels_first")
    return reshape(y, x.shape)


def row_shape(normalized_shape: Any, caller: str) -> tuple[int, ...]:
    """normalized_shape as a tuple of at least one positive int."""
    lengths = normalized_shape if isinstance(normalized_shape, list | tuple) else (normalized_shape,)
    if not lengths:
        raise ProblemError(f"{caller}: normalized_shape is empty; expected at least one length")
    return tuple(as_int(n, "normalized_shape", caller, 1) for n in lengths)


def instance_norm(x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None,
                  use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
                  *, layout: str = "channels_first") -> Tensor:  # fmt: skip
    """Normalise x (N, C, *) by the mean and variance of each channel of each example.

    Args:
        running_mean, running_var: (C,) arrays; with use_input_stats they move towards the batch's averages by
            `momentum` (the variance unbiased), in place; None keeps none.
        weight, bias: gamma and beta, (C,); None means 1 and 0.
        use_input_stats: False normalises by the running statistics instead.
        layout: "channels_first", or "channels_last" for x (N, *, C).

    Raises:
        ProblemError: shapes that do not fit, or a single value per channel.
        TypeError: weight, bias or statistics of another dtype than x.
    """
    x = as_tensor(x)
    channels = _channels(x, layout, "instance_norm", 3)
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps, layout=layout)
    gamma, beta = norm_parameters(x, channels, weight, bias, "instance_norm", running_mean, running_var)
    count = math.prod(x.shape[1:]) // channels if channels else 0
    if count == 1:
        raise ProblemError(f"instance_norm: x has shape {x.shape}; expected more than one value per channel")
    y, mean, inverse = GroupNorm.apply(x, gamma, beta, groups=channels, eps=eps, layout=layout)
    if running_mean is not None and running_var is not None and x.size:
        variance = (inverse.data**-2 - eps).mean(0) * (count / (count - 1))
        running_mean += (momentum * (mean.data.mean(0) - running_mean)).astype(x.dtype)
        running_var += (momentum * (variance - running_var)).astype(x.dtype)
    return y
