# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, one-line errors, and that its commands do what they say."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import main

COMMANDS = ("info", "explain", "summary", "bench", "check", "train", "evaluate", "predict", "convert", "demo")
PROBLEM = "fwd n1 c8 h14 w14 k8 r3 s3 stride1 pad1"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command line."""
    try:
        code = main(arguments)
    except SystemExit as leaving:  # argparse: --help, --version, wrong usage
        code = leaving.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def without(modules: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process that cannot import `modules`."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({modules.split()!r}))"
    code = f"{blocked}; from fastconv.cli import main; sys.exit(main())"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=120)


@pytest.fixture
def small_set(tmp_path):
    """A folder with a small .npz data set of two easily told classes: left half bright, right half bright."""
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = generator.random((60, 8, 8)).astype(np.float32) * 0.2
    images[labels == 0, :, :4] += 0.8
    images[labels == 1, :, 4:] += 0.8
    folder = tmp_path / "sides"
    folder.mkdir()
    np.savez(folder / "sides.npz", images=images, labels=labels)
    return folder


# Help, version, usage


def test_version_and_module_entry():
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"fastconv {fc.__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(capsys, command):
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, "") and f"example:\n  fastconv {command}" in out
    code, out, _ = run(capsys, "--help")
    assert code == 0 and f"\n    {command} " in out


def test_examples_in_the_help_parse(capsys):
    from fastconv.cli import _parser

    for command in COMMANDS:
        _, out, _ = run(capsys, command, "--help")
        example = out.split("example:\n  fastconv ")[1].strip()
        words = shlex.split(example)
        assert _parser().parse_args(words).command == command


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("bake",),
        ("explain",),
        ("bench", "--threads", "0"),
        ("train", "--model", "lenet6"),
        ("train", "--epochs", "0"),
        ("train", "--lr", "-1"),
        ("train", "--seed", "-1"),
        ("train", "--optimizer", "lion"),
        ("evaluate",),
        ("demo", "--epochs", "many"),
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert code == 2 and out == "" and "usage: fastconv" in err and "Traceback" not in err


# info and explain


def test_info_prints_and_gives_json(capsys):
    code, out, err = run(capsys, "info")
    assert (code, err) == (0, "")
    code, as_json, _ = run(capsys, "info", "--json")
    facts = json.loads(as_json)
    assert code == 0 and facts.keys() == fc.info().keys()
    assert all(name in out for name in facts)


def test_explain_with_and_without_quotes(capsys):
    code, out, err = run(capsys, "explain", PROBLEM)
    assert (code, err) == (0, "") and out.strip()
    assert run(capsys, "explain", *PROBLEM.split())[:2] == (0, out)
    code, as_json, _ = run(capsys, "explain", PROBLEM, "--json", "--measure")
    assert code == 0 and json.loads(as_json)


def test_the_table_of_explain(capsys, monkeypatch):
    """Only columns that hold something, each reason with one name, numbers that a person reads."""
    monkeypatch.setenv("COLUMNS", "120")
    for problem, count in (
        ("fwd n8 c3 h64 w64 k16 r3 s3 stride2 pad1 f16", "3.54 million"),
        ("fwd n1 c4 d8 h16 w16 k8 t3 r3 s3 pad1 reflect bf16", "1.77 million"),
        ("bwd_data n2 c16 h32 w32 k32 r3 s3 stride2 pad1 g4 nhwc bias f16", "589,824"),
        ("bwd_filter n1 c16 w32 k32 s3 g16 f16", "2,880"),
        ("bwd_data n64 c256 h56 w56 k256 r3 s3 pad1 bias relu", "118 billion"),
    ):
        _, out, _ = run(capsys, "explain", problem)
        lines = out.splitlines()
        assert lines[0].split()[0] == problem.split()[0] and lines[1].startswith(f"{count} multiply-adds")
        (titles,) = [line.split() for line in lines if line.split()[:1] == ["algorithm"]]
        assert titles[:3] == ["algorithm", "predicted", "workspace"] and "measured" not in titles
        assert sum(line.startswith("*") for line in lines) == 1 and " - " not in out
        for name in (row["name"] for row in fc.algorithms(problem)):
            assert sum(line.lstrip("* ").startswith((f"{name} ", f"not usable: {name}")) for line in lines) >= 1
    _, out, _ = run(capsys, "explain", "fwd n1 c4 h8 w8 k8 r3 s3 pad1 bf16", "--measure", "--budget", "30")
    assert "errors against float64" in out and "GFLOP/s" in out
    with fc.options(max_workspace=10):
        _, out, _ = run(capsys, "explain", "bwd_data n2 c16 h32 w32 k32 r3 s3 nhwc bias f16")
    assert "reference is chosen" in out and out.count("max_workspace is 10") > 1


def test_explain_writes_a_page_and_says_what_a_device_lacks(capsys, tmp_path):
    code, out, err = run(capsys, "explain", PROBLEM, "--errors", "--html", str(tmp_path / "page.html"))
    assert (code, err) == (0, "") and "max error" in out and "measured" not in out
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    code, _, err = run(capsys, "explain", PROBLEM, "--device", "gpu")
    assert code == 2 and "device is 'gpu'" in err
    assert run(capsys, "explain", PROBLEM, "--budget", "-1")[0] == 2


def test_explain_of_no_problem_is_one_line_and_exit_code_2(capsys):
    code, out, err = run(capsys, "explain", "sideways n1 c3")
    assert (code, out) == (2, "") and err.startswith("fastconv: ") and err.count("\n") == 1


@pytest.mark.parametrize("arguments", [("info",), ("explain", PROBLEM), ("summary", "lenet5")])
def test_numpy_alone_is_enough_for_these(arguments):
    done = without("rich matplotlib PIL safetensors", *arguments)
    assert done.returncode == 0 and done.stdout.strip() and done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        (("train",), "rich matplotlib"),
        (("train",), "matplotlib"),
        (("evaluate", "--checkpoint", "x.npz"), "rich"),
        (("demo",), "rich matplotlib"),
        (("predict", "--weights", "x.npz", "p.jpg"), "PIL rich"),
    ],
)
def test_other_commands_name_the_extra_that_they_need(arguments, modules):
    done = without(modules, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"fastconv: {arguments[0]} needs {modules.split()[0]}")
    assert done.stderr.endswith('pip install "fastconv[demo]"\n') and done.stderr.count("\n") == 1


def test_numpy_alone_is_enough_to_convert(tmp_path):
    np.savez(tmp_path / "in.npz", w=np.arange(3))
    done = without(
        "rich matplotlib PIL safetensors torch", "convert", str(tmp_path / "in.npz"), str(tmp_path / "o.npz")
    )
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "o.npz").exists()


# Errors


def test_errors_are_one_line_without_traceback(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib comes with fastconv[demo]")
    pytest.importorskip("rich", reason="rich comes with fastconv[demo]")
    arguments = ("train", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out"))
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (1, "") and err.count("\n") == 1
    assert err.startswith("fastconv: ") and "no such file or folder" in err
    assert not (tmp_path / "out").exists()
    monkeypatch.setenv("FASTCONV_LOG", "debug")
    _, _, err = run(capsys, *arguments)
    assert "Traceback" in err and err.splitlines()[-1].startswith("fastconv: ")


def test_interrupt_is_exit_code_1(capsys, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(fc, "info", interrupted)
    code, _, err = run(capsys, "info")
    assert code == 1 and err == "fastconv: interrupted; what was saved before is whole\n"


def test_unforeseen_errors_say_their_kind(capsys, monkeypatch):
    monkeypatch.setattr(fc, "info", lambda: {}["surprise"])
    code, _, err = run(capsys, "info")
    assert code == 1 and err == "fastconv: KeyError: 'surprise' (FASTCONV_LOG=debug shows where)\n"


# train and evaluate


@pytest.fixture
def extra():
    for module in ("matplotlib", "rich"):
        pytest.importorskip(module, reason=f"{module} comes with fastconv[demo]")


@pytest.mark.usefixtures("extra")
def test_train_then_resume_then_evaluate(capsys, tmp_path, small_set):
    common = ("train", "--data", str(small_set), "--batch-size", "16", "--lr", "0.002", "--augment")
    straight, half = tmp_path / "straight", tmp_path / "half"
    code, out, err = run(capsys, *common, "--epochs", "4", "--out", str(straight))
    assert (code, err) == (0, "") and out.count("\nepoch ") + out.startswith("epoch ") == 4
    assert sorted(path.name for path in straight.iterdir()) == ["checkpoint.npz", "history.json", "training_curve.png"]
    assert len(json.loads((straight / "history.json").read_text())["epochs"]) == 4

    assert run(capsys, *common, "--epochs", "2", "--out", str(half))[0] == 0
    saved = half / "checkpoint.npz"
    code, _, err = run(capsys, *common, "--epochs", "4", "--out", str(half))
    assert code == 1 and f"--resume {saved}" in err and "--overwrite" in err
    assert run(capsys, *common, "--epochs", "4", "--out", str(half), "--resume", str(saved))[0] == 0
    ends = [fc.train.load_checkpoint(folder / "checkpoint.npz").model for folder in (straight, half)]
    for name, value in ends[0].items():
        assert value.tobytes() == ends[1][name].tobytes(), name

    code, out, err = run(capsys, "evaluate", "--checkpoint", str(saved), "--data", str(small_set))
    assert (code, err) == (0, "") and "lenet5 after 4 epochs" in out and "rows: true class" in out
    code, out, _ = run(capsys, "evaluate", "--checkpoint", str(saved), "--data", str(small_set), "--json")
    record = json.loads(out)
    assert code == 0 and record["accuracy"] == 1.0 and record["confusion_matrix"] == [[6, 0], [0, 6]]
    assert record["class_support"] == [6, 6] and record["support"] == 12


@pytest.mark.usefixtures("extra")
def test_trains_a_network_with_auxiliary_classifiers(capsys, tmp_path, small_set, monkeypatch):
    entry = fc.models._ENTRIES["googlenet"]

    def narrow(num_classes, in_channels):
        return entry.build(num_classes, in_channels, width_mult=1 / 16)

    monkeypatch.setitem(fc.models._ENTRIES, "googlenet", entry._replace(build=narrow, input_shape=(3, 32, 32)))
    out = tmp_path / "run"
    code, text, err = run(
        capsys, "train", "--model", "googlenet", "--data", str(small_set), "--epochs", "1", "--out", str(out)
    )
    assert (code, err) == (0, "") and "held-out accuracy" in text
    assert "aux1.fc2.weight" in fc.train.load_checkpoint(out / "checkpoint.npz").model


@pytest.mark.usefixtures("extra")
def test_train_refuses_a_network_that_gives_no_scores(capsys, tmp_path, small_set, monkeypatch):
    def maps(num_classes, in_channels):
        return fc.nn.Conv2d(in_channels, num_classes, 1)

    entry = fc.models._ENTRIES["lenet5"]._replace(build=maps)
    monkeypatch.setitem(fc.models._ENTRIES, "maps", entry)
    code, _, err = run(capsys, "train", "--model", "maps", "--data", str(small_set), "--out", str(tmp_path / "run"))
    assert code == 1 and "maps answers an image with shape (2, 32, 32); expected a score for each of 2 classes" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("extra")
def test_evaluate_refuses_what_does_not_fit(capsys, tmp_path, small_set):
    out = tmp_path / "run"
    train = ("train", "--data", str(small_set), "--epochs", "1", "--out", str(out), "--optimizer", "sgd")
    assert run(capsys, *train)[0] == 0
    saved = str(out / "checkpoint.npz")
    code, _, err = run(capsys, "evaluate", "--checkpoint", saved, "--data", "digits")
    assert code == 1 and "the checkpoint knows ['0', '1']" in err
    code, _, err = run(capsys, "train", "--data", "digits", "--out", str(out), "--resume", saved)
    assert code == 1 and "they must be equal" in err
    fc.train.save_checkpoint(saved, fc.train.Checkpoint(model={}))
    code, _, err = run(capsys, "evaluate", "--checkpoint", saved)
    assert code == 1 and "does not say which model it holds" in err
    code, _, err = run(capsys, "evaluate", "--checkpoint", str(tmp_path / "none.npz"))
    assert code == 1 and "none.npz" in err and err.count("\n") == 1


# demo


@pytest.mark.usefixtures("extra")
def test_demo_reaches_98_percent_and_writes_its_report(capsys, tmp_path):
    out = tmp_path / "report"
    code, shown, err = run(capsys, "demo", "--out", str(out))
    assert (code, err) == (0, ""), shown
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"] >= 0.98 and report["support"] == 359
    assert len(report["history"]["epochs"]) == report["recipe"]["epochs"] == 30
    matrix = np.array(report["confusion_matrix"])
    assert matrix.sum() == 359 and np.trace(matrix) / 359 == report["accuracy"]
    assert report["per_class"]["7"]["support"] == matrix[7].sum()
    for name in ("training_curve", "confusion_matrix", "filters", "activations"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"{name}.png" in shown
    assert "fwd n32 c6 h14 w14 k16 r5 s5" in shown


@pytest.mark.usefixtures("extra")
def test_demo_that_misses_its_promise_fails(capsys, tmp_path, monkeypatch):
    from fastconv import demo

    monkeypatch.setattr(demo, "EPOCHS", 1)
    code, _, err = run(capsys, "demo", "--out", str(tmp_path))
    assert code == 1 and "expected at least 98%" in err
    assert (tmp_path / "report.json").exists()
    assert run(capsys, "demo", "--out", str(tmp_path), "--epochs", "1")[0] == 0
