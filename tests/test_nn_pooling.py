# SPDX-License-Identifier: Apache-2.0
"""The pooling layers: shapes, what they print, and that a network with them learns."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from tolerance import assert_exact

SIZES = {1: (12,), 2: (8, 9), 3: (4, 6, 5)}
# name, arguments, the function that it stands for and its arguments
LAYERS = [
    ("MaxPool", (3, 2, 1), "max_pool", (3, 2, 1)),
    ("MinPool", (2,), "min_pool", (2,)),
    ("AvgPool", (2, 2, 1, True, True, 3), "avg_pool", (2, 2, 1, True, True, 3)),
    ("LPPool", (3, 2, 1, True), "lp_pool", (3, 2, 1, True)),
    ("AdaptiveAvgPool", (3,), "adaptive_avg_pool", (3,)),
    ("AdaptiveMaxPool", (2,), "adaptive_max_pool", (2,)),
    ("GlobalAvgPool", (), "global_avg_pool", ()),
    ("GlobalMaxPool", (), "global_max_pool", ()),
    ("GlobalMinPool", (), "global_min_pool", ()),
    ("GlobalLPPool", (3,), "global_lp_pool", (3,)),
]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_layers_are_their_functions(rank):
    x = np.random.default_rng(rank).random((2, 3, *SIZES[rank]), np.float32)
    for name, args, function, arguments in LAYERS:
        layer = getattr(nn, f"{name}{rank}d")(*args)
        expected = getattr(fc, f"{function}{rank}d")(x, *arguments)
        assert_exact(layer(fc.Tensor(x)).data, expected, name)
        assert_exact(layer(x).data, getattr(nn.functional, f"{function}{rank}d")(x, *arguments), name)
        assert repr(layer).startswith(f"{name}{rank}d(") and not layer.state_dict()


def test_what_layers_print():
    assert repr(nn.MaxPool2d(3, 2)) == "MaxPool2d(kernel_size=3, stride=2, padding=0, dilation=1, ceil_mode=False)"
    assert repr(nn.LPPool1d(2, 3)) == "LPPool1d(norm_type=2, kernel_size=3, stride=3, ceil_mode=False)"
    assert repr(nn.AdaptiveAvgPool2d((None, 4))) == "AdaptiveAvgPool2d(output_size=(None, 4))"
    with pytest.raises(fc.ProblemError, match="MinPool2d: kernel_size is 0"):
        nn.MinPool2d(0)


def test_indices_and_unpooling():
    x = fc.Tensor(np.random.default_rng(0).standard_normal((1, 2, 7, 7)), requires_grad=True)
    y, at = nn.MaxPool2d(2, return_indices=True)(x)
    back = nn.MaxUnpool2d(2)(y, at, output_size=(7, 7))
    back.sum().backward()
    assert back.shape == x.shape and x.grad.data.sum() == y.size
    small, where = nn.AdaptiveMaxPool2d(3, return_indices=True)(x)
    assert small.shape == where.shape == (1, 2, 3, 3)


def test_an_auto_encoder_learns():
    """One step of descent through pooling, unpooling and a global norm lowers the loss."""
    fc.manual_seed(0)
    x = fc.Tensor(np.random.default_rng(1).standard_normal((4, 2, 8, 8)).astype(np.float32))
    conv, pool, unpool = nn.Conv2d(2, 2, 3, padding=1), nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    losses = []
    for _ in range(5):
        y, at = pool(conv(x))
        loss = (nn.GlobalLPPool2d(2)(unpool(y, at) - x)).mean()
        loss.backward()
        losses.append(float(loss))
        with fc.no_grad():
            for parameter in conv.parameters():
                parameter.data = parameter.data - 0.1 * parameter.grad.data
                parameter.grad = None
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]
