# SPDX-License-Identifier: Apache-2.0
"""float16 and bfloat16: every value converted both ways on each ISA, and convolution by every algorithm.

exact: on integers whose sums stay below 2^24 the result is the exact one rounded once, bit for bit: nothing in between
was rounded to a half. relative: on normal floats the error is at most twice that of such a rounding.
"""

import subprocess
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastconv as fc
from cases import (
    ALPHA,
    HALVES,
    LAYOUTS,
    NUMPY_DTYPE,
    PAD_VALUE,
    PASSES,
    THREADS,
    arrays,
    isas,
    load,
    nan_filled,
    parse,
    rng_for,
    run_core,
    run_reference,
    supported,
)
from fastconv import _core
from test_properties import options_for, problems
from tolerance import assert_exact, assert_relative, assert_same_bits

ALL = np.arange(2**16, dtype=np.uint32).astype(np.uint16)


# ---- Conversion ------------------------------------------------------------------------------------------------------


def bits(array):
    return array.view(f"u{array.itemsize}")


@pytest.mark.parametrize("dtype", HALVES)
def test_every_half_is_widened_exactly_and_comes_back(dtype):
    """All 65,536, subnormals among them: as NumPy and ml_dtypes, NaN quiet; and the same bits on every ISA."""
    halves = ALL.view(NUMPY_DTYPE[dtype])
    expected = halves.astype(np.float32)
    nan = np.isnan(expected)
    first = None
    for isa in isas():
        options = _core.Options(isa=isa)
        wide = _core.widen(halves, options)
        assert wide.dtype == np.float32
        assert_same_bits(wide[~nan], expected[~nan], isa)
        assert (bits(wide)[nan] >> 22 & 0x1FF == 0x1FF).all(), "a NaN that is not quiet"
        assert (np.signbit(wide) == (ALL >> 15 == 1)).all()
        back = _core.narrow(wide, halves.dtype, options)
        assert_same_bits(back[~nan], halves[~nan], isa)
        assert np.isnan(back[nan].astype(np.float32)).all()
        first = (wide, back) if first is None else first
        assert_same_bits(wide, first[0], isa)
        assert_same_bits(back, first[1], isa)


@pytest.mark.parametrize("dtype", HALVES)
def test_narrowing_rounds_as_numpy_does(dtype):
    """Around every half and halfway between neighbours, at the ends of the range, and anywhere."""
    halves = ALL.view(NUMPY_DTYPE[dtype])
    middle = bits(halves.astype(np.float32)).astype(np.int64)
    near = [middle + step for step in (-1, 0, 1, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001)]
    anywhere = np.random.default_rng(0).integers(0, 2**32, 200_000)
    single = np.concatenate([*near, anywhere]).astype(np.uint32).view(np.float32)
    single = single[~np.isnan(single)]
    with np.errstate(over="ignore", under="ignore"):
        expected = single.astype(halves.dtype)
    for isa in isas():
        options = _core.Options(isa=isa)
        assert_same_bits(_core.narrow(single, halves.dtype, options), expected, isa)
        for count in range(40):  # what is left over behind whole vectors
            assert_same_bits(_core.narrow(single[:count], halves.dtype, options), expected[:count], isa)
            assert_same_bits(_core.widen(expected[:count], options), expected[:count].astype(np.float32), isa)


def test_overflow_becomes_infinity():
    options = _core.Options()
    single = np.array([65504, 65519.996, 65520, 1e6, -65520, 2**-25, 2**-24 * 0.50001, 6e-8], np.float32)
    with np.errstate(over="ignore"):
        expected = single.astype(np.float16)
    assert_same_bits(_core.narrow(single, np.dtype(np.float16), options), expected)
    assert np.isinf(expected[2:5]).all() and expected[0] == expected[1] == 65504 and expected[5] == 0 < expected[6]
    # ... and in a convolution: the sum is 65520 in float32.
    x, w = np.full((1, 1, 4), 16380, np.float16), np.ones((1, 1, 4), np.float16)
    assert np.isinf(fc.conv1d(x, w)).all()


