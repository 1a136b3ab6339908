# SPDX-License-Identifier: Apache-2.0
"""The native calls of convolution on tensors.

Dense tensors of the CPU go by their addresses to a `ConvAt`, which has seen their shapes before: three views as NumPy
arrays would cost a small call as much as its arithmetic. All others go as arrays.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from .. import _core
from .tensors import (
    DTYPES,
    FORMATS,
    LAYOUTS,
    as_array,
    as_tensor,
    expect_kernel_tensor,
    image_array,
    image_tensor,
    is_channels_last,
    kernels,
    options,
    stream_of,
)


class Static(NamedTuple):
    """What the three share besides tensors: numbers per spatial axis, and how x continues beyond its border."""

    stride: Sequence[int]
    pad_begin: Sequence[int]
    pad_end: Sequence[int]
    dilation: Sequence[int]
    groups: int
    padding_mode: str = "zeros"
    pad_value: float = 0.0

    def linear(self) -> "Static":
        """With zeros for the pad value: what a *change* of x sees beyond the border."""
        return self._replace(pad_value=0.0) if self.pad_value else self


def _expect_one_dtype(x: Any, w: Any, bias: Any) -> None:
    dtype = x.dtype
    if dtype not in DTYPES or w.dtype is not dtype or (bias is not None and bias.dtype is not dtype):
        expect_kernel_tensor(x, "x")
        expect_kernel_tensor(w, "w", dtype)
        expect_kernel_tensor(bias, "bias", dtype)


# ---- By address ----------------------------------------------------------------------------------------------------

_WORDS = {torch.float32: "f32", torch.float64: "f64", torch.float16: "f16"}  # of NumPy's own dtypes
_bfloat16 = torch.bfloat16


@functools.lru_cache(maxsize=1024)
def _call(pass_: str, x: Any, w: Any, dy: Any, bias: Any, last: bool, dtype: Any, s: Static, chosen: Any) -> Any:
    """The convolution of tensors of these shapes, under the chosen options."""
    shapes = [shape if shape is None or not last else (shape[0], *shape[2:], shape[1]) for shape in (x, dy)]
    return _core.ConvAt(pass_, shapes[0], w, shapes[1], bias, *s, LAYOUTS[last], _WORDS[dtype], chosen)


def _address(t: Any, last: bool = False) -> int:
    """Where a dense tensor of the CPU lies in memory (last: as (N, *spatial, C)); 0 for any other."""
    dense = t.is_contiguous(memory_format=FORMATS[t.ndim]) if last else t.is_contiguous()
    return t.data_ptr() if dense and t.is_cpu and not t.is_neg() else 0


# ---- The calls -----------------------------------------------------------------------------------------------------


def forward(x: Any, w: Any, bias: Any, last: bool, s: Static) -> Any:
    """y (N, K, *) of x (N, C, *spatial), w (K, C/groups, *filter) and bias (K,) or None; last: in channels_last."""
    _expect_one_dtype(x, w, bias)
    w = w.contiguous()
    if x.is_cpu and x.dtype is not _bfloat16:
        call = _call("fwd", x.shape, w.shape, None, None if bias is None else bias.shape, last, x.dtype, s, options())
        y = call(_address(x, last), _address(w), 0 if bias is None else _address(bias))
        if y is not None:
            return image_tensor(y, last)
    with stream_of(x):
        shift = None if bias is None else as_array(bias)
        y = kernels(x).conv_forward(image_array(x, last), as_array(w), shift, None, *s, "none", 0.0, LAYOUTS[last],
                                    options(), None)  # fmt: skip
        return image_tensor(y, last)


def transpose(x: Any, w: Any, bias: Any, size: Any, last: bool, s: Static) -> Any:
    """The adjoint of `forward`: (N, K, *size) of x (N, C, *spatial), w (C, K/groups, *filter), bias (K,) or None."""
    _expect_one_dtype(x, w, bias)
    w = w.contiguous()
    shape = (x.shape[0], w.shape[1] * s.groups, *size)
    if x.is_cpu and x.dtype is not _bfloat16:
        call = _call("bwd_data", shape, w.shape, x.shape, None if bias is None else bias.shape, last, x.dtype, s,
                     options())  # fmt: skip
        y = call(_address(x, last), _address(w), 0 if bias is None else _address(bias))
        if y is not None:
            return image_tensor(y, last)
    if last:
        shape = (shape[0], *size, shape[1])
    with stream_of(x):
        shift = None if bias is None else as_array(bias)
        y = kernels(x).conv_backward_data(image_array(x, last), as_array(w), shape, *s[:6], LAYOUTS[last], options(),
                                          None, shift)  # fmt: skip
        return image_tensor(y, last)


def backward_filter(dy: Any, x: Any, size: Any, s: Static) -> Any:
    """The gradient of `forward` for w: (K, C/groups, *size)."""
    if x.dtype not in DTYPES or dy.dtype is not x.dtype:
        expect_kernel_tensor(dy, "dy")
        expect_kernel_tensor(x, "x", dy.dtype)
    last = is_channels_last(x)
    shape = (dy.shape[1], x.shape[1] // s.groups, *size)
    if x.is_cpu and x.dtype is not _bfloat16:
        call = _call("bwd_filter", x.shape, shape, dy.shape, None, last, x.dtype, s, options())
        dw = call(_address(dy, last), _address(x, last))
        if dw is not None:
            return torch.from_numpy(dw)
    with stream_of(x):
        dw = kernels(x).conv_backward_filter(image_array(dy, last), image_array(x, last), shape, *s, LAYOUTS[last],
                                             options(), None)  # fmt: skip
        return as_tensor(dw)


def planned(x: Any, plan: _core.Plan, last: bool) -> Any:
    """`forward` by a plan that was made for images like x."""
    y = None if x.dtype is _bfloat16 else plan.at(_address(x, last), x.shape[0])
    return image_tensor(plan(image_array(x, last)) if y is None else y, last)
