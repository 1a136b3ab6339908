# SPDX-License-Identifier: Apache-2.0
"""Dense layers and matrix products.

Like convolution, a dense layer is three Functions that are each other's gradients:
    y = x w^T (Dense)      dx = dy w (DenseBackwardData)      dw = dy^T x (DenseBackwardFilter)
"""

import math
from typing import Any

import numpy as np

from .._core import ProblemError
from ..arrays import kernels, namespace
from ..autograd import Context, Function
from ..tensor import Tensor, as_tensor
from .shape import reshape, sum, sum_to


class Dense(Function):
    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, x: Any, w: Any, bias: Any) -> Any:
        ctx.save(0, 1)
        if (native := kernels(x, w)) is not None:
            return native.dense_forward(x, w, bias)
        return x @ w.T if bias is None else x @ w.T + bias

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved
        needs_x, needs_w, needs_bias = ctx.needs_input_grad
        return (
            DenseBackwardData.apply(dy, w) if needs_x else None,
            DenseBackwardFilter.apply(dy, x) if needs_w else None,
            sum(dy, 0) if needs_bias else None,
        )


class DenseBackwardData(Function):
    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, w: Any) -> Any:
        ctx.save(0, 1)
        native = kernels(dy, w)
        return dy @ w if native is None else native.dense_backward_data(dy, w)

    @staticmethod
    def backward(ctx: Context, gdx: Tensor) -> tuple[Tensor | None, ...]:
        dy, w = ctx.saved
        needs_dy, needs_w = ctx.needs_input_grad
        return (
            Dense.apply(gdx, w, None) if needs_dy else None,
            DenseBackwardFilter.apply(dy, gdx) if needs_w else None,
        )


class DenseBackwardFilter(Function):
    device_takes_half = True

    @staticmethod
    def forward(ctx: Context, dy: Any, x: Any) -> Any:
        ctx.save(0, 1)
        native = kernels(dy, x)
        return dy.T @ x if native is None else native.dense_backward_filter(dy, x)

    @staticmethod
    def backward(ctx: Context, gdw: Tensor) -> tuple[Tensor | None, ...]:
        dy, x = ctx.saved
        needs_dy, needs_x = ctx.needs_input_grad
        return (
            Dense.apply(x, gdw, None) if needs_dy else None,
            DenseBackwardData.apply(dy, gdw) if needs_x else None,
        )


class MatMul(Function):
    """a @ b for two or more dimensions; the leading ones broadcast."""

    @staticmethod
    def forward(ctx: Context, a: Any, b: Any) -> Any:
        ctx.save(0, 1)
        if a.ndim == b.ndim == 2 and (native := kernels(a, b)) is not None:
            return _product(native, a, b)
        return namespace(a).matmul(a, b)

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved
        needs_a, needs_b = ctx.needs_input_grad
        return (
            sum_to(MatMul.apply(dy, _swap(b)), a.shape) if needs_a else None,
            sum_to(MatMul.apply(_swap(a), dy), b.shape) if needs_b else None,
        )


def _product(native: Any, a: Any, b: Any) -> Any:
    """The native product that reads a transposed matrix where it lies."""
    if b.T.flags.c_contiguous and not b.flags.c_contiguous:
        return native.dense_forward(a, b.T, None)
    if a.T.flags.c_contiguous and not a.flags.c_contiguous:
        return native.dense_backward_filter(a.T, b)
    return native.dense_backward_data(a, b)


def _swap(x: Tensor) -> Tensor:
    axes = list(range(x.ndim))
    return x.transpose(*axes[:-2], axes[-1], axes[-2])


def linear(x: Any, w: Any, bias: Any = None) -> Tensor:
    """x w^T + bias: x (*, I), w (O, I), bias (O,) -> (*, O)."""
    x, w = as_tensor(x), as_tensor(w)
    if w.ndim != 2 or x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise ProblemError(f"linear: x has shape {x.shape}, w {w.shape}; expected x of shape (*, I) and w of (O, I)")
    if x.dtype != w.dtype:
        raise TypeError(f"linear: w has dtype {w.dtype}, x {x.dtype}; expected the same dtype: use .astype")
    if bias is not None:
        bias = as_tensor(bias)
        if bias.shape != w.shape[:1] or bias.dtype != x.dtype:
            raise ProblemError(
                f"linear: bias is {bias.dtype} {bias.shape}; expected {x.dtype} of shape ({w.shape[0]},)"
            )
    rows = reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    return reshape(Dense.apply(rows, w, bias), (*x.shape[:-1], w.shape[0]))


def matmul(a: Any, b: Any) -> Tensor:
    """a @ b: (..., M, K) and (..., K, N), the leading axes broadcast; a one-dimensional a is a row, b a column.

    Raises:
        ProblemError: shapes that do not fit. TypeError: operands of different dtypes.
    """
    a, b = as_tensor(a), as_tensor(b)
    if a.dtype != b.dtype:
        raise TypeError(f"matmul: the operands have dtypes {a.dtype} and {b.dtype}; use .astype on one of them")
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[b.ndim - 2 if b.ndim > 1 else 0]:
        raise ProblemError(f"matmul: shapes {a.shape} and {b.shape}; expected (..., M, K) and (..., K, N)")
    if a.ndim == 1:
        y = matmul(reshape(a, 1, -1), b)
        return reshape(y, (*b.shape[:-2], *b.shape[-1:])) if b.ndim > 1 else reshape(y, ())
    if b.ndim == 1:
        return reshape(matmul(a, reshape(b, -1, 1)), a.shape[:-1])
    if b.ndim == 2 and a.ndim > 2:  # one product for the whole batch
        return reshape(MatMul.apply(reshape(a, (math.prod(a.shape[:-1]), a.shape[-1])), b), (*a.shape[:-1], b.shape[1]))
    try:
        math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2]))
    except ValueError:
        raise ProblemError(f"matmul: shapes {a.shape} and {b.shape}; the leading axes do not broadcast") from None
    return MatMul.apply(a, b)
