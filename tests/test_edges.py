# SPDX-License-Identifier: Apache-2.0
"""The public convolutions on awkward shapes and arrays, and what they say about arguments that make no sense."""

import time

import numpy as np
import pytest

import fastconv as fc
from cases import isas, rng_for
from fastconv import reference
from tolerance import assert_exact, assert_same_bits


def integers(*shape, dtype=np.float32):
    return rng_for(str(shape)).integers(-3, 4, shape).astype(dtype)


X, W = integers(2, 4, 7, 8), integers(6, 4, 3, 3)
Y = fc.conv2d(X, W, padding=1, algorithm="reference")


@pytest.fixture(autouse=True)
def plain_sums():
    """Integers come out exactly: transforms round, and the memory order has a say in the choice."""
    with fc.options(precision="strict"):
        yield


def test_batch_of_zero():
    x, dy = X[:0], Y[:0]
    assert fc.conv2d(x, W, padding=1).shape == (0, 6, 7, 8)
    dx, dw, db = fc.conv2d_backward(dy, x, W, padding=1)
    assert dx.shape == x.shape
    assert_exact(dw, np.zeros_like(W))
    assert_exact(db, np.zeros(6, np.float32))
    assert_exact(fc.conv2d_backward_filter(dy, x, W.shape, padding=1), np.zeros_like(W))
    assert fc.max_pool2d(x, 2).shape == (0, 4, 3, 4)
    assert fc.avg_pool2d(x, 2).shape == (0, 4, 3, 4)


def test_one_pixel():
    x, w = integers(1, 3, 1, 1), integers(2, 3, 1, 1)
    assert_exact(fc.conv2d(x, w), np.einsum("nchw,kc->nkhw", x, w[:, :, 0, 0]))
    w = integers(2, 3, 3, 3)
    assert_exact(fc.conv2d(x, w, padding=1), np.einsum("nchw,kc->nkhw", x, w[:, :, 1, 1]))