@pytest.mark.parametrize("dtype", HALVES)
def test_any_strides_and_number_of_threads(dtype):
    x = np.random.default_rng(1).standard_normal((40, 50, 60)).astype(NUMPY_DTYPE[dtype])
    for view in (x, x.T, x[::-1, ::2], np.broadcast_to(x[:, :1], x.shape), x[:0], np.asarray(x[0, 0, 0])):
        for threads in THREADS:
            options = _core.Options(threads=threads)
            wide = _core.widen(view, options)
            assert_same_bits(wide, np.ascontiguousarray(view).astype(np.float32).reshape(view.shape))
            assert_same_bits(_core.narrow(wide, x.dtype, options), np.ascontiguousarray(view).reshape(view.shape))


def test_what_is_not_converted():
    options = _core.Options()
    with pytest.raises(TypeError, match="half is float32; expected float16 or bfloat16"):
        _core.widen(np.zeros(3, np.float32), options)
    with pytest.raises(TypeError, match="single is float64; expected float32"):
        _core.narrow(np.zeros(3), np.dtype(np.float16), options)
    with pytest.raises(TypeError, match="dtype is float64; expected float16 or bfloat16"):
        _core.narrow(np.zeros(3, np.float32), np.dtype(np.float64), options)


# ---- Convolution -----------------------------------------------------------------------------------------------------


def run(case, a, row, isa, threads):
    options = _core.Options(algorithm=row["name"], precision=1e9, threads=threads, isa=isa)
    out = nan_filled(case)
    before = [array.copy() for array in a.all()]
    run_core(case, a, options, out)
    for array, copy in zip(a.all(), before, strict=True):
        assert_same_bits(array, copy, "an input was changed")
    return out


@pytest.mark.parametrize("pass_", PASSES)
def test_exact_on_integers(problem_text, pass_):
    single = parse(problem_text).with_(pass_=pass_, dtype="f32")
    exact, expected = arrays(single, integers=True), None
    for dtype in HALVES:
        case = single.with_(dtype=dtype)
        a = replace(exact, **{k: v.astype(NUMPY_DTYPE[dtype]) for k, v in vars(exact).items() if v is not None})
        expected = run_reference(single, exact) if expected is None else expected
        ran = 0
        for isa in isas():
            for row in supported(case, isa=isa):
                if row["exact_on_integers"]:
                    assert_exact(run(case, a, row, isa, 2), expected, f"{row['name']} on {isa}: {case}")
                    ran += 1
        assert ran >= len(isas())


RELATIVE = [
    "fwd n2 c19 h9 w10 k7 r3 s3 stride1 pad1 dil1 g1 nchw",
    "fwd n2 c64 h6 w5 k9 r3 s3 stride2 pad1 dil1 g1 nhwc",
    "fwd n1 c32 h7 w9 k24 r1 s1 stride1 pad0 dil1 g1 nchw",
    "fwd n2 c8 h12 w11 k8 r5 s3 stride1 pad2x1 dil1 g8 nchw",
    "fwd n3 c12 w40 k6 s5 stride1 pad3_1 dil2 g2 nchw",
    "fwd n1 c6 d5 h6 w7 k5 t3 r2 s3 stride1x2x1 pad1 dil1 g1 nhwc",
]


@pytest.mark.parametrize("dtype", HALVES)
def test_error_relative_to_one_rounding(dtype):
    """Every algorithm, ISA and pass; the thread count changes no bit."""
    for text in RELATIVE:
        for pass_ in PASSES:
            case = parse(f"{text} {dtype}").with_(pass_=pass_)
            a = arrays(case, integers=False)
            exact = run_reference(case, a)
            for isa in isas():
                for row in supported(case, isa=isa):
                    what = f"{row['name']} on {isa}: {case}"
                    y = run(case, a, row, isa, THREADS[0])
                    assert y.dtype == NUMPY_DTYPE[dtype]
                    assert_relative(y, exact, what)
                    for threads in THREADS[1:]:
                        assert_same_bits(run(case, a, row, isa, threads), y, what)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid", "tanh", "silu", "gelu"])
