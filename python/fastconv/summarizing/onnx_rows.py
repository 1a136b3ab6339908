# SPDX-License-Identifier: Apache-2.0
"""The nodes of an ONNX model as rows, each with the layer that it is, where there is one."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import nn
from .._core import ProblemError
from ..autograd import no_grad
from ..nn.module import Parameter
from ..onnx.graph import Input
from ..onnx.model import OnnxModel
from ..onnx.node import Node, Value
from ..onnx.operators.convolution import padding_of
from .rows import Row

# Their output is their input under another shape, or itself.
_VIEWS = ("Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")
_OF_SHAPES = ("Shape", "Size")  # what they give depends on no value
_SUMS_OVER_W = {"Conv": 1, "ConvInteger": 1, "ConvTranspose": 1, "QLinearConv": 3}  # which input w is
_PRODUCTS = {"Gemm": 0, "MatMul": 0, "MatMulInteger": 0, "QLinearMatMul": 0}  # which input's last axis is summed over


def measured(model: OnnxModel, input_shape: tuple[int, ...] | None) -> tuple[list[Row], tuple[int, ...]]:
    """(rows, input shape) of a run on one input of zeros: no images at all would fail at many a Reshape.

    Raises:
        ProblemError: an input shape that the graph leaves open, or that it does not take.
    """
    inputs = [_zeros(i, input_shape if number == 0 else None) for number, i in enumerate(model.inputs)]
    if not inputs:
        raise ProblemError("summary: the model has no inputs; expected one")
    recorder = _Recorder(model, inputs[0].shape[0] if inputs[0].ndim else 1)
    mode = model.training
    try:
        model.training = False
        with no_grad():
            model.run(tuple(inputs), recorder)
    finally:
        model.training = mode
    return recorder.rows, inputs[0].shape[1:]


def _zeros(expected: Input, shape: tuple[int, ...] | None) -> Any:
    """A batch of the file's length, or of one."""
    declared = expected.shape
    if shape is not None:
        batch = declared[0] if declared else None
        return np.zeros((1 if batch is None else batch, *shape), expected.dtype)
    if declared is None or None in declared[1:]:
        raise ProblemError(
            f"summary: the file leaves the shape of the input {expected.name!r} open: {declared}; expected input_shape"
        )
    return np.zeros([1 if n is None else n for n in declared], expected.dtype)


class _Recorder:
    """Appends a row for every node."""

    def __init__(self, model: OnnxModel, batch: int) -> None:
        self.rows: list[Row] = []
        self._batch = batch
        self._from_inputs = set(model.input_names)  # names of the values that depend on an input
        self._counted: set[int] = set()
        self._unnamed: Counter[str] = Counter()

    def __call__(self, node: Node, given: list[Value], results: tuple[Value, ...]) -> None:
        depends = node.op_type not in _OF_SHAPES and any(name in self._from_inputs for name in node.inputs)
        if depends:
            self._from_inputs.update(node.outputs)
        new = [v for v in given if isinstance(v, Parameter) and id(v) not in self._counted]
        self._counted.update(map(id, new))
        y = results[0]
        batched = depends and y.ndim > 0 and y.shape[0] == self._batch
        after = tuple(y.shape[1:] if batched else y.shape)
        first = given[0] if given else None
        before = () if first is None else tuple(first.shape[1:] if batched else first.shape)
        held = math.prod(after) * y.dtype.itemsize if depends and node.op_type not in _VIEWS else 0
        parameters = sum(int(v.data.size) for v in new)
        layer = _layer(node, given)
        name = node.name or self._name(node.op_type)
        self.rows.append(Row(name, layer, before, after, parameters, _macs(node, given, before, after), held,
                             node.op_type, batched))  # fmt: skip

    def _name(self, op_type: str) -> str:
        self._unnamed[op_type] += 1
        return f"{op_type}_{self._unnamed[op_type]}"


def _macs(node: Node, given: list[Value], before: tuple[int, ...], after: tuple[int, ...]) -> int:
    """Multiply-adds of a convolution or of a product of matrices, also of two activations."""
    if node.op_type in _SUMS_OVER_W:
        cells = before if node.op_type == "ConvTranspose" else after
        return math.prod(cells) * math.prod(given[_SUMS_OVER_W[node.op_type]].shape[1:])
    if node.op_type in _PRODUCTS:
        return math.prod(after) * int(given[0].shape[-2 if node.attributes.get("transA") else -1])
    return 0