def awkward(a):
    """The same values as `a`, each time in memory of another kind."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    yield "every second column", wide[..., ::2]
    yield "negative strides", a[..., ::-1, ::-1].copy()[..., ::-1, ::-1]
    yield "negative batch stride", a[::-1].copy()[::-1]
    yield "Fortran order", np.asfortranarray(a)
    yield "channels last strides", np.ascontiguousarray(np.moveaxis(a, 1, -1)).transpose(0, 3, 1, 2)
    more = np.zeros((a.shape[0], a.shape[1] + 3, *a.shape[2:]), a.dtype)
    more[:, 1:-2] = a
    yield "slice of channels", more[:, 1:-2]
    buffer = np.zeros(a.nbytes + 1, np.uint8)
    unaligned = buffer[1:].view(a.dtype).reshape(a.shape)
    unaligned[...] = a
    yield "unaligned", unaligned
    fixed = a.copy()
    fixed.flags.writeable = False
    yield "read-only", fixed


def test_arrays_of_any_memory_order():
    dy = integers(*Y.shape)
    expected = [
        Y,
        fc.conv2d_backward_data(dy, W, X.shape, padding=1),
        fc.conv2d_backward_filter(dy, X, W.shape, padding=1),
    ]
    assert_exact(Y, reference.conv(X, W, padding=1))
    for kind, x in awkward(X):
        assert_same_bits(fc.conv2d(x, W, padding=1), expected[0], f"x: {kind}")
        assert_same_bits(fc.conv2d_backward_filter(dy, x, W.shape, padding=1), expected[2], f"x: {kind}")
    for kind, w in awkward(W):
        assert_same_bits(fc.conv2d(X, w, padding=1), expected[0], f"w: {kind}")
        assert_same_bits(fc.conv2d_backward_data(dy, w, X.shape, padding=1), expected[1], f"w: {kind}")
    for kind, g in awkward(dy):
        assert_same_bits(fc.conv2d_backward_data(g, W, X.shape, padding=1), expected[1], f"dy: {kind}")
        assert_same_bits(fc.conv2d_backward_filter(g, X, W.shape, padding=1), expected[2], f"dy: {kind}")
    for kind, x in awkward(X):
        assert_exact(fc.max_pool2d(x, 3, 2), reference.max_pool(X, 3, 2)[0], f"max_pool2d: {kind}")
        assert_exact(fc.avg_pool2d(x, 2), reference.avg_pool(X, 2), f"avg_pool2d: {kind}")


@pytest.mark.parametrize("isa", isas())
def test_depthwise_channels_of_equal_data_are_equal(isa):
    """The first and the last planes, next to which there is no memory to read, as those between; rows of 1 to 40 cells.

    An infinite gradient meets padding: what it does there, it does in every channel.
    """
    rng = rng_for("equal channels")
    for width in (1, 3, 14, 16, 17, 28, 40):
        plane, slope = (rng.standard_normal((1, 1, 9, width)).astype(np.float32) for _ in range(2))
        for corner in (0.5, np.inf, np.nan):
            slope[..., 0, 0] = slope[..., -1, -1] = corner
            x, dy = (np.repeat(np.repeat(a, 6, axis=1), 3, axis=0) for a in (plane, slope))
            with fc.options(isa=isa, algorithm="depthwise"):
                dw = fc.conv2d_backward_filter(dy, x, (6, 1, 3, 3), padding=1, groups=6)
            assert_same_bits(dw, np.repeat(dw[:1], 6, axis=0), f"{width} {corner}")
            expected = fc.conv2d_backward_filter(dy, x, (6, 1, 3, 3), padding=1, groups=6, algorithm="reference")
            finite = np.isfinite(dw)
            np.testing.assert_allclose(dw[finite], expected[finite], rtol=1e-5, atol=1e-5)
            assert not (finite & ~np.isfinite(expected)).any()


def test_bias_and_residual_of_any_memory_order():
    bias, residual = integers(12)[::2], integers(*Y.shape)
    expected = reference.conv(X, W, bias, padding=1, residual=residual)
    for kind, r in awkward(residual):
        assert_exact(fc.conv2d(X, W, bias, padding=1, residual=r), expected, kind)


def test_out_is_written_in_place_or_refused():
    out = np.full_like(Y, np.nan)
    assert fc.conv2d(X, W, padding=1, out=out) is out
    assert_exact(out, Y)
    one = np.full_like(Y[0], np.nan)
    assert fc.conv2d(X[0], W, padding=1, out=one) is one
    assert_exact(one, Y[0])
    for kind, awkward_out in awkward(out):
        if not (awkward_out.flags.c_contiguous and awkward_out.flags.aligned):
            with pytest.raises(fc.ProblemError, match="out is not a C-contiguous, aligned array"):
                fc.conv2d(X, W, padding=1, out=awkward_out)
                raise AssertionError(kind)


def test_unbatched():
    for i in range(len(X)):
        assert_same_bits(fc.conv2d(X[i], W, padding=1), Y[i])
    assert_exact(fc.conv1d(X[0, :, 0], W[:, :, 0]), reference.conv(X[:1, :, 0], W[:, :, 0])[0])
    volume, filters = integers(3, 4, 5, 6), integers(2, 3, 2, 2, 2)
    assert_exact(fc.conv3d(volume, filters), reference.conv(volume[None], filters)[0])


def test_channels_last():
    x = np.ascontiguousarray(np.moveaxis(X, 1, -1))
    assert_exact(fc.conv2d(x, W, padding=1, layout="channels_last"), np.moveaxis(Y, 1, -1))


@pytest.mark.parametrize(
    ("word", "stride", "pads"),
    [
        ("valid", 1, ((0, 0), (0, 0))),
        ("same", 1, ((1, 1), (1, 1))),
        ("same", 2, ((1, 1), (0, 1))),
        ("same_lower", 2, ((1, 1), (1, 0))),
        ("full", 1, ((2, 2), (2, 2))),
    ],
)
def test_padding_words(word, stride, pads):
    """7 x 8 with a 3 x 3 filter; 'same' with a stride is ONNX's SAME_UPPER."""
    assert_exact(fc.conv2d(X, W, stride=stride, padding=word), reference.conv(X, W, stride=stride, padding=pads))


def test_causal_padding_sees_the_past_only():
    x, w = integers(1, 2, 9), integers(3, 2, 4)
    y = fc.conv1d(x, w, padding="causal", dilation=2)
    assert_exact(y, reference.conv(x, w, padding=((6, 0),), dilation=2))
    later = x.copy()
    later[..., 5:] += 1
    assert_exact(fc.conv1d(later, w, padding="causal", dilation=2)[..., :5], y[..., :5])


