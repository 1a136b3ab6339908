# SPDX-License-Identifier: Apache-2.0
"""Activations that other writers spell out in several nodes, read as the one that they are.

    SiLU: Mul(x, Sigmoid(x))            GELU: x (1 + Erf(x / sqrt 2)) / 2, the three factors in any order

One operation is exacter where the parts cancel, quicker, and fits into the convolution before it. Values in between
must have no other use.
"""

import math
from typing import Any

import numpy as np

from .graph import Graph
from .node import Node
from .operators import OPERATORS


class _Nodes:
    """Who makes a value, who takes it, and which values are single numbers."""

    def __init__(self, graph: Graph) -> None:
        self.made_by = {name: node for node in graph.nodes for name in node.outputs if name}
        self.takers: dict[str, list[Node]] = {}
        for node in graph.nodes:
            for name in node.inputs:
                self.takers.setdefault(name, []).append(node)
        self.outputs = set(graph.outputs)
        arrays = [(name, array) for name, array in graph.arrays.items() if array.ndim == 0]
        constants = [n for n in graph.nodes if isinstance(n.attributes.get("value"), np.ndarray)]
        arrays += [(n.outputs[0], n.attributes["value"]) for n in constants if n.op_type == "Constant" and n.outputs]
        self.numbers = {name: float(a.reshape(())) for name, a in arrays if a.size == 1 and a.dtype.kind == "f"}

    def is_number(self, name: str, value: float) -> bool:
        return math.isclose(self.numbers.get(name, math.nan), value, rel_tol=1e-3)

    def maker(self, name: str, op_type: str) -> Node | None:
        """The node of this type that makes a value, if nothing else has a use for it."""
        node = self.made_by.get(name)
        alone = len(self.takers.get(name, ())) == 1 and name not in self.outputs
        return node if node is not None and node.op_type == op_type and alone else None

    def taker(self, name: str, op_type: str) -> tuple[Node, str] | None:
        """(node, its other input) of the only taker of a value, if it is of this type, with two inputs."""
        takers = self.takers.get(name, ())
        if len(takers) != 1 or name in self.outputs or takers[0].op_type != op_type or len(takers[0].inputs) != 2:
            return None
        first, second = takers[0].inputs
        return takers[0], second if first == name else first


def _silu(nodes: _Nodes, mul: Node) -> tuple[str, Node, list[Node]] | None:
    """(x, last node, all its nodes) of a SiLU that ends in this Mul."""
    for x, gate in (mul.inputs, mul.inputs[::-1]):
        sigmoid = nodes.maker(gate, "Sigmoid")
        if sigmoid is not None and sigmoid.inputs == (x,):
            return x, mul, [sigmoid, mul]
    return None


def _gelu(nodes: _Nodes, erf: Node) -> tuple[str, Node, list[Node]] | None:
    """(x, last node, all its nodes) of a GELU around this Erf."""
    scale = nodes.maker(erf.inputs[0], "Div") or nodes.maker(erf.inputs[0], "Mul")
    if scale is None or not nodes.is_number(scale.inputs[1], math.sqrt(2 if scale.op_type == "Div" else 0.5)):
        return None
    x, plus = scale.inputs[0], nodes.taker(erf.outputs[0], "Add")
    if plus is None or not nodes.is_number(plus[1], 1.0):
        return None
    found, value = [scale, erf, plus[0]], plus[0].outputs[0]
    missing = {"x", "half"}
    while missing:
        step = nodes.taker(value, "Mul")
        if step is None:
            return None
        mul, other = step
        both = nodes.maker(other, "Mul")
        if both is not None and missing == {"x", "half"} and _is_half_of(nodes, both, x):
            found.append(both)
            missing = set()
        elif other == x and "x" in missing:
            missing.discard("x")
        elif nodes.is_number(other, 0.5) and "half" in missing:
            missing.discard("half")
        else:
            return None
        found.append(mul)
        value = mul.outputs[0]
    return x, found[-1], found


def _is_half_of(nodes: _Nodes, mul: Node, x: str) -> bool:
    return any(a == x and nodes.is_number(b, 0.5) for a, b in (mul.inputs, mul.inputs[::-1]))


def fused(graph: Graph) -> tuple[Node, ...]:
    """The graph's nodes with each such group as one node in place of its last."""
    nodes, gone, instead = _Nodes(graph), set[int](), dict[int, Node]()
    finders: dict[str, tuple[Any, str]] = {"Mul": (_silu, "Swish"), "Erf": (_gelu, "Gelu")}
    for node in graph.nodes:
        if node.op_type not in finders:
            continue
        find, op_type = finders[node.op_type]
        match = find(nodes, node)
        if match is not None and not gone & {id(n) for n in match[2]}:
            x, last, group = match
            gone |= {id(n) for n in group}
            instead[id(last)] = Node(op_type, last.name, last.opset, (x,), last.outputs, {}, OPERATORS[op_type],
                                     last.max_bytes)  # fmt: skip
    return tuple(instead.get(id(n), n) for n in graph.nodes if id(n) in instead or id(n) not in gone)
