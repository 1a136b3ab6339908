# SPDX-License-Identifier: Apache-2.0
"""Small ONNX models for the tests of fastconv.onnx."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="onnx comes with fastconv[onnx]")
helper, numpy_helper, FLOAT = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT

SEED = 92


def example(*shape, dtype=np.float32):
    return np.random.default_rng(SEED).standard_normal(shape).astype(dtype)


def model_of(nodes, inputs, outputs=("y",), arrays=None, opset=20, **words):
    """A ModelProto; inputs: {name: (type, shape)}."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (arrays or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **words)
