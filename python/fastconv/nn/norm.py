# SPDX-License-Identifier: Apache-2.0
"""Normalisation layers, with PyTorch's names, argument order and state_dict keys.

Where x has channels, `layout="channels_last"` makes it (N, *, C). eps is added to the variance below the root.
"""

from typing import Any

import numpy as np

from .. import ops
from .._core import ProblemError
from ..geometry import LAYOUTS, as_int
from ..ops.group_norm import row_shape
from ..tensor import Tensor, as_tensor
from .module import Module, Parameter


class _RunningNorm(Module):
    """What batch and instance normalisation share: gamma, beta and running statistics, each of which may be absent."""

    # How many dimensions x may have, and which of these are without a batch axis.
    dimensions: tuple[int, ...]
    unbatched: tuple[int, ...] = ()

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        dtype: Any,
        layout: str,
    ) -> None:
        super().__init__()
        self.num_features = as_int(num_features, "num_features", type(self).__name__, 1)
        self.eps, self.momentum, self.layout = eps, momentum, _known(layout, type(self).__name__)
        self.affine, self.track_running_stats = affine, track_running_stats
        self.register_parameter("weight", Parameter(np.ones(num_features, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(num_features, dtype)) if affine else None)
        tracks = track_running_stats
        self.register_buffer("running_mean", np.zeros(num_features, dtype) if tracks else None)
        self.register_buffer("running_var", np.ones(num_features, dtype) if tracks else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if tracks else None)

    def reset_running_stats(self) -> None:
        """Running mean 0 and variance 1, no batches seen."""
        if self.track_running_stats:
            self.running_mean[...], self.running_var[...], self.num_batches_tracked[...] = 0, 1, 0

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, fresh running statistics."""
        self.reset_running_stats()
        if self.affine:
            for parameter, value in ((self.weight, 1), (self.bias, 0)):
                parameter.data[...] = value
                parameter.bump_version()

    def _checked(self, x: Any) -> Tensor:
        x = as_tensor(x)
        axis = -1 if self.layout == "channels_last" else 0 if x.ndim in self.unbatched else 1
        if x.ndim not in self.dimensions or x.shape[axis] != self.num_features:
            where = {-1: "last", 0: "first", 1: "second"}[axis]
            raise ProblemError(
                f"{type(self).__name__}: x has shape {x.shape}; expected {' or '.join(map(str, self.dimensions))} "
                f"dimensions with {self.num_features} channels in the {where}"
            )
        return x

    def extra_repr(self) -> str:
        parts = f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"
        parts += f", track_running_stats={self.track_running_stats}"
        return parts + _layout_words(self.layout)


class _BatchNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: Any = np.float32,
        *,
        layout: str = "channels_first",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, layout)

    def forward(self, x: Any) -> Tensor:
        x = self._checked(x)
        keeps = self.training and self.track_running_stats
        if keeps:
            self.num_batches_tracked += 1
        # Without a momentum: the plain mean over all batches so far.
        momentum = self.momentum if self.momentum is not None else 1 / max(1, int(self.num_batches_tracked or 0))
        return ops.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias,
                              self.training or not self.track_running_stats, momentum, self.eps,
                              layout=self.layout)  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, W); see `fc.nn.functional.batch_norm`.

    Training takes mean and biased variance of the batch, and moves running_mean and running_var (unbiased) towards
    them by `momentum`; None makes them the mean over all batches. Evaluation uses the running statistics, or the
    batch's with track_running_stats=False. affine=False leaves gamma and beta (weight and bias) away.
    """

    dimensions = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W); see `BatchNorm1d`."""

    dimensions = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W); see `BatchNorm1d`."""

    dimensions = (5,)


class _InstanceNorm(_RunningNorm):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        dtype: Any = np.float32,
        *,
        layout: str = "channels_first",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, dtype, layout)

    def forward(self, x: Any) -> Tensor:
        x = self._checked(x)
        alone = x.ndim in self.unbatched
        momentum = 0.0 if self.momentum is None else self.momentum
        y = ops.instance_norm(x.reshape(1, *x.shape) if alone else x, self.running_mean, self.running_var, self.weight,
                              self.bias, self.training or not self.track_running_stats, momentum, self.eps,
                              layout=self.layout)  # fmt: skip
        return y.reshape(x.shape) if alone else y


