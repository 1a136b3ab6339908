# SPDX-License-Identifier: Apache-2.0
"""From a traced graph to a network: each call becomes the node of a native operation, or of Python where there is none.

Calls whose inputs are all constants are computed here.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .._core import UnsupportedError
from ..graph import Call, Graph, Value, trace_graph
from ..ops.activations import Activation, PRelu
from ..ops.arithmetic import Add, Clip, Div, Mul, Neg
from ..ops.conv import Conv, ConvBackwardData
from ..ops.dense import Dense
from ..ops.group_norm import GroupNorm
from ..ops.norm import BatchNormInference
from ..ops.padding import Pad
from ..ops.pool import AvgPool, ExtremePool, LpPool
from ..ops.resample import Resample
from ..ops.response_norm import ResponseNorm
from ..ops.shape import Concat, GetItem, Mean, Reshape, Transpose
from ..ops.softmax import Softmax
from ..tensor import Tensor
from .network import Network, Node

DTYPES = ("float32", "float64")
Lowering = Callable[["_Lowerer", Call], bool]


def lowered(model: Any, *examples: Any) -> Network:
    """The network of a model, for inputs of the examples' shapes.

    Raises:
        UnsupportedError: a model that computes in another dtype than float32 or float64.
    """
    graph = trace_graph(model, *examples)
    dtype = graph.outputs[0].dtype
    if str(dtype) not in DTYPES:
        raise UnsupportedError(f"InferenceSession: the model gives {dtype}; expected float32 or float64")
    for value in graph.inputs:
        if value.dtype != dtype:
            raise UnsupportedError(
                f"InferenceSession: {value.name} is {value.dtype}, the model gives {dtype}; expected one dtype"
            )
    return _Lowerer(graph, np.dtype(dtype)).network


class _Lowerer:
    def __init__(self, graph: Graph, dtype: Any) -> None:
        self.dtype = dtype
        self.known: dict[Value, Any] = {}  # constants that were computed here
        self.numbers: dict[Value, int] = {v: i for i, v in enumerate(graph.inputs)}
        self.network = Network(
            str(dtype), [], tuple(range(len(graph.inputs))), tuple(v.shape for v in graph.inputs), (),
            len(graph.inputs), graph.structure, graph.keys,
        )  # fmt: skip
        for call in graph.calls:
            if all(self.constant(v) is not None for v in call.reads()):
                self._compute(call)
            elif not self._is_native(call) or not _LOWERINGS[call.function](self, call):
                self._python(call)
        self.network.outputs = tuple(self.number(v) for v in graph.outputs)
        self.network.keep_needed()

    def constant(self, value: Value | None) -> Any:
        """The array of a constant; None for what is computed from inputs, and for no value at all."""
        if value is None:
            return None
        return value.data if value.data is not None else self.known.get(value)

    def number(self, value: Value) -> int:
        """The number of a value; a constant becomes a node."""
        if value not in self.numbers:
            data = self.constant(value)
            if data is None:
                raise UnsupportedError("InferenceSession: statistics of a normalisation are used as values")
            self.numbers[value] = self.network.new_value()
            node = Node("constant", (), (self.numbers[value],), {}, {"value": np.asarray(data)}, value.name or "")
            self.network.nodes.append(node)
        return self.numbers[value]

    def add(self, call: Call, op: str, inputs: Any, words: Any = None, arrays: Any = None, name: str = "") -> bool:
        """A node that gives the call's first output."""
        numbers = tuple(self.number(v) for v in inputs)
        output = self._new_number(call.outputs[0])
        self.network.nodes.append(Node(op, numbers, (output,), dict(words or {}), dict(arrays or {}), name))
        return True

    def _new_number(self, value: Value | None) -> int:
        number = self.network.new_value()
        if value is not None:
            self.numbers[value] = number
        return number

    def _is_native(self, call: Call) -> bool:
        floats = [v for v in (*call.inputs, call.outputs[0]) if v is not None]
        return call.function in _LOWERINGS and all(v.dtype == self.dtype for v in floats)

    def _compute(self, call: Call) -> None:
        inputs = [None if v is None else Tensor(self.constant(v)) for v in call.inputs]
        result = call.function.apply(*inputs, **call.static)
        for value, t in zip(call.outputs, result if isinstance(result, tuple) else (result,), strict=True):
            if value is not None and t is not None:
                self.known[value] = t.data

    def _python(self, call: Call) -> None:
        numbers = {v: self.number(v) for v in call.reads()}
        outputs = tuple(self._new_number(v) for v in call.outputs)
        node = Node("python", tuple(numbers.values()), outputs, {"function": call.function.__name__})
        node.arrays["call"] = call, {number: value for value, number in numbers.items()}
        self.network.nodes.append(node)


