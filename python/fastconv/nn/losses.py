# SPDX-License-Identifier: Apache-2.0
"""Losses as layers. `weight` and `pos_weight` are buffers, as in PyTorch."""

from typing import Any

import numpy as np

from .. import ops
from ..ops.loss import check_reduction
from ..tensor import Tensor
from .module import Module


class _Loss(Module):
    """A loss of (x, target) with a reduction."""

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__()
        allowed = ("mean", "sum", "none", "batchmean") if isinstance(self, KLDivLoss) else ("mean", "sum", "none")
        check_reduction(type(self).__name__, reduction, allowed)
        self.reduction = reduction

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}"


class _WeightedLoss(_Loss):
    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", _values(weight))


def _values(weight: Any) -> Any:
    if weight is None or hasattr(weight, "dtype"):
        return weight.data if isinstance(weight, Tensor) else weight
    return np.asarray(weight, np.float32)


class CrossEntropyLoss(_WeightedLoss):
    """-log softmax(logits)[label]: logits (N, K, *), labels (N, *) or probabilities (N, K, *)."""

    def __init__(
        self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, logits: Any, labels: Any) -> Tensor:
        return ops.cross_entropy(logits, labels, self.weight, self.ignore_index, self.reduction, self.label_smoothing)

    def extra_repr(self) -> str:
        smoothing = f", label_smoothing={self.label_smoothing}" if self.label_smoothing else ""
        return f"reduction={self.reduction!r}{smoothing}"


class NLLLoss(_WeightedLoss):
    """-x[label] for log-probabilities x (N, K, *)."""

    def __init__(self, weight: Any = None, ignore_index: int = -100, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, log_probabilities: Any, labels: Any) -> Tensor:
        return ops.nll_loss(log_probabilities, labels, self.weight, self.ignore_index, self.reduction)


class BCELoss(_WeightedLoss):
    """-(target log(x) + (1 - target) log(1 - x)) for probabilities x."""

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.binary_cross_entropy(x, target, self.weight, self.reduction)


class BCEWithLogitsLoss(_WeightedLoss):
    """`BCELoss` of sigmoid(x), exact for any x; pos_weight scales the term of target 1."""

    def __init__(self, weight: Any = None, reduction: str = "mean", pos_weight: Any = None) -> None:
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", _values(pos_weight))

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.binary_cross_entropy_with_logits(x, target, self.weight, self.reduction, self.pos_weight)


class MSELoss(_Loss):
    """(x - target)^2."""

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.mse_loss(x, target, self.reduction)


class L1Loss(_Loss):
    """|x - target|."""

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.l1_loss(x, target, self.reduction)


class HuberLoss(_Loss):
    """Quadratic up to a distance of delta, then linear."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.huber_loss(x, target, self.reduction, self.delta)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, delta={self.delta}"


class SmoothL1Loss(_Loss):
    """`HuberLoss` over beta."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.smooth_l1_loss(x, target, self.reduction, self.beta)

    def extra_repr(self) -> str:
        return f"reduction={self.reduction!r}, beta={self.beta}"


class KLDivLoss(_Loss):
    """target (log(target) - x) for log-probabilities x; "batchmean" gives the divergence."""

    def __init__(self, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, x: Any, target: Any) -> Tensor:
        return ops.kl_div(x, target, self.reduction, self.log_target)
