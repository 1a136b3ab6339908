# SPDX-License-Identifier: Apache-2.0
"""Batch, group, instance and layer normalisation: reference, gradients of gradients, large means, threads and
instruction sets, edges, layers, messages."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import DTYPES, NUMPY_DTYPE, THREADS, isas, rng_for
from fastconv import _core, nn, ops, reference
from tolerance import assert_close, assert_same_bits

LAYOUTS = ("channels_first", "channels_last")
# (shape, groups): rows of one pixel, planes and pixels below and above a block, rows longer than one item of work.
GROUPED = [
    ((1, 1, 2), 1),
    ((3, 6), 2),
    ((2, 130), 13),
    ((70, 67), 1),
    ((2, 6, 5), 3),
    ((3, 8, 7, 9), 8),
    ((2, 12, 1, 1), 4),
    ((1, 6, 3, 4, 5), 2),
    ((2, 70, 12, 11), 7),
    ((1, 3, 100, 131), 1),
    ((2, 9000), 1),
    ((1, 40000), 1),
]


@pytest.fixture(autouse=True)
def keep_threads():
    yield
    _core.set_threads(0)


def normal(text, *shapes, dtype):
    rng = rng_for(text)
    return [rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]


def last(x, layout):
    """x with its channels where the layout wants them."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1)) if layout == "channels_last" else x


def first(x, layout):
    return np.moveaxis(x, -1, 1) if layout == "channels_last" else x


def group_norm_of(x, dy, gamma, beta, groups, layout, eps=1e-5):
    """{name: result}, channels first."""
    y, mean, inverse = _core.group_norm_forward(last(x, layout), gamma, beta, groups, eps, layout)
    dx, dgamma, dbeta = _core.group_norm_backward(
        last(dy, layout), last(x, layout), gamma, mean, inverse, groups, layout
    )
    return {"y": first(y, layout), "dx": first(dx, layout), "dgamma": dgamma, "dbeta": dbeta, "mean": mean,
            "inverse": inverse}  # fmt: skip


def expected_group_norm(x, dy, gamma, beta, groups, eps=1e-5):
    wide = x.astype(np.longdouble)
    back = reference.group_norm_backward(dy.astype(np.longdouble), wide, groups, gamma, eps)
    return {
        "y": reference.group_norm(wide, groups, gamma, beta, eps),
        **dict(zip(("dx", "dgamma", "dbeta"), back, strict=True)),
    }


