# SPDX-License-Identifier: Apache-2.0
"""From the words of a call (stride=2, padding="same") to one number per axis, checked.

Every check that needs only shapes is here, so that each error names the argument, what came and what was expected.
The result depends on shapes and words alone and is cached: a call in a loop pays one dictionary look-up.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from ._core import ProblemError, UnsupportedError, output_size

Shape = tuple[int, ...]
AXES = {1: ("w",), 2: ("h", "w"), 3: ("d", "h", "w")}
LAYOUTS = ("channels_first", "channels_last")
PADDING_MODES = ("zeros", "constant", "reflect", "replicate", "circular")
PADDING_WORDS = ("valid", "same", "same_lower", "full", "causal")
# The slope, scale or beta that an activation has when the caller names none.
ACTIVATION_ALPHAS = {
    "none": 0.0,
    "relu": 0.0,
    "leaky_relu": 0.01,
    "relu6": 0.0,
    "elu": 1.0,
    "sigmoid": 0.0,
    "tanh": 0.0,
    "silu": 0.0,
    "gelu": 0.0,
    "hard_swish": 0.0,
    "gelu_tanh": 0.0,
    "selu": 0.0,
    "celu": 1.0,
    "hard_sigmoid": 0.0,
    "softplus": 1.0,
    "softsign": 0.0,
    "mish": 0.0,
    "log_sigmoid": 0.0,
}
TAKES_ALPHA = ("leaky_relu", "elu", "celu", "softplus")


class ConvGeometry(NamedTuple):
    """One convolution's shapes, always with a batch axis, and its numbers per spatial axis, outermost first."""

    x_shape: Shape
    w_shape: Shape
    y_shape: Shape
    stride: Shape
    pad_begin: Shape
    pad_end: Shape
    dilation: Shape
    groups: int
    batched: bool  # False: the caller's x has no batch axis


