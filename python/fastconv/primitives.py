# SPDX-License-Identifier: Apache-2.0
"""Convolution on plain arrays, and plans. The explicit backward passes are in gradients.py, pooling in pooling.py.

One implementation serves one, two and three spatial axes; the public functions are thin and differ in their rank.
A call goes: kinds and dtypes (arrays.py) -> shapes and numbers (geometry.py, cached) -> the native module.
Called with an `fc.Tensor` the same functions record the operation (ops/conv.py) and answer with a Tensor; with a torch
tensor they are operators of torch (torch/bridge.py).
"""

from typing import Any

import numpy as np

from . import _core, ops
from .arrays import are_plain, as_native, dtype_word, is_torch, native, same_kind, torch_bridge
from .dlpack import takes_dlpack
from .geometry import ConvGeometry, activation_words, check_padding_mode, conv_geometry, expect_shape
from .options import Precision, chosen
from .tensor import Tensor

Array = Any
_ndarray = np.ndarray


def _forward(caller: str, rank: int, x: Array, w: Array, bias: Array, stride: Any, padding: Any, dilation: Any,
             groups: int, padding_mode: str, pad_value: float, activation: Any, residual: Array, layout: str,
             options: _core.Options, out: Array) -> Any:  # fmt: skip
    if not (are_plain(x, w) and (bias is None or type(bias) is _ndarray)):
        if any(isinstance(a, Tensor) for a in (x, w, bias, residual)):
            if out is not None:
                raise TypeError(f"{caller}: out is for arrays; a Tensor's result is always new")
            return ops.conv(caller, rank, x, w, bias, stride, padding, dilation, groups, padding_mode, pad_value,
                            activation, residual, layout, options)  # fmt: skip
        if is_torch(x, w, bias, residual):
            return torch_bridge().convolve(caller, rank, x, w, bias, stride, padding, dilation, groups, padding_mode,
                                           pad_value, activation, residual, layout, options, out)  # fmt: skip
        x = as_native(x, "x", caller)
        w = as_native(w, "w", caller, x.dtype)
    g: ConvGeometry = conv_geometry(caller, rank, x.shape, w.shape, stride, padding, dilation, groups, layout)
    if bias is not None:
        bias = as_native(bias, "bias", caller, x.dtype)
        expect_shape("bias", caller, bias.shape, (w.shape[0],))
    y_shape = g.y_shape if g.batched else g.y_shape[1:]
    if residual is not None:
        residual = as_native(residual, "residual", caller, x.dtype)
        expect_shape("residual", caller, residual.shape, y_shape)
        residual = residual.reshape(g.y_shape)
    if padding_mode != "zeros":
        check_padding_mode(padding_mode, caller)
    if not (type(x) is type(w) is _ndarray):
        same_kind(caller, x=x, w=w, bias=bias, residual=residual, out=out)
    kind, alpha = ("none", 0.0) if activation is None else activation_words(activation, caller)
    if out is None and g.batched and type(x) is _ndarray:
        return _core.conv_forward(x, w, bias, residual, g.stride, g.pad_begin, g.pad_end, g.dilation, g.groups,
                                  padding_mode, pad_value, kind, alpha, layout, options, None)  # fmt: skip
    y = native(x).conv_forward(x if g.batched else x[None], w, bias, residual, g.stride, g.pad_begin, g.pad_end,
                           g.dilation, g.groups, padding_mode, pad_value, kind, alpha, layout, options,
                           checked_output(out, caller, y_shape, x.dtype, g.batched))  # fmt: skip
    return out if out is not None else y if g.batched else y[0]


def checked_output(out: Array | None, caller: str, shape: tuple[int, ...], dtype: Any, batched: bool) -> Array | None:
    """`out`, checked, with the batch axis that the native module expects."""
    if out is None:
        return None
    out = as_native(out, "out", caller, dtype)
    expect_shape("out", caller, out.shape, shape)
    if isinstance(out, _ndarray) and not out.flags.writeable:
        raise _core.ProblemError(f"{caller}: out is read-only; expected an array that can be written")
    return out if batched else out[None]


def plan(
    w: Array,
    bias: Array | None = None,
    *,
    x_shape: tuple[int, ...],
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    pad_value: float = 0.0,
    activation: Any = None,
    residual: bool = False,
    layout: str = "channels_first",
    algorithm: str | None = None,
    precision: Precision = None,
) -> Any:
    """A forward convolution with its weights copied and packed once: `y = plan(x)`, for any batch size.

    Args:
        w: (K, C/groups, *filter) of any dtype that `fc.conv2d` takes; its rank decides between 1, 2 and 3 spatial axes.
        bias: (K,) or None.
        x_shape: the shape of x with its batch axis; the batch size in it only guides the choice of the algorithm.
        residual: whether `plan(x, residual)` will add one before the activation.
        The others: as for `fc.conv2d`.

    Returns:
        a plan: `plan(x, residual=None, out=None)`, `plan.update(w, bias)`, `plan.algorithm`, `plan.workspace_bytes`.

    Raises:
        ProblemError, UnsupportedError, WorkspaceError, TypeError: as `fc.conv2d`, at once and not at the first call.
    """
    w = as_native(w, "w", "plan")
    rank = w.ndim - 2
    if rank not in (1, 2, 3):
        raise _core.ProblemError(f"plan: w has {w.ndim} dimensions, shape {w.shape}; expected (K, C/groups, *filter)")
    x_shape = tuple(x_shape)
    if len(x_shape) != w.ndim:
        raise _core.ProblemError(f"plan: x_shape is {x_shape}; expected {w.ndim} numbers, with the batch axis")
    if bias is not None:
        bias = as_native(bias, "bias", "plan", w.dtype)
        expect_shape("bias", "plan", bias.shape, (w.shape[0],))
    same_kind("plan", w=w, bias=bias)
    kind, alpha = activation_words(activation, "plan")
    check_padding_mode(padding_mode, "plan")
    g = conv_geometry("plan", rank, x_shape, w.shape, stride, padding, dilation, groups, layout)
    p = problem("fwd", g, layout, w.dtype, padding_mode, kind, bias is not None, residual)
    if isinstance(w, _ndarray):
        return _core.Plan(p, w, bias, alpha, pad_value, chosen(algorithm, precision))
    return native(w).Plan(p, w, bias, alpha, pad_value, chosen(algorithm, precision), layout)


