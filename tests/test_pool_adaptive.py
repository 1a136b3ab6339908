# SPDX-License-Identifier: Apache-2.0
"""Adaptive and global pooling and max unpooling against the reference, and what they refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import NUMPY_DTYPE, THREADS, adaptive_problem, isas, laid_out, rng_for
from fastconv import _core, reference
from tolerance import assert_close, assert_exact, assert_same_bits

LAYOUTS = ("channels_first", "channels_last")
# (size, output): fewer, as many, and more outputs than cells; rows longer than one piece; one cell.
ADAPTIVE = [
    ((7,), (3,)),
    ((5,), (12,)),
    ((6000,), (7,)),
    ((9, 7), (4, 3)),
    ((7, 7), (7, 7)),
    ((3, 40), (5, 1)),
    ((1, 1), (3, 2)),
    ((2, 2500), (3, 2100)),
    ((5, 6, 7), (2, 3, 4)),
    ((4, 3, 5), (1, 1, 1)),
]


NORMS = (("lp", 1.0), ("lp", 2.0), ("lp", 2.5), ("signed_lp", 3.0))


def expected_adaptive(x, dy, size, output, layout):
    """name -> (tier or None for exact, values): every kind of pooling, forward and backward."""
    y, at = reference.adaptive_max_pool(x, output, layout=layout)
    low, low_at = reference.adaptive_max_pool(-x, output, layout=layout)
    expected = {
        "max": (None, y),
        "max indices": (None, at),
        "max backward": (None, reference.max_pool_backward(dy, at, x.shape, layout=layout)),
        "min": (None, -low),
        "min indices": (None, low_at),
        "min backward": (None, reference.max_pool_backward(dy, low_at, x.shape, layout=layout)),
        "average 1.0": ("pointwise", reference.adaptive_avg_pool(x, output, layout=layout)),
        "average 1.0 backward": ("statistics", reference.adaptive_avg_pool_backward(dy, x.shape, layout=layout)),
    }
    if set(output) == {1}:  # the whole plane is a window of that size
        for kind, p in NORMS:
            words = {"signed": kind == "signed_lp", "layout": layout}
            expected[f"{kind} {p}"] = "norm", reference.lp_pool(x, p, size, **words)
            expected[f"{kind} {p} backward"] = "norm", reference.lp_pool_backward(dy, x, p, size, **words)
    return expected


def run_adaptive(x, dy, output, layout, options):
    results = {}
    for kind in ("max", "min"):
        y, at = _core.pool_forward(adaptive_problem(kind, x.shape, output, layout), x, 1.0, True, options)
        results |= {kind: y, f"{kind} indices": at}
        results[f"{kind} backward"] = _core.scatter_positions(dy, at, x.shape, layout, 0, options)
    for kind, p in (("average", 1.0), *NORMS):
        problem = adaptive_problem(kind, x.shape, output, layout)
        y, _ = _core.pool_forward(problem, x, p, False, options)
        results |= {f"{kind} {p}": y, f"{kind} {p} backward": _core.pool_backward(problem, dy, x, y, p, options)}
    return results


def check_adaptive(size, output, layout, dtype, n=2, c=5, names=(None,)):
    """Integers with many ties, on the named instruction sets."""
    what = f"{size} -> {output} {layout} {dtype}"
    rng = rng_for(what)
    x = rng.integers(-4, 5, laid_out((n, c, *size), layout)).astype(NUMPY_DTYPE[dtype])
    dy = rng.integers(-4, 5, laid_out((n, c, *output), layout)).astype(NUMPY_DTYPE[dtype])
    expected = expected_adaptive(x, dy, size, output, layout)
    for isa in names:
        results = run_adaptive(x, dy, output, layout, _core.Options(isa=isa))
        for name, (tier, values) in expected.items():
            if tier is None:
                assert_exact(results[name], values, f"{name} on {isa} {what}")
            else:
                assert_close(results[name], values, tier, what=f"{name} on {isa} {what}")


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("size", "output"), ADAPTIVE, ids=str)
def test_adaptive_on_every_isa(size, output, layout, dtype):
    n, c = (1, 2) if size[-1] > 1000 else (2, 5)
    check_adaptive(size, output, layout, dtype, n, c, isas())


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 11)), min_size=1, max_size=3),
    st.sampled_from(LAYOUTS),
    st.integers(0, 2),
    st.integers(0, 4),
)
def test_drawn_adaptive(axes, layout, n, c):
    check_adaptive(tuple(a for a, _ in axes), tuple(b for _, b in axes), layout, "f32", n, c)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_adaptive_does_not_depend_on_threads(layout):
    x = rng_for("adaptive threads").standard_normal(laid_out((2, 21, 90, 77), layout)).astype(np.float32)
    results = []
    for threads in THREADS:
        options = _core.Options(threads=threads)
        parts = []
        for kind, p in (("average", 1.0), ("lp", 2.0), ("lp", 1.5)):
            problem = adaptive_problem(kind, x.shape, (20, 13), layout)
            y, _ = _core.pool_forward(problem, x, p, False, options)
            parts += [y, _core.pool_backward(problem, y, x, y, p, options)]
        results.append(parts)
    for parts in results[1:]:
        for a, b in zip(results[0], parts, strict=True):
            assert_same_bits(b, a, layout)


def test_output_size_in_words():
    x = rng_for("words").standard_normal((2, 3, 8, 6))
    assert fc.adaptive_avg_pool2d(x, (None, 2)).shape == (2, 3, 8, 2)
    assert fc.adaptive_avg_pool2d(x, 4).shape == (2, 3, 4, 4)
    assert fc.adaptive_avg_pool2d(x[0], (3, None)).shape == (3, 3, 6)
    assert fc.adaptive_max_pool2d(x, [2, np.int64(3)]).shape == (2, 3, 2, 3)
    assert_exact(fc.adaptive_avg_pool2d(x, None), x)
    y, at = fc.adaptive_max_pool2d(x[1], 2, return_indices=True)
    assert_exact(fc.adaptive_max_pool2d_backward(y, at, x[1].shape),
                 reference.max_pool_backward(y[None], at[None], (1, 3, 8, 6))[0])  # fmt: skip
    back = fc.adaptive_avg_pool2d_backward(y, x[1].shape)
    assert_close(back, reference.adaptive_avg_pool_backward(y[None], (1, 3, 8, 6))[0], "pointwise")
    for bad, sentence in ((0, "output_size is 0"), ((1, 2, 3), "output_size has 3 entries"), (-1, "output_size is -1")):
        with pytest.raises(fc.ProblemError, match=f"adaptive_avg_pool2d: .*{sentence}"):
            fc.adaptive_avg_pool2d(x, bad)
    with pytest.raises(TypeError, match=r"output_size is 2\.5"):
        fc.adaptive_max_pool2d(x, 2.5)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_global_pooling_keeps_the_axes(rank):
    """The mean, extremes and norms of whole planes, as NumPy has them; the layouts and one image alone."""
    x = rng_for(f"global {rank}").standard_normal((2, 3, *(4, 5, 6)[:rank]))
    axes = tuple(range(2, 2 + rank))
    last = np.moveaxis(x, 1, -1)

    def of(name, x, *args, **words):
        return getattr(fc, f"global_{name}_pool{rank}d")(x, *args, **words)

    expected = {
        "avg": x.mean(axes, keepdims=True),
        "max": x.max(axes, keepdims=True),
        "min": x.min(axes, keepdims=True),
        "lp": np.sqrt((x * x).sum(axes, keepdims=True)),
    }
    for name, want in expected.items():
        for dtype in (np.float64, np.float32):
            assert_close(of(name, x.astype(dtype)), want.astype(dtype), "pointwise", what=name)
        assert_close(of(name, last, layout="channels_last"), np.moveaxis(want, 1, -1), "pointwise", what=name)
        assert_close(of(name, x[1]), want[1], "pointwise", what=name)
    assert_close(of("lp", x, 1), np.abs(x).sum(axes, keepdims=True), "pointwise")
    assert_close(of("lp", x, np.inf), np.abs(x).max(axes, keepdims=True), "pointwise")
    y, at = of("max", x, True)
    assert_exact(np.take_along_axis(x.reshape(2, 3, -1), at.reshape(2, 3, 1), 2).reshape(y.shape), y)


# ---- Unpooling ------------------------------------------------------------------------------------------------------


@st.composite
def positions(draw):
    """(shape of x, plane, layout, seed): any positions, most of them several times."""
    rank = draw(st.integers(1, 3))
    axes = st.lists(st.integers(1, 4), min_size=rank, max_size=rank)
    shape = (draw(st.integers(0, 2)), draw(st.integers(1, 3)), *draw(axes))
    return shape, tuple(draw(axes)), draw(st.sampled_from(LAYOUTS)), draw(st.integers(0, 1000))


@given(positions())
def test_unpooling_any_positions(drawn):
    """The last of several wins; its gradient is the adjoint."""
    shape, plane, layout, seed = drawn
    rng = np.random.default_rng(seed)
    x = rng.integers(-4, 5, laid_out(shape, layout)).astype(np.float32)
    at = rng.integers(0, np.prod(plane), x.shape)
    y_shape = laid_out((*shape[:2], *plane), layout)
    last = _core.last_positions(at, y_shape, layout, _core.Options())
    y = _core.scatter_positions(x, last, y_shape, layout, -1, _core.Options())
    assert_exact(y, reference.max_unpool(x, at, plane, layout=layout))
    dy = rng.integers(-4, 5, y.shape).astype(np.float32)
    dx = getattr(fc, f"max_unpool{len(plane)}d_backward")(dy, at, layout=layout)
    assert_exact(dx, reference.max_unpool_backward(dy, at, layout=layout))
    assert float((y * dy).sum()) == float((x * dx).sum())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling_what_was_pooled(rank, layout):
    """Overlapping windows name a maximum several times, always with the same value."""
    size = (7, 8, 6)[:rank]
    x = rng_for(f"unpool {rank}").standard_normal(laid_out((2, 3, *size), layout))
    pool, unpool = getattr(fc, f"max_pool{rank}d"), getattr(fc, f"max_unpool{rank}d")
    for window, stride, padding in ((2, 2, 0), (3, 1, 1), (3, 2, ((1, 0),) * rank)):
        y, at = pool(x, window, stride, padding, return_indices=True, layout=layout)
        for output_size in (size, x.shape):
            back = unpool(y, at, window, stride, padding, output_size, layout=layout)
            assert_exact(back, reference.max_unpool(y, at, size, layout=layout))
        won = back != 0
        assert_exact(back[won], x[won])
    single = unpool(y[1], at[1], window, stride, padding, size, layout=layout)
    assert_exact(single, back[1])


def test_the_plane_of_unpooling():
    y, at = np.ones((1, 1, 3, 3)), np.arange(9).reshape(1, 1, 3, 3)
    assert fc.max_unpool2d(y, at, 2).shape == (1, 1, 6, 6)
    assert fc.max_unpool2d(y, at, 3, 2, 1).shape == (1, 1, 5, 5)
    assert fc.max_unpool2d(y, at, 2, output_size=(7, 5)).shape == (1, 1, 7, 5)
    for bad, sentence in (
        ({"output_size": (8, 6)}, "output_size is 8 along h; expected 5 to 7"),
        ({"output_size": (6,)}, "output_size has 1 entries"),
        ({"padding": 3}, "unpooled plane is"),
    ):
        with pytest.raises(fc.ProblemError, match=f"max_unpool2d: .*{sentence}"):
            fc.max_unpool2d(y, at, 2, **bad)
    for index in (-1, 36):
        wrong = at.copy()
        wrong[0, 0, 1, 1] = index
        with pytest.raises(fc.ProblemError, match=r"max_unpool2d: indices .* expected 0 to 35"):
            fc.max_unpool2d(y, wrong, 2)
        with pytest.raises(fc.ProblemError, match=r"max_unpool2d_backward: indices .* expected 0 to 35"):
            fc.max_unpool2d_backward(np.ones((1, 1, 6, 6)), wrong)
    with pytest.raises(fc.ProblemError, match="indices has shape"):
        fc.max_unpool2d(y, at[..., :2], 2)
    with pytest.raises(TypeError, match="indices is int32"):
        fc.max_unpool2d(y, at.astype(np.int32), 2)
    with pytest.raises(fc.ProblemError, match="same batch and channels"):
        fc.max_unpool2d_backward(np.ones((1, 2, 6, 6)), at)
