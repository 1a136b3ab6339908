# SPDX-License-Identifier: Apache-2.0
"""Models made convolutional: equal to the loop that cuts out every window and asks the original."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import rng_for
from fastconv import nn
from tolerance import assert_close


def every_window(model, x, window, step):
    """The model's answers (N, K, *places) to all windows of x, one call each."""
    places = [range(0, n - w + 1, step) for n, w in zip(x.shape[2:], window, strict=True)]
    answers = [
        model(x[(slice(None), slice(None), *(slice(a, a + w) for a, w in zip(at, window, strict=True)))].copy()).data
        for at in itertools.product(*places)
    ]
    return np.stack(answers, axis=-1).reshape(*answers[0].shape, *map(len, places))


def cells_seen(layers, size):
    """The receptive field of `size` cells of the last map: no cell of such a window is left over."""
    for layer in reversed(layers):
        if hasattr(layer, "kernel_size"):
            filter, stride = (v if isinstance(v, int) else v[0] for v in (layer.kernel_size, layer.stride))
            size = (size - 1) * stride + filter
    return size


def lenet():
    return fc.models.lenet5()


def strided():
    """Strides 2 * 1 * 2 * 1; batch norm on maps and on features, dropout, nested parts, softmax."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, groups=1),
        nn.BatchNorm2d(4),
        nn.LeakyReLU(0.1),
        nn.Sequential(nn.Conv2d(4, 6, (2, 3), dilation=(2, 1)), nn.ELU(), nn.MaxPool2d(3, 2)),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(6 * 2 * 2, 7),
        nn.BatchNorm1d(7),
        nn.ReLU(),
        nn.Linear(7, 5, bias=False),
        nn.Softmax(),
    )


def signal():
    return nn.Sequential(nn.Conv1d(2, 3, 4), nn.Tanh(), nn.AvgPool1d(2), nn.Flatten(), nn.Linear(3 * 4, 2))


def volume():
    return nn.Sequential(
        nn.Conv3d(1, 2, 2), nn.GELU(), nn.MaxPool3d(2), nn.Flatten(), nn.Linear(2 * 8, 3), nn.Sigmoid()
    )


def averaged():
    """Global pooling becomes a pool of the size of the map."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Flatten(), nn.Linear(4, 3))


MODELS = [
    (lenet, (1, 32, 32), (1, 44, 49), 4),
    (strided, (3, 15, 15), (3, 27, 31), 4),
    (signal, (2, 11), (2, 24), 2),
    (volume, (1, 5, 5, 5), (1, 8, 9, 7), 2),
    (averaged, (1, 9, 9), (1, 15, 14), 2),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("make", "shape", "larger", "step"), MODELS, ids=lambda v: getattr(v, "__name__", ""))
def test_equals_the_loop_over_windows(make, shape, larger, step, dtype):
    fc.manual_seed(1)
    model = make().to(dtype)
    rng = rng_for(make.__name__)
    for module in model.modules():  # running statistics and gains that do something
        if hasattr(module, "running_mean"):
            module.running_mean[...] = rng.standard_normal(module.running_mean.shape)
            module.running_var[...] = rng.uniform(0.5, 2, module.running_var.shape)
            module.weight.data[...] = rng.uniform(0.5, 2, module.weight.shape)
    model.eval()
    converted = nn.to_convolutional(model, shape)
    assert not converted.training
    x = rng.standard_normal((2, *larger)).astype(dtype)
    expected = every_window(model, x, shape[1:], step)
    assert_close(converted(x).data, expected, "model", what=make.__name__)
    # On one window: the answer itself, at one place.
    one = x[(slice(None), slice(None), *(slice(n) for n in shape[1:]))].copy()
    assert converted(one).shape == (2, expected.shape[1], *(1,) * (len(shape) - 1))


@given(st.data())
def test_any_net(data):
    """Random ranks, layers, filters and strides."""
    rank = data.draw(st.integers(1, 2), label="rank")
    layers, size, step, channels = [], data.draw(st.integers(6, 13), label="size"), 1, 2
    for number in range(data.draw(st.integers(1, 3), label="layers")):
        kind = data.draw(st.sampled_from(["Conv", "MaxPool", "AvgPool"]), label="kind")
        filter, stride = data.draw(st.integers(1, 3), label="filter"), data.draw(st.integers(1, 2), label="stride")
        if filter > size:
            break
        make = getattr(nn, f"{kind}{rank}d")
        layers.append(make(channels, 3, filter, stride) if kind == "Conv" else make(filter, stride))
        channels = 3 if kind == "Conv" else channels
        size, step = (size - filter) // stride + 1, step * stride
        layers.append([nn.Tanh(), nn.PReLU(), nn.Mish()][number % 3])
    side = data.draw(st.integers(0, 7), label="larger")
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * size**rank, 4), nn.LogSoftmax(1)).to(np.float64)
    cells = cells_seen(layers, size)
    x = rng_for("any net").standard_normal((2, 2, *(cells + side,) * rank))
    found = nn.to_convolutional(model, (2, *(cells,) * rank))(x).data
    expected = every_window(model, x, (cells,) * rank, step)
    assert_close(found, expected, "model")


