# SPDX-License-Identifier: Apache-2.0
"""Models that PyTorch's exporter writes, against PyTorch: several opsets, each with its own words for one thing."""

import io
import warnings

import numpy as np
import pytest

import fastconv as fc
import fastconv.onnx
from tolerance import assert_close

torch = pytest.importorskip("torch", reason="PyTorch comes with fastconv[parity]")
pytest.importorskip("onnx", reason="onnx comes with fastconv[onnx]")

SEED = 93


def network():
    """Squeeze-and-excitation, normalisations, resizing, pooling with ceil_mode, chunks, padding, a dense layer."""
    nn, functional = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
            self.excite = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Hardsigmoid())
            self.groups, self.up, self.rows = nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 4, 2, 2), nn.LayerNorm(16)
            self.dense = nn.Linear(256, 5)

        def forward(self, x):
            y = functional.silu(self.norm(self.conv(x)))
            y = self.groups(y * self.excite(y))
            y = self.rows(functional.gelu(self.up(y)))
            y = functional.interpolate(y, scale_factor=2.0, mode="bilinear", align_corners=False)
            y = functional.max_pool2d(y, 3, 2, 1, ceil_mode=True)
            a, b = y.chunk(2, 1)
            y = torch.cat([a * b.sigmoid(), b.mean((2, 3), keepdim=True).expand_as(b)], 1)
            y = functional.pad(functional.avg_pool2d(y, 2, 2), (0, 1, 0, 1), mode="reflect")[:, :, :8, :8]
            return torch.softmax(self.dense(y.flatten(1)), 1)

    torch.manual_seed(SEED)
    net = Net().eval()
    for p in (*net.norm.parameters(), *net.groups.parameters(), *net.rows.parameters()):
        p.data.uniform_(0.5, 1.5)  # equal ones would become one initializer
    return net


@pytest.mark.parametrize("opset", [11, 13, 16, 18, 20])
def test_what_pytorch_writes(opset):
    net, x = network(), torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(SEED))
    file = io.BytesIO()
    with warnings.catch_warnings():  # the exporter that needs nothing but PyTorch is the older one
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, opset_version=opset, dynamo=False)
    model = fastconv.onnx.load(file.getvalue())
    with fc.no_grad():
        y = model(x.numpy()).data
    expected = net(x).detach().numpy()
    assert model.opset == opset and {"Swish", "Gelu"} <= {n.op_type for n in model.nodes}
    assert_close(y, expected, "model")
    assert_close(np.asarray(fc.InferenceSession(model, x.numpy())(x.numpy())), expected, "model")


def test_gradients_are_pytorchs():
    net, x = network(), torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(SEED))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, opset_version=17, dynamo=False, do_constant_folding=False,
                          keep_initializers_as_inputs=False, training=torch.onnx.TrainingMode.PRESERVE)  # fmt: skip
    model = fastconv.onnx.load(file.getvalue())
    net(x).square().sum().backward()
    y = model(x.numpy())
    (y * y).sum().backward()
    theirs = {name: p.grad.numpy() for name, p in net.named_parameters()}
    ours = {name: p.grad.data for name, p in model.named_parameters() if p.grad is not None}
    shared = ours.keys() & theirs.keys()
    assert {"conv.weight", "up.weight", "dense.weight", "excite.1.bias"} <= shared
    for name in shared:
        assert_close(ours[name], theirs[name], "model", what=name)
