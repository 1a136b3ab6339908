# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation for torch by the statistics of the batch, arranged like conv.py.

Per channel, over its M values: h = (x - mean) r with r = 1 / sqrt(variance + eps), y = h weight + bias. With
P(v) = v - mean(v) - h mean(v h), a symmetric map,

    dx = weight r P(dy)        dweight = sum(dy h)        dbias = sum(dy)

whose own gradients are written with torch's operators: from there on derivatives are torch's, of any order.
S. Ioffe and C. Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
Shift", 2015, algorithm 1.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _core
from .tensors import (
    as_array,
    as_tensor,
    is_direct,
    is_transformed,
    needs_graph,
    options,
)

_float32, _float64, _strided = torch.float32, torch.float64, torch.strided


# ---- Native calls --------------------------------------------------------------------------------------------------


def _per_channel(t: Any, default: float, x: Any) -> Any:
    return np.full(x.shape[1], default, x.dtype) if t is None else as_array(t)


def _forward(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    a = as_array(x.contiguous())
    found = _core.batch_norm_forward(a, _per_channel(weight, 1, a), _per_channel(bias, 0, a), eps, options().threads)
    y, mean, variance = map(as_tensor, found)
    return y, mean, variance


def _backward(dy: Any, x: Any, weight: Any, mean: Any, variance: Any, eps: float) -> tuple[Any, Any, Any]:
    a = as_array(x.contiguous())
    found = _core.batch_norm_backward(as_array(dy.contiguous()), a, _per_channel(weight, 1, a), as_array(mean),
                                      as_array(variance), eps, options().threads)  # fmt: skip
    dx, dweight, dbias = map(as_tensor, found)
    return dx, dweight, dbias


# ---- Gradients, of the ops and of the Functions --------------------------------------------------------------------


def _save(ctx: Any, x: Any, weight: Any, mean: Any, variance: Any, eps: float) -> None:
    ctx.save_for_backward(x, weight, mean, variance)
    ctx.mark_non_differentiable(mean, variance)
    ctx.set_materialize_grads(False)
    ctx.eps = eps


def _gradients(ctx: Any, dy: Any, *_: Any) -> tuple[Any, Any, Any, None]:
    if dy is None:
        return None, None, None, None
    x, weight, mean, variance = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    dx, dweight, dbias = batch_norm_backward(dy, x, weight, mean, variance, ctx.eps)
    return dx if needs_x else None, dweight if needs_weight else None, dbias if needs_bias else None, None


def _second_gradients(ctx: Any, u: Any, a: Any, b: Any) -> tuple[Any, Any, Any, None, None, None]:
    """For dy, x and weight, of <u, dx> + <a, dweight> + <b, dbias>."""
    dy, x, weight = ctx.saved_tensors
    axes = (0, *range(2, x.ndim))

    def column(t: Any) -> Any:
        return t.reshape(-1, *(1,) * (x.ndim - 2))

    def mean(t: Any) -> Any:
        return t.mean(axes, keepdim=True)

    def project(t: Any) -> Any:
        return t - mean(t) - h * mean(t * h)

    centred = x - mean(x)
    r = (mean(centred.square()) + ctx.eps).rsqrt()
    h = centred * r
    scale = r if weight is None else r * column(weight)
    a, b = column(a), column(b)
    along = mean(u * project(dy))  # of <u, dx> what each value has, without the scale
    through_h = a * dy - scale * (dy * mean(u * h) + u * mean(dy * h))
    dx = r * project(through_h) - scale * r * along * h  # and through r itself, whose gradient for x is -r^2 h / M
    dweight = None if weight is None else (r * along).reshape(-1) * (x.numel() // x.shape[1])
    return scale * project(u) + a * h + b, dx, dweight, None, None, None


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, weight: Any, bias: Any, eps: float) -> Any:
        y, mean, variance = _forward(x, weight, bias, eps)
        _save(ctx, x, weight, mean, variance, eps)
        return y, mean, variance

    backward = staticmethod(_gradients)


class _BatchNormBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dy: Any, x: Any, weight: Any, mean: Any, variance: Any, eps: float) -> Any:
        ctx.save_for_backward(dy, x, weight)
        ctx.eps = eps
        return _backward(dy, x, weight, mean, variance, eps)

    backward = staticmethod(_second_gradients)


