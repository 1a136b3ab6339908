# SPDX-License-Identifier: Apache-2.0
"""Convolution on the tape: three Functions, one per pass, whose gradients are each other.

    y  = Conv(x, w)                     dL/dx = ConvBackwardData(dy, w)       dL/dw = ConvBackwardFilter(dy, x)
    dx = ConvBackwardData(dy, w)        dL/ddy = Conv(gdx, w)                 dL/dw = ConvBackwardFilter(dy, gdx)
    dw = ConvBackwardFilter(dy, x)      dL/ddy = Conv(x, gdw)                 dL/dx = ConvBackwardData(dy, gdw)

Each is linear in each of its two arrays; so the three are closed under differentiation, to any order.

What follows the sum (bias, residual, activation) runs in the same kernel. An activation is fused while recording where
its derivative follows from y alone, which is kept then instead of the sum: with z the sum, dz = ActivationBackward(dy,
y) takes the place of dy above, and dz is also the gradient of the residual and, summed, of the bias. ConvBackwardData
carries bias and activation too: so it is the transposed convolution.
"""

from typing import Any, NamedTuple

from .. import _core
from ..arrays import as_native, native, same_kind
from ..autograd import Context, Function, is_grad_enabled
from ..geometry import activation_words, check_padding_mode, conv_geometry, expect_shape
from ..tensor import Tensor, as_tensor, plain
from .activation_formulas import saves_input
from .activations import ActivationBackward
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
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, w: Any, bias: Any, residual: Any, *, static: Static, kind: str = "none",
                alpha: float = 0.0) -> Any:  # fmt: skip
        ctx.static, ctx.kind, ctx.alpha = static, kind, alpha
        ctx.save(*(i for i, needed in ((0, 1), (1, 0)) if ctx.needs_input_grad[needed]), output=kind != "none")
        return native(x).conv_forward(x, w, bias, residual, *static.geometry, static.pad_value, kind, alpha,
                                      static.layout, static.options, None)  # fmt: skip

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        static, saved = ctx.static, list(ctx.saved)
        needs_x, needs_w, needs_bias, needs_residual = ctx.needs_input_grad
        dz = _before_activation(ctx, dy, saved)
        dw = ConvBackwardFilter.apply(dz, saved.pop(0), static=static) if needs_w else None
        dx = ConvBackwardData.apply(dz, saved.pop(0), None, static=static) if needs_x else None
        db = channel_sum(dz, static.layout) if needs_bias else None
        return dx, dw, db, dz if needs_residual else None


class ConvBackwardData(Function):
    """dx, or with bias and activation the transposed convolution of dy."""

    takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, w: Any, bias: Any, *, static: Static, kind: str = "none",
                alpha: float = 0.0) -> Any:  # fmt: skip
        ctx.static, ctx.kind, ctx.alpha = static, kind, alpha
        ctx.save(*(i for i, needed in ((0, 1), (1, 0)) if ctx.needs_input_grad[needed]), output=kind != "none")
        return native(dy).conv_backward_data(dy, w, static.x_shape, *static.geometry, static.layout, static.options,
                                             None, bias, kind, alpha)  # fmt: skip

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> tuple[Tensor | None, ...]:
        saved, static = list(ctx.saved), ctx.static.linear()
        needs_dy, needs_w, needs_bias = ctx.needs_input_grad
        gdz = _before_activation(ctx, gdx, saved)
        gw = ConvBackwardFilter.apply(saved.pop(0), gdz, static=static) if needs_w else None
        gdy = Conv.apply(gdz, saved.pop(0), None, None, static=static) if needs_dy else None
        return gdy, gw, channel_sum(gdz, static.layout) if needs_bias else None


class ConvBackwardFilter(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, x: Any, *, static: Static) -> Any:
        ctx.static = static
        ctx.save(0, 1)
        return native(dy).conv_backward_filter(dy, x, static.w_shape, *static.geometry, static.pad_value, static.layout,
                                          static.options, None)  # fmt: skip

    @staticmethod
    def backward(ctx: Context, gdw: Tensor) -> tuple[Tensor | None, ...]:
        (dy, x), static = ctx.saved, ctx.static
        needs_dy, needs_x = ctx.needs_input_grad
        return (
            Conv.apply(x, gdw, None, None, static=static) if needs_dy else None,
            ConvBackwardData.apply(dy, gdw, None, static=static) if needs_x else None,
        )


def _before_activation(ctx: Context, dy: Tensor, saved: list[Any]) -> Tensor:
    """The gradient of what went into the fused activation; takes y off the end of `saved`."""
    if ctx.kind == "none":
        return dy
    return ActivationBackward.apply(dy, saved.pop(), kind=ctx.kind, alpha=ctx.alpha)


class ChannelSum(Function):
    """(N, C, *) -> (C,): the gradient of a bias, in a native kernel."""

    @staticmethod
    def forward(ctx: Context, dy: Any) -> Any:
        ctx.shape = dy.shape
        return native(dy).channel_sum(dy)

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return broadcast_to(reshape(g, -1, *(1,) * (len(ctx.shape) - 2)), ctx.shape)


def channel_sum(dy: Tensor, layout: str) -> Tensor:
    """The sum over everything but the channels."""
    return ChannelSum.apply(dy) if layout == "channels_first" else sum(dy, tuple(range(dy.ndim - 1)))


def fuses(kind: str, alpha: float, *inputs: Tensor | None) -> bool:
    """Whether the activation may run in the convolution's kernel: its derivative must follow from y if one is wanted.
    That of silu, gelu and the like does not, nor that of an ELU which is not monotonous."""
    if not saves_input(kind, alpha):
        return True
    return not (is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs))


def bias_tensor(bias: Any, caller: str, dtype: Any, channels: int) -> Tensor | None:
    """The argument `bias`, checked."""
    if bias is None:
        return None
    bias = as_tensor(bias)
    as_native(bias.data, "bias", caller, dtype)
    expect_shape("bias", caller, bias.shape, (channels,))
    return bias


def conv(caller: str, rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int,
         padding_mode: str, pad_value: float, activation: Any, residual: Any, layout: str,
         options: _core.Options) -> Tensor:  # fmt: skip
    """`fc.conv2d` and its family for tensors; arrays among the arguments are constants."""
    x, w = as_tensor(x), as_tensor(w)
    as_native(x.data, "x", caller)
    as_native(w.data, "w", caller, x.dtype)
    g = conv_geometry(caller, rank, x.shape, w.shape, stride, padding, dilation, groups, layout)
    check_padding_mode(padding_mode, caller)
    kind, alpha = activation_words(activation, caller)
    bias = bias_tensor(bias, caller, x.dtype, w.shape[0])
    if residual is not None:
        residual = as_tensor(residual)
        as_native(residual.data, "residual", caller, x.dtype)
        expect_shape("residual", caller, residual.shape, g.y_shape if g.batched else g.y_shape[1:])
        residual = reshape(residual, g.y_shape)
    same_kind(caller, x=x.data, w=w.data, bias=plain(bias), residual=plain(residual))
    static = Static(g.x_shape, g.w_shape, g.stride, g.pad_begin, g.pad_end, g.dilation, g.groups, padding_mode,
                    pad_value, layout, options)  # fmt: skip
    fused = fuses(kind, alpha, x, w, bias, residual)
    y = Conv.apply(reshape(x, g.x_shape), w, bias, residual, static=static, kind=kind if fused else "none",
                   alpha=alpha)  # fmt: skip
    y = y if fused else apply_activation(y, kind, alpha)
    return y if g.batched else reshape(y, g.y_shape[1:])