@pytest.mark.parametrize("mode", ["zeros", "constant", "reflect", "replicate", "circular"])
def test_padding_modes_and_their_gradients(mode):
    words = {"padding": ((1, 2), (2, 0)), "stride": (1, 2), "padding_mode": mode}
    value = {"pad_value": 3.0} if mode == "constant" else {}
    y = fc.conv2d(X, W, **words, **value)
    assert_exact(y, reference.conv(X, W, **words, **value))
    dy = integers(*y.shape)
    dx = fc.conv2d_backward_data(dy, W, X.shape, **words)
    assert_exact(dx, reference.conv_backward_data(dy, W, X.shape, **words))
    dw = fc.conv2d_backward_filter(dy, X, W.shape, **words, **value)
    assert_exact(dw, reference.conv_backward_filter(dy, X, W.shape, **words, **value))


def test_backward_gives_what_is_needed():
    dy = integers(*Y.shape)
    dx, dw, db = fc.conv2d_backward(dy, X, W, 1, 1)
    assert_exact(dx, reference.conv_backward_data(dy, W, X.shape, padding=1))
    assert_exact(dw, reference.conv_backward_filter(dy, X, W.shape, padding=1))
    assert_exact(db, dy.sum(axis=(0, 2, 3)))
    only = fc.conv2d_backward(dy, X, W, 1, 1, needs=(False, True, False))
    assert only[0] is None and only[2] is None
    assert_exact(only[1], dw)


def test_plan_serves_any_batch_and_takes_new_weights():
    plan = fc.plan(W, x_shape=X.shape, padding=1)
    for n in (0, 1, 2):
        assert_exact(plan(X[:n].copy()), Y[:n])
    plan.update(-W)
    assert_exact(plan(X), -Y)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8, bool, np.complex64])
def test_dtypes_that_are_not_floats(dtype):
    with pytest.raises(TypeError, match=r"conv2d: x .*astype"):
        fc.conv2d(X.astype(dtype), W)
    with pytest.raises(TypeError, match=r"conv2d: w .*astype"):
        fc.conv2d(X, W.astype(dtype))


def test_mixed_dtypes():
    with pytest.raises(TypeError, match=r"conv2d: w has dtype float64.*float32.*astype"):
        fc.conv2d(X, W.astype(np.float64))
    with pytest.raises(TypeError, match=r"conv2d: bias has dtype float64.*astype"):
        fc.conv2d(X, W, np.zeros(6))
    with pytest.raises(TypeError, match=r"conv2d_backward_data: .*astype"):
        fc.conv2d_backward_data(Y, W.astype(np.float64), X.shape, padding=1)


@pytest.mark.parametrize("x", [[[1.0]], 3, None, "x"])
def test_things_that_are_no_arrays(x):
    with pytest.raises(TypeError, match="conv2d: x"):
        fc.conv2d(x, W)


