# SPDX-License-Identifier: Apache-2.0
"""Transposed convolution against its definition, a scatter: every option, rank, layout and algorithm."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import isas, rng_for
from fastconv import _core, reference
from tolerance import assert_bound, assert_close, assert_exact, assert_same_bits

TRANSPOSE = {1: fc.conv_transpose1d, 2: fc.conv_transpose2d, 3: fc.conv_transpose3d}
LAYOUTS = ("channels_first", "channels_last")


def integers(*shape, dtype=np.float64):
    return rng_for(str(shape)).integers(-3, 4, shape).astype(dtype)


def moved(a):
    return np.ascontiguousarray(np.moveaxis(a, 1, -1))


@st.composite
def transposed_cases(draw):
    """(x shape, w shape, the options, dtype), channels first; valid, and of at most some thousand products."""
    rank = draw(st.integers(1, 3))
    largest = {1: 6, 2: 4, 3: 3}[rank]

    def each(low, high):
        return tuple(draw(st.lists(st.integers(low, high), min_size=rank, max_size=rank)))

    size, filter, stride, dilation = each(1, 5), each(1, largest), each(1, largest), each(1, 3)
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True))
    pads = []
    for n, f, s, d, o in zip(size, filter, stride, dilation, extra, strict=True):
        spare = (n - 1) * s + (f - 1) * d + o  # of padding, before nothing would be left
        begin = draw(st.integers(0, min(spare, 5)))
        pads.append((begin, draw(st.integers(0, min(spare - begin, 5)))))
    groups = draw(st.sampled_from((1, 1, 2, 3)))
    c, k = groups * draw(st.integers(1, 4)), draw(st.integers(1, 4))
    words = {"stride": stride, "padding": tuple(pads), "output_padding": extra, "groups": groups, "dilation": dilation}
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    return (draw(st.integers(0, 3)), c, *size), (c, k, *filter), words, dtype


@given(transposed_cases(), st.sampled_from((None, "relu", ("leaky_relu", 0.5))), st.booleans())
def test_the_scatter_itself(case, activation, has_bias):
    x_shape, w_shape, words, dtype = case
    x, w = integers(*x_shape, dtype=dtype), integers(*w_shape, dtype=dtype)
    bias = integers(w_shape[1] * words["groups"], dtype=dtype) if has_bias else None
    kind = activation[0] if isinstance(activation, tuple) else activation
    expected = reference.conv_transpose(x, w, bias, **words, activation=kind, alpha=0.5)
    transpose = TRANSPOSE[len(x_shape) - 2]
    y = transpose(x, w, bias, **words, activation=activation)
    assert y.dtype == dtype
    assert_exact(y, expected, str(case))
    last = transpose(moved(x), w, bias, **words, activation=activation, layout="channels_last")
    assert_exact(np.moveaxis(last, -1, 1), expected, f"channels last: {case}")
    if expected.size:
        sized = words | {"output_padding": 0, "output_size": expected.shape[2:]}
        if all(o < s for o, s in zip(words["output_padding"], words["stride"], strict=True)):
            assert_same_bits(transpose(x, w, bias, **sized, activation=activation), y, str(case))


@given(transposed_cases())
def test_gradients_against_the_reference(case):
    x_shape, w_shape, words, dtype = case
    x, w = integers(*x_shape, dtype=dtype), integers(*w_shape, dtype=dtype)
    bias = integers(w_shape[1] * words["groups"], dtype=dtype)
    leaves = [fc.Tensor(a, requires_grad=True) for a in (x, w, bias)]
    y = TRANSPOSE[len(x_shape) - 2](*leaves, **words)
    dy = integers(*y.shape, dtype=dtype)
    y.backward(dy)
    names, expected = ("dx", "dw", "db"), reference.conv_transpose_backward(dy, x, w, **words)
    for name, t, e in zip(names, leaves, expected, strict=True):
        assert_exact(t.grad.data, e, f"{name}: {case}")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_algorithm_and_instruction_set(layout):
    """Errors of floats, fused bias and activation, by name; what refuses says so."""
    ran = 0
    for c, k, groups, filter in ((6, 5, 1, 3), (8, 4, 4, 3), (6, 1, 6, 3), (6, 5, 1, 1)):
        rng = rng_for(f"{c} {k} {groups}")
        x, w = rng.standard_normal((2, c, 7, 6)), rng.standard_normal((c, k, filter, filter))
        bias = rng.standard_normal(k * groups)
        words = {"stride": 2, "padding": filter // 2, "output_padding": 1, "groups": groups}
        expected = reference.conv_transpose(x, w, bias, **words)
        magnitude = reference.conv_transpose(abs(x), abs(w), abs(bias), **words)
        for row in fc.algorithms(f"bwd_data n2 c{k * groups} h14 w12 k{c} r{filter} s{filter} stride2 pad{filter // 2} "
                                 f"g{groups} f64 bias tanh"):  # fmt: skip
            if not row["supported"]:
                continue
            for isa in isas():
                with fc.options(isa=isa):
                    given = (x, w, bias) if layout == "channels_first" else (moved(x), w, bias)
                    y = TRANSPOSE[2](*given, **words, layout=layout, algorithm=row["name"])
                    bent = TRANSPOSE[2](*given, **words, layout=layout, algorithm=row["name"], activation="tanh")
                plain = y if layout == "channels_first" else np.moveaxis(y, -1, 1)
                assert_bound(plain, expected, magnitude, c // groups * filter**2 + 1, max(row["error_factor"], 1),
                             f"{row['name']} on {isa}")  # fmt: skip
                assert_close(bent, np.tanh(y), "pointwise", what=f"{row['name']} on {isa}")
                ran += 1
    assert ran >= 4 * 2 * len(isas())


@pytest.mark.parametrize("word", ["same", "same_lower"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_same_is_the_adjoint_of_same(rank, word):
    """stride times as large, or up to a stride less by output_size; adjoint to the forward convolution's word."""
    convolve = {1: fc.conv1d, 2: fc.conv2d, 3: fc.conv3d}[rank]
    for stride in (1, 2, 3):
        for filter in (1, 2, 3, 4):
            for dilation in (1, 2):
                x, w = integers(2, 3, *(4,) * rank), integers(3, 2, *(filter,) * rank)
                words = {"stride": stride, "padding": word, "dilation": dilation}
                for less in range(stride):
                    size = 4 * stride - less
                    wanted = {} if less == 0 else {"output_size": size}
                    y = TRANSPOSE[rank](x, w, **words, **wanted)
                    assert y.shape == (2, 2, *(size,) * rank)
                    g = integers(*y.shape)
                    assert np.sum(convolve(g, w, **words) * x) == np.sum(y * g), (stride, filter, dilation, less)


