# SPDX-License-Identifier: Apache-2.0
"""Convolution layers and their transposes: PyTorch's names, argument order, state_dict keys and initial values.

Beyond PyTorch's they take an activation, fused into the convolution, a layout, every padding of `fc.conv2d`, and its
`algorithm` and `precision`, which hold for the gradients too.
"""

from typing import Any

import numpy as np

from .. import primitives, transposed
from .._core import ProblemError
from ..geometry import LAYOUTS, activation_words, as_int, check_padding_mode, per_axis
from ..options import Precision, chosen
from ..tensor import Tensor, as_tensor
from . import init
from .module import Module, Parameter


class _ConvBase(Module):
    """What both directions share: the checked arguments, the parameters and their initial values."""

    rank: int

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
                 groups: int, bias: bool, weight_channels: tuple[int, int], dtype: Any, activation: Any,
                 layout: str, algorithm: str | None = None, precision: Precision = None) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        chosen(algorithm, precision)  # an unknown name is said here, not at the first call
        self.algorithm, self.precision = algorithm, precision
        activation_words(activation, name)
        if layout not in LAYOUTS:
            raise ProblemError(f"{name}: layout is {layout!r}; expected one of {LAYOUTS}")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = per_axis(kernel_size, "kernel_size", name, self.rank)
        self.stride = per_axis(stride, "stride", name, self.rank)
        self.dilation = per_axis(dilation, "dilation", name, self.rank)
        self.padding = per_axis(padding, "padding", name, self.rank, 0) if hasattr(padding, "__index__") else padding
        self.groups, self.activation, self.layout = groups, activation, layout
        self.weight = Parameter(np.empty((*weight_channels, *self.kernel_size), dtype))
        self.register_parameter("bias", Parameter(np.empty(out_channels, dtype)) if bias else None)
        self.reset_parameters()

    def channels(self, in_channels: int, out_channels: int, groups: int) -> tuple[int, int]:
        """(in_channels / groups, out_channels / groups), checked."""
        name = type(self).__name__
        as_int(in_channels, "in_channels", name, 1)
        as_int(out_channels, "out_channels", name, 1)
        if in_channels % as_int(groups, "groups", name, 1) or out_channels % groups:
            raise ProblemError(
                f"{name}: groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}"
            )
        return in_channels // groups, out_channels // groups

    def reset_parameters(self) -> None:
        """Draw new initial values."""
        init.default(self.weight, self.bias)

    def extra_repr(self) -> str:
        ones, zeros = (1,) * self.rank, (0,) * self.rank
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        usual = {"padding": zeros, "dilation": ones, "output_padding": zeros, "groups": 1, "bias": True,
                 "padding_mode": "zeros", "activation": None, "layout": "channels_first",
                 "algorithm": None, "precision": None}  # fmt: skip
        for name, value in usual.items():
            own = getattr(self, name, value) if name != "bias" else self.bias is not None
            if own != value:
                parts.append(f"{name}={own}")
        return ", ".join(parts)


class _Conv(_ConvBase):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        dtype: Any = np.float32,
        *,
        pad_value: float = 0.0,
        activation: Any = None,
        layout: str = "channels_first",
        algorithm: str | None = None,
        precision: Precision = None,
    ) -> None:
        check_padding_mode(padding_mode, type(self).__name__)
        per_group, _ = self.channels(in_channels, out_channels, groups)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         (out_channels, per_group), dtype, activation, layout, algorithm, precision)  # fmt: skip
        self.padding_mode, self.pad_value = padding_mode, pad_value

    def forward(self, x: Any) -> Tensor:
        convolve = (primitives.conv1d, primitives.conv2d, primitives.conv3d)[self.rank - 1]
        return convolve(as_tensor(x), self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups,
                        padding_mode=self.padding_mode, pad_value=self.pad_value, activation=self.activation,
                        layout=self.layout, algorithm=self.algorithm, precision=self.precision)  # fmt: skip


class Conv1d(_Conv):
    """`fc.conv1d` with learnt weight (K, C/groups, S) and bias: x (N, C, W) -> (N, K, Q)."""

    rank = 1


class Conv2d(_Conv):
    """`fc.conv2d` with learnt weight (K, C/groups, R, S) and bias: x (N, C, H, W) -> (N, K, P, Q)."""

    rank = 2


class Conv3d(_Conv):
    """`fc.conv3d` with learnt weight (K, C/groups, T, R, S) and bias: x (N, C, D, H, W)."""

    rank = 3


class _ConvTranspose(_ConvBase):
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        dtype: Any = np.float32,
        *,
        activation: Any = None,
        layout: str = "channels_first",
        algorithm: str | None = None,
        precision: Precision = None,
    ) -> None:
        name = type(self).__name__
        if padding_mode != "zeros":
            raise ProblemError(
                f"{name}: padding_mode is {padding_mode!r}; a transposed convolution knows 'zeros' alone"
            )
        _, per_group = self.channels(in_channels, out_channels, groups)
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
                         (in_channels, per_group), dtype, activation, layout, algorithm, precision)  # fmt: skip
        self.output_padding = per_axis(output_padding, "output_padding", name, self.rank, 0)
        self.padding_mode = padding_mode

    def forward(self, x: Any, output_size: Any = None) -> Tensor:
        """y; `output_size` (its spatial sizes, or a whole shape) takes the place of the layer's output_padding."""
        transpose = (transposed.conv_transpose1d, transposed.conv_transpose2d, transposed.conv_transpose3d)
        extra = self.output_padding if output_size is None else 0
        return transpose[self.rank - 1](as_tensor(x), self.weight, self.bias, self.stride, self.padding, extra,
                                        self.groups, self.dilation, output_size=output_size,
                                        activation=self.activation, layout=self.layout, algorithm=self.algorithm,
                                        precision=self.precision)  # fmt: skip


class ConvTranspose1d(_ConvTranspose):
    """`fc.conv_transpose1d` with learnt weight (C, K/groups, S) and bias: x (N, C, W) -> (N, K, Q)."""

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """`fc.conv_transpose2d` with learnt weight (C, K/groups, R, S) and bias: x (N, C, H, W) -> (N, K, P, Q)."""

    rank = 2


class ConvTranspose3d(_ConvTranspose):
    """`fc.conv_transpose3d` with learnt weight (C, K/groups, T, R, S) and bias: x (N, C, D, H, W)."""

    rank = 3
