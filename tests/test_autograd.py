# SPDX-License-Identifier: Apache-2.0
"""The tape: every operation's first and second derivatives against differences, and the rules of graph and leaf."""

import gc
import weakref

import numpy as np
import pytest

import fastconv as fc
from fastconv import ops
from fastconv.geometry import ACTIVATION_ALPHAS
from fastconv.ops.activation_formulas import activation_formula, saves_input, slope_formula

SEED = 11


def leaf(*shape, seed=SEED, positive=False):
    """A float64 leaf, away from zero so that no difference steps over a kink."""
    values = np.random.default_rng([seed, *shape]).standard_normal(shape)
    values = np.abs(values) + 0.5 if positive else values + np.copysign(0.05, values)
    return fc.Tensor(values, requires_grad=True)


def distinct(*shape):
    """A leaf whose elements differ by at least 0.1, so that no maximum is a tie."""
    order = np.random.default_rng(SEED).permutation(int(np.prod(shape)))
    return fc.Tensor(order.reshape(shape) * 0.1, requires_grad=True)


LABELS = np.array([2, 0, 1])
GEOMETRIES = [
    (1, (2, 4, 7), (6, 2, 3), {"stride": 2, "padding": "same", "groups": 2}),
    (1, (1, 2, 6), (3, 2, 2), {"padding": "causal", "dilation": 2}),
    (2, (2, 2, 5, 4), (3, 2, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 2))}),
    (2, (1, 2, 4, 5), (4, 1, 3, 3), {"groups": 2, "padding": 1, "dilation": (1, 2)}),
    (2, (2, 3, 4, 4), (2, 3, 1, 1), {}),
    (3, (1, 2, 3, 4, 3), (2, 2, 2, 2, 2), {"padding": "full"}),
    (2, (1, 4, 4, 2), (3, 2, 3, 3), {"padding": 1, "layout": "channels_last"}),
    (2, (1, 1, 4, 4), (2, 1, 3, 3), {"padding": 1, "padding_mode": "reflect"}),
    (2, (1, 1, 4, 4), (2, 1, 3, 3), {"padding": 2, "padding_mode": "replicate"}),
    (1, (1, 2, 5), (2, 2, 3), {"padding": 1, "padding_mode": "circular"}),
    (2, (1, 1, 4, 4), (2, 1, 3, 3), {"padding": 1, "padding_mode": "constant", "pad_value": 0.7}),
]
CONV = {1: fc.conv1d, 2: fc.conv2d, 3: fc.conv3d}


@pytest.mark.parametrize(("rank", "x", "w", "words"), GEOMETRIES)
def test_conv(rank, x, w, words):
    inputs = [leaf(*x), leaf(*w), leaf(w[0])]
    assert fc.gradcheck(lambda x, w, b: CONV[rank](x, w, b, **words), inputs)
    assert fc.gradgradcheck(lambda x, w, b: CONV[rank](x, w, b, **words), inputs)


def test_conv_unbatched_with_residual_and_activation():
    inputs = [leaf(2, 4, 4), leaf(3, 2, 3, 3), leaf(3), leaf(3, 4, 4)]

    def f(x, w, b, r):
        return fc.conv2d(x, w, b, padding=1, residual=r, activation="tanh")

    assert fc.gradcheck(f, inputs) and fc.gradgradcheck(f, inputs)


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_conv_skips_frozen_inputs(frozen):
    inputs = [leaf(1, 2, 4, 4), leaf(3, 2, 3, 3), leaf(3)]
    inputs[frozen].requires_grad = False
    assert fc.gradcheck(fc.conv2d, inputs) and fc.gradgradcheck(fc.conv2d, inputs)
    fc.conv2d(*inputs).sum().backward()
    assert [t.grad is None for t in inputs] == [i == frozen for i in range(3)]


def test_third_derivative_of_conv():
    def f(x, w):
        with fc.enable_grad():  # the differences call f without recording
            y = (fc.conv2d(x, w) ** 3).sum()
            (g,) = fc.grad(y, x, create_graph=True)
        return g

    assert fc.gradgradcheck(f, [leaf(1, 1, 4, 4), leaf(1, 1, 3, 3)])


POOLS = [
    lambda x: fc.max_pool1d(x[:, :, 0], 3, 2, 1),
    lambda x: fc.max_pool2d(x, 2),
    lambda x: fc.max_pool2d(x, 3, 1, 2, dilation=2, ceil_mode=True),
    lambda x: fc.max_pool2d(x, 2, layout="channels_last"),
    lambda x: fc.max_pool3d(x, 2, 1),
    lambda x: fc.avg_pool1d(x[:, 0], 2),
    lambda x: fc.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    lambda x: fc.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    lambda x: fc.avg_pool2d(x, 2, layout="channels_last"),
    lambda x: fc.avg_pool3d(x, 2, 1),
]


@pytest.mark.parametrize("index", range(len(POOLS)))
def test_pool(index):
    f, x = POOLS[index], distinct(2, 3, 4, 5)
    assert fc.gradcheck(f, x) and fc.gradgradcheck(lambda x: f(x) * f(x), x)


