# SPDX-License-Identifier: Apache-2.0
"""Tuning: classes of shapes, files, what they change and what not, budgets."""

import itertools
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv import _core
from fastconv.options import current
from fastconv.tuning.table import Entry, Section, Tuning, better, here, ranked

LAYER = "fwd n1 c16 h14 w14 k16 r3 s3 pad1"


def random_problems(count, seed):
    rng = np.random.default_rng(seed)
    print("seed", seed)
    for _ in range(count):
        groups = int(rng.choice([1, 1, 1, 2, 5, 16]))
        c, k = (groups * int(rng.integers(1, 80)) for _ in range(2))
        r, s = (int(rng.integers(1, 6)) for _ in range(2))
        h, w = (int(rng.integers(8, 300)) for _ in range(2))
        pass_ = rng.choice(["fwd", "bwd_data", "bwd_filter"])
        text = f"{pass_} n{rng.integers(1, 70)} c{c} h{h} w{w} k{k} r{r} s{s} stride{rng.integers(1, 3)}"
        yield _core.ConvProblem.parse(f"{text} pad{rng.integers(0, 3)} g{groups} {rng.choice(['nchw', 'nhwc'])} f32")


def entry(text=LAYER, algorithms=("direct",), kind="call", samples=5, first=1e-3):
    seconds = {name: first * (i + 1) for i, name in enumerate(algorithms)}
    return Entry(kind, str(_core.shape_class(_core.ConvProblem.parse(text))), samples, text, seconds)


def tuning(*entries, section=None):
    return Tuning({section or here(): {(e.kind, e.shape_class): e for e in entries}})


def chosen(text, **options):
    with fc.options(**options):
        return _core.choose(_core.ConvProblem.parse(text), current())


# Classes of shapes.


