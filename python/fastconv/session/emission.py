# SPDX-License-Identifier: Apache-2.0
"""The steps of a program that each operation becomes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .network import Node, size_of
from .operators import conv_problem, pool_problem

if TYPE_CHECKING:
    from .program import Program


def _conv(node: Node, to: Program) -> None:
    x = node.inputs[0]
    problem = conv_problem(node, to.shapes[x], to.network.dtype)
    weights = to.weights.of(node, problem)
    if node.op == "dense":  # the rows of a matrix are images of one pixel
        source, target = to.matrix_part(x), to.matrix_part(node.output)
    else:
        layout = node.words["layout"]
        source, target = to.part_of(x, layout), to.part_of(node.output, layout)
    residual = to.part_of(node.inputs[1], node.words["layout"]) if len(node.inputs) > 1 else None
    to.native.conv(weights, problem, source, target, residual, node.words["alpha"], node.words.get("pad_value", 0.0))
    to.step(node, algorithm=weights.algorithm, problem=problem)


def _pool(node: Node, to: Program) -> None:
    x, layout = node.inputs[0], node.words["layout"]
    problem = pool_problem(node, to.shapes[x])
    to.native.pool(problem, node.words["norm"], to.part_of(x, layout), to.part_of(node.output, layout))
    to.step(node)


def _activation(node: Node, to: Program) -> None:
    rows = _common_rows(to, node.inputs[0], node.output)
    to.native.activation(
        node.words["kind"], node.words["alpha"], *(to.rows_of(v, rows) for v in (*node.inputs, node.output))
    )
    to.step(node)


def _common_rows(to: Program, *values: int) -> int:
    rows = to.common_rows(*values)
    assert rows, "the places of a step's arrays were chosen so that they have common rows"
    return rows


def _scale_shift(node: Node, to: Program) -> None:
    (x,), axis = node.inputs, node.words["axis"]
    shape = to.shapes[x]
    rows = size_of(shape[:axis])
    scale, shift = (to.constant(node.arrays[name]) for name in ("scale", "shift"))
    to.native.scale_shift(shape[axis], size_of(shape[axis + 1 :]), scale, shift, node.words["activation"],
                          node.words["alpha"], to.rows_of(x, rows), to.rows_of(node.output, rows))  # fmt: skip
    to.step(node)


def _binary(node: Node, to: Program) -> None:
    values = (*node.inputs, node.output)
    rows = _common_rows(to, *values)
    to.native.binary(node.words["op"], node.words["activation"], node.words["alpha"],
                     *(to.rows_of(v, rows) for v in values))  # fmt: skip
    to.step(node)


def _gate(node: Node, to: Program) -> None:
    x, gate = node.inputs
    n, channels, *plane = to.shapes[x]
    to.native.gate(channels, size_of(plane), 1, to.rows_of(x, n), to.rows_of(gate, n), to.rows_of(node.output, n))
    to.step(node)


def _prelu(node: Node, to: Program) -> None:
    (x,), slopes = node.inputs, node.arrays["slopes"]
    shape = to.shapes[x]
    sizes = (shape[0], shape[1], size_of(shape[2:])) if len(slopes) > 1 else (1, 1, size_of(shape))
    to.native.prelu(*sizes, to.constant(slopes), to.rows_of(x), to.rows_of(node.output))
    to.step(node)


def _concat(node: Node, to: Program) -> None:
    """Copies of those that do not lie in their place already."""
    axis, start = node.words["axis"], 0
    buffer, offset, strides = to.strides_of(node.output)
    for v in node.inputs:
        target = buffer, offset + start * strides[axis], strides
        start += to.shapes[v][axis]
        if to.where(v) != target[:2] and size_of(to.shapes[v]):
            to.copy(node, to.shapes[v], to.strides_of(v), target)


def _slice(node: Node, to: Program) -> None:
    if to.is_view(node.output):
        return
    buffer, offset, strides = to.strides_of(node.inputs[0])
    ranges = [[0, to.shapes[node.output][0], 1], *node.words["ranges"]]
    offset += sum(start * stride for (start, _, _), stride in zip(ranges, strides, strict=True))
    steps = [step * stride for (_, _, step), stride in zip(ranges, strides, strict=True)]
    if size_of(to.shapes[node.output]):
        to.copy(node, to.shapes[node.output], (buffer, offset, steps), to.strides_of(node.output))


def _reshape(node: Node, to: Program) -> None:
    """The same memory; a copy where it has gaps, or must be an array of its own."""
    (x,) = node.inputs
    if to.where(x) == to.where(node.output) and to.is_dense(x):
        return
    shape = to.shapes[x]
    dense = [size_of(shape[a + 1 :]) for a in range(len(shape))]
    to.copy(node, shape, to.strides_of(x), (*to.where(node.output), dense))


def _permute(node: Node, to: Program) -> None:
    buffer, offset, strides = to.strides_of(node.inputs[0])
    turned = [strides[a] for a in node.words["axes"]]
    to.copy(node, to.shapes[node.output], (buffer, offset, turned), to.strides_of(node.output))


def _pad(node: Node, to: Program) -> None:
    (x,) = node.inputs
    buffer, offset, strides = to.strides_of(node.output)
    offset += sum(begin * stride for (begin, _), stride in zip(node.words["widths"], strides[1:], strict=True))
    to.copy(node, to.shapes[x], to.strides_of(x), (buffer, offset, strides), to.rows_of(node.output),
            node.words["value"])  # fmt: skip


def _softmax(node: Node, to: Program) -> None:
    rows = to.shapes[node.output][0]
    to.native.softmax(node.words["log"], to.rows_of(node.inputs[0], rows), to.rows_of(node.output, rows))
    to.step(node)


def _response_norm(node: Node, to: Program) -> None:
    w, x = node.words, node.inputs[0]
    to.native.response_norm(to.shapes[x], w["before"], w["after"], w["alpha"], w["beta"], w["k"], w["spatial"],
                            w["layout"] == "channels_last", to.rows_of(x), to.rows_of(node.output))  # fmt: skip
    to.step(node)


def _group_norm(node: Node, to: Program) -> None:
    (x,), last = node.inputs, node.words["layout"] == "channels_last"
    shape = to.shapes[x]
    channels = shape[-1] if last else shape[1]
    gamma, beta = (to.constant(node.arrays[name]) for name in ("gamma", "beta"))
    pixels = size_of(shape[1:]) // channels
    to.native.group_norm(shape[0], channels, pixels, node.words["groups"], last, gamma, beta, node.words["eps"],
                         to.rows_of(x), to.rows_of(node.output))  # fmt: skip
    to.step(node)


def _resample(node: Node, to: Program) -> None:
    (x,), axis = node.inputs, node.words["axis"]
    shape = to.shapes[x]
    first, start, weights = (node.arrays[name] for name in ("first", "start", "weights"))
    to.native.resample(shape[axis], size_of(shape[:axis]), size_of(shape[axis + 1 :]), first, start, weights,
                       to.rows_of(x), to.rows_of(node.output))  # fmt: skip
    to.step(node)


def _constant(node: Node, to: Program) -> None:
    to.bind_constant(node.output, node.arrays["value"])


EMISSIONS: dict[str, Callable[[Node, Any], None]] = {
    "conv": _conv,
    "conv_transpose": _conv,
    "dense": _conv,
    "pool": _pool,
    "activation": _activation,
    "scale_shift": _scale_shift,
    "binary": _binary,
    "gate": _gate,
    "prelu": _prelu,
    "concat": _concat,
    "slice": _slice,
    "reshape": _reshape,
    "permute": _permute,
    "pad": _pad,
    "softmax": _softmax,
    "response_norm": _response_norm,
    "group_norm": _group_norm,
    "resample": _resample,
    "constant": _constant,
}
