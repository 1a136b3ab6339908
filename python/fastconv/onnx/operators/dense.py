# SPDX-License-Identifier: Apache-2.0
"""Gemm and MatMul."""

import numpy as np

from ... import ops
from ...tensor import Tensor
from ..node import Node, Value


def gemm(node: Node, a: Value, b: Value, c: Value = None, *, alpha: float = 1.0, beta: float = 1.0, transA: int = 0,
         transB: int = 0, broadcast: int = 0) -> Value:  # fmt: skip
    """alpha a b + beta c. With a bias for each column it is a dense layer, and runs as one."""
    if a.ndim != 2 or b.ndim != 2:
        raise node.problem(f"a has shape {a.shape}, b {b.shape}; expected two matrices")
    a = a.T if transA else a
    rows, columns = a.shape[0], b.shape[0 if transB else 1]
    node.allow((rows, columns), a.dtype.itemsize)
    if not isinstance(a, Tensor):
        product = alpha * (a @ (b.T if transB else b)) + (0 if c is None else beta * c)
        return np.asarray(product).astype(a.dtype)
    dense = c is not None and c.shape == (columns,) and alpha == beta == 1
    if transB:
        y = ops.linear(a, b, c if dense else None)
    else:
        y = ops.matmul(a, b)
        y = y + c if dense else y
    if dense:
        return y
    y = y if alpha == 1 else y * alpha
    return y if c is None or beta == 0 else y + (c if beta == 1 else c * beta)


def matmul(node: Node, a: Value, b: Value) -> Value:
    if a.ndim > 1 and b.ndim > 1:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        node.allow((*batch, a.shape[-2], b.shape[-1]), a.dtype.itemsize)
    return ops.matmul(a, b) if isinstance(a, Tensor) else np.asarray(np.matmul(a, b))
