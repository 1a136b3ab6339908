# SPDX-License-Identifier: Apache-2.0
"""Networks against PyTorch with the same weights: outputs and all gradients in float64, outputs in float32.

PyTorch's side is zoo_twins.py, the networks written as functions of a state dict; that its keys and shapes are those
of torchvision, test_models.py tests.
"""

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from tolerance import assert_close
from zoo import small
from zoo_layers import InTorch
from zoo_twins import TWINS

torch = pytest.importorskip("torch", reason="torch comes with fastconv[parity]")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """PyTorch's threads wait for each other in every group of a convolution."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def in_torch(model, dtype, grad):
    """The state dict as tensors; parameters want gradients."""
    parameters = {name for name, _ in model.named_parameters()}
    state = {}
    for key, value in model.state_dict().items():
        state[key] = torch.tensor(value.astype(dtype) if value.dtype.kind == "f" else value)
        state[key].requires_grad_(grad and key in parameters)
    return state


def compare(model, x, twin, training=False):
    """Outputs and gradients in float64."""
    f = InTorch(in_torch(model, np.float64, True), training)
    theirs = torch.tensor(x, requires_grad=True)
    expected = twin(f, theirs)
    ours = fc.Tensor(x, requires_grad=True)
    outputs = model(ours)
    if not training:
        expected, outputs = (expected,), (outputs,)
    rng = rng_for("cotangents")
    total, total_there = 0.0, 0.0
    for actual, wanted in zip(outputs, expected, strict=True):
        assert_close(actual.data, wanted.detach().numpy(), "model", what="outputs")
        dy = rng.standard_normal(actual.shape)
        total = total + (actual * dy).sum()
        total_there = total_there + (wanted * torch.tensor(dy)).sum()
    total.backward()
    total_there.backward()
    assert_close(ours.grad.data, theirs.grad.numpy(), "model", what="gradient of x")
    for name, parameter in model.named_parameters():
        wanted = f.state[name].grad
        if wanted is None:
            assert parameter.grad is None, name
        else:
            assert_close(parameter.grad.data, wanted.numpy(), "model", what=f"gradient of {name}")


@pytest.mark.parametrize("name", sorted(TWINS))
def test_outputs_in_float32(name):
    model, x = small(name)
    with torch.no_grad():
        expected = TWINS[name](InTorch(in_torch(model, np.float32, False)), torch.tensor(x, dtype=torch.float32))
    y = model.float()(x.astype(np.float32)).data
    assert_close(y, expected.numpy(), "model", what=name)


@pytest.mark.parametrize("name", sorted(TWINS))
def test_outputs_and_gradients_in_float64(name):
    model, x = small(name)
    compare(model, x, TWINS[name])


@pytest.mark.parametrize("size5", [3, 5])
def test_googlenet_in_training(size5):
    model, x = small("googlenet", dropout=0.0, dropout_aux=0.0, kernel_size5=size5)
    x = np.concatenate([x, rng_for("more").standard_normal(x.shape)])
    compare(model.train(), x, lambda f, x: TWINS["googlenet"](f, x, size5), training=True)
