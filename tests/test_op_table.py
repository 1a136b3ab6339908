# SPDX-License-Identifier: Apache-2.0
"""Every operation of op_table.py: values, strides, dtypes, empty arrays, first and second derivatives."""

import numpy as np
import pytest

import fastconv as fc
from fastconv import ops
from op_table import OPS, SHAPES, inputs
from tolerance import assert_close

EVERY = pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
# Other arrays of the same values: Fortran order, every second element of something larger, backwards, read-only.
STRIDES = {
    "dense": lambda a: a,
    "fortran": lambda a: np.asarray(a, order="F"),
    "spread": lambda a: np.repeat(a[..., None], 2, -1)[..., 0],
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1] if a.ndim else a,
}


@EVERY
def test_values_for_any_strides_and_dtype(op):
    for case in range(len(op.shapes)):
        for dtype in ("f32", "f64"):
            arrays = inputs(op, case, dtype)
            expected = op.numpy(*(a.astype(np.float64) for a in arrays))
            scale = max((float(np.max(np.abs(a), initial=0)) for a in arrays), default=0.0)
            for name, strides in STRIDES.items():
                views = [strides(a) for a in arrays]
                for view in views:
                    view.flags.writeable = False
                y = op.ours(*(fc.Tensor(v) for v in views))
                assert isinstance(y, fc.Tensor) and not y.requires_grad
                assert y.dtype == (np.float64 if op.name == "astype" else arrays[0].dtype), f"{op.name} {dtype}"
                assert_close(y.data, expected, op.tier, arrays[0].dtype, scale, f"{op.name} {op.shapes[case]} {name}")


@EVERY
def test_first_and_second_derivatives(op):
    for case, shapes in enumerate(op.shapes):
        if sum(int(np.prod(s)) for s in shapes) > 100:
            continue
        tensors = [fc.Tensor(a, requires_grad=True) for a in inputs(op, case, "f64")]
        assert fc.gradcheck(op.ours, tensors), f"{op.name} {shapes}"
        assert fc.gradgradcheck(lambda *t: op.ours(*t) ** 2, tensors, atol=1e-4), f"{op.name} {shapes}"


@EVERY
def test_gradients_have_the_dtype_and_shape_of_their_inputs(op):
    for case, shapes in enumerate(op.shapes):
        tensors = [fc.Tensor(a, requires_grad=True) for a in inputs(op, case, "f32")]
        op.ours(*tensors).sum().backward()
        for t, shape in zip(tensors, shapes, strict=True):
            assert t.grad.shape == shape and t.grad.dtype == np.float32, f"{op.name} {shapes}"


VIEWS = ["reshape", "view", "T", "permute", "swapaxes", "flatten", "squeeze", "unsqueeze", "expand", "flip", "slice"]


@pytest.mark.parametrize("op", [op for op in SHAPES if op.name in VIEWS], ids=lambda op: op.name)
def test_what_can_be_a_view_is_one(op):
    x = fc.Tensor(inputs(op, 0, "f32")[0])
    assert np.shares_memory(op.ours(x).data, x.data)


def test_split_gives_views_and_nothing_is_copied_for_nothing():
    x = fc.Tensor(np.arange(12.0).reshape(3, 4))
    assert all(np.shares_memory(part.data, x.data) for part in (*x.split(2), *x.chunk(2, 1), *x.split([1, 3], 1)))
    assert x.reshape(3, 4) is x and x.astype(np.float64) is x and ops.roll(x, 4, 1) is x and x.expand(3, 4) is x
    assert [p.shape for p in ops.split(np.zeros((0, 2)), 3)] == [(0, 2)]


def test_equal_elements():
    """max: to the first; amax, maximum: shared; clip: passes at the limits."""
    x = fc.Tensor(np.array([[1.0, 3, 3], [2, 2, 0]]), requires_grad=True)
    (first,) = fc.grad(x.max(1).sum(), x)
    (shared,) = fc.grad(ops.amax(x, 1).sum(), x)
    np.testing.assert_array_equal(first.data, [[0, 1, 0], [1, 0, 0]])
    np.testing.assert_array_equal(shared.data, [[0, 0.5, 0.5], [0.5, 0.5, 0]])
    (half,) = fc.grad(ops.maximum(x, np.full((2, 3), 2.0)).sum(), x)
    np.testing.assert_array_equal(half.data, [[0, 1, 1], [0.5, 0.5, 0]])
    (through,) = fc.grad(x.clip(1, 2).sum(), x)
    np.testing.assert_array_equal(through.data, [[1, 0, 0], [1, 1, 0]])


def test_nan_and_limits():
    x = fc.Tensor(np.array([1.0, np.nan, 2.0]), requires_grad=True)
    assert np.isnan(x.max().data) and np.isnan(ops.amin(x).data) and np.isnan(ops.maximum(x, 0.0).data[1])
    assert np.isnan(x.clip(0, 1).data[1])
    zero = fc.Tensor(np.array([0.0, 0.0]), requires_grad=True)
    (dx,) = fc.grad((zero**0).sum(), zero)
    assert (dx.data == 0).all()
    (dx,) = fc.grad((zero**1).sum() + zero.std(), zero)
    assert (dx.data == 1).all()
    base, exponent = (fc.Tensor(np.array([0.0, 0.0]), requires_grad=True) for _ in range(2))
    da, db = fc.grad((base**exponent).sum(), [base, exponent])
    assert (da.data == 0).all() and (db.data == 0).all()
    assert np.isnan(fc.Tensor(np.zeros((0, 3))).mean().data) and fc.Tensor(np.zeros((0, 3))).mean(1).shape == (0,)
    assert np.isnan(ops.var(np.ones(1)).data)
    with np.errstate(divide="ignore"):
        assert ops.logsumexp(np.full(3, -np.inf), 0).data == -np.inf


