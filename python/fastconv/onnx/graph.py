# SPDX-License-Identifier: Apache-2.0
"""From bytes to a checked graph: nodes with their operators in an order in which they can run, and arrays.

Everything that can be known before the first input is checked here, and refused in one sentence: what is no ONNX
model, an operator, an attribute or an opset that fastconv does not know, a value that is read before it is made (a
cycle), sizes that contradict each other.
"""

import functools
import inspect
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._core import ProblemError, UnsupportedError
from .node import Node
from .operators import NEWEST_OPSET, OPERATORS
from .package import dtype_name, dtype_of, onnx
from .tensors import array_of

_IGNORED = ("consumed_inputs",)  # of opset 1: which inputs may be overwritten
_MOST_BYTES = 2**31  # what protobuf parses


class Input(NamedTuple):
    """An input that a caller gives: its dtype, and its shape with None for a length that is open (None: all are)."""

    name: str
    dtype: Any
    shape: tuple[int | None, ...] | None


class Graph(NamedTuple):
    """A model's graph. `arrays` are its initializers by name; `opset` is that of ONNX's own operators."""

    name: str
    opset: int
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    arrays: dict[str, np.ndarray]


def parse(source: Any, caller: str) -> tuple[Any, Path | None, str]:
    """(ModelProto, folder of its file, its name in errors) of a path, bytes or a ModelProto.

    Raises:
        OSError: a file that cannot be read. ProblemError: not an ONNX model.
    """
    proto = onnx().ModelProto
    if isinstance(source, proto):
        return source, None, caller
    folder, name = None, f"{caller}: the bytes"
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        folder, name = path.resolve().parent, os.fspath(source)
        if path.stat().st_size >= _MOST_BYTES:
            raise ProblemError(f"{name}: {path.stat().st_size} bytes; expected less than 2 GiB, with external data")
        source = path.read_bytes()
    elif not isinstance(source, bytes | bytearray | memoryview):
        raise TypeError(f"{caller}: source is a {type(source).__name__}; expected a path, bytes or an onnx.ModelProto")
    model = proto()
    try:
        model.ParseFromString(bytes(source))
    except Exception as error:  # what a broken file raises is protobuf's business
        raise ProblemError(f"{name}: not an ONNX model ({type(error).__name__})") from None
    if not model.HasField("graph"):
        raise ProblemError(f"{name}: not an ONNX model, there is no graph in it")
    return model, folder, name


def read_graph(model: Any, folder: Path | None, name: str, max_bytes: int) -> Graph:
    """The graph of a ModelProto, checked.

    Raises:
        ProblemError: malformed. UnsupportedError: beyond what fastconv knows. Both name the file and the node.
    """
    try:
        return _read(model, folder, name, max_bytes)
    except (ProblemError, UnsupportedError) as error:
        raise type(error)(f"{name}: {error}") from None
    except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:  # text that is not UTF-8, ...
        raise ProblemError(f"{name}: not a well-formed model ({type(error).__name__}: {error})") from None


def _read(model: Any, folder: Path | None, name: str, max_bytes: int) -> Graph:
    graph = model.graph
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise ProblemError("not a well-formed model: a name in it is not UTF-8")
    opset = _opset(model)
    if graph.sparse_initializer:
        raise UnsupportedError("the model has sparse initializers")
    if model.functions:
        raise UnsupportedError(
            "the model defines functions of its own; expected them inlined: onnx.inliner.inline_local_functions(model)"
        )
    _check_total(graph.initializer, max_bytes)
    arrays: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in arrays:
            raise ProblemError(f"the initializer {tensor.name!r} has no name, or there are two")
        arrays[tensor.name] = array_of(tensor, folder, f"the initializer {tensor.name!r}")
    inputs = tuple(_input(value) for value in graph.input if value.name not in arrays)
    known = {*arrays, *(value.name for value in inputs)}
    if len(known) != len(arrays) + len(inputs):
        raise ProblemError("two inputs have one name")
    made, nodes = {name for proto in graph.node for name in proto.output}, []
    for proto in graph.node:
        node = _node(proto, opset, folder, max_bytes)
        _connect(node, known, made)
        nodes.append(node)
    outputs = tuple(value.name for value in graph.output)
    missing = [o for o in outputs if o not in known]
    if missing or not outputs:
        raise ProblemError(f"no node gives the output {missing[0]!r}" if missing else "the graph has no outputs")
    return Graph(name, opset, inputs, outputs, tuple(nodes), arrays)


