# SPDX-License-Identifier: Apache-2.0
"""Layers without parameters: flatten, dropout."""

import math
from typing import Any, ClassVar

from .. import ops
from .._core import ProblemError
from ..tensor import Tensor, as_tensor
from .module import Module


class Flatten(Module):
    """The axes start_dim to end_dim merged into one: (N, C, H, W) -> (N, C*H*W)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Any) -> Tensor:
        return ops.flatten(as_tensor(x), self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class _Dropout(Module):
    """`inplace` is taken for the sake of PyTorch's signature; nothing is ever changed in place."""

    drop: ClassVar[Any]

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ProblemError(f"{type(self).__name__}: p is {p}; expected 0 to 1")
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return self.drop(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Dropout(_Dropout):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p)."""

    drop = staticmethod(ops.dropout)


class Dropout1d(_Dropout):
    """In training, zero each channel of each example with probability p: x (N, C, W) or (C, W)."""

    drop = staticmethod(ops.dropout1d)


class Dropout2d(_Dropout):
    """In training, zero each channel of each example with probability p: x (N, C, H, W) or (N, C, W)."""

    drop = staticmethod(ops.dropout2d)


class Dropout3d(_Dropout):
    """In training, zero each channel of each example with probability p: x (N, C, D, H, W) or (C, D, H, W)."""

    drop = staticmethod(ops.dropout3d)


class Unflatten(Module):
    """One axis cut into several, the opposite of `Flatten`: one of unflattened_size may be -1."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        self.dim, self.unflattened_size = dim, tuple(unflattened_size)

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ProblemError(f"Unflatten: dim is {self.dim}, x has shape {x.shape}; expected one of its axes")
        axis, sizes = self.dim % x.ndim, self.unflattened_size
        length, known = x.shape[axis], math.prod(n for n in sizes if n != -1)
        fits = length == known if -1 not in sizes else sizes.count(-1) == 1 and known > 0 and length % known == 0
        if not fits or any(n < -1 for n in sizes):
            raise ProblemError(f"Unflatten: axis {self.dim} has {length} cells; expected sizes for it, got {sizes}")
        return x.reshape(*x.shape[:axis], *(n if n != -1 else length // known for n in sizes), *x.shape[axis + 1 :])

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Identity(Module):
    """x itself; arguments are accepted and ignored, so that it can stand in for any layer."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        return x
