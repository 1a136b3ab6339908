# SPDX-License-Identifier: Apache-2.0
"""Activations: values and slopes to a few units in the last place over the whole range, limits, layers, messages."""

import numpy as np
import pytest

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from fastconv import _core, nn, ops, reference
from fastconv.geometry import ACTIVATION_ALPHAS
from fastconv.ops.activation_formulas import saves_input
from tolerance import assert_close, assert_elementwise, assert_exact

KINDS = [kind for kind in ACTIVATION_ALPHAS if kind != "none"]
DTYPES = pytest.mark.parametrize("dtype", ["f32", "f64"])
ALPHA = 0.75
# The exponent of gelu_tanh and beta x of softplus are rounded before exp sees them.
CONDITION = {
    "gelu_tanh": lambda x: 1 + np.abs(1.6 * x + 0.0714 * np.clip(x, -99, 99) ** 3),
    "softplus": lambda x: 1 + np.abs(x),
}
# Far below zero a product of something large and a subnormal number is lost.
LOST = 256


def grid(dtype):
    """Near zero, the middle, where exp under- and overflows, huge, subnormal, infinite; with both zeros."""
    far = 760 if dtype == "f64" else 110
    parts = [np.linspace(-12, 12, 4001), np.linspace(-far, far, 2001), np.geomspace(1e-37, 1e37, 400)]
    parts += [-parts[2], [0.0, -0.0, 1e-40, -1e-40, np.inf, -np.inf, 3, -3, 6, 1, -1, 3.4e38, -3.4e38]]
    return np.concatenate(parts).astype(NUMPY_DTYPE[dtype])


def slopes(kind, x, alpha=ALPHA, dy=None):
    saved = x if saves_input(kind, alpha) else _core.activation_forward(kind, x, alpha)
    return _core.activation_backward(kind, np.ones_like(x) if dy is None else dy, saved, alpha)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_over_the_whole_range(kind):
    x = grid("f32")
    condition = CONDITION.get(kind, lambda x: 1.0)(np.clip(np.nan_to_num(x.astype(np.float64)), -1e99, 1e99))
    with np.errstate(all="ignore"):
        expected = reference.activation(kind, x, ALPHA)
        # A subnormal number counts as zero, on which side of a kink it may lie.
        normal = np.where(np.abs(x) < np.finfo(np.float32).tiny, 0, x)
        slope = reference.activation_backward(kind, np.ones_like(x), normal, ALPHA)
    expected[np.abs(expected) > np.finfo(np.float32).max] *= np.inf
    assert_elementwise(_core.activation_forward(kind, x, ALPHA), expected, "elementary", condition, LOST, kind)
    assert_elementwise(slopes(kind, x), slope, "slope", 1.0, LOST, f"slope of {kind}")


@pytest.mark.parametrize("kind", KINDS)
def test_float64_over_the_whole_range(kind):
    """Against 30 digits, because a float64 reference is not better than what it judges."""
    mp = pytest.importorskip("mpmath", reason="mpmath is not installed; it comes with PyTorch").mp
    x = grid("f64")[::23]
    x = x[np.isfinite(x)]
    with mp.workdps(30):
        exact = [EXACT[kind](mp, mp.mpf(float(v))) for v in x]
        y = _core.activation_forward(kind, x, ALPHA)
        # The difference is taken in many digits, then judged as if the expected value were a float64.
        error = np.array([float(mp.mpf(float(a)) - e) for a, e in zip(y, exact, strict=True)])
    expected = np.array([float(e) for e in exact])
    condition = CONDITION.get(kind, lambda x: 1.0)(x)
    assert_elementwise(np.where(np.isfinite(y), expected + error, y), expected, "elementary", condition, LOST, kind)
    with np.errstate(all="ignore"):
        slope = reference.activation_backward(kind, np.ones_like(x), x, ALPHA)
    assert_elementwise(slopes(kind, x), slope, "slope", 1.0, LOST, f"slope of {kind}")


def sigmoid(mp, x):
    return 1 / (1 + mp.exp(-x))


def softplus(mp, x):
    return mp.log1p(mp.exp(x)) if x < 0 else x + mp.log1p(mp.exp(-x))