def _texts(model: Any) -> Iterator[str | bytes]:
    """Every name in a model; protobuf gives one that is no text as bytes."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for tensor in graph.initializer:
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    yield from (entry.domain for entry in model.opset_import)


def _connect(node: Node, known: set[str], made: set[str]) -> None:
    """Check that the node's inputs are there, and add its results."""
    for value in node.inputs:
        if value and value not in known:
            later = value in made
            why = "a node that comes later gives it: a cycle, or nodes out of order" if later else "nothing gives it"
            raise ProblemError(f"{node}: reads {value!r}, but {why}")
    for value in node.outputs:
        if value and value in known:
            raise ProblemError(f"{node}: gives {value!r}, which is there already; expected a name of its own")
        known.add(value)


def _opset(model: Any) -> int:
    versions = {entry.domain: entry.version for entry in model.opset_import}
    opset = versions.get("", versions.get("ai.onnx", 1 if not model.opset_import else 0))
    if not 1 <= opset <= NEWEST_OPSET:
        raise UnsupportedError(f"the model is of opset {opset}; fastconv knows 1 to {NEWEST_OPSET}")
    return int(opset)


def _check_total(tensors: Iterable[Any], max_bytes: int) -> None:
    """Refuse weights that would not fit one by one; each is compared with its bytes when it is read."""
    for tensor in tensors:
        dtype = dtype_of(tensor.data_type)
        size = math.prod(tensor.dims) * (dtype.itemsize if dtype is not None else 1)
        if size > max_bytes:
            raise ProblemError(
                f"the initializer {tensor.name!r} declares {size} bytes; expected at most max_bytes={max_bytes}"
            )


def _input(value: Any) -> Input:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise UnsupportedError(f"the input {value.name!r} is a {kind}; fastconv has tensors only")
    tensor = value.type.tensor_type
    dtype = dtype_of(tensor.elem_type)
    if dtype is None:
        raise UnsupportedError(f"the input {value.name!r} has data type {dtype_name(tensor.elem_type)}")
    if not tensor.HasField("shape"):
        return Input(value.name, dtype, None)
    return Input(value.name, dtype, tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim))


def _node(proto: Any, opset: int, folder: Path | None, max_bytes: int) -> Node:
    op_type, name = proto.op_type, proto.name
    operator, shown = OPERATORS.get(op_type), op_type if op_type.isidentifier() else repr(op_type)
    label = f"{shown} node {name!r}" if name else f"{shown} node of {tuple(proto.output[:1])}"
    if proto.domain not in ("", "ai.onnx"):
        raise UnsupportedError(f"{label}: an operator of the domain {proto.domain!r}; fastconv knows ONNX's own")
    if operator is None:
        raise UnsupportedError(f"{label}: fastconv does not know the operator {shown}")
    attributes = {a.name: _attribute(a, folder, label) for a in proto.attribute if a.name not in _IGNORED}
    node = Node(op_type, name, opset, proto.input, proto.output, attributes, operator, max_bytes)
    _check_signature(node)
    return node


_signature = functools.cache(inspect.signature)


def _check_signature(node: Node) -> None:
    """The operator must know each attribute, and take so many inputs."""
    signature = _signature(node.operator)
    unknown = [name for name in node.attributes if name not in signature.parameters]
    if unknown:
        raise node.unsupported(f"fastconv does not know the attribute {unknown[0]!r} of {node.op_type}")
    try:
        bound = signature.bind(node, *node.inputs, **node.attributes).arguments
    except TypeError as error:
        raise node.problem(f"{len(node.inputs)} inputs and attributes {sorted(node.attributes)}: {error}") from None
    for name, parameter in signature.parameters.items():
        needed = parameter.default is parameter.empty
        values = bound.get(name, ()) if parameter.kind is parameter.VAR_POSITIONAL else (bound.get(name),)
        if needed and "" in values:
            raise node.problem(f"the input {name!r} is left out; expected a value")


def _attribute(attribute: Any, folder: Path | None, label: str) -> Any:
    """An attribute as a number, a string, a tuple or an array."""
    what = f"{label}: the attribute {attribute.name!r}"
    kind = attribute.AttributeType.Name(attribute.type) if attribute.type else _guessed(attribute)
    if kind in ("INT", "FLOAT"):
        return getattr(attribute, "i" if kind == "INT" else "f")
    if kind == "STRING":
        return attribute.s.decode()
    if kind in ("INTS", "FLOATS"):
        return tuple(attribute.ints if kind == "INTS" else attribute.floats)
    if kind == "TENSOR":
        return array_of(attribute.t, folder, what)
    raise UnsupportedError(f"{what} is of the kind {kind}")


def _guessed(attribute: Any) -> str:
    """Files of IR version 1 do not say what kind an attribute is of."""
    for field, kind in (("f", "FLOAT"), ("i", "INT"), ("s", "STRING"), ("t", "TENSOR")):
        if attribute.HasField(field):
            return kind
    return "INTS" if attribute.ints else "FLOATS" if attribute.floats else "UNDEFINED"
