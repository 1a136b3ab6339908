# SPDX-License-Identifier: Apache-2.0
"""Layers: shapes, names, state, modes, initial values and messages."""

import math

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn, ops

RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def small_net():
    fc.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(4 * 4 * 4, 10),
    )


KEYS = [
    "0.weight",
    "1.weight",
    "1.bias",
    "1.running_mean",
    "1.running_var",
    "1.num_batches_tracked",
    "6.weight",
    "6.bias",
]
LAYERS = [
    (lambda: nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9), (2, 6, 7)),
    (lambda: nn.Conv2d(4, 6, (3, 1), stride=2, padding="same"), (2, 4, 9, 8), (2, 6, 5, 4)),
    (lambda: nn.Conv3d(2, 3, 2, padding=1, dilation=2), (2, 2, 4, 5, 6), (2, 3, 4, 5, 6)),
    (lambda: nn.MaxPool1d(3, 2), (2, 4, 9), (2, 4, 4)),
    (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 4, 8, 9), (2, 4, 5, 5)),
    (lambda: nn.MaxPool3d(2), (1, 2, 4, 4, 4), (1, 2, 2, 2, 2)),
    (lambda: nn.AvgPool1d(3), (2, 4, 9), (2, 4, 3)),
    (lambda: nn.AvgPool2d(2, 1, count_include_pad=False), (2, 4, 8, 9), (2, 4, 7, 8)),
    (lambda: nn.AvgPool3d((1, 2, 2)), (1, 2, 4, 4, 4), (1, 2, 4, 2, 2)),
    (lambda: nn.Linear(5, 3), (2, 7, 5), (2, 7, 3)),
    (lambda: nn.BatchNorm1d(5), (4, 5), (4, 5)),
    (lambda: nn.BatchNorm3d(2), (2, 2, 3, 3, 3), (2, 2, 3, 3, 3)),
    (lambda: nn.Flatten(), (2, 3, 4), (2, 12)),
    (lambda: nn.Identity(), (2, 3), (2, 3)),
    (lambda: nn.LeakyReLU(0.2), (2, 3), (2, 3)),
    (lambda: nn.Softmax(1), (2, 3, 4), (2, 3, 4)),
]


@pytest.mark.parametrize(("make", "x_shape", "y_shape"), LAYERS)
def test_layers_give_their_shape_and_train(make, x_shape, y_shape):
    layer, x = make(), fc.Tensor(normal(*x_shape), requires_grad=True)
    y = layer(x)
    assert y.shape == y_shape and y.dtype == np.float32
    (y * fc.Tensor(normal(*y_shape))).sum().backward()
    assert x.grad.shape == x_shape
    for name, p in layer.named_parameters():
        assert p.grad is not None and p.grad.shape == p.shape, name
    assert type(layer).__name__ in repr(layer)


def test_a_plain_array_goes_in():
    assert isinstance(small_net()(normal(2, 1, 8, 8)), fc.Tensor)


def test_state_dict_has_pytorchs_keys_and_round_trips():
    model = small_net()
    model(normal(4, 1, 8, 8))
    state = model.state_dict()
    assert list(state) == KEYS
    assert state["1.num_batches_tracked"] == 1
    other = small_net()
    for p in other.parameters():
        p.data += 1
    assert other.load_state_dict(state) == ([], [])
    x = normal(3, 1, 8, 8)
    np.testing.assert_array_equal(model.eval()(x).data, other.eval()(x).data)


def test_state_dict_is_a_copy():
    model = nn.Linear(2, 2)
    state = model.state_dict()
    model.weight.data += 1
    assert (state["weight"] != model.weight.data).all()


def test_load_state_dict_lists_everything_at_once():
    model = small_net()
    state = model.state_dict()
    del state["1.bias"]
    state["7.weight"] = np.zeros(3)
    state["6.weight"] = np.zeros((10, 3), np.float32)
    before = model.state_dict()
    with pytest.raises(ValueError) as caught:
        model.load_state_dict(state)
    text = str(caught.value)
    assert "missing: 1.bias" in text and "unexpected: 7.weight" in text
    assert "6.weight has shape (10, 3), expected (10, 64)" in text
    assert all((before[k] == v).all() for k, v in model.state_dict().items())
    state["6.weight"] = before["6.weight"] * 2
    assert model.load_state_dict(state, strict=False) == (["1.bias"], ["7.weight"])
    np.testing.assert_array_equal(model[6].weight.data, before["6.weight"] * 2)


