# SPDX-License-Identifier: Apache-2.0
"""im2col and col2im against their definition, each other and the convolution that they make a matrix product."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import rng_for
from fastconv import reference
from tolerance import assert_exact, assert_same_bits


def integers(*shape, dtype=np.float64):
    return rng_for(str(shape)).integers(-3, 4, shape).astype(dtype)


@st.composite
def windows(draw):
    """(x shape, the options)."""
    rank = draw(st.integers(1, 3))
    largest = {1: 6, 2: 4, 3: 3}[rank]

    def each(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    filter, stride, dilation = each(1, largest), each(1, largest), each(1, 3)
    pads = tuple(draw(st.tuples(st.integers(0, 4), st.integers(0, 4))) for _ in range(rank))
    size = tuple(
        max(1, (f - 1) * d + 1 - b - e) + draw(st.integers(0, 4))
        for f, d, (b, e) in zip(filter, dilation, pads, strict=True)
    )
    words = {"kernel_size": filter, "dilation": dilation, "padding": pads, "stride": stride}
    return (draw(st.integers(0, 3)), draw(st.integers(1, 4)), *size), words


@given(windows(), st.sampled_from((np.float32, np.float64)))
def test_the_definition_and_adjointness(case, dtype):
    x_shape, words = case
    x = integers(*x_shape, dtype=dtype)
    columns = fc.im2col(x, **words)
    assert columns.dtype == dtype
    assert_exact(columns, reference.im2col(x, **words), str(case))
    g = integers(*columns.shape, dtype=dtype)
    image = fc.col2im(g, x_shape[2:], **words)
    assert_exact(image, reference.col2im(g, x_shape[2:], **words), str(case))
    assert np.sum(columns * g) == np.sum(x * image)
    tensor = fc.Tensor(x, requires_grad=True)
    fc.im2col(tensor, **words).backward(g)
    assert_same_bits(tensor.grad.data, image)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_convolution_is_a_product_of_its_columns(rank):
    x, w = integers(2, 3, *(7, 6, 5)[:rank]), integers(4, 3, *(3, 2, 2)[:rank])
    convolve, transpose = getattr(fc, f"conv{rank}d"), getattr(fc, f"conv_transpose{rank}d")
    for words in (
        {},
        {"stride": 2, "padding": 1},
        {"padding": "same", "stride": 2},
        {"dilation": 2},
        {"padding": "full"},
    ):
        y = convolve(x, w, **words)
        columns = fc.im2col(x, w.shape[2:], **words)
        assert_exact((w.reshape(4, -1) @ columns).reshape(y.shape), y, str(words))
        if isinstance(words.get("padding", 0), int):
            back = w.reshape(4, -1).T @ y.reshape(2, 4, -1)
            expected = transpose(y, w, **words, output_size=x.shape[2:])
            assert_exact(fc.col2im(back, x.shape[2:], w.shape[2:], **words), expected, str(words))


def test_forms_of_the_arguments():
    x = integers(2, 3, 6, 5)
    whole = fc.im2col(x, 3)
    assert whole.shape == (2, 27, 12)
    assert_same_bits(fc.im2col(x, [3, 3], (1, 1), [0, 0], (1, 1)), whole)
    assert_same_bits(fc.im2col(x[1], 3), whole[1])
    assert_same_bits(fc.im2col(x[..., ::-1].copy()[..., ::-1], 3), whole)
    assert_same_bits(fc.im2col(np.asfortranarray(x), 3), whole)
    assert fc.im2col(x[0, 0:1], (2,)).shape == (1, 12, 4)  # a batch of one, six channels
    assert fc.col2im(fc.im2col(x[..., :5, :], 2), 5, 2).shape == (2, 3, 5, 5)
    assert_same_bits(fc.col2im(whole[0], [6, 5], 3), fc.col2im(whole, (6, 5), 3)[0])
    ones = fc.col2im(fc.im2col(np.ones((1, 1, 4)), (3,)), (4,), (3,))
    assert_exact(ones, np.array([[[1.0, 2, 2, 1]]]))


def test_first_and_second_derivatives():
    x = fc.Tensor(rng_for("x").standard_normal((2, 2, 4, 3)), requires_grad=True)
    words = {"kernel_size": (2, 3), "stride": (1, 2), "padding": ((1, 0), (2, 1))}

    def squares(x):
        columns = fc.im2col(x, **words)
        return fc.col2im(columns * columns, (4, 3), **words)

    assert fc.gradcheck(squares, x) and fc.gradgradcheck(squares, x)
    assert fc.gradcheck(lambda x: fc.im2col(x[0], **words) ** 2, x)


def test_halves():
    """Columns are moved as they are, sums run in float32."""
    x = rng_for("half").standard_normal((1, 2, 6, 6)).astype(np.float16)
    columns = fc.im2col(x, 3)
    assert_same_bits(columns, fc.im2col(x.astype(np.float32), 3).astype(np.float16))
    summed = fc.col2im(columns.astype(np.float32), 6, 3).astype(np.float16)
    assert_same_bits(fc.col2im(columns, 6, 3), summed)
    leaf = fc.Tensor(x, requires_grad=True)
    fc.im2col(leaf, 3).backward(columns)
    assert_same_bits(leaf.grad.data, summed)


def test_layers():
    x = integers(2, 3, 6, 5, dtype=np.float32)
    unfold, fold = fc.nn.Unfold(3, padding=1, stride=2), fc.nn.Fold((6, 5), 3, padding=1, stride=2)
    assert_same_bits(unfold(x).data, fc.nn.functional.unfold(x, 3, 1, 1, 2))
    assert_same_bits(fold(unfold(x)).data, fc.nn.functional.fold(unfold(x).data, (6, 5), 3, 1, 1, 2))
    assert repr(unfold) == "Unfold(kernel_size=3, dilation=1, padding=1, stride=2)"
    assert repr(fold) == "Fold(output_size=(6, 5), kernel_size=3, dilation=1, padding=1, stride=2)"


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: fc.im2col(integers(1, 3), 2), fc.ProblemError, "im2col: x has 2 dimensions"),
        (lambda: fc.im2col(integers(1, 3, 4, 4), 5), fc.ProblemError, "spans 5 along h, x has 4"),
        (lambda: fc.im2col(integers(1, 3, 4, 4), 2.0), TypeError, "kernel_size is 2.0; expected an integer"),
        (lambda: fc.im2col(np.ones((1, 3, 4, 4), int), 2), TypeError, "x has dtype int64"),
        (lambda: fc.im2col(integers(1, 3, 4, 4), 2, stride=0), fc.ProblemError, "stride is 0"),
        (lambda: fc.col2im(integers(1, 7, 9), (4, 4), 2), fc.ProblemError, r"expected \(N, C \* 4, windows\)"),
        (lambda: fc.col2im(integers(1, 8, 8), (4, 4), 2), fc.ProblemError, "has 8 windows; expected 9, the plane"),
        (lambda: fc.col2im(integers(1, 8, 9), (4, 0), 2), fc.ProblemError, "output_size is 0; expected at least 1"),
        (lambda: fc.col2im(integers(8), (4, 4), 2), fc.ProblemError, r"columns has shape \(8,\)"),
    ],
)
def test_refused_in_words(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_an_empty_batch():
    columns = fc.im2col(integers(0, 3, 5, 4), 2)
    assert columns.shape == (0, 12, 12)
    assert fc.col2im(columns, (5, 4), 2).shape == (0, 3, 5, 4) and math.prod(columns.shape) == 0
