# SPDX-License-Identifier: Apache-2.0
"""The other kernels of a training step against the reference, in both dtypes and on sizes around the vector widths."""

import numpy as np
import pytest

from cases import NUMPY_DTYPE, rng_for
from fastconv import _core, reference
from tolerance import assert_bound, assert_close, assert_exact

SHAPES = [(0, 3, 2), (1, 1, 1), (2, 3, 5), (3, 17, 4, 5), (2, 7, 33), (1, 64, 3, 3, 3)]

pytestmark = pytest.mark.parametrize("dtype", ["f32", "f64"])


def normal(text, *shapes, dtype):
    rng = rng_for(text)
    return [rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]


def test_add_scale_mask_and_channel_sum(dtype):
    for shape in SHAPES:
        a, b = normal(f"add{shape}", shape, shape, dtype=dtype)
        assert_exact(_core.add(a, b), a + b)
        mask = b > 0
        assert_exact(_core.scale_mask(a, mask, 2.0), np.where(mask, a * 2, 0))
        axes = (0, *range(2, a.ndim))
        wide = a.astype(np.longdouble)
        terms = a.size // a.shape[1]
        assert_bound(_core.channel_sum(a), wide.sum(axes), np.abs(wide).sum(axes), terms, what=f"channel_sum {shape}")


@pytest.mark.parametrize("shape", SHAPES[1:])
def test_batch_norm(shape, dtype):
    x, dy, gamma, beta = normal(f"bn{shape}", shape, shape, shape[1], shape[1], dtype=dtype)
    x = x * 3 + 5
    eps = 1e-3
    y, mean, variance = _core.batch_norm_forward(x, gamma, beta, eps)
    expected = reference.batch_norm(x, gamma, beta, eps)
    for got, want, name in zip((y, mean, variance), expected, ("y", "mean", "variance"), strict=True):
        assert_close(got, want, "statistics", what=f"batch norm {name} {shape}")
    still = _core.batch_norm_inference(x, gamma, beta, mean, variance, eps)
    assert_close(still, reference.batch_norm_inference(x, gamma, beta, mean, variance, eps), "statistics")
    got = _core.batch_norm_backward(dy, x, gamma, mean, variance, eps)
    want = reference.batch_norm_backward(dy, x, gamma, eps)
    for a, b, name in zip(got, want, ("dx", "dgamma", "dbeta"), strict=True):
        assert_close(a, b, "statistics", what=f"batch norm {name} {shape}")


def test_batch_norm_of_a_large_mean(dtype):
    """A variance as E[x^2] - E[x]^2 would lose every digit here."""
    (x,) = normal("large mean", (4, 3, 40, 50), dtype=dtype)
    x = x + 1000
    _, mean, variance = _core.batch_norm_forward(x, np.ones(3, x.dtype), np.zeros(3, x.dtype), 1e-5)
    _, expected_mean, expected = reference.batch_norm(x, np.ones(3), np.zeros(3))
    assert_close(mean, expected_mean, "statistics")
    assert_close(variance, expected, "statistics")


@pytest.mark.parametrize("sizes", [(0, 3, 2), (1, 1, 1), (5, 17, 9), (33, 40, 14), (64, 400, 120), (2, 1000, 10)])
def test_dense(sizes, dtype):
    n, inputs, outputs = sizes
    x, w, bias, dy = normal(f"dense{sizes}", (n, inputs), (outputs, inputs), outputs, (n, outputs), dtype=dtype)
    wide = [a.astype(np.longdouble) for a in (x, w, bias, dy)]
    size = [np.abs(a) for a in wide]
    y = _core.dense_forward(x, w, bias)
    assert_bound(y, wide[0] @ wide[1].T + wide[2], size[0] @ size[1].T + size[2], inputs + 1, what=f"dense {sizes}")
    assert_bound(_core.dense_forward(x, w, None), wide[0] @ wide[1].T, size[0] @ size[1].T, inputs)
    assert_bound(_core.dense_backward_data(dy, w), wide[3] @ wide[1], size[3] @ size[1], outputs, what="dx")
    assert_bound(_core.dense_backward_filter(dy, x), wide[3].T @ wide[0], size[3].T @ size[0], n, what="dw")


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (3, 10), (7, 33), (2, 1000)])
def test_softmax_and_cross_entropy(shape, dtype):
    (x,) = normal(f"loss{shape}", shape, dtype=dtype)
    x *= 20
    labels = np.arange(shape[0], dtype=np.int64) % shape[1]
    assert_close(_core.softmax_forward(x), reference.softmax(x), "statistics")
    loss, probabilities = _core.cross_entropy_forward(x, labels)
    expected_loss, expected = reference.cross_entropy(x, labels)
    assert_close(loss, expected_loss, "statistics")
    assert_close(probabilities, expected, "statistics")
    dloss = np.linspace(1, 2, shape[0]).astype(x.dtype)
    dx = _core.cross_entropy_backward(dloss, probabilities, labels)
    assert_close(dx, reference.cross_entropy_backward(dloss, x, labels), "statistics")


