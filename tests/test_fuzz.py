# SPDX-License-Identifier: Apache-2.0
"""The commands on random problems: they run, they go on where they ended, and they find what is wrong."""

import numpy as np
import pytest

from bench import draws, fuzz, isa_bits, precision
from fastconv import _core
from fastconv.verify import Call

SEED = 5


def last_lines(text):
    return text.strip().splitlines()[-2:]


def test_the_same_number_is_the_same_problem():
    problems = [draws.draw(SEED, index) for index in range(200)]
    assert problems == list(draws.draws(SEED, 0, 200)) and len(set(problems)) > 195
    assert problems != list(draws.draws(SEED + 1, 0, 200))
    assert {p.pass_ for p in problems} == {"fwd", "bwd_data", "bwd_filter"}
    assert {p.spatial_rank for p in problems} == {1, 2, 3}
    assert {p.dtype for p in problems} == {"f32", "f64", "f16", "bf16"}
    a, b = (draws.numbers(problems[3], SEED, 3).arrays for _ in range(2))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_run_ends_clean_and_says_how_to_go_on(capsys):
    assert fuzz.main(["--seed", str(SEED), "--first", "10", "--count", "5"]) == 0
    total, following = last_lines(capsys.readouterr().out)
    assert total.startswith(f"seed {SEED}: 5 problems, ") and total.endswith(" runs, 0 failures")
    assert following == f"next: --seed {SEED} --first 15"


def wrong_value(result):
    result.flat[-1] += 1


def not_written(result):
    result.flat[0] = np.nan


@pytest.mark.parametrize("spoil", [wrong_value, not_written])
def test_a_fault_is_found_and_repeated(monkeypatch, capsys, spoil):
    native = Call.run

    def run(call, options, out=None):
        result = native(call, options, out)
        if options.algorithm == "direct" and result.size:
            spoil(result)
        return result

    monkeypatch.setattr(Call, "run", run)
    assert fuzz.main(["--seed", str(SEED), "--count", "20", "--failures", "3"]) == 1
    out = capsys.readouterr().out
    assert "FAILED direct on " in out and f"python -m bench.fuzz --seed {SEED} --first " in out


def test_a_write_outside_of_the_result_is_found(monkeypatch, capsys):
    native = Call.run

    def run(call, options, out=None):
        result = native(call, options, out)
        if out is not None and out.base is not None:
            out.base[: fuzz.GUARD][-1] = 0
        return result

    monkeypatch.setattr(Call, "run", run)
    assert fuzz.main(["--seed", str(SEED), "--count", "1"]) == 1
    assert "wrote outside of its result" in capsys.readouterr().out


def test_the_tables_are_written(tmp_path, capsys):
    page = tmp_path / "precision.md"
    assert precision.main(["--count", "2", "--out", str(page), "--seconds", "20"]) == 0
    text = page.read_text()
    assert all(f"| `{name}` |" in text for name in _core.info()["algorithms"])
    assert isa_bits.main(["--count", "10", "--print"]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `reference` |")]
    assert len(rows) == 2 and all("100" in row for row in rows), "of float32 and float64"
    assert not {cell for row in rows for cell in row.split()} - {"|", "/", "-", "`reference`", "100"}


def test_a_page_keeps_what_is_around_its_table(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- m -->\nold\n<!-- end of m -->\nafter\n")
    isa_bits.replace_between(page, "m", ["new", "lines"])
    assert page.read_text() == "before\n<!-- m -->\nnew\nlines\n<!-- end of m -->\nafter\n"