def _layer(value: Value | None) -> str:
    """The layer that a parameter belongs to: "features.0" of "features.0.weight"."""
    return (value.name or "").rpartition(".")[0] if value is not None else ""


def _conv(lower: _Lowerer, call: Call) -> bool:
    x, w, bias, residual = call.inputs
    weights, shift = lower.constant(w), lower.constant(bias)
    if x is None or weights is None or (bias is not None and shift is None):
        return False
    words = _conv_words(call)
    words["pad_value"] = float(call.static["static"].pad_value)
    arrays = {"w": weights} if shift is None else {"w": weights, "bias": shift}
    return lower.add(call, "conv", [x] if residual is None else [x, residual], words, arrays, _layer(w))


def _conv_words(call: Call) -> dict[str, Any]:
    s = call.static["static"]
    layout = "nchw" if s.layout == "channels_first" else "nhwc"
    return {
        "stride": list(s.stride), "pad_begin": list(s.pad_begin), "pad_end": list(s.pad_end),
        "dilation": list(s.dilation), "groups": s.groups, "padding_mode": s.padding_mode, "pad_value": 0.0,
        "layout": layout, "activation": call.static.get("kind", "none"), "alpha": float(call.static.get("alpha", 0.0)),
    }  # fmt: skip


def _conv_transpose(lower: _Lowerer, call: Call) -> bool:
    y, w, bias = call.inputs
    weights, shift = lower.constant(w), lower.constant(bias)
    if y is None or weights is None or (bias is not None and shift is None):
        return False
    words, s = _conv_words(call), call.static["static"]
    words["size"] = list(s.x_shape[2:] if words["layout"] == "nchw" else s.x_shape[1:-1])
    arrays = {"w": weights} if shift is None else {"w": weights, "bias": shift}
    return lower.add(call, "conv_transpose", [y], words, arrays, _layer(w))


def _dense(lower: _Lowerer, call: Call) -> bool:
    x, w, bias = call.inputs
    weights, shift = lower.constant(w), lower.constant(bias)
    if weights is None or (bias is not None and shift is None):
        return False
    arrays = {"w": weights} if shift is None else {"w": weights, "bias": shift}
    return lower.add(call, "dense", [x], {"activation": "none", "alpha": 0.0}, arrays, _layer(w))


def _batch_norm(lower: _Lowerer, call: Call) -> bool:
    x, *constants = call.inputs
    arrays = [lower.constant(v) for v in constants]
    if x is None or any(a is None for a in arrays):
        return False
    gamma, beta, mean, variance = (np.asarray(a, np.float64) for a in arrays)
    scale = gamma / np.sqrt(variance + call.static["eps"])
    return _scale_shift(lower, call, x, scale, beta - mean * scale, 1, _layer(constants[0]))


def _group_norm(lower: _Lowerer, call: Call) -> bool:
    x, *constants = call.inputs
    gamma, beta = (lower.constant(v) for v in constants)
    if x is None or gamma is None or beta is None or 0 in x.shape:
        return False
    arrays = {"gamma": gamma, "beta": beta}
    return lower.add(call, "group_norm", [x], call.static, arrays, _layer(constants[0]))


def _scale_shift(lower: _Lowerer, call: Call, x: Value, scale: Any, shift: Any, axis: int, name: str = "") -> bool:
    words = {"axis": axis, "activation": "none", "alpha": 0.0}
    return lower.add(call, "scale_shift", [x], words, {"scale": scale, "shift": shift}, name)


def _pool(lower: _Lowerer, call: Call) -> bool:
    if call.function is ExtremePool:
        if call.outputs[1] is not None:
            return False
        problem = call.static["g"].problem
    else:
        problem = call.static["problem"] if "problem" in call.static else call.static["g"].problem
    words = {key: list(v) if isinstance(v, tuple) else v for key, v in problem.words.items()}
    return lower.add(call, "pool", call.inputs, {**words, "norm": float(call.static.get("norm", 1.0))})


def _activation(lower: _Lowerer, call: Call) -> bool:
    return lower.add(call, "activation", call.inputs, {"kind": call.static["kind"], "alpha": call.static["alpha"]})