def remember(resolve: Callable[..., Any]) -> Callable[..., Any]:
    """An LRU cache that also takes lists and NumPy integers, turning them into tuples and ints first."""
    cached = functools.lru_cache(maxsize=1024, typed=True)(resolve)

    @functools.wraps(resolve)
    def call(*args: Any) -> Any:
        try:
            return cached(*args)
        except TypeError:
            if _is_hashable(args):
                raise
        return cached(*(_freeze(a) for a in args))

    return call


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _freeze(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    return tuple(_freeze(v) for v in value) if isinstance(value, list | tuple) else value


def as_int(value: Any, name: str, caller: str, least: int) -> int:
    """`value` as an int that is at least `least`; bool and float are refused."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{caller}: {name} is {value!r}; expected an integer")
    number = value.__index__()
    if number < least:
        raise ProblemError(f"{caller}: {name} is {number}; expected at least {least}")
    return int(number)


def per_axis(value: Any, name: str, caller: str, rank: int, least: int = 1) -> Shape:
    """One int per spatial axis from an int or a tuple of `rank` ints."""
    if isinstance(value, list | tuple):
        if len(value) != rank:
            raise ProblemError(f"{caller}: {name} has {len(value)} entries; expected an int or {rank}, one per axis")
        return tuple(as_int(v, name, caller, least) for v in value)
    return (as_int(value, name, caller, least),) * rank


def paddings(
    value: Any, caller: str, size: Shape, filter: Shape, stride: Shape, dilation: Shape
) -> tuple[Shape, Shape]:
    """(pad_begin, pad_end) of int | tuple | ((top, bottom), (left, right)) | one of PADDING_WORDS.

    "same" with a stride is ONNX's SAME_UPPER: ceil(size / stride) outputs, an odd remainder goes to the end
    ("same_lower": to the begin). "full" pads by the whole filter less one. "causal" (one axis) pads the past only.
    """
    rank = len(size)
    if isinstance(value, str):
        return _padding_word(value, caller, size, filter, stride, dilation)
    if not isinstance(value, list | tuple):
        pad = (as_int(value, "padding", caller, 0),) * rank
        return pad, pad
    if len(value) != rank:
        hint = f"; for different begin and end write padding=({tuple(value)},)" if rank == 1 and len(value) == 2 else ""
        raise ProblemError(
            f"{caller}: padding has {len(value)} entries; expected an int, a word, or {rank} of int or "
            f"(begin, end){hint}"
        )
    pairs = []
    for entry in value:
        if not isinstance(entry, list | tuple):
            entry = (entry, entry)
        if len(entry) != 2:
            raise ProblemError(f"{caller}: padding entry {entry!r}; expected an int or (begin, end)")
        pairs.append([as_int(v, "padding", caller, 0) for v in entry])
    return tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)


def _padding_word(
    word: str, caller: str, size: Shape, filter: Shape, stride: Shape, dilation: Shape
) -> tuple[Shape, Shape]:
    rank = len(size)
    reach = tuple((f - 1) * d for f, d in zip(filter, dilation, strict=True))
    if word == "valid":
        return (0,) * rank, (0,) * rank
    if word == "full":
        return reach, reach
    if word == "causal" and rank == 1:
        return reach, (0,)
    if word in ("same", "same_lower"):
        totals = [max((-(-n // s) - 1) * s + r + 1 - n, 0) for n, s, r in zip(size, stride, reach, strict=True)]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        return (small, large) if word == "same" else (large, small)
    known = ", ".join(repr(w) for w in PADDING_WORDS if w != "causal" or rank == 1)
    raise ProblemError(f"{caller}: padding is {word!r}; expected a number, a tuple or one of {known}")


def split_shape(shape: Shape, name: str, caller: str, rank: int, layout: str) -> tuple[Shape, bool, int, Shape]:
    """(shape with a batch axis, whether it had one, channels, spatial sizes) of an x or y."""
    if layout not in LAYOUTS:
        raise ProblemError(f"{caller}: layout is {layout!r}; expected one of {LAYOUTS}")
    if len(shape) not in (rank + 1, rank + 2):
        axes = ", ".join(a.upper() for a in AXES[rank])
        words = f"C, {axes}" if layout == "channels_first" else f"{axes}, C"
        raise ProblemError(
            f"{caller}: {name} has {len(shape)} dimensions, shape {shape}; expected (N, {words}), or ({words}) for one "
            "image"
        )
    batched = len(shape) == rank + 2
    full = shape if batched else (1, *shape)
    if layout == "channels_first":
        return full, batched, full[1], full[2:]
    return full, batched, full[-1], full[1:-1]


def join(n: int, channels: int, plane: Shape, layout: str) -> Shape:
    return (n, channels, *plane) if layout == "channels_first" else (n, *plane, channels)


def output_plane(caller: str, size: Shape, filter: Shape, stride: Shape, dilation: Shape, begin: Shape, end: Shape,
                  what: str, ceil_mode: bool = False) -> Shape:  # fmt: skip
    plane = []
    for axis, n, f, s, d, b, e in zip(AXES[len(size)], size, filter, stride, dilation, begin, end, strict=True):
        reach = (f - 1) * d + 1
        overhang = s - 1 if ceil_mode else 0  # so far a last window may stick out
        if n + b + e + overhang < reach:
            raise ProblemError(
                f"{caller}: the {what} spans {reach} along {axis}, x has {n} and padding adds {b + e}; "
                f"expected padding of at least {reach - n - overhang} in total there"
            )
        plane.append(output_size(n, f, s, d, b, e, ceil_mode))
    return tuple(plane)


@remember
def conv_geometry(
    caller: str, rank: int, x_shape: Shape, w_shape: Shape, stride: Any, padding: Any, dilation: Any, groups: Any,
    layout: str,
) -> ConvGeometry:  # fmt: skip
    """Check one convolution's shapes; the shapes and numbers of the call, normalised.

    Raises:
        ProblemError, TypeError: naming the argument, what came and what was expected.
    """
    x_full, batched, channels, size = split_shape(x_shape, "x", caller, rank, layout)
    taps = "RS" if rank == 2 else "S" if rank == 1 else "TRS"
    letters = ", ".join(taps)
    if len(w_shape) != rank + 2:
        raise ProblemError(
            f"{caller}: w has {len(w_shape)} dimensions, shape {w_shape}; expected (K, C/groups, {letters})"
        )
    groups = as_int(groups, "groups", caller, 1)
    k, per_group, filter = w_shape[0], w_shape[1], w_shape[2:]
    if channels % groups:
        raise ProblemError(f"{caller}: groups={groups} does not divide the {channels} channels of x")
    if per_group * groups != channels:
        raise ProblemError(
            f"{caller}: w has {per_group} channels per group, x has {channels} and groups={groups}; "
            f"expected w of shape (K, {channels // groups}, {letters})"
        )
    if k % groups:
        raise ProblemError(f"{caller}: groups={groups} does not divide the {k} filters of w")
    if 0 in filter or 0 in size:
        raise ProblemError(f"{caller}: x has the plane {size} and w the filter {filter}; expected no axis of length 0")
    strides = per_axis(stride, "stride", caller, rank)
    dilations = per_axis(dilation, "dilation", caller, rank)
    begin, end = paddings(padding, caller, size, filter, strides, dilations)
    plane = output_plane(caller, size, filter, strides, dilations, begin, end, "filter")
    y_shape = join(x_full[0], k, plane, layout)
    return ConvGeometry(x_full, w_shape, y_shape, strides, begin, end, dilations, groups, batched)


def expect_shape(name: str, caller: str, got: Shape, expected: Shape) -> None:
    """Raise ProblemError unless the argument `name` has the expected shape."""
    if got != expected:
        raise ProblemError(f"{caller}: {name} has shape {got}; expected {expected}")


def activation_words(activation: Any, caller: str) -> tuple[str, float]:
    """(kind, alpha) of None | "relu" | ("leaky_relu", 0.1) | ..."""
    if activation is None:
        return "none", 0.0
    kind, alpha = (activation, None) if isinstance(activation, str) else _pair(activation, caller)
    if kind not in ACTIVATION_ALPHAS:
        raise UnsupportedError(f"{caller}: activation {kind!r} is not known; known: {', '.join(ACTIVATION_ALPHAS)}")
    if alpha is None:
        return kind, ACTIVATION_ALPHAS[kind]
    if kind not in TAKES_ALPHA:
        raise ProblemError(f"{caller}: activation {kind!r} takes no parameter, got {alpha!r}")
    if kind == "leaky_relu" and alpha < 0:
        raise ProblemError(f"{caller}: the slope of leaky_relu is {alpha}; expected at least 0")
    if kind in ("celu", "softplus") and not alpha > 0:
        raise ProblemError(f"{caller}: the parameter of {kind} is {alpha}; expected more than 0")
    return kind, float(alpha)


def _pair(activation: Any, caller: str) -> tuple[str, Any]:
    if isinstance(activation, tuple) and len(activation) == 2 and isinstance(activation[0], str):
        return activation
    raise TypeError(f'{caller}: activation is {activation!r}; expected None, a name or (name, number) as ("elu", 1.0)')


def check_padding_mode(mode: str, caller: str) -> None:
    """Raise ProblemError unless `mode` is a known padding mode."""
    if mode not in PADDING_MODES:
        raise ProblemError(f"{caller}: padding_mode is {mode!r}; expected one of {PADDING_MODES}")