# ---- Native operations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "groups"), GROUPED, ids=str)
def test_group_norm_is_its_reference(shape, groups, dtype):
    x, dy, gamma, beta = normal(f"group {shape}", shape, shape, shape[1], shape[1], dtype=dtype)
    x = x * 2 + 3
    want = expected_group_norm(x, dy, gamma, beta, groups)
    for layout in LAYOUTS:
        got = group_norm_of(x, dy, gamma, beta, groups, layout)
        for name, value in want.items():
            # dx is a difference of terms of the size of gamma dy / sigma.
            scale = float(np.max(np.abs(gamma)) * np.max(got["inverse"])) if name == "dx" else 0.0
            assert_close(got[name], value, "statistics", scale=scale, what=f"{name} {layout}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_mean_does_not_cancel(dtype):
    """x = 1e4 + N(0, 1): E[x^2] - E[x]^2 in float32 would leave no digit of the variance."""
    for shape, groups in (((2, 8, 40, 50), 4), ((64, 300), 1), ((2, 6, 64), 6)):
        x, dy, gamma, beta = normal(f"large {shape}", shape, shape, shape[1], shape[1], dtype=dtype)
        x = x + x.dtype.type(1e4)
        want = expected_group_norm(x, dy, gamma, beta, groups)
        for layout in LAYOUTS:
            got = group_norm_of(x, dy, gamma, beta, groups, layout)
            for name in want:
                # float64 holds x and the mean to 1e4 eps, an error that a sum over dy of dgamma repeats for each
                # cell; what float32 data have, float64 sums keep.
                cells = x.size / x.shape[1] if name == "dgamma" else 1
                scale = 1e4 * np.sqrt(cells) if dtype == "f64" else 0.0
                assert_close(got[name], want[name], "statistics", scale=scale, what=f"{name} {shape} {layout}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_results_do_not_depend_on_threads_or_batch(dtype):
    for shape, groups in (((6, 70, 30, 31), 7), ((900, 513), 1), ((2, 4, 300, 301), 2), ((1, 200_001), 1)):
        x, dy, gamma, beta = normal(f"threads {shape}", shape, shape, shape[1], shape[1], dtype=dtype)
        for layout in LAYOUTS:
            results = []
            for threads in THREADS:
                _core.set_threads(threads)
                results.append(group_norm_of(x, dy, gamma, beta, groups, layout))
            for other in results[1:]:
                for name, value in results[0].items():
                    assert_same_bits(other[name], value, f"{name} {shape} {layout}")
            alone = group_norm_of(x[:1].copy(), dy[:1].copy(), gamma, beta, groups, layout)
            for name in ("y", "dx"):
                assert_same_bits(alone[name], results[0][name][:1], f"{name} {shape} {layout} alone")


@pytest.mark.parametrize("isa", [isa for isa in isas() if isa != _core.info()["isa"]])
def test_the_other_isas(isa):
    """The three tests above once more, in a process that FASTCONV_ISA sets to this ISA."""
    if os.environ.get("FASTCONV_ISA"):
        return  # this is that process
    names = ("group_norm_is_its_reference", "a_large_mean_does_not_cancel", "results_do_not_depend_on_threads_or_batch")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(f"{__file__}::test_{n}" for n in names),
    ]
    done = subprocess.run(command, env={**os.environ, "FASTCONV_ISA": isa}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- On the tape ----------------------------------------------------------------------------------------------------


def leaf(*shape, seed=0):
    return fc.Tensor(np.random.default_rng(seed).standard_normal(shape) * 1.5 + 0.5, requires_grad=True)


SHAPES = [(3, 4), (2, 4, 3), (2, 4, 2, 3), (1, 4, 2, 2, 2)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_and_their_gradients(shape, layout):
    x = fc.Tensor(last(leaf(*shape).data, layout), requires_grad=True)
    parts = [leaf(4, seed=1), leaf(4, seed=2)]
    for groups in (1, 2):

        def f(x, gamma, beta, groups=groups):
            return ops.group_norm(x, groups, gamma, beta, 1e-3, layout=layout)

        assert fc.gradcheck(f, [x, *parts]) and fc.gradgradcheck(f, [x, *parts])

    def batch(x, gamma, beta):
        return ops.batch_norm(x, None, None, gamma, beta, True, layout=layout)

    assert fc.gradcheck(batch, [x, *parts]) and fc.gradgradcheck(batch, [x, *parts])
    if len(shape) > 2:

        def instance(x, gamma, beta):
            return ops.instance_norm(x, None, None, gamma, beta, layout=layout)

        assert fc.gradcheck(instance, [x, *parts]) and fc.gradgradcheck(instance, [x, *parts])


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_layer_norm_gradients_and_reference(axes):
    x, shape = leaf(2, 3, 2, 4), (2, 3, 2, 4)[-axes:]
    parts = [leaf(*shape, seed=1), leaf(*shape, seed=2)]

    def f(x, gamma, beta):
        return ops.layer_norm(x, shape, gamma, beta)

    assert fc.gradcheck(f, [x, *parts]) and fc.gradgradcheck(f, [x, *parts])
    y = f(x, *parts)
    assert_close(y.data, reference.layer_norm(x.data, parts[0].data, parts[1].data), "statistics")
    (dy,) = normal("layer", y.shape, dtype="f64")
    want = reference.layer_norm_backward(dy, x.data, parts[0].data)
    for got, value in zip(fc.grad(y, [x, *parts], fc.Tensor(dy)), want, strict=True):
        assert_close(got.data, value, "statistics")
    plain = ops.layer_norm(x, shape)
    assert_close(plain.data, reference.layer_norm(x.data, np.ones(shape), np.zeros(shape)), "statistics")


def test_arrays_of_other_kinds_take_the_formulas():
    """What is no float32 or float64 array of NumPy's computes by NumPy's own operations (as CuPy arrays do)."""
    x, gamma, beta = (a.astype(np.longdouble) for a in normal("kinds", (2, 6, 5), 6, 6, dtype="f64"))
    for layout in LAYOUTS:
        y = ops.group_norm(last(x, layout), 3, gamma, beta, layout=layout)
        assert_close(first(y.data, layout), reference.group_norm(x, 3, gamma, beta), "statistics", dtype="f8")


@given(st.data())
def test_groups_of_one_example_are_layers(data):
    """GroupNorm with one group is LayerNorm of an example, with as many groups as channels InstanceNorm; any layout,
    dtype and strides; the input stays as it was."""
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=3, max_size=5)))
    dtype, layout = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from(LAYOUTS))
    x, gamma, beta = normal(f"groups {shape}", shape, shape[1], shape[1], dtype=dtype)
    strided = last(x, layout)[::-1][:, ::-1]
    if data.draw(st.booleans()):
        x, strided = first(strided, layout), strided
    else:
        strided = last(x, layout)
        strided.flags.writeable = False
    column = (-1, *(1,) * (len(shape) - 2))
    one = first(ops.group_norm(strided, 1, gamma, beta, layout=layout).data, layout)
    layer = ops.layer_norm(x, shape[1:]).data * gamma.reshape(column) + beta.reshape(column)
    assert_close(one, layer, "statistics")
    if np.prod(shape[2:]) > 1:
        each = ops.group_norm(strided, shape[1], gamma, beta, layout=layout).data
        assert_same_bits(ops.instance_norm(strided, None, None, gamma, beta, layout=layout).data, each)
        assert_close(first(each, layout), reference.instance_norm(x, gamma, beta), "statistics")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_batch_norm_layouts_agree(layout):
    for dtype in DTYPES:
        x, dy, gamma, beta = normal("bn layout", (3, 5, 4, 6), (3, 5, 4, 6), 5, 5, dtype=dtype)
        mean, variance = np.zeros(5, x.dtype), np.ones(5, x.dtype)
        tensor = fc.Tensor(last(x, layout), requires_grad=True)
        y = ops.batch_norm(tensor, mean, variance, gamma, beta, True, 0.3, layout=layout)
        want, batch_mean, batch_variance = reference.batch_norm(x, gamma, beta)
        assert_close(first(y.data, layout), want, "statistics")
        assert_close(mean, 0.3 * batch_mean, "statistics")
        assert_close(variance, 0.7 + 0.3 * batch_variance * (72 / 71), "statistics")
        y.backward(fc.Tensor(last(dy, layout)))
        assert_close(first(tensor.grad.data, layout), reference.batch_norm_backward(dy, x, gamma)[0], "statistics")
        still = ops.batch_norm(tensor, mean, variance, gamma, beta, layout=layout)
        assert_close(
            first(still.data, layout), reference.batch_norm_inference(x, gamma, beta, mean, variance), "statistics"
        )


