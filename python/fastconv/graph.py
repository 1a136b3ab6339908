# SPDX-License-Identifier: Apache-2.0
"""A model as a graph: the Functions that a forward pass applied, in order, and what went in and came out.

A model is Python; what it computes is found by running it once while every `Function.apply` is written down. That
sees no more than the Functions: an `if` on a shape is decided for good, a loop is unrolled, and what Python or NumPy
computes from the values of a tensor would stay what it was. So `trace_graph` runs the model a second time, on other
values, and refuses a model in which anything but the arrays differs.

Inference sessions and the export to ONNX begin with this graph.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ._core import ProblemError
from .autograd import Function, no_grad, observed
from .nn import Module
from .tensor import Tensor, plain

_SEED_OF_CHECK = 0  # of the values that the second run sees


class Value:
    """An array that flows through a graph. Values are compared by identity.

    Attributes:
        name: the key in `state_dict` of a parameter or buffer; "input", "input_1", ... of the model's inputs; else
            None.
        shape, dtype: as those of the array.
        data: the array of a parameter, a buffer or a constant, not copied; None for what is computed and for inputs.
    """

    __slots__ = ("data", "dtype", "name", "shape")

    def __init__(self, shape: tuple[int, ...], dtype: Any, name: str | None = None, data: Any = None) -> None:
        self.shape, self.dtype, self.name, self.data = tuple(shape), dtype, name, data

    def __repr__(self) -> str:
        kind = "computed" if self.data is None else "constant"
        return f"Value({self.name or kind}, {self.dtype} {self.shape})"


class Call:
    """One application of a Function.

    Attributes:
        function: the class, as `fastconv.ops.conv.Conv`.
        inputs: what `apply` got: values, and None where there was None.
        static: the keyword arguments that it got. An array among them that a call before has made (the indices of a
            pooling) is its Value.
        outputs: what it made: one value, or several; None where it gave None.
    """

    __slots__ = ("function", "inputs", "outputs", "static")

    def __init__(
        self,
        function: type[Function],
        inputs: tuple[Value | None, ...],
        static: dict[str, Any],
        outputs: tuple[Value | None, ...],
    ) -> None:
        self.function, self.inputs, self.static, self.outputs = function, inputs, static, outputs

    def reads(self) -> Iterator[Value]:
        """All values that it needs: its inputs, and those among its static arguments."""
        yield from (v for v in self.inputs if v is not None)
        yield from _values_in(self.static)

    def __repr__(self) -> str:
        return f"{self.function.__name__}({', '.join(map(repr, self.inputs))}) -> {', '.join(map(repr, self.outputs))}"


class Graph:
    """Calls in an order in which they can run.

    Attributes:
        inputs, outputs: values; an output may be an input or a parameter.
        calls: those that the outputs depend on.
        structure: what the model returned: "tensor", "tuple", "list" or "dict" (of tensors).
        keys: of the dictionary, in order; empty otherwise.
    """

    def __init__(
        self,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        calls: Sequence[Call],
        structure: str = "tensor",
        keys: tuple[str, ...] = (),
    ) -> None:
        self.inputs, self.outputs, self.calls = tuple(inputs), tuple(outputs), list(calls)
        self.structure, self.keys = structure, keys

    def packed(self, outputs: Sequence[Any]) -> Any:
        """One thing per output, in the structure that the model returned."""
        if self.structure == "tensor":
            return outputs[0]
        if self.structure == "dict":
            return dict(zip(self.keys, outputs, strict=True))
        return list(outputs) if self.structure == "list" else tuple(outputs)

    def __repr__(self) -> str:
        return "\n".join([f"Graph of {len(self.inputs)} inputs, {self.structure}", *map(repr, self.calls)])


class _Recorder:
    """Writes calls down. An array is known by its identity: it is kept, so that no other can take its place."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self.names = names
        self.calls: list[Call] = []
        self._values: dict[int, Value] = {}
        self._kept: list[Any] = []

    def __call__(self, function: type[Function], inputs: tuple[Tensor | None, ...], static: dict[str, Any]) -> Any:
        before = tuple(None if t is None else self.value(t.data) for t in inputs)
        with observed(None):  # a Function that applies others is one call
            result = function.apply(*inputs, **static)
        results = result if isinstance(result, tuple) else (result,)
        outputs = tuple(None if t is None else self._new(t.data) for t in results)
        self.calls.append(Call(function, before, self._resolved(static), outputs))
        return result

    def value(self, array: Any) -> Value:
        """The value of an array that was seen before; else a constant, with the name of a parameter or buffer."""
        found = self._values.get(id(array))
        return found if found is not None else self._new(array, self.names.get(id(array)), array)

    def input(self, array: Any, name: str) -> Value:
        """The value of an input of the model."""
        return self._new(array, name)

    def is_known(self, array: Any) -> bool:
        """Whether a call made it or the model got it."""
        value = self._values.get(id(array))
        return value is not None and value.data is None

    def _new(self, array: Any, name: str | None = None, data: Any = None) -> Value:
        self._kept.append(array)
        value = self._values[id(array)] = Value(array.shape, array.dtype, name, data)
        return value

    def _resolved(self, static: Any) -> Any:
        if isinstance(static, dict):
            return {key: self._resolved(item) for key, item in static.items()}
        if type(static) is tuple:  # not a named one, whose fields have their types
            return tuple(map(self._resolved, static))
        return self._values[id(static)] if hasattr(static, "dtype") and self.is_known(static) else static


def _values_in(static: Any) -> Iterator[Value]:
    if isinstance(static, Value):
        yield static
    elif isinstance(static, dict | tuple):
        for item in static.values() if isinstance(static, dict) else static:
            yield from _values_in(item)


