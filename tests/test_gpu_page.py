# SPDX-License-Identifier: Apache-2.0
"""docs/gpu.md and cuda/verified.h are what docs/make_gpu.py writes; the report's parts that need no GPU."""

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

from bench import gpu_classes, gpu_machine, gpu_parity, gpu_report, gpu_sources, gpu_summary, gpu_timing
from fastconv import ConvProblem
from fastconv.bench import report

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def maker():
    spec = importlib.util.spec_from_file_location("make_gpu", ROOT / "docs" / "make_gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    """A repository of two algorithms: `near` shares a header, and what is behind it, with `far`."""
    texts = {
        "csrc/algorithm.h": '#include "problem.h"\n',
        "csrc/problem.h": "struct P;\n",
        "cuda/near.cu": '#include "shared.cuh"\n',
        "cuda/near_by.cu": "int near_by;\n",
        "cuda/far.cu": '#include <vector>\n#include "shared.cuh"\n#include "far.cuh"\n',
        "cuda/far.cuh": '#include "../csrc/algorithm.h"\n#include "elsewhere.h"\n',
        "cuda/shared.cuh": "void f();\n",
        "cuda/shared.cu": "void f() {}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def row(torch, ours, pass_="fwd", problem="n1 c4 h8 w8 k4 r3 s3 stride1 pad1 dil1 g4", **more):
    return {"problem": problem, "pass": pass_, "torch": {"median_s": torch}, "ours": {"median_s": ours}, **more}


def result(**changes):
    """As bench.gpu_report writes it, with all algorithms right."""
    sources = gpu_sources.digests()
    return {
        "format": report.FORMAT,
        "kind": "gpu",
        "date": "2030-01-02T03:04:05+00:00",
        "commit": "0123456789ab",
        "seed": 7,
        "gpu": {"name": "NVIDIA T1", "architecture": 90, "multiprocessors": 4},
        "versions": {"torch": "9"},
        "sources": sources,
        "parity": {name: {"runs": 10, "failures": 0, "passed": True} for name in sources},
        "classes": {},
        **changes,
    }


@pytest.mark.parametrize("name", ["PAGE", "HEADER"])
def test_what_is_written_is_up_to_date(maker, name):
    """So that a kernel that was changed does not stay marked as verified."""
    found, digests = maker.results(), gpu_sources.digests()
    newest = found[-1] if found else None
    texts = {"PAGE": maker.page(digests, newest), "HEADER": maker.header(maker.verified(digests, newest))}
    assert getattr(maker, name).read_text(encoding="utf-8") == texts[name], "run python docs/make_gpu.py"


def test_without_a_result_nothing_is_verified(maker):
    page = maker.page(gpu_sources.digests(), None)
    assert "Nothing here has been verified on a GPU" in page and "python -m bench.gpu_report" in page
    assert page.count("| never ran on a GPU |") == len(gpu_sources.algorithms())
    assert maker.header([]) and "kVerifiedNameCount = 0;" in maker.header([])


def test_an_algorithm_is_verified_until_it_changes(maker):
    digests, told = gpu_sources.digests(), result()
    assert maker.verified(digests, told) == sorted(digests)
    assert f'"{min(digests)}", ' in maker.header(sorted(digests))
    assert f"kVerifiedNameCount = {len(digests)};" in maker.header(sorted(digests))
    changed = {**digests, "direct": "0" * 64}
    assert "direct" not in maker.verified(changed, told)
    page = maker.page(changed, told)
    assert "| `direct` | changed since it was verified on NVIDIA T1, 2030-01-02 | 10 |" in page
    assert "| `grouped` | verified on NVIDIA T1, 2030-01-02 | 10 |" in page
    assert "`direct`" not in "".join(line for line in page.splitlines() if "| verified" in line)


def test_what_failed_or_never_ran_is_not_verified(maker):
    entries = result()["parity"]
    entries["direct"] = {"runs": 10, "failures": 2, "passed": False}
    entries["grouped"] = {"runs": 0, "failures": 0, "passed": False}
    entries["pool"] = {"runs": 0, "failures": 0, "passed": False, "ended": "status -6: abort"}
    del entries["depthwise"]
    told, digests = result(parity=entries), gpu_sources.digests()
    assert {"direct", "grouped", "pool", "depthwise"}.isdisjoint(maker.verified(digests, told))
    words = {name: maker.status(name, digests[name], told) for name in digests}
    assert words["direct"].startswith("wrong on NVIDIA T1, 2030-01-02: 2 failures in 10 runs")
    assert words["grouped"].startswith("computes nothing") and words["depthwise"].startswith("never ran")
    assert "abort" in words["pool"]
    assert gpu_summary.wrong(entries) == ["direct", "pool"]


def test_the_newest_result_counts(maker, tmp_path):
    for name, date, kind in (("a", "2030", "gpu"), ("b", "2029", "gpu"), ("c", "2031", "layers")):
        report.save({"format": 1, "kind": kind, "date": date}, tmp_path / f"{name}.json")
    assert [r["date"] for r in maker.results(tmp_path)] == ["2029", "2030"]


def test_files_of_an_algorithm(tree):
    common = ["csrc/algorithm.h", "csrc/problem.h"]
    assert gpu_sources.files_of("near", tree) == [
        *common, "cuda/near.cu", "cuda/near_by.cu", "cuda/shared.cu", "cuda/shared.cuh"]  # fmt: skip
    far = [*common, "cuda/far.cu", "cuda/far.cuh", "cuda/shared.cu", "cuda/shared.cuh"]
    assert gpu_sources.files_of("far", tree) == gpu_sources.files_of("far_2x2", tree) == far
    with pytest.raises(LookupError, match="nowhere"):
        gpu_sources.files_of("nowhere", tree)


def test_the_sum_changes_with_code_alone(tree):
    before = [gpu_sources.digest(name, tree) for name in ("near", "far")]
    assert gpu_sources.without_comments('a = "// no /* comment";  // b\n') == 'a = "// no /* comment";'
    assert gpu_sources.without_comments("void  f( /* nothing\n */ )\n{}\n") == "void f( ) {}"
    (tree / "cuda/shared.cuh").write_text("// better words\nvoid f();\n")
    assert [gpu_sources.digest(name, tree) for name in ("near", "far")] == before
    (tree / "cuda/far.cuh").write_text("int more;\n")
    after = [gpu_sources.digest(name, tree) for name in ("near", "far")]
    assert after[0] == before[0] and after[1] != before[1]


def test_real_algorithms_have_their_files():
    files = {name: gpu_sources.files_of(name) for name in gpu_sources.algorithms()}
    assert {"cuda/gemm.cu", "cuda/conv.cuh", "cuda/device.cuh"} <= set(files["im2col_gemm"])
    assert {"cuda/pool_positions.cu", "csrc/pool_buffers.h"} <= set(files["pool"])
    assert {"cuda/pointwise.cu", "cuda/norm_sums.cu", "cuda/softmax.cu"} <= set(files["ops"])
    assert not {"cuda/pointwise_1x1.cu", "cuda/gemm.cu"} & set(files["ops"])
    assert files["implicit_gemm"] == files["implicit_gemm_tf32"]
    for name, found in files.items():
        assert set(gpu_sources.ALWAYS) <= set(found), name
        assert not [f for f in found if f.endswith("verified.h") or not f.startswith(("cuda/", "csrc/"))], name
    kernels = {f"cuda/{path.name}" for path in (ROOT / "cuda").glob("*.cu")} - {"cuda/runtime.cu"}
    assert kernels == {f for found in files.values() for f in found if f.endswith(".cu")}


def test_means_targets_and_shares(maker):
    c = next(c for c in gpu_classes.CLASSES if c.name == "depthwise_f32")
    copied = row(4.0, 1.0, copy={"median_s": 0.9}, chosen="a", algorithms={"a": 3.0, "b": 2.0})
    rows = {"one": copied, "two": row(1.0, 1.0, "bwd_filter", copy={"median_s": 0.1})}
    classes = {c.name: {"finished": True, "rows": rows}}
    entry = gpu_summary.summary(classes)[c.name]
    assert entry["mean"] == pytest.approx(2) and entry["met"] and entry["counted"] == 2
    assert entry["worst"] == "two" and entry["regret"] == pytest.approx(0.5)
    assert gpu_summary.bandwidth(classes)[c.name] == pytest.approx(
        {"mean": 0.9, "least": 0.9, "least_row": "one", "rows": 1, "target": gpu_classes.COPY_SHARE}
    )
    text = maker.page(gpu_sources.digests(), result(classes=classes))
    assert re.search(
        r"\| depthwise, float32, NCHW \| 1.8 \| 2.00 \| yes \| 2 of 18 \| 1.00: two \| 90 % \| 50 % \|", text
    )
    assert "| grouped | 2.0 |  |  |" in text  # not run

    classes[c.name]["rows"]["three"] = {**row(1.0, 1.0), "ours": {"wrong": "error 1 is over 0"}}
    assert gpu_summary.summary(classes)[c.name]["bad"] == ["three"]
    assert not gpu_summary.summary(classes)[c.name]["met"]
    classes[c.name] = {"finished": False, "rows": rows | {"three": row(9.0, 1.0)}}
    assert not gpu_summary.summary(classes)[c.name]["met"]


def test_classes_are_problems_of_every_target():
    keys = [p.key for c in gpu_classes.CLASSES for p in c.problems()]
    assert len(keys) == len(set(keys)) and 200 < len(keys) < 300
    assert {c.target for c in gpu_classes.CLASSES} == {1.2, 0.9, 1.8, 1.5, 3.0, 2.0, 1.4, 1.1, None}
    for c in gpu_classes.CLASSES:
        for problem in c.problems():
            if not c.pooling and not c.operation:
                p = ConvProblem.parse(f"fwd {problem.text} nchw f32")
                assert p.pad_begin == p.pad_end and max(p.filter) == gpu_classes.filter_size(problem.text)
    assert gpu_classes.numbers("n2 stride2x1 pad0", "stride") == (2, 1)
    assert [c.name for c in gpu_classes.chosen("single, grouped")] == ["single", "grouped"]


def test_what_the_checks_say_is_read():
    text = "FAILED direct fwd n1\ncuda (NVIDIA T1, architecture 90), seed 3: 5 problems, 70 runs, 1 failures\n"
    entry = gpu_parity.read(1, text)
    assert (entry["problems"], entry["runs"], entry["failures"], entry["passed"]) == (5, 70, 1, False)
    assert entry["failed"] == ["FAILED direct fwd n1"]
    assert gpu_parity.read(0, "x: 5 problems, 70 runs, 0 failures")["passed"]
    assert not gpu_parity.read(1, "x: 5 problems, 0 runs, 0 failures")["passed"]
    pool = gpu_parity.read(0, "20 pooling problems, 5 of positions, 0 failures")
    assert pool["passed"] and pool["runs"] == 25
    assert gpu_parity.read(0, "20 pointwise operations, 20 normalisations, 0 failures")["runs"] == 40
    assert gpu_parity.read(-6, "copy: an illegal memory access was encountered")["ended"].startswith("status -6: copy")
    words = gpu_parity.command(Path("lib.so"), "direct", 9, every=40)
    assert words[-6:] == ["--algorithm", "direct", "--seed", "9", "--every", "40"]
    for name, (program, cases) in gpu_parity.DRAWN.items():
        words = gpu_parity.command(Path("lib.so"), name, 9)
        assert words[0].endswith(program) and words[1:] == ["lib.so", str(cases), "9"]


def test_a_sanitizer_that_refuses_the_device_has_not_run():
    refused = gpu_parity.told(1, "========= COMPUTE-SANITIZER\n========= Error: Device not supported\n")
    assert refused["did not run"] == "Error: Device not supported"
    clean = gpu_parity.told(0, "x: 5 problems, 70 runs, 0 failures\n========= ERROR SUMMARY: 0 errors\n")
    assert clean["clean"] and clean["tail"][-1].endswith("0 errors")
    assert not gpu_parity.told(99, "x: 5 problems, 70 runs, 0 failures\n========= ERROR SUMMARY: 2 errors\n")["clean"]


def test_without_a_gpu_there_is_a_sentence(monkeypatch, capsys):
    ask = gpu_machine.gpu
    monkeypatch.setattr(gpu_machine, "gpu", lambda: ask("libof-no-driver.so"))
    assert gpu_report.main([]) == 1
    said = capsys.readouterr()
    assert said.err == "bench.gpu_report: there is no NVIDIA driver here: libof-no-driver.so was not found\n"
    with pytest.raises(SystemExit) as stopped:
        gpu_report.main(["--only", "everything"])
    assert stopped.value.code == 2 and "the classes are dense_f32" in capsys.readouterr().err


def test_a_result_is_resumed_only_with_its_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_machine, "versions", dict)  # it would import torch
    gpu = gpu_machine.Gpu("NVIDIA T1", 90, 4, 1 << 30, 1 << 20, "13.0")
    assert gpu.slug == "t1" and gpu_machine.Gpu("NVIDIA GeForce RTX 4090", 89, 1, 1, 1, "").slug == "rtx-4090"
    path = tmp_path / "r.json"
    arguments = gpu_report.parser().parse_args(["--resume", str(path)])
    report.save(result(), path)
    assert gpu_report.started(arguments, gpu)[0]["seed"] == 7
    report.save(result(sources={**gpu_sources.digests(), "direct": "0"}), path)
    with pytest.raises(ValueError, match=r"direct changed since r\.json"):
        gpu_report.started(arguments, gpu)
    report.save(result(gpu={"name": "another"}), path)
    with pytest.raises(ValueError, match="this is NVIDIA T1"):
        gpu_report.started(arguments, gpu)
    fresh, place = gpu_report.started(gpu_report.parser().parse_args(["--seed", "5"]), gpu)
    assert fresh["seed"] == 5 and re.fullmatch(r"t1-\d{4}-\d\d-\d\d\.json", place.name)


def test_timing_goes_on_behind_a_kernel_that_broke_the_device(tmp_path, monkeypatch, capsys):
    """Rows that are there are not measured again, and every row is saved."""
    measured = []

    class Rows:
        def __init__(self, torch, l2_bytes, excluded):
            assert excluded == {"direct"}

        def measure(self, c, problem):
            measured.append(problem.key)
            if len(measured) == 3:
                raise gpu_timing.BrokenDeviceError({"running": "grouped", **row(1.0, 1.0)}, "an illegal address")
            return row(2.0, 1.0)

    torch = types.SimpleNamespace(cuda=types.SimpleNamespace(is_available=lambda: True))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(gpu_timing, "Rows", Rows)
    told = result(gpu={"name": "NVIDIA T1", "l2_bytes": 1})
    told["parity"]["direct"] = {"runs": 3, "failures": 1, "passed": False}
    work = gpu_report.Report(told, tmp_path / "r.json", 60)
    classes = gpu_classes.chosen("pool_forward,grouped")
    assert not gpu_report.time_classes(work, classes)
    assert "grouped broke the device: an illegal address" in capsys.readouterr().out
    again = gpu_report.Report(report.load(tmp_path / "r.json"), tmp_path / "r.json", 60)
    assert gpu_report.time_classes(again, classes)
    assert len(measured) == len(set(measured)) == sum(len(c.problems()) for c in classes)
    saved = report.load(tmp_path / "r.json")
    assert all(saved["classes"][c.name]["finished"] for c in classes)
    assert saved["summary"]["grouped"]["mean"] == pytest.approx(2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_report.time_classes(again, classes) and "finds no GPU" in report.load(tmp_path / "r.json")["timing"]