def test_max_pool_indices_are_plain_data():
    y, indices = fc.max_pool2d(distinct(1, 1, 4, 4), 2, return_indices=True)
    assert y.requires_grad and not indices.requires_grad and indices.dtype == np.int64


@pytest.mark.parametrize("kind", [k for k in ACTIVATION_ALPHAS if k != "none"])
def test_activation(kind):
    x, alpha = leaf(3, 4), 0.3

    def f(x):
        return ops.activation(x * 2.0, kind, alpha)

    assert fc.gradcheck(f, x) and fc.gradgradcheck(f, x)


@pytest.mark.parametrize("kind", [k for k in ACTIVATION_ALPHAS if k != "none"])
def test_activation_formulas_agree_with_the_kernels(kind):
    x = fc.Tensor(np.linspace(-8, 8, 41), requires_grad=True)
    y = ops.activation(x, kind, 0.3)
    np.testing.assert_allclose(activation_formula(kind, x.data, 0.3), y.data, rtol=1e-9, atol=1e-12)
    y.sum().backward()
    saved = x.data if saves_input(kind, 0.3) else y.data
    np.testing.assert_allclose(slope_formula(kind, saved, 0.3), x.grad.data, rtol=1e-9, atol=1e-12)


UNARY = {
    "neg": lambda a: -a,
    "exp": ops.exp,
    "log": ops.log,
    "sqrt": ops.sqrt,
    "power": lambda a: a**3,
    "fraction": lambda a: a**-0.5,
    "reshape": lambda a: a.reshape(4, 3) * a.reshape(4, -1),
    "transpose": lambda a: a.T * a.transpose(1, 0),
    "flatten": lambda a: a.flatten() * 2.0,
    "sum": lambda a: a.sum() * a.sum(0),
    "mean": lambda a: a.mean(1, keepdims=True) * a,
    "slice": lambda a: a[1:, ::2] * a[:2, 1::2],
    "take_twice": lambda a: a[np.array([0, 0, 2])] * a,
    "mask": lambda a: a[a.data > 1] * 3.0,
    "pad": lambda a: ops.pad(a, [(1, 0), (0, 2)], 0.5) * 2.0,
    "softmax": lambda a: ops.softmax(a),
    "softmax_axis": lambda a: ops.softmax(a.reshape(2, 3, 2), 1),
    "log_softmax": lambda a: ops.log_softmax(a, 0),
    "cross_entropy": lambda a: ops.cross_entropy(a, LABELS),
    "cross_entropy_sum": lambda a: ops.cross_entropy(a, LABELS, reduction="sum"),
    "cross_entropy_none": lambda a: ops.cross_entropy(a, LABELS, reduction="none"),
    "cross_entropy_map": lambda a: ops.cross_entropy(a.reshape(2, 3, 2), np.array([[0, 1], [2, 2]])),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    x = leaf(3, 4, positive=True)
    assert fc.gradcheck(UNARY[name], x) and fc.gradgradcheck(lambda a: UNARY[name](a) ** 2, x)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
def test_max(axis):
    x = distinct(2, 3, 4)
    np.testing.assert_array_equal(x.max(axis, keepdims=True).data, x.data.max(axis, keepdims=True))
    assert fc.gradcheck(lambda a: a.max(axis) * a.max(axis), x)
    assert fc.gradgradcheck(lambda a: a.max(axis) ** 2, x)


BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "concat": lambda a, b: ops.concat([a, b * ops.broadcast_to(b, b.shape)], 0),
}


@pytest.mark.parametrize("shape", [(3, 4), (4,), (3, 1), (1, 1), ()])
@pytest.mark.parametrize("name", BINARY)
def test_binary_with_broadcasting(name, shape):
    if name == "concat":
        shape = (2, 4)
    inputs = [leaf(3, 4, positive=True), leaf(*shape, seed=5, positive=True)]
    assert fc.gradcheck(BINARY[name], inputs) and fc.gradgradcheck(BINARY[name], inputs)


@pytest.mark.parametrize("shapes", [((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((2, 3, 4), (2, 4, 2)), ((3, 4), (4,))])
def test_matmul(shapes):
    inputs = [leaf(*shape) for shape in shapes]
    assert fc.gradcheck(lambda a, b: a @ b, inputs) and fc.gradgradcheck(lambda a, b: a @ b, inputs)


def test_linear():
    inputs = [leaf(2, 3, 4), leaf(5, 4), leaf(5)]
    assert fc.gradcheck(ops.linear, inputs) and fc.gradgradcheck(ops.linear, inputs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4), (2, 3, 2, 2)])
def test_batch_norm(training, shape):
    mean, variance = np.array([0.1, -0.2, 0.3]), np.array([0.5, 1.0, 2.0])

    def f(x, gamma, beta):
        return ops.batch_norm(x, mean.copy(), variance.copy(), gamma, beta, training)

    inputs = [leaf(*shape), leaf(3), leaf(3)]
    assert fc.gradcheck(f, inputs, atol=1e-4) and fc.gradgradcheck(f, inputs, atol=1e-4)


