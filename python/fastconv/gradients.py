# SPDX-License-Identifier: Apache-2.0
"""The explicit gradients of convolution on plain arrays, for those who write their own training loop.

For y = conv(x, w) + bias and dy = dL/dy: dx = dL/dx, dw = dL/dw, db = dL/dbias. All take the forward call's geometry.
"""

from typing import Any

from . import _core
from .arrays import are_plain, as_native, native, same_kind
from .dlpack import takes_dlpack
from .geometry import check_padding_mode, conv_geometry, expect_shape
from .half import in_float32
from .options import Precision, chosen
from .primitives import checked_output

Array = Any


def _backward_data(caller: str, rank: int, dy: Array, w: Array, x_shape: Any, stride: Any, padding: Any,
                   dilation: Any, groups: int, padding_mode: str, layout: str, options: _core.Options,
                   out: Array) -> Array:  # fmt: skip
    if out is not None or not are_plain(dy, w):
        dy = as_native(dy, "dy", caller)
        w = as_native(w, "w", caller, dy.dtype)
        same_kind(caller, dy=dy, w=w, out=out)
    x_shape = tuple(x_shape)
    g = conv_geometry(caller, rank, x_shape, w.shape, stride, padding, dilation, groups, layout)
    check_padding_mode(padding_mode, caller)
    expect_shape("dy", caller, dy.shape, g.y_shape if g.batched else g.y_shape[1:])
    dx = native(dy).conv_backward_data(dy if g.batched else dy[None], w, g.x_shape, g.stride, g.pad_begin, g.pad_end,
                                       g.dilation, g.groups, padding_mode, layout, options,
                                       checked_output(out, caller, x_shape, dy.dtype, g.batched))  # fmt: skip
    if out is not None:
        return out
    return dx if g.batched else dx[0]


def _backward_filter(caller: str, rank: int, dy: Array, x: Array, w_shape: Any, stride: Any, padding: Any,
                     dilation: Any, groups: int, padding_mode: str, pad_value: float, layout: str,
                     options: _core.Options, out: Array) -> Array:  # fmt: skip
    if out is not None or not are_plain(dy, x):
        dy = as_native(dy, "dy", caller)
        x = as_native(x, "x", caller, dy.dtype)
        same_kind(caller, dy=dy, x=x, out=out)
    w_shape = tuple(w_shape)
    g = conv_geometry(caller, rank, x.shape, w_shape, stride, padding, dilation, groups, layout)
    check_padding_mode(padding_mode, caller)
    expect_shape("dy", caller, dy.shape, g.y_shape if g.batched else g.y_shape[1:])
    dy, x = (dy, x) if g.batched else (dy[None], x[None])
    dw = native(dy).conv_backward_filter(dy, x, w_shape, g.stride, g.pad_begin,
                                    g.pad_end, g.dilation, g.groups, padding_mode, pad_value, layout,
                                    options, checked_output(out, caller, w_shape, dy.dtype, True))  # fmt: skip
    return dw if out is None else out


def _backward(caller: str, rank: int, dy: Array, x: Array, w: Array, stride: Any, padding: Any, dilation: Any,
              groups: int, needs: tuple[bool, bool, bool], padding_mode: str, pad_value: float, layout: str,
              options: _core.Options) -> tuple[Array | None, Array | None, Array | None]:  # fmt: skip
    dy = as_native(dy, "dy", caller)
    x, w = as_native(x, "x", caller, dy.dtype), as_native(w, "w", caller, dy.dtype)
    same_kind(caller, dy=dy, x=x, w=w)
    if len(needs) != 3:
        raise _core.ProblemError(f"{caller}: needs has {len(needs)} entries; expected 3, for dx, dw and db")
    g = conv_geometry(caller, rank, x.shape, w.shape, stride, padding, dilation, groups, layout)
    expect_shape("dy", caller, dy.shape, g.y_shape if g.batched else g.y_shape[1:])
    dx = dw = db = None
    if needs[0]:
        dx = _backward_data(caller, rank, dy, w, x.shape, stride, padding, dilation, groups, padding_mode, layout,
                            options, None)  # fmt: skip
    if needs[1]:
        dw = _backward_filter(caller, rank, dy, x, w.shape, stride, padding, dilation, groups, padding_mode,
                              pad_value, layout, options, None)  # fmt: skip
    if needs[2]:
        db = bias_gradient(dy.reshape(g.y_shape), layout)
    return dx, dw, db


@in_float32
def bias_gradient(dy: Array, layout: str) -> Array:
    """The sum of dy (with a batch axis) over everything but its channels: the gradient of the bias."""
    if layout == "channels_first":
        return native(dy).channel_sum(dy)
    return native(dy).channel_sum(dy.reshape(-1, dy.shape[-1]))


@takes_dlpack
def conv1d_backward(dy: Array, x: Array, w: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                    groups: int = 1, needs: tuple[bool, bool, bool] = (True, True, True), *,
                    padding_mode: str = "zeros", pad_value: float = 0.0, layout: str = "channels_first",
                    algorithm: str | None = None, precision: Precision = None) -> tuple[Array | None, Array | None,
                    Array | None]:  # fmt: skip
    """(dx, dw, db) of `fc.conv1d`. Arguments as for `fc.conv2d_backward`."""
    return _backward("conv1d_backward", 1, dy, x, w, stride, padding, dilation, groups, needs, padding_mode,
                     pad_value, layout, chosen(algorithm, precision))  # fmt: skip


