# SPDX-License-Identifier: Apache-2.0
"""First and second derivatives of every pooling against differences, and the gradients at their corners."""

import itertools

import numpy as np
import pytest

import fastconv as fc
from tolerance import assert_close, assert_exact

SIZES = {1: (7,), 2: (4, 5), 3: (3, 2, 4)}


def distinct(*shape, signs=True):
    """A leaf whose magnitudes differ by at least 0.1, so that no maximum is a tie and no norm is near 0."""
    rng = np.random.default_rng([11, *shape])
    values = (rng.permutation(int(np.prod(shape))).reshape(shape) + 3) * 0.1
    return fc.Tensor(values * np.where(rng.random(shape) < 0.2, -1, 1) if signs else values, requires_grad=True)


def windows(rank):
    """Arguments of a pooling: overlapping, dilated, padded on one side, ceil mode, a word, channels last."""
    return [
        {"kernel_size": 2},
        {"kernel_size": 3, "stride": 1, "padding": 2, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "padding": ((1, 0),) * rank, "ceil_mode": True},
        {"kernel_size": 2, "stride": 1, "padding": "same", "layout": "channels_last"},
    ]


def poolings(rank):
    """name -> function of a leaf."""
    named = {}
    for (i, words), kind in itertools.product(enumerate(windows(rank)), ("max", "min", "avg")):
        named[f"{kind} {i}"] = lambda x, k=kind, w=words: getattr(fc, f"{k}_pool{rank}d")(x, **w)
    avg = getattr(fc, f"avg_pool{rank}d")
    named["avg without padding"] = lambda x: avg(x, 2, 1, 1, count_include_pad=False)
    named["avg with a divisor"] = lambda x: avg(x, 2, 1, 1, divisor_override=3)
    for (i, words), (p, signed) in itertools.product(
        enumerate(windows(rank)), ((1, True), (1, False), (2, True), (3, True), (3, False), (2.5, True), (np.inf, True))
    ):
        if (i + int(10 * min(p, 4))) % 2 or p == 2:  # half of them, all of the usual norm
            named[f"lp {p} {signed} {i}"] = lambda x, p=p, s=signed, w=words: getattr(fc, f"lp_pool{rank}d")(
                x, p, signed=s, **w
            )
    for output in (1, 2, 5):
        named[f"adaptive avg {output}"] = lambda x, o=output: getattr(fc, f"adaptive_avg_pool{rank}d")(x, o)
        named[f"adaptive max {output}"] = lambda x, o=output: getattr(fc, f"adaptive_max_pool{rank}d")(x, o)
    for kind in ("avg", "max", "min", "lp"):
        named[f"global {kind}"] = lambda x, k=kind: getattr(fc, f"global_{k}_pool{rank}d")(x)

    def unpooled(x):
        pool, unpool = getattr(fc, f"max_pool{rank}d"), getattr(fc, f"max_unpool{rank}d")
        y, at = pool(x, 2, 1, return_indices=True)
        return unpool(y * y, at, 2, 1)

    named["unpool"] = unpooled
    return named


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_first_and_second_derivatives(rank):
    # Powers that keep their sign may cancel; the differences of a norm there mean nothing.
    for name, f in poolings(rank).items():
        x = distinct(1, 2, *SIZES[rank], signs="lp 3 True" not in name)
        try:
            assert fc.gradcheck(f, x)
            assert fc.gradgradcheck(lambda x, f=f: f(x) * f(x), x)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from None


def test_unpooling_gives_replaced_values_no_gradient():
    x = fc.Tensor(np.array([[[1.0, 2.0, 3.0]]]), requires_grad=True)
    y = fc.max_unpool1d(x, np.array([[[2, 2, 0]]]), 1, output_size=3)
    assert y.data.tolist() == [[[3.0, 0.0, 2.0]]]
    y.sum().backward()
    assert x.grad.data.tolist() == [[[0.0, 1.0, 1.0]]]
    assert fc.gradcheck(lambda x: fc.max_unpool1d(x * x, np.array([[[2, 2, 0]]]), 1, output_size=3), x)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 1.5, 2.5])
