# SPDX-License-Identifier: Apache-2.0
"""Max and average pooling on the tape.

Both are linear once the positions of the maxima are known: MaxPoolBackward scatters to them, MaxPoolGather reads from
them, and each is the other's gradient. AvgPool and AvgPoolBackward are each other's gradient likewise.
"""

from typing import Any

import numpy as np

from .. import _core
from ..arrays import as_native
from ..autograd import Context, Function
from ..geometry import PoolGeometry, pool_geometry
from ..options import current
from ..tensor import Tensor
from .shape import reshape


class MaxPool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, g: PoolGeometry, ceil_mode: bool, layout: str) -> tuple[Any, Any]:
        y, indices = _core.max_pool_forward(x, g.window, g.stride, g.pad_begin, g.pad_end, g.dilation, ceil_mode,
                                            layout, True, current())  # fmt: skip
        ctx.static = {"indices": indices, "g": g, "ceil_mode": ceil_mode, "layout": layout}
        return y, indices

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return MaxPoolBackward.apply(dy, **ctx.static)


class MaxPoolBackward(Function):
    @staticmethod
    def forward(ctx: Context, dy: Any, *, indices: Any, g: PoolGeometry, ceil_mode: bool, layout: str) -> Any:
        ctx.static = {"indices": indices, "g": g, "ceil_mode": ceil_mode, "layout": layout}
        return _core.max_pool_backward(dy, indices, g.x_shape, g.window, g.stride, g.pad_begin, g.pad_end, g.dilation,
                                       ceil_mode, layout, current())  # fmt: skip

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> Tensor:
        return MaxPoolGather.apply(gdx, **ctx.static)


class MaxPoolGather(Function):
    takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, *, indices: Any, g: PoolGeometry, ceil_mode: bool, layout: str) -> Any:
        ctx.static = {"indices": indices, "g": g, "ceil_mode": ceil_mode, "layout": layout}
        n, first, last = x.shape[0], x.shape[1], x.shape[-1]
        flat, axis = ((n, first, -1), 2) if layout == "channels_first" else ((n, -1, last), 1)
        return np.take_along_axis(x.reshape(flat), indices.reshape(flat), axis).reshape(g.y_shape)

    @staticmethod
    def backward(ctx: Context, g: Tensor) -> Tensor:
        return MaxPoolBackward.apply(g, **ctx.static)


class AvgPool(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, g: PoolGeometry, ceil_mode: bool, count_include_pad: bool, layout: str) -> Any:
        ctx.static = {"g": g, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "layout": layout}
        return _core.avg_pool_forward(x, g.window, g.stride, g.pad_begin, g.pad_end, ceil_mode, count_include_pad,
                                      layout, current())  # fmt: skip

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        return AvgPoolBackward.apply(dy, **ctx.static)


class AvgPoolBackward(Function):
    @staticmethod
    def forward(
        ctx: Context, dy: Any, *, g: PoolGeometry, ceil_mode: bool, count_include_pad: bool, layout: str
    ) -> Any:
        ctx.static = {"g": g, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad, "layout": layout}
        return _core.avg_pool_backward(dy, g.x_shape, g.window, g.stride, g.pad_begin, g.pad_end, ceil_mode,
                                       count_include_pad, layout, current())  # fmt: skip

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> Tensor:
        return AvgPool.apply(gdx, **ctx.static)


def max_pool(caller: str, rank: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
             ceil_mode: bool, return_indices: bool, layout: str) -> Any:  # fmt: skip
    """`fc.max_pool2d` and its family for tensors."""
    as_native(x.data, "x", caller)
    g = pool_geometry(caller, rank, x.shape, kernel_size, stride, padding, dilation, bool(ceil_mode), layout)
    y, indices = MaxPool.apply(reshape(x, g.x_shape), g=g, ceil_mode=bool(ceil_mode), layout=layout)
    if not g.batched:
        y, indices = reshape(y, g.y_shape[1:]), reshape(indices, g.y_shape[1:])
    return (y, indices) if return_indices else y


def avg_pool(caller: str, rank: int, x: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
             count_include_pad: bool, layout: str) -> Tensor:  # fmt: skip
    """`fc.avg_pool2d` and its family for tensors."""
    as_native(x.data, "x", caller)
    g = pool_geometry(caller, rank, x.shape, kernel_size, stride, padding, 1, bool(ceil_mode), layout)
    y = AvgPool.apply(reshape(x, g.x_shape), g=g, ceil_mode=bool(ceil_mode), count_include_pad=bool(count_include_pad),
                      layout=layout)  # fmt: skip
    return y if g.batched else reshape(y, g.y_shape[1:])
