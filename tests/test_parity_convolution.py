# SPDX-License-Identifier: Apache-2.0
"""The same numbers as PyTorch: transposed convolution and the convolution layers, with their gradients.

Needs the `parity` extra.
"""

import itertools

import numpy as np
import pytest

import fastconv as fc
from cases import NUMPY_DTYPE, rng_for
from tolerance import assert_close

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[parity]"')
functional = torch.nn.functional

pytestmark = pytest.mark.parametrize("dtype", ["f32", "f64"])


def normal(text, *shapes, dtype):
    rng = rng_for(text)
    return [rng.standard_normal(shape).astype(NUMPY_DTYPE[dtype]) for shape in shapes]


def twins(arrays):
    """The same leaves for us and for PyTorch."""
    mine = [fc.Tensor(a.copy(), requires_grad=True) for a in arrays]
    return mine, [torch.tensor(a, requires_grad=True) for a in arrays]


def share(combinations, dtype, of):
    """Every `of`-th combination; the two dtypes take different ones, so that little is computed twice."""
    return itertools.islice(combinations, int(dtype == "f64"), None, of)


def compare(y, expected, mine, theirs, what, second=True):
    """Values, gradients, and with `second` the gradients of a function of the gradients."""
    assert_close(y.data, expected.detach().numpy(), "parity", what=f"y: {what}")
    (dy,) = normal(f"dy {what}", y.shape, dtype="f64")
    dy = dy.astype(y.dtype)
    got = fc.grad(y, mine, fc.Tensor(dy), create_graph=second)
    want = torch.autograd.grad(expected, theirs, torch.tensor(dy), create_graph=second)
    for i, (g, w) in enumerate(zip(got, want, strict=True)):
        assert_close(g.data, w.detach().numpy(), "parity", what=f"gradient {i}: {what}")
    if not second:
        return
    squares = sum(((g * g).sum() for g in got), start=fc.Tensor(np.zeros((), y.dtype)))
    again = fc.grad(squares, mine, allow_unused=True)
    wanted = torch.autograd.grad(sum((w * w).sum() for w in want), theirs, allow_unused=True)
    for i, (g, w) in enumerate(zip(again, wanted, strict=True)):
        zero = np.zeros(mine[i].shape)
        g, w = zero if g is None else g.data, zero if w is None else w.numpy()
        assert_close(g.astype(y.dtype), w.astype(y.dtype), "model", what=f"second gradient {i}: {what}")


def transposed_options(rank):
    """(stride, padding, output_padding, groups, dilation), every combination that PyTorch accepts."""
    for stride, padding, extra, groups, dilation in itertools.product((1, 2, 3), (0, 1, 2), (0, 1, 2), (1, 2), (1, 2)):
        if extra < max(stride, dilation) and (rank < 3 or (stride + padding + extra + dilation) % 3 == 0):
            yield stride, padding, extra, groups, dilation


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose_with_every_option(rank, dtype):
    ran = 0
    for options in share(transposed_options(rank), dtype, 3):
        groups = options[3]
        filter = (3, 2, 3)[:rank]
        size = (4, 3, 3)[:rank]
        arrays = normal(str(options), (2, 4, *size), (4, 3, *filter), (3 * groups,), dtype=dtype)
        mine, theirs = twins(arrays)
        name = f"conv_transpose{rank}d"
        try:
            expected = getattr(functional, name)(*theirs, *options)
        except RuntimeError:
            expected = torch.empty(0)
        if expected.numel() == 0:  # one axis may come out with length 0 there
            with pytest.raises(fc.ProblemError, match="expected less padding"):
                getattr(fc, name)(*arrays, *options)
            continue
        compare(getattr(fc, name)(*mine, *options), expected, mine, theirs, f"{rank}d {options}", second=ran % 4 == 0)
        ran += 1
    assert ran >= {1: 20, 2: 20, 3: 7}[rank]


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_transpose_layers(rank, dtype):
    """The same state_dict, output sizes and repr; initial values from the same interval."""
    theirs_class, mine_class = getattr(torch.nn, f"ConvTranspose{rank}d"), getattr(fc.nn, f"ConvTranspose{rank}d")
    for words in ({}, {"stride": 2, "padding": 1, "output_padding": 1}, {"groups": 2, "bias": False},
                  {"dilation": 2, "stride": 3}, {"padding": (1,) * rank, "stride": (2,) * rank}):  # fmt: skip
        theirs, mine = theirs_class(4, 6, 3, **words), mine_class(4, 6, 3, **words, dtype=NUMPY_DTYPE[dtype])
        assert repr(mine) == repr(theirs)
        theirs = theirs.to(torch.float32 if dtype == "f32" else torch.float64)
        mine.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
        (x,) = normal(str(words), (2, 4, *(5, 4, 3)[:rank]), dtype=dtype)
        assert_close(mine(x).data, theirs(torch.tensor(x)).detach().numpy(), "parity", what=str(words))
        assert_close(mine(x[0]).data, theirs(torch.tensor(x[0])).detach().numpy(), "parity", what=str(words))
        smallest = theirs(torch.tensor(x)).shape[2:]
        least = [s - max(mine.output_padding) for s in smallest]
        for more in range(mine.stride[0]):
            size = [s + more for s in least]
            for form in (size, [2, 6, *size]):
                want = theirs(torch.tensor(x), output_size=form).detach().numpy()
                assert_close(mine(x, output_size=form).data, want, "parity", what=f"{words} {form}")
        for wrong in ([s - 1 for s in least], [s + mine.stride[0] for s in least]):
            with pytest.raises(ValueError, match="requested an output size"):
                theirs(torch.tensor(x), output_size=wrong)
            with pytest.raises(fc.ProblemError, match=r"output_size is .*; expected"):
                mine(x, output_size=wrong)
        bound = 1 / np.sqrt(6 / mine.groups * 3**rank)
        for name, value in mine_class(4, 6, 3, **words).state_dict().items():
            assert abs(value).max() <= bound < 1.5 * abs(value).max() or name == "bias"


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_conv_layers(rank, dtype):
    """Padding numbers and words, padding modes, groups, dilation; state_dict and repr."""
    theirs_class, mine_class = getattr(torch.nn, f"Conv{rank}d"), getattr(fc.nn, f"Conv{rank}d")
    size = (7, 6, 5)[:rank]
    ran = 0
    paddings = (0, 1, (2, 1, 0)[:rank], "valid", "same")
    modes = ("zeros", "reflect", "replicate", "circular")
    others = ({}, {"groups": 2, "bias": False}, {"stride": 2})
    for padding, mode, dilation, words in share(itertools.product(paddings, modes, (1, 2), others), dtype, 7):
        if padding == "same" and "stride" in words:
            continue  # PyTorch refuses it
        words = words | {"padding": padding, "padding_mode": mode, "dilation": dilation}
        theirs, mine = theirs_class(4, 6, 2, **words), mine_class(4, 6, 2, **words, dtype=NUMPY_DTYPE[dtype])
        assert repr(mine) == repr(theirs)
        theirs = theirs.to(torch.float32 if dtype == "f32" else torch.float64)
        mine.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
        (x,) = normal(str(words), (2, 4, *size), dtype=dtype)
        (mx,), (tx,) = twins([x])
        inputs, weights = [mx, *mine.parameters()], [tx, *theirs.parameters()]
        compare(mine(mx), theirs(tx), inputs, weights, f"{rank}d {words}", second=ran % 4 == 0)
        ran += 1
    assert ran >= 14