SELU = "1.0507009873554804934193349852946", "1.7580993408473768599402175208123"
EXACT = {
    "relu": lambda mp, x: max(x, 0),
    "leaky_relu": lambda mp, x: x if x > 0 else ALPHA * x,
    "relu6": lambda mp, x: min(max(x, 0), 6),
    "elu": lambda mp, x: x if x > 0 else ALPHA * mp.expm1(x),
    "sigmoid": sigmoid,
    "tanh": lambda mp, x: mp.tanh(x),
    "silu": lambda mp, x: x * sigmoid(mp, x),
    "gelu": lambda mp, x: x * mp.erfc(-x / mp.sqrt(2)) / 2,
    "hard_swish": lambda mp, x: x * min(max(x + 3, 0), 6) / 6,
    "gelu_tanh": lambda mp, x: x * sigmoid(mp, 2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3)),
    "selu": lambda mp, x: mp.mpf(SELU[0]) * x if x > 0 else mp.mpf(SELU[1]) * mp.expm1(x),
    "celu": lambda mp, x: x if x > 0 else ALPHA * mp.expm1(x / ALPHA),
    "hard_sigmoid": lambda mp, x: min(max(x + 3, 0), 6) / mp.mpf(6),
    "softplus": lambda mp, x: softplus(mp, x * ALPHA) / ALPHA,
    "softsign": lambda mp, x: x / (1 + abs(x)),
    "mish": lambda mp, x: x * mp.tanh(softplus(mp, x)),
    "log_sigmoid": lambda mp, x: -softplus(mp, -x),
}


@DTYPES
@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_of_a_finite_input_is_nan_and_every_nan_stays(kind, dtype):
    x = grid(dtype)
    assert np.isfinite(slopes(kind, x)).all()
    everywhere = np.full(37, np.nan, x.dtype)
    assert np.isnan(_core.activation_forward(kind, everywhere, ALPHA)).all()
    t = fc.Tensor(x[np.isfinite(x)], requires_grad=True)
    with np.errstate(all="raise", under="ignore"):
        (dx,) = fc.grad(ops.activation(t, kind, ALPHA).sum() * 1.0, t, create_graph=True)
        again = fc.grad(dx.sum(), t, allow_unused=True)[0] if dx.requires_grad else None
    assert again is None or np.isfinite(again.data).all(), "second derivative"


@DTYPES
@pytest.mark.parametrize("kind", ["leaky_relu", "elu"])
def test_a_negative_parameter(kind, dtype):
    """y does not tell the slope then: x is kept."""
    x, dy = (rng_for(f"{kind} {i}").standard_normal((5, 9)).astype(NUMPY_DTYPE[dtype]) for i in range(2))
    t = fc.Tensor(x, requires_grad=True)
    y = ops.activation(t, kind, -0.5)
    assert_close(y.data, reference.activation(kind, x, -0.5), "pointwise")
    y.backward(fc.Tensor(dy))
    assert_close(t.grad.data, reference.activation_backward(kind, dy, x, -0.5), "pointwise")
    assert fc.gradgradcheck(
        lambda v: ops.activation(v, kind, -0.5), fc.Tensor(x.astype(np.float64), requires_grad=True)
    )


VIEWS = [lambda a: a, lambda a: a[..., ::-1], lambda a: a.T, lambda a: a[1:, ::2]]


@DTYPES
def test_shapes_and_strides(dtype):
    for shape in [(0, 3, 2), (1, 1, 1), (3, 17, 4, 5), (2, 7, 33)]:
        x, dy = (rng_for(f"{shape} {i}").standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for i in range(2))
        x.flags.writeable = False
        for view in VIEWS:
            t = fc.Tensor(view(x), requires_grad=True)
            y = ops.gelu(t)
            assert_close(y.data, reference.activation("gelu", view(x)), "pointwise", what=f"{shape}")
            y.backward(fc.Tensor(view(dy)))
            assert_close(t.grad.data, reference.activation_backward("gelu", view(dy), view(x)), "pointwise")


@DTYPES
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (4, 3), (5, 33), (2, 3, 4), (3, 17, 4, 5), (1, 5, 2, 3, 4), (7,)])
def test_prelu(shape, dtype):
    x, dy = (rng_for(f"{shape} {i}").standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for i in range(2))
    x[x > 1] = 0
    for slopes in {1, shape[1] if len(shape) > 1 else 1}:
        w = rng_for(f"slopes {shape}").standard_normal(slopes).astype(x.dtype)
        assert_close(_core.prelu_forward(x, w), reference.prelu(x, w), "pointwise")
        expected = reference.prelu_backward(dy, x, w)
        for got, want, name in zip(_core.prelu_backward(dy, x, w), expected, ("dx", "dw"), strict=True):
            assert_close(got, want, "statistics", scale=1.0, what=f"{name} {shape} {slopes}")
        inputs = [fc.Tensor(a.astype(np.float64) + 0.01, requires_grad=True) for a in (x, w)]
        assert fc.gradcheck(ops.prelu, inputs) and fc.gradgradcheck(ops.prelu, inputs)


