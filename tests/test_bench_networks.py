# SPDX-License-Identifier: Apache-2.0
"""bench.networks: what is written for the rivals is the network, and each that is installed gives its answer."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv.bench.peers import RefusedError, networks
from fastconv.graph import trace_graph
from tolerance import assert_close

SEED = 75


def task(folder, y):
    return {"kind": "network", "name": "cifar_resnet20", "folder": str(folder), "y_shape": list(y.shape), "options": {}}


def test_our_session_from_the_folder(tmp_path):
    fc.manual_seed(SEED)
    model = fc.models.build("cifar_resnet20").eval()
    x = np.random.default_rng(SEED).standard_normal((2, 3, 32, 32)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "state.npz", **model.state_dict())
    with fc.no_grad():
        y = model(fc.Tensor(x)).data
    prepared = networks.FastconvSession(1).prepare(task(tmp_path, y))
    assert_close(prepared.result(prepared.call()), y, "model")
    assert prepared.about["arena_bytes"] > 0
    with pytest.raises(RefusedError, match=r"there is no model\.onnx for it"):
        networks.OnnxRuntimeNetwork(1).file(tmp_path, "model.onnx")
    with pytest.raises(RefusedError, match="runs networks, not conv"):
        networks.FastconvSession(1).prepare({"kind": "conv"})


def test_a_graph_as_a_pytorch_module():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from bench.torch_graph import GraphModule

    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding="same", stride=2, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1),
        nn.AvgPool2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).eval()
    x = np.random.default_rng(SEED).standard_normal((2, 3, 14, 14)).astype(np.float32)
    module = GraphModule(trace_graph(model, x))
    with torch.no_grad(), fc.no_grad():
        assert_close(module(torch.from_numpy(x)).numpy(), model(fc.Tensor(x)).data, "parity")
    with pytest.raises(NotImplementedError, match="no line for Sin"):
        GraphModule(trace_graph(fc.ops.sin, x))(torch.from_numpy(x))
