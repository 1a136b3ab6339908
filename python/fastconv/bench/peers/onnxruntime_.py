# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on the CPU: a model of one Conv whose weights it holds (and packs) as constants. Forward only."""

from __future__ import annotations

import importlib
from typing import Any

from . import Prepared, RefusedError, Task
from .onnx_model import ELEMENT_TYPE, conv_model, forward_layer

onnxruntime: Any = importlib.import_module("onnxruntime")


class OnnxRuntime:
    """A session per layer; input and output stay bound to the same memory, so that only the run is timed."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def versions(self) -> dict[str, str]:
        return {"onnxruntime": onnxruntime.__version__}

    def prepare(self, task: Task) -> Prepared:
        layer = forward_layer(task, "ONNX Runtime")
        if layer.dtype not in ELEMENT_TYPE:
            raise RefusedError(f"ONNX Runtime computes in f32 and f64 here, not {layer.dtype}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        model = conv_model(layer, layer.array("w", task["seed"]))
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        x = onnxruntime.OrtValue.ortvalue_from_numpy(layer.array("x", task["seed"]))
        y = onnxruntime.OrtValue.ortvalue_from_shape_and_type(layer.y_shape, layer.array("x", 0).dtype)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output("y", y)
        return Prepared(lambda: session.run_with_iobinding(binding), lambda _: y.numpy(), {"algorithm": "onnxruntime"})
