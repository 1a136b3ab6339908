# SPDX-License-Identifier: Apache-2.0
"""ncnn on the CPU, in float32: a network of one convolution, weights packed when it is loaded. Forward only."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..problems import Layer
from . import Array, Prepared, RefusedError, Task
from .onnx_model import forward_layer

ncnn: Any = importlib.import_module("ncnn")

# Whatever computes or stores in fewer bits.
NARROW = ("bf16_packed", "bf16_storage", "fp16_arithmetic", "fp16_packed", "fp16_storage")
# Numbers of a layer's parameters, for the axes w, h, d: src/layer/convolution3d.cpp.
FILTER, DILATION, STRIDE = (1, 11, 21), (2, 12, 22), (3, 13, 23)
PAD_BEGIN, PAD_END = (4, 14, 24), (15, 16, 17)
OUTPUTS, WEIGHTS, GROUPS = 0, 6, 7


def network(layer: Layer) -> str:
    """The text of a network with input x, one convolution and output y."""
    parameters = {OUTPUTS: layer.w_shape[0], WEIGHTS: int(np.prod(layer.w_shape))}
    for numbers, values in (
        (FILTER, layer.w_shape[2:]),
        (DILATION, layer.dilation),
        (STRIDE, layer.stride),
        (PAD_BEGIN, layer.pad_begin),
        (PAD_END, layer.pad_end),
    ):
        parameters |= zip(numbers, reversed(values), strict=False)
    kind = "Convolution"
    if layer.groups > 1:
        kind += "DepthWise"
        parameters[GROUPS] = layer.groups
    kind += {1: "1D", 2: "", 3: "3D"}[layer.rank]
    written = " ".join(f"{number}={value}" for number, value in sorted(parameters.items()))
    return f"7767517\n2 2\nInput x 0 1 x\n{kind} conv 1 1 x y {written}\n"


class Ncnn:
    """An extractor per image, as its users do it: ncnn has no batch. Blobs come from its pools, as in its benchmark."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.blobs, self.workspace = ncnn.UnlockedPoolAllocator(), ncnn.PoolAllocator()

    def versions(self) -> dict[str, str]:
        return {"ncnn": ncnn.__version__}

    def prepare(self, task: Task) -> Prepared:
        layer = forward_layer(task, "ncnn")
        if layer.dtype != "f32":
            raise RefusedError(f"ncnn computes in f32, not {layer.dtype}")
        net = ncnn.Net()
        for name in NARROW:
            setattr(net.opt, f"use_{name}", False)
        net.opt.num_threads = self.threads
        net.opt.blob_allocator, net.opt.workspace_allocator = self.blobs, self.workspace
        with tempfile.TemporaryDirectory() as folder:
            text, weights = Path(folder) / "conv.param", Path(folder) / "conv.bin"
            text.write_text(network(layer), encoding="utf-8")
            # Four zero bytes say that float32 weights follow.
            weights.write_bytes(bytes(4) + layer.array("w", task["seed"]).tobytes())
            if net.load_param(str(text)) or net.load_model(str(weights)):
                raise RefusedError("ncnn does not load this layer")
        images = layer.array("x", task["seed"])
        inputs = [ncnn.Mat(image) for image in images]
        self.keep = images, net  # a Mat borrows its array

        def call() -> list[Any]:
            outputs = []
            for x in inputs:
                extractor = net.create_extractor()
                extractor.input("x", x)
                code, y = extractor.extract("y")
                if code:
                    raise RefusedError(f"ncnn answers with code {code}")
                outputs.append(y)
            return outputs

        def result(outputs: list[Any]) -> Array:
            return np.stack([np.array(y) for y in outputs]).reshape(layer.y_shape)

        if int(np.prod(np.array(call()[0]).shape)) != int(np.prod(layer.y_shape[1:])):
            raise RefusedError("ncnn's result has another shape")
        return Prepared(call, result, {"algorithm": "ncnn"})
