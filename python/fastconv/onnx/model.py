# SPDX-License-Identifier: Apache-2.0
"""An ONNX model as a module: it runs, trains and is traced like any other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._core import ProblemError
from ..arrays import is_float, kind_of
from ..nn.module import Module, Parameter
from ..tensor import Tensor, plain
from .graph import Graph, Input, parse, read_graph
from .node import Node, Value, as_value
from .patterns import fused

# Which inputs of an operator are learnt, if they are initializers of a floating dtype with an axis or more: single
# numbers are constants of a formula. Running statistics are not learnt.
_LEARNT = {
    "Add": (0, 1),
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gather": (0,),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "Mul": (0, 1),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}
# What lies between an initializer and where it is used, in some writers' files.
_MOVES = ("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
Watch = Callable[[Node, list[Value], tuple[Value, ...]], None]
_DEEPEST = 32  # levels of modules that a name may make; a longer one stands in the model itself


class OnnxModel(Module):
    """What `fastconv.onnx.load` gives. Call it with the graph's inputs, in order, arrays or tensors.

    Its parameters and buffers have the names of the file's initializers ("conv1.weight"). A node of it is one or more
    operations on the tape, so gradients flow to the parameters and the inputs. It is loaded in evaluation mode; after
    `train()` batch norm takes its statistics from the batch and moves the running ones, and dropout drops.

    Attributes:
        input_names, output_names: of the graph, in order.
        opset: the version of ONNX's operators that the file uses.
        nodes: what runs, in order: the file's, but for activations that it spells out (patterns.py).
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        graph = graph._replace(nodes=fused(graph))
        self.graph_name, self.opset = graph.name, graph.opset
        self.inputs, self.output_names, self.nodes = graph.inputs, graph.outputs, graph.nodes
        self.input_names = tuple(i.name for i in graph.inputs)
        learnt = _learnt(graph.nodes, graph.arrays)
        self._places: dict[str, tuple[Module, str]] = {}
        for name, array in graph.arrays.items():
            module, leaf = self._place(name)
            if name in learnt:
                module.register_parameter(leaf, Parameter(array))
            else:
                module.register_buffer(leaf, array)
            self._places[name] = (module, leaf)
        self._last_use = _last_uses(graph)
        self.eval()

    def _place(self, name: str) -> tuple[Module, str]:
        """The module and attribute for an initializer: "a.b.c" is c in b in a. A name that is taken, or that Module
        has for itself, stands in the model instead, with underscores."""
        holder: Module = self
        *parts, leaf = name.split(".", _DEEPEST)
        for part in parts:
            if part not in holder._modules:
                if not _is_free(holder, part):
                    return self, self._flat(name)
                holder.add_module(part, _Weights())
            holder = holder._modules[part]
        free = _is_free(holder, leaf) and "." not in leaf
        return (holder, leaf) if free else (self, self._flat(name))

    def _flat(self, name: str) -> str:
        flat = name.replace(".", "_") + "_"
        while not _is_free(self, flat):
            flat += "_"
        return flat

    def forward(self, *inputs: Any) -> Any:
        """The graph's outputs: one value, or a tuple. Floating ones are tensors, others arrays.

        Raises:
            ProblemError: another number of inputs, another number of axes, or what a node cannot do with them.
            TypeError: an input of another dtype than the file says.
        """
        return self.run(inputs)

    def run(self, inputs: tuple[Any, ...], watch: Watch | None = None) -> Any:
        """`forward`; `watch` is told every node with its inputs' values and its results."""
        values = self._values(inputs)
        with np.errstate(all="ignore"):  # as ONNX has it: infinities and NaN are values
            for index, node in enumerate(self.nodes):
                node.training = self.training
                given = [values[name] if name else None for name in node.inputs]
                results = node.run(given)
                if watch is not None:
                    watch(node, given, results)
                for name, result in zip(node.outputs, results, strict=False):
                    if name:
                        values[name] = result
                missing = [name for name in node.outputs if name and name not in values]
                if missing:
                    raise ProblemError(f"{self.graph_name}: {node}: does not give {missing[0]!r}")
                for name in self._last_use[index]:
                    del values[name]
        outputs = tuple(values[name] for name in self.output_names)
        return outputs if len(outputs) > 1 else outputs[0]

    def _values(self, inputs: tuple[Any, ...]) -> dict[str, Value]:
        if len(inputs) != len(self.inputs):
            raise ProblemError(f"{self.graph_name}: {len(inputs)} inputs came; expected {list(self.input_names)}")
        values: dict[str, Value] = {}
        for given, expected in zip(inputs, self.inputs, strict=True):
            values[expected.name] = self._checked(given, expected)
        for name, (module, leaf) in self._places.items():
            held = getattr(module, leaf)
            values[name] = held if isinstance(held, Tensor) else as_value(held)
        return values

    def _checked(self, given: Any, expected: Input) -> Value:
        what = f"{self.graph_name}: the input {expected.name!r}"
        if kind_of(given) == "torch":
            raise TypeError(f"{what} is a torch tensor; expected an array: use .detach().numpy()")
        value = given if isinstance(given, Tensor) else as_value(given)
        if value.dtype != expected.dtype:
            raise TypeError(f"{what} has dtype {value.dtype}; expected {expected.dtype}: use .astype")
        if expected.shape is not None and value.ndim != len(expected.shape):
            raise ProblemError(f"{what} has shape {value.shape}; expected {len(expected.shape)} axes, {expected.shape}")
        return value if is_float(value.dtype) else plain(value)

    def __repr__(self) -> str:
        return f"OnnxModel({self.graph_name!r}, opset={self.opset}, {len(self.nodes)} nodes, {list(self.input_names)})"