def test_forms_of_the_arguments():
    x, w = integers(2, 4, 5, 6), integers(4, 3, 3, 3)
    y = fc.conv_transpose2d(x, w, stride=2, padding=1)
    assert y.shape == (2, 3, 9, 11)
    assert_same_bits(fc.conv_transpose2d(x[1], w, stride=[2, 2], padding=((1, 1), (1, 1))), y[1])
    assert_same_bits(fc.conv_transpose2d(x, w, stride=2, padding="valid"), fc.conv_transpose2d(x, w, None, 2, 0))
    for size in ((10, 12), [2, 3, 10, 12], np.array([10, 12])):
        wide = fc.conv_transpose2d(x, w, stride=2, padding=1, output_size=size)
        assert_same_bits(wide, fc.conv_transpose2d(x, w, None, 2, 1, 1))
    last = fc.conv_transpose2d(moved(x), w, stride=2, padding=1, output_size=(2, 10, 12, 3), layout="channels_last")
    assert last.shape == (2, 10, 12, 3)
    assert_same_bits(fc.conv_transpose2d(x, w, stride=2, padding=1, output_size=[3, 10, 12][1:]), wide)
    assert fc.conv_transpose2d(x[0], w, stride=2, padding=1, output_size=(3, 10, 12)).shape == (3, 10, 12)


def test_awkward_arrays_and_out():
    x, w = integers(2, 4, 5, 6), integers(4, 3, 3, 3)
    y = fc.conv_transpose2d(x, w, stride=2)
    assert_same_bits(fc.conv_transpose2d(x[..., ::-1].copy()[..., ::-1], np.asfortranarray(w), stride=2), y)
    wide = np.zeros((2, 9, 5, 6))
    wide[:, 2:6] = x
    wide.flags.writeable = False
    assert_same_bits(fc.conv_transpose2d(wide[:, 2:6], w, stride=2), y)
    out = np.full_like(y, np.nan)
    assert fc.conv_transpose2d(x, w, stride=2, out=out) is out
    assert_same_bits(out, y)
    one = np.full_like(y[0], np.nan)
    assert fc.conv_transpose2d(x[0], w, stride=2, out=one) is one
    assert_same_bits(one, y[0])
    assert fc.conv_transpose2d(x[:0], w, stride=2).shape == (0, 3, 11, 13)
    assert_exact(fc.conv_transpose1d(integers(1, 1, 1), integers(1, 1, 1)), integers(1, 1, 1) * integers(1, 1, 1))
    with fc.trace() as t:
        fc.conv_transpose2d(x, w, integers(3), stride=2, activation="relu")
    assert passes(t) == ["bwd_data"]


