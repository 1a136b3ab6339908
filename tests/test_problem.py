# SPDX-License-Identifier: Apache-2.0
"""ConvProblem: its text form, its defaults, its refusals, and the one output-size formula."""

import itertools

import pytest

from cases import LAYOUTS, PASSES, load, parse, scaled
from fastconv import _core, reference
from fastconv._core import ConvProblem, ProblemError

CANONICAL = "fwd n2 c6 d5 h8 w9 k4 t3 r2 s1 stride1x2x3 pad1x0x2 dil2x1x1 g2 nhwc f64 reflect bias residual relu"


def fields(problem):
    """What the library read, in the words of the tests' own parser."""
    text = (problem.pass_, problem.n, problem.c, problem.k, problem.groups)
    pads = tuple(zip(problem.pad_begin, problem.pad_end, strict=True))
    geometry = (problem.size, problem.filter, problem.stride, pads, problem.dilation)
    return text, geometry, problem.layout, problem.dtype, problem.padding_mode, problem.activation


def expected_fields(case):
    text = (case.pass_, case.n, case.c, case.k, case.groups)
    geometry = (case.size, case.filter, case.stride, case.pads, case.dilation)
    return text, geometry, case.layout, case.dtype, case.mode, case.activation


def test_every_line_of_the_problem_files_is_read_as_written():
    for text in load("small") + load("layers") + load("more") + load("regressions"):
        case = parse(text)
        problem = ConvProblem.parse(text)
        assert fields(problem) == expected_fields(case), text
        assert problem.has_bias == ("bias" in case.epilogue)
        assert problem.has_residual == ("residual" in case.epilogue)
        assert problem.spatial_rank == len(case.size)
        assert problem.output_size == case.output, text
        assert (problem.x_shape, problem.w_shape, problem.y_shape) == (case.x_shape, case.w_shape, case.y_shape)
        assert problem.macs == case.macs, text


def test_the_scaled_layers_are_those_of_the_lists():
    """To write the file anew: its head says how."""
    assert load("scaled") == scaled()


def test_printed_form_is_read_back():
    for text in load("small") + load("layers") + load("more"):
        for pass_ in PASSES:
            problem = ConvProblem.parse(str(parse(text).with_(pass_=pass_)))
            again = ConvProblem.parse(str(problem))
            assert again == problem
            assert hash(again) == hash(problem)
            assert str(again) == str(problem)


@pytest.mark.parametrize(
    "text",
    [
        "fwd n1 c64 h56 w56 k64 r3 s3 stride1 pad1 dil1 g1 nchw f32",
        "bwd_data n2 c3 w17 k4 s5 stride2 pad2 dil1 g1 nhwc f64",
        "bwd_data n2 c3 w17 k4 s5 stride2 pad2 dil1 g1 nhwc f64 bias relu",
        "bwd_filter n0 c4 d3 h4 w5 k6 t1 r2 s3 stride1x2x1 pad0x0x1 dil1 g2 nchw f32 circular",
        CANONICAL,
    ],
)
def test_canonical_text_is_printed_as_it_came(text):
    assert str(ConvProblem.parse(text)) == text
    assert text in repr(ConvProblem.parse(text))


def test_defaults_may_be_left_out():
    assert ConvProblem.parse("fwd n1 c3 w9 k2 s3") == ConvProblem.parse(
        "fwd n1 c3 w9 k2 s3 stride1 pad0 dil1 g1 nchw f32 zeros none"
    )
    assert ConvProblem.parse("fwd n1 c3 h9 w9 k2 r3 s3 pad0_1x0_1") == ConvProblem.parse(
        "fwd n1 c3 h9 w9 k2 r3 s3 pad0_1"
    )
    assert ConvProblem.parse("  fwd n1 c3 w9 k2 s3   # a comment") == ConvProblem.parse("fwd n1 c3 w9 k2 s3")


def test_keywords_make_the_same_problem():
    problem = ConvProblem(
        pass_="fwd",
        n=2,
        c=6,
        k=4,
        size=(5, 8, 9),
        filter=(3, 2, 1),
        stride=(1, 2, 3),
        pad_begin=(1, 0, 2),
        pad_end=(1, 0, 2),
        dilation=(2, 1, 1),
        groups=2,
        layout="nhwc",
        dtype="f64",
        padding_mode="reflect",
        activation="relu",
        has_bias=True,
        has_residual=True,
    )
    assert str(problem) == CANONICAL
    assert problem == ConvProblem.parse(CANONICAL)


def test_with_pass_and_with_n():
    problem = ConvProblem.parse("fwd n1 c3 h9 w9 k2 r3 s3")
    assert str(problem.with_n(5)) == str(problem).replace("n1", "n5")
    for pass_ in PASSES:
        assert str(problem.with_pass(pass_)) == str(problem).replace("fwd", pass_)
    assert str(problem).startswith("fwd n1 ")