def _clip(lower: _Lowerer, call: Call) -> bool:
    kind = {(0, 6): "relu6", (0, None): "relu"}.get((call.static["low"], call.static["high"]))
    return kind is not None and lower.add(call, "activation", call.inputs, {"kind": kind, "alpha": 0.0})


def _prelu(lower: _Lowerer, call: Call) -> bool:
    slopes = lower.constant(call.inputs[1])
    return slopes is not None and lower.add(
        call, "prelu", call.inputs[:1], {}, {"slopes": slopes}, _layer(call.inputs[1])
    )


def _channel_axis(x: Value, constant: Any) -> int | None:
    """The one axis of x along which the constant varies; of a single number any axis that x has."""
    lengths = (1,) * (len(x.shape) - constant.ndim) + constant.shape
    long = [a for a, n in enumerate(lengths) if n != 1]
    if len(lengths) != len(x.shape) or len(long) > 1 or not x.shape:
        return None
    axis = long[0] if long else min(1, len(x.shape) - 1)
    return axis if axis > 0 and constant.size in (1, x.shape[axis]) else None


def _with_constant(lower: _Lowerer, call: Call, scale: Callable[[Any], Any], shift: Callable[[Any], Any]) -> bool:
    """x op constant as a scale and a shift per channel."""
    a, b = call.inputs
    x, other = (a, b) if lower.constant(a) is None else (b, a)
    constant = lower.constant(other)
    axis = None if x is None or constant is None else _channel_axis(x, constant)
    if x is None or axis is None or x.shape != call.outputs[0].shape:  # type: ignore[union-attr]
        return False
    values = np.broadcast_to(np.asarray(constant, np.float64).reshape(-1), (x.shape[axis],))
    ones = np.ones(x.shape[axis])
    return _scale_shift(lower, call, x, scale(values) * ones, shift(values) * ones, axis)


def _add(lower: _Lowerer, call: Call) -> bool:
    return _with_constant(lower, call, lambda c: 1.0, lambda c: c) or _binary(lower, call, "add")


def _mul(lower: _Lowerer, call: Call) -> bool:
    if _with_constant(lower, call, lambda c: c, lambda c: 0.0) or _binary(lower, call, "mul"):
        return True
    for x, gate in (call.inputs, call.inputs[::-1]):
        if x is None or gate is None or len(x.shape) < 3 or x.shape == gate.shape:
            continue
        if gate.shape == (*x.shape[:2], *(1,) * (len(x.shape) - 2)):
            return lower.add(call, "gate", [x, gate])
    return False


def _binary(lower: _Lowerer, call: Call, op: str) -> bool:
    a, b = call.inputs
    same = a is not None and b is not None and a.shape == b.shape
    return same and lower.add(call, "binary", [a, b], {"op": op, "activation": "none", "alpha": 0.0})


def _div(lower: _Lowerer, call: Call) -> bool:
    divisor = lower.constant(call.inputs[1])
    if divisor is None or not np.all(divisor):
        return False
    return _with_constant(lower, call, lambda c: 1.0 / c, lambda c: 0.0)


def _neg(lower: _Lowerer, call: Call) -> bool:
    (x,) = call.inputs
    if x is None or not x.shape:
        return False
    axis = min(1, len(x.shape) - 1)
    minus = np.full(x.shape[axis], -1.0)
    return axis > 0 and _scale_shift(lower, call, x, minus, np.zeros_like(minus), axis)


def _mean(lower: _Lowerer, call: Call) -> bool:
    """Over all spatial axes: a pooling with one window. A reshape drops the axes where they are not kept."""
    (x,), (y,) = call.inputs, call.outputs
    if x is None or y is None or not 3 <= len(x.shape) <= 5 or call.static["axes"] != tuple(range(2, len(x.shape))):
        return False
    if 0 in x.shape:
        return False
    output = [1] * (len(x.shape) - 2)
    words = {"kind": "average", "window": [], "stride": [], "pad_begin": [], "pad_end": [], "dilation": [],
             "ceil_mode": False, "count_include_pad": True, "divisor": 0, "output": output,
             "layout": "channels_first", "norm": 1.0}  # fmt: skip
    pooled = lower.network.new_value()
    lower.network.nodes.append(Node("pool", (lower.number(x),), (pooled,), words))
    lower.numbers[y] = pooled
    if not call.static["keepdims"]:
        lower.numbers[y] = lower.network.new_value()
        lower.network.nodes.append(Node("reshape", (pooled,), (lower.numbers[y],), {"shape": [-1, x.shape[1]]}))
    return True