def test_is_a_copy_with_the_same_names():
    fc.manual_seed(3)
    model = strided()
    model[6].weight.requires_grad = False
    state = fc.random.get_state()
    converted = nn.to_convolutional(model, (3, 15, 15))
    assert fc.random.get_state() == state and model.training and converted.training
    ours, theirs = converted.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name].reshape(value.shape), value)
    assert not converted[6].weight.requires_grad and converted[6].bias.requires_grad
    before = model.state_dict()
    converted(rng_for("train").standard_normal((2, 3, 19, 23)).astype(np.float32)).sum().backward()
    assert converted[0].weight.grad is not None and converted[6].weight.grad is None
    for p in converted.parameters():
        p.data += 1
    after = model.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_cells_that_no_layer_looks_at_give_another_place():
    """A window of 6 of which only 5 are seen: places begin every 2 cells as long as 5 remain."""
    model = nn.Sequential(nn.Conv1d(1, 1, 2), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(2, 1))
    converted = nn.to_convolutional(model, (1, 6))
    x = rng_for("cells").standard_normal((1, 1, 9)).astype(np.float32)
    y = converted(x).data
    assert y.shape == (1, 1, 3)
    assert_close(y[..., :2], every_window(model, x, (6,), 2), "model")
    assert_close(y[..., 2], model(np.concatenate([x[..., 4:], x[..., :1]], -1)).data, "model")


def test_padding_only_when_asked_for():
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    with pytest.raises(fc.ProblemError, match=r"to_convolutional: 0 has padding=\(1, 1\): a window cut out"):
        nn.to_convolutional(model, (1, 8, 8))
    converted = nn.to_convolutional(model, (1, 8, 8), exact=False)
    x = rng_for("padding").standard_normal((1, 1, 8, 8)).astype(np.float32)
    assert_close(converted(x).data[..., 0, 0], model(x).data, "model")
    assert converted(np.zeros((1, 1, 12, 16), np.float32)).shape == (1, 3, 3, 5)
    ceil = nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Flatten(), nn.Linear(9, 1))
    with pytest.raises(fc.ProblemError, match="0 has ceil_mode=True"):
        nn.to_convolutional(ceil, (1, 5, 5))


@pytest.mark.parametrize(
    ("layers", "shape", "error", "message"),
    [
        ([nn.Linear(4, 2)], (1, 2, 4), fc.UnsupportedError, r"cannot convert 0 = Linear\(.*\) behind the input"),
        (
            [nn.Flatten(), nn.MaxPool2d(2)],
            (1, 4, 4),
            fc.UnsupportedError,
            "cannot convert 1 = MaxPool2d.* behind Flatten",
        ),
        ([nn.Flatten(), nn.BatchNorm1d(4)], (1, 2, 2), fc.UnsupportedError, "cannot convert 1 = BatchNorm1d"),
        ([nn.Flatten(2), nn.Linear(4, 2)], (1, 2, 2), fc.UnsupportedError, "cannot convert 0 = Flatten"),
        ([nn.Softmax()], (1, 2, 2), fc.UnsupportedError, "cannot convert 0 = Softmax"),
        ([nn.Conv1d(1, 1, 2)], (1, 4, 4), fc.UnsupportedError, "for 2 spatial axes"),
        ([nn.AdaptiveAvgPool2d(2)], (1, 4, 4), fc.UnsupportedError, "cannot convert 0 = AdaptiveAvgPool2d"),
        ([nn.MaxPool2d(2, return_indices=True)], (1, 4, 4), fc.UnsupportedError, "0 returns indices"),
        ([nn.Sequential(nn.ModuleList())], (1, 4, 4), fc.UnsupportedError, "cannot convert 0.0 = ModuleList"),
        ([nn.Flatten()], (1, 4, 4), fc.UnsupportedError, "no dense layer follows Flatten"),
        ([nn.Flatten(), nn.Linear(9, 2)], (1, 4, 4), fc.ProblemError, "takes 9 features, the map before has shape"),
        ([nn.Flatten(), nn.Linear(4, 2)], (4,), fc.ProblemError, "input_shape is"),
    ],
)
def test_refusals(layers, shape, error, message):
    with pytest.raises(error, match=message):
        nn.to_convolutional(nn.Sequential(*layers), shape)
    with pytest.raises(TypeError, match="model is a Conv2d; expected a Sequential"):
        nn.to_convolutional(nn.Conv2d(1, 1, 1), (1, 1, 1))