def test_a_class_is_its_largest_member():
    for p in random_problems(300, seed=1):
        largest = _core.shape_class(p)
        assert _core.shape_class(largest) == largest
        assert (largest.filter, largest.stride, largest.pad_begin) == (p.filter, p.stride, p.pad_begin)
        pairs = [(p.n, largest.n), (p.groups, largest.groups), *zip(p.size, largest.size, strict=True)]
        pairs += [(p.c // p.groups, largest.c // largest.groups), (p.k // p.groups, largest.k // largest.groups)]
        for extent, rounded in pairs:
            assert extent <= rounded < 1.5 * extent or (extent, rounded) == (1, 1), (str(p), str(largest))


def test_extents_round_up_to_powers_of_two_and_three_halves_of_them():
    sizes = {w: _core.shape_class(_core.ConvProblem.parse(f"fwd n1 c1 w{w} k1 s1")).size[0] for w in range(1, 100)}
    assert sorted(set(sizes.values())) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    assert [sizes[w] for w in (1, 5, 7, 13, 17, 25, 56, 96)] == [1, 6, 8, 16, 24, 32, 64, 96]


def test_fused_operations_do_not_change_the_class():
    plain = _core.shape_class(_core.ConvProblem.parse(LAYER))
    assert _core.shape_class(_core.ConvProblem.parse(LAYER + " bias residual relu")) == plain
    assert _core.shape_class(_core.ConvProblem.parse(LAYER + " nhwc")) != plain


# What a file changes, and what not.


def test_nothing_is_in_effect_that_was_not_handed_over(tmp_path):
    before = chosen(LAYER)
    assert before != "direct"
    held = tuning(entry())
    held.save(tmp_path / "a.tuning")
    assert chosen(LAYER) == before
    assert chosen(LAYER, tuning=held) == chosen(LAYER, tuning=tmp_path / "a.tuning") == "direct"
    assert chosen(LAYER) == before


def test_a_new_shape_of_the_class_is_chosen_alike_and_costs_no_measurement(tmp_path):
    held = tuning(entry())
    for size in ("c13 h15 w13 k16", "c16 h16 w16 k15"):
        assert chosen(f"fwd n1 {size} r3 s3 pad1 relu bias", tuning=held) == "direct"
    assert chosen("fwd n1 c17 h14 w14 k16 r3 s3 pad1", tuning=held) == chosen("fwd n1 c17 h14 w14 k16 r3 s3 pad1")
    held.save(tmp_path / "a.tuning")
    said = []
    fc.tune("fwd n1 c13 h15 w13 k16 r3 s3 pad1", kinds="call", file=tmp_path / "a.tuning",
            progress=lambda *state: said.append(state))  # fmt: skip
    assert said == [(0, 0, "")]


def test_limits_hold_before_the_tuning():
    held = tuning(entry(algorithms=("winograd_f4x4_3x3", "im2col_gemm", "direct")))
    assert chosen(LAYER, tuning=held) == "winograd_f4x4_3x3"
    assert chosen(LAYER, tuning=held, precision="strict") == "im2col_gemm"
    assert chosen(LAYER, tuning=held, precision="strict", max_workspace=0) == "direct"
    assert chosen(LAYER, tuning=held, algorithm="reference") == "reference"
    assert chosen(LAYER, tuning=tuning(entry(algorithms=("no_such_algorithm",)))) == chosen(LAYER)


def test_other_machines_versions_and_instruction_sets_are_kept_without_effect(tmp_path):
    place = here()
    others = [place.__class__(*(x if i != at else f"other{x}" for i, x in enumerate(vars(place).values())))
              for at in range(3)]  # fmt: skip
    for other in others:
        held = tuning(entry(), section=other)
        assert chosen(LAYER, tuning=held) == chosen(LAYER)
        held.save(tmp_path / "a.tuning")
        assert fc.tuning.load(tmp_path / "a.tuning") == held
    if len(_core.info()["isas"]) > 1:
        scalar = tuning(entry(), section=here("scalar"))
        assert chosen(LAYER, tuning=scalar, isa="scalar") == "direct"
        assert chosen(LAYER, tuning=scalar) == chosen(LAYER)


def test_the_choice_does_not_depend_on_the_threads_of_a_call():
    few, many = (Section(*list(vars(here()).values())[:3], threads=n) for n in (1, 200))
    held = Tuning({
        few: {("call", entry().shape_class): entry(algorithms=("direct",))},
        many: {("call", entry().shape_class): entry(algorithms=("im2col_gemm",))},
    })  # fmt: skip
    assert {chosen(LAYER, tuning=held, threads=n) for n in (1, 2, 16)} == {"direct"}


def test_one_image_decides_where_batches_must_not():
    held = tuning(entry(), entry(LAYER.replace("n1", "n16"), algorithms=("im2col_gemm",)))
    batch = LAYER.replace("n1", "n16")
    assert chosen(batch, tuning=held) == "im2col_gemm"
    assert chosen(batch, tuning=held, batch_invariant=True) == "direct"


def test_planned_and_plain_calls_have_entries_of_their_own():
    held = tuning(entry(), entry(kind="planned", algorithms=("im2col_gemm",)))
    x, w = np.ones((1, 16, 14, 14), np.float32), np.ones((16, 16, 3, 3), np.float32)
    with fc.options(tuning=held):
        assert fc.plan(w, x_shape=x.shape, padding=1).algorithm == "im2col_gemm"
        with fc.trace() as calls:
            fc.conv2d(x, w, padding=1)
            fc.conv2d(x, w, padding=1, algorithm="im2col_gemm")
        assert fc.info()["tuning"] == f"{held.hash} (of this process)"
    assert [(call["algorithm"], call["tuning"]) for call in calls.calls] == [
        ("direct", held.hash),
        ("im2col_gemm", None),
    ]
    assert fc.info()["tuning"] == "none"


def test_explain_says_what_chose():
    held = tuning(entry())
    assert fc.explain(LAYER).tuning is None
    with fc.options(tuning=held):
        found = fc.explain(LAYER)
        assert (found.chosen, found.tuning, found.to_dict()["tuning"]) == ("direct", held.hash, held.hash)
        assert f"direct is chosen by tuning {held.hash}" in str(found)
        assert fc.explain(LAYER.replace("c16", "c64")).tuning is None
        with fc.options(algorithm="direct"):
            assert fc.explain(LAYER).tuning is None


def test_the_environment_loads_a_file_for_the_process(tmp_path):
    tuning(entry()).save(tmp_path / "a.tuning")
    code = (
        "import fastconv as fc, numpy as np\n"
        "with fc.trace() as t: fc.conv2d(np.ones((1, 16, 14, 14), 'f4'), np.ones((16, 16, 3, 3), 'f4'), padding=1)\n"
        "print(t.calls[0]['algorithm'], fc.info()['tuning'])"
    )

    def run(file):
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path,
                              env={**__import__("os").environ, "FASTCONV_TUNING": file})  # fmt: skip

    done = run("a.tuning")
    assert done.stdout.startswith("direct "), done.stderr
    assert "(a.tuning)" in done.stdout
    missing = run("b.tuning")
    assert missing.returncode == 1
    assert "b.tuning" in missing.stderr.splitlines()[-1]


# Files.


def random_tuning(seed):
    rng = np.random.default_rng(seed)
    names = _core.info()["algorithms"]
    sections = {}
    for threads in (1, 2):
        held = {}
        for p in itertools.islice(random_problems(12, seed=int(rng.integers(4))), int(rng.integers(1, 12))):
            e = entry(str(p), rng.choice(names, 3, replace=False), samples=int(rng.integers(1, 4)),
                      first=float(rng.uniform(1e-4, 1e-2)))  # fmt: skip
            held[e.kind, e.shape_class] = e
        sections[Section("cpu", "avx2", "0.1.0", threads)] = held
    return Tuning(sections)


def test_files_come_back_as_they_were(tmp_path):
    for seed in range(5):
        held = random_tuning(seed)
        held.save(tmp_path / "a.tuning")
        again = fc.tuning.load(tmp_path / "a.tuning")
        assert again.hash == fc.tuning.load(tmp_path / "a.tuning").hash
        assert again.text() == (tmp_path / "a.tuning").read_text() == held.text()
    assert [path.name for path in tmp_path.iterdir()] == ["a.tuning"]


def test_merging_does_not_depend_on_the_order():
    a, b, c = (random_tuning(seed) for seed in (1, 2, 3))
    whole = fc.tuning.merge(a, b, c)
    assert {fc.tuning.merge(*order).text() for order in itertools.permutations((a, b, c))} == {whole.text()}
    assert fc.tuning.merge(fc.tuning.merge(a, b), c) == whole == fc.tuning.merge(whole, whole)
    assert better(entry(samples=3), entry(samples=5, first=1.0)).samples == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("hello\n", "expected '# fastconv tuning 1'"),
        ("# fastconv tuning 1\ncall | a\n", "line 2: an entry before the first"),
        ("# fastconv tuning 1\n{section}\ncall | x | 3 | y\n", "line 3: .*expected call or planned"),
        ("# fastconv tuning 1\n{section}\ncall | fwd n1 | 3 | fwd n1 | direct 1\n", "line 3: problem text"),
        ("# fastconv tuning 1\n{section}\ncall | {layer} | 3 | {layer} | direct 0\n", "line 3: direct takes 0 s"),
        ("# fastconv tuning 1\n{section}\ncall | {layer} | x | {layer} | direct 1\n", "line 3: invalid literal"),
    ],
)
def test_what_is_no_tuning_file_is_refused_by_line(tmp_path, text, message):
    (tmp_path / "a").write_text(text.format(section=here(), layer=LAYER))
    with pytest.raises(fc.ProblemError, match=message):
        fc.tuning.load(tmp_path / "a")


