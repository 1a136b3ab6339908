# SPDX-License-Identifier: Apache-2.0
"""Pooling for torch, arranged like conv.py.

Max pooling is linear once the winners are known: its gradient adds to their places, and the gradient of that reads from
them. A winner is the number of its tap in one byte where the window has at most 256, else an int64 position; positions
are what torch calls indices.
Averages and their gradient are each other's gradient.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .pool_kernels import (
    AvgStatic,
    MaxStatic,
    avg_backward,
    avg_forward,
    gather,
    indices_of,
    max_forward,
    scatter,
)
from .tensors import empty_image, expect_no_tangent, frozen, is_channels_last, is_direct, needs_graph, numbers

_TAPS = 256  # as many fit into a byte


# ---- Past the dispatcher -------------------------------------------------------------------------------------------


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, s: MaxStatic, return_indices: bool) -> Any:
        y, winners, indices = max_forward(x, s, True, return_indices)
        ctx.save_for_backward(winners)
        ctx.size, ctx.static = x.shape[2:], s
        if indices is None:
            return y
        ctx.mark_non_differentiable(indices)
        return y, indices

    @staticmethod
    def backward(ctx: Any, dy: Any, *_: Any) -> Any:
        (winners,) = ctx.saved_tensors
        return max_pool_backward(dy, winners, ctx.size, ctx.static), None, None


class _MaxPoolBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dy: Any, winners: Any, size: Any, s: MaxStatic) -> Any:
        ctx.save_for_backward(winners)
        ctx.static = s
        return scatter(dy, winners, size, s)

    @staticmethod
    def backward(ctx: Any, gdx: Any) -> Any:
        (winners,) = ctx.saved_tensors
        return max_pool_gather(gdx, winners, ctx.static), None, None, None


class _MaxPoolGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, winners: Any, s: MaxStatic) -> Any:
        ctx.save_for_backward(winners)
        ctx.size, ctx.static = x.shape[2:], s
        return gather(x, winners, s)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        (winners,) = ctx.saved_tensors
        return max_pool_backward(dy, winners, ctx.size, ctx.static), None, None


class _AvgPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, s: AvgStatic) -> Any:
        ctx.size, ctx.last, ctx.static = x.shape[2:], is_channels_last(x), s
        return avg_forward(x, s)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return avg_pool_backward(dy, ctx.size, ctx.last, ctx.static), None


class _AvgPoolBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dy: Any, size: Any, last: bool, s: AvgStatic) -> Any:
        ctx.static = s
        return avg_backward(dy, size, last, s)

    @staticmethod
    def backward(ctx: Any, gdx: Any) -> Any:
        return avg_pool(gdx, ctx.static), None, None, None


# ---- torch.ops.fastconv --------------------------------------------------------------------------------------------


def _max_static(*words: Any) -> MaxStatic:
    return MaxStatic(*frozen(words))


def _avg_static(*words: Any) -> AvgStatic:
    return AvgStatic(*frozen(words))


@torch.library.custom_op("fastconv::max_pool", mutates_args=())
def max_pool_op(
    x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int],
    ceil_mode: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(y, winners) of x (N, C, *spatial)."""
    y, winners, _ = max_forward(x, _max_static(window, stride, padding, dilation, ceil_mode), True, False)
    return y, winners


@torch.library.custom_op("fastconv::max_pool_indices", mutates_args=())
def max_pool_indices_op(
    winners: Tensor, size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], ceil_mode: bool,
) -> Tensor:  # fmt: skip
    """The int64 positions of winners in a plane of x of the size."""
    return indices_of(winners, tuple(size), _max_static(window, stride, padding, dilation, ceil_mode))


@torch.library.custom_op("fastconv::max_pool_backward", mutates_args=())
def max_pool_backward_op(
    dy: Tensor, winners: Tensor, size: Sequence[int], window: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], ceil_mode: bool,
) -> Tensor:  # fmt: skip
    """dx (N, C, *size): each dy is added where its winner lies."""
    return scatter(dy, winners, tuple(size), _max_static(window, stride, padding, dilation, ceil_mode))


@torch.library.custom_op("fastconv::max_pool_gather", mutates_args=())
def max_pool_gather_op(
    x: Tensor, winners: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], ceil_mode: bool,
) -> Tensor:  # fmt: skip
    """The values of x (N, C, *spatial) where the winners lie."""
    return gather(x, winners, _max_static(window, stride, padding, dilation, ceil_mode))


@torch.library.custom_op("fastconv::avg_pool", mutates_args=())
def avg_pool_op(
    x: Tensor, window: Sequence[int], stride: Sequence[int], padding: Sequence[int], ceil_mode: bool,
    count_include_pad: bool, divisor: int,
) -> Tensor:  # fmt: skip
    """The means of x (N, C, *spatial); divisor 0: over the taps of each window."""
    return avg_forward(x, _avg_static(window, stride, padding, ceil_mode, count_include_pad, divisor))


@torch.library.custom_op("fastconv::avg_pool_backward", mutates_args=())
def avg_pool_backward_op(
    dy: Tensor, size: Sequence[int], channels_last: bool, window: Sequence[int], stride: Sequence[int],
    padding: Sequence[int], ceil_mode: bool, count_include_pad: bool, divisor: int,
) -> Tensor:  # fmt: skip
    """dx (N, C, *size) of `avg_pool`, in memory as channels_last says."""
    static = _avg_static(window, stride, padding, ceil_mode, count_include_pad, divisor)
    return avg_backward(dy, tuple(size), channels_last, static)


