# SPDX-License-Identifier: Apache-2.0
"""Any options of the operations on tensors: ranks 0 to 4, sides 0 and 1, broadcasting, axes, strides, both dtypes.

Every example runs over a whole table. What is linear gets integers, of which all sums are exact, and its gradient is
held against the definition of an adjoint: <f(x), g> = <x, f'(g)>.
"""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from any_arrays import DTYPE, SEED, SHAPE, backward, dot, integers, normal, strided
from cases import NUMPY_DTYPE
from fastconv import ops, reference
from op_table import ARITHMETIC, inputs
from tolerance import assert_close, assert_exact

FILLED = hnp.array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=4)
PAIR = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, min_side=0, max_side=4).map(lambda p: p.input_shapes)


def check_linear(f, numpy, arrays, what):
    """Exact values, and <f(x), g> = <x, f'(g)>, the sum over all arrays (one at a time if f is a product)."""
    y, dy, grads = backward(f, arrays)
    assert y.dtype == arrays[0].dtype, what
    assert_exact(y.data, np.asarray(numpy(*(a.astype(np.float64) for a in arrays))), what)
    assert_exact(sum(map(dot, arrays, grads)), dot(y.data, dy), f"adjoint of {what}")


ELEMENTWISE = [op for op in ARITHMETIC if op.name not in ("where", "prelu")]