# ---- Edges ----------------------------------------------------------------------------------------------------------


def test_an_empty_batch_is_empty_and_leaves_statistics_alone():
    gamma, beta = (fc.Tensor(np.ones(3, np.float32), requires_grad=True) for _ in range(2))
    mean, variance = np.full(3, 5, np.float32), np.full(3, 7, np.float32)
    x = fc.Tensor(np.zeros((0, 3, 4), np.float32), requires_grad=True)
    for y in (
        ops.batch_norm(x, mean, variance, gamma, beta, True),
        ops.group_norm(x, 3, gamma, beta),
        ops.instance_norm(x, mean, variance, gamma, beta),
        ops.layer_norm(x.transpose(0, 2, 1), 3, gamma, beta),
    ):
        grads = fc.grad(y.sum(), [x, gamma, beta])
        assert y.size == 0 and grads[0].shape == x.shape and (grads[1].data == 0).all() and (grads[2].data == 0).all()
        again = fc.grad(y.sum(), [gamma], create_graph=True) if y.node and y.node.ctx else None
        assert again is None or (again[0].data == 0).all()
    assert (mean == 5).all() and (variance == 7).all()


def test_one_value_per_group_is_beta():
    """A single value has variance 0: y is beta; in batches and instances of one it is refused, as in PyTorch."""
    x = np.array([[3.0, -4.0]], np.float32)
    np.testing.assert_array_equal(ops.group_norm(x, 2, np.ones(2, np.float32), np.float32([5, 6])).data, [[5, 6]])
    np.testing.assert_array_equal(ops.layer_norm(x[:, :1], 1).data, [[0]])
    for call in (
        lambda: ops.batch_norm(x, None, None, training=True),
        lambda: ops.instance_norm(x[..., None]),
        lambda: nn.BatchNorm1d(2)(x),
        lambda: nn.BatchNorm1d(2, track_running_stats=False).eval()(x),
        lambda: nn.InstanceNorm2d(2)(x[..., None, None]),
    ):
        with pytest.raises(fc.ProblemError, match="more than one value per channel"):
            call()
    assert nn.BatchNorm1d(2).eval()(x).shape == (1, 2)


