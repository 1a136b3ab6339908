# SPDX-License-Identifier: Apache-2.0
"""What `fc.conv2d` and its family say to arguments: padding words against hand-made padding, and error sentences."""

import types

import numpy as np
import pytest

import fastconv as fc
from fastconv.geometry import conv_geometry
from fastconv.options import current

RNG = np.random.default_rng(7)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


X, W = normal(2, 4, 7, 6), normal(6, 4, 3, 3)


def padding_of(padding, size, filter, stride=1, dilation=1):
    """(pad_begin, pad_end, output size) that a padding word comes to."""
    rank = len(size)
    x_shape, w_shape = (1, 1, *size), (1, 1, *filter)
    g = conv_geometry("conv", rank, x_shape, w_shape, stride, padding, dilation, 1, "channels_first")
    return g.pad_begin, g.pad_end, g.y_shape[2:]


@pytest.mark.parametrize(
    ("word", "size", "filter", "stride", "dilation", "expected"),
    [
        ("valid", (7,), (3,), 1, 1, ((0,), (0,), (5,))),
        ("same", (7,), (3,), 1, 1, ((1,), (1,), (7,))),
        ("same", (7,), (4,), 1, 1, ((1,), (2,), (7,))),
        ("same_lower", (7,), (4,), 1, 1, ((2,), (1,), (7,))),
        ("same", (6,), (3,), 2, 1, ((0,), (1,), (3,))),  # SAME_UPPER: 2*2 + 3 - 6 = 1, at the end
        ("same_lower", (6,), (3,), 2, 1, ((1,), (0,), (3,))),
        ("same", (7,), (3,), 2, 1, ((1,), (1,), (4,))),
        ("same", (5,), (1,), 3, 1, ((0,), (0,), (2,))),  # never negative
        ("same", (7,), (3,), 1, 2, ((2,), (2,), (7,))),
        ("full", (7,), (3,), 1, 2, ((4,), (4,), (11,))),
        ("causal", (7,), (3,), 1, 2, ((4,), (0,), (7,))),
        ("same", (6, 7), (3, 4), (2, 1), 1, ((0, 1), (1, 2), (3, 7))),
        (((1, 2), (0, 3)), (5, 5), (3, 3), 1, 1, ((1, 0), (2, 3), (6, 6))),
        ((1, (0, 2)), (5, 5), (3, 3), 1, 1, ((1, 0), (1, 2), (5, 5))),
        ([2, 1], (5, 5), (3, 3), 1, 1, ((2, 1), (2, 1), (7, 5))),
        (2, (5, 5, 5), (3, 3, 3), 1, 1, ((2, 2, 2), (2, 2, 2), (7, 7, 7))),
    ],
)
def test_padding_words(word, size, filter, stride, dilation, expected):
    assert padding_of(word, size, filter, stride, dilation) == expected


@pytest.mark.parametrize("padding", ["same", "same_lower", "full", ((2, 0), (1, 3))])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_equals_a_padded_copy(padding, stride):
    begin, end, _ = padding_of(padding, (7, 6), (3, 3), stride)
    padded = np.pad(X, ((0, 0), (0, 0), (begin[0], end[0]), (begin[1], end[1])))
    np.testing.assert_allclose(fc.conv2d(X, W, None, stride, padding), fc.conv2d(padded, W, None, stride), atol=1e-5)


def test_causal_sees_the_past_only():
    x, w = normal(1, 2, 9), normal(3, 2, 3)
    later = x.copy()
    later[..., 5:] += 1
    before, after = (fc.conv1d(a, w, padding="causal", dilation=2) for a in (x, later))
    np.testing.assert_array_equal(before[..., :5], after[..., :5])
    assert (before[..., 5:] != after[..., 5:]).all()


def test_unbatched_is_the_batch_of_one():
    b, r = normal(6), normal(2, 6, 5, 4)
    y = fc.conv2d(X, W, b, residual=r)
    np.testing.assert_allclose(fc.conv2d(X[1], W, b, residual=r[1]), y[1], atol=1e-5)
    dy = normal(6, 5, 4)
    dx, dw, db = fc.conv2d_backward(dy, X[0], W)
    dx1, dw1, db1 = fc.conv2d_backward(dy[None], X[:1], W)
    assert dx.shape == X[0].shape
    for a, e in ((dx, dx1[0]), (dw, dw1), (db, db1)):
        np.testing.assert_allclose(a, e, atol=1e-5)
    assert fc.max_pool2d(X[0], 2).shape == (4, 3, 3)
    dx = fc.avg_pool2d_backward(np.ones((4, 3, 3), np.float32), X[0].shape, 2)
    assert dx.shape == X[0].shape


