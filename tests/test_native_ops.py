# SPDX-License-Identifier: Apache-2.0
"""The kernels beside convolution where they are cut into pieces: sizes beyond one item of work, every ISA, any number
of threads; and what they refuse."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cases import NUMPY_DTYPE, THREADS, isas, laid_out, pool_problem, rng_for
from fastconv import _core, reference
from fastconv.geometry import ACTIVATION_ALPHAS
from tolerance import assert_bound, assert_close, assert_exact, assert_same_bits

DTYPES = ("f32", "f64")
LAYOUTS = ("channels_first", "channels_last")

# (n, c, size, window, stride, padding pairs, dilation, ceil_mode): rows longer than one piece, planes larger than one
# item of work, many planes in one item, and strides and dilations that have no vector loads.
POOLS = [
    (1, 2, (9001,), (3,), (2,), ((1, 1),), (1,), False),
    (2, 1, (6500,), (5,), (1,), ((2, 4),), (3,), False),
    (1, 3, (4500,), (4,), (7,), ((3, 0),), (1,), True),
    (1, 1, (130, 2100), (3, 2), (2, 2), ((1, 0), (0, 1)), (1, 1), True),
    (1, 35, (60, 47), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), False),
    (3, 70, (14, 15), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), False),
    (5, 33, (7, 7), (7, 7), (1, 1), ((0, 0), (0, 0)), (1, 1), False),
    (1, 19, (9, 40), (3, 3), (3, 5), ((2, 2), (1, 2)), (2, 1), True),
    (2, 9, (6, 11, 33), (2, 3, 3), (1, 2, 2), ((1, 0), (1, 1), (0, 2)), (2, 1, 1), True),
]


@pytest.fixture(autouse=True)
def keep_threads():
    yield
    _core.set_threads(0)


NORMS = (("lp", 2.0), ("signed_lp", 3.0))


def pooled(x, dy, geometry, layout, options):
    """Every pooling function; the extremes with and without indices."""
    words = (x.shape, *geometry[3:], layout)
    results = {}
    for kind in ("max", "min"):
        problem = pool_problem(kind, *words)
        y, at = _core.pool_forward(problem, x, 1.0, True, options)
        plain, none = _core.pool_forward(problem, x, 1.0, False, options)
        assert none is None
        results |= {kind: y, f"{kind} alone": plain, f"{kind} indices": at}
        results[f"{kind} backward"] = _core.scatter_positions(dy, at, x.shape, layout, 0, options)
    for include in (True, False):
        problem = pool_problem("average", *words, count_include_pad=include)
        results[f"mean {include}"] = _core.pool_forward(problem, x, 1.0, False, options)[0]
        results[f"mean backward {include}"] = _core.pool_backward(problem, dy, None, None, 1.0, options)
    for kind, p in NORMS:
        problem = pool_problem(kind, *words)
        y = _core.pool_forward(problem, x, p, False, options)[0]
        results |= {
            f"norm {kind} {p}": y,
            f"norm backward {kind} {p}": _core.pool_backward(problem, dy, x, y, p, options),
        }
    return results


def expected_pools(x, dy, geometry, layout):
    _, _, _, window, stride, pads, dilation, ceil_mode = geometry
    results = {}
    for kind, pool in (("max", reference.max_pool), ("min", reference.min_pool)):
        y, at = pool(x, window, stride, pads, dilation, ceil_mode, layout=layout)
        results |= {kind: y, f"{kind} alone": y, f"{kind} indices": at}
        results[f"{kind} backward"] = reference.max_pool_backward(dy, at, x.shape, layout=layout)
    words = {"dilation": dilation, "layout": layout}
    for include in (True, False):
        rest = (window, stride, pads, ceil_mode, include)
        results[f"mean {include}"] = reference.avg_pool(x, *rest, **words)
        results[f"mean backward {include}"] = reference.avg_pool_backward(dy, x.shape, *rest, **words)
    for kind, p in NORMS:
        rest = (p, window, stride, ceil_mode)
        more = {"padding": pads, "signed": kind == "signed_lp", **words}
        results[f"norm {kind} {p}"] = reference.lp_pool(x, *rest, **more)
        results[f"norm backward {kind} {p}"] = reference.lp_pool_backward(dy, x, *rest, **more)
    return results


def pool_arrays(geometry, layout, dtype, integers):
    n, c, size, window, stride, pads, dilation, ceil_mode = geometry
    rng = rng_for(f"{geometry} {layout} {dtype}")
    out = [
        _core.output_size(s, w, st, d, b, e, ceil_mode)
        for s, w, st, d, (b, e) in zip(size, window, stride, dilation, pads, strict=True)
    ]
    shapes = laid_out((n, c, *size), layout), laid_out((n, c, *out), layout)
    if integers:
        return [rng.integers(-4, 5, shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]
    return [rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", POOLS, ids=str)
def test_pools_in_pieces_on_every_isa(geometry, layout, dtype):
    """Integers with many ties: all but the division is exact."""
    x, dy = pool_arrays(geometry, layout, dtype, integers=True)
    expected = expected_pools(x, dy, geometry, layout)
    for isa in isas():
        for name, got in pooled(x, dy, geometry, layout, _core.Options(isa=isa)).items():
            what = f"{name} on {isa} of {geometry} {layout} {dtype}"
            if name.startswith(("mean", "norm")):
                assert_close(got, expected[name], "pointwise", what=what)
            else:
                assert_exact(got, expected[name], what)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("geometry", POOLS, ids=str)
def test_pools_do_not_depend_on_threads(geometry, layout):
    x, dy = pool_arrays(geometry, layout, "f32", integers=False)
    for isa in isas():
        first, *others = [
            pooled(x, dy, geometry, layout, _core.Options(isa=isa, threads=threads)) for threads in THREADS
        ]
        for other in others:
            for name, got in other.items():
                assert_same_bits(got, first[name], f"{name} on {isa}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_first_nan_wins(layout):
    shape = (2, 3, 20, 37)
    rng = rng_for(f"nan {layout}")
    x = rng.standard_normal(laid_out(shape, layout)).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    planes = x if layout == "channels_first" else np.moveaxis(x, -1, 1)
    for isa in isas():
        problem = pool_problem("max", x.shape, (3, 3), (2, 2), ((0, 0), (0, 0)), (1, 1), False, layout)
        y, at = _core.pool_forward(problem, x, 1.0, True, _core.Options(isa=isa))
        if layout == "channels_last":
            y, at = np.moveaxis(y, -1, 1), np.moveaxis(at, -1, 1)
        for n, c, i, j in np.ndindex(y.shape):
            window = planes[n, c, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            # argmax takes the first NaN, else the first maximum.
            row, column = divmod(int(np.argmax(window)), 3)
            assert at[n, c, i, j] == (2 * i + row) * shape[3] + 2 * j + column, f"{isa} at {(n, c, i, j)}"
            np.testing.assert_equal(y[n, c, i, j], window[row, column])


def test_views_are_pooled_where_they_lie():
    """A channels-last image seen channels first, a slice of channels, and strides that only a copy can serve."""
    rng = rng_for("pool views")
    pixels = rng.standard_normal((2, 10, 12, 6)).astype(np.float32)
    planes = rng.standard_normal((2, 9, 10, 12)).astype(np.float32)
    views = [np.moveaxis(pixels, -1, 1), planes[:, 2:7], planes[:, :, ::-1], planes[:, ::2, :, 1:-1]]
    for x in views:
        geometry = (x.shape, (3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1))
        problem, means = pool_problem("max", *geometry), pool_problem("average", *geometry)
        y, at = _core.pool_forward(problem, x, 1.0, True, _core.Options())
        dense = np.ascontiguousarray(x)
        expected = _core.pool_forward(problem, dense, 1.0, True, _core.Options())
        assert_exact(y, expected[0])
        assert_exact(at, expected[1])
        mean, dense_mean = (_core.pool_forward(means, v, 1.0, False, _core.Options())[0] for v in (x, dense))
        assert_close(mean, dense_mean, "pointwise")
        dy = rng.standard_normal(y.shape).astype(np.float32)
        first, second = (
            _core.scatter_positions(dy, i, x.shape, "channels_first", 0, _core.Options()) for i in (at, expected[1])
        )
        assert_same_bits(first, second)


def test_a_bad_index_is_refused():
    dy, options = np.ones((1, 2, 3, 3), np.float32), _core.Options()
    for layout in LAYOUTS:
        shape, x_shape = laid_out(dy.shape, layout), laid_out((1, 2, 6, 6), layout)
        for bad in (-1, 36, 2**40):
            indices = np.zeros(shape, np.int64)
            indices[0, 1, 1, 1] = bad
            x = np.ones(x_shape, np.float32)
            for call in (
                lambda i, s=shape, xs=x_shape, o=layout: _core.scatter_positions(dy.reshape(s), i, xs, o, 0, options),
                lambda i, x=x, o=layout: _core.gather_positions(x, i, o, 0, options),
                lambda i, xs=x_shape, o=layout: _core.last_positions(i, xs, o, options),
            ):
                with pytest.raises(_core.ProblemError, match=r"indices .* expected 0 to 35"):
                    call(indices)
    arguments = ((1, 2, 6, 6), "channels_first", 0, options)
    with pytest.raises(TypeError, match=r"indices has dtype int32; .*astype\(np.int64\)"):
        _core.scatter_positions(dy, np.zeros(dy.shape, np.int32), *arguments)
    with pytest.raises(_core.ProblemError, match="indices has shape"):
        _core.scatter_positions(dy, np.zeros((1, 2, 3), np.int64), *arguments)


def test_a_large_plane_is_gathered_in_pieces():
    """Few planes of more than one item of work; indices in no order, many of them equal, and -1 for nowhere."""
    rng = rng_for("positions in pieces")
    for layout, c in (("channels_first", 2), ("channels_last", 3)):
        x_shape, y_shape = laid_out((1, c, 700, 300), layout), laid_out((1, c, 90, 70), layout)
        at = rng.integers(-1, 700 * 300, y_shape)
        at[rng.random(y_shape) < 0.3] = 1234
        values = rng.integers(-4, 5, y_shape).astype(np.float32)
        expected = reference.max_pool_backward(np.where(at < 0, 0, values), np.maximum(at, 0), x_shape, layout=layout)
        for threads in THREADS:
            got = _core.scatter_positions(values, at, x_shape, layout, -1, _core.Options(threads=threads))
            assert_exact(got, expected, f"{layout} {threads}")


# (n, c, *): one pixel per channel (columns), planes shorter and longer than a chunk of statistics.
CHANNELS = [(1000, 130), (3, 700), (40, 9, 7, 7), (2, 5, 90, 101), (1, 2, 100_003)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", CHANNELS, ids=str)
def test_statistics_in_pieces(shape, dtype):
    rng = rng_for(f"statistics {shape} {dtype}")
    x, dy = ((rng.standard_normal(shape) * 2 + 7).astype(NUMPY_DTYPE[dtype]) for _ in range(2))
    gamma, beta = (rng.standard_normal(shape[1]).astype(NUMPY_DTYPE[dtype]) for _ in range(2))
    axes = (0, *range(2, x.ndim))
    wide = x.astype(np.longdouble)
    # float64 sums of float32 are right to the last place; those of float64 go through a tree.
    terms = 1 if dtype == "f32" else x.size // shape[1]
    assert_bound(_core.channel_sum(x), wide.sum(axes), np.abs(wide).sum(axes), terms)
    y, mean, variance = _core.batch_norm_forward(x, gamma, beta, 1e-5)
    for got, want in zip((y, mean, variance), reference.batch_norm(x, gamma, beta, 1e-5), strict=True):
        assert_close(got, want, "statistics")
    got = _core.batch_norm_backward(dy, x, gamma, mean, variance, 1e-5)
    # A float64 reference would lose to the sum of dy, whose mean is far from 0, what the kernels keep.
    want = reference.batch_norm_backward(dy.astype(np.longdouble), wide, gamma, 1e-5)
    for a, b, name in zip(got, want, ("dx", "dgamma", "dbeta"), strict=True):
        assert_close(a, b, "statistics", scale=float(np.max(np.abs(gamma))) * 10, what=name)


def every_operation(dtype):
    """Results by name of all operations, each with more work than one item."""
    rng = rng_for(f"every operation {dtype}")

    def normal(*shape):
        return rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype])

    results = {}
    x, dy = normal(6, 20, 37, 41), normal(6, 20, 37, 41)
    for kind in (k for k in ACTIVATION_ALPHAS if k != "none"):
        results[kind] = _core.activation_forward(kind, x, 0.1)
        results[f"{kind} backward"] = _core.activation_backward(kind, dy, x, 0.1)
    for w in (normal(20), normal(1)):
        results[f"prelu {w.size}"] = _core.prelu_forward(x, w)
        results[f"prelu dx {w.size}"], results[f"prelu dw {w.size}"] = _core.prelu_backward(dy, x, w)
    results["add"] = _core.add(x, dy)
    results["scale_mask"] = _core.scale_mask(x, dy > 0, 1.25)
    for shape in CHANNELS:
        x, dy, gamma, beta = normal(*shape), normal(*shape), normal(shape[1]), normal(shape[1])
        results[f"channel_sum {shape}"] = _core.channel_sum(x)
        y, mean, variance = _core.batch_norm_forward(x, gamma, beta, 1e-5)
        results |= {f"y {shape}": y, f"mean {shape}": mean, f"variance {shape}": variance}
        back = _core.batch_norm_backward(dy, x, gamma, mean, variance, 1e-5)
        results |= {f"{name} {shape}": value for name, value in zip(("dx", "dgamma", "dbeta"), back, strict=True)}
        results[f"inference {shape}"] = _core.batch_norm_inference(x, gamma, beta, mean, variance, 1e-5)
    logits, labels = normal(3000, 37), rng.integers(0, 37, 3000)
    loss, p = _core.cross_entropy_forward(logits, labels)
    results |= {"loss": loss, "p": p, "softmax": _core.softmax_forward(logits)}
    results["entropy backward"] = _core.cross_entropy_backward(loss, p, labels)
    for nesterov in (False, True):
        w, g, velocity = normal(300, 301), normal(300, 301), normal(300, 301)
        _core.sgd_step(w, g, velocity, 0.1, 0.9, 0.01, nesterov)
        results |= {f"sgd w {nesterov}": w, f"sgd velocity {nesterov}": velocity}
    w, g, m, v = normal(300, 301), normal(300, 301), normal(300, 301), normal(300, 301) ** 2
    _core.adam_step(w, g, m, v, 0.1, 0.9, 0.999, 1e-8, 0.01, False, 3)
    results |= {"adam w": w, "adam m": m, "adam v": v}
    w, g, square, mean, velocity = normal(300, 301), normal(300, 301), normal(300, 301) ** 2, normal(300, 301), g.copy()
    _core.rmsprop_step(w, g, square, mean, velocity, 0.1, 0.9, 1e-3, 0.01, 0.9)
    return results | {"rmsprop w": w, "square": square, "mean": mean, "velocity": velocity}


@pytest.mark.parametrize("dtype", DTYPES)
def test_operations_do_not_depend_on_threads(dtype):
    _core.set_threads(THREADS[0])
    first = every_operation(dtype)
    for threads in THREADS[1:]:
        _core.set_threads(threads)
        for name, got in every_operation(dtype).items():
            assert_same_bits(got, first[name], f"{name} with {threads} threads")


@pytest.mark.parametrize("isa", [isa for isa in isas() if isa != _core.info()["isa"]])
def test_operations_on_the_other_isas(isa):
    """Those of two other files and the statistics above once more, in a process that FASTCONV_ISA sets to this ISA."""
    here = Path(__file__)
    if os.environ.get("FASTCONV_ISA"):
        return  # this is that process
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(here.parent / "test_ops.py")]
    command += [str(here.parent / name) for name in ("test_activations.py", "test_losses.py")]
    command += [f"{here}::test_statistics_in_pieces", f"{here}::test_operations_do_not_depend_on_threads"]
    done = subprocess.run(command, env={**os.environ, "FASTCONV_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_labels_and_rows_are_named():
    logits = np.zeros((4, 3), np.float32)
    with pytest.raises(_core.ProblemError, match=r"labels\[2\] is 3; expected 0 to 2"):
        _core.cross_entropy_forward(logits, np.array([0, 1, 3, 0]))
    with pytest.raises(TypeError, match=r"labels has dtype float64; .*astype\(np.int64\)"):
        _core.cross_entropy_forward(logits, np.zeros(4))
    with pytest.raises(_core.ProblemError, match=r"labels has shape \(3,\); expected \(4,\)"):
        _core.cross_entropy_forward(logits, np.zeros(3, np.int64))


def test_softmax_of_what_is_not_a_number():
    x = np.array([[0, np.nan, 1], [np.inf, 0, 1], [-np.inf, 0, 0]], np.float32)
    y = _core.softmax_forward(x)
    assert np.isnan(y[:2]).all()
    assert y[2].tolist() == [0, 0.5, 0.5]


def test_a_sure_prediction_keeps_a_small_loss():
    """log(sum) - (x - max), not (max + log(sum)) - x, which would be 0 here."""
    x = np.array([[5000, 4990]], np.float32)
    loss, _ = _core.cross_entropy_forward(x, np.array([0]))
    assert 4.4e-5 < loss[0] < 4.7e-5


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda a: _core.activation_forward("swish", a), ValueError, "kind is 'swish'; expected relu, leaky_relu"),
        (lambda a: _core.activation_forward("relu", a.astype(int)), TypeError, "x has dtype int64"),
        (lambda a: _core.prelu_forward(a, a[0, :3]), ValueError, r"w has shape \(3,\); expected \(4,\)"),
        (lambda a: _core.prelu_forward(a, np.ones(1)), TypeError, "w is float64, x is float32"),
        (lambda a: _core.activation_backward("relu", a, a[:1]), ValueError, "saved has shape"),
        (lambda a: _core.add(a, a.astype(np.float64)), TypeError, "b is float64, a is float32"),
        (lambda a: _core.scale_mask(a, a, 1.0), TypeError, "mask is not of dtype bool"),
        (lambda a: _core.channel_sum(a[0]), ValueError, r"x has shape \(4,\)"),
        (lambda a: _core.batch_norm_forward(a, a[0], a[0, :2], 1e-5), ValueError, r"beta has shape \(2,\)"),
        (lambda a: _core.batch_norm_forward(a[:0], a[0], a[0], 1e-5), ValueError, "at least one value per channel"),
        (lambda a: _core.dense_forward(a, a[:, :3], None), ValueError, "w has 3 inputs, x has 4"),
        (lambda a: _core.dense_forward(a, a, a[0]), ValueError, r"bias has shape \(4,\); expected \(3,\)"),
        (lambda a: _core.dense_backward_data(a, a), ValueError, "w has 3 outputs, dy has 4"),
        (lambda a: _core.dense_backward_filter(a, a[:2]), ValueError, "x has 2 rows, dy has 3"),
        (lambda a: _core.softmax_forward(a[0]), ValueError, r"x has shape \(4,\); expected \(N, K\)"),
        (lambda a: _core.sgd_step(a.T, a.T, None, 1, 0, 0, False), ValueError, "w is not a C-contiguous"),
        (lambda a: _core.sgd_step(a, a, None, 1, 0.9, 0, False), ValueError, "velocity is None and momentum is 0.9"),
        (lambda a: _core.sgd_step(a, a[:2], None, 1, 0, 0, False), ValueError, "g has shape"),
        (
            lambda a: _core.rmsprop_step(a, a, a, None, None, 1, 1, 0, 0, 0.5),
            ValueError,
            "velocity is None and momentum",
        ),
        (lambda a: _core.rmsprop_step(a, a, a, a[:1], None, 1, 1, 0, 0, 0), ValueError, "mean has shape"),
        (lambda a: _core.adam_step(a, a, a, a, 1, 0.9, 0.9, 0, 0, False, 0), ValueError, "step is 0"),
        (lambda a: _core.adam_step(a, a, a, a, 1, 1.0, 0.9, 0, 0, False, 1), ValueError, "beta1 is 1"),
    ],
)
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(np.ones((3, 4), np.float32))


def test_a_read_only_parameter_is_refused():
    w = np.ones(3, np.float32)
    w.flags.writeable = False
    with pytest.raises(_core.ProblemError, match="w is read-only"):
        _core.sgd_step(w, np.ones(3, np.float32), None, 0.1, 0.0, 0.0, False)
