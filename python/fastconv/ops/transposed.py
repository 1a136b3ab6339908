# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution on the tape: ConvBackwardData of the convolution whose adjoint it is (conv.py)."""

from typing import Any

from .. import _core
from ..arrays import as_native
from ..geometry import activation_words
from ..tensor import Tensor, as_tensor
from ..transposed_geometry import transposed_geometry
from .activations import activation as apply_activation
from .conv import ConvBackwardData, Static, bias_tensor, fuses
from .padding import pad
from .shape import reshape


def conv_transpose(caller: str, rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, output_padding: Any,
                   groups: int, dilation: Any, output_size: Any, activation: Any, layout: str,
                   options: _core.Options) -> Tensor:  # fmt: skip
    """`fc.conv_transpose2d` and its family for tensors; arrays among the arguments are constants."""
    x, w = as_tensor(x), as_tensor(w)
    as_native(x.data, "x", caller)
    as_native(w.data, "w", caller, x.dtype)
    t = transposed_geometry(caller, rank, x.shape, w.shape, stride, padding, output_padding, groups, dilation,
                            output_size, layout)  # fmt: skip
    g = t.forward
    kind, alpha = activation_words(activation, caller)
    bias = bias_tensor(bias, caller, x.dtype, w.shape[1] * g.groups)
    static = Static(g.x_shape, g.w_shape, g.stride, g.pad_begin, g.pad_end, g.dilation, g.groups, "zeros", 0.0, layout,
                    options)  # fmt: skip
    x = x if g.batched else reshape(x, (1, *x.shape))
    if any(t.tail):
        x = pad(x, t.widths(layout))
    fused = fuses(kind, alpha, x, w, bias)
    y = ConvBackwardData.apply(x, w, bias, static=static, kind=kind if fused else "none", alpha=alpha)
    y = y if fused else apply_activation(y, kind, alpha)
    return y if g.batched else reshape(y, g.x_shape[1:])