# ---- Layers --------------------------------------------------------------------------------------------------------


class _Operator(nn.Module):
    """What stands for an operator that is no layer of fastconv: `_layer` makes a class of its name."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__()
        self._attributes = attributes

    def extra_repr(self) -> str:
        known = ((name, value) for name, value in self._attributes.items() if not isinstance(value, np.ndarray))
        return ", ".join(f"{name}={value!r}" for name, value in known)


def _layer(node: Node, given: list[Value]) -> nn.Module:
    """The layer that the node is, with parameters of its shapes and dtype that hold nothing; else an `_Operator`."""
    make = _LAYERS.get(node.op_type)
    with nn.init.skip():
        layer = make(node, given) if make else None
    if layer is None:
        return type(node.op_type, (_Operator,), {})(node.attributes)
    return layer


def _conv(node: Node, given: list[Value]) -> nn.Module | None:
    x, w = given[:2]
    a, rank = node.attributes, x.ndim - 2
    ones = (1,) * rank
    words = {
        "stride": tuple(a.get("strides") or ones),
        "dilation": tuple(a.get("dilations") or ones),
        "groups": int(a.get("group", 1)),
        "bias": len(given) > 2 and given[2] is not None,
        "dtype": w.dtype,
    }
    padding = padding_of(node, a.get("auto_pad", "NOTSET"), a.get("pads"), rank)
    kernel = tuple(w.shape[2:])
    if node.op_type == "Conv":
        make = getattr(nn, f"Conv{rank}d")
        return make(w.shape[1] * words["groups"], w.shape[0], kernel, padding=padding, **words)
    if isinstance(padding, str):
        return None
    make = getattr(nn, f"ConvTranspose{rank}d")
    return make(w.shape[0], w.shape[1] * words["groups"], kernel, padding=padding, **words)


def _gemm(node: Node, given: list[Value]) -> nn.Module | None:
    b = given[1]
    if b.ndim != 2 or not isinstance(b, Parameter):
        return None
    fan_in, fan_out = b.shape[::-1] if node.attributes.get("transB") else b.shape
    return nn.Linear(fan_in, fan_out, bias=len(given) > 2 and given[2] is not None, dtype=b.dtype)


def _batch_norm(node: Node, given: list[Value]) -> nn.Module | None:
    make = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}.get(given[0].ndim)
    return make and make(given[1].shape[0], node.attributes.get("epsilon", 1e-5), dtype=given[1].dtype)


def _pool(node: Node, given: list[Value]) -> nn.Module | None:
    a, rank = node.attributes, given[0].ndim - 2
    padding = padding_of(node, a.get("auto_pad", "NOTSET"), a.get("pads"), rank)
    if isinstance(padding, str) or not 1 <= rank <= 3:
        return None
    make = getattr(nn, f"{'Max' if node.op_type == 'MaxPool' else 'Avg'}Pool{rank}d")
    return make(tuple(a["kernel_shape"]), tuple(a.get("strides") or (1,) * rank), padding)


def _global_pool(node: Node, given: list[Value]) -> nn.Module | None:
    kind = "Avg" if node.op_type == "GlobalAveragePool" else "Max"
    make = getattr(nn, f"Global{kind}Pool{given[0].ndim - 2}d", None)
    return make and make()


def _plain(name: str) -> Callable[[Node, list[Value]], nn.Module]:
    return lambda node, given: getattr(nn, name)()


_LAYERS: dict[str, Callable[[Node, list[Value]], nn.Module | None]] = {
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "ConvTranspose": _conv,
    "Dropout": lambda node, given: nn.Dropout(float(node.attributes.get("ratio", 0.5))),
    "Elu": lambda node, given: nn.ELU(node.attributes.get("alpha", 1.0)),
    "Flatten": _plain("Flatten"),
    "Gelu": _plain("GELU"),
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "LRN": lambda node, given: nn.LocalResponseNorm(node.attributes["size"]),
    "LeakyRelu": lambda node, given: nn.LeakyReLU(node.attributes.get("alpha", 0.01)),
    "MatMul": _gemm,
    "MaxPool": _pool,
    "Relu": _plain("ReLU"),
    "Sigmoid": _plain("Sigmoid"),
    "Softmax": _plain("Softmax"),
    "Swish": lambda node, given: nn.SiLU() if node.attributes.get("alpha", 1.0) == 1 else None,
    "Tanh": _plain("Tanh"),
}