class InstanceNorm1d(_InstanceNorm):
    """Each channel of each example normalised by itself, (N, C, W) or (C, W); see `fc.nn.functional.instance_norm`.

    As in PyTorch, neither gamma and beta nor running statistics unless asked for.
    """

    dimensions, unbatched = (2, 3), (2,)


class InstanceNorm2d(_InstanceNorm):
    """Each channel of each example normalised by itself, (N, C, H, W) or (C, H, W); see `InstanceNorm1d`."""

    dimensions, unbatched = (3, 4), (3,)


class InstanceNorm3d(_InstanceNorm):
    """Each channel of each example normalised by itself, (N, C, D, H, W) or (C, D, H, W); see `InstanceNorm1d`."""

    dimensions, unbatched = (4, 5), (4,)


class GroupNorm(Module):
    """Each of num_groups groups of channels of each example normalised by itself: x (N, C, *) keeps its shape."""

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: Any = np.float32,
        *,
        layout: str = "channels_first",
    ) -> None:
        super().__init__()
        self.num_groups = as_int(num_groups, "num_groups", "GroupNorm", 1)
        self.num_channels = as_int(num_channels, "num_channels", "GroupNorm", 1)
        if num_channels % num_groups:
            raise ProblemError(f"GroupNorm: num_groups={num_groups} does not divide num_channels={num_channels}")
        self.eps, self.affine, self.layout = eps, affine, _known(layout, "GroupNorm")
        self.register_parameter("weight", Parameter(np.ones(num_channels, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(num_channels, dtype)) if affine else None)

    def forward(self, x: Any) -> Tensor:
        x = as_tensor(x)
        if x.ndim < 2 or x.shape[-1 if self.layout == "channels_last" else 1] != self.num_channels:
            words = f"(N, *, {self.num_channels})" if self.layout == "channels_last" else f"(N, {self.num_channels}, *)"
            raise ProblemError(f"GroupNorm: x has shape {x.shape}; expected {words}")
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps, layout=self.layout)

    def extra_repr(self) -> str:
        parts = f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"
        return parts + _layout_words(self.layout)


class LayerNorm(Module):
    """x (*, *normalized_shape) normalised over its last axes; gamma and beta (weight and bias) have their shape."""

    def __init__(
        self,
        normalized_shape: Any,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: Any = np.float32,
    ) -> None:
        super().__init__()
        self.normalized_shape = row_shape(normalized_shape, "LayerNorm")
        self.eps, self.elementwise_affine = eps, elementwise_affine
        affine, shape = elementwise_affine, self.normalized_shape
        self.register_parameter("weight", Parameter(np.ones(shape, dtype)) if affine else None)
        self.register_parameter("bias", Parameter(np.zeros(shape, dtype)) if affine and bias else None)

    def forward(self, x: Any) -> Tensor:
        return ops.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"


class LocalResponseNorm(Module):
    """`fc.local_response_norm` of x (N, C, *) as a layer: PyTorch's arguments, and which windows are meant."""

    def __init__(
        self,
        size: int,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        *,
        region: str = "across_channels",
        extra: str = "before",
        layout: str = "channels_first",
    ) -> None:
        super().__init__()
        self.size = as_int(size, "size", "LocalResponseNorm", 1)
        self.alpha, self.beta, self.k = alpha, beta, k
        self.region, self.extra, self.layout = region, extra, _known(layout, "LocalResponseNorm")

    def forward(self, x: Any) -> Tensor:
        return ops.local_response_norm(x, self.size, self.alpha, self.beta, self.k, region=self.region,
                                       extra=self.extra, layout=self.layout)  # fmt: skip

    def extra_repr(self) -> str:
        parts = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        parts += "" if self.region == "across_channels" else f", region={self.region!r}"
        return parts + _layout_words(self.layout)


def _known(layout: str, caller: str) -> str:
    if layout not in LAYOUTS:
        raise ProblemError(f"{caller}: layout is {layout!r}; expected one of {', '.join(LAYOUTS)}")
    return layout


def _layout_words(layout: str) -> str:
    return "" if layout == "channels_first" else f", layout={layout!r}"
