# SPDX-License-Identifier: Apache-2.0
"""Activations and arithmetic, element by element."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..package import NUMBERS

Converter = Callable[..., Any]

# Activations that are one ONNX operator.
_SINGLE = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "hard_swish": "HardSwish",
    "selu": "Selu",
    "softsign": "Softsign",
    "mish": "Mish",
}
_WITH_ALPHA = {"leaky_relu": "LeakyRelu", "elu": "Elu", "celu": "Celu"}


def one(op_type: str) -> Converter:
    """A converter to one operator of one input."""
    return lambda w, call, x: w.node(op_type, [x])


def two(op_type: str) -> Converter:
    """A converter to one operator of two inputs, which are brought to the dtype of the result."""

    def convert(w: Any, call: Any, a: str, b: str) -> str:
        dtype = call.outputs[0].dtype
        operands = [
            name if value.dtype == dtype else w.node("Cast", [name], to=NUMBERS[dtype.name])
            for name, value in zip((a, b), call.inputs, strict=True)
        ]
        return w.node(op_type, operands)

    return convert


def activate(w: Any, x: str, kind: str, alpha: float, dtype: Any) -> str:
    """Nodes for an activation by its name."""

    def number(value: float) -> str:
        return w.array(value, dtype)

    if kind == "none":
        return x
    if kind in _SINGLE:
        return w.node(_SINGLE[kind], [x])
    if kind in _WITH_ALPHA:
        return w.node(_WITH_ALPHA[kind], [x], alpha=float(alpha))
    if kind == "relu6":
        return w.node("Clip", [x, number(0), number(6)])
    if kind == "silu":
        return w.node("Mul", [x, w.node("Sigmoid", [x])])
    if kind == "hard_sigmoid":
        return w.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)
    if kind == "softplus":
        return w.node("Div", [w.node("Softplus", [w.node("Mul", [x, number(alpha)])]), number(alpha)])
    if kind == "log_sigmoid":
        return w.node("Neg", [w.node("Softplus", [w.node("Neg", [x])])])
    if w.opset >= 20:
        return w.node("Gelu", [x], approximate="tanh" if kind == "gelu_tanh" else "none")
    return _gelu(w, x, kind, number)


def _gelu(w: Any, x: str, kind: str, number: Callable[[float], str]) -> str:
    """Before opset 20: x (1 + erf(x / sqrt 2)) / 2, or with the tanh that is near to it."""
    if kind == "gelu":
        bend = w.node("Erf", [w.node("Mul", [x, number(math.sqrt(0.5))])])
    else:
        cube = w.node("Mul", [w.node("Mul", [x, x]), x])
        inner = w.node("Add", [x, w.node("Mul", [cube, number(0.044715)])])
        bend = w.node("Tanh", [w.node("Mul", [inner, number(math.sqrt(2 / math.pi))])])
    return w.node("Mul", [w.node("Mul", [x, number(0.5)]), w.node("Add", [bend, number(1)])])


def activation(w: Any, call: Any, x: str) -> str:
    return activate(w, x, call.static["kind"], call.static["alpha"], call.inputs[0].dtype)


def prelu(w: Any, call: Any, x: str, slope: str) -> str:
    ndim, (count,) = len(call.inputs[0].shape), call.inputs[1].shape
    if ndim > 2 and count > 1:  # ONNX aligns shapes at the end
        slope = w.reshape(slope, (count, *(1,) * (ndim - 2)), depends=False)
    return w.node("PRelu", [x, slope])


def beyond(w: Any, call: Any, x: str, y: str) -> str:
    dtype = call.inputs[0].dtype
    steep = w.node("Mul", [x, w.array(call.static["beta"], dtype)])
    return w.node("Where", [w.node("Greater", [steep, w.array(call.static["threshold"], dtype)]), x, y])


def clip(w: Any, call: Any, x: str) -> str:
    limits = [None if v is None else w.array(v, call.inputs[0].dtype) for v in map(call.static.get, ("low", "high"))]
    return w.node("Clip", [x, *limits])


def larger(w: Any, call: Any, a: str, b: str) -> str:
    return two("Min" if call.static["smaller"] else "Max")(w, call, a, b)


def power(w: Any, call: Any, x: str) -> str:
    return w.node("Pow", [x, w.array(call.static["exponent"], call.inputs[0].dtype)])


def where(w: Any, call: Any, a: str, b: str) -> str:
    condition = w.array(w.known(call.static["condition"], "the condition of a where"), np.bool_)
    dtype = call.outputs[0].dtype
    a, b = (
        name if value.dtype == dtype else w.node("Cast", [name], to=NUMBERS[dtype.name])
        for name, value in zip((a, b), call.inputs, strict=True)
    )
    return w.node("Where", [condition, a, b])


def cast(w: Any, call: Any, x: str) -> str:
    return w.node("Cast", [x], to=NUMBERS[call.outputs[0].dtype.name])


def log1p(w: Any, call: Any, x: str) -> str:
    return w.node("Log", [w.node("Add", [x, w.array(1, call.inputs[0].dtype)])])


def expm1(w: Any, call: Any, x: str) -> str:
    return w.node("Sub", [w.node("Exp", [x]), w.array(1, call.inputs[0].dtype)])


def step(w: Any, call: Any, x: str) -> str:
    words = {"floor": "Floor", "ceil": "Ceil", "rint": "Round", "sign": "Sign"}
    return w.node(words[call.static["kind"]], [x])


def softmax(w: Any, call: Any, x: str) -> str:
    return w.node("LogSoftmax" if call.static.get("log") else "Softmax", [x], axis=-1)
