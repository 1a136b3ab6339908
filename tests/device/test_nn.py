# SPDX-License-Identifier: Apache-2.0
"""Layers, losses and optimisers on a device: the same code, the same values and gradients as on NumPy arrays."""

import copy

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from tolerance import assert_close

IMAGE = (2, 4, 8, 8)
LAYERS = [
    (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), IMAGE),
    (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2, output_padding=1), IMAGE),
    (lambda: nn.Conv1d(3, 4, 3), (2, 3, 9)),
    (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 5, 6)),
    (lambda: nn.Linear(7, 5), (3, 7)),
    (lambda: nn.BatchNorm2d(4), IMAGE),
    (lambda: nn.GroupNorm(2, 4), IMAGE),
    (lambda: nn.LayerNorm(8), IMAGE),
    (lambda: nn.InstanceNorm2d(4), IMAGE),
    (lambda: nn.MaxPool2d(2), IMAGE),
    (lambda: nn.MaxPool2d(3, 2, 1), IMAGE),
    (lambda: nn.AvgPool2d(2), IMAGE),
    (lambda: nn.LPPool2d(2, 2), IMAGE),
    (lambda: nn.AdaptiveAvgPool2d(1), IMAGE),
    (lambda: nn.AdaptiveMaxPool2d(3), IMAGE),
    (lambda: nn.LocalResponseNorm(3), IMAGE),
    (lambda: nn.Flatten(), IMAGE),
    (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), IMAGE),
    (lambda: nn.Upsample(scale_factor=2), IMAGE),
    (lambda: nn.ReflectionPad2d(2), IMAGE),
    (lambda: nn.ZeroPad2d(1), IMAGE),
    (lambda: nn.Unfold(3), IMAGE),
    (lambda: nn.PReLU(4), IMAGE),
    *((getattr(nn, name), IMAGE) for name in (
        "ReLU", "LeakyReLU", "ReLU6", "ELU", "Sigmoid", "Tanh", "SiLU", "GELU", "Hardswish", "SELU", "CELU",
        "Hardsigmoid", "Softplus", "Softsign", "Mish", "LogSigmoid", "Softmax",
    )),
]  # fmt: skip


def _named(value):
    return repr(value()) if callable(value) else None


@pytest.mark.parametrize(("make", "shape"), LAYERS, ids=_named)
def test_a_layer_gives_what_it_gives_on_the_cpu(cp, rng, make, shape):
    fc.manual_seed(0)
    layer = make()
    moved = copy.deepcopy(layer).to("cuda")
    x = rng.standard_normal(shape).astype("float32")
    results = []
    for module, array in ((layer, x), (moved, cp.asarray(x))):
        tensor = fc.Tensor(array, requires_grad=True)
        y = module(tensor)
        (y * y).sum().backward()
        gradients = [p.grad.data for p in module.parameters()]
        buffers = [b for _, b in module.named_buffers() if b.dtype.kind == "f"]
        results.append([y.data, tensor.grad.data, *gradients, *buffers])
    for expected, got in zip(*results, strict=True):
        assert type(got) is cp.ndarray
        assert_close(cp.asnumpy(got), expected, "model", scale=1)


LOSSES = ["cross_entropy", "mse_loss", "l1_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"]


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(cp, rng, loss):
    x = rng.standard_normal((6, 5)).astype("float32")
    target = rng.integers(0, 5, 6) if loss == "cross_entropy" else rng.random((6, 5)).astype("float32")
    results = []
    for array, wanted in ((x, target), (cp.asarray(x), cp.asarray(target))):
        tensor = fc.Tensor(array, requires_grad=True)
        value = getattr(nn.functional, loss)(tensor, fc.Tensor(wanted))
        value.backward()
        results.append((value.item(), cp.asnumpy(tensor.grad.data)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    assert_close(results[1][1], results[0][1], "pointwise", scale=1)


@pytest.mark.parametrize("optimiser", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_network_learns_as_on_the_cpu(cp, rng, optimiser):
    fc.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                        nn.Linear(8 * 16, 4))  # fmt: skip
    x, labels = rng.standard_normal((8, 3, 8, 8)).astype("float32"), rng.integers(0, 4, 8)
    losses = []
    for where in ("cpu", "cuda"):
        model = copy.deepcopy(net).to(where)
        step = getattr(fc.optim, optimiser)(model.parameters(), lr=3e-3)
        inputs, targets = fc.Tensor(x).to(where), fc.Tensor(labels).to(where)
        history = []
        for _ in range(4):
            step.zero_grad()
            value = nn.functional.cross_entropy(model(inputs), targets)
            value.backward()
            step.step()
            history.append(value.item())
        losses.append(history)
    assert losses[0][0] > losses[0][-1]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_moving_there_and_back(cp, rng):
    x = fc.Tensor(rng.standard_normal((2, 3)).astype("float32"), requires_grad=True)
    y = x.to("cuda")
    assert type(y.data) is cp.ndarray
    assert y.to("cuda") is y
    (y * 2).to("cpu").sum().backward()
    assert type(x.grad.data) is np.ndarray
    assert np.array_equal(x.grad.data, np.full((2, 3), 2, "float32"))
    layer = nn.BatchNorm2d(3).to("cuda")
    assert all(type(b) is cp.ndarray for _, b in layer.named_buffers())
    state = layer.to("cpu").state_dict()
    assert all(type(value) is np.ndarray or type(value.data) is np.ndarray for value in state.values())
    with pytest.raises(fc.ProblemError, match="device is 'cuda:99'"):
        layer.to("cuda:99")


def test_gradients_of_gradients(cp, rng):
    x = fc.Tensor(cp.asarray(rng.standard_normal((1, 2, 5, 5))), requires_grad=True)
    w = fc.Tensor(cp.asarray(rng.standard_normal((3, 2, 3, 3))), requires_grad=True)
    y = fc.conv2d(x, w, padding=1)
    (y * y * y).sum().backward(create_graph=True)
    (x.grad * x.grad).sum().backward()
    assert type(w.grad.data) is cp.ndarray
    assert np.isfinite(cp.asnumpy(w.grad.data)).all()