def test_loading_spoils_a_recorded_graph():
    model = nn.Linear(2, 1)
    x = fc.Tensor(normal(3, 2), requires_grad=True)
    loss = model(x).sum()
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_modes_freezing_and_zero_grad():
    model = small_net()
    assert all(not m.training for m in model.eval().modules())
    assert all(m.training for m in model.train().modules())
    model.requires_grad_(False)
    assert not model.eval()(normal(1, 1, 8, 8)).requires_grad
    model.requires_grad_()
    model(normal(2, 1, 8, 8)).sum().backward()
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_named_parts():
    model = small_net()
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "1.weight", "1.bias", "6.weight", "6.bias"]
    assert [n for n, _ in model.named_buffers()] == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]
    assert [n for n, _ in model.named_children()] == list("0123456")
    seen = []
    model.apply(lambda m: seen.append(type(m).__name__))
    assert seen[-1] == "Sequential" and len(seen) == 8
    assert "(0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False)" in repr(model)


def test_a_shared_parameter_is_one_parameter_under_two_names():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x))

    model = Tied()
    assert len(list(model.parameters())) == 3
    assert {"first.weight", "second.weight"} <= set(model.state_dict())
    model.second.bias = None
    assert "second.bias" not in model.state_dict()
    assert model(normal(1, 2)).shape == (1, 2)


def test_module_refuses_misuse():
    class Early(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(1, 1)

    with pytest.raises(RuntimeError, match=r"super\(\).__init__\(\)"):
        Early()
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="weight is a ndarray; expected a Parameter"):
        model.weight = np.zeros((2, 2))
    with pytest.raises(AttributeError, match="Linear has no attribute 'wieght'"):
        _ = model.wieght
    with pytest.raises(NotImplementedError, match="Module does not define forward"):
        nn.Module()(1)
    with pytest.raises(TypeError, match="1 is a int; expected a Module"):
        nn.Sequential(nn.ReLU(), 3)
    with pytest.raises(fc.ProblemError, match="groups=2 does not divide"):
        nn.Conv2d(3, 4, 3, groups=2)
    with pytest.raises(fc.ProblemError, match="expected 4 dimensions with 3 channels"):
        nn.BatchNorm2d(3)(normal(2, 4, 5, 5))
    with pytest.raises(fc.ProblemError, match="more than one value per channel"):
        nn.BatchNorm1d(3)(normal(1, 3))


def test_module_list_and_slices():
    layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))
    assert len(layers) == 3 and list(layers.state_dict())[2] == "1.weight"
    model = small_net()
    assert [type(m).__name__ for m in model[:3]] == ["Conv2d", "BatchNorm2d", "ReLU"]
    assert isinstance(model[-1], nn.Linear)


def test_to_converts_parameters_and_statistics():
    model = small_net().to(np.float64)
    state = model.state_dict()
    assert all(v.dtype == np.float64 for k, v in state.items() if k != "1.num_batches_tracked")
    assert state["1.num_batches_tracked"].dtype == np.int64
    assert model(normal(2, 1, 8, 8).astype(np.float64)).dtype == np.float64


def test_batch_norm_statistics_follow_their_definition():
    layer, x = nn.BatchNorm2d(3, momentum=0.2), normal(4, 3, 5, 5) * 3 + 1
    y = layer(x).data
    np.testing.assert_allclose(y.mean((0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 2, 3)), 1, atol=1e-3)
    np.testing.assert_allclose(layer.running_mean, 0.2 * x.mean((0, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var, 0.8 + 0.2 * x.var((0, 2, 3), ddof=1), rtol=1e-4)
    layer.eval()
    kept = layer.running_mean.copy()
    expected = (x - kept[:, None, None]) / np.sqrt(layer.running_var + 1e-5)[:, None, None]
    np.testing.assert_allclose(layer(x).data, expected, atol=1e-5)
    np.testing.assert_array_equal(layer.running_mean, kept)


def test_dropout_keeps_the_mean_and_rests_in_eval():
    fc.manual_seed(4)
    layer, x = nn.Dropout(0.3), np.ones((200, 200), np.float32)
    y = layer(x).data
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.7)}
    assert abs(y.mean() - 1) < 0.01
    np.testing.assert_array_equal(layer.eval()(x).data, x)
    with pytest.raises(fc.ProblemError, match=r"p is 1\.5"):
        ops.dropout(x, 1.5)


