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


def sgd(lr, momentum=0.0, weight_decay=0.0, nesterov=False, dampening=0.0):
    w, v = W0.copy(), None
    for g in (G1, G2):
        g = g + weight_decay * w
        v = g if v is None else momentum * v + (1 - dampening) * g
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


def rmsprop(lr, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
    w, s, m, v = W0.copy(), np.zeros(3), np.zeros(3), np.zeros(3)
    for g in (G1, G2):
        g = g + weight_decay * w
        s = alpha * s + (1 - alpha) * g * g
        m = alpha * m + (1 - alpha) * g
        v = momentum * v + g / (np.sqrt(s - m * m if centered else s) + eps)
        w = w - lr * v
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
        {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "dampening": 0.25},
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


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_rmsprop(centered, momentum, dtype, rtol, contiguous):
    words = {"lr": 0.05, "alpha": 0.9, "eps": 1e-6, "weight_decay": 0.1, "momentum": momentum, "centered": centered}
    found = run(lambda p: optim.RMSprop(p, **words), dtype, contiguous)
    np.testing.assert_allclose(found, rmsprop(**words), rtol=rtol)


def test_centred_rmsprop_survives_a_gradient_that_never_changes():
    """The mean of squares less the square of the mean is then zero but for rounding, which may be negative."""
    p = fc.Tensor(np.zeros(64, np.float32), requires_grad=True)
    optimiser = optim.RMSprop([p], lr=1e-3, alpha=0.1, centered=True)
    for _ in range(50):
        p.grad = fc.Tensor(np.linspace(0.1, 3, 64, dtype=np.float32))
        optimiser.step()
    assert np.isfinite(p.data).all()


def test_first_steps_in_closed_form():
    """Where the state starts at zero, the first step needs no history: float64, to the last few bits."""
    for make, expected in (
        (lambda p: optim.SGD(p, 0.1), W0 - 0.1 * G1),
        (lambda p: optim.SGD(p, 0.1, 0.9, dampening=0.5), W0 - 0.1 * G1),
        (lambda p: optim.SGD(p, 0.1, 0.9, nesterov=True), W0 - 0.1 * 1.9 * G1),
        (lambda p: optim.SGD(p, 0.1, weight_decay=0.5), 0.95 * W0 - 0.1 * G1),
        (lambda p: optim.SGD(p, 0.1, maximize=True), W0 + 0.1 * G1),
        (lambda p: optim.SGD(p, 0.1, lr_factor=10), W0 - G1),
        (lambda p: optim.Adam(p, 0.1, eps=0), W0 - 0.1 * np.sign(G1)),
        (lambda p: optim.Adam(p, 0.1, eps=0, lr_factor=0.5, maximize=True), W0 + 0.05 * np.sign(G1)),
        (lambda p: optim.AdamW(p, 0.1, eps=0, weight_decay=0.5), 0.95 * W0 - 0.1 * np.sign(G1)),
        (lambda p: optim.RMSprop(p, 0.1, 0.75, eps=0), W0 - 0.2 * np.sign(G1)),
        (lambda p: optim.RMSprop(p, 0.1, 0.5, eps=0, centered=True), W0 - 0.2 * np.sign(G1)),
    ):
        np.testing.assert_allclose(run(make, gradients=(G1,)), expected, rtol=1e-14)


@pytest.mark.parametrize("contiguous", [True, False])
def test_amsgrad_never_divides_by_less(contiguous):
    """A large gradient and then small ones: the steps stay as small as the large one made them."""
    small = 0.1 * G1
    found = run(lambda p: optim.Adam(p, 0.1, (0.0, 0.5), 0.0, amsgrad=True), np.float64, contiguous, (G1, small, small))
    expected = W0 - 0.1 * np.sign(G1)
    for step in (2, 3):  # the largest v is that of the first step, 0.5 g^2
        expected = expected - 0.1 * small / (np.sqrt(0.5 * G1**2) / np.sqrt(1 - 0.5**step))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_first_adam_step_is_lr_in_every_direction():
    found = run(lambda p: optim.Adam(p, lr=0.01), gradients=(G1,))
    np.testing.assert_allclose(found, W0 - 0.01 * np.sign(G1), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: optim.Adam(p, lr=0.1, weight_decay=0.1),
        lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.1),
        lambda p: optim.RMSprop(p, lr=0.1, weight_decay=0.1, momentum=0.9, centered=True),
    ],
)
def test_frozen_and_untouched_parameters_keep_their_bits(make):
    frozen, later, idle, live = (fc.Tensor(W0.copy(), requires_grad=True) for _ in range(4))
    optimiser = make([frozen, later, idle, live])
    frozen.requires_grad = False
    for step in range(3):
        for p in (frozen, later, live):
            p.grad = fc.Tensor(G1)
        optimiser.step()
        if step == 0:  # frozen with a velocity that would move it, and decay
            moved, state = later.data.copy(), {k: np.copy(v) for k, v in optimiser.state[later].items()}
            later.requires_grad = False
    assert frozen.data.tobytes() == idle.data.tobytes() == W0.tobytes()
    assert later.data.tobytes() == moved.tobytes() and (moved != W0).all()
    assert all(np.array_equal(optimiser.state[later][k], v) for k, v in state.items())
    assert frozen.version == idle.version == 0 and later.version == 1 and live.version == 3
    assert frozen not in optimiser.state


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


