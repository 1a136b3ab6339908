# SPDX-License-Identifier: Apache-2.0
"""Convolution for torch: three operators whose gradients are each other, as ops of torch and past its dispatcher.

    y  = conv(x, w)                     dL/dx = conv_transpose(dy, w)         dL/dw = conv_backward_filter(dy, x)
    dx = conv_transpose(dy, w)          dL/ddy = conv(gdx, w)                 dL/dw = conv_backward_filter(dy, gdx)
    dw = conv_backward_filter(dy, x)    dL/ddy = conv(x, gdw)                 dL/dx = conv_transpose(dy, gdw)

Each exists three times with one definition of its gradients: as `torch.ops.fastconv.<name>`, which torch.compile,
export, autocast and subclasses of Tensor see; as an `autograd.Function`, which costs an eager call less; and as a bare
native call where nobody records. The functions of this file choose (`tensors.is_direct`, `tensors.needs_graph`).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .conv_kernels import Static, backward_filter, forward, transpose
from .tensors import (
    cast,
    empty_image,
    expect_no_tangent,
    frozen,
    is_channels_last,
    is_direct,
    needs_graph,
    numbers,
)

# ---- Gradients, of the ops and of the Functions --------------------------------------------------------------------


def _sum_of_channels(dy: Any) -> Any:
    return dy.sum((0, *range(2, dy.ndim)))


def _save_forward(ctx: Any, x: Any, w: Any, last: bool, s: Static) -> None:
    needs = ctx.needs_input_grad
    ctx.save_for_backward(x if needs[1] else None, w if needs[0] else None)
    ctx.words = x.shape, w.shape, last, s


def _forward_gradients(ctx: Any, dy: Any) -> tuple[Any, Any, Any]:
    x, w = ctx.saved_tensors
    needs_x, needs_w, needs_bias = ctx.needs_input_grad[:3]
    x_shape, w_shape, last, s = ctx.words
    return (
        conv_transpose(dy, w, None, x_shape[2:], last, s) if needs_x else None,
        conv_backward_filter(dy, x, w_shape[2:], s) if needs_w else None,
        _sum_of_channels(dy) if needs_bias else None,
    )


def _save_transpose(ctx: Any, x: Any, w: Any, s: Static) -> None:
    needs_x, needs_w = ctx.needs_input_grad[:2]
    ctx.save_for_backward(x if needs_w else None, w if needs_x else None)
    ctx.words = w.shape, s.linear()


def _transpose_gradients(ctx: Any, dy: Any) -> tuple[Any, Any, Any]:
    x, w = ctx.saved_tensors
    needs_x, needs_w, needs_bias = ctx.needs_input_grad[:3]
    w_shape, s = ctx.words
    return (
        conv(dy, w, None, s) if needs_x else None,
        conv_backward_filter(x, dy, w_shape[2:], s) if needs_w else None,
        _sum_of_channels(dy) if needs_bias else None,
    )


def _save_filter(ctx: Any, dy: Any, x: Any, s: Static) -> None:
    needs_dy, needs_x = ctx.needs_input_grad[:2]
    ctx.save_for_backward(dy if needs_x else None, x if needs_dy else None)
    ctx.words = x.shape, is_channels_last(x), s


def _filter_gradients(ctx: Any, gdw: Any) -> tuple[Any, Any]:
    dy, x = ctx.saved_tensors
    needs_dy, needs_x = ctx.needs_input_grad[:2]
    x_shape, last, s = ctx.words
    return (
        conv(x, gdw, None, s) if needs_dy else None,
        conv_transpose(dy, gdw, None, x_shape[2:], last, s) if needs_x else None,
    )


class _Conv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, bias: Any, last: bool, s: Static) -> Any:
        _save_forward(ctx, x, w, last, s)
        return forward(x, w, bias, last, s)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return *_forward_gradients(ctx, dy), None, None


class _ConvTranspose(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, bias: Any, size: Any, last: bool, s: Static) -> Any:
        _save_transpose(ctx, x, w, s)
        return transpose(x, w, bias, size, last, s)

    @staticmethod
    def backward(ctx: Any, dy: Any) -> Any:
        return *_transpose_gradients(ctx, dy), None, None, None


class _ConvBackwardFilter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, dy: Any, x: Any, size: Any, s: Static) -> Any:
        _save_filter(ctx, dy, x, s)
        return backward_filter(dy, x, size, s)

    @staticmethod
    def backward(ctx: Any, gdw: Any) -> Any:
        return *_filter_gradients(ctx, gdw), None, None


# ---- torch.ops.fastconv --------------------------------------------------------------------------------------------


def _static(*words: Any) -> Static:
    return Static(*frozen(words))


@torch.library.custom_op("fastconv::conv", mutates_args=())
def conv_op(
    x: Tensor, w: Tensor, bias: Tensor | None, stride: Sequence[int], pad_begin: Sequence[int], pad_end: Sequence[int],
    dilation: Sequence[int], groups: int, padding_mode: str = "zeros", pad_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """x (N, C, *spatial), w (K, C/groups, *filter), bias (K,) or None; the rest as a native convolution has it."""
    static = _static(stride, pad_begin, pad_end, dilation, groups, padding_mode, pad_value)
    return forward(x, w, bias, is_channels_last(x) or is_channels_last(w), static)


@torch.library.custom_op("fastconv::conv_transpose", mutates_args=())
def conv_transpose_op(
    x: Tensor, w: Tensor, bias: Tensor | None, size: Sequence[int], channels_last: bool, stride: Sequence[int],
    pad_begin: Sequence[int], pad_end: Sequence[int], dilation: Sequence[int], groups: int, padding_mode: str = "zeros",
) -> Tensor:  # fmt: skip
    """The adjoint of `conv` and, with a bias, the transposed convolution: x (N, C, *), w (C, K/groups, *filter) -> (N,
    K, *size), in memory as channels_last says."""
    static = _static(stride, pad_begin, pad_end, dilation, groups, padding_mode)
    return transpose(x, w, bias, size, channels_last, static)


@torch.library.custom_op("fastconv::conv_backward_filter", mutates_args=())
def conv_backward_filter_op(
    dy: Tensor, x: Tensor, size: Sequence[int], stride: Sequence[int], pad_begin: Sequence[int], pad_end: Sequence[int],
    dilation: Sequence[int], groups: int, padding_mode: str = "zeros", pad_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """The gradient of `conv` for its w: (K, C/groups, *size)."""
    return backward_filter(dy, x, size, _static(stride, pad_begin, pad_end, dilation, groups, padding_mode, pad_value))


@conv_op.register_fake
def _(x, w, bias, stride, pad_begin, pad_end, dilation, groups, padding_mode="zeros", pad_value=0.0):  # type: ignore[no-untyped-def]
    torch._check(x.shape[1] == w.shape[1] * groups, lambda: f"w {tuple(w.shape)} does not fit x {tuple(x.shape)}")
    axes = zip(x.shape[2:], w.shape[2:], stride, pad_begin, pad_end, dilation, strict=True)
    size = [(n + b + e - (f - 1) * d - 1) // s + 1 for n, f, s, b, e, d in axes]
    return empty_image(x, (x.shape[0], w.shape[0], *size), is_channels_last(x) or is_channels_last(w))


@conv_transpose_op.register_fake
def _(x, w, bias, size, channels_last, stride, pad_begin, pad_end, dilation, groups, padding_mode="zeros"):  # type: ignore[no-untyped-def]
    return empty_image(x, (x.shape[0], w.shape[1] * groups, *size), channels_last)


@conv_backward_filter_op.register_fake
def _(dy, x, size, stride, pad_begin, pad_end, dilation, groups, padding_mode="zeros", pad_value=0.0):  # type: ignore[no-untyped-def]
    return empty_image(x, (dy.shape[1], x.shape[1] // groups, *size), False)


def _setup_forward(ctx: Any, inputs: Any, output: Any) -> None:
    x, w, _, *static = inputs
    _save_forward(ctx, x, w, is_channels_last(x) or is_channels_last(w), _static(*static))


def _setup_transpose(ctx: Any, inputs: Any, output: Any) -> None:
    x, w, _, _, _, *static = inputs
    _save_transpose(ctx, x, w, _static(*static))


def _setup_filter(ctx: Any, inputs: Any, output: Any) -> None:
    dy, x, _, *static = inputs
    _save_filter(ctx, dy, x, _static(*static))


conv_op.register_autograd(lambda ctx, dy: (*_forward_gradients(ctx, dy), *(None,) * 7), setup_context=_setup_forward)
conv_transpose_op.register_autograd(
    lambda ctx, dy: (*_transpose_gradients(ctx, dy), *(None,) * 8), setup_context=_setup_transpose
)
conv_backward_filter_op.register_autograd(
    lambda ctx, gdw: (*_filter_gradients(ctx, gdw), *(None,) * 8), setup_context=_setup_filter
)


# Like torch's own convolutions these run in the dtype of an autocast block; their gradients follow the dtypes saved.
_library = torch.library.Library("fastconv", "FRAGMENT")


def _register_autocast(name: str, device: str) -> None:
    op = getattr(torch.ops.fastconv, name)

    def cast_and_call(x: Any, w: Any, bias: Any, *rest: Any) -> Any:
        dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return op(cast(x, dtype), cast(w, dtype), cast(bias, dtype), *rest)

    _library.impl(name, cast_and_call, f"Autocast{device.upper()}")


for _name in ("conv", "conv_transpose"):
    _register_autocast(_name, "cpu")
    _register_autocast(_name, "cuda")


# ---- The choice ----------------------------------------------------------------------------------------------------

# `apply` without what it does for functorch, whose transforms never come here: 2 us less.
_apply_conv = super(torch.autograd.Function, _Conv).apply
_apply_transpose = super(torch.autograd.Function, _ConvTranspose).apply
_apply_filter = super(torch.autograd.Function, _ConvBackwardFilter).apply


def conv(x: Any, w: Any, bias: Any, s: Static) -> Any:
    """x (N, C, *spatial), w (K, C/groups, *filter), bias (K,) or None -> y (N, K, *), in x's memory format."""
    if is_direct(x, w, bias):
        return conv_direct(x, w, bias, s)
    expect_no_tangent(x, w, bias)
    return torch.ops.fastconv.conv(x, w, bias, *s)


def conv_direct(x: Any, w: Any, bias: Any, s: Static) -> Any:
    """`conv` of tensors that are known to be direct."""
    last = is_channels_last(x) or is_channels_last(w)
    return (_apply_conv if needs_graph(x, w, bias) else forward)(x, w, bias, last, s)


def conv_transpose(x: Any, w: Any, bias: Any, size: Any, last: bool, s: Static) -> Any:
    """x (N, C, *spatial), w (C, K/groups, *filter), bias (K,) or None -> (N, K, *size), the adjoint of `conv`."""
    if is_direct(x, w, bias):
        return (_apply_transpose if needs_graph(x, w, bias) else transpose)(x, w, bias, size, last, s)
    expect_no_tangent(x, w, bias)
    return torch.ops.fastconv.conv_transpose(x, w, bias, numbers(size), last, *s[:6])


def conv_backward_filter(dy: Any, x: Any, size: Any, s: Static) -> Any:
    """The gradient of `conv` for w (K, C/groups, *size)."""
    if is_direct(dy, x):
        return (_apply_filter if needs_graph(dy, x) else backward_filter)(dy, x, size, s)
    expect_no_tangent(dy, x)
    return torch.ops.fastconv.conv_backward_filter(dy, x, size, *s)
