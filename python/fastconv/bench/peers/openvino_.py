# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on the CPU, in float32: a compiled model of one Conv, input and output bound to memory. Forward only."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..problems import DTYPES
from . import Prepared, RefusedError, Task
from .onnx_model import conv_model, forward_layer

openvino: Any = importlib.import_module("openvino")


class OpenVino:
    """One stream of all threads, tuned for latency; without the hint it would compute in bfloat16 where it can."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.core = openvino.Core()

    def versions(self) -> dict[str, str]:
        return {"openvino": openvino.__version__}

    def prepare(self, task: Task) -> Prepared:
        layer = forward_layer(task, "OpenVINO")
        if layer.dtype != "f32":
            raise RefusedError(f"OpenVINO computes in f32 here, not {layer.dtype}")
        settings = {
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        model = self.core.read_model(conv_model(layer, layer.array("w", task["seed"])))
        compiled = self.core.compile_model(model, "CPU", settings)
        if (used := compiled.get_property("INFERENCE_NUM_THREADS")) != self.threads:
            raise RuntimeError(f"OpenVINO computes with {used} threads, {self.threads} were asked for")
        request = compiled.create_infer_request()
        x, y = layer.array("x", task["seed"]), np.empty(layer.y_shape, DTYPES[layer.dtype])
        request.set_input_tensor(openvino.Tensor(x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(y, shared_memory=True))
        self.held = x  # OpenVINO borrows it
        return Prepared(request.infer, lambda _: y, {"algorithm": "openvino"})