def test_constant_input_and_not_a_number():
    x = np.full((2, 4, 3, 3), 7, np.float32)
    assert (ops.group_norm(x, 2).data == 0).all()
    x[1, 2, 0, 0] = np.nan
    for layout in LAYOUTS:
        y = first(ops.group_norm(last(x, layout), 2, layout=layout).data, layout)
        assert np.isnan(y[1, 2:]).all() and not np.isnan(y[0]).any() and not np.isnan(y[1, :2]).any()


# ---- Layers ---------------------------------------------------------------------------------------------------------


def test_batch_norm_without_momentum_is_the_mean_over_batches():
    layer, batches = nn.BatchNorm2d(3, momentum=None), normal("batches", *[(4, 3, 5, 5)] * 3, dtype="f32")
    for x in batches:
        layer(x)
    assert layer.num_batches_tracked == 3
    assert_close(layer.running_mean, np.mean([x.mean((0, 2, 3)) for x in batches], 0), "statistics", scale=1)
    assert_close(layer.running_var, np.mean([x.var((0, 2, 3), ddof=1) for x in batches], 0), "statistics")
    layer.reset_running_stats()
    assert layer.num_batches_tracked == 0 and (layer.running_var == 1).all()


def test_layers_are_what_they_say():
    assert repr(nn.GroupNorm(2, 4)) == "GroupNorm(2, 4, eps=1e-05, affine=True)"
    assert repr(nn.LayerNorm((3, 4), bias=False)) == "LayerNorm((3, 4), eps=1e-05, elementwise_affine=True)"
    assert "track_running_stats=False, layout='channels_last'" in repr(nn.InstanceNorm2d(3, layout="channels_last"))
    assert list(nn.LayerNorm(3, bias=False).state_dict()) == ["weight"]
    assert list(nn.LayerNorm(3, elementwise_affine=False).state_dict()) == []
    assert list(nn.InstanceNorm2d(3).state_dict()) == []
    assert list(nn.GroupNorm(1, 3, affine=False).state_dict()) == []
    keys = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(nn.InstanceNorm1d(3, affine=True, track_running_stats=True).state_dict()) == keys
    assert list(nn.BatchNorm2d(3, affine=False, track_running_stats=False).state_dict()) == []
    layer = nn.BatchNorm2d(3)
    layer.weight.data[...] = 4
    layer.reset_parameters()
    assert (layer.weight.data == 1).all() and layer.weight.version == 1