def test_out_is_written_and_returned():
    out = np.full((2, 6, 5, 4), np.nan, np.float32)
    assert fc.conv2d(X, W, out=out) is out
    np.testing.assert_array_equal(out, fc.conv2d(X, W))
    image = np.full((6, 5, 4), np.nan, np.float32)
    assert fc.conv2d(X[0], W, out=image) is image
    assert not np.isnan(image).any()


def test_needs_are_respected():
    dx, dw, db = fc.conv2d_backward(normal(2, 6, 5, 4), X, W, needs=(False, True, False))
    assert dx is None and db is None and dw.shape == W.shape


def test_channels_last_agrees():
    y = fc.conv2d(np.ascontiguousarray(np.moveaxis(X, 1, -1)), W, padding=1, layout="channels_last")
    np.testing.assert_allclose(np.moveaxis(y, -1, 1), fc.conv2d(X, W, padding=1), atol=1e-5)
    dy = normal(2, 5, 4, 6)
    first = fc.conv2d_backward(np.moveaxis(dy, -1, 1), X, W)
    last = fc.conv2d_backward(dy, np.moveaxis(X, 1, -1), W, layout="channels_last")
    np.testing.assert_allclose(np.moveaxis(last[0], -1, 1), first[0], atol=1e-5)
    np.testing.assert_allclose(last[1], first[1], atol=1e-4)
    np.testing.assert_allclose(last[2], first[2], atol=1e-5)


def test_plan_takes_any_batch():
    b = normal(6)
    plan = fc.plan(W, b, x_shape=X.shape, padding="same", activation=("leaky_relu", 0.2))
    for x in (X, X[:1], normal(5, 4, 7, 6)):
        expected = fc.conv2d(x, W, b, padding="same", activation=("leaky_relu", 0.2))
        np.testing.assert_allclose(plan(x), expected, atol=1e-5)


FAKE_CUPY = type("ndarray", (), {"__module__": "cupy._core.core", "shape": (1,), "dtype": np.dtype("f4")})
FAKE_TORCH = type("Tensor", (), {"__module__": "torch", "shape": (1,), "dtype": "torch.float32"})