@contextlib.contextmanager
def _evaluation(model: Any) -> Iterator[None]:
    """The model in evaluation mode, and afterwards every module in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()] if isinstance(model, Module) else []
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _record(model: Any, arrays: Sequence[Any], names: Mapping[int, str]) -> Graph:
    recorder = _Recorder(names)
    tensors = [Tensor(array[...]) for array in arrays]  # views: an example given twice is two inputs
    inputs = [recorder.input(t.data, f"input_{i}" if i else "input") for i, t in enumerate(tensors)]
    with _evaluation(model), no_grad(), observed(recorder):
        result = model(*tensors)
    structure, keys, outputs = _structure(result)
    calls, values = recorder.calls, [recorder.value(t.data) for t in outputs]
    used, depends = _needed(calls, values), _dependent(calls, inputs)
    for i, value in enumerate(values):
        if value not in depends:
            raise ProblemError(
                f"trace_graph: output {keys[i] if keys else i} of the model does not depend on its input by any "
                "operation of fastconv; expected tensor operations from end to end: what NumPy computes, and what "
                "changes an array in place, leaves no trace"
            )
    return Graph(inputs, values, [c for c in calls if c in used], structure, keys)


def _structure(result: Any) -> tuple[str, tuple[str, ...], list[Tensor]]:
    """(structure, keys, tensors) of what a model returned."""
    kind = next((k.__name__ for k in (tuple, list, dict) if isinstance(result, k)), "tensor")
    keys = tuple(result) if kind == "dict" else ()
    outputs = [result] if kind == "tensor" else list(result.values() if kind == "dict" else result)
    wrong = [type(t).__name__ for t in outputs if not isinstance(t, Tensor)]
    if wrong or not outputs:
        raise TypeError(
            f"trace_graph: the model returned {'a ' + kind + ' of ' if kind != 'tensor' else ''}"
            f"{', '.join(wrong) or 'nothing'}; expected a tensor, or a tuple, list or dict of tensors"
        )
    return kind, keys, outputs


def _needed(calls: Sequence[Call], outputs: Sequence[Value]) -> set[Call]:
    """The calls that the outputs depend on."""
    wanted, used = set(outputs), set()
    for call in reversed(calls):
        if any(v in wanted for v in call.outputs):
            used.add(call)
            wanted.update(call.reads())
    return used


def _dependent(calls: Sequence[Call], inputs: Sequence[Value]) -> set[Value]:
    """The values that depend on the inputs."""
    depends = set(inputs)
    for call in calls:
        if any(v in depends for v in call.reads()):
            depends.update(v for v in call.outputs if v is not None)
    return depends


def _difference(one: Any, other: Any) -> bool:
    """Whether two static arguments, or two constants, differ in a way that values of the input can have caused."""
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) != len(other) or any(map(_difference, one, other))
    if isinstance(one, Value | None) or isinstance(other, Value | None):
        return type(one) is not type(other)
    if hasattr(one, "dtype") and hasattr(one, "shape"):
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape or one.dtype != other.dtype:
            return True
        return bool(np.any((one != other) & ~((one != one) & (other != other))))
    return isinstance(one, int | float | str) and type(one) is type(other) and one != other and one == one


def _check_against(graph: Graph, other: Graph) -> None:
    """Refuse a graph that another run, on other values, does not repeat."""
    if [c.function for c in graph.calls] != [c.function for c in other.calls]:
        raise ProblemError(
            "trace_graph: the model applies other operations to other values of its input; expected control flow that "
            "depends on shapes alone"
        )
    for i, (one, two) in enumerate(zip(graph.calls, other.calls, strict=True)):
        differs = [name for name in one.static if _difference(one.static[name], two.static[name])]
        for position, (a, b) in enumerate(zip(one.inputs, two.inputs, strict=True)):
            if a is not None and b is not None and a.data is not b.data and _difference(a.data, b.data):
                differs.append(f"input {position}")
        if differs:
            raise ProblemError(
                f"trace_graph: {differs[0]} of call {i} ({one.function.__name__}) is an array or number outside of "
                "the graph that depends on the values of the model's input, or on chance; expected tensor operations"
            )


def _other_values(array: Any) -> Any:
    """An array like this one with other values, which lie in the same range."""
    if array.dtype.kind != "f" or not isinstance(array, np.ndarray):
        return array[(slice(None, None, -1),) * array.ndim].copy()
    span = np.abs(array[np.isfinite(array)]).max(initial=0.0) or 1.0
    values: Any = np.random.default_rng(_SEED_OF_CHECK).random(array.shape)
    return (values * span).astype(array.dtype)


def trace_graph(model: Any, *examples: Any) -> Graph:
    """The graph of what a model computes in evaluation mode, for inputs of these shapes.

    The model runs twice, without recording for gradients: on the examples, and on other values of the same shapes to
    find what depends on values outside of tensor operations. Parameters and buffers keep their names and are not
    copied; every other array that takes part without having been computed is a constant.

    Args:
        model: a Module, or any function of tensors. Its modules have their modes again afterwards.
        examples: an array or tensor for each input of the model.

    Raises:
        ProblemError: an output that does not depend on the input by tensor operations, or operations, arrays and
            numbers that depend on the values of the input.
        TypeError: a model that returns something else than tensors, or a tuple, list or dict of them.
    """
    arrays = [plain(e) if hasattr(plain(e), "dtype") else Tensor(e).data for e in examples]
    if not arrays:
        raise ProblemError("trace_graph: there is no example; expected an array for each input of the model")
    names: dict[int, str] = {}
    if isinstance(model, Module):
        for key, _, _, value in model._state():
            names.setdefault(id(plain(value)), key)
    graph = _record(model, arrays, names)
    _check_against(graph, _record(model, [_other_values(a) for a in arrays], names))
    return graph
