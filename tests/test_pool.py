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
        tensor = fc.Tensor(x, requires_grad=True)  # its winners are bytes
        y, at = own(f"{kind}_pool", rank)(tensor, window, stride, return_indices=True, **words)
        assert_exact(np.asarray(at.data), places, f"{kind} positions of {what}")
        y.backward(dy)
        assert_exact(tensor.grad.data, dx, f"{kind} gradient of {what}")
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
def test_against_reference(ceil_mode, layout, dtype):
    for geometry in GEOMETRIES:
        check(*geometry, ceil_mode, layout, dtype)


def test_windows_of_more_taps_than_a_byte_holds():
    """A tensor's winners are then int64 positions; with 256 taps the last one is 255."""
    x = rng_for("large windows").permutation(2 * 40 * 40).reshape(1, 2, 40, 40).astype(np.float32)
    for window, stride in ((16, 7), (17, 5), (16, 2)):
        tensor = fc.Tensor(x, requires_grad=True)
        y = fc.max_pool2d(tensor, window, stride)
        y.backward(np.ones(y.shape, np.float32))
        expected, places = reference.max_pool(x, window, stride)
        assert_exact(y.data, expected)
        assert_exact(tensor.grad.data, reference.max_pool_backward(np.ones(y.shape), places, x.shape).astype(x.dtype))


def test_an_empty_batch():
    for geometry in GEOMETRIES:
        check(*geometry, False, "channels_first", "f32", n=0)


@st.composite
def geometries(draw):
    """Any padding below the window's span, dilation, planes smaller than the window; and whether ceil mode."""
    rank, ceil_mode = draw(st.integers(1, 3)), draw(st.booleans())
    largest = {1: 6, 2: 4, 3: 3}[rank]
    axes = []
    for _ in range(rank):
        window, stride, dilation = (draw(st.integers(1, largest)) for _ in range(3))
        reach = (window - 1) * dilation
        begin, end = (draw(st.integers(0, reach)) for _ in range(2))
        least = max(1, reach + 1 - begin - end - (stride - 1 if ceil_mode else 0))
        axes.append((least + draw(st.integers(0, 5)), window, stride, (begin, end), dilation))
    return *zip(*axes, strict=True), ceil_mode


def some_window_is_empty(size, window, stride, pads, dilation, ceil_mode):
    """Counted from the definition: a window whose every tap lies in the padding."""
    for n, k, s, (b, e), d in zip(size, window, stride, pads, dilation, strict=True):
        for o in range(reference.pool_output_size(n, k, s, d, b, e, ceil_mode)):
            if not any(0 <= o * s - b + i * d < n for i in range(k)):
                return True
    return False


@given(geometries(), st.sampled_from(["channels_first", "channels_last"]), st.integers(0, 2), st.integers(0, 4))
def test_drawn_geometries(geometry, layout, n, c):
    if some_window_is_empty(*geometry):
        x = np.zeros(laid_out((n, c, *geometry[0]), layout), np.float32)
        words = dict(zip(("kernel_size", "stride", "padding", "dilation", "ceil_mode"), geometry[1:], strict=True))
        for kind in ("max", "min", "avg"):
            with pytest.raises(fc.ProblemError, match=f"{kind}_pool.d: dilation"):
                own(f"{kind}_pool", len(geometry[0]))(x, layout=layout, **words)
        return
    check(*geometry, layout, "f32", n, c)


def test_windows_larger_than_the_plane():
    """Ceil mode takes a window that sticks out by less than the stride; otherwise it is refused in words."""
    x = np.arange(1, 5, dtype=np.float32).reshape(1, 1, 4)
    assert fc.max_pool1d(x, 5, 2, ceil_mode=True).tolist() == [[[4]]]
    assert fc.avg_pool1d(x, 5, 2, ceil_mode=True).tolist() == [[[2.5]]]
    assert fc.lp_pool1d(x, 1, 5, 2, ceil_mode=True).tolist() == [[[10]]]
    for ceil_mode in (False, True):
        with pytest.raises(fc.ProblemError, match=r"max_pool1d: the window spans 7 along w, x has 4 .* at least [23] "):
            fc.max_pool1d(x, 7, 2, ceil_mode=ceil_mode)