def test_softmax_of_large_logits(dtype):
    x = np.array([[1000, 999, -1000], [-1000, -1001, -1002]], NUMPY_DTYPE[dtype])
    assert_close(_core.softmax_forward(x), reference.softmax(x), "statistics")
    loss, _ = _core.cross_entropy_forward(x, np.array([2, 0]))
    assert_close(loss, reference.cross_entropy(x, [2, 0])[0], "statistics")


def test_a_label_out_of_range_is_refused(dtype):
    logits = np.zeros((2, 3), NUMPY_DTYPE[dtype])
    for label in (3, -1):
        with pytest.raises(ValueError, match=str(label)):
            _core.cross_entropy_forward(logits, np.array([0, label]))


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd(nesterov, weight_decay, dtype):
    w, g, velocity = normal("sgd", (5, 7), (5, 7), (5, 7), dtype=dtype)
    expected = reference.sgd_step(w, g, velocity, 0.1, 0.9, weight_decay, nesterov)
    plain = w.copy()
    _core.sgd_step(w, g, velocity, 0.1, 0.9, weight_decay, nesterov)
    assert_close(w, expected[0], "pointwise")
    assert_close(velocity, expected[1], "pointwise")
    expected = reference.sgd_step(plain, g, None, 0.1, 0.0, weight_decay, False)[0]
    _core.sgd_step(plain, g, None, 0.1, 0.0, weight_decay, False)
    assert_close(plain, expected, "pointwise")


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("step", [1, 7])
def test_adam(decoupled, step, dtype):
    w, g, m, v = normal("adam", (5, 7), (5, 7), (5, 7), (5, 7), dtype=dtype)
    v *= v
    numbers = (0.01, 0.9, 0.999, 1e-8, 0.1, decoupled, step)
    expected = reference.adam_step(w, g, m, v, *numbers)
    _core.adam_step(w, g, m, v, *numbers)
    for got, want, name in zip((w, m, v), expected, "wmv", strict=True):
        assert_close(got, want, "statistics", what=name)
    highest = v * np.linspace(0, 2, v.size, dtype=v.dtype).reshape(v.shape)  # of both kinds
    expected = reference.adam_step(w, g, m, v, *numbers, highest)
    _core.adam_step(w, g, m, v, *numbers, highest)
    for got, want in zip((w, m, v, highest), expected, strict=True):
        assert_close(got, want, "statistics", what="amsgrad")


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rmsprop(momentum, centred, dtype):
    w, g, square, mean, velocity = normal("rmsprop", *[(5, 7)] * 5, dtype=dtype)
    square = square * square + mean * mean  # a mean of squares is at least the square of the mean
    mean, velocity = mean if centred else None, velocity if momentum else None
    numbers = (0.01, 0.9, 1e-4, 0.1, momentum)
    expected = reference.rmsprop_step(w, g, square, mean, velocity, *numbers)
    _core.rmsprop_step(w, g, square, mean, velocity, *numbers)
    for got, want in zip((w, square, mean, velocity), expected, strict=True):
        assert (got is None) == (want is None)
        if got is not None:
            assert_close(got, want, "statistics")
