# SPDX-License-Identifier: Apache-2.0
"""The promises of docs/reproducibility.md over random problems (bench/draws.py): the same bits for any number of
threads, in any batch, wherever the arrays lie, in a plan and under a limit of workspace, each instruction set for
itself.

bench.fuzz asks the same of as many problems as one has time for.
"""

import numpy as np
import pytest

from bench import draws
from bench.promises import PROMISES, options, other_layout, same_bits, usable
from cases import arrays, isas, parse, run_reference
from fastconv import _core
from fastconv.verify import Call
from tolerance import assert_bound

SEED = 20261126
COUNT, FULL_COUNT = 60, 3000


def problems(full):
    count = FULL_COUNT if full else COUNT
    print(f"seed {SEED}, {count} problems: bench.fuzz --seed {SEED} --first I repeats number I")
    return enumerate(draws.draws(SEED, 0, count))


@pytest.mark.parametrize("promise", PROMISES)
def test_the_same_bits(promise, full):
    asked = 0
    for index, p in problems(full):
        call = draws.numbers(p, SEED, index)
        for isa in isas():
            for row in usable(p, isa):
                expected = call.run(options(row["name"], isa))
                broken = PROMISES[promise](call, row["name"], isa, expected)
                assert broken is None, f"{row['name']} on {isa}: {broken}: number {index}, {p}"
                asked += 1
    assert asked > COUNT * len(isas()) * 4, "every problem has reference, direct and im2col_gemm, most have more"


def test_the_choice_ignores_the_batch_where_that_is_asked(full):
    chosen = set()
    for index, p in problems(full):
        if p.pass_ == "bwd_filter" or p.n < 2:
            continue
        call = draws.numbers(p, SEED, index)
        for isa in isas():
            asked = _core.Options(batch_invariant=True, isa=isa)
            names = {_core.choose(p.with_n(n), asked) for n in (1, 2, p.n, 64)}
            assert len(names) == 1, f"{names} on {isa}: {p}"
            chosen |= names
            together = call.run(asked)
            assert same_bits(together, call.run(options(names.pop(), isa))), p
    assert len(chosen) > 3, "too few algorithms to tell"


def test_the_choice_ignores_threads(full):
    for _, p in problems(full):
        for isa in isas():
            names = {_core.choose(p, _core.Options(threads=threads, isa=isa)) for threads in (1, 2, 3, 16)}
            assert len(names) == 1, f"{names} on {isa}: {p}"


def test_layouts_differ_by_rounding_alone(full):
    """No more is promised of them: docs/reproducibility.md counts how often the bits are the same."""
    for index, p in problems(full):
        call = draws.numbers(p, SEED, index)
        other = other_layout(call)
        axes = (1, -1) if p.layout == "nchw" else (-1, 1)
        exact, magnitude = other.exact(), other.magnitude()
        for row in usable(p, isas()[0]):
            theirs = other.run(options(row["name"], isas()[0]))
            difference = np.abs(theirs.astype(exact.dtype) - exact)
            assert (difference <= other.allowed(exact, magnitude, row["error_factor"])).all(), f"{row['name']}: {p}"
            ours = call.run(options(row["name"], isas()[0]))
            ours = ours if p.pass_ == "bwd_filter" else np.moveaxis(ours, *axes)
            assert ours.shape == theirs.shape


def test_the_promises_notice_what_is_broken(monkeypatch):
    """A library that adds one unit in the last place now and then is found by each of them."""
    p = draws.ConvProblem.parse("fwd n3 c5 h9 w8 k7 r3 s3 pad1 bias residual")
    call = draws.numbers(p, SEED, 0)
    row = usable(p, isas()[0])[0]["name"]
    expected = call.run(options(row, isas()[0]))
    wrong = expected.copy()
    wrong.flat[-1] = np.nextafter(wrong.flat[-1], np.float32(np.inf))
    for name, promise in PROMISES.items():
        assert promise(call, row, isas()[0], expected) is None
        assert promise(call, row, isas()[0], wrong), name


def test_verify_agrees_with_what_the_tests_compute(full):
    """fastconv.verify judges users' calls: its sums and bounds are those of tests/cases.py and tests/tolerance.py."""
    for _, p in problems(full):
        case = parse(str(p))
        if case.dtype in ("f16", "bf16"):
            continue
        a = arrays(case, integers=False)
        named = {"x": a.x, "w": a.w, "dy": a.dy, "bias": a.bias, "residual": a.residual}
        call = Call(p, {key: v for key, v in named.items() if v is not None}, draws.ALPHA, draws.PAD_VALUE)
        wide = np.longdouble if case.dtype == "f64" else np.float64
        exact = call.exact()
        assert np.array_equal(exact, run_reference(case, a, wide)), p
        magnitude = run_reference(case, a, wide, magnitude=True)
        assert np.array_equal(call.magnitude(), magnitude), p
        if case.activation == "none":
            assert call.terms >= case.terms
            assert_bound(exact.astype(a.x.dtype) + 0, exact, magnitude, case.terms)