@takes_dlpack
def conv1d_backward_data(dy: Array, w: Array, x_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                         groups: int = 1, *, padding_mode: str = "zeros", layout: str = "channels_first",
                         algorithm: str | None = None, precision: Precision = None,
                         out: Array | None = None) -> Array:  # fmt: skip
    """dx of `fc.conv1d`. Arguments as for `fc.conv2d_backward_data`."""
    return _backward_data("conv1d_backward_data", 1, dy, w, x_shape, stride, padding, dilation, groups,
                          padding_mode, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv1d_backward_filter(dy: Array, x: Array, w_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                           groups: int = 1, *, padding_mode: str = "zeros", pad_value: float = 0.0,
                           layout: str = "channels_first", algorithm: str | None = None, precision: Precision = None,
                           out: Array | None = None) -> Array:  # fmt: skip
    """dw of `fc.conv1d`. Arguments as for `fc.conv2d_backward_filter`."""
    return _backward_filter("conv1d_backward_filter", 1, dy, x, w_shape, stride, padding, dilation, groups,
                            padding_mode, pad_value, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv2d_backward(dy: Array, x: Array, w: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                    groups: int = 1, needs: tuple[bool, bool, bool] = (True, True, True), *,
                    padding_mode: str = "zeros", pad_value: float = 0.0, layout: str = "channels_first",
                    algorithm: str | None = None, precision: Precision = None) -> tuple[Array | None, Array | None,
                    Array | None]:  # fmt: skip
    """(dx, dw, db) of `fc.conv2d`; None where `needs` is False.

    Args:
        dy: the gradient of y, in y's shape.
        x, w: what the forward call had.
        needs: which of dx, dw and db to compute.
        The others: as for `fc.conv2d`.

    Raises:
        ProblemError, UnsupportedError, WorkspaceError, TypeError: as `fc.conv2d`.
    """
    return _backward("conv2d_backward", 2, dy, x, w, stride, padding, dilation, groups, needs, padding_mode,
                     pad_value, layout, chosen(algorithm, precision))  # fmt: skip


@takes_dlpack
def conv2d_backward_data(dy: Array, w: Array, x_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                         groups: int = 1, *, padding_mode: str = "zeros", layout: str = "channels_first",
                         algorithm: str | None = None, precision: Precision = None,
                         out: Array | None = None) -> Array:  # fmt: skip
    """dx of `fc.conv2d`: what each pixel of x contributed to.

    Args:
        dy: the gradient of y, in y's shape.
        w: (K, C/groups, R, S).
        x_shape: the shape of x, with or without its batch axis.
        The others: as for `fc.conv2d`.
    """
    return _backward_data("conv2d_backward_data", 2, dy, w, x_shape, stride, padding, dilation, groups,
                          padding_mode, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv2d_backward_filter(dy: Array, x: Array, w_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                           groups: int = 1, *, padding_mode: str = "zeros", pad_value: float = 0.0,
                           layout: str = "channels_first", algorithm: str | None = None, precision: Precision = None,
                           out: Array | None = None) -> Array:  # fmt: skip
    """dw of `fc.conv2d`, summed over the batch; zeros for an empty batch.

    Args:
        dy: the gradient of y, in y's shape.
        x: what the forward call had.
        w_shape: (K, C/groups, R, S).
        The others: as for `fc.conv2d`.
    """
    return _backward_filter("conv2d_backward_filter", 2, dy, x, w_shape, stride, padding, dilation, groups,
                            padding_mode, pad_value, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv3d_backward(dy: Array, x: Array, w: Array, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                    groups: int = 1, needs: tuple[bool, bool, bool] = (True, True, True), *,
                    padding_mode: str = "zeros", pad_value: float = 0.0, layout: str = "channels_first",
                    algorithm: str | None = None, precision: Precision = None) -> tuple[Array | None, Array | None,
                    Array | None]:  # fmt: skip
    """(dx, dw, db) of `fc.conv3d`. Arguments as for `fc.conv2d_backward`."""
    return _backward("conv3d_backward", 3, dy, x, w, stride, padding, dilation, groups, needs, padding_mode,
                     pad_value, layout, chosen(algorithm, precision))  # fmt: skip


@takes_dlpack
def conv3d_backward_data(dy: Array, w: Array, x_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                         groups: int = 1, *, padding_mode: str = "zeros", layout: str = "channels_first",
                         algorithm: str | None = None, precision: Precision = None,
                         out: Array | None = None) -> Array:  # fmt: skip
    """dx of `fc.conv3d`. Arguments as for `fc.conv2d_backward_data`."""
    return _backward_data("conv3d_backward_data", 3, dy, w, x_shape, stride, padding, dilation, groups,
                          padding_mode, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv3d_backward_filter(dy: Array, x: Array, w_shape: Any, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
                           groups: int = 1, *, padding_mode: str = "zeros", pad_value: float = 0.0,
                           layout: str = "channels_first", algorithm: str | None = None, precision: Precision = None,
                           out: Array | None = None) -> Array:  # fmt: skip
    """dw of `fc.conv3d`. Arguments as for `fc.conv2d_backward_filter`."""
    return _backward_filter("conv3d_backward_filter", 3, dy, x, w_shape, stride, padding, dilation, groups,
                            padding_mode, pad_value, layout, chosen(algorithm, precision), out)  # fmt: skip