def test_dropout_gradient_uses_the_same_mask():
    x = leaf(50)
    fc.manual_seed(2)
    y = ops.dropout(x, 0.4)
    y.sum().backward()
    kept = y.data != 0
    assert 0 < kept.sum() < 50
    np.testing.assert_allclose(x.grad.data, np.where(kept, 1 / 0.6, 0))


def test_gradcheck_finds_a_wrong_gradient():
    class Wrong(fc.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 3

        @staticmethod
        def backward(ctx, dy):
            return dy * 2.0

    with pytest.raises(AssertionError, match=r"input 0 at .*the tape gives"):
        fc.gradcheck(Wrong.apply, leaf(2))
    with pytest.raises(TypeError, match="expected float64"):
        fc.gradcheck(ops.exp, fc.Tensor(np.ones(2, np.float32), requires_grad=True))


def test_leaves_accumulate_and_reuse_adds_up():
    x = leaf(3)
    (x * x + x).sum().backward()
    np.testing.assert_allclose(x.grad.data, 2 * x.data + 1)
    (x * 2.0).sum().backward()
    np.testing.assert_allclose(x.grad.data, 2 * x.data + 3)


def test_a_deep_graph_needs_no_recursion():
    x = leaf(2)
    y = x
    for _ in range(5000):
        y = y + 1.0
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, [1, 1])


def test_a_second_backward_needs_retain_graph():
    x = leaf(3)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    np.testing.assert_allclose(x.grad.data, 4 * x.data)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        y.backward()


def test_create_graph_gives_a_gradient_with_a_graph():
    x = leaf(3)
    (g,) = fc.grad((x**3).sum(), x, create_graph=True)
    assert g.requires_grad and x.grad is None
    (h,) = fc.grad(g.sum(), x)
    np.testing.assert_allclose(h.data, 6 * x.data)
    assert not h.requires_grad


def test_grad_of_something_inside_the_graph():
    x = leaf(3)
    y = x * 2.0
    z = (y * y).sum()
    gy, gx = fc.grad(z, [y, x])
    np.testing.assert_allclose(gy.data, 2 * y.data)
    np.testing.assert_allclose(gx.data, 8 * x.data)


def test_grad_names_an_unused_input():
    x, other = leaf(2), leaf(2, seed=3)
    with pytest.raises(RuntimeError, match=r"inputs\[1\] has no part"):
        fc.grad((x * 1.0).sum(), [x, other])
    assert fc.grad((x * 1.0).sum(), [x, other], allow_unused=True)[1] is None


def test_no_grad_records_nothing():
    x = leaf(2)
    with fc.no_grad():
        y = x * 2.0
        with fc.enable_grad():
            z = x * 2.0
    assert not y.requires_grad and z.requires_grad and fc.is_grad_enabled()

    @fc.no_grad()
    def f():
        return x * 2.0

    assert not f().requires_grad and not f().requires_grad


def test_backward_refuses_what_it_cannot_do():
    with pytest.raises(RuntimeError, match="does not require a gradient"):
        fc.Tensor(np.ones(())).backward()
    with pytest.raises(RuntimeError, match=r"has shape \(2,\); pass its gradient"):
        (leaf(2) * 1.0).backward()
    with pytest.raises(RuntimeError, match=r"expected float64 \(2,\)"):
        (leaf(2) * 1.0).backward(np.ones(3))


def test_a_value_changed_in_place_is_noticed():
    x = leaf(2)
    y = (x * x).sum()
    x.data += 1
    x.bump_version()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_detach_and_a_shared_array_keep_their_places():
    x = leaf(3)
    (g,) = fc.grad((x * x.detach()).sum(), x, create_graph=True)
    np.testing.assert_allclose(g.data, x.data)
    assert not g.requires_grad


def test_memory_is_freed_without_the_collector():
    gc.disable()
    try:
        x = leaf(4)
        y = ops.tanh(x * 2.0).sum()
        node = weakref.ref(y)
        del y
        assert node() is None
    finally:
        gc.enable()


def test_numpy_and_tensor_mix():
    x = leaf(3)
    for y in (np.arange(3.0) * x, x * np.arange(3.0), 2 - x, np.float64(2) / x):
        assert isinstance(y, fc.Tensor) and y.requires_grad
    with pytest.raises(TypeError, match="dtypes float64 and float32"):
        x * np.ones(3, np.float32)
    with pytest.raises(RuntimeError, match="detach"):
        np.asarray(x)
    with pytest.raises(TypeError, match="only floats can require"):
        fc.Tensor(np.arange(3), requires_grad=True)
    assert fc.Tensor([1.0, 2.0]).dtype == np.float32 and fc.Tensor([1, 2]).dtype == np.int64


def test_integers_are_data():
    indices = fc.Tensor(np.array([1, 0]))
    x = leaf(2)
    y = x[indices]
    y.sum().backward()
    assert not indices.requires_grad and (x > 0).dtype == bool
