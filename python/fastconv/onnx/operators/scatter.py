# SPDX-License-Identifier: Apache-2.0
"""Elements put to places. With the reductions "none" and "add" gradients flow to both, data and updates."""

from typing import Any

import numpy as np

from ... import ops
from ...ops.shape import PutItem
from ...tensor import Tensor, as_tensor, plain
from ..node import Node, Value, as_value, axis_of, like

_REDUCE = {"mul": np.multiply, "max": np.maximum, "min": np.minimum}


def scatter_elements(node: Node, data: Value, indices: Value, updates: Value, *, axis: int = 0,
                     reduction: str = "none") -> Value:  # fmt: skip
    """data with updates at `indices` along an axis. Where a place comes twice, "none" leaves open what is there."""
    axis = axis_of(node, axis, data.ndim)
    if indices.shape != updates.shape or indices.ndim != data.ndim:
        raise node.problem(f"indices have shape {indices.shape}, updates {updates.shape}, data {data.shape}")
    places = [np.arange(n).reshape(-1, *(1,) * (data.ndim - a - 1)) for a, n in enumerate(indices.shape)]
    places[axis] = np.where(indices < 0, indices + data.shape[axis], indices)
    return _scattered(node, data, tuple(places), updates, reduction)


def scatter_nd(node: Node, data: Value, indices: Value, updates: Value, *, reduction: str = "none") -> Value:
    """data with updates at the tuples along the last axis of `indices`."""
    places = tuple(np.moveaxis(np.asarray(indices), -1, 0))
    return _scattered(node, data, places, updates, reduction)


def _scattered(node: Node, data: Value, places: Any, updates: Value, reduction: str) -> Value:
    if reduction not in ("none", "add"):
        return _reduced(node, data, places, updates, reduction)
    put = PutItem.apply(as_tensor(updates), index=places, shape=data.shape)
    if reduction == "add":
        return like(ops.add(as_tensor(data), put), data)
    keep = np.ones(data.shape, np.bool_)
    keep[places] = False
    return like(ops.where(keep, as_tensor(data), put), data)


def _reduced(node: Node, data: Value, places: Any, updates: Value, reduction: str) -> Value:
    if reduction not in _REDUCE:
        raise node.unsupported(f"reduction is {reduction!r}; known: none, add, {', '.join(_REDUCE)}")
    if any(isinstance(t, Tensor) and t.requires_grad for t in (data, updates)):
        raise node.unsupported(f"the reduction {reduction!r} has no gradient here; use fc.no_grad()")
    y = plain(data).copy()
    _REDUCE[reduction].at(y, places, plain(updates))
    return as_value(y)


def trilu(node: Node, x: Value, k: Value = None, *, upper: int = 1) -> Value:
    """The upper or lower triangle of matrices, zeros elsewhere."""
    diagonal = 0 if k is None else int(np.asarray(k).reshape(()))
    keep = np.tri(x.shape[-2], x.shape[-1], max(min(diagonal - bool(upper), 2**31), -(2**31)), dtype=np.bool_)
    keep = ~keep if upper else keep
    return like(ops.where(keep, as_tensor(x), Tensor(np.zeros((), x.dtype))), x)
