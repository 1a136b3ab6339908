# SPDX-License-Identifier: Apache-2.0
"""Layers without parameters: flatten, dropout, losses."""

from typing import Any

from .. import ops
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


class Dropout(Module):
    """In training, zero each element with probability p and scale the others by 1 / (1 - p)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Any) -> Tensor:
        return ops.dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class Identity(Module):
    """x itself."""

    def forward(self, x: Any) -> Any:
        return x


class CrossEntropyLoss(Module):
    """-log softmax(logits)[label]; logits (N, K, *), integer labels (N, *); reduction "mean", "sum" or "none"."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return ops.cross_entropy(logits, labels, self.reduction)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"
