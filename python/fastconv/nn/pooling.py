# SPDX-License-Identifier: Apache-2.0
"""The pooling layers, with PyTorch's names and argument order; MinPool and the global ones are ours."""

from typing import Any

from .. import adaptive_pooling, lp_pooling, pooling, unpooling
from ..geometry import per_axis
from ..tensor import as_tensor
from .module import Module


class _Pool(Module):
    rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()
        per_axis(kernel_size, "kernel_size", type(self).__name__, self.rank)
        self.kernel_size, self.padding = kernel_size, padding
        self.stride = kernel_size if stride is None else stride

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _ExtremePool(_Pool):
    kind: str

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
        pool = getattr(pooling, f"{self.kind}_pool{self.rank}d")
        return pool(as_tensor(x), self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                    self.return_indices)  # fmt: skip

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, dilation={self.dilation}, ceil_mode={self.ceil_mode}"


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(kernel_size, stride, padding)
        self.ceil_mode, self.count_include_pad, self.divisor_override = ceil_mode, count_include_pad, divisor_override

    def forward(self, x: Any) -> Any:
        pool = getattr(pooling, f"avg_pool{self.rank}d")
        return pool(as_tensor(x), self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
                    self.divisor_override)  # fmt: skip


class _LPPool(_Pool):
    def __init__(self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> None:
        super().__init__(kernel_size, stride)
        self.norm_type, self.ceil_mode = norm_type, ceil_mode

    def forward(self, x: Any) -> Any:
        pool = getattr(lp_pooling, f"lp_pool{self.rank}d")
        return pool(as_tensor(x), self.norm_type, self.kernel_size, self.stride, self.ceil_mode)

    def extra_repr(self) -> str:
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class _AdaptivePool(Module):
    rank: int

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class _AdaptiveAvgPool(_AdaptivePool):
    def forward(self, x: Any) -> Any:
        return getattr(adaptive_pooling, f"adaptive_avg_pool{self.rank}d")(as_tensor(x), self.output_size)


class _AdaptiveMaxPool(_AdaptivePool):
    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices

    def forward(self, x: Any) -> Any:
        pool = getattr(adaptive_pooling, f"adaptive_max_pool{self.rank}d")
        return pool(as_tensor(x), self.output_size, self.return_indices)


class _MaxUnpool(_Pool):
    def forward(self, x: Any, indices: Any, output_size: Any = None) -> Any:
        unpool = getattr(unpooling, f"max_unpool{self.rank}d")
        return unpool(as_tensor(x), indices, self.kernel_size, self.stride, self.padding, output_size)


class _GlobalPool(Module):
    rank: int
    kind: str

    def forward(self, x: Any) -> Any:
        return getattr(adaptive_pooling, f"global_{self.kind}_pool{self.rank}d")(as_tensor(x))


class MaxPool1d(_ExtremePool):
    """`fc.max_pool1d` as a layer."""

    rank = 1
    kind = "max"


class MaxPool2d(_ExtremePool):
    """`fc.max_pool2d` as a layer."""

    rank = 2
    kind = "max"


class MaxPool3d(_ExtremePool):
    """`fc.max_pool3d` as a layer."""

    rank = 3
    kind = "max"


class MinPool1d(_ExtremePool):
    """`fc.min_pool1d` as a layer."""

    rank = 1
    kind = "min"


class MinPool2d(_ExtremePool):
    """`fc.min_pool2d` as a layer."""

    rank = 2
    kind = "min"


class MinPool3d(_ExtremePool):
    """`fc.min_pool3d` as a layer."""

    rank = 3
    kind = "min"


class AvgPool1d(_AvgPool):
    """`fc.avg_pool1d` as a layer."""

    rank = 1


class AvgPool2d(_AvgPool):
    """`fc.avg_pool2d` as a layer."""

    rank = 2


class AvgPool3d(_AvgPool):
    """`fc.avg_pool3d` as a layer."""

    rank = 3


class LPPool1d(_LPPool):
    """`fc.lp_pool1d` as a layer."""

    rank = 1


class LPPool2d(_LPPool):
    """`fc.lp_pool2d` as a layer."""

    rank = 2


class LPPool3d(_LPPool):
    """`fc.lp_pool3d` as a layer."""

    rank = 3


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    """`fc.adaptive_avg_pool1d` as a layer."""

    rank = 1


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    """`fc.adaptive_avg_pool2d` as a layer."""

    rank = 2


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    """`fc.adaptive_avg_pool3d` as a layer."""

    rank = 3


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """`fc.adaptive_max_pool1d` as a layer."""

    rank = 1


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """`fc.adaptive_max_pool2d` as a layer."""

    rank = 2


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """`fc.adaptive_max_pool3d` as a layer."""

    rank = 3


class MaxUnpool1d(_MaxUnpool):
    """`fc.max_unpool1d` as a layer, called with x and indices."""

    rank = 1


class MaxUnpool2d(_MaxUnpool):
    """`fc.max_unpool2d` as a layer, called with x and indices."""

    rank = 2


class MaxUnpool3d(_MaxUnpool):
    """`fc.max_unpool3d` as a layer, called with x and indices."""

    rank = 3


class GlobalAvgPool1d(_GlobalPool):
    """`fc.global_avg_pool1d` as a layer: (N, C, 1)."""

    rank = 1
    kind = "avg"


class GlobalAvgPool2d(_GlobalPool):
    """`fc.global_avg_pool2d` as a layer: (N, C, 1, 1)."""

    rank = 2
    kind = "avg"


class GlobalAvgPool3d(_GlobalPool):
    """`fc.global_avg_pool3d` as a layer: (N, C, 1, 1, 1)."""

    rank = 3
    kind = "avg"


class GlobalMaxPool1d(_GlobalPool):
    """`fc.global_max_pool1d` as a layer: (N, C, 1)."""

    rank = 1
    kind = "max"


class GlobalMaxPool2d(_GlobalPool):
    """`fc.global_max_pool2d` as a layer: (N, C, 1, 1)."""

    rank = 2
    kind = "max"


class GlobalMaxPool3d(_GlobalPool):
    """`fc.global_max_pool3d` as a layer: (N, C, 1, 1, 1)."""

    rank = 3
    kind = "max"


class GlobalMinPool1d(_GlobalPool):
    """`fc.global_min_pool1d` as a layer: (N, C, 1)."""

    rank = 1
    kind = "min"


class GlobalMinPool2d(_GlobalPool):
    """`fc.global_min_pool2d` as a layer: (N, C, 1, 1)."""

    rank = 2
    kind = "min"


class GlobalMinPool3d(_GlobalPool):
    """`fc.global_min_pool3d` as a layer: (N, C, 1, 1, 1)."""

    rank = 3
    kind = "min"


class _GlobalLPPool(Module):
    rank: int

    def __init__(self, norm_type: float = 2) -> None:
        super().__init__()
        self.norm_type = norm_type

    def forward(self, x: Any) -> Any:
        return getattr(adaptive_pooling, f"global_lp_pool{self.rank}d")(as_tensor(x), self.norm_type)

    def extra_repr(self) -> str:
        return f"norm_type={self.norm_type}"


class GlobalLPPool1d(_GlobalLPPool):
    """`fc.global_lp_pool1d` as a layer."""

    rank = 1


class GlobalLPPool2d(_GlobalLPPool):
    """`fc.global_lp_pool2d` as a layer."""

    rank = 2


class GlobalLPPool3d(_GlobalLPPool):
    """`fc.global_lp_pool3d` as a layer."""

    rank = 3
