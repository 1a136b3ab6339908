# SPDX-License-Identifier: Apache-2.0
"""fastconv as a backend of the package onnx, for its own tests and for tools that run models by that interface."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..tensor import plain
from .model import OnnxModel, load
from .package import NUMBERS, onnx

_base: Any = onnx("backend.base")


class PreparedModel(_base.BackendRep):  # type: ignore[misc]
    """A loaded model: `run(inputs)` gives a tuple of arrays."""

    def __init__(self, model: OnnxModel) -> None:
        self.model = model

    def run(self, inputs: Any, **keywords: Any) -> tuple[Any, ...]:
        """inputs: arrays in the order of the graph's inputs, a dictionary by their names, or a single array."""
        if isinstance(inputs, dict):
            inputs = [inputs[name] for name in self.model.input_names]
        elif isinstance(inputs, np.ndarray):
            inputs = [inputs]
        with no_grad():
            outputs = self.model(*inputs)
        return tuple(np.asarray(plain(o)) for o in (outputs if isinstance(outputs, tuple) else (outputs,)))


class Backend(_base.Backend):  # type: ignore[misc]
    """`onnx.backend.base.Backend` on the CPU. What a model holds that fastconv does not know is an UnsupportedError."""

    @classmethod
    def prepare(cls, model: Any, device: str = "CPU", **keywords: Any) -> PreparedModel:
        """A ModelProto to be run many times.

        Raises:
            ValueError: another device than "CPU". ProblemError, UnsupportedError: as `fastconv.onnx.load`.
        """
        if not cls.supports_device(device):
            raise ValueError(f"Backend: device is {device!r}; expected 'CPU'")
        return PreparedModel(load(model))

    @classmethod
    def run_model(cls, model: Any, inputs: Any, device: str = "CPU", **keywords: Any) -> tuple[Any, ...]:
        """The outputs of a ModelProto."""
        return cls.prepare(model, device).run(inputs)

    @classmethod
    def run_node(cls, node: Any, inputs: Any, device: str = "CPU", outputs_info: Sequence[Any] | None = None,
                 **keywords: Any) -> tuple[Any, ...]:  # fmt: skip
        """The results of one NodeProto. inputs: an array for each input that has a name; keywords: opset_version."""
        helper = onnx("helper")
        names = [name for name in node.input if name]
        arrays = [np.asarray(a) for a in inputs]
        given = [
            helper.make_tensor_value_info(name, NUMBERS[a.dtype.name], a.shape)
            for name, a in zip(names, arrays, strict=True)
        ]
        results = [helper.make_empty_tensor_value_info(name) for name in node.output if name]
        graph = helper.make_graph([node], "node", given, results)
        opset = keywords.get("opset_version") or onnx("defs").onnx_opset_version()
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
        return cls.prepare(model, device).run(arrays)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Whether it is the CPU."""
        return device.partition(":")[0].upper() == "CPU"
