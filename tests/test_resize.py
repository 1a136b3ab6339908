# SPDX-License-Identifier: Apache-2.0
"""Resizing: reference, PyTorch in every mode, gradients of gradients, threads, edges, messages."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import DTYPES, NUMPY_DTYPE, THREADS, rng_for
from fastconv import _core, nn, ops, reference
from tolerance import assert_close, assert_exact, assert_same_bits

SMOOTH = {1: "linear", 2: "bilinear", 3: "trilinear"}
SIZES = {1: [(7, 13), (9, 4), (1, 5), (6, 1)], 2: [((5, 8), (9, 4)), ((3, 40), (7, 90))], 3: [((3, 4, 5), (5, 2, 9))]}


@pytest.fixture(autouse=True)
def keep_threads():
    yield
    _core.set_threads(0)


def per_axis(value):
    return value if isinstance(value, tuple) else (value,)


def both(x, dy, **words):
    tensor = fc.Tensor(x, requires_grad=True)
    y = ops.interpolate(tensor, **words)
    y.backward(fc.Tensor(dy))
    return y.data, tensor.grad.data


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_smooth_modes_are_their_reference(rank, dtype):
    modes = [(SMOOTH[rank], "linear", c) for c in (False, True)] + [("area", "area", None)]
    modes += [("bicubic", "cubic", c) for c in (False, True)] if rank == 2 else []
    for (n, m), (mode, plain, corners) in itertools.product(SIZES[rank], modes):
        n, m = per_axis(n), per_axis(m)
        rng = rng_for(f"resize {n} {m}")
        x, dy = (rng.standard_normal((2, 3, *s)).astype(NUMPY_DTYPE[dtype]) for s in (n, m))
        y, dx = both(x, dy, size=m, mode=mode, align_corners=corners)
        assert_close(y, reference.resize(x, m, plain, bool(corners)), "statistics", what=f"{mode} {corners} {n} {m}")
        want = reference.resize_backward(dy, n, plain, bool(corners))
        assert_close(dx, want, "statistics", what=f"{mode} {corners} {n} {m} dx")
        swap = (0, *range(2, rank + 2), 1)
        last, dlast = both(np.ascontiguousarray(x.transpose(swap)), np.ascontiguousarray(dy.transpose(swap)), size=m,
                           mode=mode, align_corners=corners, layout="channels_last")  # fmt: skip
        assert_close(np.moveaxis(last, -1, 1), y, "statistics")
        assert_close(np.moveaxis(dlast, -1, 1), dx, "statistics")


def test_nearest_copies():
    """Bit for bit, NaN, infinities and -0 included; the gradient sums integers exactly."""
    x = np.array([[[1, -0.0, np.nan, np.inf, 5]]], np.float32)
    for mode, m in itertools.product(("nearest", "nearest-exact"), (1, 2, 3, 5, 8, 10, 13)):
        index = reference.resize_matrix(5, m, mode).argmax(1)
        y = nn.functional.interpolate(x, m, mode=mode)
        assert_same_bits(y.data, x[..., index])
        dy = np.arange(m, dtype=np.float32)[None, None]
        _, dx = both(np.ones_like(x), dy, size=m, mode=mode)
        assert_exact(dx, reference.resize_backward(dy, (5,), mode))


def test_an_infinity_reaches_only_what_it_has_a_part_in():
    x = np.array([[[1, np.inf, 3, 4]]], np.float32)
    y = ops.interpolate(x, 7, mode="linear", align_corners=True).data[0, 0]
    assert y.tolist() == [1, np.inf, np.inf, np.inf, 3, 3.5, 4]


@given(st.data())
def test_resizing_is_linear_with_an_adjoint(data):
    """<resize(x), dy> = <x, backward(dy)> on integers (nearest) or closely (smooth); constants stay constant."""
    rank = data.draw(st.integers(1, 3))
    n = tuple(data.draw(st.integers(1, 6)) for _ in range(rank))
    mode = data.draw(st.sampled_from(("nearest", "nearest-exact", "area", SMOOTH[rank])))
    words = {"mode": mode, "align_corners": data.draw(st.booleans()) if mode == SMOOTH[rank] else None}
    if data.draw(st.booleans()):
        words["scale_factor"] = tuple(data.draw(st.sampled_from((1.0, 1.5, 2.0, 2.7, 3))) for _ in range(rank))
        words["recompute_scale_factor"] = data.draw(st.booleans())
    else:
        words["size"] = tuple(data.draw(st.integers(1, 9)) for _ in range(rank))
    rng = rng_for(str((n, words)))
    x = rng.integers(-5, 6, (2, 3, *n)).astype(np.float64)[:, ::-1]
    x.flags.writeable = False
    y = ops.interpolate(x, **words)
    dy = rng.integers(-5, 6, y.shape).astype(np.float64)
    _, dx = both(x, dy, **words)
    assert_close(np.vdot(y.data, dy), np.vdot(x, dx), "statistics", scale=100.0)
    assert_close(ops.interpolate(np.full_like(x, 3), **words).data, np.full(y.shape, 3.0), "statistics")


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear", "bilinear", "trilinear", "bicubic", "area"])
def test_gradients_and_their_gradients(mode):
    rank = {"linear": 1, "trilinear": 3}.get(mode, 2)
    x = fc.Tensor(np.random.default_rng(2).standard_normal((1, 2, *(3, 2, 2)[:rank])), requires_grad=True)
    for words in ({"size": (5, 3, 1)[:rank]}, {"scale_factor": 1.6}):

        def f(x, words=words):
            return ops.interpolate(x, mode=mode, **words) ** 2

        assert fc.gradcheck(f, x) and fc.gradgradcheck(f, x)


def test_results_do_not_depend_on_threads():
    for shape, words in (
        ((4, 16, 60, 70), {"scale_factor": 2.0, "mode": "bilinear"}),
        ((4, 16, 130, 140), {"size": (31, 33), "mode": "bicubic"}),
        ((2, 8, 20, 30, 40), {"scale_factor": 1.7, "mode": "trilinear"}),
    ):
        x = rng_for(f"threads {shape}").standard_normal(shape).astype(np.float32)
        results = []
        for threads in THREADS:
            _core.set_threads(threads)
            y = ops.interpolate(x, **words).data
            results.append((y, both(x, y, **words)[1]))
        for other in results[1:]:
            assert_same_bits(other[0], results[0][0])
            assert_same_bits(other[1], results[0][1])


def test_arrays_of_other_kinds_take_the_formulas():
    x = rng_for("kinds").standard_normal((2, 3, 5, 4))
    for words in ({"size": (3, 9), "mode": "bilinear"}, {"size": (7, 2), "mode": "area"}):
        got = ops.interpolate(x.astype(np.longdouble), **words).data
        assert_close(got, ops.interpolate(x, **words).data, "statistics", dtype="f8")


def test_layers():
    x = rng_for("layers").standard_normal((1, 2, 3, 4)).astype(np.float32)
    assert nn.Upsample(scale_factor=2)(x).shape == (1, 2, 6, 8)
    assert nn.Upsample((5, 6), mode="bilinear", align_corners=True)(x).shape == (1, 2, 5, 6)
    bilinear = ops.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    assert_same_bits(nn.UpsamplingBilinear2d(scale_factor=2)(x).data, bilinear.data)
    assert_same_bits(nn.UpsamplingNearest2d(scale_factor=2)(x).data, np.repeat(np.repeat(x, 2, 2), 2, 3))
    assert repr(nn.Upsample(scale_factor=2, mode="bilinear")) == "Upsample(scale_factor=2, mode='bilinear')"
    assert repr(nn.Upsample(3)) == "Upsample(size=3, mode='nearest')"
    assert ops.interpolate(x.astype(np.float16), 5).dtype == np.float16
    empty = both(x[:0], np.zeros((0, 2, 5, 5), np.float32), size=5, mode="bilinear")
    assert empty[0].shape == (0, 2, 5, 5) and empty[1].shape == (0, 2, 3, 4)


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"size": 3, "mode": "cubic"}, fc.ProblemError, "mode is 'cubic'; expected one of nearest, nearest-exact"),
        ({"size": 3, "mode": "linear"}, fc.ProblemError, "expected 3 dimensions for mode 'linear'"),
        ({}, fc.ProblemError, "size is None, scale_factor None; expected one of the two"),
        ({"size": 3, "scale_factor": 2}, fc.ProblemError, "expected one of the two"),
        ({"size": (3, 3, 3)}, fc.ProblemError, "expected a number or 2, one per spatial axis"),
        ({"size": 0}, fc.ProblemError, "size is 0; expected at least 1"),
        ({"size": 2.5}, TypeError, "size is 2.5; expected an integer"),
        ({"scale_factor": -1.0}, fc.ProblemError, "expected positive numbers"),
        ({"scale_factor": 0.1}, fc.ProblemError, r"makes \(4, 5\) into \(0, 0\)"),
        ({"size": 3, "align_corners": True}, fc.ProblemError, "expected None for mode 'nearest'"),
        ({"size": 3, "antialias": True}, fc.ProblemError, "expected bilinear or bicubic"),
        ({"size": 3, "layout": "nhwc"}, fc.ProblemError, "layout is 'nhwc'"),
    ],
)
def test_refused_in_words(words, error, sentence):
    with pytest.raises(error, match=sentence):
        ops.interpolate(np.ones((1, 2, 4, 5), np.float32), **words)


def test_a_wrong_matrix_is_refused():
    x, one = np.ones((2, 3), np.float32), np.ones(1)
    for first, start in (([3], [0, 1]), ([-1], [0, 1]), ([0], [1, 2]), ([2**62], [0, 1])):
        with pytest.raises(fc.ProblemError, match=r"takes cells that x does not have|weights has shape"):
            _core.resample(x, 1, np.array(first), np.array(start), one)
    with pytest.raises(fc.ProblemError, match="axis is 2"):
        _core.resample(x, 2, np.array([0]), np.array([0, 1]), one)


# ---- PyTorch --------------------------------------------------------------------------------------------------------


def test_nearest_takes_pytorchs_pixels():
    """Every size up to 40: where floor(j n / m) is a whole number, float32 decides, as it does there."""
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    for n, mode in itertools.product(range(1, 41, 3), ("nearest", "nearest-exact")):
        x = np.arange(n, dtype=np.float32)[None, None]
        for m in range(1, 41):
            want = torch.nn.functional.interpolate(torch.tensor(x), m, mode=mode).numpy()
            assert_exact(ops.interpolate(x, m, mode=mode).data, want, f"{mode} {n} {m}")
        for scale in (0.5, 1.1, 1.3, 2.0, 2.3, 3.7):
            if int(n * scale):
                want = torch.nn.functional.interpolate(torch.tensor(x), scale_factor=scale, mode=mode).numpy()
                assert_exact(ops.interpolate(x, scale_factor=scale, mode=mode).data, want, f"{mode} {n} {scale}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_every_mode_is_pytorchs(rank, dtype):
    torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
    n = (6, 7, 5)[:rank]
    x = rng_for(f"parity {rank}").standard_normal((2, 3, *n)).astype(NUMPY_DTYPE[dtype])
    targets = [{"size": (9, 4, 5)[:rank]}, {"size": (1,) * rank}, {"scale_factor": 1.7}, {"scale_factor": 0.6},
               {"scale_factor": (2.0, 0.5, 1.3)[:rank], "recompute_scale_factor": True}]  # fmt: skip
    modes = [{"mode": m} for m in ("nearest", "nearest-exact", "area")]
    for mode in (SMOOTH[rank], *(("bicubic",) if rank == 2 else ())):
        modes += [{"mode": mode}, {"mode": mode, "align_corners": True}, {"mode": mode, "align_corners": False}]
        modes += [{"mode": mode, "antialias": True}] if rank == 2 else []
    for target, mode in itertools.product(targets, modes):
        tensor = torch.tensor(x, requires_grad=True)
        words = {**target, **mode}
        want = torch.nn.functional.interpolate(tensor, **words)
        dy = rng_for("dy").standard_normal(want.shape).astype(x.dtype)
        want.backward(torch.tensor(dy))
        y, dx = both(x, dy, **words)
        assert_close(y, want.detach().numpy(), "parity", scale=1.0, what=str(words))
        assert_close(dx, tensor.grad.numpy(), "parity", scale=1.0, what=f"{words} dx")
