# SPDX-License-Identifier: Apache-2.0
"""Where every value lies: in buffers of their own, or as parts of others, and the buffers in one arena.

Parts cost no copy: what is concatenated is written to its place at once, a slice is read where it lies, a reshape is
the same memory. What lives at the same time may not overlap in the arena; offsets are found greedily, the largest
buffer first, each in the smallest gap that fits (Pisarchyk and Lee, "Efficient memory management for deep neural net
inference", 2020, section 5.2, by best fit).
"""

from collections.abc import Sequence
from typing import NamedTuple

from .network import Network, Node, Shape, size_of
from .operators import OPERATORS

ALIGNMENT = 64  # bytes


class Place(NamedTuple):
    """Part of the buffer of the value `root`: rows of one length, `pitch` apart, from `offset` on; in elements."""

    root: int
    offset: int
    rows: int
    pitch: int


class Life(NamedTuple):
    """A buffer of the arena: from the node that first writes it to the last that reads it."""

    root: int
    first: int
    last: int
    bytes: int


class Places:
    """The place of every value of a network.

    Attributes:
        places: value -> Place.
        views: the slices and reshapes that are the memory of what they read.
    """

    def __init__(self, network: Network, shapes: dict[int, Shape]) -> None:
        self.network, self.shapes = network, shapes
        self.places: dict[int, Place] = {}
        self.views: set[int] = set()
        self.readers, self.makers = network.readers(), network.makers()
        fixed = {*network.inputs, *network.outputs}
        fixed.update(node.output for node in network.nodes if node.op == "constant")
        fixed.update(v for node in network.nodes if node.op == "python" for v in node.outputs)
        for node in reversed(network.nodes):  # what is larger finds its place first
            if node.op == "concat":
                self._join(node, fixed)
            elif node.op == "reshape" and node.output in network.outputs:
                x = node.inputs[0]
                if x not in fixed and x not in self.places and self.makers[x].op not in ("slice", "reshape"):
                    self.places[x] = Place(node.output, 0, 1, size_of(shapes[x]))
        for v in network.inputs:
            self._own(v)
        for node in network.nodes:
            for v in node.outputs:
                if v in self.places or v not in shapes:
                    continue
                if node.op == "slice" and v not in fixed:
                    self._cut(node)
                elif node.op == "reshape" and v not in fixed and self.is_dense(node.inputs[0]):
                    whole = self.places[node.inputs[0]]
                    self._view(v, Place(whole.root, whole.offset, 1, size_of(shapes[v])))
                if v not in self.places:
                    self._own(v)

    def is_dense(self, value: int) -> bool:
        """Whether its elements follow each other."""
        place = self.places[value]
        return place.rows <= 1 or place.pitch * place.rows == size_of(self.shapes[value])

    def _own(self, value: int) -> None:
        self.places[value] = Place(value, 0, 1, size_of(self.shapes[value]))

    def _place(self, value: int) -> Place:
        return self.places.get(value, Place(value, 0, 1, size_of(self.shapes[value])))

    def _part(self, whole: int, axis: int, start: int) -> Place | None:
        """Of `whole`, from index `start` of the axis on; None where the rows of the whole are others."""
        place, shape = self._place(whole), self.shapes[whole]
        rows, length = size_of(shape[:axis]), size_of(shape[axis:])
        step = size_of(shape[axis + 1 :])
        if rows <= 1:
            return Place(place.root, place.offset + start * step, 1, length) if place.rows <= 1 else None
        if place.rows <= 1:
            return Place(place.root, place.offset + start * step, rows, length)
        return Place(place.root, place.offset + start * step, rows, place.pitch) if place.rows == rows else None

    def _join(self, node: Node, fixed: set[int]) -> None:
        axis, start = node.words["axis"], 0
        for v in node.inputs:
            part = self._part(node.output, axis, start)
            start += self.shapes[v][axis]
            once = node.inputs.count(v) == 1
            if part is None or not once or v in fixed or v in self.places or size_of(self.shapes[v]) == 0:
                continue
            maker = self.makers[v]
            if maker.op == "reshape" or (maker.op == "slice" and _cut_axis(maker, self.shapes) is not None):
                continue  # it may be a part of something else
            if part.rows <= 1 or (OPERATORS[maker.op].writes(maker, axis) and self._all_read(v, axis)):
                self.places[v] = part

    def _all_read(self, value: int, axis: int) -> bool:
        return all(
            OPERATORS[node.op].reads(node, position, axis)
            for node in self.readers.get(value, [])
            for position, v in enumerate(node.inputs)
            if v == value
        )

    def _cut(self, node: Node) -> None:
        """A slice of one axis, without steps, is a part of what it is cut from."""
        axis = _cut_axis(node, self.shapes)
        if axis is None:
            return
        part = self._part(node.inputs[0], axis, node.words["ranges"][axis - 1][0])
        if part is not None and (part.rows <= 1 or self._all_read(node.output, axis)):
            self._view(node.output, part)

    def _view(self, value: int, place: Place) -> None:
        self.places[value] = place
        self.views.add(value)

    def lives(self, itemsize: int) -> list[Life]:
        """The buffers of the arena: all roots but inputs, outputs and constants."""
        outside = {*self.network.inputs, *self.network.outputs}
        outside.update(node.output for node in self.network.nodes if node.op == "constant")
        span: dict[int, tuple[int, int]] = {}
        for i, node in enumerate(self.network.nodes):
            for v in (*node.outputs, *node.inputs):
                root = self.places[v].root if v in self.places else v
                if root not in outside and v in self.shapes:
                    span[root] = (span.get(root, (i, i))[0], i)
        return [Life(root, a, b, size_of(self.shapes[root]) * itemsize) for root, (a, b) in span.items()]


def _cut_axis(node: Node, shapes: dict[int, Shape]) -> int | None:
    """The one axis that a slice cuts, without steps."""
    x, ranges = shapes[node.inputs[0]], node.words["ranges"]
    cut = [a for a, r in enumerate(ranges, 1) if list(r) != [0, x[a], 1]]
    return cut[0] if len(cut) == 1 and ranges[cut[0] - 1][2] == 1 else None


def assigned(lives: Sequence[Life]) -> tuple[dict[int, int], int]:
    """(root -> offset in bytes, bytes in all)."""
    offsets: dict[int, int] = {}
    placed: list[tuple[int, int, Life]] = []  # (offset, end, life)
    for life in sorted(lives, key=lambda life: (-life.bytes, life.first, life.root)):
        need = -(-life.bytes // ALIGNMENT) * ALIGNMENT
        busy = sorted((a, b) for a, b, other in placed if other.first <= life.last and life.first <= other.last)
        best: tuple[int, int] | None = None  # (size of the gap, offset)
        end = 0
        for a, b in busy:
            if a - end >= need and (best is None or a - end < best[0]):
                best = (a - end, end)
            end = max(end, b)
        offset = end if best is None else best[1]
        offsets[life.root] = offset
        placed.append((offset, offset + need, life))
    return offsets, max((end for _, end, _ in placed), default=0)
