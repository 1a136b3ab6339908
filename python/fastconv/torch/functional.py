# SPDX-License-Identifier: Apache-2.0
"""Convolution, pooling and batch norms by the names, the arguments and the conventions of `torch.nn.functional`.

Tensors of float32, float64, float16 and bfloat16, on the CPU or a CUDA device, with or without a batch axis. What comes
in `torch.channels_last` is computed and returned in it. All are differentiable twice, and inside `torch.compile` and
`torch.export` they are ops of torch.
"""

import functools
import math
from typing import Any

import torch
from torch.nn import Parameter

from .._core import ProblemError
from ..geometry import per_axis, remember
from . import batch_norm as norm
from .conv import conv, conv_direct, conv_transpose
from .conv_kernels import Static, planned
from .packed import plan_of
from .pool import avg_pool, avg_pool_direct, max_pool, max_pool_direct
from .pool_kernels import AvgStatic, MaxStatic
from .tensors import (
    autocast_dtype,
    cast,
    is_channels_last,
    is_direct,
    needs_graph,
    numbers,
)


def convolve(rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int,
             padding_mode: str = "zeros", packed: bool = False) -> Any:  # fmt: skip
    """What `conv1d`, `conv2d` and `conv3d` do.

    Args:
        padding_mode: besides zeros, "reflect", "replicate" or "circular", as `torch.nn.Conv2d` has it.
        packed: whether weights are packed at the first call without gradients, and not at the second.
    """
    if x.ndim != rank + 2:
        if x.ndim != rank + 1:
            raise ProblemError(f"conv{rank}d: x has shape {tuple(x.shape)}; expected {rank + 2} axes, or {rank + 1}")
        return convolve(rank, x.unsqueeze(0), w, bias, stride, padding, dilation, groups, padding_mode, packed)[0]
    filter = numbers(w.shape[2:]) if padding == "same" else None
    if not is_direct(x, w, bias):
        return conv(x, w, bias, _static(rank, filter, stride, padding, dilation, groups, padding_mode))
    try:
        s = _cached_static(rank, filter, stride, padding, dilation, groups, padding_mode)
    except TypeError:  # a list is not hashable
        s = _static(rank, filter, stride, padding, dilation, groups, padding_mode)
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    if dtype is not None:
        x = cast(x, dtype)
    if type(w) is Parameter and not needs_graph(x, w, bias):
        found = plan_of(w, bias, x, s, packed, dtype is not None)
        if found is not None:
            return planned(x, *found)
    if dtype is not None:
        w, bias = cast(w, dtype), cast(bias, dtype)
    return conv_direct(x, w, bias, s)


def convolve_transposed(rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
                        groups: int, dilation: Any) -> Any:  # fmt: skip
    """What `conv_transpose1d`, `conv_transpose2d` and `conv_transpose3d` do."""
    if x.ndim == rank + 1:
        return convolve_transposed(rank, x.unsqueeze(0), w, bias, stride, padding, output_padding, groups, dilation)[0]
    if x.ndim != rank + 2:
        raise ProblemError(f"conv_transpose{rank}d: x has shape {tuple(x.shape)}; expected {rank + 2} axes, "
                           f"or {rank + 1}")  # fmt: skip
    dtype = autocast_dtype(x)
    if dtype is not None:
        x, w, bias = cast(x, dtype), cast(w, dtype), cast(bias, dtype)
    last = is_channels_last(x) or is_channels_last(w)
    size, tail, s = _transposed(rank, x.shape[2:], w.shape[2:], stride, padding, output_padding, groups, dilation)
    if any(tail):
        x = torch.nn.functional.pad(x, [number for t in reversed(tail) for number in (0, t)])
    return conv_transpose(x, w, bias, size, last, s)


def _axes(value: Any, name: str, rank: int, least: int = 1) -> tuple[int, ...]:
    """One int per axis; like torch's, a tuple of one number is for all axes."""
    if isinstance(value, list | tuple):
        value = value[0] if len(value) == 1 else tuple(value)
    return per_axis(value, name, f"conv{rank}d", rank, least)