def test_unfold_and_fold(dtype):
    options = itertools.product(((2, 3), 2, (1, 1)), (1, (2, 1)), (0, (1, 2)), (1, (3, 2)))
    for kernel, dilation, padding, stride in options:
        arguments = (kernel, dilation, padding, stride)
        (x,) = normal(str(arguments), (2, 3, 7, 6), dtype=dtype)
        mine, theirs = twins([x])
        columns, expected = fc.im2col(*mine, *arguments), functional.unfold(*theirs, *arguments)
        compare(columns, expected, mine, theirs, f"unfold {arguments}", second=False)
        mine, theirs = twins([columns.data])
        image, expected = fc.col2im(*mine, (7, 6), *arguments), functional.fold(*theirs, (7, 6), *arguments)
        compare(image, expected, mine, theirs, f"fold {arguments}", second=False)
        assert repr(fc.nn.Unfold(*arguments)) == repr(torch.nn.Unfold(*arguments))
        assert repr(fc.nn.Fold((7, 6), *arguments)) == repr(torch.nn.Fold((7, 6), *arguments))


ACTIVATIONS = {
    "relu": functional.relu,
    ("leaky_relu", 0.2): lambda z: functional.leaky_relu(z, 0.2),
    "relu6": functional.relu6,
    ("elu", 0.7): lambda z: functional.elu(z, 0.7),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "hard_swish": functional.hardswish,
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_fused_epilogues_with_double_backward(rank, dtype):
    """Convolution with bias, residual and activation, and its transpose, each against the separate steps."""
    size = (6, 5, 4)[:rank]
    for activation, formula in ACTIVATIONS.items():
        shapes = ((2, 4, *size), (6, 2, *(3,) * rank), (6,), (2, 6, *size))
        mine, theirs = twins(normal(str(activation), *shapes, dtype=dtype))
        convolve, transpose = getattr(functional, f"conv{rank}d"), getattr(functional, f"conv_transpose{rank}d")
        x, w, bias, residual = mine
        words = {"padding": 1, "groups": 2, "activation": activation}
        y = getattr(fc, f"conv{rank}d")(x, w, bias, residual=residual, **words)
        expected = formula(convolve(*theirs[:3], 1, 1, 1, 2) + theirs[3])
        compare(y, expected, mine, theirs, f"{rank}d {activation}")
        mine, theirs = [mine[3], mine[1], leaf_of(4, dtype)], [theirs[3], theirs[1], None]
        theirs[2] = torch.tensor(mine[2].data, requires_grad=True)
        y = getattr(fc, f"conv_transpose{rank}d")(*mine, stride=2, **words)
        expected = formula(transpose(*theirs, 2, 1, 0, 2))
        compare(y, expected, mine, theirs, f"transposed {rank}d {activation}")


def leaf_of(count, dtype):
    return fc.Tensor(normal("leaf", count, dtype=dtype)[0], requires_grad=True)
