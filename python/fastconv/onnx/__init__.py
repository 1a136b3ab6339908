# SPDX-License-Identifier: Apache-2.0
"""ONNX models: read, trained, run, written. Needs the extra `fastconv[onnx]`.

model = fastconv.onnx.load("net.onnx")
y = model(x)
fastconv.onnx.export(model, "again.onnx", x)
"""

import importlib
from typing import Any

from .layers import convolutions
from .model import OnnxModel, load
from .writer import export

__all__ = ["Backend", "OnnxModel", "convolutions", "export", "load"]


def __getattr__(name: str) -> Any:
    if name == "Backend":  # its base class is the package onnx's
        return importlib.import_module(".backend", __name__).Backend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