def _static(rank: int, filter: Any, stride: Any, padding: Any, dilation: Any, groups: int, padding_mode: str) -> Static:
    """The numbers of a convolution from torch's words for them."""
    strides, dilations = _axes(stride, "stride", rank), _axes(dilation, "dilation", rank)
    if padding == "same":
        if any(s != 1 for s in strides):
            raise ProblemError(f"conv{rank}d: padding='same' came with stride={stride}; torch has it for stride 1")
        totals = [(f - 1) * d for f, d in zip(filter, dilations, strict=True)]
        begin, end = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
    else:
        begin = end = _axes(0 if padding == "valid" else padding, "padding", rank, 0)
    return Static(strides, begin, end, dilations, groups, padding_mode)


_cached_static = functools.lru_cache(maxsize=1024)(_static)


def _transposed(rank: int, size: Any, filter: Any, stride: Any, padding: Any, output_padding: Any, groups: int,
                dilation: Any) -> tuple[list[int], list[int], Static]:  # fmt: skip
    """(size of the result, zeros to append to x, the convolution whose adjoint it is) as `transposed_geometry` says."""
    strides, dilations = _axes(stride, "stride", rank), _axes(dilation, "dilation", rank)
    begin, extra = _axes(padding, "padding", rank, 0), _axes(output_padding, "output_padding", rank, 0)
    for o, s, d in zip(extra, strides, dilations, strict=True):
        if o >= max(s, d):
            raise ProblemError(f"conv_transpose{rank}d: output_padding is {o}; expected less than stride {s} or "
                               f"dilation {d}")  # fmt: skip
    axes = zip(size, filter, strides, dilations, begin, extra, strict=True)
    plane = [(n - 1) * s + (f - 1) * d + 1 - 2 * p + o for n, f, s, d, p, o in axes]
    tail = [max(o - p, 0) // s for o, p, s in zip(extra, begin, strides, strict=True)]
    end = tuple(max(p - o, 0) for o, p in zip(extra, begin, strict=True))
    return plane, tail, Static(strides, begin, end, dilations, groups)


def conv1d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Any:  # fmt: skip
    """`torch.nn.functional.conv1d`: (N, C, W), (K, C/groups, S) -> (N, K, Q)."""
    return convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Any:  # fmt: skip
    """`torch.nn.functional.conv2d`: (N, C, H, W), (K, C/groups, R, S) -> (N, K, P, Q).

    Args:
        stride, dilation: an int or one per axis.
        padding: an int, one per axis, "valid" or (with stride 1) "same".

    Raises:
        ProblemError, TypeError: shapes, numbers or dtypes that do not fit together.
        DeviceError: tensors of a GPU, without the CUDA library.
    """
    return convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1) -> Any:  # fmt: skip
    """`torch.nn.functional.conv3d`: (N, C, D, H, W), (K, C/groups, T, R, S) -> (N, K, O, P, Q)."""
    return convolve(3, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Any:  # fmt: skip
    """`torch.nn.functional.conv_transpose1d`: (N, C, W), (C, K/groups, S) -> (N, K, Q)."""
    return convolve_transposed(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Any:  # fmt: skip
    """`torch.nn.functional.conv_transpose2d`: (N, C, H, W), (C, K/groups, R, S) -> (N, K, P, Q). Errors as conv2d."""
    return convolve_transposed(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
                     output_padding: Any = 0, groups: int = 1, dilation: Any = 1) -> Any:  # fmt: skip
    """`torch.nn.functional.conv_transpose3d`: (N, C, D, H, W), (C, K/groups, T, R, S) -> (N, K, O, P, Q)."""
    return convolve_transposed(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def _with_batch(x: Any, rank: int, kind: str) -> Any:
    if x.ndim != rank + 1:
        raise ProblemError(f"{kind}_pool{rank}d: x has shape {tuple(x.shape)}; expected {rank + 2} axes, or {rank + 1}")
    return x.unsqueeze(0)


def pool_max(rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
             return_indices: bool) -> Any:  # fmt: skip
    """What `max_pool1d`, `max_pool2d` and `max_pool3d` do."""
    direct = is_direct(x)
    s = (_cached_max if direct else _max_static)(rank, kernel_size, stride, padding, dilation, ceil_mode)
    pool = max_pool_direct if direct else max_pool
    if x.ndim != rank + 2:
        y, indices = pool(_with_batch(x, rank, "max"), s, return_indices)
        return (y[0], indices[0]) if return_indices else y[0]
    y, indices = pool(x, s, return_indices)
    return (y, indices) if return_indices else y


def pool_average(rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
                 count_include_pad: bool, divisor_override: Any) -> Any:  # fmt: skip
    """What `avg_pool1d`, `avg_pool2d` and `avg_pool3d` do."""
    direct = is_direct(x)
    s = (_cached_avg if direct else _avg_static)(rank, kernel_size, stride, padding, ceil_mode, count_include_pad,
                                                 divisor_override)  # fmt: skip
    pool = avg_pool_direct if direct else avg_pool
    return pool(x, s) if x.ndim == rank + 2 else pool(_with_batch(x, rank, "avg"), s)[0]


def _max_static(rank: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> MaxStatic:
    """The numbers of a pooling from torch's words for them."""
    window = _axes(kernel_size, "kernel_size", rank)
    strides = window if _is_default(stride) else _axes(stride, "stride", rank)
    begin, dilations = _axes(padding, "padding", rank, 0), _axes(dilation, "dilation", rank)
    return MaxStatic(window, strides, begin, dilations, bool(ceil_mode))


def _avg_static(rank: int, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
                divisor_override: Any) -> AvgStatic:  # fmt: skip
    window = _axes(kernel_size, "kernel_size", rank)
    if divisor_override is not None and divisor_override < 1:
        raise ProblemError(f"avg_pool{rank}d: divisor_override is {divisor_override}; expected at least 1")
    strides = window if _is_default(stride) else _axes(stride, "stride", rank)
    begin = _axes(padding, "padding", rank, 0)
    return AvgStatic(window, strides, begin, bool(ceil_mode), bool(count_include_pad), divisor_override or 0)


_cached_max, _cached_avg = remember(_max_static), remember(_avg_static)


def _is_default(stride: Any) -> bool:
    return stride is None or (isinstance(stride, list | tuple) and len(stride) == 0)


def max_pool1d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    """`torch.nn.functional.max_pool1d`, of (N, C, W)."""
    return pool_max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    """`torch.nn.functional.max_pool2d`, of (N, C, H, W): y, or (y, indices). NaN passes through."""
    return pool_max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
               ceil_mode: bool = False, return_indices: bool = False) -> Any:  # fmt: skip
    """`torch.nn.functional.max_pool3d`, of (N, C, D, H, W)."""
    return pool_max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def avg_pool1d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True) -> Any:  # fmt: skip
    """`torch.nn.functional.avg_pool1d`, of (N, C, W)."""
    return pool_average(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Any:  # fmt: skip
    """`torch.nn.functional.avg_pool2d`, of (N, C, H, W)."""
    return pool_average(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
               count_include_pad: bool = True, divisor_override: int | None = None) -> Any:  # fmt: skip
    """`torch.nn.functional.avg_pool3d`, of (N, C, D, H, W)."""
    return pool_average(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


_batch_norm_of_torch = torch.nn.functional.batch_norm


def batch_norm(input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
               training: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> Any:  # fmt: skip
    """`torch.nn.functional.batch_norm`, of (N, C, *): ours by the batch's statistics, of dense float32 and float64
    tensors on the CPU; everything else is torch's, by the running statistics above all."""
    given = running_mean, running_var, weight, bias
    if not (training and momentum is not None and eps > 0 and norm.takes(input, *given)):
        return _batch_norm_of_torch(input, *given, training, momentum, eps)
    y, mean, variance = norm.batch_norm(input, weight, bias, eps)
    values = input.shape[0] * math.prod(input.shape[2:])
    norm.follow(running_mean, running_var, mean, variance, values, momentum)
    return y