# ---- torch.ops.fastconv --------------------------------------------------------------------------------------------


@torch.library.custom_op("fastconv::batch_norm", mutates_args=(), device_types="cpu")
def batch_norm_op(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(y, mean, variance) of x (N, C, *), float32 or float64; the variance is the biased one. y and the gradients are
    contiguous, statistics are constants to autograd."""
    return _forward(x, weight, bias, eps)


@torch.library.custom_op("fastconv::batch_norm_backward", mutates_args=(), device_types="cpu")
def batch_norm_backward_op(
    dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx, dweight, dbias); mean and variance are those of x."""
    return _backward(dy, x, weight, mean, variance, eps)


def _empty(x: Any) -> tuple[Any, Any, Any]:
    """An image like x and two numbers per channel."""
    return x.new_empty(x.shape), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


batch_norm_op.register_fake(lambda x, *rest: _empty(x))
batch_norm_backward_op.register_fake(lambda dy, x, *rest: _empty(x))


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    x, weight, _, eps = inputs
    _save(ctx, x, weight, output[1], output[2], eps)


def _setup_backward(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.eps = inputs[5]


batch_norm_op.register_autograd(_gradients, setup_context=_setup)
batch_norm_backward_op.register_autograd(_second_gradients, setup_context=_setup_backward)


# ---- The choice ----------------------------------------------------------------------------------------------------

_apply_forward = super(torch.autograd.Function, _BatchNorm).apply
_apply_backward = super(torch.autograd.Function, _BatchNormBackward).apply


def takes(x: Any, *others: Any) -> bool:
    """Whether our kernels compute on x (N, C, *) and what it has per channel (None aside) where they lie: contiguous
    (torch's are as fast in channels_last), on the CPU, of float32 or float64 alike, more than one value per channel,
    and nobody transforms the call."""
    if not isinstance(x, Tensor) or not x.is_cpu or x.layout is not _strided or x.ndim < 2:
        return False
    dtype, shape = x.dtype, x.shape
    if (dtype is not _float32 and dtype is not _float64) or x.is_nested or not x.is_contiguous():
        return False
    channels = shape[1]
    if channels == 0 or shape[0] * math.prod(shape[2:]) < 2:
        return False
    for t in others:
        if t is not None and not (t.dtype is dtype and t.is_cpu and t.ndim == 1 and t.shape[0] == channels):
            return False
    if torch.compiler.is_compiling():
        return True
    if is_transformed():
        return False
    is_wrapper = hasattr(type(x), "__tensor_flatten__")  # DTensor and its like have rules for torch's operators alone
    return not is_wrapper and not torch.overrides.has_torch_function((x, *others))


def batch_norm(x: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any]:
    """(y, mean, biased variance) of x (N, C, *), which `takes` accepts."""
    if not is_direct(x, weight, bias):
        return torch.ops.fastconv.batch_norm(x, weight, bias, eps)
    return (_apply_forward if needs_graph(x, weight, bias) else _forward)(x, weight, bias, eps)


def batch_norm_backward(dy: Any, x: Any, weight: Any, mean: Any, variance: Any, eps: float) -> tuple[Any, Any, Any]:
    """(dx, dweight, dbias) of `batch_norm`."""
    if not is_direct(dy, x, weight):
        return torch.ops.fastconv.batch_norm_backward(dy, x, weight, mean, variance, eps)
    call = _apply_backward if needs_graph(dy, x, weight) else _backward
    return call(dy, x, weight, mean, variance, eps)


def follow(running_mean: Any, running_var: Any, mean: Any, variance: Any, values: int, momentum: float) -> None:
    """Running statistics (None aside) move towards those of a batch of so many values per channel, in place."""
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
    if running_var is not None:  # keeps the unbiased variance
        running_var.lerp_(variance * (values / (values - 1)), momentum)
