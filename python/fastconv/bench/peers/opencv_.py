# SPDX-License-Identifier: Apache-2.0
"""OpenCV's DNN module on the CPU: a network of one convolution, read from ONNX. Forward only."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from . import Array, Prepared, RefusedError, Task
from .onnx_model import conv_model, forward_layer

cv2: Any = importlib.import_module("cv2")


class OpenCV:
    def __init__(self, threads: int) -> None:
        cv2.setNumThreads(threads)
        if cv2.getNumThreads() != threads:
            raise RuntimeError(f"OpenCV computes with {cv2.getNumThreads()} threads, {threads} were asked for")

    def versions(self) -> dict[str, str]:
        return {"opencv": cv2.__version__}

    def prepare(self, task: Task) -> Prepared:
        layer = forward_layer(task, "OpenCV")
        if layer.dtype != "f32":
            raise RefusedError(f"OpenCV computes in f32, not {layer.dtype}")
        model = np.frombuffer(conv_model(layer, layer.array("w", task["seed"])), np.uint8)

        def call() -> Array:
            y: Array = net.forward()
            return y

        try:
            net = cv2.dnn.readNetFromONNX(model)
            net.setInput(layer.array("x", task["seed"]))
            call()
        except cv2.error as error:
            raise RefusedError(f"OpenCV: {str(error).splitlines()[0]}") from None
        return Prepared(call, lambda y: y, {"algorithm": "opencv"})
