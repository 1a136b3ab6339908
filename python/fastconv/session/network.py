# SPDX-License-Identifier: Apache-2.0
"""What a session computes: nodes between numbered values. No Python objects of the model are left in it.

A network holds for any batch size: the shapes of its values follow from those of its inputs (`shapes`).
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

Shape = tuple[int, ...]


@dataclasses.dataclass
class Node:
    """One operation.

    Attributes:
        op: its name, one of `operators.OPERATORS`.
        inputs, outputs: numbers of values.
        words: its numbers and names, as JSON could hold them.
        arrays: its weights and other constants; what stands for a float is float64 until it is packed.
        name: what it is called in tables: the path of the layer that it came from, or "".
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    words: dict[str, Any] = dataclasses.field(default_factory=dict)
    arrays: dict[str, Any] = dataclasses.field(default_factory=dict)
    name: str = ""

    @property
    def output(self) -> int:
        """The first output, of most nodes the only one."""
        return self.outputs[0]


@dataclasses.dataclass
class Network:
    """Nodes in an order in which they can run.

    Attributes:
        dtype: "float32" or "float64", of all values that are computed natively.
        inputs, outputs: numbers of values.
        input_shapes: of the inputs, with the batch that the network was traced with.
        values: how many numbers are in use.
        structure, keys: of what the model returns, as in `graph.Graph`.
    """

    dtype: str
    nodes: list[Node]
    inputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    outputs: tuple[int, ...]
    values: int
    structure: str = "tensor"
    keys: tuple[str, ...] = ()

    def new_value(self) -> int:
        """A number that is not in use."""
        self.values += 1
        return self.values - 1

    def readers(self) -> dict[int, list[Node]]:
        """Value -> the nodes that read it, one entry per time."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            for v in node.inputs:
                found.setdefault(v, []).append(node)
        return found

    def makers(self) -> dict[int, Node]:
        """Value -> the node that computes it."""
        return {v: node for node in self.nodes for v in node.outputs}

    def replace(self, old: int, new: int) -> None:
        """Let everything that reads `old` read `new`."""
        for node in self.nodes:
            if old in node.inputs:
                node.inputs = tuple(new if v == old else v for v in node.inputs)
        self.outputs = tuple(new if v == old else v for v in self.outputs)

    def keep_needed(self) -> None:
        """Drop the nodes that no output depends on."""
        wanted, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if any(v in wanted for v in node.outputs):
                wanted.update(node.inputs)
                kept.append(node)
        self.nodes = kept[::-1]


def size_of(shape: Iterable[int]) -> int:
    """How many elements."""
    return math.prod(shape)