def test_groups_by_name_and_their_factors():
    net = fc.nn.Sequential(fc.nn.Conv2d(1, 2, 3), fc.nn.Linear(4, 3), fc.nn.Linear(3, 2))
    rules = {"2": {"lr_factor": 10.0}, "2.bias": {"lr_factor": 20.0}, "bias": {"weight_decay": 0.0}}
    groups = optim.param_groups(net, rules)
    names = {id(p): name for name, p in net.named_parameters()}
    assert [[names[id(p)] for p in g["params"]] for g in groups] == [
        ["0.weight", "1.weight"],
        ["2.weight"],
        ["2.bias"],
        ["0.bias", "1.bias"],
    ]
    optimiser = optim.SGD(groups, lr=0.1, weight_decay=0.5)
    for group in optimiser.param_groups:
        group["lr"] = 0.01  # as a schedule does: the factors stay
    before = {name: p.data.copy() for name, p in net.named_parameters()}
    for p in net.parameters():
        p.grad = fc.Tensor(np.ones(p.shape, np.float32))
    optimiser.step()
    for name, factor, decay in (("0.weight", 1, 0.5), ("2.weight", 10, 0.5), ("2.bias", 20, 0.5), ("1.bias", 1, 0)):
        p, w = dict(net.named_parameters())[name], before[name]
        np.testing.assert_allclose(p.data, w - 0.01 * factor * (1 + decay * w), rtol=1e-5, err_msg=name)
    with pytest.raises(fc.ProblemError, match="fc stands for no parameter; the parameters are 0"):
        optim.param_groups(net, {"fc": {"lr_factor": 2.0}})


def test_clipping_the_norm():
    a, b, c = (fc.Tensor(np.zeros(n, np.float32), requires_grad=True) for n in (2, 3, 1))
    for norm_type, expected in ((2.0, 13.0), (1.0, 19.0), (np.inf, 12.0), (3.0, (27 + 64 + 1728) ** (1 / 3))):
        a.grad, b.grad = fc.Tensor(np.array([3, -4], np.float32)), fc.Tensor(np.array([0, 12, 0], np.float32))
        shared = a.grad.data
        assert optim.clip_grad_norm_([a, b, c], 100.0, norm_type) == pytest.approx(expected)
        assert a.grad.data is shared  # small enough: not touched
        assert optim.clip_grad_norm_([a, b, c], 1.0, norm_type) == pytest.approx(expected)
        np.testing.assert_allclose(a.grad.data, np.array([3, -4]) / (expected + 1e-6), rtol=1e-6)
        np.testing.assert_allclose(b.grad.data[1], 12 / (expected + 1e-6), rtol=1e-6)
        assert a.grad.dtype == np.float32 and c.grad is None
        np.testing.assert_array_equal(shared, [3, -4])  # replaced, not changed in place
    assert optim.clip_grad_norm_([c], 1.0) == 0
    a.grad = fc.Tensor(np.array([np.inf, 1], np.float32))
    with pytest.raises(FloatingPointError, match="the norm of the gradients is inf"):
        optim.clip_grad_norm_(a, 1.0, error_if_nonfinite=True)
    for call in (lambda: optim.clip_grad_norm_(a, -1), lambda: optim.clip_grad_norm_(a, 1, 0)):
        with pytest.raises(fc.ProblemError, match="expected at least 0 and above 0"):
            call()


def test_clipping_values():
    a, b = (fc.Tensor(np.zeros(3), requires_grad=True) for _ in range(2))
    a.grad = fc.Tensor(np.array([-3.0, 0.5, 7.0]))
    optim.clip_grad_value_([a, b], 1.0)
    np.testing.assert_array_equal(a.grad.data, [-1, 0.5, 1])
    assert b.grad is None
    with pytest.raises(fc.ProblemError, match="clip_value is -1"):
        optim.clip_grad_value_(a, -1)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.1, 0.9, dampening=0.5),
        lambda p: optim.AdamW(p, 0.1),
        lambda p: optim.Adam(p, 0.1, (0.5, 0.5), amsgrad=True),
        lambda p: optim.RMSprop(p, 0.1, momentum=0.9, centered=True),
    ],
)
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
        (lambda: optim.SGD([p], 0.1, 0.9, nesterov=True, dampening=0.1), "expected a momentum and no dampening"),
        (lambda: optim.SGD([p], 0.1, lr_factor=-2), "SGD: lr_factor is -2; expected at least 0"),
        (lambda: optim.RMSprop([p], alpha=1.5), "RMSprop: alpha is 1.5; expected 0 to 1"),
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