BAD_CALLS = [
    (
        lambda: fc.conv2d(normal(1, 64, 8, 8), normal(32, 32, 3, 3)),
        fc.ProblemError,
        "conv2d: w has 32 channels per group, x has 64 and groups=1; expected w of shape (K, 64, R, S)",
    ),
    (lambda: fc.conv2d(X, W, groups=3), fc.ProblemError, "conv2d: groups=3 does not divide the 4 channels of x"),
    (
        lambda: fc.conv2d(X, normal(3, 2, 3, 3), groups=2),
        fc.ProblemError,
        "groups=2 does not divide the 3 filters of w",
    ),
    (lambda: fc.conv2d(X, W, groups=0), fc.ProblemError, "groups is 0; expected at least 1"),
    (
        lambda: fc.conv2d(X, W[0]),
        fc.ProblemError,
        "conv2d: w has 3 dimensions, shape (4, 3, 3); expected (K, C/groups, R, S)",
    ),
    (lambda: fc.conv2d(X[0, 0], W), fc.ProblemError, "conv2d: x has 2 dimensions, shape (7, 6); expected (N, C, H, W)"),
    (lambda: fc.conv1d(X, W), fc.ProblemError, "conv1d: x has 4 dimensions"),
    (lambda: fc.conv2d(X, W, normal(4)), fc.ProblemError, "conv2d: bias has shape (4,); expected (6,)"),
    (
        lambda: fc.conv2d(X, W, residual=normal(2, 6, 5, 5)),
        fc.ProblemError,
        "residual has shape (2, 6, 5, 5); expected (2, 6, 5, 4)",
    ),
    (
        lambda: fc.conv2d(X, W, out=normal(2, 6, 5, 5)),
        fc.ProblemError,
        "out has shape (2, 6, 5, 5); expected (2, 6, 5, 4)",
    ),
    (lambda: fc.conv2d(X, W, stride=0), fc.ProblemError, "conv2d: stride is 0; expected at least 1"),
    (
        lambda: fc.conv2d(X, W, stride=(1, 2, 3)),
        fc.ProblemError,
        "stride has 3 entries; expected an int or 2, one per axis",
    ),
    (lambda: fc.conv2d(X, W, stride=1.5), TypeError, "conv2d: stride is 1.5; expected an integer"),
    (lambda: fc.conv2d(X, W, padding=-1), fc.ProblemError, "conv2d: padding is -1; expected at least 0"),
    (
        lambda: fc.conv2d(X, W, padding="some"),
        fc.ProblemError,
        "padding is 'some'; expected a number, a tuple or one of 'valid'",
    ),
    (lambda: fc.conv2d(X, W, padding="causal"), fc.ProblemError, "padding is 'causal'"),
    (lambda: fc.conv2d(X, W, padding=(1, 1, 1)), fc.ProblemError, "padding has 3 entries"),
    (lambda: fc.conv1d(normal(1, 2, 5), normal(1, 2, 3), padding=(1, 2)), fc.ProblemError, "write padding=((1, 2),)"),
    (lambda: fc.conv2d(X, W, dilation=4), fc.ProblemError, "the filter spans 9 along h, x has 7 and padding adds 0"),
    (lambda: fc.conv2d(X, W, padding_mode="mirror"), fc.ProblemError, "padding_mode is 'mirror'; expected one of"),
    (lambda: fc.conv2d(X, W, layout="nhwc"), fc.ProblemError, "layout is 'nhwc'; expected one of"),
    (
        lambda: fc.conv2d(X, W, activation="swush"),
        fc.UnsupportedError,
        "activation 'swush' is not known; known: none, relu",
    ),
    (lambda: fc.conv2d(X, W, activation=("relu", 2)), fc.ProblemError, "activation 'relu' takes no parameter, got 2"),
    (lambda: fc.conv2d(X, W, activation=3), TypeError, "activation is 3; expected None, a name or (name, number)"),
    (
        lambda: fc.conv2d(X.astype(int), W),
        TypeError,
        "conv2d: x has dtype int64; expected float32, float64, float16 or bfloat16: use x.astype",
    ),
    (lambda: fc.conv2d(X, W.astype("f8")), TypeError, "w has dtype float64, the argument before it float32"),
    (
        lambda: fc.conv2d(X, W, normal(6, dtype="f8")),
        TypeError,
        "bias has dtype float64, the argument before it float32",
    ),
    (lambda: fc.conv2d(X.astype("g"), W), fc.UnsupportedError, "float32, float64, float16 and bfloat16 work"),
    (lambda: fc.conv2d(X.tolist(), W), TypeError, "x is a list; expected a NumPy array"),
    (
        lambda: fc.conv2d(FAKE_CUPY(), W),
        fc.DeviceError,
        "conv2d: x is in a device's memory, and ",
    ),
    (
        lambda: fc.conv2d_backward_data(FAKE_TORCH(), W, X.shape),  # fc.conv2d takes it: tests/test_torch_patch.py
        TypeError,
        "dy is a torch tensor; expected a NumPy array: use dy.detach().numpy()",
    ),
    (
        lambda: fc.conv2d_backward(normal(2, 6, 5, 5), X, W),
        fc.ProblemError,
        "dy has shape (2, 6, 5, 5); expected (2, 6, 5, 4)",
    ),
    (
        lambda: fc.conv2d_backward(normal(2, 6, 5, 4), X, W, needs=(True,)),
        fc.ProblemError,
        "needs has 1 entries; expected 3",
    ),
    (
        lambda: fc.max_pool2d(X, 2, padding=2),
        fc.ProblemError,
        "padding is 2 along h, the window spans 2; expected less",
    ),
    (lambda: fc.max_pool2d(X, 9), fc.ProblemError, "the window spans 9 along h, x has 7"),
    (lambda: fc.avg_pool2d(X, 0), fc.ProblemError, "avg_pool2d: kernel_size is 0; expected at least 1"),
    (
        lambda: fc.max_pool2d_backward(normal(2, 4, 3, 3), np.zeros((2, 4, 3, 3), np.int32), X.shape),
        TypeError,
        "indices is int32; expected the int64 array that return_indices=True gives",
    ),
    (
        lambda: fc.plan(W, x_shape=(4, 7, 6)),
        fc.ProblemError,
        "plan: x_shape is (4, 7, 6); expected 4 numbers, with the batch axis",
    ),
    (lambda: fc.explain(X), fc.ProblemError, "explain: w is missing"),
]


