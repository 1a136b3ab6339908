# SPDX-License-Identifier: Apache-2.0
"""From a network for one batch size to a native program: memory, steps, and what Python does between them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from .emission import EMISSIONS
from .fallback import run_call
from .network import Network, Node, Shape, size_of
from .operators import shapes_of
from .places import Places, assigned

Rows = tuple[int, int, int, int, int]


class Row(NamedTuple):
    """What one step of a program is for."""

    node: Node
    op: str
    algorithm: str
    problem: Any  # a ConvProblem, or None


class Weights:
    """The packed weights of a network's convolutions, shared by the programs of all batch sizes."""

    def __init__(self, network: Network, options: Any) -> None:
        self.network, self.options = network, options
        self._packed: dict[Any, _core.PackedWeights] = {}

    def of(self, node: Node, problem: _core.ConvProblem) -> _core.PackedWeights:
        """Those of a node for a problem of any batch size."""
        key = id(node), problem.with_n(1)
        if key not in self._packed:
            dtype = np.dtype(self.network.dtype)
            w, bias = node.arrays["w"], node.arrays.get("bias")
            w = np.ascontiguousarray(w, dtype).reshape(problem.w_shape)
            bias = None if bias is None else np.ascontiguousarray(bias, dtype)
            options = self.options(node.words.get("algorithm"))
            alone = problem.with_n(1)
            self._packed[key] = _core.PackedWeights(alone, w, bias, options)
        return self._packed[key]

    @property
    def bytes(self) -> int:
        """Of all that is packed."""
        return sum(packed.bytes for packed in self._packed.values())