def test_epilogue_is_rounded_once(activation, dtype):
    for layout in LAYOUTS:
        case = parse(f"fwd n2 c5 h6 w7 k9 r3 s3 pad1 constant bias residual {activation} {layout} {dtype}")
        a = arrays(case, integers=False)
        assert_relative(run_core(case, a), run_reference(case, a), str(case))


@given(problems(), st.data(), st.sampled_from(HALVES))
def test_the_three_passes_equal_those_in_float32(case, data, dtype):
    """Whatever the geometry: the float32 pass on the same numbers, rounded; also through views and `out`."""
    for pass_ in PASSES:
        case = case.with_(pass_=pass_, dtype="f32")
        a = arrays(case, integers=False)
        halves = {k: v.astype(NUMPY_DTYPE[dtype]) for k, v in vars(a).items() if v is not None}
        single = replace(a, **{k: v.astype(np.float32) for k, v in halves.items()})
        options = options_for(case, data)
        expected = run_core(case, single, options).astype(NUMPY_DTYPE[dtype])
        half = case.with_(dtype=dtype)
        assert_same_bits(run_core(half, replace(a, **halves), options), expected, str(half))


@pytest.mark.parametrize("dtype", HALVES)
def test_views_are_read_and_written_in_place(dtype):
    """A slice of channels, channels-last memory, and other strides; nothing beside the slice is touched."""
    rng = rng_for(dtype)
    big = rng.integers(-2, 3, (2, 9, 8, 7)).astype(NUMPY_DTYPE[dtype])
    w = rng.integers(-2, 3, (4, 3, 3, 3)).astype(big.dtype)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(big, 1, -1)), -1, 1)
    for x in (big[:, 2:5], last[:, 3:6], big[:, 5:2:-1], big[:, :3, ::-1], np.asfortranarray(big[:, :3])):
        before = x.copy()
        expected = fc.reference.conv(x.astype(np.float64), w.astype(np.float64), padding=1)
        assert_exact(fc.conv2d(x, w, padding=1), expected)
        out = np.empty(expected.shape, x.dtype)
        assert fc.conv2d(x, w, padding=1, out=out) is out
        assert_exact(out, expected)
        assert_same_bits(np.ascontiguousarray(x), np.ascontiguousarray(before), "x was changed")
    read_only = big.copy()
    read_only.flags.writeable = False
    assert_exact(fc.conv2d(read_only[0, :3], w), fc.conv2d(big[:1, :3], w)[0])


@pytest.mark.parametrize("dtype", HALVES)
def test_plans(dtype):
    """Packed or used as they are, the weights are widened once; any batch; the same bits as the one-shot call."""
    for text in RELATIVE:
        case = parse(f"{text} {dtype}")
        a = arrays(case, integers=False)
        bias, residual = a.w[:, 0].reshape(case.k, -1)[:, 0], a.dy
        for row in supported(case):
            words = {"stride": case.stride, "padding": case.pads, "dilation": case.dilation, "groups": case.groups}
            words |= {"layout": LAYOUTS[case.layout], "algorithm": row["name"], "activation": "relu"}
            words["precision"] = row["error_factor"]
            plan = fc.plan(a.w, bias, x_shape=case.x_shape, residual=True, **words)
            # Widened, or as many bfloat16 as a number is the sum of.
            each = {"bf16": 2, "f16": 4}[dtype] if row["name"] == "implicit_gemm_amx" else 4
            kept = 0 if row["takes_halves"] == "everything" else a.w.size * each
            assert plan.packed_bytes >= kept and plan.problem.dtype == dtype
            one_shot = getattr(fc, f"conv{len(case.size)}d")
            for x, r in ((a.x, residual), (a.x[:1], residual[:1]), (a.x[:0], residual[:0])):
                assert_same_bits(plan(x, r), one_shot(x, a.w, bias, residual=r, **words), row["name"])
            plan.update(-a.w, bias)
            assert_same_bits(plan(a.x, residual), one_shot(a.x, -a.w, bias, residual=residual, **words))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("text", load("halves"))