def test_what_is_no_tuning_is_refused():
    with pytest.raises(TypeError, match="tuning is int; expected a Tuning or a path"), fc.options(tuning=3):
        pass


def test_differences():
    old = tuning(entry(algorithms=("direct", "im2col_gemm")), entry("fwd n1 c3 w8 k3 s3"), entry("fwd n2 c3 w8 k3 s3"))
    upgraded = Section(*[*list(vars(here()).values())[:2], "9.9", here().threads])
    new = tuning(entry(algorithms=("im2col_gemm",)), entry("fwd n1 c3 w8 k3 s3", first=2e-3), section=upgraded)
    found = fc.tuning.diff(old, new)
    assert [change.what for change in found.changes] == ["algorithm", "slower", "only old"]
    assert found.of("slower")[0].speedup == 0.5
    text = str(found)
    assert "1 changed algorithm, 1 slower by a tenth or more, 1 in the old one only" in text
    assert str(fc.tuning.diff(old, old)) == "3 the same"


def test_ties_go_to_the_estimates():
    assert list(ranked({"a": 1.0, "b": 1.02, "c": 2.0}, ["b", "c", "a"])) == ["b", "a", "c"]
    assert list(ranked({"a": 1.0, "b": 1.04, "c": 2.0}, ["b", "c", "a"])) == ["a", "b", "c"]