def test_words_for_padding():
    """same: ceil(size / stride) outputs; causal: output q sees inputs up to q * stride alone."""
    x = rng_for("words").permutation(40).reshape(1, 2, 20).astype(np.float64)
    for window, stride, dilation in ((2, 1, 1), (3, 2, 1), (4, 3, 2), (1, 5, 1)):
        words = {"dilation": dilation}
        for word in ("same", "same_lower"):
            assert fc.max_pool1d(x, window, stride, word, **words).shape == (1, 2, -(-20 // stride))
        assert_exact(fc.max_pool1d(x, window, stride, "valid", **words), fc.max_pool1d(x, window, stride, **words))
        full = fc.avg_pool1d(x, window, 1, "full", divisor_override=1, **words)
        assert full.shape[-1] == 20 + (window - 1) * dilation and np.isclose(full.sum(), x.sum() * window)
        y = fc.max_pool1d(x, window, stride, "causal", **words)
        seen = [[q * stride - i * dilation for i in range(window)] for q in range(y.shape[-1])]
        want = np.stack([x[..., [i for i in cells if i >= 0]].max(-1) for cells in seen], -1)
        assert_exact(y, want, f"causal {window} {stride} {dilation}")
    lower, upper = (fc.max_pool1d(x, 2, 1, word) for word in ("same_lower", "same"))
    assert_exact(lower[..., 1:], upper[..., :-1])
    with pytest.raises(fc.ProblemError, match="padding is 'causal'"):
        fc.max_pool2d(np.zeros((1, 1, 4, 4)), 2, padding="causal")


def test_ceil_mode_never_averages_over_nothing():
    """ONNX's rule: the divisor counts padding but not what hangs over its end, and no window starts in it."""
    x = np.ones((1, 1, 5), np.float32)
    assert fc.avg_pool1d(x, 3, 2, 1, ceil_mode=True).tolist() == [[[np.float32(2 / 3), 1, np.float32(2 / 3)]]]
    assert fc.avg_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[[1, 1, 1]]]
    for size, window, stride, padding, include in itertools.product(
        range(1, 8), (1, 2, 3), (1, 2, 3, 4), (0, 1, 2), (0, 1)
    ):
        if padding >= window:
            continue
        x = np.full((1, 1, size), 2, np.float32)
        try:
            y = fc.avg_pool1d(x, window, stride, padding, True, bool(include))
        except fc.ProblemError:
            assert size + 2 * padding + stride - 1 < window
            continue
        assert np.isfinite(y).all() and (y > 0).all()
        assert include or (y == 2).all()


def test_norms_do_not_overflow():
    huge, tiny = np.float32(3e38), np.float32(2e-38)
    for p in (1, 2, 3, 2.5, 40):
        for layout in ("channels_first", "channels_last"):
            x = np.zeros((1, 4, 2) if layout == "channels_first" else (1, 2, 4), np.float32)
            pairs = x if layout == "channels_first" else np.moveaxis(x, 1, -1)
            pairs[0, :, 0], pairs[0, :, 1] = (huge / 4, tiny, huge / 4, 0), (huge / 4, tiny, tiny, 0)
            y = fc.lp_pool1d(x, p, 2, layout=layout)
            expected = reference.lp_pool(x, p, 2, layout=layout)
            assert np.isfinite(y).all()
            assert_close(y, expected, "norm", what=f"{p} {layout}")
            dx = fc.lp_pool1d_backward(np.ones_like(y), x, y, p, 2, layout=layout)
            assert np.isfinite(dx).all() and abs(dx).max() <= 1


def test_infinity_and_nan_in_a_norm():
    x = np.array([[[1, np.inf, -np.inf, 2, np.nan, 1, np.inf, np.inf]]], np.float32)
    for p in (1, 2, 3, 2.5):
        y = fc.lp_pool1d(x, p, 2, signed=False)
        np.testing.assert_equal(y, [[[np.inf, np.inf, np.nan, np.inf]]])
    np.testing.assert_equal(fc.lp_pool1d(x, 3, 2), [[[np.inf, -np.inf, np.nan, np.inf]]])
    np.testing.assert_equal(fc.lp_pool1d(x[..., 1:3], 3, 2), [[[np.nan]]])


def test_norms_of_integers_are_exact():
    x = np.array([[[3, 4, -6, 8, 1, 1, 1, 1]]], np.float32)
    assert fc.lp_pool1d(x, 2, 2).tolist() == [[[5, 10, np.float32(2**0.5), np.float32(2**0.5)]]]
    assert fc.lp_pool1d(x, 1, 4).tolist() == [[[9, 4]]]
    assert fc.lp_pool1d(x, 1, 4, signed=False).tolist() == [[[21, 4]]]


@pytest.mark.parametrize(
    ("norm_type", "error"), [(0, fc.ProblemError), (0.5, fc.ProblemError), (-2, fc.ProblemError), ("2", TypeError)]
)
def test_norm_types_are_refused_in_words(norm_type, error):
    with pytest.raises(error, match="lp_pool2d: norm_type is"):
        fc.lp_pool2d(np.zeros((1, 1, 4, 4)), norm_type, 2)


def test_a_bad_divisor_is_refused():
    with pytest.raises(fc.ProblemError, match="divisor_override is 0; expected at least 1"):
        fc.avg_pool2d(np.zeros((1, 1, 4, 4)), 2, divisor_override=0)


def test_minima_of_infinity_and_nan():
    x = np.full((1, 1, 2, 2), np.inf, np.float32)
    y, at = fc.min_pool2d(x, 2, padding=1, stride=1, return_indices=True)
    assert (y == np.inf).all() and ((at >= 0) & (at < 4)).all()
    x[0, 0, 1] = np.nan
    y, at = fc.min_pool2d(x, 2, return_indices=True)
    assert np.isnan(y[0, 0, 0, 0]) and at[0, 0, 0, 0] == 2


def test_odd_arrays_are_pooled():
    """Reversed, sliced, Fortran-ordered and read-only arrays, and a channels-first view of channels-last memory."""
    rng = rng_for("odd arrays")
    base = rng.integers(-9, 10, (2, 4, 9, 8)).astype(np.float32)
    frozen = base.copy()
    frozen.flags.writeable = False
    views = (base[:, :, ::-1], base[:, ::2], np.asfortranarray(base), frozen, base.transpose(0, 2, 3, 1))
    for x in views:
        dense = np.ascontiguousarray(x)
        for f in (
            lambda x: fc.min_pool2d(x, 3, 2, 1),
            lambda x: fc.lp_pool2d(x, 2, 3, 2),
            lambda x: fc.adaptive_avg_pool2d(x, (2, 3)),
            lambda x: fc.avg_pool2d(x, 2, divisor_override=4),
        ):
            assert_close(f(x), f(dense), "pointwise")
        y, at = fc.max_pool2d(x, 2, return_indices=True)
        flipped = np.ascontiguousarray(y[..., ::-1])[..., ::-1]
        assert_exact(
            fc.max_unpool2d(flipped, at[:, :], 2, output_size=x.shape), fc.max_unpool2d(y, at, 2, output_size=x.shape)
        )


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
