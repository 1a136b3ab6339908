# SPDX-License-Identifier: Apache-2.0
"""Local response normalisation: each value divided by a power of the squares around it.

    y = x / (k + alpha / size^axes * sum of squares in the window)^beta

Krizhevsky, Sutskever and Hinton, "ImageNet classification with deep convolutional neural networks", 2012, section 3.3,
whose alpha is not divided: theirs is alpha / size here.
"""

from typing import Any, NamedTuple

from .. import _core
from .._core import ProblemError
from ..arrays import is_native
from ..autograd import Context, Function, is_grad_enabled
from ..geometry import LAYOUTS, as_int
from ..tensor import Tensor, as_tensor
from .resample import Resample, window_taps
from .shape import reshape

REGIONS = ("across_channels", "within_channel")


class Windows(NamedTuple):
    """A local response normalisation in numbers; alpha is what one square counts."""

    before: int
    after: int
    alpha: float
    beta: float
    k: float
    spatial: bool
    layout: str

    def sums(self, x: Tensor, mirrored: bool = False) -> Tensor:
        """Sums of x over the windows, or, mirrored, over the windows that a cell is in."""
        before, after = (self.after, self.before) if mirrored else (self.before, self.after)
        last = self.layout == "channels_last"
        if self.spatial:
            axes = tuple(range(1, x.ndim - 1) if last else range(2, x.ndim))
        else:
            axes = (x.ndim - 1 if last else 1,)
        return Resample.apply(x, axes=tuple((axis, window_taps(x.shape[axis], before, after)) for axis in axes))


class ResponseNorm(Function):
    @staticmethod
    def forward(ctx: Context, x: Any, *, windows: Windows) -> Any:
        ctx.save(0)
        ctx.windows = windows
        if is_native(x):
            return _core.response_norm_forward(x, *windows)
        sums = windows.sums(Tensor(x * x)).data
        return x * (sums * windows.alpha + windows.k) ** -windows.beta

    @staticmethod
    def backward(ctx: Context, dy: Tensor) -> Tensor:
        (x,), windows = ctx.saved, ctx.windows
        if not is_grad_enabled() and is_native(dy.data, x.data):
            return Tensor(_core.response_norm_backward(dy.data, x.data, *windows))
        base = windows.sums(x * x) * windows.alpha + windows.k
        direct = dy * base**-windows.beta
        ratio = windows.sums(direct * x / base, mirrored=True)
        return direct - x * ratio * (2 * windows.alpha * windows.beta)


def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, *,
                        region: str = "across_channels", extra: str = "before",
                        layout: str = "channels_first") -> Tensor:  # fmt: skip
    """`fc.local_response_norm` for tensors."""
    caller = "local_response_norm"
    x = as_tensor(x)
    as_int(size, "size", caller, 1)
    for name, value, known in (
        ("region", region, REGIONS),
        ("extra", extra, ("before", "after")),
        ("layout", layout, LAYOUTS),
    ):
        if value not in known:
            raise ProblemError(f"{caller}: {name} is {value!r}; expected one of {', '.join(known)}")
    spatial = region == "within_channel"
    if x.ndim < 2 or (spatial and not 3 <= x.ndim <= 5):
        expected = "1 to 3 spatial axes" if spatial else "at least (N, C)"
        raise ProblemError(f"{caller}: x has shape {x.shape}; expected {expected} for region {region!r}")
    longer, shorter = size // 2, (size - 1) // 2
    before, after = (longer, shorter) if extra == "before" else (shorter, longer)
    share = alpha / size ** (x.ndim - 2 if spatial else 1)
    if x.size == 0:
        return x
    shape = x.shape
    if not spatial and x.ndim > 3:  # pixels are all alike
        x = reshape(x, (*shape[:2], -1) if layout == "channels_first" else (shape[0], -1, shape[-1]))
    windows = Windows(before, after, share, beta, k, spatial, layout)
    return reshape(ResponseNorm.apply(x, windows=windows), shape)