def test_slices_and_strips(text, dtype):
    """Large enough to be cut: the bits of float32, rounded, and, where slices are added, its bound; all layouts."""
    for pass_ in PASSES:
        for layout in LAYOUTS:
            single = parse(text).with_(pass_=pass_, layout=layout)
            if pass_ != "fwd":
                single = single.with_(epilogue=())
            case, a = single.with_(dtype=dtype), arrays(single, integers=False)
            halves = replace(a, **{k: v.astype(NUMPY_DTYPE[dtype]) for k, v in vars(a).items() if v is not None})
            wide = replace(a, **{k: v.astype(np.float32) for k, v in vars(halves).items() if v is not None})
            exact = run_reference(case, halves) if pass_ == "bwd_filter" else None
            for row in supported(case):
                what = f"{row['name']}: {case}"
                if row["name"] == "reference":
                    continue
                y = run(case, halves, row, "", 1)
                assert_same_bits(run(case, halves, row, "", 2), y, what)
                if exact is None:
                    assert_same_bits(y, run(single, wide, row, "", 1).astype(y.dtype), what)
                else:
                    assert_relative(y, exact, what)


@pytest.mark.parametrize("dtype", HALVES)
def test_the_workspace_is_counted(dtype):
    half = fc.ConvProblem.parse(f"fwd n2 c8 h9 w9 k6 r3 s3 pad1 {dtype} bias residual")
    single = fc.ConvProblem.parse("fwd n2 c8 h9 w9 k6 r3 s3 pad1 f32 bias residual")
    copies = 4 * sum(int(np.prod(s)) for s in (half.x_shape, half.w_shape, half.y_shape, half.y_shape, (half.k,)))
    for row, plain in zip(fc.algorithms(half), fc.algorithms(single), strict=True):
        assert row["supported"] == plain["supported"] and row["reason"] == plain["reason"]
        if row["supported"] and row["name"] == "implicit_gemm_amx":  # halves are sums of fewer bfloat16
            assert row["workspace_bytes"] <= plain["workspace_bytes"] and row["estimate_s"] < plain["estimate_s"]
        elif row["supported"]:
            more = row["workspace_bytes"] - plain["workspace_bytes"]
            # Some need a copy of the bias alone, and what is taken is rounded up to sizes of the block cache.
            assert 0 <= more <= copies + 5 * 64 + row["workspace_bytes"] // 5, row["name"]
            assert row["estimate_s"] > plain["estimate_s"]
    assert half.bytes * 2 == single.bytes
    x, w = np.ones(half.x_shape, NUMPY_DTYPE[dtype]), np.ones(half.w_shape, NUMPY_DTYPE[dtype])
    with fc.options(max_workspace=1000), pytest.raises(fc.WorkspaceError, match="max_workspace is 1000"):
        fc.conv2d(x, w, padding=1, algorithm="direct")
    with fc.trace() as t:
        fc.conv2d(x, w, padding=1)
    assert t.calls[0]["problem"] == fc.ConvProblem.parse(f"fwd n2 c8 h9 w9 k6 r3 s3 pad1 {dtype}")


@pytest.mark.parametrize("dtype", HALVES)
def test_explain(dtype):
    text = f"fwd n1 c4 h8 w8 k4 r3 s3 stride1 pad1 dil1 g1 nchw {dtype}"
    found = fc.explain(text, measure=True, budget=0.2)
    assert str(found.problem) == text
    predicted = {row["name"]: row["predicted_s"] for row in found.rows if row["supported"]}
    assert found.chosen == min(predicted, key=predicted.__getitem__)
    errors = [row["max_error"] for row in found.rows if row["max_error"] is not None]
    eps = float(ml_dtypes.finfo(NUMPY_DTYPE[dtype]).eps)
    assert errors and all(0 < error <= eps for error in errors)
    x, w = np.zeros((1, 4, 8, 8), NUMPY_DTYPE[dtype]), np.zeros((4, 4, 3, 3), NUMPY_DTYPE[dtype])
    assert fc.explain(x, w, padding=1).problem == found.problem


