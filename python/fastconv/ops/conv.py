# SPDX-License-Identifier: Apache-2.0
"""Convolution on the tape: three Functions, one per pass, whose gradients are each other.

    y  = Conv(x, w)                     dL/dx = ConvBackwardData(dy, w)       dL/dw = ConvBackwardFilter(dy, x)
    dx = ConvBackwardData(dy, w)        dL/ddy = Conv(gdx, w)                 dL/dw = ConvBackwardFilter(dy, gdx)
    dw = ConvBackwardFilter(dy, x)      dL/ddy = Conv(x, gdw)                 dL/dx = ConvBackwardData(dy, gdw)

Each is linear in each of its two arrays; so the three are closed under differentiation, to any order.
"""

from typing import Any, NamedTuple

from .. import _core
from ..arrays import as_native
from ..autograd import Context, Function
from ..geometry import activation_words, check_padding_mode, conv_geometry, expect_shape
from ..options import with_algorithm
from ..tensor import Tensor, as_tensor
from .activations import activation as apply_activation
from .shape import broadcast_to, reshape, sum

Shape = tuple[int, ...]


class Static(NamedTuple):
    """What the three passes share besides arrays: numbers per axis, and how x continues beyond its border."""

    x_shape: Shape
    w_shape: Shape
    stride: Shape
    pad_begin: Shape
    pad_end: Shape
    dilation: Shape
    groups: int
    padding_mode: str
    pad_value: float
    layout: str
    options: _core.Options

    @property
    def geometry(self) -> tuple[Shape, Shape, Shape, Shape, int, str]:
        return self.stride, self.pad_begin, self.pad_end, self.dilation, self.groups, self.padding_mode

    def linear(self) -> "Static":
        """The same with zeros for the pad value: what a *change* of x sees beyond the border."""
        return self._replace(pad_value=0.0)


class Conv(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, w: Any, bias: Any, *, static: Static) -> Any:
        ctx.static = static
        ctx.save(*(i for i, needed in ((0, 1), (1, 0)) if ctx.needs_input_grad[needed]))
        return _core.conv_forward(x, w, bias, None, *static.geometry, static.pad_value, "none", 0.0, static.layout,
                                  static.options, None)  # fmt: skip

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        static, saved = ctx.static, list(ctx.saved)
        needs_x, needs_w, needs_bias = ctx.needs_input_grad
        dw = ConvBackwardFilter.apply(dy, saved.pop(0), static=static) if needs_w else None
        dx = ConvBackwardData.apply(dy, saved.pop(0), static=static) if needs_x else None
        return dx, dw, channel_sum(dy, static.layout) if needs_bias else None


class ConvBackwardData(Function):
    @staticmethod
    def forward(ctx: Context, dy: Any, w: Any, *, static: Static) -> Any:
        ctx.static = static
        ctx.save(0, 1)
        return _core.conv_backward_data(dy, w, static.x_shape, *static.geometry, static.layout, static.options, None)

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> tuple[Tensor | None, ...]:
        (dy, w), static = ctx.saved, ctx.static.linear()
        needs_dy, needs_w = ctx.needs_input_grad
        return (
            Conv.apply(gdx, w, None, static=static) if needs_dy else None,
            ConvBackwardFilter.apply(dy, gdx, static=static) if needs_w else None,
        )


class ConvBackwardFilter(Function):
    @staticmethod
    def forward(ctx: Context, dy: Any, x: Any, *, static: Static) -> Any:
        ctx.static = static
        ctx.save(0, 1)
        return _core.conv_backward_filter(dy, x, static.w_shape, *static.geometry, static.pad_value, static.layout,
                                          static.options, None)  # fmt: skip

    @staticmethod
    def backward(ctx: Context, gdw: Tensor) -> tuple[Tensor | None, ...]:
        (dy, x), static = ctx.saved, ctx.static
        needs_dy, needs_x = ctx.needs_input_grad
        return (
            Conv.apply(x, gdw, None, static=static) if needs_dy else None,
            ConvBackwardData.apply(dy, gdw, static=static) if needs_x else None,
        )


class ChannelSum(Function):
    """(N, C, *) -> (C,): the gradient of a bias, in a native kernel."""

    @staticmethod
    def forward(ctx: Context, dy: Any) -> Any:
        ctx.shape = dy.shape
        return _core.channel_sum(dy)

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return broadcast_to(reshape(g, -1, *(1,) * (len(ctx.shape) - 2)), ctx.shape)


def channel_sum(dy: Tensor, layout: str) -> Tensor:
    """The sum over everything but the channels."""
    return ChannelSum.apply(dy) if layout == "channels_first" else sum(dy, tuple(range(dy.ndim - 1)))


def conv(caller: str, rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int,
         padding_mode: str, pad_value: float, activation: Any, residual: Any, layout: str,
         algorithm: str | None) -> Tensor:  # fmt: skip
    """`fc.conv2d` and its family for tensors; arrays among the arguments are constants."""
    x, w = as_tensor(x), as_tensor(w)
    as_native(x.data, "x", caller)
    as_native(w.data, "w", caller, x.dtype)
    g = conv_geometry(caller, rank, x.shape, w.shape, stride, padding, dilation, groups, layout)
    check_padding_mode(padding_mode, caller)
    kind, alpha = activation_words(activation, caller)
    if bias is not None:
        bias = as_tensor(bias)
        as_native(bias.data, "bias", caller, x.dtype)
        expect_shape("bias", caller, bias.shape, (w.shape[0],))
    static = Static(g.x_shape, g.w_shape, g.stride, g.pad_begin, g.pad_end, g.dilation, g.groups, padding_mode,
                    pad_value, layout, with_algorithm(algorithm))  # fmt: skip
    y = Conv.apply(x if g.batched else reshape(x, g.x_shape), w, bias, static=static)
    y = y if g.batched else reshape(y, g.y_shape[1:])
    if residual is not None:
        residual = as_tensor(residual)
        as_native(residual.data, "residual", caller, x.dtype)
        expect_shape("residual", caller, residual.shape, y.shape)
        y = y + residual
    return y if kind == "none" else apply_activation(y, kind, alpha)
