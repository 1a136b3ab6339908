# SPDX-License-Identifier: Apache-2.0
"""The same pooling as PyTorch, in every option that PyTorch has, one to three axes: forward, indices and gradients.

Where fastconv means something else on purpose, the test says what: Lp pooling in ceil mode, its root of negative sums,
the gradient of a sum that is 0, and the first of several NaNs. Needs the `parity` extra.
"""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import rng_for
from tolerance import assert_close, assert_exact

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
functional = torch.nn.functional

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])
SIZES = {1: (11,), 2: (9, 8), 3: (6, 5, 7)}
TIERS = (np.float32, np.float64)


def images(rank, what):
    """Both dtypes; values without ties."""
    rng = rng_for(f"{what} {rank}")
    shape = (2, 3, *SIZES[rank])
    for dtype in TIERS:
        yield (rng.permutation(int(np.prod(shape))).reshape(shape) * 0.01 - 1).astype(dtype)


def options(rank, *axes):
    """All combinations; a tuple as the first window or stride, too."""
    mixed = ((3, 2, 2)[:rank], (2, 1, 3)[:rank]) if rank > 1 else (4, 3)  # lp_pool1d takes no tuples
    for window, stride, padding, ceil_mode in itertools.product((2, 3, mixed[0]), (None, 1, mixed[1]), (0, 1), (0, 1)):
        for rest in itertools.product(*axes):
            yield window, stride, padding, bool(ceil_mode), *rest


def both(rank, name, x, theirs, ours):
    """(y of PyTorch, y, dx of PyTorch, dx) and the further results of both."""
    t = torch.tensor(x, requires_grad=True)
    expected = getattr(functional, f"{name}{rank}d")(t, **theirs)
    leaf = fc.Tensor(x, requires_grad=True)
    y = getattr(fc, f"{name}{rank}d")(leaf, **ours)
    first, more = (expected[0], expected[1]) if isinstance(expected, tuple) else (expected, None)
    mine, indices = y if isinstance(y, tuple) else (y, None)
    dy = rng_for("dy").standard_normal(mine.shape).astype(x.dtype)
    first.backward(torch.tensor(dy))
    mine.backward(fc.Tensor(dy))
    return (first.detach().numpy(), mine.data, t.grad.numpy(), leaf.grad.data), more, indices


@RANKS
def test_max_pooling(rank):
    for window, stride, padding, ceil_mode, dilation in options(rank, (1, 2)):
        words = {"kernel_size": window, "stride": stride, "padding": padding, "dilation": dilation,
                 "ceil_mode": ceil_mode, "return_indices": True}  # fmt: skip
        for x in images(rank, "max"):
            (expected, y, dx_expected, dx), places, at = both(rank, "max_pool", x, words, words)
            assert_exact(y, expected, str(words))
            assert_exact(at.data, places.numpy(), str(words))
            assert_close(dx, dx_expected, "parity", what=str(words))
            # A minimum is the maximum of -x.
            low, low_at = getattr(fc, f"min_pool{rank}d")(-x, **words)
            assert_exact(low, -expected, str(words))
            assert_exact(low_at, places.numpy(), str(words))


@RANKS
def test_average_pooling(rank):
    for window, stride, padding, ceil_mode, include, divisor in options(rank, (True, False), (None, 5)):
        words = {"kernel_size": window, "stride": stride, "padding": padding, "ceil_mode": ceil_mode,
                 "count_include_pad": include}  # fmt: skip
        if divisor is not None and rank > 1:
            words["divisor_override"] = divisor
        for x in images(rank, "avg"):
            (expected, y, dx_expected, dx), _, _ = both(rank, "avg_pool", x, words, words)
            assert_close(y, expected, "parity", what=str(words))
            assert_close(dx, dx_expected, "parity", what=str(words))


def taps_inside(x, rank, window, stride):
    """How many taps each window of ceil mode has inside of x."""
    ones = np.ones((1, 1, *x.shape[2:]))
    return getattr(fc, f"avg_pool{rank}d")(ones, window, stride, ceil_mode=True, divisor_override=1)


@RANKS
@pytest.mark.parametrize("p", [1, 2, 3, 4, 1.5])
def test_lp_pooling(rank, p):
    for window, stride, padding, ceil_mode in options(rank):
        if padding:
            continue  # PyTorch's has none
        words = {"norm_type": p, "kernel_size": window, "stride": stride, "ceil_mode": ceil_mode}
        for x in images(rank, "lp"):
            x = x + 1.01 if p not in (1, 2, 4) else x  # PyTorch has NaN for roots and powers of negative numbers
            (expected, y, dx_expected, dx), _, _ = both(rank, "lp_pool", x, words, words)
            if ceil_mode:  # PyTorch scales a window that sticks out up to a whole one
                inside = taps_inside(x, rank, window, stride)
                whole = np.prod([window] * rank if isinstance(window, int) else window)
                expected = expected * (inside / whole) ** (1 / p)
                dx_expected = dx
            tier = "norm" if x.dtype == np.float64 or p == 2 else "parity"
            assert_close(y, expected.astype(x.dtype), tier, what=str(words))
            assert_close(dx, dx_expected, "parity", what=str(words))


