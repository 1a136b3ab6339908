# SPDX-License-Identifier: Apache-2.0
"""A traced graph as a PyTorch module, so that PyTorch and its compiler run the networks of the zoo with our weights."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.graph import Call, Graph, Value

torch: Any = importlib.import_module("torch")
F: Any = importlib.import_module("torch.nn.functional")

ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
}
POOLS = {"max": F.max_pool2d, "average": F.avg_pool2d}


class GraphModule(torch.nn.Module):  # type: ignore[misc]
    """The calls of a graph of one input and one output, in order.

    Raises:
        NotImplementedError: a Function that has no line in `_operation`.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.names: dict[Value, str] = {}
        for call in graph.calls:
            for value in call.reads():
                if value.data is not None and value not in self.names:
                    self.names[value] = f"constant_{len(self.names)}"
                    data = torch.from_numpy(np.array(value.data))
                    self.register_buffer(self.names[value], data)

    def forward(self, x: Any) -> Any:
        known = {self.graph.inputs[0]: x}
        for call in self.graph.calls:
            inputs = [
                None if v is None else getattr(self, self.names[v]) if v in self.names else known[v]
                for v in call.inputs
            ]
            y = call.outputs[0]
            assert y is not None
            known[y] = _operation(call, inputs)
        return known[self.graph.outputs[0]]


def _operation(call: Call, inputs: list[Any]) -> Any:
    name, s = call.function.__name__, call.static
    if name == "Conv":
        return _conv(s, *inputs)
    if name == "ConvBackwardData":
        return _transposed(s, *inputs)
    if name in ("ExtremePool", "AvgPool"):
        return _pool(s["g"].problem if "g" in s else s["problem"], inputs[0])
    if name == "Activation":
        if s["kind"] == "leaky_relu":
            return F.leaky_relu(inputs[0], s["alpha"])
        return ACTIVATIONS[s["kind"]](inputs[0])
    simple: dict[str, Callable[[], Any]] = {
        "BatchNormInference": lambda: F.batch_norm(inputs[0], inputs[3], inputs[4], inputs[1], inputs[2], eps=s["eps"]),
        "Dense": lambda: F.linear(*inputs),
        "Add": lambda: inputs[0] + inputs[1],
        "Mul": lambda: inputs[0] * inputs[1],
        "Neg": lambda: -inputs[0],
        "Concat": lambda: torch.cat(inputs, s["axis"]),
        "Reshape": lambda: inputs[0].reshape(s["shape"]),
        "GetItem": lambda: inputs[0][s["index"]],
        "Mean": lambda: inputs[0].mean(s["axes"], s["keepdims"]),
        "Softmax": lambda: F.softmax(inputs[0], -1),
    }
    if name not in simple:
        raise NotImplementedError(f"bench.torch_graph has no line for {name}")
    return simple[name]()


def _conv(s: dict[str, Any], x: Any, w: Any, bias: Any, residual: Any) -> Any:
    g = s["static"]
    padding = g.pad_begin
    if g.pad_begin != g.pad_end:
        x = F.pad(x, [n for pair in zip(reversed(g.pad_begin), reversed(g.pad_end), strict=True) for n in pair])
        padding = (0,) * len(g.stride)
    y = getattr(F, f"conv{len(g.stride)}d")(x, w, bias, g.stride, padding, g.dilation, g.groups)
    y = y if residual is None else y + residual
    return y if s["kind"] == "none" else ACTIVATIONS[s["kind"]](y)


def _transposed(s: dict[str, Any], x: Any, w: Any, bias: Any) -> Any:
    g = s["static"]
    if s["kind"] != "none":
        raise NotImplementedError("bench.torch_graph takes transposed convolutions without an activation")
    planes = zip(g.x_shape[2:], x.shape[2:], g.stride, g.pad_begin, g.dilation, w.shape[2:], strict=True)
    extra = [out - ((n - 1) * stride - 2 * pad + d * (r - 1) + 1) for out, n, stride, pad, d, r in planes]
    return getattr(F, f"conv_transpose{len(g.stride)}d")(x, w, bias, g.stride, g.pad_begin, extra, g.groups, g.dilation)


def _pool(p: Any, x: Any) -> Any:
    words = p.words
    if words["output"]:
        return {"max": F.adaptive_max_pool2d, "average": F.adaptive_avg_pool2d}[p.kind](x, words["output"])
    if len(words["window"]) != 2 or p.kind not in POOLS:
        raise NotImplementedError("bench.torch_graph takes max and average pooling of two axes")
    if p.kind == "max":
        return F.max_pool2d(
            x, words["window"], words["stride"], words["pad_begin"], words["dilation"], words["ceil_mode"]
        )
    return F.avg_pool2d(
        x, words["window"], words["stride"], words["pad_begin"], words["ceil_mode"], words["count_include_pad"]
    )
