# SPDX-License-Identifier: Apache-2.0
"""Causal convolution of a sequence that arrives in pieces: each call hands on the inputs that the next looks back at.

Pieces of any lengths give the bits of the whole sequence at once. Two things see to that. A named algorithm's order of
summation never depends on where a pixel lies. And without a name the choice is made from the problem without its length
and batch, among the plain sums alone: a transform such as Winograd's mixes the pixels of a tile.
"""

import functools
from typing import Any

from . import _core, ops
from .arrays import as_native, namespace
from .dlpack import takes_dlpack
from .geometry import as_int, conv_geometry, expect_shape, per_axis, split_shape
from .options import Settings, native, settings
from .primitives import conv1d, problem
from .tensor import Tensor, plain

Array = Any
# The length that the choice assumes: long enough for the speed of a sequence to count, not that of one step.
NOMINAL_LENGTH = 1024


@takes_dlpack
def causal_conv1d(x: Array, w: Array, bias: Array | None = None, state: Array | None = None, dilation: Any = 1,
                  groups: int = 1, *, activation: Any = None, layout: str = "channels_first",
                  algorithm: str | None = None) -> tuple[Any, Any]:  # fmt: skip
    """(y, state): a convolution over one axis in which output q sees inputs up to q, and what the next piece needs.

    The whole sequence at once and any pieces of it, one after the other, give the same bits:

        y, _ = fc.causal_conv1d(x, w)
        first, state = fc.causal_conv1d(x[..., :5], w)
        second, state = fc.causal_conv1d(x[..., 5:], w, state=state)  # y is first followed by second

    Args:
        x: (N, C, W), or (C, W) for one sequence; (N, W, C) with layout="channels_last". W may be 0.
        w: (K, C/groups, S), in either layout; the last tap meets the present.
        bias: (K,) or None.
        state: the (S - 1) * dilation inputs before x, in the layout of x, as an earlier call returned them; None at the
            beginning of a sequence, which stands for zeros.
        dilation, groups, activation, layout: as for `fc.conv1d`.
        algorithm: the name of one; None takes the cheapest estimate for a long sequence of one batch, of those that sum
            plainly, so that the choice is the same for every piece.

    Returns:
        y, as long as x, and the new state, in memory of its own. y is an `fc.Tensor` if one is among the arguments, the
        state if x or state is one; gradients then flow through it into earlier pieces (`state.detach()` ends that).

    Raises:
        TypeError, ProblemError, UnsupportedError, WorkspaceError: as `fc.conv1d`.
    """
    caller = "causal_conv1d"
    for name, array in (("x", x), ("w", w)):
        as_native(plain(array), name, caller, None if name == "x" else x.dtype)
    _, batched, channels, (length,) = split_shape(x.shape, "x", caller, 1, layout)
    (step,) = per_axis(dilation, "dilation", caller, 1)
    axis = -1 if layout == "channels_first" else -2
    if len(w.shape) != 3 or w.shape[-1] == 0:
        raise _core.ProblemError(f"{caller}: w has shape {w.shape}; expected (K, C/groups, S), S at least 1")
    reach = (w.shape[-1] - 1) * step
    past = _with_length(x.shape, reach, axis)
    if state is not None:
        as_native(plain(state), "state", caller, x.dtype)
        expect_shape("state", caller, tuple(state.shape), past)
    g = conv_geometry(caller, 1, _with_length(x.shape, max(length, 1), axis), tuple(w.shape), 1, ((reach, 0),), step,
                      as_int(groups, "groups", caller, 1), layout)  # fmt: skip
    name = algorithm or settings().algorithm or _choice(settings(), channels, tuple(w.shape), step, groups, layout,
                                                        x.dtype)  # fmt: skip
    words = {"dilation": step, "groups": groups, "activation": activation, "layout": layout, "algorithm": name}
    if length == 0:
        y_shape = _with_length(g.y_shape if batched else g.y_shape[1:], 0, axis)
        return _zeros(x, y_shape), _zeros(x, past) if state is None else state
    if state is None and length >= reach:  # the usual beginning: the zeros are the kernel's own padding
        return conv1d(x, w, bias, padding="causal", **words), _last(x, reach, axis)
    whole = _concat(_zeros(x, past) if state is None else state, x, axis)
    return conv1d(whole, w, bias, **words), _last(whole, reach, axis)


@functools.lru_cache(maxsize=256)
def _choice(options: Settings, channels: int, w_shape: tuple[int, ...], dilation: int, groups: int, layout: str,
            dtype: Any) -> str:  # fmt: skip
    """The algorithm for any length and batch; its name holds for the gradients too, so it has all three passes."""
    reach = (w_shape[-1] - 1) * dilation
    x_shape = (1, channels, NOMINAL_LENGTH) if layout == "channels_first" else (1, NOMINAL_LENGTH, channels)
    g = conv_geometry("causal_conv1d", 1, x_shape, w_shape, 1, ((reach, 0),), dilation, groups, layout)
    strict = native(options._replace(precision=1.0, tuning=None))
    forward = problem("fwd", g, layout, dtype)
    chosen = _core.choose(forward, strict)
    rows = {p: _core.algorithms(forward.with_pass(p), strict) for p in ("fwd", "bwd_data", "bwd_filter")}
    able = [{row["name"] for row in found if row["supported"]} for found in rows.values()]
    complete = [row for row in rows["fwd"] if all(row["name"] in names for names in able)]
    if not complete or chosen in {row["name"] for row in complete}:
        return chosen
    return min(complete, key=lambda row: row["estimate_s"])["name"]


def _with_length(shape: Any, length: int, axis: int) -> tuple[int, ...]:
    cut = len(shape) + axis
    return (*shape[:cut], length, *shape[cut + 1 :])


def _zeros(like: Any, shape: tuple[int, ...]) -> Any:
    zeros = namespace(plain(like)).zeros(shape, like.dtype)
    return Tensor(zeros) if isinstance(like, Tensor) else zeros


def _concat(state: Any, x: Any, axis: int) -> Any:
    if isinstance(state, Tensor) or isinstance(x, Tensor):
        return ops.concat([state, x], axis)
    return namespace(x).concatenate([state, x], axis)


def _last(x: Any, count: int, axis: int) -> Any:
    """The last `count` inputs: a copy, so that it does not keep all of x alive, unless the tape does that anyway."""
    length = x.shape[axis]
    index = (..., slice(length - count, length), *(slice(None),) * (-axis - 1))
    if isinstance(x, Tensor):
        return x[index] if x.requires_grad else Tensor(x.data[index].copy())
    return x[index].copy()
