# SPDX-License-Identifier: Apache-2.0
"""Pooling by windows of one size against the reference: every geometry and option, both layouts, both dtypes, forward
and backward; and what the definition says of NaN, infinity, ties and padding."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import NUMPY_DTYPE, laid_out, rng_for
from fastconv import reference
from tolerance import assert_close, assert_exact

# (size, window, stride, padding pairs, dilation)
GEOMETRIES = [
    ((8,), (2,), (2,), ((0, 0),), (1,)),
    ((9,), (3,), (2,), ((1, 0),), (2,)),
    ((7, 9), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1)),
    ((7, 9), (3, 3), (2, 2), ((1, 1), (1, 1)), (1, 1)),
    ((6, 5), (3, 2), (1, 3), ((1, 0), (0, 1)), (1, 1)),
    ((11, 10), (3, 3), (2, 1), ((2, 1), (0, 2)), (2, 1)),
    ((1, 1), (1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((5, 5), (5, 5), (5, 5), ((0, 0), (0, 0)), (1, 1)),
    ((4, 5, 6), (2, 3, 2), (2, 2, 3), ((0, 1), (1, 1), (0, 0)), (1, 1, 1)),
    ((5, 4, 7), (3, 2, 3), (1, 2, 2), ((1, 1), (0, 0), (2, 2)), (1, 2, 1)),
]


NORMS = (1, 2, 3, 4, 1.5)


def own(name, rank):
    return getattr(fc, name.replace("pool", f"pool{rank}d"))


def check(size, window, stride, pads, dilation, ceil_mode, layout, dtype, n=2, c=5):
    """Every pooling with windows of one size against NumPy, forward and backward, on integers with many ties."""
    what = f"{size} {window} {stride} {pads} {dilation} ceil={ceil_mode} {layout} {dtype}"
    rank, rng = len(size), rng_for(what)
    x = rng.integers(-4, 5, laid_out((n, c, *size), layout)).astype(NUMPY_DTYPE[dtype])
    words = {"padding": pads, "dilation": dilation, "ceil_mode": ceil_mode, "layout": layout}
    for kind, expect in (("max", reference.max_pool), ("min", reference.min_pool)):
        y, at = own(f"{kind}_pool", rank)(x, window, stride, return_indices=True, **words)
        expected, places = expect(x, window, stride, **words)
        assert_exact(y, expected, f"{kind} {what}")
        assert_exact(own(f"{kind}_pool", rank)(x, window, stride, **words), expected, f"{kind} alone {what}")
        assert at.dtype == np.int64
        assert_exact(at, places, f"{kind} indices of {what}")
        dy = rng.integers(-4, 5, y.shape).astype(x.dtype)
        dx = own(f"{kind}_pool_backward", rank)(dy, at, x.shape, layout=layout)
        assert_exact(dx, reference.max_pool_backward(dy, places, x.shape, layout=layout), f"backward of {kind} {what}")
    for more in ({}, {"count_include_pad": False}, {"divisor_override": 4}):
        mean = own("avg_pool", rank)(x, window, stride, **words, **more)
        expected = reference.avg_pool(x, window, stride, **words, **more)
        back = own("avg_pool_backward", rank)(dy, x.shape, window, stride, **words, **more)
        expected_back = reference.avg_pool_backward(dy, x.shape, window, stride, **words, **more)
        if more.get("divisor_override"):  # a power of two
            assert_exact(mean, expected, what)
            assert_exact(back, expected_back, what)
        assert_close(mean, expected, "pointwise", what=f"{more} {what}")
        assert_close(back, expected_back, "pointwise", what=f"backward {more} {what}")
    for p, signed in itertools.product(NORMS, (True, False)):
        y = own("lp_pool", rank)(x, p, window, stride, signed=signed, **words)
        assert_close(y, reference.lp_pool(x, p, window, stride, signed=signed, **words), "norm", what=f"p={p} {what}")
        dx = own("lp_pool_backward", rank)(dy, x, y, p, window, stride, signed=signed, **words)
        expected = reference.lp_pool_backward(dy, x, p, window, stride, signed=signed, **words)
        assert_close(dx, expected, "norm", what=f"backward of p={p} signed={signed} {what}")


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda g: "x".join(map(str, g[0])))
def test_against_reference(geometry, ceil_mode, layout, dtype):
    check(*geometry, ceil_mode, layout, dtype)


def test_an_empty_batch():
    for geometry in GEOMETRIES:
        check(*geometry, False, "channels_first", "f32", n=0)


@st.composite
def geometries(draw):
    rank = draw(st.integers(1, 3))
    window = [draw(st.integers(1, 4)) for _ in range(rank)]
    stride = [draw(st.integers(1, 4)) for _ in range(rank)]
    # At most half the window, as in PyTorch, so that no window lies wholly in the padding.
    pads = [(draw(st.integers(0, w // 2)), draw(st.integers(0, w // 2))) for w in window]
    size = [w + draw(st.integers(0, 5)) for w in window]
    return tuple(size), tuple(window), tuple(stride), tuple(pads), (1,) * rank


@given(geometries(), st.booleans(), st.sampled_from(["channels_first", "channels_last"]))
def test_drawn_geometries(geometry, ceil_mode, layout):
    check(*geometry, ceil_mode, layout, "f32")


def test_first_maximum_wins():
    x = np.zeros((1, 1, 4, 4), np.float32)
    _, at = fc.max_pool2d(x, 2, return_indices=True)
    assert at[0, 0].tolist() == [[0, 2], [8, 10]]


def test_nan_passes_through():
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4)
    x[0, 0, 0, 1] = np.nan
    for pool in (fc.max_pool2d, fc.avg_pool2d):
        nan = np.isnan(pool(x, 2)[0, 0])
        assert nan.tolist() == [[True, False], [False, False]], pool.__name__
    y, at = fc.max_pool2d(x, 2, return_indices=True)
    assert at[0, 0, 0, 0] == 1
    dx = fc.max_pool2d_backward(np.ones_like(y), at, x.shape)
    assert dx[0, 0, 0, 1] == 1 and dx.sum() == 4


def test_minus_infinity_is_a_value():
    x = np.full((1, 1, 2, 2), -np.inf, np.float32)
    y, at = fc.max_pool2d(x, 2, padding=1, stride=1, return_indices=True)
    assert (y == -np.inf).all()
    assert ((at >= 0) & (at < 4)).all()


def test_padding_never_wins():
    x = np.full((1, 2, 3, 3), -5, np.float64)
    assert (fc.max_pool2d(x, 3, stride=1, padding=1) == -5).all()


def test_count_include_pad():
    x = np.ones((1, 1, 2, 2), np.float32)
    inside = fc.avg_pool2d(x, 2, stride=1, padding=1, count_include_pad=False)
    everything = fc.avg_pool2d(x, 2, stride=1, padding=1)
    assert (inside == 1).all()
    assert everything[0, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]


def test_ceil_mode_drops_windows_that_start_in_the_right_padding():
    x = np.ones((1, 1, 4), np.float32)
    # Windows could start at -1, 2 and 5; the plane ends at 4 and its padding at 5.
    assert fc.max_pool1d(x, 3, stride=3, padding=1, ceil_mode=True).shape == (1, 1, 2)
    assert fc.max_pool1d(np.ones((1, 1, 6), np.float32), 3, stride=3, padding=1, ceil_mode=True).shape == (1, 1, 3)


def test_ranks_and_unbatched():
    x = np.arange(2 * 3 * 4 * 6 * 8, dtype=np.float32).reshape(2, 3, 4, 6, 8)
    for pool in (fc.max_pool3d, fc.avg_pool3d):
        assert_exact(pool(x, 2)[1], pool(x[1], 2), "unbatched")
    for rank, pool in ((1, fc.max_pool1d), (2, fc.max_pool2d)):
        plane = x[:, :, 0, 0] if rank == 1 else x[:, :, 0]
        assert_exact(pool(plane, 2), reference.max_pool(plane, 2)[0])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel_size": 0}, "kernel_size is 0"),
        ({"kernel_size": 2, "stride": 0}, "stride is 0"),
        ({"kernel_size": 2, "padding": -1}, "padding is -1"),
        ({"kernel_size": 2, "padding": 2}, "padding is 2"),
        ({"kernel_size": (2, 2, 2)}, "kernel_size has 3 entries"),
        ({"kernel_size": 9}, "spans 9"),
    ],
)
def test_refused_in_words(arguments, sentence):
    x = np.zeros((1, 1, 4, 4), np.float32)
    for pool in (fc.max_pool2d, fc.avg_pool2d):
        with pytest.raises(fc.ProblemError, match=f"{pool.__name__}: .*{sentence}"):
            pool(x, **arguments)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="astype"):
        fc.max_pool2d(np.zeros((1, 1, 4, 4), np.int32), 2)
