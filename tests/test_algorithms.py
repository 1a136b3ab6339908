# SPDX-License-Identifier: Apache-2.0
"""Every algorithm on every problem: on each ISA, with 1, 2 and 16 threads, in the three passes and both dtypes.

exact: on small integers an algorithm that says `exact_on_integers` gives the reference's values, bit for bit.
bound: on normal floats the error against a wider type stays under what tolerance.py derives from `error_factor`.
Outputs arrive filled with NaN and inputs are compared afterwards. `--full` adds the large layers.
"""

import numpy as np
import pytest

from cases import (
    ALPHA,
    DTYPES,
    EPILOGUE,
    PASSES,
    THREADS,
    arrays,
    isas,
    nan_filled,
    parse,
    run_core,
    run_reference,
    supported,
)
from fastconv import _core, reference
from tolerance import assert_bound, assert_close, assert_exact, assert_same_bits

EVERY_PRECISION = 1e9


def variants(case):
    """(row, ISA) for all that can compute the case."""
    return [(row, isa) for isa in isas() for row in supported(case, isa=isa)]


def run(case, a, row, isa, threads):
    options = _core.Options(algorithm=row["name"], precision=EVERY_PRECISION, threads=threads, isa=isa)
    out = nan_filled(case)
    before = [array.copy() for array in a.all()]
    result = run_core(case, a, options, out)
    assert result is out or np.shares_memory(result, out) or out.size == 0
    for array, copy in zip(a.all(), before, strict=True):
        assert_same_bits(array, copy, "an input was changed")
    return out


@pytest.mark.parametrize("pass_", PASSES)
def test_exact_on_integers(problem_text, pass_):
    for dtype in DTYPES:
        case = parse(problem_text).with_(pass_=pass_, dtype=dtype)
        a = arrays(case, integers=True)
        assert run_reference(case, a, magnitude=True).max(initial=0) < 2**24, "sums too large to be exact"
        expected = run_reference(case, a)
        ran = 0
        for row, isa in variants(case):
            if row["exact_on_integers"]:
                for threads in THREADS:
                    actual = run(case, a, row, isa, threads)
                    assert_exact(actual, expected, f"{row['name']} on {isa}, {threads} threads: {case}")
                    ran += 1
        assert ran >= len(isas()) * len(THREADS), "`reference` alone makes as many"


@pytest.mark.parametrize("pass_", PASSES)
def test_error_bound_on_floats(problem_text, pass_):
    for dtype in DTYPES:
        case = parse(problem_text).with_(pass_=pass_, dtype=dtype)
        a = arrays(case, integers=False)
        # float64 itself is judged against long double.
        expected = run_reference(case, a, dtype=np.float64 if dtype == "f32" else np.longdouble)
        magnitude = run_reference(case, a, magnitude=True)
        for row, isa in variants(case):
            actual = run(case, a, row, isa, threads=2)
            what = f"{row['name']} on {isa}: {case}"
            scale = magnitude if row["error_factor"] <= 1 else np.full_like(magnitude, magnitude.max(initial=0))
            assert_bound(actual, expected, scale, case.terms, max(row["error_factor"], 1), what)


@pytest.mark.parametrize("pass_", PASSES)
def test_automatic_choice_is_one_of_the_list(problem_text, pass_):
    case = parse(problem_text).with_(pass_=pass_)
    a = arrays(case, integers=True)
    name = _core.choose(_core.ConvProblem.parse(str(case)), _core.Options())
    assert name in [row["name"] for row in supported(case)]
    chosen = run_core(case, a, _core.Options(), nan_filled(case))
    assert_same_bits(chosen, run_core(case, a, _core.Options(algorithm=name)), name)


@pytest.mark.parametrize("activation", [word for word in EPILOGUE if word not in ("bias", "residual")])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_epilogue(activation, layout):
    """bias, residual and each activation behind the sum, as if they were applied one after the other."""
    for dtype in DTYPES:
        for filter in (1, 3):
            text = f"fwd n2 c5 h6 w7 k9 r{filter} s{filter} pad{filter // 2} {layout} {dtype} bias residual"
            for pass_ in ("fwd", "bwd_data"):
                plain = parse(text).with_(pass_=pass_)
                case = plain.with_(epilogue=(*plain.epilogue, activation))
                a = arrays(case, integers=False)
                for row, isa in variants(case):
                    what = f"{row['name']} on {isa}: {case}"
                    sums = run(plain, a, row, isa, threads=1)
                    expected = reference.activation(activation, sums, ALPHA)
                    assert_close(run(case, a, row, isa, 1), expected, "pointwise", what=what)


def test_infinities_and_nan_stay_where_they_belong():
    """A plain sum: an Inf or NaN in x reaches the outputs whose window holds it, and no others."""
    case = parse("fwd n1 c3 h8 w9 k4 r3 s3 pad1 f32")
    a = arrays(case, integers=True)
    a.w[a.w == 0] = 1
    for value in (np.nan, np.inf):
        a.x[0, 1, 4, 5] = value
        reached = np.zeros((8, 9), bool)
        reached[3:6, 4:7] = True
        for row, isa in variants(case):
            if row["error_factor"] <= 1:
                finite = np.isfinite(run(case, a, row, isa, threads=1))
                assert (finite == ~reached).all(), f"{row['name']} on {isa}: {value}"
