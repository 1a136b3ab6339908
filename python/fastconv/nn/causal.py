# SPDX-License-Identifier: Apache-2.0
"""Causal convolution as a layer, for whole sequences and for streams."""

from typing import Any

import numpy as np

from ..causal import causal_conv1d
from ..tensor import Tensor, as_tensor
from .conv import _ConvBase


class CausalConv1d(_ConvBase):
    """`fc.causal_conv1d` with learnt weight (K, C/groups, S) and bias: x (N, C, W) -> (N, K, W).

    A stream that gets a sequence in pieces gives the bits that the layer gives on the whole of it:

        stream = layer.stream()
        y = [stream(piece) for piece in pieces]

    Its state_dict is that of `Conv1d`.
    """

    rank = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        dtype: Any = np.float32,
        *,
        activation: Any = None,
        layout: str = "channels_first",
        algorithm: str | None = None,
    ) -> None:
        per_group, _ = self.channels(in_channels, out_channels, groups)
        super().__init__(in_channels, out_channels, kernel_size, 1, 0, dilation, groups, bias,
                         (out_channels, per_group), dtype, activation, layout, algorithm)  # fmt: skip

    def forward(self, x: Any) -> Tensor:
        return self.step(x)[0]

    def step(self, x: Any, state: Any = None) -> tuple[Tensor, Tensor]:
        """(y, state): the next piece of a sequence, after the state of the one before; None at the beginning."""
        return causal_conv1d(as_tensor(x), self.weight, self.bias, state, self.dilation, self.groups,
                             activation=self.activation, layout=self.layout, algorithm=self.algorithm)  # fmt: skip

    def stream(self) -> "CausalStream":
        """A new sequence, to be fed piece by piece."""
        return CausalStream(self)


class CausalStream:
    """A sequence on its way through a `CausalConv1d`: call it with each piece.

    Attributes:
        state: the inputs that the next piece looks back at; None before the first. Gradients end at it.
    """

    def __init__(self, layer: CausalConv1d) -> None:
        self.layer = layer
        self.state: Tensor | None = None

    def __call__(self, x: Any) -> Tensor:
        y, state = self.layer.step(x, self.state)
        self.state = state.detach()
        return y

    def reset(self) -> None:
        """Begin another sequence."""
        self.state = None
