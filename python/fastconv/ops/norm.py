# SPDX-License-Identifier: Apache-2.0
"""Batch normalisation over (N, C, *): y = gamma (x - mean) / sqrt(variance + eps) + beta, per channel.

Training takes mean and (biased) variance from the batch, inference takes given ones.
Ioffe and Szegedy, "Batch Normalization", 2015, algorithm 1.
"""

from typing import Any

from .._core import ProblemError
from ..arrays import kernels, namespace
from ..autograd import Context, Function, is_grad_enabled
from ..geometry import LAYOUTS
from ..tensor import Tensor, as_tensor
from .conv import channel_sum
from .shape import reshape, sum


class BatchNorm(Function):
    """Training mode; also gives the batch's mean and variance, which have no gradient of their own."""

    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, gamma: Any, beta: Any, *, eps: float) -> tuple[Any, Any, Any]:
        ctx.save(0, 1)
        ctx.eps = eps
        if (native := kernels(x, gamma, beta)) is not None:
            y, mean, variance = native.batch_norm_forward(x, gamma, beta, eps)
        else:
            axes = _all_but_channels(x)
            mean, variance = x.mean(axes), x.var(axes)
            y = _affine(x, mean, variance, gamma, beta, eps)
        ctx.statistics = mean, variance
        return y, mean, variance

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma = ctx.saved
        if not is_grad_enabled() and (native := kernels(dy.data, x.data, gamma.data)) is not None:
            mean, variance = ctx.statistics
            gradients = native.batch_norm_backward(dy.data, x.data, gamma.data, mean, variance, ctx.eps)
            return tuple(Tensor(g) for g in gradients)
        return _backward_in_tensors(x, gamma, dy, ctx.eps)


class BatchNormInference(Function):
    """With given mean and variance, which are constants."""

    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, *, eps: float) -> Any:
        ctx.save(0, 1, 3, 4)
        ctx.eps, ctx.on_halves = eps, False
        if (native := kernels(x, gamma, beta, mean, variance)) is not None:
            return native.batch_norm_inference(x, gamma, beta, mean, variance, eps)
        return _affine(x, mean, variance, gamma, beta, eps)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gamma, mean, variance = ctx.saved
        needs_x, needs_gamma, needs_beta = ctx.needs_input_grad[:3]
        inverse = (variance + ctx.eps) ** -0.5
        dx = dy * _column(gamma * inverse, x) if needs_x else None
        dgamma = None
        if needs_gamma:
            dgamma = channel_sum(dy * (x - _column(mean, x)) * _column(inverse, x), "channels_first")
        return dx, dgamma, channel_sum(dy, "channels_first") if needs_beta else None, None, None


def _backward_in_tensors(x: Tensor, gamma: Tensor, dy: Tensor, eps: float) -> tuple[Tensor, ...]:
    """The same gradient from x itself, so that it can be differentiated again."""
    axes = _all_but_channels(x)
    count = x.size // x.shape[1]
    centred = x - sum(x, axes, True) / count
    inverse = (sum(centred * centred, axes, True) / count + eps) ** -0.5
    normal = centred * inverse
    dnormal = dy * _column(gamma, x)
    dx = inverse * (dnormal - sum(dnormal, axes, True) / count - normal * (sum(dnormal * normal, axes, True) / count))
    return dx, sum(dy * normal, axes), sum(dy, axes)


def _all_but_channels(x: Any) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _column(per_channel: Any, x: Any) -> Any:
    """(C,) shaped to broadcast against x (N, C, *)."""
    return per_channel.reshape((-1, *(1,) * (x.ndim - 2)))


def _affine(x: Any, mean: Any, variance: Any, gamma: Any, beta: Any, eps: float) -> Any:
    scale = gamma / namespace(x).sqrt(variance + eps)
    return (x - _column(mean, x)) * _column(scale, x) + _column(beta, x)


def norm_parameters(x: Tensor, channels: int, weight: Any, bias: Any, caller: str, running_mean: Any = None,
                    running_var: Any = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """gamma and beta as tensors, 1 and 0 where there are none; everything checked against x."""
    xp = namespace(x.data)
    gamma = Tensor(xp.ones(channels, x.dtype)) if weight is None else as_tensor(weight)
    beta = Tensor(xp.zeros(channels, x.dtype)) if bias is None else as_tensor(bias)
    for name, value in (
        ("weight", gamma),
        ("bias", beta),
        ("running_mean", running_mean),
        ("running_var", running_var),
    ):
        if value is not None and value.shape != (channels,):
            raise ProblemError(
                f"{caller}: {name} has shape {value.shape}, x {channels} channels; expected ({channels},)"
            )
        if value is not None and value.dtype != x.dtype:
            raise TypeError(f"{caller}: {name} has dtype {value.dtype}, x {x.dtype}; expected the same: use .astype")
    return gamma, beta


def batch_norm(x: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
               training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
               *, layout: str = "channels_first") -> Tensor:  # fmt: skip
    """Batch normalisation of x (N, C, *).

    Args:
        running_mean, running_var: (C,) arrays; in training they move towards the batch's by `momentum` (the variance
            unbiased), in place; None with training=True keeps none.
        weight, bias: gamma and beta, (C,); None means 1 and 0.
        training: normalise by the batch's statistics instead of the running ones.
        layout: "channels_first", or "channels_last" for x (N, *, C).

    Raises:
        ProblemError: shapes that do not fit, or a single value per channel in training.
        TypeError: weight, bias or statistics of another dtype than x.
    """
    x = as_tensor(x)
    if layout not in LAYOUTS:
        raise ProblemError(f"batch_norm: layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    if x.ndim < 2:
        raise ProblemError(f"batch_norm: x has shape {x.shape}; expected (N, C, *)")
    shape, channels = x.shape, x.shape[1] if layout == "channels_first" else x.shape[-1]
    if layout == "channels_last":  # every pixel is an example
        x = reshape(x, (x.size // channels if channels else 0, channels))
    gamma, beta = norm_parameters(x, channels, weight, bias, "batch_norm", running_mean, running_var)
    if not training:
        if running_mean is None or running_var is None:
            raise ProblemError(
                "batch_norm: running_mean and running_var are None; expected arrays unless training=True"
            )
        y = BatchNormInference.apply(x, gamma, beta, Tensor(running_mean), Tensor(running_var), eps=eps)
        return reshape(y, shape)
    count = x.size // channels if channels else 0
    if count == 1:
        raise ProblemError(f"batch_norm: x has shape {shape}; expected more than one value per channel in training")
    if count == 0:  # there are no statistics: y is empty, gradients are zeros
        zeros = Tensor(namespace(x.data).zeros(channels, x.dtype))
        return reshape(BatchNormInference.apply(x, gamma, beta, zeros, zeros, eps=1.0), shape)
    y, mean, variance = BatchNorm.apply(x, gamma, beta, eps=eps)
    if running_mean is not None and running_var is not None:
        running_mean += momentum * (mean.data - running_mean)
        running_var += momentum * (variance.data * (count / (count - 1)) - running_var)
    return reshape(y, shape)
