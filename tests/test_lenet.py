# SPDX-License-Identifier: Apache-2.0
"""A whole model without any framework: LeNet-5 in float64 against reference.py, which shares no code with it.

Outputs, the gradient of every parameter and of the input, and 20 steps of SGD with momentum and of Adam.
"""

import numpy as np
import pytest

import fastconv as fc
from fastconv import reference
from tolerance import assert_close


def model_in_float64():
    """(the model, its parameters as NumPy arrays)."""
    fc.manual_seed(3)
    model = fc.models.lenet5()
    state = {name: np.asarray(value, np.float64) for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data = parameter.data.astype(np.float64)
    model.load_state_dict(state)
    assert all(parameter.data.dtype == np.float64 for parameter in model.parameters())
    return model, [parameter.data.copy() for parameter in model.parameters()]


def batches(count, n=5):
    rng = np.random.default_rng(11)
    return [(rng.standard_normal((n, 1, 32, 32)), rng.integers(0, 10, n)) for _ in range(count)]


def test_outputs_and_gradients():
    model, parameters = model_in_float64()
    ((x, labels),) = batches(1)
    inputs = fc.Tensor(x, requires_grad=True)
    logits = model(inputs)
    assert_close(logits.data, reference.lenet5_forward(parameters, x), "model", what="logits")
    loss = fc.nn.CrossEntropyLoss()(logits, labels)
    loss.backward()
    expected_loss, dx, gradients = reference.lenet5_backward(parameters, x, labels)
    assert_close(loss.data, np.asarray(expected_loss), "model", what="loss")
    assert_close(inputs.grad, dx, "model", what="gradient of x")
    for (name, parameter), expected in zip(model.named_parameters(), gradients, strict=True):
        assert_close(parameter.grad, expected, "model", what=f"gradient of {name}")


@pytest.mark.parametrize(
    ("optimizer", "lr", "words"),
    [
        ("sgd", 0.05, {"momentum": 0.9, "weight_decay": 1e-3}),
        ("sgd", 0.05, {"momentum": 0.9, "nesterov": True}),
        ("adam", 0.002, {}),
    ],
)
def test_twenty_optimiser_steps(optimizer, lr, words):
    model, parameters = model_in_float64()
    data = batches(20)
    maker = {"sgd": fc.optim.SGD, "adam": fc.optim.Adam}[optimizer]
    steps = maker(model.parameters(), lr=lr, **words)
    losses = []
    for x, labels in data:
        loss = fc.nn.CrossEntropyLoss()(model(fc.Tensor(x)), labels)
        steps.zero_grad()
        loss.backward()
        steps.step()
        losses.append(float(loss.data))
    expected, expected_losses = reference.lenet5_train(parameters, data, optimizer, lr, **words)
    assert_close(np.array(losses), np.array(expected_losses), "trained", what="losses")
    for (name, parameter), want in zip(model.named_parameters(), expected, strict=True):
        assert_close(parameter.data, want, "trained", what=f"{name} after 20 steps")