def test_different_problems_differ():
    base = "fwd n1 c4 h9 w9 k4 r3 s3 stride1 pad1 dil1 g1 nchw f32"
    changes = ["n1/n2", "c4/c8", "h9/h8", "w9/w8", "k4/k8", "r3/r2", "s3/s2", "stride1/stride2", "pad1/pad1_0"]
    changes += ["dil1/dil2", "g1/g2", "nchw/nhwc", "f32/f64", "f32/f32 reflect", "f32/f32 bias", "f32/f32 relu"]
    changes += ["f32/f32 residual", "f32/f32 gelu", "fwd/bwd_data", "fwd/bwd_filter"]
    texts = [base, *(f" {base}".replace(*(f" {word}" for word in change.split("/")), 1) for change in changes)]
    problems = [ConvProblem.parse(text) for text in texts]
    for a, b in itertools.combinations(problems, 2):
        assert a != b
    assert len({hash(p) for p in problems}) == len(problems)
    assert problems[0] != "fwd"


def test_bytes_counts_each_tensor_once():
    problem = ConvProblem.parse("fwd n2 c3 h9 w8 k4 r3 s3 pad1 f32")
    assert problem.bytes == 4 * (2 * 3 * 9 * 8 + 4 * 3 * 3 * 3 + 2 * 4 * 9 * 8)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "fwd, bwd_data or bwd_filter"),
        ("forward n1 c1 w5 k1 s3", "forward"),
        ("fwd n1 c1 w5 k1", "fields are missing"),
        ("fwd c1 w5 k1 s3", "n, c and k"),
        ("fwd n1 c1 h5 w5 k1 s3", "axes"),
        ("fwd n1 c1 w5 k1 s3 wide", "wide"),
        ("fwd n1 n2 c1 w5 k1 s3", "once"),
        ("fwd n1 c1 w5 k1 s3 stride1x", "stride1x"),
        ("fwd n1 c1 w5 k1 s3 stride1x1", "stride has 2 entries"),
        ("fwd n1 c1 w5 k1 s3 pad1_", "pad1_"),
        ("fwd n1 c1 w5 k1 s3 stride0", "stride of axis w is 0"),
        ("fwd n1 c1 w5 k1 s3 dil0", "dilation of axis w is 0"),
        ("fwd n1 c0 w5 k1 s3", "c is 0"),
        ("fwd n1 c1 w0 k1 s1", "size of axis w is 0"),
        ("fwd n1 c3 w5 k2 s3 g2", "c is 3.*groups=2"),
        ("fwd n1 c4 w5 k3 s3 g2", "k is 3.*groups=2"),
        ("fwd n1 c1 w5 k1 s7", "spans 7.*only 5"),
        ("fwd n1 c1 w5 k1 s3 dil3", "spans 7.*only 5"),
        ("fwd n1 c1 w5 k1 s3 pad5 reflect", "reflect"),
        ("fwd n1 c1 w5 k1 s3 pad6 circular", "circular"),
        ("bwd_data n1 c1 w5 k1 s3 residual", "bwd_data takes no residual"),
        ("bwd_data n1 c1 w5 k1 s3 pad1 reflect bias", "pads with zeros, got padding mode reflect"),
        ("bwd_filter n1 c1 w5 k1 s3 relu", "bwd_filter takes no"),
        ("bwd_filter n1 c1 w5 k1 s3 bias", "bwd_filter takes no"),
        ("fwd n1000000000 c1000000000 w1000000000 k1 s1", "too large"),
    ],
)
def test_refused_in_words(text, sentence):
    with pytest.raises(ProblemError, match=sentence):
        ConvProblem.parse(text)


def test_problem_error_is_a_value_error():
    assert issubclass(ProblemError, ValueError)
    assert issubclass(_core.UnsupportedError, NotImplementedError)
    assert issubclass(_core.WorkspaceError, MemoryError)
    assert issubclass(_core.DeviceError, RuntimeError)


def test_layout_words_are_those_of_the_text_form():
    assert {ConvProblem.parse(f"fwd n1 c1 w5 k1 s3 {word}").layout for word in LAYOUTS} == set(LAYOUTS)


def test_output_size_counts_the_windows():
    ranges = (range(1, 9), range(1, 6), range(1, 5), range(1, 4), range(4), range(4))
    for size, filter, stride, dilation, begin, end in itertools.product(*ranges):
        arguments = (size, filter, stride, dilation, begin, end)
        assert _core.output_size(*arguments) == reference.output_size(*arguments), arguments
        if max(begin, end) > (filter - 1) * dilation:
            continue  # a window could lie wholly in the padding: pooling refuses that
        counted = reference.pool_output_size(*arguments, ceil_mode=True)
        assert _core.output_size(*arguments, ceil_mode=True) == counted, ("ceil", arguments)