def passes(trace):
    return [str(call["problem"]).split()[0] for call in trace.calls]


def test_threads_do_not_matter():
    x, w = rng_for("t").standard_normal((3, 8, 9, 9)), rng_for("w").standard_normal((8, 6, 3, 3))
    bits = []
    for threads in (1, 2, 16):
        with fc.options(threads=threads):
            bits.append(fc.conv_transpose2d(x, w, stride=2, activation="silu"))
    for other in bits[1:]:
        assert_same_bits(other, bits[0])
    assert_same_bits(fc.conv_transpose2d(x[1:2], w, stride=2, activation="silu", algorithm="im2col_gemm"),
                     fc.conv_transpose2d(x, w, stride=2, activation="silu", algorithm="im2col_gemm")[1:2])  # fmt: skip


@pytest.mark.parametrize(
    ("words", "error", "sentence"),
    [
        ({"output_padding": 2, "stride": 2}, fc.ProblemError, "output_padding is 2 along h; expected less than str"),
        ({"output_padding": (0, 1, 0)}, fc.ProblemError, "output_padding has 3 entries"),
        ({"padding": 9}, fc.ProblemError, r"padding leaves a result of the plane \(-11, -10\); expected less padding"),
        ({"padding": "full"}, fc.ProblemError, "padding is 'full'; expected .*'valid', 'same', 'same_lower'"),
        ({"padding": "same", "output_padding": 1, "stride": 2}, fc.ProblemError, "'same' decides the size"),
        ({"padding": "same", "output_size": 9}, fc.ProblemError, "output_size is 9 along h; expected 5 to 5"),
        ({"output_size": (7, 9)}, fc.ProblemError, "output_size is 9 along w; expected 8 to 8"),
        ({"output_size": 8, "output_padding": 1, "stride": 2}, fc.ProblemError, "came both; expected one"),
        ({"groups": 3}, fc.ProblemError, "groups=3 does not divide the 4 channels"),
        ({"stride": 0}, fc.ProblemError, "stride is 0; expected at least 1"),
        ({"stride": 1.5}, TypeError, "stride is 1.5; expected an integer"),
        ({"bias": np.zeros(4)}, fc.ProblemError, r"bias has shape \(4,\); expected \(3,\)"),
        ({"w": np.zeros((3, 4, 3, 3))}, fc.ProblemError, r"w has 3 input channels, x has 4; expected w of shape \(4, "),
        ({"w": np.zeros((4, 3, 3))}, fc.ProblemError, "w has 3 dimensions"),
        ({"w": np.zeros((4, 3, 3, 3), np.float32)}, TypeError, "expected the same dtype"),
        ({"x": np.zeros((4, 3))}, fc.ProblemError, "x has 2 dimensions"),
        ({"x": np.zeros((1, 4, 0, 3))}, fc.ProblemError, "expected no axis of length 0"),
        ({"layout": "nchw"}, fc.ProblemError, "layout is 'nchw'"),
        ({"activation": "swash"}, fc.UnsupportedError, "activation 'swash' is not known"),
        ({"algorithm": "winograd"}, fc.ProblemError, "algorithm is 'winograd'"),
        ({"algorithm": "depthwise"}, fc.UnsupportedError, "depthwise needs one input channel per group"),
        ({"out": np.zeros((1, 3, 7, 7))}, fc.ProblemError, r"out has shape \(1, 3, 7, 7\); expected \(1, 3, 7, 8\)"),
        ({"x": fc.Tensor(np.zeros((1, 4, 5, 6))), "out": np.zeros((1, 3, 7, 8))}, TypeError, "out is for arrays"),
    ],
)  # fmt: skip
def test_refused_in_words(words, error, sentence):
    words = {"x": integers(1, 4, 5, 6), "w": integers(4, 3, 3, 3)} | words
    with pytest.raises(error, match=sentence):
        fc.conv_transpose2d(**words)