# Measuring.


def test_tuning_measures_what_it_says_and_never_changes_bits_by_itself(tmp_path):
    problems = [LAYER, LAYER.replace("fwd", "bwd_filter"), "fwd n1 c15 h13 w13 k13 r3 s3 pad1"]
    held = fc.tune(problems, 5, file=tmp_path / "a.tuning")
    assert sorted(e.kind for _, e in held) == ["call", "call", "planned"]  # of one class and two passes
    assert not held.skipped
    for section, e in held:
        assert section == here()
        assert e.samples >= 2
        assert e.shape_class == str(_core.shape_class(_core.ConvProblem.parse(e.problem)))
        assert set(e.seconds) <= set(_core.info()["algorithms"])
    assert fc.tuning.load(tmp_path / "a.tuning") == held
    x, w = np.ones((1, 16, 14, 14), np.float32), np.ones((16, 16, 3, 3), np.float32)
    with fc.options(tuning=held), fc.trace() as calls:
        results = []
        for threads in (1, 2, 3):
            with fc.options(threads=threads):
                results.append(fc.conv2d(x, w, padding=1).tobytes())
    assert {call["algorithm"] for call in calls.calls} == {
        e.algorithm for _, e in held if (e.kind, e.problem.split()[0]) == ("call", "fwd")
    }
    assert len(set(results)) == 1


def test_a_budget_holds_and_what_it_does_not_reach_is_named(tmp_path):
    many = [f"fwd n1 c{c} h{s} w{s} k{k} r3 s3 pad1" for c in (32, 64, 128) for k in (32, 64) for s in (28, 56, 112)]
    started = time.perf_counter()
    held = fc.tune(many, 0.3, file=tmp_path / "a.tuning")
    assert time.perf_counter() - started < 1.5  # the call that has begun, and a loaded machine
    assert held.skipped
    assert set(held.skipped.values()) <= {"the budget is spent", "the budget does not suffice for one round"}
    assert len(held) + len(held.skipped) == 2 * len(many)
    few = fc.tune(many, 5, max_shapes=1)
    assert len(few) == 1
    assert len(few.skipped) == 2 * len(many) - 1
    none = fc.tune(LAYER, 5, max_bytes=1000, kinds="call")
    assert list(none.skipped.values()) == ["no algorithm fits into max_bytes=1000"]


def test_an_interruption_loses_nothing(tmp_path):
    def interrupt(done, total, what):
        if done == 1 and what:
            raise KeyboardInterrupt

    held = fc.tune(
        [LAYER, LAYER.replace("c16", "c32")], 5, file=tmp_path / "a.tuning", kinds="call", progress=interrupt
    )
    assert len(held) == 1 == len(fc.tuning.load(tmp_path / "a.tuning"))
    assert list(held.skipped.values()) == ["interrupted"]


def test_the_section_is_that_of_the_options_in_force():
    with fc.options(threads=1, isa="scalar"):
        assert [section for section, _ in fc.tune(LAYER, 5, kinds="call")] == [here("scalar", 1)]


def test_a_trace_is_tuned():
    x, w = np.ones((1, 4, 8, 8), np.float32), np.ones((4, 4, 3, 3), np.float32)
    with fc.trace() as calls:
        fc.conv2d(x, w)
    assert [e.problem.split()[:3] for _, e in fc.tune(calls, 2, kinds="call")] == [["fwd", "n1", "c4"]]


def test_the_snippets_of_the_document_run(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parent.parent / "docs" / "tuning.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(snippet, "tuning.md", "exec"), names)
    assert f"tuning {names['tuning'].hash}" in capsys.readouterr().out
    assert len(fc.tuning.load("machine.tuning")) == 5


def test_bad_arguments_are_named():
    for arguments, kind, message in [
        ((LAYER, 0), fc.ProblemError, "budget_s is 0"),
        ((["x"], 1), fc.ProblemError, "problem text"),
        (([3], 1), TypeError, "a problem is int"),
    ]:
        with pytest.raises(kind, match=message):
            fc.tune(*arguments)
    with pytest.raises(fc.ProblemError, match="kinds is"):
        fc.tune(LAYER, 1, kinds=["fast"])
