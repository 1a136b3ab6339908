# SPDX-License-Identifier: Apache-2.0
"""The layers, with PyTorch's names, argument order and state_dict keys."""

from typing import Any

import numpy as np

from .. import ops
from ..geometry import as_int
from ..tensor import Tensor
from . import init
from .module import Module, Parameter


class Linear(Module):
    """x weight^T + bias: x (*, in_features) -> (*, out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, dtype: Any = np.float32) -> None:
        super().__init__()
        self.in_features = as_int(in_features, "in_features", "Linear", 1)
        self.out_features = as_int(out_features, "out_features", "Linear", 1)
        self.weight = Parameter(np.empty((out_features, in_features), dtype))
        self.register_parameter("bias", Parameter(np.empty(out_features, dtype)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.default(self.weight, self.bias)

    def forward(self, x: Any) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"
