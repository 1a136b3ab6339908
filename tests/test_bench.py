# SPDX-License-Identifier: Apache-2.0
"""The benchmark's statistics, its check of results, and the conversation with a rival's process."""

import json

import numpy as np
import pytest

import fastconv as fc
from bench import calibrate, compare, fit
from bench import report as markdown
from fastconv.bench import measure, peers, problems, report, summary, timing
from fastconv.bench.worker import Worker, WorkerError
from fastconv.cli import main

SMALL = "fwd n2 c6 h9 w8 k4 r3 s3 stride2x1 pad1 dil1 g2 nchw f32"


@pytest.fixture(scope="module")
def exact():
    with Worker("reference_fastconv", 1) as worker:
        yield worker


@pytest.fixture(scope="module")
def ours():
    with Worker("fastconv", 1) as worker:
        yield worker


def task(text=SMALL, pass_="fwd", **options):
    layer = problems.Layer.parse(text, "small", pass_)
    return {"kind": "conv", "layer": layer.to_dict(), "seed": 1, "options": options}


def test_ratios_are_paired():
    ours = [1.0, 4.0, 2.0, 8.0, 1.5]  # a machine whose speed jumps
    estimate = timing.paired_ratio([3 * s for s in ours], ours)
    assert estimate == pytest.approx((3, 3, 3))
    with pytest.raises(ValueError, match="2 and 1"):
        timing.paired_ratio([1.0, 2.0], [1.0])


def test_an_interval_narrows_with_more_rounds():
    rng = np.random.default_rng(7)
    theirs, ours = 2 * rng.lognormal(0, 0.1, 400), rng.lognormal(0, 0.1, 400)
    few, many = (timing.paired_ratio(list(theirs[:n]), list(ours[:n])) for n in (10, 400))
    assert many.low < 2 < many.high
    assert few.low < few.value < few.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_geometric_means():
    pairs = [([2.0, 2.0], [1.0, 1.0]), ([8.0, 8.0], [1.0, 1.0])]
    assert timing.geometric_mean_ratio(pairs).value == pytest.approx(4)
    assert timing.geometric_mean([2, 8]) == pytest.approx(4)
    with pytest.raises(ValueError, match="at least one"):
        timing.geometric_mean([])