@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 1), (1, 2), (0, 2)])
def test_sums_of_many_float32_are_right_to_the_last_places(axis):
    """Added one after the other in float32, 10^6 numbers near 1 would lose three digits."""
    x = np.random.default_rng(0).random((100, 100, 100), np.float32) + np.float32(0.5)
    expected = x.astype(np.float64).sum(axis)
    for view in (x, x.transpose(2, 0, 1).copy().transpose(1, 2, 0)):
        assert_close(ops.sum(view, axis).data, expected, "rounded")
        assert_close(ops.mean(view, axis).data, x.astype(np.float64).mean(axis), "rounded")


def test_methods_and_plain_results():
    x = fc.Tensor(np.array([[1.0, -2.0], [3.0, 0.5]], np.float32))
    assert x.tolist() == [[1, -2], [3, 0.5]] and x[1, 0].item() == 3.0
    assert x.argmax().tolist() == 2 and x.argmin(1).tolist() == [1, 1] and isinstance(x.argmax(0), np.ndarray)
    assert isinstance(x > 0, np.ndarray) and (x >= x.data).all()
    assert abs(x).data.min() == 0.5 and x.clamp(0, 1).data.max() == 1 and (2**x).dtype == np.float32
    assert x.to(np.float64).dtype == np.float64 and x.min().item() == -2 and x.matmul(x).shape == (2, 2)


def test_nothing_changes_in_place():
    x = fc.Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(TypeError, match=r"write x = x \+ y"):
        x += 1
    with pytest.raises(TypeError, match="operators do not change a tensor in place"):
        x[0] = 2
    np.testing.assert_array_equal(x.data, 1)


X = fc.Tensor(np.ones((2, 3), np.float32))
REFUSED = [
    (lambda: X + np.ones((3, 2), np.float32), ValueError, r"add: shapes \(2, 3\) and \(3, 2\) do not broadcast"),
    (lambda: X * np.ones((2, 3)), TypeError, "mul: the operands have dtypes float32 and float64"),
    (lambda: ops.power(X, np.ones(3)), TypeError, "power: the operands have dtypes"),
    (lambda: ops.where(X, X, X), TypeError, "where: condition is float32; expected an array of bool"),
    (lambda: X.clip(), TypeError, "clip: low and high are None"),
    (lambda: ops.clip(X, X), TypeError, "clip: low is a Tensor; expected a number"),
    (lambda: X.sum(2), ValueError, "sum: axis is 2; expected -2 to 1"),
    (lambda: X.mean((0, -2)), ValueError, "mean: axis .* names an axis twice"),
    (lambda: ops.mean(np.arange(3)), TypeError, "mean: x has dtype int64"),
    (lambda: fc.Tensor(np.ones((2, 0))).max(1), ValueError, r"max: x has shape \(2, 0\) and axis is 1"),
    (lambda: X.reshape(4, 2), ValueError, r"reshape: shape is \(4, 2\); expected 6 elements"),
    (lambda: X.reshape(-1, -1), ValueError, "at most one -1"),
    (lambda: X.permute(0, 0), ValueError, "transpose: axes"),
    (lambda: X.squeeze(1), ValueError, "squeeze: axis is 1"),
    (lambda: X.expand(2, 4), ValueError, r"broadcast_to: shape is \(2, 4\), x has \(2, 3\)"),
    (lambda: X.repeat(2), ValueError, "tile: repeats is"),
    (lambda: X.flatten(1, 0), ValueError, "flatten: start is 1, end is 0"),
    (lambda: X.split(0), ValueError, "split: size is 0; expected at least 1"),
    (lambda: X.split([1, 1], 1), ValueError, r"split: size is \(1, 1\); expected lengths that add up to 3"),
    (lambda: X.chunk(0), ValueError, "chunk: chunks is 0"),
    (lambda: ops.stack([]), ValueError, "stack: there are no parts"),
    (lambda: ops.stack([X, X[0]]), ValueError, "stack: the parts have shapes"),
    (lambda: ops.concat([X, X.T]), ValueError, "concat: the parts have shapes"),
    (lambda: ops.gather(X, 0, [[2, 0, 0]]), ValueError, "indices go from 0 to 2; expected -2 to 1"),
    (lambda: ops.gather(X, 0, [[0.5]]), TypeError, "indices have dtype float64"),
    (lambda: ops.gather(X, 1, [[0], [0], [0]]), ValueError, r"gather: indices have shape \(3, 1\), x \(2, 3\)"),
    (lambda: ops.take_along_axis(X, [0], 1), ValueError, "take_along_axis: indices have shape"),
    (lambda: ops.index_select(X, 0, [[0]]), ValueError, "index_select: indices have shape"),
    (lambda: X @ X, ValueError, r"matmul: shapes \(2, 3\) and \(2, 3\)"),
    (lambda: ops.matmul(np.ones((2, 3, 4)), np.ones((3, 4, 5))), ValueError, "the leading axes do not broadcast"),
    (lambda: ops.matmul(np.ones(()), np.ones(3)), ValueError, "matmul: shapes"),
    (lambda: X.matmul(np.ones((3, 2))), TypeError, "matmul: the operands have dtypes"),
    (lambda: X.item(), ValueError, r"item: the tensor has shape \(2, 3\)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), REFUSED)
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
