# SPDX-License-Identifier: Apache-2.0
"""Sums and norms of windows whose plain sum passes every float: no NaN out of finite values, and an infinity only where
the result is one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import isas
from fastconv import reference
from tolerance import assert_bound, assert_close, assert_same_bits

LAYOUTS = ("channels_first", "channels_last")


def extremes(draw, shape, dtype):
    """Mostly the largest numbers there are, of both signs, and a few ordinary ones."""
    largest = np.finfo(dtype).max
    palette = np.array([largest, -largest, largest, -largest, largest / 2, -0.7 * largest, 0.9 * largest, 1, -3, 0])
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return rng.choice(palette.astype(dtype)[: draw(st.integers(1, len(palette)))], shape)


def check(actual, expected, magnitude, terms, what):
    """The error of a plain sum, or the infinity that the result rounds to."""
    with np.errstate(over="ignore"):
        rounded = expected.astype(actual.dtype)
    finite = np.isfinite(actual)
    assert np.array_equal(actual[~finite], rounded[~finite]), f"{what}: not finite where the result is"
    assert_bound(actual[finite], expected[finite], magnitude[finite], terms, what=what)


@st.composite
def cases(draw):
    rank = draw(st.integers(1, 3))
    largest = {1: 40, 2: 9, 3: 5}[rank]
    size = tuple(draw(st.lists(st.integers(1, largest), min_size=rank, max_size=rank)))
    layout, channels = draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from((1, 3, 18, 70)))
    shape = (2, channels, *size) if layout == "channels_first" else (2, *size, channels)
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    window = tuple(draw(st.integers(1, n)) for n in size)
    words = {
        "kernel_size": window,
        "stride": tuple(draw(st.integers(1, 3)) for _ in size),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in window),
    }
    output = tuple(draw(st.integers(1, n + 1)) for n in size)
    return rank, layout, extremes(draw, shape, dtype), words, output, draw(st.randoms(use_true_random=False))


def like(random, shape, dtype):
    rng = np.random.default_rng(random.getrandbits(32))
    largest = np.finfo(dtype).max
    return rng.choice(np.array([largest, -largest, largest, 0.6 * largest, 2]).astype(dtype), shape)


@pytest.mark.parametrize("isa", isas())
@given(case=cases(), include=st.booleans(), divisor=st.sampled_from((None, None, 1, 3)))
def test_averages(isa, case, include, divisor):
    rank, layout, x, words, output, random = case
    words = {**words, "count_include_pad": include, "divisor_override": divisor}
    wide, terms = {"dtype": np.longdouble, "layout": layout}, int(np.prod(words["kernel_size"]))
    with fc.options(isa=isa):
        y = getattr(fc, f"avg_pool{rank}d")(x, **words, layout=layout)
        dy = like(random, y.shape, x.dtype)
        dx = getattr(fc, f"avg_pool{rank}d_backward")(dy, x.shape, **words, layout=layout)
        adaptive = getattr(fc, f"adaptive_avg_pool{rank}d")(x, output, layout=layout)
        g = like(random, adaptive.shape, x.dtype)
        dg = getattr(fc, f"adaptive_avg_pool{rank}d_backward")(g, x.shape, layout=layout)
        whole = getattr(fc, f"global_avg_pool{rank}d")(x, layout=layout)
    one = (1,) * rank
    for name, actual, f, arguments, rest in (
        ("average", y, reference.avg_pool, (x,), words),
        ("its gradient", dx, lambda v, **w: reference.avg_pool_backward(v, x.shape, **w), (dy,), words),
        ("adaptive", adaptive, lambda v, **w: reference.adaptive_avg_pool(v, output, **w), (x,), {}),
        ("its gradient", dg, lambda v, **w: reference.adaptive_avg_pool_backward(v, x.shape, **w), (g,), {}),
        ("global", whole, lambda v, **w: reference.adaptive_avg_pool(v, one, **w), (x,), {}),
    ):
        (v,) = arguments
        check(actual, f(v, **rest, **wide), f(np.abs(v), **rest, **wide), max(terms, 8), name)


@pytest.mark.parametrize("isa", isas())
@given(case=cases(), p=st.sampled_from((1, 1, 2, 3, 2.5)), signed=st.booleans())
def test_norms(isa, case, p, signed):
    rank, layout, x, words, _, random = case
    words = {**words, "signed": signed, "layout": layout}
    pool, backward = getattr(fc, f"lp_pool{rank}d"), getattr(fc, f"lp_pool{rank}d_backward")
    with fc.options(isa=isa):
        y = pool(x, p, **words)
        dy = like(random, y.shape, x.dtype)
        dx = backward(dy, x, y, p, **words)
    terms, wide = int(np.prod(words["kernel_size"])), {"dtype": np.longdouble}
    expected = reference.lp_pool(x, p, **words, **wide)
    assert not np.isnan(y).any() and not np.isnan(dx).any()
    if p == 1:
        magnitude = reference.lp_pool(np.abs(x), 1, **words, **wide)
        check(y, expected, magnitude, terms, "sum")
        slopes = [reference.lp_pool_backward(g, x, 1, **words, **wide) for g in (dy, np.abs(dy))]
        size = reference.lp_pool_backward(np.abs(dy), np.abs(x) + 1.0, 1, **words, **wide)
        check(dx, slopes[0], size, terms, "its gradient")
    elif not (signed and p == 3):
        surely = np.abs(expected) < 0.999 * np.finfo(x.dtype).max
        assert np.isfinite(y[surely]).all()
        scale = x.dtype.type(2.0**-8)  # room for the tolerance
        assert_close(y[surely] * scale, (expected[surely] * scale).astype(np.float64), "norm", what="norm")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_largest_number(layout, dtype):
    """Its mean over any window is itself, and so is the gradient where every window of 3 with stride 1 adds a third."""
    largest = np.finfo(dtype).max
    for isa in isas():
        with fc.options(isa=isa):
            for n in (2, 3, 5, 7, 48, 100, 1000):
                x = np.full((1, n, 3) if layout == "channels_last" else (1, 3, n), largest)
                assert (fc.global_avg_pool1d(x, layout=layout) == largest).all(), n
                assert (fc.avg_pool1d(x, 2, 1, layout=layout) == largest).all(), n
                dx = fc.avg_pool1d_backward(x, x.shape, 3, 1, 1, layout=layout)
                inner = dx[:, 1:-1] if layout == "channels_last" else dx[..., 1:-1]
                assert (inner == largest).all(), n
            for p in (1, 2, 2.5, 3, 7, 40):
                x = np.array([largest, 0, -largest / 4096], dtype).reshape(1, 3, 1)
                assert np.isfinite(fc.lp_pool1d(x, p, 1, layout=layout)).all(), p


def test_infinities_and_ordinary_values_are_untouched():
    """An infinity or NaN stays in its own windows, and the others keep their bits."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 5, 9, 11), dtype=np.float32)
    for layout in LAYOUTS:
        for pool in (fc.avg_pool2d, lambda v, k, s, **w: fc.lp_pool2d(v, 1, k, s, **w)):
            plain = pool(x, 3, 1, layout=layout)
            for value in (np.inf, -np.inf, np.nan, np.finfo(np.float32).max):
                v = x.copy()
                v[1, 3, 4, 5] = value
                y = pool(v, 3, 1, layout=layout)
                same = y == plain
                assert np.count_nonzero(~same) == (9 if layout == "channels_first" else 6)
                assert_same_bits(y[same], plain[same])
                if not np.isfinite(value):
                    assert np.array_equal(y[~same], np.full(np.count_nonzero(~same), value, np.float32), equal_nan=True)
    v = np.array([[[3e38, 3e38, -np.inf, 1, np.inf, 2]]], np.float32)
    y = fc.avg_pool1d(v, 2, 1)[0, 0]
    assert y[0] == np.float32(3e38) and np.array_equal(y[1:], np.array([-np.inf, -np.inf, np.inf, np.inf], np.float32))


def test_halves():
    """Sums of halves are taken in float32; the mean of bfloat16's largest numbers is one of them."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    largest = ml_dtypes.finfo(ml_dtypes.bfloat16).max
    x = np.full((1, 2, 8, 8), largest, ml_dtypes.bfloat16)
    x[0, 1, ::2] *= -1
    y = fc.avg_pool2d(x, 4, 4)
    assert (y[0, 0] == largest).all() and (y[0, 1] == 0).all()
    assert (fc.global_avg_pool2d(x).ravel() == np.array([largest, 0], x.dtype)).all()
