# SPDX-License-Identifier: Apache-2.0
"""Operations that have kernels on a device: that these compute, for every dtype, and what they give."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import device, ops
from fastconv.arrays import as_dtype, is_half
from fastconv.ops import activation_formulas
from tolerance import assert_close

KINDS = [kind for kind in activation_formulas.FORMULAS if kind != "none"]
IMAGE = (2, 6, 5, 7)
OPERATIONS = {
    "batch_norm": (lambda x, g, b: ops.batch_norm(x, None, None, g, b, training=True), (IMAGE, (6,), (6,))),
    "batch_norm_last": (
        lambda x, g, b: ops.batch_norm(x, None, None, g, b, training=True, layout="channels_last"),
        ((2, 5, 7, 6), (6,), (6,)),
    ),
    "group_norm": (lambda x, g, b: ops.group_norm(x, 3, g, b), (IMAGE, (6,), (6,))),
    "group_norm_last": (lambda x, g, b: ops.group_norm(x, 3, g, b, layout="channels_last"), ((2, 5, 7, 6), (6,), (6,))),
    "layer_norm": (lambda x, g, b: ops.layer_norm(x, 7, g, b), (IMAGE, (7,), (7,))),
    "instance_norm": (lambda x: ops.instance_norm(x), (IMAGE,)),
    "softmax": (lambda x: ops.softmax(x, 1), (IMAGE,)),
    "log_softmax": (lambda x: ops.log_softmax(x), ((3, 1500),)),
    "linear": (ops.linear, ((3, 7), (5, 7), (5,))),
    "matmul": (ops.matmul, ((3, 7), (7, 5))),
    "gelu": (ops.gelu, (IMAGE,)),
    "sigmoid": (ops.sigmoid, (IMAGE,)),
}


def results(place, arrays, operation):
    tensors = [fc.Tensor(place(a), requires_grad=True) for a in arrays]
    y = operation(*tensors)
    weights = np.random.default_rng(7).standard_normal(y.shape).astype(y.dtype)  # y itself: its gradients would be zero
    (y * fc.Tensor(place(weights))).sum().backward()
    return [y.data, *(t.grad.data for t in tensors)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_in_every_dtype(cp, rng, name, dtype):
    operation, shapes = OPERATIONS[name]
    dtype = as_dtype(dtype)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    for wanted, got in zip(results(np.asarray, arrays, operation), results(cp.asarray, arrays, operation), strict=True):
        assert got.dtype == wanted.dtype == dtype
        scale = float(np.abs(wanted.astype("float64")).max())
        assert_close(cp.asnumpy(got), wanted, "half layer" if is_half(dtype) else "model", dtype, scale, name)


@pytest.mark.parametrize("name", ["sigmoid", "gelu", "batch_norm", "softmax"])
def test_gradients_of_gradients_of_halves(cp, rng, name):
    operation, shapes = OPERATIONS[name]
    arrays = [rng.standard_normal(shape).astype("float16") for shape in shapes]
    weights = rng.standard_normal(shapes[0]).astype("float16")
    found = []
    for place in (np.asarray, cp.asarray):
        x, *rest = (fc.Tensor(place(a), requires_grad=True) for a in arrays)
        y = operation(x, *rest)
        (gradient,) = fc.grad((y * fc.Tensor(place(weights))).sum(), x, create_graph=True)
        (gradient * fc.Tensor(place(weights))).sum().backward()
        found.append(x.grad.data)
    wanted, got = found[0], cp.asnumpy(found[1])
    assert_close(got, wanted, "half model", np.float16, float(np.abs(wanted).max()), name)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_are_those_of_the_cpu(cp, rng, kind, monkeypatch):
    def refused(*_):
        raise AssertionError("array functions computed what a kernel does")

    monkeypatch.setattr("fastconv.ops.activations.activation_formula", refused)
    monkeypatch.setattr("fastconv.ops.activations.slope_formula", refused)
    x = np.concatenate([rng.standard_normal(1001) * 3, [0.0, -0.0, np.inf, -np.inf, np.nan, 3, -3, 6, 90, -90]])
    for dtype in ("float32", "float64"):
        arrays = [x.astype(dtype)]
        wanted, slope = results(np.asarray, [arrays[0][:1001]], lambda t: ops.activations.activation(t, kind, 0.5))
        got, on_device = results(cp.asarray, [arrays[0][:1001]], lambda t: ops.activations.activation(t, kind, 0.5))
        assert_close(cp.asnumpy(got), wanted, "pointwise", dtype, 1, kind)
        assert_close(cp.asnumpy(on_device), slope, "pointwise", dtype, float(np.abs(slope).max()), kind)
        limits = ops.activations.activation(fc.Tensor(arrays[0][1001:]), kind, 0.5).data
        there = cp.asnumpy(ops.activations.activation(fc.Tensor(cp.asarray(arrays[0][1001:])), kind, 0.5).data)
        finite = np.isfinite(limits)
        assert np.array_equal(there[~finite], limits[~finite], equal_nan=True)
        assert_close(there[finite], limits[finite], "pointwise", dtype, 1, kind)


def test_the_same_bits_twice_and_views(cp, rng):
    wide = rng.standard_normal((3, 8, 9, 11)).astype("float32")
    for part in (lambda a: a, lambda a: a[1:], lambda a: a[:, 1:7], lambda a: a[..., 3:]):
        x = part(cp.asarray(wide))
        channels = x.shape[1]
        gamma, beta = cp.asarray(np.ones(channels, "float32")), cp.asarray(np.zeros(channels, "float32"))
        first, second = (device.batch_norm_forward(x, gamma, beta, 1e-5) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(cp.asnumpy(a), cp.asnumpy(b))
        wanted = fc._core.batch_norm_forward(part(wide), cp.asnumpy(gamma), cp.asnumpy(beta), 1e-5)
        for got, expected in zip(first, wanted, strict=True):
            assert_close(cp.asnumpy(got), expected, "statistics", scale=1)


def test_dense_layers_without_terms(cp):
    for n, inputs, outputs in ((0, 3, 2), (2, 0, 3), (2, 3, 0)):
        arrays = [np.ones(shape, "float32") for shape in ((n, inputs), (outputs, inputs), (outputs,))]
        for wanted, got in zip(
            *(results(place, arrays, ops.linear) for place in (np.asarray, cp.asarray)), strict=True
        ):
            assert np.array_equal(cp.asnumpy(got), wanted)


def test_the_name_of_an_algorithm_is_none_of_a_dense_layer(cp, rng):
    x, w = rng.standard_normal((3, 7)).astype("float32"), rng.standard_normal((5, 7)).astype("float32")
    with fc.options(algorithm="winograd_f2x2_3x3"):
        got = ops.linear(fc.Tensor(cp.asarray(x)), fc.Tensor(cp.asarray(w)))
    assert_close(cp.asnumpy(got.data), x @ w.T, "parity", scale=10)


def test_dropout_and_sums(cp, rng):
    x = rng.standard_normal((4, 6, 50)).astype("float32")
    outputs = []
    for place in (np.asarray, cp.asarray):
        fc.manual_seed(3)
        outputs.append(ops.dropout(fc.Tensor(place(x)), 0.3).data)
    assert np.array_equal(cp.asnumpy(outputs[1]), outputs[0])
    for axes in ((0, 2), (0, 1, 2), (1,), (0,)):
        expected = ops.sum(fc.Tensor(x), axes).data
        assert_close(cp.asnumpy(ops.sum(fc.Tensor(cp.asarray(x)), axes).data), expected, "statistics", scale=10)


def test_errors_name_the_argument(cp):
    x = cp.asarray(np.ones((2, 3, 4), "float32"))
    with pytest.raises(fc.ProblemError, match=r"gamma has shape \(2,\); expected \(3,\)"):
        device.batch_norm_forward(x, x[0, 0, :2], x[0, 0, :3], 1e-5)
    with pytest.raises(fc.ProblemError, match="groups is 2, x has 3 channels"):
        device.group_norm_forward(x, x[0, :, 0], x[0, :, 0], 2, 1e-5, "channels_first")
    with pytest.raises(fc.ProblemError, match="activation is 'swoosh'"):
        device.activation_forward("swoosh", x)
    with pytest.raises(fc.ProblemError, match=r"b has shape \(3, 4\)"):
        device.add(x, x[0])
