# SPDX-License-Identifier: Apache-2.0
"""Plans of parameters: weights packed once per version, for calls that record no gradient.

A parameter is known by weak reference; its plans go with it. They are made anew when its version counter (every
in-place operation that autograd sees: an optimiser's step, `load_state_dict`, `copy_`), its memory (`p.data = ...`) or
the bias changed. Writes through `p.data` or a NumPy view of it count no version: up to 64 elements, evenly spread, are
compared besides, which finds what changes a whole tensor. For a change of single elements behind autograd's back there
is `refresh`.
"""

import weakref
from typing import Any

from .. import _core
from ..arrays import dtype_word
from .tensors import FORMATS, as_array, expect_kernel_tensor, is_channels_last, options

_SAMPLES = 64
_MOST_PLANS = 8  # of one parameter: sizes of x and options


class _State:
    """What a tensor held when it was looked at."""

    __slots__ = ("_bytes", "_pointer", "_sample", "_shape", "_tensor", "_version")

    def __init__(self, t: Any, died: Any = None) -> None:
        self._version, self._pointer, self._shape = t._version, t.data_ptr(), t.shape
        self._tensor: Any = weakref.ref(t, died)
        flat = as_array(t).ravel(order="K")  # a view: see _may_pack
        self._sample = flat[:: max(1, -(-flat.size // _SAMPLES))]
        self._bytes = self._sample.tobytes()

    def holds(self, t: Any) -> bool:
        return (
            self._tensor() is t
            and self._version == t._version
            and self._pointer == t.data_ptr()
            and self._shape == t.shape
            and self._sample.tobytes() == self._bytes
        )


class _Packed:
    __slots__ = ("bias", "channels_last", "latest", "plans", "w")

    def __init__(self, w: Any, bias: Any, died: Any) -> None:
        self.w = _State(w, died)
        self.bias = None if bias is None else _State(bias)
        self.channels_last = is_channels_last(w)
        self.plans: dict[Any, _core.Plan] = {}
        self.latest: tuple[Any, ...] = (None,) * 6  # shape, last, dtype, static and options of a plan, and the plan

    def holds(self, w: Any, bias: Any) -> bool:
        if not self.w.holds(w):
            return False
        return self.bias is None if bias is None else self.bias is not None and self.bias.holds(bias)


_packed: dict[int, _Packed] = {}  # by id of the parameter, which a weak reference empties


def _may_pack(w: Any, bias: Any) -> bool:
    """Whether the tensors are dense and say when they change."""
    if w.is_inference() or (bias is not None and (bias.is_inference() or not bias.is_contiguous())):
        return False
    return bool(w.is_contiguous() or (is_channels_last(w) and w.is_contiguous(memory_format=FORMATS[w.ndim])))


def plan_of(w: Any, bias: Any, x: Any, s: Any, at_once: bool, mixed: bool) -> tuple[_core.Plan, bool] | None:
    """(the plan of a convolution of x by parameters of the CPU, whether it takes x as (N, *spatial, C)).

    Args:
        at_once: False: not for weights that come for the first time, which may never come again.
        mixed: whether the weights are cast to the dtype of x, as in an autocast block.

    Returns:
        None where nothing is packed: weights that come for the first time, that do not count their versions, as in
        inference mode, or are not dense.

    Raises:
        TypeError: dtypes that do not fit together.
    """
    number = id(w)
    packed = _packed.get(number)
    if packed is None or not packed.holds(w, bias):
        if not _may_pack(w, bias):
            return None
        packed = _packed[number] = _Packed(w, bias, lambda _: _packed.pop(number, None))
        if not at_once:
            return None
    last = packed.channels_last or is_channels_last(x)
    shape, dtype, chosen, latest = x.shape, x.dtype, options(), packed.latest
    if latest[4] is chosen and latest[3] is s and latest[2] is dtype and latest[1] is last and latest[0] == shape:
        return latest[5]
    expect_kernel_tensor(x, "x")
    expect_kernel_tensor(w, "w", None if mixed else dtype)
    if bias is not None:
        expect_kernel_tensor(bias, "bias", None if mixed else dtype)
    key = tuple(shape[1:]), last, dtype, s, chosen
    plan = packed.plans.get(key)
    if plan is None:
        if len(packed.plans) >= _MOST_PLANS:
            packed.plans.clear()
        plan = packed.plans[key] = _plan(w, bias, x, last, s)
    packed.latest = shape, last, dtype, s, chosen, (plan, last)
    return plan, last


def _plan(w: Any, bias: Any, x: Any, last: bool, s: Any) -> _core.Plan:
    filters, shift = as_array(w.to(x.dtype)), None if bias is None else as_array(bias.to(x.dtype))
    n, c, *size = x.shape
    problem = _core.ConvProblem("fwd", n, c, w.shape[0], size, w.shape[2:], s.stride, s.pad_begin, s.pad_end,
                                s.dilation, s.groups, "nhwc" if last else "nchw", dtype_word(filters.dtype),
                                s.padding_mode, "none", bias is not None, False)  # fmt: skip
    return _core.Plan(problem, filters, shift, 0.0, s.pad_value, options())


def refresh(w: Any) -> None:
    """Forget what was packed of the parameter: the next call packs it again."""
    _packed.pop(id(w), None)


def packed_bytes() -> int:
    """What all packed parameters take now, in bytes."""
    return sum(plan.packed_bytes for packed in list(_packed.values()) for plan in list(packed.plans.values()))