@pytest.mark.parametrize("dtype", HALVES)
def test_edges(dtype):
    """An empty batch, infinities and NaN, a constant border in the half's own precision, subnormals."""
    half = NUMPY_DTYPE[dtype]
    x, w = np.ones((2, 3, 5, 6), half), np.ones((4, 3, 3, 3), half)
    assert fc.conv2d(x[:0], w).shape == (0, 4, 3, 4)
    assert_exact(fc.conv2d_backward_filter(np.ones((0, 4, 3, 4), half), x[:0], w.shape), np.zeros(w.shape))
    for value in (np.nan, np.inf):
        x[0, 1, 2, 2] = value
        y = fc.conv2d(x, w, padding=1)
        assert y.dtype == half and np.isfinite(y[1].astype(np.float32)).all()
        assert (~np.isfinite(y[0, 0].astype(np.float32)) == np.pad(np.ones((3, 3), bool), ((1, 1), (1, 2)))).all()
    border = fc.conv1d(np.zeros((1, 1, 1), half), np.ones((1, 1, 1), half), padding=1, padding_mode="constant",
                       pad_value=0.1)  # fmt: skip
    assert_exact(border[0, 0, 0], half(0.1))
    if dtype == "f16":  # normal numbers of float32; those of bfloat16 count as zero, as float32's do
        tiny = np.full((1, 1, 4), 2.0**-24, half)
        assert_exact(fc.conv1d(tiny, np.ones((1, 1, 3), half)), np.full((1, 1, 2), 3 * 2.0**-24))


@pytest.mark.parametrize("dtype", HALVES)
def test_mixed_dtypes_are_refused_in_words(dtype):
    half, name = NUMPY_DTYPE[dtype], np.dtype(NUMPY_DTYPE[dtype]).name
    package = "ml_dtypes" if dtype == "bf16" else "numpy"
    x, w, bias = np.ones((1, 2, 4, 4), half), np.ones((3, 2, 3, 3), half), np.ones(3, half)
    other = ml_dtypes.bfloat16 if dtype == "f16" else np.float16
    refused = [
        (lambda: fc.conv2d(x, w.astype(np.float32)), rf"w has dtype float32, .* use w.astype\({package}.{name}\)"),
        (lambda: fc.conv2d(x.astype(np.float32), w), rf"w has dtype {name}, .* use w.astype\(numpy.float32\)"),
        (lambda: fc.conv2d(x, w.astype(other)), "w has dtype .* expected the same dtype"),
        (lambda: fc.conv2d(x, w, bias.astype(np.float32)), "bias has dtype float32"),
        (lambda: fc.conv2d(x, w, bias, residual=np.ones((1, 3, 2, 2), np.float32)), "residual has dtype float32"),
        (lambda: fc.conv2d(x, w, out=np.empty((1, 3, 2, 2), np.float32)), "out has dtype float32"),
        (lambda: fc.conv2d_backward_data(np.ones((1, 3, 2, 2), other), w, x.shape), "w has dtype"),
        (lambda: fc.plan(w, x_shape=x.shape)(x.astype(np.float32)), f"x is float32, the plan is {name}"),
    ]
    for call, sentence in refused:
        with pytest.raises(TypeError, match=sentence):
            call()
    with pytest.raises(fc.UnsupportedError, match="x has dtype >f2"):
        fc.conv2d(x.astype(">f2"), w)
    with pytest.raises(TypeError, match="x has dtype float8_e4m3fn; expected float32, float64, float16 or bfloat16"):
        fc.conv2d(x.astype(ml_dtypes.float8_e4m3fn), w)


def test_the_core_never_imports_ml_dtypes():
    """bfloat16 is known by its name; without the package, asking for it by name is a clear sentence."""
    code = """
import sys
sys.modules["ml_dtypes"] = None  # an import fails
import numpy as np
import fastconv as fc
fc.conv2d(np.ones((1, 1, 3, 3), np.float16), np.ones((1, 1, 3, 3), np.float16))
print(fc.explain("fwd n1 c1 w3 k1 s3 bf16").problem)
try:
    fc.explain("fwd n1 c1 w3 k1 s3 bf16", errors=True)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "nchw bf16\nbfloat16: NumPy has no such dtype" in done.stdout and "pip install ml_dtypes" in done.stdout


def test_constants_are_exact_in_a_half():
    """What tests/cases.py takes for granted."""
    for dtype in HALVES:
        assert all(float(NUMPY_DTYPE[dtype](v)) == v for v in (ALPHA, PAD_VALUE))
