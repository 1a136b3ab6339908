# SPDX-License-Identifier: Apache-2.0
"""A traced graph written as an ONNX graph, call by call.

A converter is a function `f(w, call, *names)`: it gets the writer, the call, and the ONNX names of the call's inputs
(None where there is none), emits nodes with `w.node`, and returns the name of its result, or a tuple of as many as the
call has.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core import ProblemError, UnsupportedError
from ..graph import Call, Graph, Value, trace_graph
from ..tensor import plain
from .converters import CONVERTERS
from .package import NUMBERS, onnx

OLDEST_OPSET, NEWEST_OPSET = 18, 23
_MOST_INLINE = 2**31 - 2**20  # bytes of weights in one file; protobuf's limit is 2 GiB


class Writer:
    """Nodes, initializers and names of an ONNX graph in the making.

    Attributes:
        opset: which ONNX operators there are.
        batch: the length of the first axis that is to stay open; None: all shapes are fixed.
    """

    def __init__(self, opset: int, batch: int | None) -> None:
        self.opset, self.batch = opset, batch
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self._names: dict[Value, str] = {}
        self._numbers: dict[tuple[Any, ...], str] = {}
        self._taken: set[str] = set()
        self._makes = onnx("helper").make_node

    def fresh(self, name: str) -> str:
        """`name`, or with a number behind it if it is taken."""
        found, count = name, 0
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def bind(self, value: Value, name: str) -> None:
        """Say what a value is called."""
        self._names[value] = name

    def name(self, value: Value) -> str:
        """What a value is called. A parameter or buffer becomes an initializer when it is asked for first, another
        array a Constant node: so the initializers of a file are what its model has learnt."""
        if value not in self._names:
            if value.data is None:
                raise ProblemError("export: a value is used that no operation of the graph has made")
            if value.name is None:
                self._names[value] = self.array(value.data, value.dtype)
            else:
                self._names[value] = name = self.fresh(value.name)
                self.initializers[name] = np.asarray(value.data)
        return self._names[value]

    def node(self, op_type: str, inputs: Sequence[str | None], outputs: int = 1, **attributes: Any) -> Any:
        """One node; the name of its result, or a list of several."""
        label = self.fresh(op_type)
        names = [self.fresh(f"{label}_out") for _ in range(outputs)]
        words = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(self._makes(op_type, [name or "" for name in inputs], names, name=label, **words))
        return names[0] if outputs == 1 else names

    def array(self, values: Any, dtype: Any = np.int64) -> str:
        """A Constant node with these numbers; small ones are shared."""
        array = np.asarray(values, dtype)
        key = (array.dtype.name, array.shape, array.tobytes()) if array.size <= 64 else (len(self.nodes),)
        if key not in self._numbers:
            value = onnx("numpy_helper").from_array(array)
            self._numbers[key] = self.node("Constant", [], value=value)
        return self._numbers[key]

    def shape(self, shape: Sequence[int], depends: bool = True) -> list[int]:
        """A shape for Reshape, whose first length is open where the batch may be another."""
        opens = depends and self.batch and shape and shape[0] and shape[0] % self.batch == 0
        return [-1, *shape[1:]] if opens else list(shape)

    def reshape(self, x: str, shape: Sequence[int], depends: bool = True) -> str:
        return self.node("Reshape", [x, self.array(self.shape(shape, depends))])

    def transpose(self, x: str, axes: Sequence[int]) -> str:
        return self.node("Transpose", [x], perm=list(axes))

    def channels_first(self, x: str, ndim: int, layout: str) -> str:
        """x (N, *, C) as (N, C, *), if that is its layout."""
        return x if layout == "channels_first" else self.transpose(x, (0, ndim - 1, *range(1, ndim - 1)))

    def channels_back(self, x: str, ndim: int, layout: str) -> str:
        """The opposite of `channels_first`."""
        return x if layout == "channels_first" else self.transpose(x, (0, *range(2, ndim), 1))

    def known(self, value: Any, what: str) -> np.ndarray:
        """A static argument that must be an array that is there while exporting."""
        if isinstance(value, Value):
            raise UnsupportedError(f"export: {what} is computed by the model; expected an array that is known before")
        return np.asarray(plain(value))

    def static(self, value: Any) -> str:
        """The name of a static argument that is an array, known or computed by another call."""
        return self.name(value) if isinstance(value, Value) else self.array(plain(value))

    def call(self, call: Call) -> None:
        """Emit the nodes of a call."""
        function = call.function
        converter = CONVERTERS.get(f"{function.__module__.removeprefix('fastconv.ops.')}.{function.__name__}")
        if converter is None:
            raise UnsupportedError(f"export: fastconv does not know how to write {function.__name__} as ONNX")
        results = converter(self, call, *(None if v is None else self.name(v) for v in call.inputs))
        for value, name in zip(call.outputs, results if isinstance(results, tuple) else (results,), strict=False):
            if value is not None and name is not None:
                self.bind(value, name)

    def finish(self, values: Sequence[Value], names: Sequence[str]) -> None:
        """Give the graph's outputs their names: to the results of nodes, else to a copy."""
        made = {name for node in self.nodes for name in node.output}
        renamed: dict[str, str] = {}
        for value, name in zip(values, names, strict=True):
            current = self.name(value)
            if current in made and current not in renamed:
                renamed[current] = name
            else:
                self.nodes.append(self._makes("Identity", [current], [name], name=self.fresh("Identity")))
        for node in self.nodes:
            node.input[:] = [renamed.get(n, n) for n in node.input]
            node.output[:] = [renamed.get(n, n) for n in node.output]