@pytest.mark.parametrize(("call", "error", "sentence"), BAD_CALLS, ids=[s[:40] for _, _, s in BAD_CALLS])
def test_bad_arguments_get_their_sentence(call, error, sentence):
    with pytest.raises(error) as caught:
        call()
    assert sentence in str(caught.value)


def test_a_refused_call_is_refused_again():
    for _ in range(2):  # the cache of shapes must not remember errors as results
        with pytest.raises(fc.ProblemError, match="groups=3"):
            fc.conv2d(X, W, groups=3)


def test_options_nest_and_end():
    start = current()
    assert current() is start
    with fc.options(threads=1):
        with fc.options(precision="strict"):
            inner = current()
            assert (inner.threads, inner.precision) == (1, 1.0)
            assert current() is inner
        assert current().precision == 8.0
    assert current() is start


def test_set_options_holds_until_changed():
    fc.set_options(batch_invariant=True)
    try:
        assert current().batch_invariant
        with fc.options(threads=2):
            assert current().batch_invariant
    finally:
        fc.set_options(batch_invariant=False)
    assert not current().batch_invariant


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"speed": 3}, TypeError, "options: unknown speed; known: algorithm, precision"),
        ({"precision": "sloppy"}, fc.ProblemError, "precision is 'sloppy'"),
        ({"precision": 0.5}, fc.ProblemError, "precision is 0.5; expected an error factor of at least 1"),
        ({"threads": -1}, fc.ProblemError, "threads is -1"),
        ({"max_workspace": -5}, fc.ProblemError, "max_workspace is -5"),
    ],
)
def test_bad_options(changes, error, sentence):
    with pytest.raises(error) as caught, fc.options(**changes):
        pass
    assert sentence in str(caught.value)


def test_an_unknown_algorithm_is_refused_when_used():
    with pytest.raises(fc.ProblemError):
        fc.conv2d(X, W, algorithm="no_such_algorithm")


def test_trace_lists_what_ran():
    with fc.trace() as t:
        fc.conv2d(X, W, algorithm="reference")
    assert [call["algorithm"] for call in t.calls] == ["reference"]
    assert t.calls[0]["seconds"] > 0
    assert t.table().splitlines()[0].split() == ["calls", "total", "ms", "algorithm", "problem"]


def test_explain_measures_every_usable_algorithm():
    found = fc.explain(X, W, padding=1, measure=True, budget=0.5)
    rows = {row["name"]: row for row in found.to_dict()["algorithms"]}
    assert sum(row["chosen"] for row in rows.values()) == 1
    reference = rows["reference"]
    assert reference["supported"] and reference["measured_s"] > 0
    assert 0 < reference["rms_error"] <= reference["max_error"] < 1e-6
    assert all(row["reason"] for row in rows.values() if not row["supported"])
    assert max(map(len, str(found).splitlines())) <= 120
    text = "fwd n1 c4 h9 w9 k8 r3 s3 stride1 pad1 dil1 g1 nchw f32"
    assert fc.explain(text).chosen == fc.explain(fc.ConvProblem.parse(text)).chosen


def test_info_prints_and_reads():
    found = fc.info()
    assert found["version"] == fc.__version__ and "reference" in str(found)
    assert isinstance(fc.cache_info(), dict)


def test_manual_seed_repeats_and_state_restores():
    fc.manual_seed(3)
    first = fc.random.generator().random(4)
    state = fc.random.get_state()
    second = fc.random.generator().random(4)
    fc.random.set_state(state)
    np.testing.assert_array_equal(fc.random.generator().random(4), second)
    fc.manual_seed(3)
    np.testing.assert_array_equal(fc.random.generator().random(4), first)
    with pytest.raises(ValueError, match="'MT19937'"):
        fc.random.set_state({"bit_generator": "MT19937"})


def test_lazy_modules_are_listed():
    assert isinstance(fc.nn, types.ModuleType) and isinstance(fc.optim, types.ModuleType)
    assert {"nn", "conv2d", "gradcheck"} <= set(dir(fc))
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = fc.no_such_name