def test_halves_are_summed_in_float32_and_rounded_once():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed, which has bfloat16")
    for dtype in (np.float16, ml_dtypes.bfloat16):
        x, w, bias = (rng_for(f"half {s}").standard_normal(s).astype(dtype) for s in ((2, 4, 5, 5), (4, 3, 3, 3), 3))
        words = {"stride": 2, "activation": "tanh", "algorithm": "im2col_gemm"}
        wide = fc.conv_transpose2d(x.astype(np.float32), w.astype(np.float32), bias.astype(np.float32), **words)
        y = fc.conv_transpose2d(x, w, bias, **words)
        assert y.dtype == dtype
        assert_same_bits(y, wide.astype(dtype), str(np.dtype(dtype)))
        leaves = [fc.Tensor(a, requires_grad=True) for a in (x, w, bias)]
        fc.conv_transpose2d(*leaves, **words).sum().backward()
        assert [t.grad.dtype for t in leaves] == [dtype] * 3


def leaf(*shape):
    values = rng_for(f"leaf {shape}").standard_normal(shape)
    return fc.Tensor(values + np.copysign(0.05, values), requires_grad=True)


DIFFERENTIATED = [
    (1, (2, 4, 4), (4, 1, 3), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    (1, (1, 2, 3), (2, 3, 2), {"dilation": 3, "output_padding": 2}),
    (1, (3, 4), (3, 2, 3), {"stride": 3, "padding": "same"}),
    (2, (1, 2, 3, 2), (2, 3, 3, 2), {"stride": (2, 1), "padding": ((1, 0), (0, 1))}),
    (2, (2, 3, 2, 2), (3, 2, 1, 1), {}),
    (2, (1, 3, 2, 4), (4, 1, 2, 3), {"stride": 2, "groups": 2, "layout": "channels_last"}),
    (2, (1, 2, 3, 2), (2, 2, 2, 2), {"dilation": 3, "output_padding": 2, "layout": "channels_last"}),
    (3, (1, 2, 2, 1, 2), (2, 1, 2, 2, 1), {"stride": (1, 2, 2), "output_padding": (0, 1, 0)}),
]


@pytest.mark.parametrize(("rank", "x", "w", "words"), DIFFERENTIATED)
def test_first_and_second_derivatives(rank, x, w, words):
    for activation in (None, "tanh", "silu", ("elu", 0.5)):
        k = w[1] * words.get("groups", 1)
        inputs = [leaf(*x), leaf(*w), leaf(k)]

        def f(x, w, b, activation=activation):
            return TRANSPOSE[rank](x, w, b, **words, activation=activation)

        assert fc.gradcheck(f, inputs), activation
        assert fc.gradgradcheck(f, inputs), activation


def test_a_convolution_and_its_transpose_are_each_others_gradients():
    """No graph holds anything but the three passes: a stride is never a convolution with zeros in between."""
    x, w = leaf(1, 2, 4, 4), leaf(2, 3, 3, 3)
    (dx,) = fc.grad(fc.conv_transpose2d(x, w, stride=2), x, fc.Tensor(np.ones((1, 3, 9, 9))), create_graph=True)
    assert dx.node.function.__name__ == "Conv"
    with fc.trace() as t:
        fc.grad(dx.sum(), w)
    assert set(passes(t)) <= {"fwd", "bwd_data", "bwd_filter"}
    assert all("stride2" in str(call["problem"]) for call in t.calls)


def test_frozen_inputs_get_nothing():
    for frozen in range(3):
        inputs = [leaf(1, 2, 3, 3), leaf(2, 2, 2, 2), leaf(2)]
        inputs[frozen].requires_grad = False
        fc.conv_transpose2d(*inputs, activation="sigmoid").sum().backward()
        assert [t.grad is None for t in inputs] == [i == frozen for i in range(3)]


def test_the_core_refuses_a_bias_of_another_length():
    x, w, one = integers(1, 4, 3, 3), integers(4, 3, 2, 2), (1, 1)
    arguments = (x, w, (1, 3, 4, 4), one, (0, 0), (0, 0), one, 1, "zeros", "channels_first", _core.Options(), None)
    with pytest.raises(fc.ProblemError, match=r"bias has shape \(4,\); expected \(3,\)"):
        _core.conv_backward_data(*arguments, np.zeros(4))
    with pytest.raises(fc.ProblemError, match="activation is 'swash'"):
        _core.conv_backward_data(*arguments, None, "swash")
