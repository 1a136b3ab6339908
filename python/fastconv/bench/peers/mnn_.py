# SPDX-License-Identifier: Apache-2.0
"""MNN on the CPU at its high precision (float32): a session of one convolution, converted from ONNX. Forward only."""

from __future__ import annotations

import importlib
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from . import Array, Prepared, RefusedError, Task
from .onnx_model import conv_model, forward_layer

MNN: Any = importlib.import_module("MNN")
converter: Any = importlib.import_module("_tools")  # what its command mnnconvert calls
WINOGRAD_LEVEL = 3  # the number of MNN's session hint of that name


class Mnn:
    """As it comes: large Winograd tiles, fast and of errors around 1e-3.

    A session may write over its input, so that every call copies the input in, as a user must.
    """

    winograd_level: int | None = None

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def versions(self) -> dict[str, str]:
        return {"MNN": MNN.version()}

    def prepare(self, task: Task) -> Prepared:
        layer = forward_layer(task, "MNN")
        if layer.dtype != "f32":
            raise RefusedError(f"MNN computes in f32, not {layer.dtype}")
        with tempfile.TemporaryDirectory() as folder:
            source, converted = Path(folder) / "conv.onnx", Path(folder) / "conv.mnn"
            source.write_bytes(conv_model(layer, layer.array("w", task["seed"])))
            converter.mnnconvert(["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(converted)])
            if not converted.exists():
                raise RefusedError("MNN's converter does not take this layer")
            net = MNN.Interpreter(str(converted))
        if self.winograd_level is not None:
            net.setSessionHint(WINOGRAD_LEVEL, self.winograd_level)
        session = net.createSession({"backend": "CPU", "precision": "high", "numThread": self.threads})
        x, y = net.getSessionInput(session), net.getSessionOutput(session)
        shape = tuple(y.getShape())  # of one axis, it has another of size 1 behind
        if math.prod(shape) != math.prod(layer.y_shape):
            raise RefusedError(f"MNN answers in the shape {shape}, not {layer.y_shape}")
        held = layer.array("x", task["seed"])
        given = MNN.Tensor(layer.x_shape, MNN.Halide_Type_Float, held, MNN.Tensor_DimensionType_Caffe)

        def call() -> None:
            x.copyFrom(given)
            net.runSession(session)

        def result(_: None) -> Array:
            out = np.empty(shape, np.float32)
            copy = MNN.Tensor(shape, MNN.Halide_Type_Float, out, MNN.Tensor_DimensionType_Caffe)
            y.copyToHostTensor(copy)
            return np.array(copy.getNumpyData(), np.float32).reshape(layer.y_shape)

        return Prepared(call, result, {"algorithm": "mnn"})


class SmallTiles(Mnn):
    """With its smaller Winograd tiles: slower, with errors under 1e-5."""

    winograd_level = 1
