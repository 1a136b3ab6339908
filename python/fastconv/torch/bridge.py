# SPDX-License-Identifier: Apache-2.0
"""`fc.conv2d` and its family called with torch tensors: the same words, computed by the differentiable operators."""

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

from .. import _core
from ..arrays import kind_of
from ..geometry import activation_words, check_padding_mode, conv_geometry, expect_shape
from ..options import current
from ..options import options as options_block
from ..pool_geometry import pool_geometry
from ..transposed_geometry import transposed_geometry
from .conv import conv, conv_transpose
from .conv_kernels import Static
from .pool import avg_pool, max_pool
from .pool_kernels import AvgStatic, MaxStatic
from .tensors import expect_kernel_tensor, is_channels_last

_ACTIVATIONS: dict[str, Callable[[Any, float], Any]] = {
    "none": lambda z, alpha: z,
    "relu": lambda z, alpha: functional.relu(z),
    "leaky_relu": functional.leaky_relu,
    "relu6": lambda z, alpha: functional.relu6(z),
    "elu": functional.elu,
    "sigmoid": lambda z, alpha: torch.sigmoid(z),
    "tanh": lambda z, alpha: torch.tanh(z),
    "silu": lambda z, alpha: functional.silu(z),
    "gelu": lambda z, alpha: functional.gelu(z),
    "hard_swish": lambda z, alpha: functional.hardswish(z),
    "gelu_tanh": lambda z, alpha: functional.gelu(z, approximate="tanh"),
    "selu": lambda z, alpha: functional.selu(z),
    "celu": functional.celu,
    "hard_sigmoid": lambda z, alpha: functional.hardsigmoid(z),
    "softplus": functional.softplus,
    "softsign": lambda z, alpha: functional.softsign(z),
    "mish": lambda z, alpha: functional.mish(z),
    "log_sigmoid": lambda z, alpha: functional.logsigmoid(z),
}


def convolve(caller: str, rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int,
             padding_mode: str, pad_value: float, activation: Any, residual: Any, layout: str, options: _core.Options,
             out: Any) -> Any:  # fmt: skip
    """`fc.conv2d`: arguments, result and errors as there."""
    _check(caller, out, x=x, w=w, bias=bias, residual=residual)
    g = conv_geometry(caller, rank, tuple(x.shape), tuple(w.shape), stride, padding, dilation, groups, layout)
    check_padding_mode(padding_mode, caller)
    kind, alpha = activation_words(activation, caller)
    if bias is not None:
        expect_shape("bias", caller, tuple(bias.shape), (w.shape[0],))
    static = Static(g.stride, g.pad_begin, g.pad_end, g.dilation, g.groups, padding_mode, float(pad_value))
    with _asked(options):
        y = _as_given(conv(_first(x, g.batched, layout), w, bias, static), g.batched, layout)
    if residual is not None:
        expect_shape("residual", caller, tuple(residual.shape), tuple(y.shape))
        y = y + residual
    return _ACTIVATIONS[kind](y, alpha)


def convolve_transposed(caller: str, rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any,
                        output_padding: Any, groups: int, dilation: Any, output_size: Any, activation: Any, layout: str,
                        options: _core.Options, out: Any) -> Any:  # fmt: skip
    """`fc.conv_transpose2d`: arguments, result and errors as there."""
    _check(caller, out, x=x, w=w, bias=bias)
    t = transposed_geometry(caller, rank, tuple(x.shape), tuple(w.shape), stride, padding, output_padding, groups,
                            dilation, output_size, layout)  # fmt: skip
    g = t.forward
    kind, alpha = activation_words(activation, caller)
    if bias is not None:
        expect_shape("bias", caller, tuple(bias.shape), (w.shape[1] * g.groups,))
    image = _first(x, g.batched, layout)
    last = is_channels_last(image) or is_channels_last(w)
    if any(t.tail):
        image = functional.pad(image, [number for n in reversed(t.tail) for number in (0, n)])
    size = g.x_shape[2:] if layout == "channels_first" else g.x_shape[1:-1]
    with _asked(options):
        y = conv_transpose(image, w, bias, size, last, Static(*g[3:8]))
    return _ACTIVATIONS[kind](_as_given(y, g.batched, layout), alpha)


def pool(caller: str, kind: str, rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
         ceil_mode: bool, count_include_pad: bool, divisor: Any, return_indices: bool, layout: str) -> Any:  # fmt: skip
    """`fc.max_pool2d`, `fc.min_pool2d` and `fc.avg_pool2d`: arguments, result and errors as there."""
    _check(caller, None, x=x)
    g = pool_geometry(caller, kind, rank, tuple(x.shape), kernel_size, stride, padding, dilation, ceil_mode,
                      count_include_pad, divisor, layout)  # fmt: skip
    words = g.problem.words
    begin, end, dilations = words["pad_begin"], words["pad_end"], words["dilation"]
    if begin != end or (kind == "average" and set(dilations) != {1}):
        raise _core.UnsupportedError(
            f"{caller}: pads {begin} and {end}, dilation {dilations}; of torch tensors maxima are pooled with equal "
            "padding at both ends, averages besides without dilation"
        )
    image = _first(x, g.batched, layout)
    if kind == "average":
        static = AvgStatic(words["window"], words["stride"], begin, ceil_mode, count_include_pad, words["divisor"])
        return _as_given(avg_pool(image, static), g.batched, layout)
    sign = -1 if kind == "min" else 1
    y, indices = max_pool(
        image * sign if sign < 0 else image,
        MaxStatic(words["window"], words["stride"], begin, dilations, ceil_mode),
        return_indices,
    )
    y = _as_given(y * sign if sign < 0 else y, g.batched, layout)
    return (y, _as_given(indices, g.batched, layout)) if return_indices else y


def _check(caller: str, out: Any, **tensors: Any) -> None:
    given = [(name, t) for name, t in tensors.items() if t is not None]
    for name, t in given:
        if not isinstance(t, torch.Tensor):
            raise TypeError(f"{caller}: {name} is a {kind_of(t)} array, another argument a torch tensor; expected one "
                            f"kind: use torch.from_numpy({name})")  # fmt: skip
        expect_kernel_tensor(t, name, given[0][1].dtype, f"{caller}: ")
    if out is not None:
        raise TypeError(f"{caller}: out is for arrays; a tensor's result is always new")


def _asked(options: _core.Options) -> Any:
    """The algorithm and the precision that the call named, for its forward pass."""
    if options is current():
        return contextlib.nullcontext()
    return options_block(algorithm=options.algorithm, precision=options.precision)


def _first(x: Any, batched: bool, layout: str) -> Any:
    """x as (N, C, *spatial), without a copy."""
    x = x if batched else x.unsqueeze(0)
    return x if layout == "channels_first" else x.movedim(-1, 1)


def _as_given(y: Any, batched: bool, layout: str) -> Any:
    y = y if layout == "channels_first" else y.movedim(1, -1)
    return y if batched else y[0]
