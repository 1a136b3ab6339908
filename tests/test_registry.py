# SPDX-License-Identifier: Apache-2.0
"""The list of algorithms: somebody can always compute it, refusals are sentences, estimates are seconds."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cases import PASSES, algorithm_rows, parse
from fastconv import _core

SOME = "fwd n1 c8 h9 w9 k8 r3 s3 pad1"


@pytest.mark.parametrize("pass_", PASSES)
def test_rows_are_complete(problem_text, pass_):
    rows = algorithm_rows(parse(problem_text).with_(pass_=pass_))
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    assert names[-1] == "reference"
    assert rows[-1]["supported"], rows[-1]["reason"]
    for row in rows:
        assert row["error_factor"] > 0
        if row["supported"]:
            assert not row["reason"]
            assert math.isfinite(row["estimate_s"]) and row["estimate_s"] > 0, row
            work = row["estimated_work"]
            assert all(seconds >= 0 for seconds in work.values()), work
            assert math.isclose(sum(work.values()), row["estimate_s"], rel_tol=1e-12)
            assert row["workspace_bytes"] >= 0
        else:
            assert row["reason"].startswith(row["name"]), row
            assert len(row["reason"].split()) >= 3, row


def test_estimate_does_not_depend_on_threads():
    problem = _core.ConvProblem.parse(SOME)
    seconds = [
        [row["estimate_s"] for row in _core.algorithms(problem, _core.Options(threads=threads))] for threads in (1, 16)
    ]
    assert seconds[0] == seconds[1]


@pytest.mark.parametrize("isa", ["avx512", "avx2"])
def test_every_price_is_one_of_some_work(isa):
    """The tables of prices are written by a program: none is left of a kind of work that no estimate counts."""
    core = Path(__file__).parent.parent / "csrc"
    files = [path for path in core.rglob("*") if path.suffix in (".cc", ".h") and not path.name.startswith("prices_")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    table = (core / f"prices_{isa}.h").read_text(encoding="utf-8")
    prices = re.findall(r'\{"(\w+)", "([^"]+)", ([0-9.e+-]+)\}', table)
    names = {row["name"] for row in algorithm_rows(parse(SOME))}
    assert len(prices) > 200
    for name, work, factor in prices:
        assert name in names and float(factor) > 0, (name, work)
        assert f'"{work}"' in text, f"no estimate counts {work!r}"


def test_more_work_is_estimated_to_take_longer():
    small, large = (algorithm_rows(parse(f"fwd n{n} c32 h32 w32 k32 r3 s3 pad1")) for n in (1, 64))
    for a, b in zip(small, large, strict=True):
        if a["supported"] and b["supported"]:
            assert b["estimate_s"] > a["estimate_s"], a["name"]


def test_batch_invariant_choice_ignores_the_batch():
    for text in (SOME, "fwd n1 c64 h14 w14 k64 r1 s1", "fwd n1 c3 h224 w224 k64 r7 s7 stride2 pad3"):
        problem = _core.ConvProblem.parse(text)
        options = _core.Options(batch_invariant=True)
        assert len({_core.choose(problem.with_n(n), options) for n in (1, 2, 7, 64, 1000)}) == 1, text


def test_unknown_algorithm_lists_the_known_ones():
    problem = _core.ConvProblem.parse(SOME)
    names = [row["name"] for row in algorithm_rows(parse(SOME))]
    with pytest.raises((ValueError, NotImplementedError)) as error:
        _core.choose(problem, _core.Options(algorithm="quick"))
    assert "quick" in str(error.value)
    assert all(name in str(error.value) for name in names)


def test_unknown_isa_lists_the_known_ones():
    with pytest.raises((ValueError, NotImplementedError)) as error:
        _core.choose(_core.ConvProblem.parse(SOME), _core.Options(isa="mmx"))
    assert "mmx" in str(error.value)
    assert all(isa in str(error.value) for isa in _core.info()["isas"])


def test_a_named_algorithm_that_refuses_says_why():
    problem = _core.ConvProblem.parse("fwd n1 c8 h9 w9 k8 r3 s3 pad1")
    with pytest.raises(_core.UnsupportedError, match="pointwise_1x1"):
        _core.choose(problem, _core.Options(algorithm="pointwise_1x1"))


def test_precision_and_workspace_are_limits():
    for row in algorithm_rows(parse(SOME), _core.Options(max_workspace=0)):
        assert not row["supported"] or row["workspace_bytes"] == 0, row
    hungry = [row for row in algorithm_rows(parse(SOME)) if row["supported"] and row["workspace_bytes"] > 0]
    for row in hungry:
        # A byte less may do, for what is shown is the block that is leased; half of it never does.
        p, less = _core.ConvProblem.parse(SOME), row["workspace_bytes"] - 1
        for limit in (less, less // 2):
            near = {r["name"]: r for r in _core.algorithms(p, _core.Options(max_workspace=limit))}[row["name"]]
            assert not near["supported"] or near["workspace_bytes"] <= limit
        limited = _core.Options(algorithm=row["name"], max_workspace=row["workspace_bytes"] // 2)
        with pytest.raises(_core.WorkspaceError, match=row["name"]):
            _core.choose(p, limited)


def test_info_names_machine_and_isas():
    info = _core.info()
    assert "scalar" in info["isas"]
    assert info["isa"] in info["isas"]


@pytest.mark.parametrize(
    ("variable", "value", "known"),
    [
        ("FASTCONV_ISA", "mmx", "scalar"),
        ("FASTCONV_ALGORITHM", "quick", "reference"),
        ("FASTCONV_NUM_THREADS", "many", "many"),
    ],
)
def test_unknown_environment_value_is_an_error(variable, value, known):
    code = (
        "import numpy as np, fastconv\n"
        "fastconv.conv2d(np.ones((1, 1, 3, 3), np.float32), np.ones((1, 1, 2, 2), np.float32))"
    )
    environment = {**os.environ, variable: value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert variable in last and value in last and known in last, done.stderr


def test_environment_chooses_the_isa():
    for name in _core.info()["isas"]:
        code = "import fastconv; print(fastconv._core.info()['isa'])"
        environment = {**os.environ, "FASTCONV_ISA": name}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == name, done.stderr
