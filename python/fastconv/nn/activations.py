# SPDX-License-Identifier: Apache-2.0
"""Activations as layers. `inplace` is taken for the sake of PyTorch's signatures; nothing is ever changed in place."""

from typing import Any

import numpy as np

from .. import ops
from .._core import ProblemError
from ..tensor import Tensor
from .layers import Linear
from .module import Module, Parameter


class _Pointwise(Module):
    """An activation without parameters."""

    kind: str

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()

    def forward(self, x: Any) -> Tensor:
        return ops.activation(x, self.kind, 0.0)


class Hardsigmoid(_Pointwise):
    """relu6(x + 3) / 6."""

    kind = "hard_sigmoid"


class Hardswish(_Pointwise):
    """x * relu6(x + 3) / 6."""

    kind = "hard_swish"


class LogSigmoid(_Pointwise):
    """log(sigmoid(x))."""

    kind = "log_sigmoid"


class Mish(_Pointwise):
    """x * tanh(softplus(x))."""

    kind = "mish"


class ReLU(_Pointwise):
    """max(x, 0)."""

    kind = "relu"


class ReLU6(_Pointwise):
    """min(max(x, 0), 6)."""

    kind = "relu6"


class SELU(_Pointwise):
    """1.0507 * elu(x, 1.6733): keeps mean 0 and variance 1."""

    kind = "selu"


class Sigmoid(_Pointwise):
    """1 / (1 + exp(-x))."""

    kind = "sigmoid"


class SiLU(_Pointwise):
    """x * sigmoid(x)."""

    kind = "silu"


class Softsign(_Pointwise):
    """x / (1 + |x|)."""

    kind = "softsign"


class Tanh(_Pointwise):
    """The hyperbolic tangent."""

    kind = "tanh"


class LeakyReLU(Module):
    """x where positive, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__()
        self.negative_slope = float(negative_slope)

    def forward(self, x: Any) -> Tensor:
        return ops.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"negative_slope={self.negative_slope}"


class PReLU(Module):
    """x where positive, else weight * x; weight is learnt.

    Args:
        num_parameters: 1, one slope for all; or the number of channels of x (N, C, *), one for each.
        init: what the slopes are at first.
    """

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        if num_parameters < 1:
            raise ProblemError(f"PReLU: num_parameters is {num_parameters}; expected at least 1")
        self.num_parameters = num_parameters
        self.weight = Parameter(np.full(num_parameters, init, np.float32))

    def forward(self, x: Any) -> Tensor:
        return ops.prelu(x, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(Module):
    """x where positive, else alpha * (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        self.alpha = float(alpha)

    def forward(self, x: Any) -> Tensor:
        return ops.elu(x, self.alpha)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}"


class CELU(ELU):
    """x where positive, else alpha * (exp(x / alpha) - 1)."""

    def forward(self, x: Any) -> Tensor:
        return ops.celu(x, self.alpha)


class GELU(Module):
    """x times the normal cdf of x: exactly ("none"), or by a tanh ("tanh")."""

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise ProblemError(f'GELU: approximate is {approximate!r}; expected "none" or "tanh"')
        self.approximate = approximate

    def forward(self, x: Any) -> Tensor:
        return ops.gelu(x, self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class Hardtanh(Module):
    """min(max(x, min_val), max_val)."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> None:
        super().__init__()
        if not min_val < max_val:
            raise ProblemError(f"Hardtanh: min_val is {min_val}, max_val {max_val}; expected min_val to be smaller")
        self.min_val, self.max_val = float(min_val), float(max_val)

    def forward(self, x: Any) -> Tensor:
        return ops.hard_tanh(x, self.min_val, self.max_val)

    def extra_repr(self) -> str:
        return f"min_val={self.min_val}, max_val={self.max_val}"


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta; x itself where beta * x is above a threshold, if there is one."""

    def __init__(self, beta: float = 1.0, threshold: float | None = None) -> None:
        super().__init__()
        self.beta, self.threshold = float(beta), threshold

    def forward(self, x: Any) -> Tensor:
        return ops.softplus(x, self.beta, self.threshold)

    def extra_repr(self) -> str:
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """`softmax` along an axis."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Any) -> Tensor:
        return ops.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class LogSoftmax(Softmax):
    """`log_softmax` along an axis."""

    def forward(self, x: Any) -> Tensor:
        return ops.log_softmax(x, self.dim)


class Maxout(Module):
    """The largest of every `pieces` adjacent channels along an axis: (N, C, *) -> (N, C / pieces, *).

    Behind a convolution or a dense layer with pieces times as many outputs it is the maxout unit of Goodfellow et al.,
    arXiv 1302.4389: the maximum of affine functions.
    """

    def __init__(self, pieces: int = 2, dim: int = 1) -> None:
        super().__init__()
        self.pieces, self.dim = pieces, dim

    def forward(self, x: Any) -> Tensor:
        return ops.maxout(x, self.pieces, self.dim)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}, dim={self.dim}"


class MaxoutLinear(Module):
    """max over p of w_p^T x + b_p: x (*, in_features) -> (*, out_features), a dense maxout layer.

    Its weight is (out_features * pieces, in_features), the pieces of one output adjacent.
    """

    def __init__(self, in_features: int, out_features: int, pieces: int = 2, bias: bool = True) -> None:
        super().__init__()
        if pieces < 1:
            raise ProblemError(f"MaxoutLinear: pieces is {pieces}; expected at least 1")
        self.pieces = pieces
        self.linear = Linear(in_features, out_features * pieces, bias)

    def forward(self, x: Any) -> Tensor:
        return ops.maxout(self.linear(x), self.pieces, -1)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"
