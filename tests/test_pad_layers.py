# SPDX-License-Identifier: Apache-2.0
"""Borders and their adjoints, dropout of elements and channels, and cutting axes: operations and layers."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import DTYPES, NUMPY_DTYPE, rng_for
from fastconv import nn, ops, reference
from tolerance import assert_close, assert_exact

MODES = ("constant", "reflect", "replicate", "circular")


@st.composite
def borders(draw):
    """(shape, widths, mode) that fit: any number of axes, some cropped."""
    mode = draw(st.sampled_from(MODES))
    shape, widths = [], []
    for _ in range(draw(st.integers(1, 4))):
        begin, end = draw(st.integers(-2, 4)), draw(st.integers(-2, 4))
        widest = max(begin, end, 0)
        needed = {"constant": 0, "reflect": widest + 1, "replicate": 1, "circular": widest}[mode] if widest else 0
        shape.append(needed - min(begin, 0) - min(end, 0) + draw(st.integers(0, 3)))
        widths.append((begin, end))
    return tuple(shape), widths, mode


@given(borders(), st.sampled_from(DTYPES), st.booleans())
def test_borders_are_their_reference(case, dtype, backwards):
    """Bits equal: forward only copies, and integers sum exactly. Fold is the adjoint of pad."""
    shape, widths, mode = case
    x = rng_for(str(case)).integers(-9, 9, shape).astype(NUMPY_DTYPE[dtype])
    x = x[::-1] if backwards else x
    x.flags.writeable = False
    tensor = fc.Tensor(x, requires_grad=True)
    y = ops.pad(tensor, widths, 0.5, mode)
    assert_exact(y.data, reference.pad(x, widths, 0.5, mode))
    dy = rng_for("dy").integers(-9, 9, y.shape).astype(x.dtype)
    (dx,) = fc.grad(y, tensor, fc.Tensor(dy)) if y is not tensor else (fc.Tensor(dy),)
    assert_exact(dx.data, reference.pad_backward(dy, shape, widths, mode))
    assert np.vdot(reference.pad(x, widths, 0.0, mode), dy) == np.vdot(x, dx.data)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_and_their_gradients(mode):
    rng = np.random.default_rng(3)
    for widths in ([(1, 2)], [(0, 1), (2, 0)], [(-1, 1), (1, -1), (1, 1)]):
        x = fc.Tensor(rng.standard_normal((4, 3, 3)[: len(widths)]), requires_grad=True)

        def f(x, widths=widths):
            return ops.pad(x, widths, 0.7, mode) ** 2

        assert fc.gradcheck(f, x) and fc.gradgradcheck(f, x)


def test_functional_counts_from_the_last_axis():
    x = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    np.testing.assert_array_equal(nn.functional.pad(x, (1, 0)).data[0, 1], [0, 3, 4, 5])
    np.testing.assert_array_equal(
        nn.functional.pad(x, (0, 1, 1, 0), value=7).data[0], [[7] * 4, [0, 1, 2, 7], [3, 4, 5, 7]]
    )
    np.testing.assert_array_equal(nn.functional.pad(x, (-1, -1)).data[0], [[1], [4]])
    assert nn.functional.pad(x, (0, 0), "reflect").data is x
    assert nn.functional.pad(x.astype(int), (1, 1), "circular").dtype == int


def test_half_precision_is_copied():
    x = np.array([1, 2, 3], np.float16)
    y = ops.pad(x, [(2, 2)], 0.5, "reflect")
    assert y.dtype == np.float16 and y.data.tolist() == [3, 2, 1, 2, 3, 2, 1]


LAYERS = [
    (nn.ZeroPad1d, 1, "constant", (), 0.0),
    (nn.ZeroPad2d, 2, "constant", (), 0.0),
    (nn.ZeroPad3d, 3, "constant", (), 0.0),
    (nn.ConstantPad1d, 1, "constant", (2.5,), 2.5),
    (nn.ConstantPad2d, 2, "constant", (2.5,), 2.5),
    (nn.ConstantPad3d, 3, "constant", (2.5,), 2.5),
    (nn.ReflectionPad1d, 1, "reflect", (), 0.0),
    (nn.ReflectionPad2d, 2, "reflect", (), 0.0),
    (nn.ReflectionPad3d, 3, "reflect", (), 0.0),
    (nn.ReplicationPad1d, 1, "replicate", (), 0.0),
    (nn.ReplicationPad2d, 2, "replicate", (), 0.0),
    (nn.ReplicationPad3d, 3, "replicate", (), 0.0),
    (nn.CircularPad1d, 1, "circular", (), 0.0),
    (nn.CircularPad2d, 2, "circular", (), 0.0),
    (nn.CircularPad3d, 3, "circular", (), 0.0),
]


@pytest.mark.parametrize(("layer", "rank", "mode", "more", "value"), LAYERS)
def test_layers(layer, rank, mode, more, value):
    each = tuple(range(1, 2 * rank + 1)) if mode != "reflect" else (2, 1) * rank
    for batched, padding in itertools.product((True, False), (2, each)):
        x = rng_for("pad").standard_normal(((2,) if batched else ()) + (3, 6, 7, 8)[: rank + 1]).astype(np.float32)
        flat = (padding,) * (2 * rank) if padding == 2 else padding
        pairs = [(flat[2 * i], flat[2 * i + 1]) for i in reversed(range(rank))]
        expected = reference.pad(x, [(0, 0)] * (x.ndim - rank) + pairs, value, mode)
        assert_exact(layer(padding, *more)(x).data, expected)
    assert repr(layer(2, *more)).startswith(f"{layer.__name__}(")
    with pytest.raises(fc.ProblemError, match=f"expected {rank + 1} or {rank + 2} dimensions"):
        layer(1, *more)(np.ones((1,) * (rank + 3), np.float32))
    with pytest.raises(fc.ProblemError, match=f"expected an int or {2 * rank}"):
        layer((1,) * (2 * rank + 1), *more)


BAD = [
    (lambda x: ops.pad(x, [(1, 1)]), fc.ProblemError, "widths has 1 pairs; expected 2"),
    (lambda x: ops.pad(x, [(0, 0), (1, 1)], mode="mirror"), fc.ProblemError, "mode is 'mirror'; expected one of"),
    (lambda x: ops.pad(x, [(0, 0), (3, 0)], mode="reflect"), fc.ProblemError, "needs 4 cells in axis 1, x has 3"),
    (lambda x: ops.pad(x, [(0, 0), (0, 4)], mode="circular"), fc.ProblemError, "needs 4 cells in axis 1, x has 3"),
    (lambda x: ops.pad(x, [(0, 0), (-2, -2)]), fc.ProblemError, "axis 1 has 3 cells and widths"),
    (lambda x: ops.pad(x[:0], [(1, 0), (0, 0)], mode="replicate"), fc.ProblemError, "needs 1 cells in axis 0, x has 0"),
    (lambda x: nn.functional.pad(x, (1,)), fc.ProblemError, r"pad is \(1,\); expected"),
    (lambda x: nn.functional.pad(x, (1,) * 6), fc.ProblemError, "up to 2 axes, the last first"),
    (lambda x: nn.functional.pad(x, (1, 1), "reflect", 2.0), fc.ProblemError, "a value for mode .constant. only"),
    (lambda x: nn.ZeroPad1d(1.5), TypeError, "padding is 1.5; expected integers"),
    (lambda x: ops.dropout(x, -0.1), fc.ProblemError, "dropout: p is -0.1; expected 0 to 1"),
    (lambda x: nn.Dropout2d(1.01), fc.ProblemError, "Dropout2d: p is 1.01"),
    (lambda x: ops.dropout3d(x), fc.ProblemError, "dropout3d: x has shape .*; expected 4 or 5 dimensions"),
    (lambda x: nn.Unflatten(1, (2, -1))(x), fc.ProblemError, "Unflatten: axis 1 has 3 cells; expected sizes for it"),
    (lambda x: nn.Unflatten(1, (-1, -1))(x), fc.ProblemError, "axis 1 has 3 cells"),
    (lambda x: nn.Unflatten(2, (1, 1))(x), fc.ProblemError, "dim is 2, x has shape"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "sentence"), BAD)
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call(np.ones((2, 3), np.float32))


# ---- Dropout --------------------------------------------------------------------------------------------------------

CHANNELS = [
    (nn.Dropout1d, (20, 30, 4), 2),
    (nn.Dropout1d, (30, 4), 1),
    (nn.Dropout2d, (20, 30, 3, 2), 2),
    (nn.Dropout2d, (20, 30, 4), 2),
    (nn.Dropout3d, (20, 30, 2, 2, 2), 2),
    (nn.Dropout3d, (30, 2, 2, 2), 1),
    (nn.Dropout, (20, 30, 4), 3),
]


@pytest.mark.parametrize(("layer", "shape", "axes"), CHANNELS, ids=str)
def test_dropout_drops_elements_or_channels(layer, shape, axes):
    x, drop = fc.Tensor(np.ones(shape, np.float32), requires_grad=True), layer(0.25, inplace=True)
    fc.manual_seed(3)
    y = drop(x)
    assert set(np.unique(y.data)) == {np.float32(0), np.float32(1 / 0.75)}
    cells = y.data.reshape(*shape[:axes], -1)
    assert (cells == cells[..., :1]).all()
    assert abs((cells[..., 0] == 0).mean() - 0.25) < 0.2
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.data, y.data)  # the same mask and scale
    assert (x.data == 1).all()
    fc.manual_seed(3)
    np.testing.assert_array_equal(drop(x).data, y.data)
    assert drop.eval()(x) is x and layer(0.0)(x) is x


def test_dropout_of_everything():
    for dtype in DTYPES:
        x = fc.Tensor(np.array([1, np.inf, np.nan], NUMPY_DTYPE[dtype]), requires_grad=True)
        y = nn.Dropout(1.0)(x)
        y.sum().backward()
        assert y.data.tolist() == [0, 0, 0] and x.grad.data.tolist() == [0, 0, 0]


def test_dropout_can_be_differentiated_twice():
    x = fc.Tensor(np.random.default_rng(1).standard_normal((4, 6, 3)), requires_grad=True)

    def f(x):
        fc.manual_seed(7)
        return ops.dropout1d(x, 0.5) ** 2

    assert fc.gradcheck(f, x) and fc.gradgradcheck(f, x)


# ---- Flatten, Unflatten, Identity, Linear ---------------------------------------------------------------------------


def test_flatten_and_unflatten():
    x = fc.Tensor(np.arange(24, dtype=np.float32).reshape(2, 3, 4), requires_grad=True)
    assert (
        nn.Flatten()(x).shape == (2, 12) and nn.Flatten(0, 1)(x).shape == (6, 4) and nn.Flatten(-2)(x).shape == (2, 12)
    )
    for sizes in ((2, 2), (-1, 2), (4, 1, 1)):
        y = nn.Unflatten(-1, sizes)(x)
        assert_exact(nn.Flatten(2)(y).data, x.data)
    y.sum().backward()
    assert x.grad.shape == x.shape
    assert nn.Unflatten(1, (0, 5))(np.ones((2, 0), np.float32)).shape == (2, 0, 5)
    assert nn.Identity(3, unused=True)(x) is x
    assert repr(nn.Unflatten(1, [2, 2])) == "Unflatten(dim=1, unflattened_size=(2, 2))"


@pytest.mark.parametrize("lead", [(), (0,), (4,), (2, 3), (2, 1, 3)])
def test_linear_takes_any_leading_axes(lead):
    for bias, dtype in itertools.product((True, False), DTYPES):
        layer = nn.Linear(5, 3, bias=bias).to(NUMPY_DTYPE[dtype])
        x = rng_for("linear").standard_normal((*lead, 5)).astype(NUMPY_DTYPE[dtype])
        y = layer(x)
        shift = layer.bias.data if bias else np.zeros(3)
        expected = reference.dense(x.reshape(-1, 5), layer.weight.data, shift).reshape(*lead, 3)
        assert_close(y.data, expected, "statistics")
        y.sum().backward()
        assert (layer.bias is not None) == bias and layer.weight.grad.shape == (3, 5)