def test_default_initialisation_is_within_one_over_root_fan_in():
    fc.manual_seed(0)
    for layer, fan_in in ((nn.Conv2d(8, 64, 3, groups=2), 4 * 9), (nn.Linear(50, 400), 50)):
        bound = 1 / math.sqrt(fan_in)
        for p in (layer.weight, layer.bias):
            assert np.abs(p.data).max() <= bound
            assert np.abs(p.data).max() > 0.9 * bound
    fc.manual_seed(0)
    first = nn.Linear(3, 3).weight.data
    fc.manual_seed(0)
    np.testing.assert_array_equal(nn.Linear(3, 3).weight.data, first)


@pytest.mark.parametrize(
    ("initialise", "std"),
    [
        (nn.init.kaiming_normal, math.sqrt(2 / (32 * 9))),
        (lambda w: nn.init.kaiming_uniform(w, mode="fan_out", nonlinearity="relu"), math.sqrt(2 / (64 * 9))),
        (nn.init.xavier_normal, math.sqrt(2 / (96 * 9))),
        (lambda w: nn.init.xavier_uniform(w, gain=2.0), 2 * math.sqrt(2 / (96 * 9))),
        (lambda w: nn.init.normal(w, 0.0, 0.3), 0.3),
        (lambda w: nn.init.uniform(w, -1, 1), 1 / math.sqrt(3)),
    ],
)
def test_initialisers_have_their_spread(initialise, std):
    fc.manual_seed(8)
    w = nn.Parameter(np.empty((64, 32, 3, 3), np.float32))
    assert initialise(w) is w
    assert abs(w.data.std() / std - 1) < 0.02 and abs(w.data.mean()) < 0.03 * std
    assert w.version == 1


def test_constant_initialisers():
    w = nn.Parameter(np.empty((2, 2), np.float32))
    assert (nn.init.ones(w).data == 1).all() and (nn.init.zeros(w).data == 0).all()
    assert (nn.init.constant(w, 3).data == 3).all()
    with pytest.raises(fc.ProblemError, match="expected"):
        nn.init.kaiming_normal(nn.Parameter(np.empty(3, np.float32)))


def test_cross_entropy_values_and_messages():
    logits, labels = normal(4, 3), np.array([0, 2, 1, 1], np.uint8)
    p = np.exp(logits.astype(np.float64))
    expected = -np.log((p / p.sum(1, keepdims=True))[np.arange(4), labels])
    for reduction, value in (("mean", expected.mean()), ("sum", expected.sum()), ("none", expected)):
        np.testing.assert_allclose(nn.CrossEntropyLoss(reduction=reduction)(logits, labels).data, value, rtol=1e-5)
    huge = nn.CrossEntropyLoss()(np.array([[1e4, -1e4]], np.float32), np.array([0]))
    assert huge.item() == 0
    for labels, error, sentence in (
        (np.array([0, 3, 1, 1]), fc.ProblemError, "labels go from 0 to 3; expected 0 to 2 for 3 classes"),
        (np.array([0.0, 1, 1, 1]), TypeError, "labels have dtype float64; expected integers"),
        (np.array([0, 1]), fc.ProblemError, r"labels \(2,\); expected"),
    ):
        with pytest.raises(error, match=sentence):
            nn.CrossEntropyLoss()(logits, labels)
    with pytest.raises(fc.ProblemError, match="reduction is 'max'"):
        nn.functional.cross_entropy(logits, np.zeros(4, int), reduction="max")


def test_a_small_net_learns_one_batch():
    model, seed = small_net(), 9
    rng = np.random.default_rng(seed)
    x, labels = rng.standard_normal((16, 1, 8, 8)).astype(np.float32), rng.integers(0, 10, 16)
    optimiser, criterion = fc.optim.Adam(model.parameters(), lr=0.02), nn.CrossEntropyLoss()
    losses = []
    for _ in range(40):
        loss = criterion(model(x), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] > 2 and losses[-1] < 0.3, f"seed {seed}: {losses[0]} -> {losses[-1]}"
