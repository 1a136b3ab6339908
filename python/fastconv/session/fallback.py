# SPDX-License-Identifier: Apache-2.0
"""What has no native step: the Function of the model is called, with copies of what it reads, between two pieces of
the native program. `profile` shows such a node as "python"."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..autograd import no_grad
from ..graph import Value
from ..tensor import Tensor
from .network import size_of

if TYPE_CHECKING:
    from .network import Node
    from .program import Program


def run_call(program: Program, node: Node, held: dict[int, Any], arena: Any, seconds: Any) -> None:
    """Call the node's Function and put the results where native steps and later calls find them."""
    from .program import Row

    start = time.perf_counter()
    call, values = node.arrays["call"]
    arrays = {value: _read(program, number, held, arena) for number, value in values.items()}
    with no_grad():
        inputs = [None if v is None else Tensor(arrays[v]) for v in call.inputs]
        result = call.function.apply(*inputs, **_filled(call.static, arrays))
    for number, t in zip(node.outputs, result if isinstance(result, tuple) else (result,), strict=True):
        if t is None:
            continue
        if number in held:  # an output of the model
            held[number][...] = t.data
        elif program.has_place(number):
            arena.view(program.where(number)[1], program.shapes[number])[...] = t.data
        else:
            held[number] = t.data
    if seconds is not None:
        seconds.append((Row(node, "python", node.words["function"], None), time.perf_counter() - start))


def _read(program: Program, number: int, held: dict[int, Any], arena: Any) -> Any:
    """A copy of a value: what a Function returns may be a view of it, and its memory is used again."""
    if number in held:
        return held[number].copy()
    if number in program.constants:
        return program.constants[number]
    shape, (buffer, offset) = program.shapes[number], program.where(number)
    if buffer == 0:
        return arena.view(offset, shape).copy()
    return held[program.root_of(number)].reshape(-1)[offset : offset + size_of(shape)].reshape(shape).copy()


def _filled(static: Any, arrays: dict[Value, Any]) -> Any:
    """Static arguments with arrays for their values."""
    if isinstance(static, Value):
        return arrays[static]
    if isinstance(static, dict):
        return {key: _filled(item, arrays) for key, item in static.items()}
    return tuple(_filled(item, arrays) for item in static) if type(static) is tuple else static
