# SPDX-License-Identifier: Apache-2.0
"""The layers, with PyTorch's names, argument order and state_dict keys."""

from typing import Any

import numpy as np

from .. import ops, pooling
from .._core import ProblemError
from ..geometry import as_int, per_axis
from ..tensor import Tensor, as_tensor
from . import init
from .module import Module, Parameter


class _Pool(Module):
    rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        per_axis(kernel_size, "kernel_size", type(self).__name__, self.rank)
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.dilation, self.return_indices, self.ceil_mode = dilation, return_indices, ceil_mode

    def forward(self, x: Any) -> Any:
        pool = (pooling.max_pool1d, pooling.max_pool2d, pooling.max_pool3d)[self.rank - 1]
        return pool(as_tensor(x), self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                    self.return_indices)  # fmt: skip


class MaxPool1d(_MaxPool):
    """`fc.max_pool1d` as a layer."""

    rank = 1


class MaxPool2d(_MaxPool):
    """`fc.max_pool2d` as a layer."""

    rank = 2


class MaxPool3d(_MaxPool):
    """`fc.max_pool3d` as a layer."""

    rank = 3


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Any) -> Tensor:
        pool = (pooling.avg_pool1d, pooling.avg_pool2d, pooling.avg_pool3d)[self.rank - 1]
        return pool(as_tensor(x), self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool1d(_AvgPool):
    """`fc.avg_pool1d` as a layer."""

    rank = 1


class AvgPool2d(_AvgPool):
    """`fc.avg_pool2d` as a layer."""

    rank = 2


class AvgPool3d(_AvgPool):
    """`fc.avg_pool3d` as a layer."""

    rank = 3


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


class _BatchNorm(Module):
    dimensions: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.num_features = as_int(num_features, "num_features", type(self).__name__, 1)
        self.eps, self.momentum = eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self.register_parameter("weight", Parameter(np.ones(num_features, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(num_features, dtype)) if affine else None)
        tracks = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if tracks else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if tracks else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracks else None)

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim not in self.dimensions or x.shape[1] != self.num_features:
            raise ProblemError(
                f"{type(self).__name__}: x has shape {x.shape}; expected {' or '.join(map(str, self.dimensions))} "
                f"dimensions with {self.num_features} channels in the second"
            )
        if self.training and self.track_running_stats:
            self.num_batches_tracked += 1
        return ops.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                              self.training or not self.track_running_stats, self.momentum, self.eps)  # fmt: skip

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, W); see `fc.nn.functional.batch_norm`."""

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W)."""

    dimensions = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W)."""

    dimensions = (5,)