def test_each_round_asks_everyone_once():
    calls = []
    samplers = {name: lambda name=name: calls.append(name) or float(len(calls)) for name in "abc"}
    samples = timing.interleave(samplers, 5, np.random.default_rng(3))
    rounds = ["".join(calls[i : i + 3]) for i in range(0, 15, 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1  # not always in the same order
    assert all(samples["a"][i] == 3 * i + 1 + rounds[i].index("a") for i in range(5))


def test_samples_are_as_long_as_asked():
    assert timing.repeats_for(0.02, 0.05) == 3
    assert timing.repeats_for(1.0, 0.05) == 1
    calls = []
    assert timing.time_calls(lambda: calls.append(0), repeats=10, settle=0) > 0
    assert len(calls) == 11


def test_errors_are_relative_to_the_largest_result():
    reference = np.array([4.0, -8.0])
    assert measure.largest_error(np.array([4.0, -8.5]), reference) == 0.0625
    assert measure.largest_error(np.array([np.nan, -8.0]), reference) == np.inf
    assert measure.largest_error(np.array([4.0]), reference) == np.inf


def test_every_known_layer_loads_in_every_pass():
    layers = problems.load(problems.LAYERS, problems.PASSES, None)
    assert len(layers) == 3 * 28
    assert all(layer.name != layer.text and layer.macs > 0 for layer in layers)
    with pytest.raises(ValueError, match="no-such-net"):
        problems.load(problems.LAYERS, ("fwd",), "no-such-net")
    with pytest.raises(ValueError, match="epilogue"):
        problems.Layer.parse(f"{SMALL} relu", "", "fwd")


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("pass_", problems.PASSES)
def test_a_rival_is_checked_and_timed(ours, exact, pass_, layout):
    wanted = task(SMALL.replace("nchw", layout), pass_)
    name, reference = measure.reference_result(wanted, {exact.name: exact}, (exact.name,))
    settings = measure.Settings(rounds=3, min_sample_s=1e-4, settle_s=0)
    row = measure.measure(wanted, {"fastconv": ours}, reference, settings, peak=ours)
    wrong = measure.check(wanted, {"fastconv": ours}, reference + 1, 1e-4)
    entry = row["peers"]["fastconv"]
    assert name == "reference_fastconv"
    assert 0 < entry["error"] < 1e-5
    assert len(entry["seconds"]) == len(row["peak_gflops"]) == 3
    assert min(entry["seconds"]) > 0
    assert "wrong" in wrong["fastconv"]


def test_a_rival_refuses_in_words_and_failures_are_shown():
    with Worker("fastconv_plan", 1) as worker:
        with pytest.raises(peers.RefusedError, match="a plan computes fwd, not bwd_data"):
            worker.prepare(task(pass_="bwd_data"))
        with pytest.raises(WorkerError, match="Traceback"):
            worker.ask("run", repeats=1, settle=0, cold=False)
        worker.process.kill()
        with pytest.raises(WorkerError, match="ended with code"):
            worker.ask("versions")
    with pytest.raises(ValueError, match="no peer 'nobody'"):
        peers.installed("nobody")


@pytest.mark.parametrize("rival", [name for name in peers.PEERS if not name.startswith("fastconv")])
def test_installed_rivals_compute_the_same(exact, rival):
    if not peers.installed(rival):
        pytest.skip(f"{rival} needs {peers.ALL[rival].package}")
    with Worker(rival, 1) as worker:
        for pass_ in problems.PASSES if rival.startswith("torch") else ("fwd",):
            _, reference = measure.reference_result(task(pass_=pass_), {exact.name: exact}, (exact.name,))
            assert measure.check(task(pass_=pass_), {rival: worker}, reference, 1e-5)[rival]["error"] < 1e-5


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("rival", [name for name in peers.PEERS if not name.startswith("fastconv")])
def test_rivals_compute_halves_or_refuse_them(exact, rival, dtype):
    """PyTorch alone computes them; the answer is float64's, of numbers that are rounded."""
    if not peers.installed(rival):
        pytest.skip(f"{rival} needs {peers.ALL[rival].package}")
    limit = problems.ERROR_LIMITS[dtype]
    with Worker(rival, 1) as worker:
        for pass_ in problems.PASSES if rival.startswith("torch") else ("fwd",):
            wanted = task(f"{SMALL} {dtype}".replace(" f32", ""), pass_)
            _, reference = measure.reference_result(wanted, {exact.name: exact}, (exact.name,))
            found = measure.check(wanted, {rival: worker}, reference, limit)[rival]
            if rival.startswith("torch"):
                assert reference.dtype == np.float64 and limit / 1e4 < found["error"] < limit
            else:
                assert f"not {dtype}" in found["refused"]


def test_compare_says_what_became_slower(tmp_path, monkeypatch, capsys):
    def result(factor):
        seconds = [factor * s for s in (1.0, 1.01, 0.99)]
        row = {"problem": SMALL, "layer": "small", "threads": 1}
        row["peers"] = {"fastconv": {"seconds": seconds, "median_s": seconds[0]}}
        head = {"format": report.FORMAT, "kind": "layers", "date": "2026-01-01T00:00", "commit": "abc"}
        return {**head, "machine": {}, "settings": {}, "versions": {}, "rows": [row]}

    for name, factor in (("old", 1.0), ("new", 1.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(factor)))
    for order, code in ((("old", "new"), 1), (("new", "old"), 0)):
        files = [str(tmp_path / f"{name}.json") for name in order]
        monkeypatch.setattr("sys.argv", ["compare", *files, "--fail-below", "0.9"])
        assert compare.main() == code
    assert "0.67" in capsys.readouterr().out


def test_the_command_measures_one_problem(tmp_path, capsys):
    files = [tmp_path / "result.json", tmp_path / "figure.png"]
    words = ["bench", *SMALL.split(), "--rivals", "none", "--rounds", "2", "--min-sample", "1e-4", "--settle", "0"]
    assert main([*words, "--also-isa", "scalar", "--json", str(files[0]), "--figure", str(files[1])]) == 0
    result = report.load(files[0])
    assert result["rows"][0]["peers"].keys() == {"fastconv_plan", "fastconv", "fastconv_plan@scalar", "fastconv@scalar"}
    assert result["summary"][0]["isa_over"]["scalar"]["layers"] == 1
    assert files[1].stat().st_size > 1000
    assert "fastconv_plan@scalar" in capsys.readouterr().out
    page = "\n".join(markdown.page([result]))
    assert "| others (1) | fwd | 1 |" in page and f"| {SMALL} |" in page


@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
def test_the_command_measures_other_dtypes(tmp_path, dtype):
    words = ["bench", *SMALL.split(), "--rivals", "none", "--rounds", "2", "--min-sample", "1e-4", "--settle", "0"]
    file = tmp_path / "result.json"
    assert main([*words, "--dtype", dtype, "--json", str(file)]) == 0
    result = report.load(file)
    row, limit = result["rows"][0], problems.ERROR_LIMITS[dtype]
    assert (row["dtype"], result["settings"]["error_limit"]) == (dtype, limit)
    assert row["problem"].endswith(f" {dtype}")
    assert all(0 < entry["error"] < limit for entry in row["peers"].values() if "refused" not in entry)
    assert f"| others, {dtype} (1) | fwd | 1 |" in "\n".join(markdown.page([result]))


def test_the_command_says_what_it_does_not_know(capsys):
    for words in (["no-such-list"], ["n1", "c3"], ["layers", "--only", "no-such-net"], ["--rivals", "nobody"]):
        assert main(["bench", *words]) == 2
        assert capsys.readouterr().err.startswith("fastconv: ")
    assert main(["bench", "--list"]) == 0
    assert "more" in capsys.readouterr().out


def test_summaries_say_which_layers_are_lost():
    def entry(seconds):
        return {"seconds": [seconds] * 3, "median_s": seconds}

    rows = []
    for layer, theirs in (("won", 2.0), ("lost", 0.9)):
        row = {"problem": SMALL.replace("stride2x1", "stride1"), "layer": layer, "pass": "fwd", "threads": 1}
        row |= {"gflop": 1.0, "groups": 1, "dtype": "f32", "output": [14, 14], "peak_gflops": [2.0] * 3}
        peers_ = {"fastconv_plan": entry(1.0), "ncnn": entry(theirs), "mnn": {"error": 1.0, "wrong": "far"}}
        rows.append({**row, "peers": {**peers_, "fastconv_plan@avx2": entry(4.0)}})
    about = summary.summarise(rows)
    assert about["speed_over"]["best"]["value"] == pytest.approx(1.8**0.5)
    assert about["lost"].keys() == {"lost"}
    assert {layer: e["value"] for layer, e in about["ncnn_3x3"].items()} == pytest.approx({"won": 2, "lost": 0.9})
    assert about["peak_share"]["mean"] == pytest.approx(0.5)
    assert about["isa_over"]["avx2"]["least"] == pytest.approx(0.25)


def test_the_page_of_results_has_every_kind():
    def entry(seconds):
        return {"seconds": [seconds] * 3, "median_s": seconds, "error": 1e-7}

    head = {"machine": {"cpu": "a", "cores": 2, "load": 0.0}, "command": "b", "date": "c"}
    pool = {
        "problem": "max fwd",
        "layer": "x",
        "op": "max",
        "pass": "fwd",
        "threads": 1,
        "bytes": 1e7,
        "copy_gbs": [10.0] * 3,
    }
    pool["peers"] = {"fastconv_pool": entry(1e-3), "torch_pool": entry(9e-3)}
    step = {"problem": "train net n4", "threads": 2, "peers": {"fastconv_train": entry(0.5), "torch_train": entry(0.6)}}
    kinds = {"pools": {"rows": [pool]}, "train": {"rows": [step]}}
    kinds["calibration"] = {"regret": {"fwd": {"mean": 0.04, "worst": 0.5, "problems": 3}}, "rows": []}
    page = "\n".join(markdown.page([{"kind": kind, **head, **result} for kind, result in kinds.items()]))
    for text in ("**9.00 [9.00, 9.00] (8.0)** | **1.00**, 1.00 (1)", "500.0 ms | 600.0 ms", "| 3 | **4.0 %** | 50 % |"):
        assert text in page
    assert "1.20 [1.20, 1.20]" in page and "**1.20" not in page  # the goal is 1.3


def test_calibration_times_what_does_not_refuse(capsys):
    words = ["--rounds", "2", "--min-sample", "1e-5", "--problems", "random", "--random", "3", "--sample", "4"]
    arguments = calibrate.parser().parse_args(words)
    assert calibrate.random_problems(5, seed=3) == calibrate.random_problems(5, seed=3)
    found = [calibrate.measure(pass_, layer, arguments) for pass_, layer in calibrate.workload(arguments)]
    assert len(found) == 4
    for measured in found:
        assert measured.regret >= 0
        assert {"reference"} != measured.timings.keys() >= {measured.chosen, measured.best}
    summary = calibrate.regrets_of(found)
    assert summary["all"]["problems"] == 4
    calibrate.print_regrets(found, summary, worst=3)
    assert "regret of the automatic choice" in capsys.readouterr().out


def test_prices_are_found_again(tmp_path, monkeypatch):
    """Times made from estimates, one kind of work four times as dear: the fit names that price and no other, of what
    takes a tenth of the time somewhere."""
    pytest.importorskip("scipy")
    rows, matters = [], set()
    for text in calibrate.random_problems(60, seed=5):
        usable = [a for a in fc.algorithms(text) if a["supported"] and a["name"] in ("implicit_gemm", "im2col_gemm")]
        work = {a["name"]: dict(a["estimated_work"]) for a in usable}
        work["im2col_gemm"]["products"] *= 4
        for name, kinds in work.items():
            matters |= {(name, kind) for kind, s in kinds.items() if s > 0.1 * sum(kinds.values())}
        timings = {name: (0.0, sum(kinds.values()) + fit.CALL["fwd"]) for name, kinds in work.items()}
        rows.append({"problem": text, "pass": "fwd", "timings": timings})
    saved = tmp_path / "times.json"
    saved.write_text(json.dumps({"format": report.FORMAT, "kind": "calibration", "rows": rows}))
    table = tmp_path / "prices.h"
    table.write_text('Prices[] = {\n    {"im2col_gemm", "products", 0.5},\n};\n')
    monkeypatch.setattr(fit, "table", lambda: table)
    assert fit.main([str(saved), "--write"]) == 0
    prices = fit.present()
    assert 0.5 * 3 < prices.pop(("im2col_gemm", "products")) < 0.5 * 5
    assert 0.7 < prices.pop(("implicit_gemm", "products")) < 1.4
    assert len(matters) > 10
    assert all(0.6 < price < 1.7 for key, price in prices.items() if key in matters), prices