FLOAT = np.float32
BAD_ARGUMENTS = {
    "w's channels": (
        lambda: fc.conv2d(np.zeros((1, 64, 8, 8), FLOAT), np.zeros((4, 32, 3, 3), FLOAT)),
        r"conv2d: w has 32 channels per group, x has 64 and groups=1; expected w of shape \(K, 64, R, S\)",
    ),
    "w's rank": (lambda: fc.conv2d(X, W[0]), r"conv2d: w has 3 dimensions.*expected \(K, C/groups, R, S\)"),
    "x's rank": (lambda: fc.conv2d(X[0, 0], W), r"conv2d: x has 2 dimensions"),
    "groups": (lambda: fc.conv2d(X, W, groups=3), "conv2d: groups=3 does not divide the 4 channels of x"),
    "groups of w": (lambda: fc.conv2d(X, W[:5, :2], groups=2), "conv2d: groups=2 does not divide the 5 filters of w"),
    "groups zero": (lambda: fc.conv2d(X, W, groups=0), "conv2d: groups is 0; expected at least 1"),
    "bias": (lambda: fc.conv2d(X, W, np.zeros(5, FLOAT)), r"conv2d: bias has shape \(5,\); expected \(6,\)"),
    "residual": (lambda: fc.conv2d(X, W, residual=Y), r"conv2d: residual has shape .*; expected \(2, 6, 5, 6\)"),
    "stride": (lambda: fc.conv2d(X, W, stride=0), "conv2d: stride is 0; expected at least 1"),
    "stride's length": (lambda: fc.conv2d(X, W, stride=(1, 1, 1)), "conv2d: stride has 3 entries"),
    "dilation": (lambda: fc.conv2d(X, W, dilation=-1), "conv2d: dilation is -1; expected at least 1"),
    "padding": (lambda: fc.conv2d(X, W, padding=-1), "conv2d: padding is -1; expected at least 0"),
    "padding's word": (lambda: fc.conv2d(X, W, padding="half"), "conv2d: padding is 'half'; expected .*'same'"),
    "filter too large": (lambda: fc.conv2d(X, W, dilation=4), "conv2d: the filter spans 9 along h, x has 7"),
    "padding_mode": (lambda: fc.conv2d(X, W, padding_mode="mirror"), "conv2d: padding_mode is 'mirror'.*reflect"),
    "reflect too far": (lambda: fc.conv2d(X, W, padding=7, padding_mode="reflect"), "reflect"),
    "layout": (lambda: fc.conv2d(X, W, layout="NHWC"), "conv2d: layout is 'NHWC'; expected .*channels_last"),
    "out's shape": (lambda: fc.conv2d(X, W, out=Y), "conv2d: out has shape"),
    "dy's shape": (lambda: fc.conv2d_backward_data(Y, W, X.shape), "conv2d_backward_data: dy has shape"),
    "x_shape": (lambda: fc.conv2d_backward_data(Y, W, (2, 5, 7, 8), padding=1), "conv2d_backward_data: .*channels"),
    "w_shape": (lambda: fc.conv2d_backward_filter(Y, X, (6, 3, 3, 3), padding=1), "conv2d_backward_filter: .*channels"),
    "problem text": (lambda: fc.ConvProblem.parse("fwd n1 c1"), "problem text"),
}


@pytest.mark.parametrize("name", BAD_ARGUMENTS)
def test_bad_argument_is_a_problem_error_in_words(name):
    call, sentence = BAD_ARGUMENTS[name]
    with pytest.raises(fc.ProblemError, match=sentence):
        call()


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises((fc.ProblemError, fc.UnsupportedError), match=r"activation 'swish'.*silu"):
        fc.conv2d(X, W, activation="swish")
    with pytest.raises((fc.ProblemError, fc.UnsupportedError), match=r"quick.*reference"):
        fc.conv2d(X, W, algorithm="quick")


def test_a_named_algorithm_never_falls_back():
    with pytest.raises(fc.UnsupportedError, match="pointwise_1x1"):
        fc.conv2d(X, W, algorithm="pointwise_1x1")


def test_workspace_limit_is_an_error_of_its_own():
    needed = {row["name"]: row["workspace_bytes"] for row in fc.algorithms("fwd n2 c4 h7 w8 k6 r3 s3 pad1")}
    assert needed["im2col_gemm"] > 0
    with fc.options(algorithm="im2col_gemm", max_workspace=1), pytest.raises(fc.WorkspaceError, match="im2col_gemm"):
        fc.conv2d(X, W, padding=1)
    with fc.options(max_workspace=0):
        assert_exact(fc.conv2d(X, W, padding=1), Y)


def test_read_only_out():
    out = np.zeros_like(Y)
    out.flags.writeable = False
    with pytest.raises(ValueError, match=r"conv2d: out is read-only"):
        fc.conv2d(X, W, padding=1, out=out)


@pytest.mark.parametrize("name", ["grouped", "direct"])
def test_gradients_of_nan_take_no_longer(name):
    """Weights that are not finite are summed again, term by term, but not for long: NaN stays NaN."""
    x = rng_for("nan").standard_normal((4, 3, 96, 96)).astype(np.float32)
    seconds = {}
    for value in (1.0, np.nan):
        dy = np.full((4, 32, 96, 96), value, np.float32)
        samples = []
        for _ in range(3):
            start = time.perf_counter()
            dw = fc.conv2d_backward_filter(dy, x, (32, 3, 3, 3), padding=1, algorithm=name)
            samples.append(time.perf_counter() - start)
        assert np.isnan(dw).all() == np.isnan(value)
        seconds[value] = min(samples)
    assert seconds[np.nan] < 20 * seconds[1.0]  # it was 100 and more