class Program:
    """A network for inputs of certain shapes, ready to run.

    Attributes:
        arena_bytes: of the one piece of memory in which all intermediate arrays lie.
        rows: what each step is for.
        input_shapes, output_shapes: of what comes and goes.
    """

    def __init__(self, network: Network, input_shapes: Sequence[Shape], weights: Weights, options: Any) -> None:
        self.network, self.weights = network, weights
        self.input_shapes = tuple(map(tuple, input_shapes))
        self.shapes = shapes_of(network, input_shapes)
        self.output_shapes = tuple(self.shapes[v] for v in network.outputs)
        self.dtype = np.dtype(network.dtype)
        self._places = Places(network, self.shapes)
        offsets, self.arena_bytes = assigned(self._places.lives(self.dtype.itemsize))
        self._offsets = {root: offset // self.dtype.itemsize for root, offset in offsets.items()}
        self._written = [v for v in dict.fromkeys(network.outputs) if v not in network.inputs]
        roots = [*network.inputs, *self._written]
        self._buffers = {v: i for i, v in enumerate(roots, 1)}
        sizes = [size_of(self.shapes[v]) * self.dtype.itemsize for v in roots]
        count = len(network.inputs)
        word = {"float32": "f32", "float64": "f64"}[network.dtype]
        self.native = _core.Program(word, self.arena_bytes, sizes[:count], sizes[count:], options)
        self.word = word
        self.constants: dict[int, Any] = {}
        self.rows: list[Row] = []
        self.stretches: list[tuple[int, int] | Node] = []  # steps first to last, or what Python does
        begin = 0
        for node in network.nodes:
            if node.op == "python":
                self.stretches += [(begin, len(self.rows))] if begin < len(self.rows) else []
                self.stretches.append(node)
                begin = len(self.rows)
            else:
                EMISSIONS[node.op](node, self)
        self.stretches += [(begin, len(self.rows))] if begin < len(self.rows) else []

    # ---- What emissions ask ------------------------------------------------------------------------------------------

    def step(self, node: Node, op: str = "", algorithm: str = "", problem: Any = None) -> None:
        """Say what the step that was just added is for."""
        self.rows.append(Row(node, op or node.op, algorithm, problem))

    def where(self, value: int) -> tuple[int, int]:
        """(buffer, offset in elements) of a value."""
        place = self._places.places[value]
        root = place.root
        if root in self._buffers:
            return self._buffers[root], place.offset
        return 0, self._offsets[root] + place.offset

    def is_dense(self, value: int) -> bool:
        """Whether its elements follow each other."""
        return self._places.is_dense(value)

    def is_view(self, value: int) -> bool:
        """Whether it is the memory of what its node reads."""
        return value in self._places.views

    def root_of(self, value: int) -> int:
        """The value in whose memory it lies."""
        return self._places.places[value].root

    def has_place(self, value: int) -> bool:
        """Whether it lies in the arena: floats of the network's dtype that a node computes do."""
        return value in self.shapes and self.root_of(value) in self._offsets

    def common_rows(self, *values: int) -> int:
        """In how many rows values of one shape can all be seen; 0: in none."""
        counts = {self._places.places[v].rows for v in values if not self._places.is_dense(v)}
        return counts.pop() if len(counts) == 1 else 0 if counts else 1

    def rows_of(self, value: int, rows: int | None = None) -> Rows:
        """The value as (buffer, offset, rows, length, pitch), in so many rows; None: as few as there are."""
        place, size = self._places.places[value], size_of(self.shapes[value])
        buffer, offset = self.where(value)
        if self._places.is_dense(value):
            rows = 1 if rows is None else rows
            length = size // rows if rows else 0
            return buffer, offset, rows, length, length
        return buffer, offset, place.rows, size // place.rows, place.pitch

    def part_of(self, value: int, layout: str) -> tuple[int, int, int, int]:
        """An image as (buffer, offset, batch pitch, channel or pixel pitch)."""
        place, shape = self._places.places[value], self.shapes[value]
        buffer, offset = self.where(value)
        first = layout in ("nchw", "channels_first")
        inner = size_of(shape[2:]) if first else shape[-1]
        batch = size_of(shape[1:]) if self._places.is_dense(value) else place.pitch
        return buffer, offset, batch, inner

    def matrix_part(self, value: int) -> tuple[int, int, int, int]:
        """A matrix whose rows are images of one pixel."""
        buffer, offset, _, length, pitch = self.rows_of(value, self.shapes[value][0])
        return buffer, offset, pitch, length

    def strides_of(self, value: int) -> tuple[int, int, list[int]]:
        """(buffer, offset, strides in elements)."""
        place, shape = self._places.places[value], self.shapes[value]
        strides = [size_of(shape[a + 1 :]) for a in range(len(shape))]
        if not self._places.is_dense(value):
            length = size_of(shape) // place.rows
            strides = [s if s < length else s // length * place.pitch for s in strides]
        return *self.where(value), strides

    def constant(self, array: Any) -> int:
        """The buffer of an array of the network's dtype."""
        return self.native.constant(np.ascontiguousarray(array, self.dtype))

    def bind_constant(self, value: int, array: Any) -> None:
        """Let a value be a constant."""
        self._buffers[value] = self.constant(array)
        self.constants[value] = array

    def copy(self, node: Node, shape: Sequence[int], source: Any, target: Any, frame: Any = None,
             value: float = 0.0) -> None:  # fmt: skip
        """A step that copies; source and target are (buffer, offset, strides)."""
        extents, one, other = _merged(shape, source[2], target[2])
        self.native.copy(extents, source[0], source[1], one, target[0], target[1], other, frame, value)
        self.step(node, "copy")

    # ---- Running -----------------------------------------------------------------------------------------------------

    def run(self, inputs: Sequence[Any], threads: int, seconds: list[tuple[Row, float]] | None = None) -> list[Any]:
        """The outputs for arrays of the program's shapes and dtype, in C order."""
        made = {v: _core.output_array(self.word, self.shapes[v]) for v in self._written}
        arena = _core.Arena(self.word, self.arena_bytes)
        held: dict[int, Any] = dict(zip(self.network.inputs, inputs, strict=True)) | made
        timed = seconds is not None
        for stretch in self.stretches:
            if isinstance(stretch, tuple):
                first, last = stretch
                times = self.native.run(list(inputs), list(made.values()), threads, arena, first, last, timed)
                if seconds is not None and times is not None:
                    seconds += zip(self.rows[first:last], times, strict=True)
            else:
                run_call(self, stretch, held, arena, seconds)
        return self.returned(held)

    def outputs_for(self, images: int) -> dict[int, Any]:
        """Value -> an array for the results of another batch size."""
        return {v: _core.output_array(self.word, (images, *self.shapes[v][1:])) for v in self._written}

    def run_into(self, inputs: Sequence[Any], made: dict[int, Any], pieces: int, threads: int) -> None:
        """Run for batches that lie behind each other: one by all threads, several side by side by a thread each.

        Args:
            inputs: arrays of all batches, as for `run`.
            made: what `outputs_for` gave, or its part for these batches.
            pieces: how many batches.
        """
        arenas = [_core.Arena(self.word, self.arena_bytes) for _ in range(min(threads, pieces))]
        if pieces == 1:
            self.native.run(list(inputs), list(made.values()), threads, arenas[0], 0, len(self.rows))
        else:
            self.native.run_pieces(list(inputs), list(made.values()), arenas, pieces)

    def returned(self, held: dict[int, Any]) -> list[Any]:
        """The network's outputs among values; an input is copied."""
        return [held[v].copy() if v in self.network.inputs else held[v] for v in self.network.outputs]

    @property
    def activation_bytes(self) -> int:
        """Of all that the steps write."""
        values = [node.output for node in self.network.nodes if node.output in self.shapes]
        return sum(size_of(self.shapes[v]) for v in values if not self.is_view(v)) * self.dtype.itemsize


def _merged(shape: Sequence[int], one: Sequence[int], other: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """The same copy over as few axes as possible: neighbours that are dense on both sides are one."""
    axes = [(n, a, b) for n, a, b in zip(shape, one, other, strict=True) if n != 1] or [(1, 1, 1)]
    merged = [axes[0]]
    for n, a, b in axes[1:]:
        m, c, d = merged[-1]
        if c == n * a and d == n * b:
            merged[-1] = (m * n, a, b)
        else:
            merged.append((n, a, b))
    return [n for n, _, _ in merged], [a for _, a, _ in merged], [b for _, _, b in merged]