def _reshape(lower: _Lowerer, call: Call) -> bool:
    (x,), (y,) = call.inputs, call.outputs
    if x is None or y is None:
        return False
    if not y.shape or 0 in y.shape:
        return False
    return lower.add(call, "reshape", [x], {"shape": [-1, *y.shape[1:]]})  # whatever the batch is


def _transpose(lower: _Lowerer, call: Call) -> bool:
    axes = call.static["axes"]
    return 1 <= len(axes) <= 8 and lower.add(call, "permute", call.inputs, {"axes": list(axes)})


def _getitem(lower: _Lowerer, call: Call) -> bool:
    """Slices forward and integers; each axis's (start, stop, step). The batch axis is taken whole or not at all."""
    (x,), (y,) = call.inputs, call.outputs
    index = call.static["index"] if isinstance(call.static["index"], tuple) else (call.static["index"],)
    if x is None or y is None or not all(isinstance(i, int | slice) or i is Ellipsis for i in index):
        return False
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = (*index[:at], *(slice(None),) * (len(x.shape) - len(index) + 1), *index[at + 1 :])
    index = (*index, *(slice(None),) * (len(x.shape) - len(index)))
    if any(isinstance(i, bool) for i in index) or not 1 <= len(index) <= 8 or index[0] != slice(None):
        return False
    ranges = [
        list(i.indices(n)) if isinstance(i, slice) else [i % n, i % n + 1, 1]
        for i, n in zip(index, x.shape, strict=True)
    ]
    if any(step < 1 for _, _, step in ranges):
        return False
    ranges = [[start, max(start, stop), step] for start, stop, step in ranges]
    cut = lower.network.new_value()
    lower.network.nodes.append(Node("slice", (lower.number(x),), (cut,), {"ranges": ranges[1:]}))
    lower.numbers[y] = cut
    if any(isinstance(i, int) for i in index):
        lower.numbers[y] = lower.network.new_value()
        lower.network.nodes.append(Node("reshape", (cut,), (lower.numbers[y],), {"shape": [-1, *y.shape[1:]]}))
    return True


def _concat(lower: _Lowerer, call: Call) -> bool:
    return lower.add(call, "concat", call.inputs, {"axis": call.static["axis"]})


def _pad(lower: _Lowerer, call: Call) -> bool:
    widths = call.static["widths"]
    if call.static["mode"] != "constant" or not 1 <= len(widths) <= 8 or any(widths[0]) or min(map(min, widths)) < 0:
        return False
    words = {"widths": [list(w) for w in widths[1:]], "value": float(call.static["value"])}
    return lower.add(call, "pad", call.inputs, words)


def _softmax(lower: _Lowerer, call: Call) -> bool:
    return lower.add(call, "softmax", call.inputs, {"log": bool(call.static.get("log", False))})


def _resample(lower: _Lowerer, call: Call) -> bool:
    axes = call.static["axes"]
    grows = math.prod(t.outputs for _, t in axes) > math.prod(t.inputs for _, t in axes)
    value = call.inputs[0]
    if value is None or any(axis == 0 for axis, _ in axes):
        return False
    number = lower.number(value)
    for axis, taps in sorted(axes, key=lambda pair: pair[0], reverse=grows):
        output = lower.network.new_value()
        arrays = {"first": taps.first, "start": taps.start, "weights": taps.weights}
        lower.network.nodes.append(Node("resample", (number,), (output,), {"axis": axis}, arrays))
        number = output
    lower.numbers[call.outputs[0]] = number  # type: ignore[index]
    return True


def _response_norm(lower: _Lowerer, call: Call) -> bool:
    windows = call.static["windows"]
    return lower.add(call, "response_norm", call.inputs, windows._asdict())


_LOWERINGS: dict[Any, Lowering] = {
    Conv: _conv,
    ConvBackwardData: _conv_transpose,
    Dense: _dense,
    BatchNormInference: _batch_norm,
    GroupNorm: _group_norm,
    ExtremePool: _pool,
    AvgPool: _pool,
    LpPool: _pool,
    Activation: _activation,
    PRelu: _prelu,
    Add: _add,
    Mul: _mul,
    Div: _div,
    Neg: _neg,
    Clip: _clip,
    Mean: _mean,
    Reshape: _reshape,
    Transpose: _transpose,
    GetItem: _getitem,
    Concat: _concat,
    Pad: _pad,
    Softmax: _softmax,
    Resample: _resample,
    ResponseNorm: _response_norm,
}