class _Weights(Module):
    """Holds parameters and buffers of one prefix."""


def _is_free(module: Module, name: str) -> bool:
    return name != "" and not hasattr(module, name)


def _learnt(nodes: tuple[Node, ...], arrays: dict[str, np.ndarray]) -> set[str]:
    """The names of the initializers that training changes."""
    wanted: set[str] = set()
    for node in reversed(nodes):
        places = _LEARNT.get(node.op_type, ())
        if node.op_type in _MOVES and any(o in wanted for o in node.outputs):
            places = (0,)
        wanted.update(node.inputs[i] for i in places if i < len(node.inputs))
    return {name for name in wanted if name in arrays and is_float(arrays[name].dtype) and arrays[name].ndim}


def _last_uses(graph: Graph) -> list[list[str]]:
    """After each node, the values that nobody needs any more."""
    last: dict[str, int] = {}
    for index, node in enumerate(graph.nodes):
        last.update((name, index) for name in (*node.inputs, *node.outputs) if name)
    freed: list[list[str]] = [[] for _ in graph.nodes]
    kept = set(graph.outputs)
    for name, index in last.items():
        if name not in kept:
            freed[index].append(name)
    return freed


def load(source: Any, *, max_bytes: int = 2**32, folder: Any = None) -> OnnxModel:
    """An ONNX model as a module.

    Args:
        source: a path, the bytes of a file, or an onnx.ModelProto.
        max_bytes: the largest value that a node may make, and the largest initializer: a small file can ask for any
            size.
        folder: where external data of bytes or a ModelProto lies; of a path, it is the file's own folder.

    Returns:
        a module in evaluation mode; `model(x)` gives tensors.

    Raises:
        ImportError: the package onnx is missing. OSError: a file that cannot be read.
        ProblemError: not an ONNX model, or a malformed one; external data outside of the model's folder.
        UnsupportedError: an operator, attribute, opset or dtype that fastconv does not know; it names the node.
    """
    model, own_folder, name = parse(source, "load")
    if own_folder is None and folder is not None:
        own_folder = Path(folder).resolve()
    return OnnxModel(read_graph(model, own_folder, name, max_bytes))