@given(PAIR, DTYPE, SEED)
def test_any_shapes_of_arithmetic(shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    for op in ELEMENTWISE:
        arrays = [strided(rng, a) for a in inputs(op._replace(shapes=[shapes[: len(op.shapes[0])]]), 0, dtype)]
        y, _, _ = backward(op.ours, arrays)
        expected = np.asarray(op.numpy(*(a.astype(np.float64) for a in arrays)))
        assert y.dtype == NUMPY_DTYPE[dtype]
        scale = max(float(np.max(np.abs(a), initial=0)) for a in arrays)
        assert_close(y.data, expected, op.tier, scale=scale, what=f"{op.name} {shapes}")


@given(PAIR, DTYPE, SEED)
def test_any_shapes_of_linear_arithmetic(shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b = (integers(rng, shape, dtype) for shape in shapes)
    mask = strided(rng, rng.random(shapes[int(rng.integers(2))]) < 0.5)
    check_linear(ops.add, np.add, [a, b], f"add {shapes}")
    check_linear(ops.sub, np.subtract, [a, b], f"sub {shapes}")
    check_linear(ops.neg, np.negative, [a], f"neg {shapes}")
    check_linear(lambda x, y: ops.where(mask, x, y), lambda x, y: np.where(mask, x, y), [a, b], f"where {shapes}")
    check_linear(lambda x: ops.mul(x, b), lambda x: x * b, [a], f"mul {shapes}")
    check_linear(lambda x: ops.mul(a, x), lambda x: a * x, [b], f"mul {shapes}")
    other = np.float64 if dtype == "f32" else np.float32
    y, dy, (da,) = backward(lambda x: ops.cast(x, other), [a])
    assert y.dtype == other
    assert_exact(y.data, a, "cast")
    assert_exact(da, dy, "gradient of cast")


@given(SHAPE, DTYPE, SEED, st.none() | st.floats(-1, 0.5, width=32), st.floats(0.5, 1, width=32))
def test_any_limits_of_clip(shape, dtype, seed, low, high):
    x = normal(np.random.default_rng(seed), shape, dtype)
    limits = [(ops.clip, low, high), (ops.clip, -high, None), (ops.hard_tanh, -1.5 if low is None else low, high)]
    for f, low, high in limits:
        y, dy, (dx,) = backward(lambda t, f=f, a=(low, high): f(t, *a), [x])
        assert y.dtype == x.dtype
        assert_exact(y.data, np.clip(x, low, high), f"clip {low} {high}")
        assert_exact(dx, np.where(y.data == x, dy, 0), f"gradient of clip {low} {high}")


# name: (ours, kind of the reference); alpha is what each takes.
ACTIVATIONS = {
    "elu": (ops.elu, "elu"),
    "celu": (ops.celu, "celu"),
    "leaky_relu": (ops.leaky_relu, "leaky_relu"),
    "softplus": (ops.softplus, "softplus"),
    "softplus far": (lambda x, a: ops.softplus(x, a, 1e3), "softplus"),
    "selu": (lambda x, a: ops.selu(x), "selu"),
    "hard_sigmoid": (lambda x, a: ops.hard_sigmoid(x), "hard_sigmoid"),
    "hard_swish": (lambda x, a: ops.hard_swish(x), "hard_swish"),
    "log_sigmoid": (lambda x, a: ops.log_sigmoid(x), "log_sigmoid"),
    "softsign": (lambda x, a: ops.softsign(x), "softsign"),
    "mish": (lambda x, a: ops.mish(x), "mish"),
}


@given(SHAPE, DTYPE, SEED, st.floats(0.1, 3), st.floats(-2, 3))
def test_any_parameter_of_activations(shape, dtype, seed, alpha, threshold):
    rng = np.random.default_rng(seed)
    x = strided(rng, 3 * normal(rng, shape, dtype))
    for name, (f, kind) in ACTIVATIONS.items():
        y, dy, (dx,) = backward(lambda t, f=f: f(t, alpha), [x])
        assert_close(y.data, reference.activation(kind, x, alpha), "pointwise", what=f"{name} {alpha}")
        slope = reference.activation_backward(kind, dy, x, alpha)
        assert_close(dx, slope, "pointwise", scale=10.0, what=f"gradient of {name} {alpha}")
    y, dy, (dx,) = backward(lambda t: ops.softplus(t, alpha, threshold), [x])
    same = alpha * x.astype(np.float64) > threshold
    expected = np.where(same, x, reference.activation("softplus", x, alpha))
    slope = np.where(same, dy, reference.activation_backward("softplus", dy, x, alpha))
    assert_close(y.data, expected, "pointwise", what=f"softplus {alpha} {threshold}")
    assert_close(dx, slope, "pointwise", scale=10.0, what=f"gradient of softplus {alpha} {threshold}")


def an_axis(draw, rank):
    return draw(st.integers(-rank, rank - 1))


def some_axes(draw, rank):
    """None, one axis or several, from either end."""
    several = hnp.valid_tuple_axes(rank, min_size=1) if rank else st.none()
    return draw(st.none() | several | (st.integers(-rank, rank - 1) if rank else st.none()))


@given(st.data(), SHAPE, DTYPE, SEED, st.booleans())
def test_any_axes_of_sums(data, shape, dtype, seed, keepdims):
    x = integers(np.random.default_rng(seed), shape, dtype)
    axis = some_axes(data.draw, x.ndim)
    words = {"axis": axis, "keepdims": keepdims}
    check_linear(lambda t: ops.sum(t, **words), lambda t: np.sum(t, **words), [x], f"sum {shape} {words}")
    if x.ndim:
        axis = an_axis(data.draw, x.ndim)
        check_linear(lambda t: ops.cumsum(t, axis), lambda t: np.cumsum(t, axis), [x], f"cumsum {shape} {axis}")


# (ours, NumPy, its gradient), functions of x and the words, dy before them.
REDUCTIONS = {
    "mean": (ops.mean, np.mean, lambda x, n, **w: np.ones_like(x) / n),
    "max": (ops.max, np.max, lambda x, n, axis, **w: x == np.max(x, axis, keepdims=True)),
    "min": (ops.min, np.min, lambda x, n, axis, **w: x == np.min(x, axis, keepdims=True)),
    "amax": (ops.amax, np.max, lambda x, n, axis, **w: x == np.max(x, axis, keepdims=True)),
    "amin": (ops.amin, np.min, lambda x, n, axis, **w: x == np.min(x, axis, keepdims=True)),
    "logsumexp": (ops.logsumexp, lambda x, **w: np.log(np.sum(np.exp(x), **w)),
                  lambda x, n, axis, **w: np.exp(x) / np.exp(x).sum(axis, keepdims=True)),
}  # fmt: skip


@given(st.data(), FILLED, DTYPE, SEED, st.booleans(), st.sampled_from((0, 0.5, 1)))
def test_any_axes_of_reductions(data, shape, dtype, seed, keepdims, correction):
    x = normal(np.random.default_rng(seed), shape, dtype)
    wide = x.astype(np.float64)
    words = {"axis": some_axes(data.draw, x.ndim), "keepdims": keepdims}
    kept = np.sum(wide, words["axis"], keepdims=True)
    count = x.size // kept.size

    def check(name, f, numpy, slope, **more):
        what = f"{name} {shape} {words} {more}"
        y, dy, (dx,) = backward(lambda t: f(t, **words, **more), [x])
        assert_close(y.data, np.asarray(numpy(wide, **words)), "statistics", scale=1.0, what=what)
        expected = slope(wide, count, **words) * dy.astype(np.float64).reshape(kept.shape)
        assert_close(dx, expected, "statistics", scale=10.0, what=f"gradient of {what}")

    for name, entry in REDUCTIONS.items():
        check(name, *entry)
    if count > 1:
        centred = wide - wide.mean(words["axis"], keepdims=True)
        rest = count - correction
        deviation = np.sqrt((centred**2).sum(words["axis"], keepdims=True) / rest)
        out = np.sum(wide, **words).shape
        check("var", ops.var, lambda t, **w: (deviation**2).reshape(out), lambda *a, **w: 2 * centred / rest,
              correction=correction)  # fmt: skip
        check("std", ops.std, lambda t, **w: deviation.reshape(out), lambda *a, **w: centred / rest / deviation,
              correction=correction)  # fmt: skip
    one = an_axis(data.draw, x.ndim) if x.ndim else None
    for ours, numpy in ((ops.argmax, np.argmax), (ops.argmin, np.argmin)):
        assert_exact(np.asarray(ours(x, one, keepdims)), np.asarray(numpy(wide, one, keepdims=keepdims)), "argument")


@given(st.data(), SHAPE.filter(bool), DTYPE, SEED, st.integers(1, 3))
def test_any_axis_of_softmax_and_maxout(data, shape, dtype, seed, pieces):
    rng = np.random.default_rng(seed)
    x = strided(rng, 5 * normal(rng, shape, dtype))
    axis, wide = an_axis(data.draw, x.ndim), x.astype(np.float64)
    y, dy, (dx,) = backward(lambda t: ops.softmax(t, axis), [x])
    p = np.exp(wide) / np.exp(wide).sum(axis, keepdims=True)
    assert_close(y.data, p, "statistics", scale=1.0, what=f"softmax {shape} {axis}")
    expected = p * (dy - (dy * p).sum(axis, keepdims=True))
    assert_close(dx, expected, "statistics", scale=10.0, what=f"gradient of softmax {shape} {axis}")
    y, dy, (dx,) = backward(lambda t: ops.log_softmax(t, axis), [x])
    assert_close(y.data, np.log(p), "statistics", scale=10.0, what=f"log_softmax {shape} {axis}")
    expected = dy - p * dy.sum(axis, keepdims=True)
    assert_close(dx, expected, "statistics", scale=30.0, what=f"gradient of log_softmax {shape} {axis}")
    parts = strided(rng, np.concatenate([x + i * normal(rng, shape, dtype) for i in range(pieces)], axis))
    y, dy, (dx,) = backward(lambda t: ops.maxout(t, pieces, axis), [parts])
    first = axis % x.ndim
    groups = parts.reshape(*shape[:first], shape[first], pieces, *shape[first + 1 :])
    assert_exact(y.data, groups.max(first + 1), f"maxout {shape} {pieces} {axis}")
    scale = 64.0 * max(x.size, 1)
    assert_close(dot(dx, parts), dot(y.data, dy), "statistics", x.dtype, scale, "maxout passes to the largest")


def a_shape_of(draw, shape):
    """The same elements in two axes, one of them possibly as -1."""
    size = int(np.prod(shape))
    first = draw(st.sampled_from([n for n in range(1, size + 2) if size % n == 0]))
    return first, draw(st.sampled_from((-1, size // first)))


def a_slice(draw, shape):
    return tuple(draw(st.slices(n) | st.just(slice(None)) | st.none()) for n in shape)


def positions(draw, shape, axis):
    """Indices into the axis for each element of an array that is at most as large as x along the others."""
    n = shape[axis]
    kept = tuple(draw(st.integers(0, 4 if n else 0)) if i == axis % len(shape) else s for i, s in enumerate(shape))
    return draw(hnp.arrays(np.int64, kept, elements=st.integers(-n, n - 1) if n else st.just(0)))


def axis_and(rest):
    def options(draw, shape):
        axis = an_axis(draw, len(shape))
        return axis, rest(draw, shape, axis)

    return options


def a_larger(draw, shape):
    """A shape that this one broadcasts to."""
    return (*draw(st.lists(st.integers(1, 3), max_size=2)), *(draw(st.integers(0, 3)) if n == 1 else n for n in shape))


def two_axes(draw, shape):
    return an_axis(draw, len(shape)), an_axis(draw, len(shape))


def joined(f):
    """Something that gives parts, as one: the parts backwards, side by side."""
    return lambda x, axis, n: ops.concat(f(x, n, axis)[::-1], axis)


def joined_numpy(x, axis, step):
    cuts = range(step, x.shape[axis], step)
    return np.concatenate(np.split(x, cuts, axis)[::-1], axis)


# name: (options, ours, NumPy), where options are drawn for a shape of at least one axis.
STRUCTURAL = {
    "reshape": (lambda d, s: (a_shape_of(d, s),), ops.reshape, np.reshape),
    "flatten": (lambda d, s: (d(st.integers(0, len(s) - 1)),), ops.flatten,
                lambda x, start: x.reshape(*x.shape[:start], int(np.prod(x.shape[start:])))),
    "transpose": (lambda d, s: (d(st.permutations(range(len(s)))),), ops.transpose, np.transpose),
    "swapaxes": (two_axes, ops.swapaxes, np.swapaxes),
    "squeeze": (lambda d, s: d(st.sampled_from([(), *((i,) for i in range(len(s)) if s[i] == 1)])),
                ops.squeeze, np.squeeze),
    "unsqueeze": (lambda d, s: (d(st.integers(-len(s) - 1, len(s))),), ops.unsqueeze, np.expand_dims),
    "broadcast_to": (lambda d, s: (a_larger(d, s),), ops.broadcast_to, np.broadcast_to),
    "tile": (lambda d, s: (tuple(d(st.integers(0, 3)) for _ in s),), ops.tile, np.tile),
    "flip": (lambda d, s: (some_axes(d, len(s)),), ops.flip, np.flip),
    "roll": (lambda d, s: (d(st.integers(-9, 9)), an_axis(d, len(s))), ops.roll, np.roll),
    "getitem": (lambda d, s: (a_slice(d, s)[: d(st.integers(0, 4))],), ops.getitem, lambda x, i: x[i]),
    "index_select": (axis_and(lambda d, s, a: positions(d, (s[a],), 0)), ops.index_select,
                     lambda x, axis, i: np.take(x, i, axis)),
    "gather": (axis_and(positions), ops.gather, lambda x, axis, i: np.take_along_axis(x, i, axis)),
    "take_along_axis": (axis_and(positions), lambda x, axis, i: ops.take_along_axis(x, i, axis),
                        lambda x, axis, i: np.take_along_axis(x, i, axis)),
    "split": (axis_and(lambda d, s, a: d(st.integers(1, 5))), joined(ops.split), joined_numpy),
    "chunk": (axis_and(lambda d, s, a: d(st.integers(1, 5))), joined(ops.chunk),
              lambda x, axis, n: joined_numpy(x, axis, max(1, -(-x.shape[axis] // n)))),
}  # fmt: skip


@given(st.data(), SHAPE.filter(bool), DTYPE, SEED)
def test_any_options_of_shape_and_index(data, shape, dtype, seed):
    rng = np.random.default_rng(seed)
    x = integers(rng, shape, dtype)
    for name, (options, ours, numpy) in STRUCTURAL.items():
        args = options(data.draw, shape)
        check_linear(lambda t, f=ours, a=args: f(t, *a), lambda t, f=numpy, a=args: f(t, *a), [x], f"{name} {args}")
    axis, n = an_axis(data.draw, x.ndim), data.draw(st.integers(0, 3))
    other = integers(rng, [n if i == axis % x.ndim else s for i, s in enumerate(shape)], dtype)
    check_linear(lambda *t: ops.concat(t, axis), lambda *t: np.concatenate(t, axis), [x, other, x], f"concat {axis}")
    place = data.draw(st.integers(-x.ndim - 1, x.ndim))
    check_linear(lambda *t: ops.stack(t, place), lambda *t: np.stack(t, place), [x, -x], f"stack {shape} {place}")


@given(
    hnp.mutually_broadcastable_shapes(signature=np.matmul.signature, max_dims=2, min_side=0, max_side=4),
    DTYPE, SEED,
)  # fmt: skip
def test_any_shapes_of_products(shapes, dtype, seed):
    rng = np.random.default_rng(seed)
    a, b = (integers(rng, shape, dtype) for shape in shapes.input_shapes)
    check_linear(lambda x: ops.matmul(x, b), lambda x: np.matmul(x, b), [a], f"matmul {shapes}")
    check_linear(lambda x: ops.matmul(a, x), lambda x: np.matmul(a, x), [b], f"matmul {shapes}")
