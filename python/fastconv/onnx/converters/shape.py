# SPDX-License-Identifier: Apache-2.0
"""Moving, cutting, joining, reducing."""

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._core import UnsupportedError

_END = 2**63 - 1
_PAD_MODES = {
    "zeros": "constant",
    "constant": "constant",
    "reflect": "reflect",
    "replicate": "edge",
    "circular": "wrap",
}


def reshape(w: Any, call: Any, x: str) -> str:
    return w.reshape(x, call.outputs[0].shape, call.inputs[0].data is None)


def transpose(w: Any, call: Any, x: str) -> str:
    return w.transpose(x, call.static["axes"])


def reduction(op_type: str) -> Callable[..., Any]:
    """A converter to a reduction over axes."""

    def convert(w: Any, call: Any, x: str) -> str:
        axes = call.static["axes"]
        if not axes:
            return w.node("Identity", [x])
        return w.node(op_type, [x, w.array(axes)], keepdims=int(call.static["keepdims"]))

    return convert


def extreme(w: Any, call: Any, x: str) -> str:
    if not call.static["axes"]:
        return w.node("Identity", [x])
    return w.node("ReduceMin" if call.static["smallest"] else "ReduceMax", [x, w.array(call.static["axes"])])


def cum_sum(w: Any, call: Any, x: str) -> str:
    return w.node("CumSum", [x, w.array(call.static["axis"])])


def broadcast_to(w: Any, call: Any, x: str) -> str:
    """A length that x has already is written as 1: so that of the batch stays open."""
    target, have = call.static["shape"], call.inputs[0].shape
    have = (0,) * (len(target) - len(have)) + have
    return w.node("Expand", [x, w.array([1 if m == n else n for m, n in zip(have, target, strict=True)])])


def concat(w: Any, call: Any, *parts: str) -> str:
    return w.node("Concat", parts, axis=call.static["axis"])


def pad_node(w: Any, x: str, widths: Any, mode: str, value: float, dtype: Any) -> str:
    """Pad by (begin, end) for each axis, in fastconv's words for the mode."""
    if mode == "circular" and w.opset < 19:
        raise UnsupportedError(f"export: circular padding needs opset 19, got {w.opset}")
    inputs = [x, w.array([*(begin for begin, _ in widths), *(end for _, end in widths)])]
    inputs += [w.array(value, dtype)] if _PAD_MODES[mode] == "constant" else []
    return w.node("Pad", inputs, mode=_PAD_MODES[mode])


def pad(w: Any, call: Any, x: str) -> str:
    return pad_node(w, x, call.static["widths"], call.static["mode"], call.static["value"], call.inputs[0].dtype)


def take_along(w: Any, call: Any, x: str) -> str:
    indices = w.known(call.static["indices"], "the indices of a gather")
    return w.node("GatherElements", [x, w.array(indices)], axis=call.static["axis"])


def get_item(w: Any, call: Any, x: str) -> str:
    """Slices, single places, new axes, and one list of indices: in this order Slice or Gather, Squeeze, Unsqueeze."""
    ndim, index = len(call.inputs[0].shape), call.static["index"]
    entries = _spelled_out(index if isinstance(index, tuple) else (index,), ndim)
    starts, ends, axes, steps, single, new, lists = [], [], [], [], [], [], []
    axis = position = 0
    for entry in entries:
        if entry is None:
            new.append(position)
            position += 1
            continue
        if isinstance(entry, slice):
            if entry != slice(None):
                start, end, step = entry.start, entry.stop, 1 if entry.step is None else entry.step
                starts.append((0 if step > 0 else _END) if start is None else start)
                ends.append((_END if step > 0 else -_END) if end is None else end)
                axes.append(axis)
                steps.append(step)
            position += 1
        elif isinstance(entry, int):
            single.append(axis)
            starts, ends = [*starts, entry], [*ends, entry + 1 if entry != -1 else _END]
            axes, steps = [*axes, axis], [*steps, 1]
        else:
            lists.append((axis, w.known(entry, "an index")))
            position += 1
        axis += 1
    if len(lists) > 1 or (lists and (lists[0][1].ndim != 1 or single)):
        raise UnsupportedError("export: an index with several lists of places, or one that is not one-dimensional")
    if axes:
        x = w.node("Slice", [x, w.array(starts), w.array(ends), w.array(axes), w.array(steps)])
    for at, places in lists:
        places = np.flatnonzero(places) if places.dtype.kind == "b" else places
        x = w.node("Gather", [x, w.array(places)], axis=at)
    x = w.node("Squeeze", [x, w.array(single)]) if single else x
    x = w.node("Unsqueeze", [x, w.array(new)]) if new else x
    return x if axes or lists or single or new else w.node("Identity", [x])


def _spelled_out(entries: tuple[Any, ...], ndim: int) -> list[Any]:
    """An entry for each axis, and None for each new one."""
    spoken = sum(1 for e in entries if e is not None and e is not Ellipsis)
    rest = [slice(None)] * (ndim - spoken)
    at = next((i for i, e in enumerate(entries) if e is Ellipsis), None)
    if at is None:
        return [*entries, *rest]
    return [*entries[:at], *rest, *entries[at + 1 :]]