def _pooled(x: Any, window: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    """An empty y, for the fakes."""
    size = []
    for n, f, s, p, d in zip(x.shape[2:], window, stride, padding, dilation, strict=True):
        windows = (n + 2 * p - (f - 1) * d - 1 + (s - 1 if ceil_mode else 0)) // s + 1
        size.append(windows - 1 if ceil_mode and (windows - 1) * s >= n + p else windows)
    return empty_image(x, (*x.shape[:2], *size), is_channels_last(x))


@max_pool_op.register_fake
def _(x, *static):  # type: ignore[no-untyped-def]
    y = _pooled(x, *static)
    return y, torch.empty_like(y, dtype=torch.uint8 if math.prod(static[0]) <= _TAPS else torch.int64)


max_pool_indices_op.register_fake(lambda winners, *static: torch.empty_like(winners, dtype=torch.int64))
max_pool_backward_op.register_fake(
    lambda dy, winners, size, *static: empty_image(dy, (*dy.shape[:2], *size), is_channels_last(winners))
)
max_pool_gather_op.register_fake(lambda x, winners, *static: empty_image(x, winners.shape, is_channels_last(winners)))


@avg_pool_op.register_fake
def _(x, window, stride, padding, ceil_mode, count_include_pad, divisor):  # type: ignore[no-untyped-def]
    return _pooled(x, window, stride, padding, (1,) * len(window), ceil_mode)


avg_pool_backward_op.register_fake(
    lambda dy, size, channels_last, *static: empty_image(dy, (*dy.shape[:2], *size), channels_last)
)


def _save_max(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(output[1])
    ctx.size, ctx.static = inputs[0].shape[2:], _max_static(*inputs[1:])


def _save_scatter(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.static = _max_static(*inputs[3:])


def _save_gather(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(inputs[1])
    ctx.size, ctx.static = inputs[0].shape[2:], _max_static(*inputs[2:])


def _save_avg(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.size, ctx.last, ctx.static = inputs[0].shape[2:], is_channels_last(inputs[0]), _avg_static(*inputs[1:])


def _save_avg_backward(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.static = _avg_static(*inputs[3:])


def _gradients(function: Any, inputs: int) -> Any:
    """The backward of a Function as that of an op, which has so many inputs."""

    def backward(ctx: Any, *dy: Any) -> Any:
        found = function.backward(ctx, *dy)[0]
        return found, *(None,) * (inputs - 1)

    return backward


for _op, _save, _function, _inputs in (
    (max_pool_op, _save_max, _MaxPool, 6),
    (max_pool_backward_op, _save_scatter, _MaxPoolBackward, 8),
    (max_pool_gather_op, _save_gather, _MaxPoolGather, 7),
    (avg_pool_op, _save_avg, _AvgPool, 7),
    (avg_pool_backward_op, _save_avg_backward, _AvgPoolBackward, 9),
):
    _op.register_autograd(_gradients(_function, _inputs), setup_context=_save)


# ---- The choice ----------------------------------------------------------------------------------------------------


# As in conv.py: `apply` without what it does for functorch.
_apply_max = super(torch.autograd.Function, _MaxPool).apply
_apply_max_backward = super(torch.autograd.Function, _MaxPoolBackward).apply
_apply_gather = super(torch.autograd.Function, _MaxPoolGather).apply
_apply_avg = super(torch.autograd.Function, _AvgPool).apply
_apply_avg_backward = super(torch.autograd.Function, _AvgPoolBackward).apply


def max_pool(x: Any, s: MaxStatic, return_indices: bool = False) -> tuple[Any, Any]:
    """(y, indices or None) of x (N, C, *spatial)."""
    if not is_direct(x):
        expect_no_tangent(x)
        y, winners = torch.ops.fastconv.max_pool(x, *s)
        return y, torch.ops.fastconv.max_pool_indices(winners, numbers(x.shape[2:]), *s) if return_indices else None
    return max_pool_direct(x, s, return_indices)


def max_pool_direct(x: Any, s: MaxStatic, return_indices: bool) -> tuple[Any, Any]:
    """`max_pool` of a tensor that is known to be direct."""
    if needs_graph(x):
        found = _apply_max(x, s, return_indices)
        return found if return_indices else (found, None)
    y, _, indices = max_forward(x, s, False, return_indices)
    return y, indices


def max_pool_backward(dy: Any, winners: Any, size: Any, s: MaxStatic) -> Any:
    """dx (N, C, *size)."""
    if not is_direct(dy, winners):
        expect_no_tangent(dy)
        return torch.ops.fastconv.max_pool_backward(dy, winners, size, *s)
    return _apply_max_backward(dy, winners, size, s) if needs_graph(dy) else scatter(dy, winners, size, s)


def max_pool_gather(x: Any, winners: Any, s: MaxStatic) -> Any:
    """x (N, C, *spatial) where the winners lie."""
    if not is_direct(x, winners):
        expect_no_tangent(x)
        return torch.ops.fastconv.max_pool_gather(x, winners, *s)
    return _apply_gather(x, winners, s) if needs_graph(x) else gather(x, winners, s)


def avg_pool(x: Any, s: AvgStatic) -> Any:
    """The means of x (N, C, *spatial)."""
    if not is_direct(x):
        expect_no_tangent(x)
        return torch.ops.fastconv.avg_pool(x, *s)
    return avg_pool_direct(x, s)


def avg_pool_direct(x: Any, s: AvgStatic) -> Any:
    """`avg_pool` of a tensor that is known to be direct."""
    return _apply_avg(x, s) if needs_graph(x) else avg_forward(x, s)


def avg_pool_backward(dy: Any, size: Any, last: bool, s: AvgStatic) -> Any:
    """dx (N, C, *size) of `avg_pool`."""
    if not is_direct(dy):
        expect_no_tangent(dy)
        return torch.ops.fastconv.avg_pool_backward(dy, size, last, *s)
    return _apply_avg_backward(dy, size, last, s) if needs_graph(dy) else avg_backward(dy, size, last, s)