def test_maxout_takes_the_first_of_adjacent_channels():
    x = fc.Tensor(np.array([[1.0, 2, 5, 5, -1, -2]]), requires_grad=True)
    y = ops.maxout(x)
    y.sum().backward()
    assert_exact(y.data, np.array([[2.0, 5, -1]]))
    assert_exact(x.grad.data, np.array([[0.0, 1, 1, 0, 1, 0]]))
    images = rng_for("maxout").standard_normal((2, 6, 3, 4))
    expected = images.reshape(2, 2, 3, 3, 4).max(2)
    assert_exact(nn.Maxout(3)(images).data, expected)
    assert_exact(nn.Maxout(3, -1)(np.moveaxis(images, 1, -1)).data, np.moveaxis(expected, 1, -1))


def test_a_maxout_layer_is_a_maximum_of_affine_functions():
    layer = nn.MaxoutLinear(5, 4, pieces=3)
    x = rng_for("affine").standard_normal((2, 7, 5)).astype(np.float32)
    w, b = layer.linear.weight.data.reshape(4, 3, 5), layer.linear.bias.data.reshape(4, 3)
    affine = np.einsum("nti,opi->ntop", x, w) + b
    assert_close(layer(x).data, affine.max(-1), "parity", scale=1.0)
    assert repr(layer).startswith("MaxoutLinear(")


def test_softplus_with_a_threshold_is_pytorchs():
    x = np.array([-1.0, 5.0, 30.0])
    assert_exact(ops.softplus(x, 2.0, 20.0).data[2], x[2])
    assert ops.softplus(x, 0.5).data[1] > ops.softplus(x, 0.5, 2.0).data[1] == 5


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda x: ops.celu(x, 0.0), ValueError, "celu: alpha is 0.0; expected more than 0"),
        (lambda x: ops.softplus(x, -1), ValueError, "softplus: beta is -1"),
        (lambda x: ops.gelu(x, "sigmoid"), ValueError, "gelu: approximate is 'sigmoid'"),
        (lambda x: nn.GELU("sigmoid"), ValueError, "GELU: approximate is 'sigmoid'"),
        (lambda x: nn.Hardtanh(1, 1), ValueError, "Hardtanh: min_val is 1"),
        (lambda x: nn.PReLU(0), ValueError, "PReLU: num_parameters is 0"),
        (lambda x: ops.prelu(x, x[0, :3]), ValueError, r"weight has shape \(3,\); expected \(1,\) or \(4,\)"),
        (lambda x: ops.prelu(x, np.ones(4)), TypeError, "prelu: weight has dtype float64, x float32"),
        (lambda x: ops.maxout(x, 3), ValueError, "maxout: pieces is 3; expected a divisor of 4"),
        (lambda x: ops.maxout(x, 2, 2), ValueError, "maxout: axis is 2"),
        (lambda x: ops.softmax(x, 2), ValueError, "softmax: axis is 2"),
        (lambda x: fc.conv2d(x[None], x[:1, :1, None, None], activation=("celu", 0.0)), ValueError, "of celu is 0.0"),
    ],
)  # fmt: skip
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(np.ones((2, 4), np.float32))


def test_layers_say_their_options():
    layers = [nn.LeakyReLU(0.2), nn.PReLU(3), nn.ELU(0.5), nn.CELU(0.5), nn.GELU("tanh"), nn.Hardtanh(-2, 2)]
    layers += [nn.Softplus(2.0), nn.LogSoftmax(0), nn.Maxout(2, 0), nn.ReLU(inplace=True)]
    texts = [repr(layer) for layer in layers]
    assert texts[:3] == ["LeakyReLU(negative_slope=0.2)", "PReLU(num_parameters=3)", "ELU(alpha=0.5)"]
    assert texts[3:6] == ["CELU(alpha=0.5)", "GELU(approximate='tanh')", "Hardtanh(min_val=-2.0, max_val=2.0)"]
    assert texts[6:] == ["Softplus(beta=2.0, threshold=None)", "LogSoftmax(dim=0)", "Maxout(pieces=2, dim=0)", "ReLU()"]
