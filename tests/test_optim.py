# SPDX-License-Identifier: Apache-2.0
"""Optimisers against their formulas written out, on the native path and on the one for other arrays."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import optim

W0, G1, G2 = np.array([1.0, -2.0, 3.0]), np.array([0.5, 0.25, -1.0]), np.array([-1.0, 0.5, 2.0])


def run(make, dtype=np.float64, contiguous=True, gradients=(G1, G2)):
    """The weights after a step with each gradient."""
    data = W0.astype(dtype) if contiguous else np.repeat(W0.astype(dtype), 2)[::2]
    p = fc.Tensor(data, requires_grad=True)
    optimiser = make([p])
    for g in gradients:
        p.grad = fc.Tensor(g.astype(dtype))
        optimiser.step()
    assert p.version == len(gradients)
    return p.data


def sgd(lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    w, v = W0.copy(), np.zeros(3)
    for g in (G1, G2):
        g = g + weight_decay * w
        v = momentum * v + g
        w = w - lr * (g + momentum * v if nesterov else v)
    return w


def adam(lr, betas, eps, weight_decay, decoupled):
    w, m, v = W0.copy(), np.zeros(3), np.zeros(3)
    for step, g in enumerate((G1, G2), 1):
        if decoupled:
            w = w - lr * weight_decay * w
        else:
            g = g + weight_decay * w
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        w = w - lr * (m / (1 - betas[0] ** step)) / (np.sqrt(v / (1 - betas[1] ** step)) + eps)
    return w


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize(
    "words",
    [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9},
        {"lr": 0.1, "weight_decay": 0.01},
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True},
    ],
)
def test_sgd(words, dtype, rtol, contiguous):
    found = run(lambda p: optim.SGD(p, **words), dtype, contiguous)
    np.testing.assert_allclose(found, sgd(**words), rtol=rtol)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("cls", [optim.Adam, optim.AdamW])
def test_adam(cls, decay, dtype, rtol, contiguous):
    found = run(lambda p: cls(p, 0.05, (0.8, 0.95), 1e-6, decay), dtype, contiguous)
    np.testing.assert_allclose(found, adam(0.05, (0.8, 0.95), 1e-6, decay, cls is optim.AdamW), rtol=rtol)


def test_first_adam_step_is_lr_in_every_direction():
    found = run(lambda p: optim.Adam(p, lr=0.01), gradients=(G1,))
    np.testing.assert_allclose(found, W0 - 0.01 * np.sign(G1), rtol=1e-6)


def test_frozen_and_untouched_parameters_keep_their_bits():
    frozen, idle, live = (fc.Tensor(W0.copy(), requires_grad=True) for _ in range(3))
    optimiser = optim.SGD([frozen, idle, live], lr=0.1, momentum=0.9, weight_decay=0.1)
    for p in (frozen, live):
        p.grad = fc.Tensor(G1)
    frozen.requires_grad = False
    optimiser.step()
    np.testing.assert_array_equal(frozen.data, W0)
    np.testing.assert_array_equal(idle.data, W0)
    assert frozen.version == idle.version == 0 and (live.data != W0).all()


def test_groups_have_their_own_options():
    a, b = (fc.Tensor(W0.copy(), requires_grad=True) for _ in range(2))
    optimiser = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.1)
    for p in (a, b):
        p.grad = fc.Tensor(G1)
    optimiser.step()
    np.testing.assert_allclose(a.data, W0 - 0.1 * G1)
    np.testing.assert_allclose(b.data, W0 - G1)
    optimiser.zero_grad()
    assert a.grad is None and b.grad is None


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.1, 0.9), lambda p: optim.AdamW(p, 0.1)])
def test_state_continues_to_the_same_bits(make):
    straight = run(make, gradients=(G1, G2, G1))
    p = fc.Tensor(W0.copy(), requires_grad=True)
    first = make([p])
    for g in (G1, G2):
        p.grad = fc.Tensor(g)
        first.step()
    saved = first.state_dict()
    first.step()  # must not reach into what was saved
    q = fc.Tensor(run(make), requires_grad=True)
    second = make([q])
    second.param_groups[0]["lr"] = 5.0
    second.load_state_dict(saved)
    q.grad = fc.Tensor(G1)
    second.step()
    np.testing.assert_array_equal(q.data, straight)


def test_refusals():
    p = fc.Tensor(W0.copy(), requires_grad=True)
    for call, sentence in (
        (lambda: optim.SGD([], 0.1), "SGD: there are no parameters"),
        (lambda: optim.SGD([p], -1), "SGD: lr is -1; expected at least 0"),
        (lambda: optim.SGD([p, p], 0.1), "is in the groups twice"),
        (lambda: optim.SGD([p], 0.1, nesterov=True), "nesterov=True with momentum=0"),
        (lambda: optim.Adam([p], betas=(0.9, 1.0)), r"betas\[1\] is 1.0; expected at least 0 and below 1"),
        (lambda: optim.Adam([{"params": [p], "rate": 1}]), "a group has the keys"),
    ):
        with pytest.raises(fc.ProblemError, match=sentence):
            call()
    with pytest.raises(TypeError, match="expected leaf tensors"):
        optim.SGD([p * 2.0], 0.1)
    two = optim.SGD([p, fc.Tensor(W0.copy(), requires_grad=True)], 0.1)
    with pytest.raises(ValueError, match=r"groups of \[1\] parameters; expected \[2\]"):
        two.load_state_dict(optim.SGD([p], 0.1).state_dict())


def test_a_step_between_forward_and_backward_is_noticed():
    w = fc.nn.Parameter(np.ones((2, 2), np.float32))
    x = fc.Tensor(np.ones((3, 2), np.float32), requires_grad=True)
    loss = fc.nn.functional.linear(x, w).sum()
    optimiser = optim.SGD([w], 0.1)
    w.grad = fc.Tensor(np.ones((2, 2), np.float32))
    optimiser.step()
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()
