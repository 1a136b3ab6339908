# SPDX-License-Identifier: Apache-2.0
"""Layers without parameters: activations, flatten, dropout, losses."""

from typing import Any

from .. import ops
from ..geometry import activation_words
from ..tensor import Tensor, as_tensor
from .module import Module


class _Activation(Module):
    kind: str

    def forward(self, x: Any) -> Tensor:
        return ops.activation(as_tensor(x), self.kind, 0.0)


class ReLU(_Activation):
    """max(x, 0)."""

    kind = "relu"


class ReLU6(_Activation):
    """min(max(x, 0), 6)."""

    kind = "relu6"


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    kind = "sigmoid"


class Tanh(_Activation):
    """The hyperbolic tangent."""

    kind = "tanh"


class SiLU(_Activation):
    """x * sigmoid(x)."""

    kind = "silu"


class GELU(_Activation):
    """x times the normal cdf of x."""

    kind = "gelu"


class Hardswish(_Activation):
    """x * relu6(x + 3) / 6."""

    kind = "hard_swish"


class LeakyReLU(Module):
    """x where positive, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = activation_words(("leaky_relu", negative_slope), "LeakyReLU")[1]

    def forward(self, x: Any) -> Tensor:
        return ops.leaky_relu(as_tensor(x), self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where positive, else alpha * (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = float(alpha)

    def forward(self, x: Any) -> Tensor:
        return ops.elu(as_tensor(x), self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class Softmax(Module):
    """`softmax` along an axis."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return ops.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


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