@RANKS
def test_lp_pooling_where_pytorch_has_nan(rank):
    x = -np.abs(next(images(rank, "negative"))) - 1
    theirs = getattr(functional, f"lp_pool{rank}d")(torch.tensor(x), 3, 2).numpy()
    assert np.isnan(theirs).all()
    assert_close(getattr(fc, f"lp_pool{rank}d")(x, 3, 2), -getattr(fc, f"lp_pool{rank}d")(-x, 3, 2), "norm")
    largest = getattr(fc, f"lp_pool{rank}d")(x, np.inf, 2)
    assert_exact(largest, getattr(functional, f"lp_pool{rank}d")(torch.tensor(x), float("inf"), 2).numpy())
    # The sum of 1 and -1: its slope is 1. PyTorch has 0 there.
    pair, leaf = torch.tensor([[[1.0, -1.0]]], requires_grad=True), fc.Tensor(np.array([[[1.0, -1.0]]]), True)
    functional.lp_pool1d(pair, 1, 2).sum().backward()
    fc.lp_pool1d(leaf, 1, 2).sum().backward()
    assert pair.grad.tolist() == [[[0, 0]]] and leaf.grad.data.tolist() == [[[1, 1]]]


@RANKS
def test_adaptive_pooling(rank):
    for output in (1, 3, 13, (4, 2, 3)[:rank], (None, 5, None)[:rank]):
        if rank == 1:
            output = output[0] or 11 if isinstance(output, tuple) else output
        for x in images(rank, "adaptive"):
            words = {"output_size": output}
            (expected, y, dx_expected, dx), _, _ = both(rank, "adaptive_avg_pool", x, words, words)
            assert_close(y, expected, "parity", what=str(words))
            assert_close(dx, dx_expected, "parity", what=str(words))
            words["return_indices"] = True
            (expected, y, dx_expected, dx), places, at = both(rank, "adaptive_max_pool", x, words, words)
            assert_exact(y, expected, str(words))
            assert_exact(at.data, places.numpy(), str(words))
            assert_close(dx, dx_expected, "parity", what=str(words))


@RANKS
def test_unpooling(rank):
    """Windows that do not overlap: PyTorch leaves the others open."""
    size = SIZES[rank]
    for x, (window, stride, padding) in itertools.product(images(rank, "unpool"), ((2, None, 0), (2, 3, 0), (3, 3, 1))):
        pool = {"kernel_size": window, "stride": stride, "padding": padding}
        y, at = getattr(functional, f"max_pool{rank}d")(torch.tensor(x), return_indices=True, **pool)
        words = {**pool, "output_size": size}
        (expected, got, dx_expected, dx), _, _ = both(
            rank, "max_unpool", y.numpy(), {"indices": at, **words}, {"indices": at.numpy(), **words}
        )
        assert_exact(got, expected, str(words))
        assert_exact(dx, dx_expected, str(words))


def test_nan_and_infinity():
    """NaN and infinity go where PyTorch's go; of several NaNs ours names the first and PyTorch the last."""
    x = rng_for("nan").standard_normal((1, 2, 9, 9)).astype(np.float32)
    x[0, 0, 2, 3] = x[0, 0, 3, 3] = np.nan
    x[0, 1, 1, 1], x[0, 1, 5, 5] = np.inf, -np.inf
    t = torch.tensor(x)
    for name, words in (
        ("max_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1}),
        ("lp_pool2d", {"norm_type": 2, "kernel_size": 3, "stride": 2}),
        ("adaptive_avg_pool2d", {"output_size": 4}),
        ("adaptive_max_pool2d", {"output_size": 4}),
    ):
        expected, y = getattr(functional, name)(t, **words).numpy(), getattr(fc, name)(x, **words)
        assert np.array_equal(np.isnan(y), np.isnan(expected)) and np.array_equal(np.isinf(y), np.isinf(expected)), name
        assert np.array_equal(y[np.isinf(y)], expected[np.isinf(y)]), name
    _, places = functional.max_pool2d(t, 9, return_indices=True)
    _, at = fc.max_pool2d(x, 9, return_indices=True)
    assert (at[0, 0, 0, 0], places[0, 0, 0, 0]) == (2 * 9 + 3, 3 * 9 + 3)


@RANKS
def test_layers(rank):
    """The layers take PyTorch's arguments in PyTorch's order."""
    x = next(images(rank, "layers"))
    for name, args in (
        ("MaxPool", (3, 2, 1, 1, False, True)),
        ("AvgPool", (3, 2, 1, True, False)),
        ("LPPool", (2, 3, 2)),
        ("AdaptiveAvgPool", (3,)),
        ("AdaptiveMaxPool", (3,)),
    ):
        expected = getattr(torch.nn, f"{name}{rank}d")(*args)(torch.tensor(x)).numpy()
        assert_close(getattr(fc.nn, f"{name}{rank}d")(*args)(x).data, expected, "parity", what=name)
    y, at = getattr(fc.nn, f"MaxPool{rank}d")(2, return_indices=True)(x)
    got = getattr(fc.nn, f"MaxUnpool{rank}d")(2)(y, at, x.shape)
    unpool = getattr(torch.nn, f"MaxUnpool{rank}d")(2)
    assert_exact(got.data, unpool(torch.tensor(y.data), torch.tensor(at.data), x.shape).numpy())
