# SPDX-License-Identifier: Apache-2.0
"""Layers in place of torch's own: subclasses that hold the same parameters and compute with fastconv.

    layer = fastconv.torch.nn.Conv2d(64, 128, 3, padding=1)      # the arguments of torch.nn.Conv2d
    layer = fastconv.torch.nn.Conv2d.from_torch(model.conv1)     # or a layer that exists, sharing its parameters

Only `forward` differs: state_dict, hooks, `copy.deepcopy`, pickling and `isinstance` are torch's. In eval mode a
convolution packs its weights at the first call that records no gradient, and again when they change (packed.py).
"""

from typing import Any, Self

import torch

from . import functional
from .packed import refresh


class _FromTorch:
    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """The layer of torch as ours: the same parameters, buffers and hooks (not copies), the same mode.

        Raises:
            TypeError: another class than the one that ours stands for, as a subclass with a forward of its own.
        """
        ours: type = next(base for base in cls.__mro__ if base.__module__ == __name__)
        theirs = getattr(torch.nn, ours.__name__)
        if type(module) is not theirs and type(module) is not ours:
            raise TypeError(f"{cls.__name__}.from_torch: module is a {type(module).__qualname__}; expected "
                            f"torch.nn.{ours.__name__} itself, no subclass of it")  # fmt: skip
        layer = cls.__new__(cls)
        layer.__dict__.update(module.__dict__)
        return layer


class _WithWeight(_FromTorch):
    def refresh(self) -> None:
        """Pack the weights anew at the next call: after a write that torch counts no version for (packed.py)."""
        refresh(self._parameters.get("weight"))  # type: ignore[attr-defined]

    def train(self, mode: bool = True) -> Self:
        if mode:
            self.refresh()  # packed weights are for inference
        return super().train(mode)  # type: ignore[misc]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self.refresh()  # the weights move, maybe to a device where nothing is packed
        return super()._apply(fn, recurse)  # type: ignore[misc]


class _Conv(_WithWeight):
    def forward(self, input: Any) -> Any:
        held = self._parameters  # type: ignore[attr-defined]
        weight = held.get("weight")
        if weight is None:  # computed: torch.nn.utils.parametrize, weight_norm and the like
            weight = self.weight  # type: ignore[attr-defined]
        bias = held["bias"] if "bias" in held else self.bias  # type: ignore[attr-defined]  # noqa: SIM401, getting it is slow
        return self._conv_forward(input, weight, bias)

    def _conv_forward(self, input: Any, weight: Any, bias: Any) -> Any:
        layer: Any = self
        return functional.convolve(len(layer.kernel_size), input, weight, bias, layer.stride, layer.padding,
                                   layer.dilation, layer.groups, layer.padding_mode, not layer.training)  # fmt: skip


class _ConvTranspose(_WithWeight):
    def forward(self, input: Any, output_size: Any = None) -> Any:
        layer: Any = self
        rank = len(layer.kernel_size)
        if layer.padding_mode != "zeros":
            raise ValueError(f"padding_mode is {layer.padding_mode!r}; transposed convolutions have zeros alone")
        extra = layer._output_padding(input, output_size, layer.stride, layer.padding, layer.kernel_size, rank,
                                      layer.dilation)  # fmt: skip
        return functional.convolve_transposed(rank, input, layer.weight, layer.bias, layer.stride, layer.padding, extra,
                                              layer.groups, layer.dilation)  # fmt: skip


class Conv1d(_Conv, torch.nn.Conv1d):
    """`torch.nn.Conv1d` by fastconv."""


class Conv2d(_Conv, torch.nn.Conv2d):
    """`torch.nn.Conv2d` by fastconv."""


class Conv3d(_Conv, torch.nn.Conv3d):
    """`torch.nn.Conv3d` by fastconv."""


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    """`torch.nn.ConvTranspose1d` by fastconv."""


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` by fastconv."""


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` by fastconv."""


class _MaxPool(_FromTorch):
    _rank: int

    def forward(self, input: Any) -> Any:
        layer: Any = self
        return functional.pool_max(self._rank, input, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                                   layer.ceil_mode, layer.return_indices)  # fmt: skip


class _AvgPool(_FromTorch):
    _rank: int

    def forward(self, input: Any) -> Any:
        layer: Any = self
        return functional.pool_average(self._rank, input, layer.kernel_size, layer.stride, layer.padding,
                                       layer.ceil_mode, layer.count_include_pad,
                                       getattr(layer, "divisor_override", None))  # fmt: skip


class MaxPool1d(_MaxPool, torch.nn.MaxPool1d):
    """`torch.nn.MaxPool1d` by fastconv."""

    _rank = 1


class MaxPool2d(_MaxPool, torch.nn.MaxPool2d):
    """`torch.nn.MaxPool2d` by fastconv."""

    _rank = 2


class MaxPool3d(_MaxPool, torch.nn.MaxPool3d):
    """`torch.nn.MaxPool3d` by fastconv."""

    _rank = 3


class AvgPool1d(_AvgPool, torch.nn.AvgPool1d):
    """`torch.nn.AvgPool1d` by fastconv."""

    _rank = 1


class AvgPool2d(_AvgPool, torch.nn.AvgPool2d):
    """`torch.nn.AvgPool2d` by fastconv."""

    _rank = 2


class AvgPool3d(_AvgPool, torch.nn.AvgPool3d):
    """`torch.nn.AvgPool3d` by fastconv."""

    _rank = 3


class _BatchNorm(_FromTorch):
    def forward(self, input: Any) -> Any:
        layer: Any = self
        if not takes_batch_statistics(layer):
            return super().forward(input)  # type: ignore[misc]
        layer._check_input_dim(input)
        mean = variance = None
        factor = layer.momentum or 0.0
        if layer.training and layer.track_running_stats:
            mean, variance = layer.running_mean, layer.running_var
            if layer.num_batches_tracked is not None:
                layer.num_batches_tracked.add_(1)
                if layer.momentum is None:  # the mean of all batches so far
                    factor = 1.0 / float(layer.num_batches_tracked)
        return functional.batch_norm(input, mean, variance, layer.weight, layer.bias, True, factor, layer.eps)


def takes_batch_statistics(module: Any) -> bool:
    """Whether a batch norm, torch's or ours, normalises by its input's statistics in its present mode; by running ones
    torch's kernels compute, in both."""
    return module.training or (module.running_mean is None and module.running_var is None)


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, in training by fastconv."""


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, in training by fastconv."""


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, in training by fastconv."""


__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]