def test_layers_of_either_layout():
    (x,) = normal("layers", (2, 4, 3, 5), dtype="f32")
    for make in (
        lambda **k: nn.BatchNorm2d(4, **k),
        lambda **k: nn.InstanceNorm2d(4, affine=True, track_running_stats=True, **k),
        lambda **k: nn.GroupNorm(2, 4, **k),
    ):
        one, other = make(), make(layout="channels_last")
        y, z = one(x).data, other(last(x, "channels_last")).data
        assert_close(first(z, "channels_last"), y, "statistics")
        for key, value in one.state_dict().items():
            assert_close(np.asarray(other.state_dict()[key], float), value, "statistics", dtype="f4", what=key)


BAD = [
    (lambda x: ops.group_norm(x, 3), fc.ProblemError, "num_groups is 3, x has 4 channels; expected a divisor of 4"),
    (lambda x: ops.group_norm(x, 0), fc.ProblemError, "num_groups is 0; expected at least 1"),
    (lambda x: ops.group_norm(x, 2, x[0, 0]), fc.ProblemError, r"group_norm: weight has shape \(5,\), x 4 channels"),
    (lambda x: ops.group_norm(x, 2, layout="nhwc"), fc.ProblemError, "layout is 'nhwc'; expected one of"),
    (lambda x: ops.group_norm(x[0, 0], 1), fc.ProblemError, r"group_norm: x has shape \(5,\)"),
    (lambda x: ops.group_norm(x, 2, np.ones(4)), TypeError, "weight has dtype float64, x float32"),
    (lambda x: ops.layer_norm(x, (4, 6)), fc.ProblemError, r"x has shape \(2, 4, 5\), normalized_shape is \(4, 6\)"),
    (lambda x: ops.layer_norm(x, 5, x[0]), fc.ProblemError, r"weight has shape \(4, 5\); expected \(5,\)"),
    (lambda x: ops.layer_norm(x, ()), fc.ProblemError, "normalized_shape is empty"),
    (lambda x: ops.layer_norm(x, 2.5), TypeError, "normalized_shape is 2.5; expected an integer"),
    (lambda x: ops.instance_norm(x[0]), fc.ProblemError, "with at least 3 dimensions"),
    (lambda x: ops.instance_norm(x, use_input_stats=False), fc.ProblemError, "running_mean and running_var are None"),
    (lambda x: ops.instance_norm(x, np.ones(3, np.float32)), fc.ProblemError, "instance_norm: running_mean has shape"),
    (lambda x: nn.GroupNorm(3, 4), fc.ProblemError, "num_groups=3 does not divide num_channels=4"),
    (lambda x: nn.GroupNorm(2, 6)(x), fc.ProblemError, r"GroupNorm: x has shape \(2, 4, 5\); expected \(N, 6, \*\)"),
    (lambda x: nn.InstanceNorm1d(4)(x[0, 0]), fc.ProblemError, "expected 2 or 3 dimensions with 4 channels"),
    (lambda x: nn.BatchNorm2d(4)(x), fc.ProblemError, "BatchNorm2d: x has shape .* expected 4 dimensions"),
    (lambda x: nn.BatchNorm1d(5, layout="last"), fc.ProblemError, "layout is 'last'"),
    (lambda x: nn.BatchNorm1d(0), fc.ProblemError, "num_features is 0"),
    (lambda x: _core.group_norm_forward(x[:, :0], x[0, 0, :0], x[0, 0, :0], 1, 0, "channels_first"), fc.ProblemError,
     "at least one value per group"),
    (lambda x: _core.group_norm_backward(x, x, x[0, :, 0], x[:, :2, 0], x[:, :2, 0], 2, "channels_first"), TypeError,
     "expected float64"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), BAD)
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(np.ones((2, 4, 5), np.float32))