@pytest.mark.parametrize("signed", [True, False])
def test_the_gradient_of_a_norm_is_finite(p, signed):
    """Windows of zeros, sums that cancel, single zeros, tiny and huge values: also of the gradient's gradient."""
    values = np.array([0, 0, 0, 0, 1, -1, 2, 0, 1e-300, 1e-300, 1e300, 1e299, 1e-160, 0, 3, -3.0])
    for dtype, scale in ((np.float64, 1), (np.float32, 1e-1)):
        x = values.astype(np.float64)
        if dtype is np.float32:
            x = np.sign(x) * np.minimum(np.abs(x), 1e37) * scale
        x = x.astype(dtype).reshape(1, 1, 16)
        y = fc.lp_pool1d(x, p, 2, signed=signed)
        assert np.isfinite(y).all()
        dx = fc.lp_pool1d_backward(np.ones_like(y), x, y, p, 2, signed=signed)
        assert np.isfinite(dx).all()
        leaf, weights = fc.Tensor(x, requires_grad=True), fc.Tensor(np.linspace(1, 2, 8, dtype=dtype)[None, None])
        (g,) = fc.grad((fc.lp_pool1d(leaf, p, 2, signed=signed) * weights).sum(), leaf, create_graph=True)
        assert np.isfinite(g.data).all()
        second = fc.grad((g * g).sum() if p > 1 else (g * leaf).sum(), leaf)[0].data
        assert not np.isnan(second).any()


def test_a_recorded_norm_has_the_native_gradient():
    x = distinct(2, 3, 6, 7)
    for p, signed in itertools.product((1, 2, 3, 4, 1.5), (True, False)):
        y = fc.lp_pool2d(x, p, 3, 2, padding=1, signed=signed)
        native, recorded = (fc.grad(y.sum(), x, retain_graph=True, create_graph=c)[0].data for c in (False, True))
        assert_exact(recorded, native, f"{p} {signed}")
        explicit = fc.lp_pool2d_backward(np.ones(y.shape), x.data, y.data, p, 3, 2, padding=1, signed=signed)
        assert_exact(explicit, native, f"{p} {signed}")


def test_explicit_and_recorded_gradients_agree():
    x = distinct(2, 3, 6, 7)
    for kind in ("max", "min"):
        y, at = getattr(fc, f"{kind}_pool2d")(x, 3, 2, return_indices=True)
        y.sum().backward()
        back = getattr(fc, f"{kind}_pool2d_backward")(np.ones(y.shape), at.data, x.shape)
        assert_exact(x.grad.data, back)
        x.grad = None


def test_no_indices_without_a_gradient():
    """Without a tape and return_indices, max pooling computes no positions: the answer is the same."""
    x = distinct(1, 2, 6, 6)
    with fc.no_grad():
        assert_exact(fc.max_pool2d(x, 2).data, fc.max_pool2d(x.data, 2))
    plain = fc.Tensor(x.data)
    assert fc.max_pool2d(plain, 2, return_indices=True)[1].dtype == np.int64


@pytest.mark.parametrize("kind", ["max", "min"])
def test_a_view_of_channels_last_memory_has_the_gradient_of_its_copy(kind):
    """The numbers of its winners are such a view too."""
    view = np.moveaxis(distinct(2, 5, 6, 3).data, -1, 1)
    gradients, indices = [], []
    for x in (view, np.ascontiguousarray(view)):
        leaf = fc.Tensor(x, requires_grad=True)
        y, at = getattr(fc, f"{kind}_pool2d")(leaf, 3, 2, padding=1, return_indices=True)
        (y * y).sum().backward()
        gradients.append(leaf.grad.data)
        indices.append(at.data)
    assert_exact(*gradients)
    assert_exact(*indices)


def test_slopes_above_one_of_the_largest_gradients_may_cancel():
    """Two shares of 4e308 and more, each beyond float64, whose sum is not."""
    x = np.array([2, -2, 1, 2], np.float64).reshape(1, 1, 4)
    y = fc.lp_pool1d(x, 3, 3, 1)
    dy = np.array([1.2e308, -1e308]).reshape(1, 1, 2)
    dx = fc.lp_pool1d_backward(dy, x, y, 3, 3, 1)
    expected = np.array([np.inf, 4 * 0.2e308, 0.2e308, -np.inf]).reshape(1, 1, 4)
    assert_close(dx[..., 1:3] * 2.0**-100, expected[..., 1:3] * 2.0**-100, "norm")
    assert_exact(dx[..., ::3], expected[..., ::3])