def export(model: Any, path: Any, example: Any, *, opset: int = 20, input_names: Sequence[str] = ("input",),
           output_names: Sequence[str] = ("output",), dynamic_batch: bool = True) -> Any:  # fmt: skip
    """Write a model as an ONNX file.

    The model is traced (`fastconv.graph.trace_graph`) in evaluation mode on the example: what depends on shapes is
    written for these shapes, but for the length of the first axis where `dynamic_batch` is set. Parameters keep the
    names that they have in `state_dict`.

    Args:
        model: a module, or any function of tensors.
        path: of the file; None writes none. Weights of 2 GiB or more go to a file beside it, path + ".data".
        example: an input, or a tuple of several.
        opset: 18 to 23, the version of ONNX's operators.
        input_names, output_names: of the graph; a number is added to the last one where there are more.
        dynamic_batch: leave the length of the first axis of all inputs and outputs open; they must have one in common.

    Returns:
        the onnx.ModelProto, which has passed onnx's checker with shape inference; without its weights where these went
        to a file of their own.

    Raises:
        ImportError: the package onnx is missing.
        ProblemError: a model that cannot be traced. UnsupportedError: an operation that ONNX has no words for.
    """
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ProblemError(f"export: opset is {opset}; expected {OLDEST_OPSET} to {NEWEST_OPSET}")
    examples = example if isinstance(example, tuple | list) else (example,)
    graph = trace_graph(model, *examples)
    batch = _batch(graph) if dynamic_batch else None
    writer = Writer(opset, batch)
    inputs, outputs = _numbered(input_names, len(graph.inputs)), _numbered(output_names, len(graph.outputs))
    for value, name in zip(graph.inputs, inputs, strict=True):
        writer.bind(value, writer.fresh(name))
    for name in outputs:
        writer.fresh(name)
    for call in graph.calls:
        writer.call(call)
    writer.finish(graph.outputs, outputs)
    proto = _proto(writer, graph, inputs, outputs)
    _save(proto, path, sum(a.nbytes for a in writer.initializers.values()))
    return proto


def _batch(graph: Graph) -> int:
    lengths = {v.shape[0] if v.shape else None for v in (*graph.inputs, *graph.outputs)}
    if len(lengths) != 1 or None in lengths:
        raise ProblemError(
            f"export: the first axes of inputs and outputs have the lengths {sorted(map(str, lengths))}; expected one "
            "for all, or dynamic_batch=False"
        )
    return int(next(iter(lengths)) or 0)


def _numbered(names: Sequence[str], count: int) -> list[str]:
    names = [names] if isinstance(names, str) else list(names)
    if not names or len(names) > count:
        raise ProblemError(f"export: names {names} for {count} values; expected at least one and at most {count}")
    return names + [f"{names[-1]}_{i}" for i in range(1, count - len(names) + 1)]


def _proto(writer: Writer, graph: Graph, inputs: list[str], outputs: list[str]) -> Any:
    helper, to_tensor = onnx("helper"), onnx("numpy_helper").from_array

    def info(value: Value, name: str) -> Any:
        shape = ["batch" if writer.batch and axis == 0 else n for axis, n in enumerate(value.shape)]
        return helper.make_tensor_value_info(name, NUMBERS[value.dtype.name], shape)

    body = helper.make_graph(
        writer.nodes,
        "fastconv",
        [info(v, n) for v, n in zip(graph.inputs, inputs, strict=True)],
        [info(v, n) for v, n in zip(graph.outputs, outputs, strict=True)],
        [to_tensor(array, name) for name, array in writer.initializers.items()],
    )
    imports = [helper.make_opsetid("", writer.opset)]
    return helper.make_model(
        body, producer_name="fastconv", opset_imports=imports, ir_version=helper.find_min_ir_version_for(imports)
    )


def _save(proto: Any, path: Any, weights: int) -> None:
    if weights < _MOST_INLINE:
        onnx("checker").check_model(proto, full_check=True)
    if path is None:
        return
    path = os.fspath(path)
    if weights < _MOST_INLINE:
        onnx().save(proto, path)
        return
    beside = f"{os.path.basename(path)}.data"
    onnx().save(proto, path, save_as_external_data=True, all_tensors_to_one_file=True, location=beside)
    onnx("checker").check_model(path, full_check=True)