def problem(pass_: str, g: ConvGeometry, layout: str, dtype: Any, padding_mode: str = "zeros",
            activation: str = "none", has_bias: bool = False,
            has_residual: bool = False) -> _core.ConvProblem:  # fmt: skip
    """The native problem of a checked geometry."""
    channels_first = layout == "channels_first"
    size = g.x_shape[2:] if channels_first else g.x_shape[1:-1]
    channels = g.x_shape[1] if channels_first else g.x_shape[-1]
    return _core.ConvProblem(pass_, g.x_shape[0], channels, g.w_shape[0], size, g.w_shape[2:], g.stride, g.pad_begin,
                             g.pad_end, g.dilation, g.groups, "nchw" if channels_first else "nhwc",
                             dtype_word(dtype), padding_mode, activation, has_bias,
                             has_residual)  # fmt: skip


@takes_dlpack
def conv1d(x: Array, w: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1, *, padding_mode: str = "zeros", pad_value: float = 0.0, activation: Any = None,
           residual: Array | None = None, layout: str = "channels_first", algorithm: str | None = None,
           precision: Precision = None,
           out: Array | None = None) -> Any:  # fmt: skip
    """Convolution over one axis: x (N, C, W), w (K, C/groups, S) -> (N, K, Q). Arguments as for `fc.conv2d`.

    padding="causal" pads the past only: output q sees inputs up to q.
    """
    return _forward("conv1d", 1, x, w, bias, stride, padding, dilation, groups, padding_mode, pad_value, activation,
                    residual, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv2d(x: Array, w: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1, *, padding_mode: str = "zeros", pad_value: float = 0.0, activation: Any = None,
           residual: Array | None = None, layout: str = "channels_first", algorithm: str | None = None,
           precision: Precision = None,
           out: Array | None = None) -> Any:  # fmt: skip
    """y = activation(conv(x, w) + bias + residual): cross-correlation, as in every deep-learning framework.

    Args:
        x: (N, C, H, W), or (C, H, W) for one image; (N, H, W, C) with layout="channels_last". float32, float64,
            float16 or ml_dtypes' bfloat16; the last two are summed in float32 and rounded once.
        w: (K, C/groups, R, S), in either layout.
        bias: (K,) or None.
        stride, dilation: an int, or one per axis.
        padding: an int; one per axis; ((top, bottom), (left, right)); "valid" (none); "same" (ceil(size/stride)
            outputs, ONNX's SAME_UPPER); "same_lower"; "full" (every overlap counts).
        groups: the channels of x and the filters of w are split into this many independent groups.
        padding_mode: "zeros", "constant" (pad_value), "reflect", "replicate" or "circular".
        activation: None, "relu", "leaky_relu" or ("leaky_relu", slope), "relu6", "elu" or ("elu", alpha),
            "sigmoid", "tanh", "silu", "gelu", "hard_swish".
        residual: added before the activation; the shape of y.
        layout: "channels_first" or "channels_last"; speaks of x, y and residual.
        algorithm: the name of one (see `fc.algorithms`); None takes the cheapest estimate.
        precision: which algorithms may be chosen, as in `fc.options`; None: as the options in force say.
        out: the array to write y to; it is returned.

    Returns:
        y, the kind of x: (N, K, P, Q), without N if x had none.

    Raises:
        TypeError: not an array; integers; mixed dtypes.
        ProblemError: shapes or numbers that do not fit together.
        UnsupportedError: the named algorithm cannot compute this; the message says why.
        WorkspaceError: nothing fits into `max_workspace`.

    Example:
        >>> y = fc.conv2d(image, filters, bias, padding="same", activation="relu")
    """
    return _forward("conv2d", 2, x, w, bias, stride, padding, dilation, groups, padding_mode, pad_value, activation,
                    residual, layout, chosen(algorithm, precision), out)  # fmt: skip


@takes_dlpack
def conv3d(x: Array, w: Array, bias: Array | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
           groups: int = 1, *, padding_mode: str = "zeros", pad_value: float = 0.0, activation: Any = None,
           residual: Array | None = None, layout: str = "channels_first", algorithm: str | None = None,
           precision: Precision = None,
           out: Array | None = None) -> Any:  # fmt: skip
    """Convolution over three axes: x (N, C, D, H, W), w (K, C/groups, T, R, S). Arguments as for `fc.conv2d`."""
    return _forward("conv3d", 3, x, w, bias, stride, padding, dilation, groups, padding_mode, pad_value, activation,
                    residual, layout, chosen(algorithm, precision), out)  # fmt: skip
